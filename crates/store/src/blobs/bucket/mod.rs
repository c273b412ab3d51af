//! Records in a bucket: S3, Google Cloud Storage, Azure, or whatever speaks like them.
//!
//! The bucket is the truth, and nothing counts before it is there:
//!
//! - `packs/<name>`: records, written together and never changed ([`object`]).
//! - `dead/<name>`: which records of a pack are deleted, if any are.
//! - `owner`: who opened it last.  Only that one deletes.
//!
//! The local folder has an index of all that, made anew from the ends of the packs where
//! it is missing, and a bounded part of the packs themselves ([`cache`]).  Losing it loses
//! nothing: a server on a new machine reads the ends, and goes on.
//!
//! What several people store at the same moment goes into one pack ([`group`]), and small
//! packs are merged by and by ([`tidy`]), so that there are not as many objects as blobs.

mod cache;
mod client;
mod group;
mod heads;
mod load;
mod move_in;
mod object;
mod options;
mod tidy;

use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use grid_core::blob::BlobId;

pub use client::{Bucket, BucketError};
pub(super) use load::belongs_nowhere;
pub use move_in::Moved;
pub use options::{BucketOptions, CACHE_BYTES};

use super::damaged::Damaged;
use super::disk::Disk;
use super::index::{Index, PACK_NUMBERS_MAX, PARTS, Place};
use super::pack::{HEADER_BYTES, Header, Kind, key};
use super::packs::Found;
use super::{BlobError, BlobInfo};
use cache::Cache;
use client::Fault;
use group::Groups;
use heads::Heads;
use object::{Line, Name, Packing, parse_end};

/// How long a pack grows until it is written, in bytes, but for its last batch.
/// Higher: more memory while uploading, and rewriting one takes longer.  Lower: more
/// objects.
const PACK_BYTES: u64 = 16 * 1024 * 1024;

/// How often a reader looks again when the pack it was about to read is rewritten.
const LOOK_TRIES_MAX: usize = 8;

/// Where the object is that says who opened the bucket last.
const OWNER: &str = "owner";

pub(super) struct BucketPacks {
    remote: Remote,
    /// What is kept of the bucket on the local disk.
    dir: PathBuf,
    heads: Heads,
    cache: Cache,
    pub(super) index: Index,
    table: Mutex<Table>,
    /// Records whose bytes were found to be damaged: as good as missing.
    damaged: Damaged,
    groups: Mutex<Groups>,
    /// That something of the groups has changed.
    changed: Condvar,
    /// Held by whoever rewrites or removes packs.
    tidying: Mutex<()>,
    is_merging: AtomicBool,
    /// Whom the bucket names as its owner; and a part of the names of packs.
    me: u64,
}

/// All packs there are, by the numbers that the index knows them by.
struct Table {
    packs: BTreeMap<u32, Pack>,
    next: u32,
    /// Numbers of packs that are gone, the longest first.
    free: VecDeque<u32>,
    /// The order of the next pack.
    order: u64,
}

#[derive(Clone)]
struct Pack {
    name: Name,
    /// Length of its records in bytes.
    len: u64,
    /// Length of the object behind them.
    end_bytes: u64,
    /// How much of it is not deleted.
    live: u64,
    /// Length of the object that says what is deleted; 0 when there is none.
    dead_bytes: u64,
    /// What is deleted and not written down.
    unburied: Vec<u32>,
}

impl Pack {
    fn path(&self) -> String {
        format!("packs/{}", self.name)
    }

    fn dead_path(&self) -> String {
        format!("dead/{}", self.name)
    }
}

impl Table {
    /// Takes a pack up; gives its number.
    fn insert(&mut self, pack: Pack) -> Option<u32> {
        let number = match self.next {
            PACK_NUMBERS_MAX.. => self.free.pop_front()?,
            next => {
                self.next += 1;
                next
            }
        };
        self.packs.insert(number, pack);
        Some(number)
    }

