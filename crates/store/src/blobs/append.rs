//! The end of the last pack, where new records go.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::Arc;

use super::disk::Disk;
use super::index::PACK_NUMBERS_MAX;
use super::pack::{Entry, Header, PackFiles, write_index};

/// The pack that new records go to.
pub(super) struct Writer {
    pub(super) number: u32,
    files: PackFiles,
    disk: Disk,
    /// Absent until the first record: a store without blobs makes no file.
    pub(super) file: Option<Arc<File>>,
    pub(super) len: u64,
    /// Entries in the index file.
    indexed: u64,
    /// Entries that the index file does not have yet, because the disk was full.
    backlog: Vec<Entry>,
    /// Packs that were written to since they were forced to the disk; without a file those
    /// that an earlier process may have written to.
    pub(super) dirty: BTreeMap<u32, Option<Arc<File>>>,
    /// Whether packs were made since their folder was forced to the disk.
    pub(super) has_new_packs: bool,
    /// Bytes since the disk was last asked to begin with what there is.
    pub(super) unwritten: u64,
}

impl Writer {
    pub(super) fn new(dir: &Path, disk: &Disk, number: u32, len: u64, indexed: u64) -> Self {
        Self {
            number,
            files: PackFiles::new(dir, number),
            disk: disk.clone(),
            file: None,
            len,
            indexed,
            backlog: Vec::new(),
            dirty: BTreeMap::new(),
            has_new_packs: false,
            unwritten: 0,
        }
    }

    /// Goes on with an empty pack.
    pub(super) fn turn(&mut self, dir: &Path) -> io::Result<()> {
        let next = self.number + 1;
        if next >= PACK_NUMBERS_MAX {
            return Err(io::Error::other("there are no numbers left for packs"));
        }
        let dirty = std::mem::take(&mut self.dirty);
        let has_new_packs = self.has_new_packs;
        *self = Self::new(dir, &self.disk, next, 0, 0);
        self.dirty = dirty;
        self.has_new_packs = has_new_packs;
        Ok(())
    }

    /// Writes records at the end of the pack, or none of them.
    pub(super) fn append(&mut self, new: &[(Header, &[u8])], sync: bool) -> io::Result<()> {
        let headers: Vec<_> = new.iter().map(|(header, _)| header.to_bytes()).collect();
        let records = headers.iter().zip(new);
        let parts: Vec<&[u8]> = records
            .flat_map(|(header, (_, bytes))| [header.as_slice(), bytes])
            .collect();
        let added = parts.iter().map(|part| part.len() as u64).sum::<u64>();
        let file = match &self.file {
            Some(file) => Arc::clone(file),
            None => {
                let file = Arc::new(self.disk.open(&self.files.pack)?);
                self.file = Some(Arc::clone(&file));
                self.has_new_packs |= self.len == 0;
                file
            }
        };
        let mut result = self.disk.write_parts_at(&file, &parts, self.len);
        self.unwritten += added;
        if sync && result.is_ok() {
            result = self.disk.sync(&file);
        }
        match result {
            Ok(()) => self.len += added,
            // If this fails too, the next open cuts the torn record off.
            Err(_) => drop(self.disk.set_len(&file, self.len)),
        }
        if !sync {
            self.dirty.insert(self.number, Some(file));
        }
        result
    }

    pub(super) fn index(&mut self, entries: &[Entry]) {
        self.backlog.extend_from_slice(entries);
        match write_index(&self.files, &self.disk, self.indexed, &self.backlog) {
            Ok(()) => {
                self.indexed += self.backlog.len() as u64;
                self.backlog.clear();
            }
            Err(error) => {
                // It is a cache of the pack, and written with the next batch.
                tracing::debug!(%error, "could not extend the index of a pack");
            }
        }
    }
}
