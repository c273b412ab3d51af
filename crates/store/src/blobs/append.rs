//! The end of the last pack, where new records go.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::Arc;

use super::disk::Disk;
use super::index::PACK_NUMBERS_MAX;
use super::pack::{Entry, Header, PackFiles, write_index};

/// Memory that is kept from one batch for the next, in bytes.
/// Higher: an idle server keeps it for nothing.  Lower: getting and clearing memory
/// costs as much as writing it.
const BATCH_BYTES_KEPT: usize = 5 * 1024 * 1024;

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
    /// Where a batch is put together, kept to be used again.
    records: Vec<u8>,
    /// Packs that were written to since they were forced to the disk.
    pub(super) dirty: BTreeMap<u32, Arc<File>>,
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
            records: Vec::new(),
            dirty: BTreeMap::new(),
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
        *self = Self::new(dir, &self.disk, next, 0, 0);
        self.dirty = dirty;
        Ok(())
    }

    /// Writes records at the end of the pack, or none of them.
    pub(super) fn append(&mut self, new: &[(Header, &[u8])], sync: bool) -> io::Result<()> {
        // What an earlier call left when it failed must not be written now.
        self.records.clear();
        for (header, bytes) in new {
            self.records.extend_from_slice(&header.to_bytes());
            self.records.extend_from_slice(bytes);
        }
        let file = match &self.file {
            Some(file) => Arc::clone(file),
            None => {
                let file = Arc::new(self.disk.open(&self.files.pack)?);
                self.file = Some(Arc::clone(&file));
                file
            }
        };
        let mut result = self.disk.write_at(&file, &self.records, self.len);
        self.unwritten += self.records.len() as u64;
        if sync && result.is_ok() {
            result = self.disk.sync(&file);
        }
        match result {
            Ok(()) => self.len += self.records.len() as u64,
            // If this fails too, the next open cuts the torn record off.
            Err(_) => drop(self.disk.set_len(&file, self.len)),
        }
        if !sync {
            self.dirty.insert(self.number, file);
        }
        self.records.clear();
        self.records.shrink_to(BATCH_BYTES_KEPT);
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