    fn remove(&mut self, number: u32) -> Option<Pack> {
        let pack = self.packs.remove(&number)?;
        self.free.push_back(number);
        Some(pack)
    }
}

/// The bucket, and in tests a process that may die before each change of it.
struct Remote {
    bucket: Bucket,
    disk: Disk,
}

impl Remote {
    fn put(&self, name: &str, bytes: &Bytes, doing: &str) -> Result<(), BucketError> {
        self.step(doing, || self.bucket.put(name, bytes.clone(), doing))
    }

    fn delete(&self, name: &str, doing: &str) -> Result<(), BucketError> {
        self.step(doing, || self.bucket.delete(name, doing))
    }

    fn step(
        &self,
        doing: &str,
        act: impl Fn() -> Result<(), BucketError>,
    ) -> Result<(), BucketError> {
        let step = self.disk.step();
        // It may have arrived, with nobody left to hear of it.
        #[cfg(test)]
        if step.is_err() && self.disk.does_last() {
            act()?;
        }
        step.map_err(|error| self.error(doing, Fault::Away, error))?;
        act()
    }

    fn error(
        &self,
        doing: &str,
        fault: Fault,
        why: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> BucketError {
        BucketError::own(doing, self.bucket.name(), fault, why)
    }
}

/// What came of looking for a record.
enum Fetched {
    Here(Header, Bytes),
    /// Its pack is not there any more: it may be in another one.
    Gone,
    /// It is there with another length.
    OtherLength,
    Damaged,
}

impl BucketPacks {
    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn pack(&self, number: u32) -> Option<Pack> {
        let table = self.table();
        let pack = table.packs.get(&number)?;
        Some(Pack {
            unburied: Vec::new(),
            ..*pack
        })
    }

    /// Where a record is, whose bytes are not known to be damaged.  It is needed from
    /// now on.
    pub(super) fn find(&self, id: BlobId) -> Option<Place> {
        self.damaged.find(&self.index, id)
    }

    /// Whether a record was found to be damaged.
    pub(super) fn is_known_damaged(&self, id: BlobId) -> bool {
        self.damaged.has(id)
    }

    /// How often a record was found to be damaged.
    pub(super) fn damages_found(&self) -> u64 {
        self.damaged.found()
    }

    /// Notes that a record is damaged: who has its bytes may store them again.
    pub(super) fn is_found_damaged(&self, id: BlobId) {
        if self.damaged.add(id) {
            tracing::error!(blob = %id, bucket = self.remote.bucket.name(), "bytes in the bucket are damaged");
        }
    }

    /// The record of this name.
    pub(super) fn get(&self, id: BlobId) -> Result<Option<Found>, BlobError> {
        match self.look(id, None)? {
            Some(Fetched::Here(header, bytes)) => Ok(Some(Found::here(header, bytes))),
            _ => Ok(None),
        }
    }

    /// The bytes of a record of a known length; `None` when there is none of this length.
    /// They are always compared with their name: they came a long way.
    pub(super) fn read(&self, id: BlobId, len: usize) -> Result<Option<Bytes>, BlobError> {
        match self.look(id, Some(len as u64))? {
            Some(Fetched::Here(_, bytes)) => Ok(Some(bytes)),
            _ => Ok(None),
        }
    }

    fn look(&self, id: BlobId, len: Option<u64>) -> Result<Option<Fetched>, BlobError> {
        for _ in 0..LOOK_TRIES_MAX {
            let Some(place) = self.index.get(&key(&id)) else {
                return Ok(None);
            };
            match self.fetch(id, place, len)? {
                Fetched::Gone => {}
                Fetched::Damaged => break,
                fetched => return Ok(Some(fetched)),
            }
        }
        self.is_found_damaged(id);
        Err(BlobError::Corrupt { id })
    }

