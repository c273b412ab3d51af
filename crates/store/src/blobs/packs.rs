//! Small blobs: many in one pack file, found through an index in memory.
//!
//! The index costs 25 bytes per slot (some 29 to 57 bytes per blob), which for a
//! million blobs is less than a file system's cache of as many files.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use bytes::Bytes;
use grid_core::blob::BlobId;
use grid_core::time::Timestamp;

use super::grace::Grace;
use super::pack::{
    Entry, HEADER_BYTES, Header, Key, PackFiles, Records, key, open, open_pack, write_index,
};
use super::reader::BlobReader;
use super::{BlobError, BlobInfo, Deleted};

/// Longest pack file in bytes.
/// Higher: rewriting one after deletions takes longer.  Lower: more files.
const PACK_BYTES_MAX: u64 = 256 * 1024 * 1024;

/// Pack files that are kept open for reading.
/// Higher: more file descriptors.  Lower: more opening when reads are spread widely.
const PACKS_OPEN_MAX: usize = 64;

/// Records that are moved at a time when a pack is rewritten.
/// Higher: uploads wait longer beside it.  Lower: rewriting takes longer.
const REWRITE_RECORDS: usize = 256;

/// Memory that is kept from one batch for the next, in bytes.
/// Higher: an idle server keeps it for nothing.  Lower: getting and clearing memory
/// costs as much as writing it.
const BATCH_BYTES_KEPT: usize = 2 * 1024 * 1024;

/// Blobs that are deleted at a time.
/// Higher: uploads wait longer beside it.  Lower: more small writes.
const DELETE_BLOBS: usize = 1024;

/// How often a reader looks again when the pack it was about to open is rewritten.
const LOOK_TRIES_MAX: usize = 8;

pub(super) struct Packs {
    dir: PathBuf,
    sync: bool,
    /// Whoever changes packs holds this; it is taken before the index.
    writer: Mutex<Writer>,
    index: RwLock<Index>,
    open: Mutex<HashMap<u32, Arc<File>>>,
}

#[derive(Default)]
struct Index {
    blobs: HashMap<Key, Place>,
    packs: BTreeMap<u32, Sizes>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
struct Place {
    pack: u32,
    offset: u32,
}

/// How full a pack is, in bytes.
#[derive(Clone, Copy, Default)]
struct Sizes {
    len: u64,
    live: u64,
}

/// The pack that new records go to.
struct Writer {
    number: u32,
    files: PackFiles,
    /// Absent until the first record: a store without blobs makes no file.
    file: Option<File>,
    len: u64,
    /// Entries in the index file.
    indexed: u64,
    /// Entries that the index file does not have yet, because the disk was full.
    backlog: Vec<Entry>,
    /// Where a batch is put together, kept to be used again.
    records: Vec<u8>,
}

impl Writer {
    fn new(dir: &Path, number: u32, len: u64, indexed: u64) -> Self {
        Self {
            number,
            files: PackFiles::new(dir, number),
            file: None,
            len,
            indexed,
            backlog: Vec::new(),
            records: Vec::new(),
        }
    }

    /// Writes records at the end of the pack, or none of them.
    fn append(&mut self, new: &[(Header, &Bytes)], sync: bool) -> io::Result<()> {
        // What an earlier call left when it failed must not be written now.
        self.records.clear();
        for (header, bytes) in new {
            self.records.extend_from_slice(&header.to_bytes());
            self.records.extend_from_slice(bytes);
        }
        let file = match &mut self.file {
            Some(file) => file,
            None => self.file.insert(open(&self.files.pack)?),
        };
        let mut result = file.write_all_at(&self.records, self.len);
        if sync && result.is_ok() {
            result = file.sync_data();
        }
        match result {
            Ok(()) => self.len += self.records.len() as u64,
            // If this fails too, the next open cuts the torn record off.
            Err(_) => drop(file.set_len(self.len)),
        }
        self.records.clear();
        self.records.shrink_to(BATCH_BYTES_KEPT);
        result
    }