    fn fetch(&self, id: BlobId, place: Place, len: Option<u64>) -> Result<Fetched, BucketError> {
        let Some(pack) = self.pack(place.pack()) else {
            return Ok(Fetched::Gone);
        };
        let at = place.at.offset();
        let len = match len {
            Some(len) => len,
            None => match self.line(&pack, at)? {
                Some(line) if line.header.id == id => u64::from(line.header.len),
                _ => return Ok(self.damaged_or_gone(place)),
            },
        };
        let range = at..at + HEADER_BYTES as u64 + len;
        let fetch = |range| self.fetch_range(&pack, range);
        let Some(bytes) = self.cache.read(pack.name, pack.len, range.clone(), fetch)? else {
            self.lose(place.pack(), &pack)?;
            return Ok(Fetched::Gone);
        };
        match checked(id, len, &bytes) {
            Fetched::Damaged => {}
            fetched => return Ok(fetched),
        }
        // It may be the copy on the local disk.
        self.cache.remove(pack.name);
        let range = range.start..range.end.min(pack.len);
        let Some(bytes) = self.fetch_range(&pack, range)? else {
            self.lose(place.pack(), &pack)?;
            return Ok(Fetched::Gone);
        };
        match checked(id, len, &bytes) {
            Fetched::Damaged => Ok(self.damaged_or_gone(place)),
            fetched => Ok(fetched),
        }
    }

    /// A number may have come to stand for another pack meanwhile.
    fn damaged_or_gone(&self, place: Place) -> Fetched {
        match self.table().packs.contains_key(&place.pack()) {
            true => Fetched::Damaged,
            false => Fetched::Gone,
        }
    }

    fn fetch_range(&self, pack: &Pack, range: Range<u64>) -> Result<Option<Bytes>, BucketError> {
        let bucket = &self.remote.bucket;
        bucket.get_range(&pack.path(), range, "read a pack")
    }

    /// What is in a pack; `None` when the pack is not there.
    fn lines(&self, pack: &Pack) -> Result<Option<Vec<Line>>, BucketError> {
        if let Some((lines, _)) = self.heads.read(pack.name) {
            return Ok(Some(lines));
        }
        let range = pack.len..pack.len + pack.end_bytes;
        let Some(end) = self.fetch_range(pack, range)? else {
            return Ok(None);
        };
        let Some((lines, _)) = parse_end(&end) else {
            tracing::error!(pack = %pack.name, "the end of a pack in the bucket is damaged");
            return Ok(Some(Vec::new()));
        };
        self.keep_head(pack.name, &end);
        Ok(Some(lines))
    }

    fn keep_head(&self, name: Name, end: &[u8]) {
        if let Err(error) = self.heads.write(name, end) {
            tracing::warn!(%error, "could not keep what is in a pack on the local disk");
        }
    }

    fn line(&self, pack: &Pack, at: u64) -> Result<Option<Line>, BucketError> {
        if let Some(line) = self.heads.find(pack.name, at) {
            return Ok(Some(line));
        }
        let lines = self.lines(pack)?.unwrap_or_default();
        Ok(lines.into_iter().find(|line| line.at == at))
    }

    /// What stands before a record's bytes; `None` when it is not there any more.
    pub(super) fn header(&self, place: Place) -> Result<Option<Header>, BlobError> {
        let Some(pack) = self.pack(place.pack()) else {
            return Ok(None);
        };
        let line = self.line(&pack, place.at.offset())?;
        Ok(line.map(|line| line.header))
    }

    /// So much of a pack is deleted.
    pub(super) fn shrink(&self, number: u32, bytes: u64) {
        if let Some(pack) = self.table().packs.get_mut(&number) {
            pack.live = pack.live.saturating_sub(bytes);
        }
    }

    /// The bucket says that there is no such pack: what was in it can be stored again.
    fn lose(&self, number: u32, pack: &Pack) -> Result<(), BucketError> {
        let is_known = self.table().packs.contains_key(&number);
        if !is_known {
            return Ok(());
        }
        // Unless all of the bucket is gone.
        let owner = self.remote.bucket.get(OWNER, "read its owner")?;
        if owner.is_none() {
            let why = "what the server keeps in it is not there";
            return Err(self.remote.error("read a pack", Fault::NotThere, why));
        }
        self.table().remove(number);
        let mut lost = 0_u64;
        for part in 0..PARTS {
            for (key, _) in self.index.part(part, |place| place.pack() == number) {
                let is_in_it = |place: Place| place.pack() == number;
                lost += u64::from(self.index.remove_if(&key, is_in_it).is_some());
            }
        }
        self.heads.remove(pack.name);
        self.cache.remove(pack.name);
        tracing::error!(pack = %pack.name, lost, bucket = self.remote.bucket.name(),
            "a pack is gone from the bucket, and the blobs with it: upload them again");
        Ok(())
    }

    /// Writes a pack; gives its number and what is where in it.
    fn store(&self, kind: Kind, packing: Packing) -> Result<(u32, Vec<Line>), BucketError> {
        let packed = packing.finish();
        let order = {
            let mut table = self.table();
            table.order += 1;
            table.order
        };
        let pack = Pack {
            name: Name::new(order, kind, self.me),
            len: packed.body_bytes,
            end_bytes: packed.bytes.len() as u64 - packed.body_bytes,
            live: packed.body_bytes,
            dead_bytes: 0,
            unburied: Vec::new(),
        };
        self.remote
            .put(&pack.path(), &packed.bytes, "store a pack")?;
        self.keep_head(pack.name, &packed.end());
        self.cache.insert(pack.name, &packed.body());
        let number = self.table().insert(pack);
        let none_left = || {
            self.remote.error(
                "store a pack",
                Fault::Settings,
                "there are no numbers left for packs",
            )
        };
        Ok((number.ok_or_else(none_left)?, packed.lines))
    }

    fn learn(&self, number: u32, line: &Line) {
        let entry = line.header.entry(line.at);
        let mut mark = self.index.current();
        if entry.at.is_recipe() {
            // What it is made of may be older than the collection that is under way.
            mark = mark.wrapping_sub(1);
        }
        let place = Place::new(number, entry.at, mark);
        let old = self.index.insert(entry.key, place);
        // Also where the damaged one was deleted or lost meanwhile.
        self.damaged.remove(&entry.key);
        // What was there before was damaged, and now takes up room for nothing.
        if let Some(old) = old {
            self.shrink(old.pack(), line.header.record_bytes());
        }
    }

    /// Tells of every blob, as long as somebody listens.
    pub(super) fn list(&self, tell: &mut impl FnMut(BlobInfo) -> bool) -> Result<(), BlobError> {
        let numbers: Vec<u32> = self.table().packs.keys().copied().collect();
        for number in numbers {
            let Some(pack) = self.pack(number) else {
                continue;
            };
            for line in self.lines(&pack)?.unwrap_or_default() {
                let entry = line.header.entry(line.at);
                let place = self.index.get(&entry.key);
                if !place.is_some_and(|place| place.is(number, entry.at)) {
                    continue;
                }
                let info = BlobInfo {
                    id: line.header.id,
                    len: line.content_bytes,
                    written_at: line.header.written_at,
                    is_chunked: line.header.kind == Kind::Recipe,
                };
                if !tell(info) {
                    return Ok(());
                }
            }
        }
        Ok(())
    }
}

fn checked(id: BlobId, len: u64, bytes: &Bytes) -> Fetched {
    match bytes.first_chunk().and_then(Header::parse) {
        Some(header) if header.id != id => Fetched::Damaged,
        Some(header) if u64::from(header.len) != len => Fetched::OtherLength,
        Some(header) => {
            let content = bytes.slice(HEADER_BYTES..);
            match content.len() as u64 == len && header.fits(&content) {
                true => Fetched::Here(header, content),
                false => Fetched::Damaged,
            }
        }
        None => Fetched::Damaged,
    }
}

/// What is kept of a bucket below the folder of the blobs.
fn local_dir(dir: &Path) -> PathBuf {
    dir.join("bucket")
}