    fn index(&mut self, entries: &[Entry]) {
        self.backlog.extend_from_slice(entries);
        match write_index(&self.files, self.indexed, &self.backlog) {
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

impl Packs {
    pub(super) fn open(dir: &Path, sync: bool) -> Result<Self, BlobError> {
        let doing = |source| BlobError::io(format!("open the packs in {}", dir.display()), source);
        let (index, writer) = load(dir).map_err(doing)?;
        Ok(Self {
            dir: dir.to_path_buf(),
            sync,
            writer: Mutex::new(writer),
            index: RwLock::new(index),
            open: Mutex::new(HashMap::new()),
        })
    }

    // A panic while one of these is held leaves at worst a record that is not in the
    // index: it is stored again, or found at the next start.
    fn writer(&self) -> MutexGuard<'_, Writer> {
        self.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn index(&self) -> RwLockReadGuard<'_, Index> {
        self.index.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn index_mut(&self) -> RwLockWriteGuard<'_, Index> {
        self.index.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Which of these are not here.
    pub(super) fn missing(&self, mut ids: Vec<BlobId>) -> Vec<BlobId> {
        let index = self.index();
        ids.retain(|id| !index.blobs.contains_key(&key(id)));
        ids
    }

    /// Stores those that are not here yet.
    pub(super) fn put(&self, blobs: &[(BlobId, Bytes)], at: Timestamp) -> Result<(), BlobError> {
        let mut writer = self.writer();
        let mut new: Vec<(Header, &Bytes)> = Vec::with_capacity(blobs.len());
        {
            let index = self.index();
            let mut seen = HashSet::with_capacity(blobs.len());
            for (id, bytes) in blobs {
                if seen.insert(*id) && !index.blobs.contains_key(&key(id)) {
                    let header = Header {
                        id: *id,
                        // A small blob's length fits.
                        len: bytes.len() as u32,
                        written_at: at,
                    };
                    new.push((header, bytes));
                }
            }
        }
        self.append(&mut writer, &new)
            .map_err(|source| BlobError::storing("small blobs", source))
    }

    /// Adds records and makes them known.  All that fit in one pack are there or not
    /// together.
    fn append(&self, writer: &mut Writer, mut new: &[(Header, &Bytes)]) -> io::Result<()> {
        while !new.is_empty() {
            if writer.len >= PACK_BYTES_MAX {
                *writer = Writer::new(&self.dir, writer.number + 1, 0, 0);
            }
            let start = writer.len;
            let mut end = start;
            let mut entries = Vec::with_capacity(new.len());
            for (header, _) in new {
                if end >= PACK_BYTES_MAX {
                    break;
                }
                entries.push(Entry {
                    key: key(&header.id),
                    // Below PACK_BYTES_MAX, which fits.
                    offset: end as u32,
                });
                end += header.record_bytes();
            }
            let (now, later) = new.split_at(entries.len());
            writer.append(now, self.sync)?;
            writer.index(&entries);
            self.learn(writer.number, &entries, end - start, end);
            new = later;
        }
        Ok(())
    }

    /// Makes new records known.
    fn learn(&self, pack: u32, entries: &[Entry], bytes: u64, len: u64) {
        let mut index = self.index_mut();
        for entry in entries {
            let offset = entry.offset;
            index.blobs.insert(entry.key, Place { pack, offset });
        }
        let sizes = index.packs.entry(pack).or_default();
        sizes.len = len;
        sizes.live += bytes;
    }

    pub(super) fn get(&self, id: BlobId) -> Result<Option<BlobReader>, BlobError> {
        let doing = |source| BlobError::io(format!("open blob {id}"), source);
        for _ in 0..LOOK_TRIES_MAX {
            let Some(place) = self.index().blobs.get(&key(&id)).copied() else {
                return Ok(None);
            };
            let Some(file) = self.pack(place.pack).map_err(doing)? else {
                // The pack was rewritten since: the blob is somewhere else now.
                continue;
            };
            let offset = u64::from(place.offset);
            return match Header::read(&file, offset).map_err(doing)? {
                Some(header) if header.id == id => {
                    let start = offset + HEADER_BYTES as u64;
                    let len = u64::from(header.len);
                    Ok(Some(BlobReader::new(id, file, start, len)))
                }
                _ => Err(BlobError::Corrupt { id }),
            };
        }
        Err(BlobError::Corrupt { id })
    }

    /// An open pack; `None` when it is gone.
    fn pack(&self, number: u32) -> io::Result<Option<Arc<File>>> {
        let mut packs = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(file) = packs.get(&number) {
            return Ok(Some(Arc::clone(file)));
        }
        let file = match File::open(PackFiles::new(&self.dir, number).pack) {
            Ok(file) => Arc::new(file),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        if packs.len() >= PACKS_OPEN_MAX {
            packs.clear();
        }
        packs.insert(number, Arc::clone(&file));
        Ok(Some(file))
    }

    /// Tells of every blob, as long as somebody listens.
    pub(super) fn list(&self, tell: &mut impl FnMut(BlobInfo) -> bool) -> Result<(), BlobError> {
        let doing = |source| BlobError::io("list the small blobs", source);
        let packs: Vec<u32> = self.index().packs.keys().copied().collect();
        for pack in packs {
            let Some(file) = self.pack(pack).map_err(doing)? else {
                continue;
            };
            let mut records = records(file).map_err(doing)?;
            while let Some((offset, header)) = records.next().map_err(doing)? {
                let info = BlobInfo {
                    id: header.id,
                    len: u64::from(header.len),
                    written_at: header.written_at,
                };
                if self.is_live(&header, Place { pack, offset }) && !tell(info) {
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    /// Whether a record is the one that counts for its blob.
    fn is_live(&self, header: &Header, place: Place) -> bool {
        self.index().blobs.get(&key(&header.id)) == Some(&place)
    }

    /// Deletes those that are here and not covered, and returns those that are not
    /// here.
    pub(super) fn delete(
        &self,
        ids: HashSet<BlobId>,
        grace: &Grace,
        deleted: &mut Deleted,
    ) -> Result<Vec<BlobId>, BlobError> {
        let ids: Vec<BlobId> = ids.into_iter().collect();
        let mut elsewhere = Vec::new();
        for some in ids.chunks(DELETE_BLOBS) {
            self.delete_some(some, grace, deleted, &mut elsewhere)?;
        }
        Ok(elsewhere)
    }

    fn delete_some(
        &self,
        ids: &[BlobId],
        grace: &Grace,
        deleted: &mut Deleted,
        elsewhere: &mut Vec<BlobId>,
    ) -> Result<(), BlobError> {
        // Held so that no rewrite moves what goes.
        let _writer = self.writer();
        let mut gone: BTreeMap<u32, Vec<(u32, u32)>> = BTreeMap::new();
        for id in ids {
            // A damaged blob can be deleted like any other; its length is not known.
            let len = match self.get(*id) {
                Ok(Some(reader)) => reader.len() as u32,
                Err(BlobError::Corrupt { .. }) => 0,
                Ok(None) => {
                    elsewhere.push(*id);
                    continue;
                }
                Err(error) => return Err(error),
            };
            let mut index = self.index_mut();
            // Whoever asks for a blob touches it first and looks second; this looks
            // and removes under one lock.  So nobody is told of a blob that goes.
            if grace.covers(*id) {
                deleted.kept += 1;
                continue;
            }
            let Some(place) = index.blobs.remove(&key(id)) else {
                continue;
            };
            deleted.removed += 1;
            gone.entry(place.pack)
                .or_default()
                .push((place.offset, len));
            if let Some(sizes) = index.packs.get_mut(&place.pack) {
                let bytes = HEADER_BYTES as u64 + u64::from(len);
                sizes.live = sizes.live.saturating_sub(bytes);
            }
        }
        for (pack, records) in gone {
            if let Err(error) = PackFiles::new(&self.dir, pack).bury(&records) {
                // On a full disk they are back after a restart, and deleted again.
                tracing::warn!(%error, pack, "could not note deleted blobs");
            }
        }
        Ok(())
    }

    /// Rewrites packs that are more than half dead, so that their room is free again.
    pub(super) fn rewrite(&self) -> Result<(), BlobError> {
        let doing = |source| BlobError::storing("the rest of a pack", source);
        let half_dead: Vec<u32> = {
            let index = self.index();
            let packs = index.packs.iter();
            packs
                .filter(|(_, sizes)| sizes.live * 2 < sizes.len)
                .map(|(number, _)| *number)
                .collect()
        };
        for number in half_dead {
            self.rewrite_one(number).map_err(doing)?;
        }
        Ok(())
    }

    fn rewrite_one(&self, number: u32) -> io::Result<()> {
        {
            let mut writer = self.writer();
            if writer.number == number {
                *writer = Writer::new(&self.dir, number + 1, 0, 0);
            }
        }
        let Some(file) = self.pack(number)? else {
            return Ok(());
        };
        let mut records = records(Arc::clone(&file))?;
        loop {
            let mut some = Vec::with_capacity(REWRITE_RECORDS);
            while some.len() < REWRITE_RECORDS
                && let Some(record) = records.next()?
            {
                some.push(record);
            }
            if some.is_empty() {
                break;
            }
            self.move_records(&file, number, &some)?;
        }
        let mut writer = self.writer();
        if let Some(file) = &mut writer.file {
            // What was safe on disk must be so at its new place before the old one goes.
            file.sync_data()?;
        }
        self.forget(number);
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.remove(&number);
        PackFiles::new(&self.dir, number).remove()
    }

    /// Forgets a pack whose blobs were moved.
    fn forget(&self, number: u32) {
        let mut index = self.index_mut();
        index.packs.remove(&number);
        let before = index.blobs.len();
        index.blobs.retain(|_, place| place.pack != number);
        let lost = before - index.blobs.len();
        if lost > 0 {
            tracing::error!(
                pack = number,
                lost,
                "blobs were damaged on disk and are gone"
            );
        }
    }

    /// Moves what is still live of these records to the pack that is written to.
    fn move_records(&self, file: &File, number: u32, records: &[(u32, Header)]) -> io::Result<()> {
        let mut writer = self.writer();
        let mut moved: Vec<(Header, Bytes)> = Vec::with_capacity(records.len());
        for (offset, header) in records {
            let here = Place {
                pack: number,
                offset: *offset,
            };
            if self.is_live(header, here) {
                let mut bytes = vec![0; header.len as usize];
                file.read_exact_at(&mut bytes, u64::from(*offset) + HEADER_BYTES as u64)?;
                moved.push((*header, bytes.into()));
            }
        }
        let records: Vec<(Header, &Bytes)> = moved.iter().map(|(h, b)| (*h, b)).collect();
        self.append(&mut writer, &records)
    }
}

fn records(pack: Arc<File>) -> io::Result<Records> {
    let len = pack.metadata()?.len();
    Ok(Records { pack, len, at: 0 })
}

/// Reads what packs there are.
fn load(dir: &Path) -> io::Result<(Index, Writer)> {
    fs::create_dir_all(dir)?;
    let mut numbers = Vec::new();
    let mut beside = Vec::new();
    for file in fs::read_dir(dir)? {
        let path = file?.path();
        let number = path.file_stem().and_then(|stem| stem.to_str());
        let Some(number) = number.and_then(|number| number.parse::<u32>().ok()) else {
            continue;
        };
        match path.extension().and_then(|extension| extension.to_str()) {
            Some("pack") => numbers.push(number),
            Some("idx" | "dead") => beside.push((number, path)),
            _ => {}
        }
    }
    numbers.sort_unstable();
    for (number, path) in beside {
        if numbers.binary_search(&number).is_err() {
            // Of a pack that is gone; the next pack of this number must not meet it.
            fs::remove_file(path)?;
        }
    }
    let mut index = Index::default();
    let mut writer = Writer::new(dir, 1, 0, 0);
    for number in numbers {
        let found = open_pack(&PackFiles::new(dir, number))?;
        index.blobs.reserve(found.live.len());
        for entry in found.live {
            // Where a rewrite was cut short a blob is there twice: the later one counts.
            let place = Place {
                pack: number,
                offset: entry.offset,
            };
            index.blobs.insert(entry.key, place);
        }
        let sizes = Sizes {
            len: found.len,
            live: found.live_bytes,
        };
        index.packs.insert(number, sizes);
        writer = Writer::new(dir, number, found.len, found.indexed);
    }
    Ok((index, writer))
}
