//! What was written or read lately, on the local disk: a part of the bucket.
//!
//! It is bounded, and nothing is lost with it.  A pack is kept in a file with holes, a
//! block at a time; what was used longest ago goes first, a pack at a time.  Readers
//! compare all that comes from here with its hash.

use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::{Bytes, BytesMut};

use super::object::Name;

/// How much is fetched at a time, in bytes.
/// Higher: a small blob costs more to read.  Lower: more requests for a large one.
const BLOCK_BYTES: u64 = 1024 * 1024;

/// Blocks that are fetched together when one was read after another.
/// Higher: more is fetched in vain at the end of a reading.  Lower: more requests.
const AHEAD_BLOCKS: u64 = 8;

pub(super) struct Cache {
    dir: PathBuf,
    bytes_max: u64,
    kept: Mutex<Kept>,
}

#[derive(Default)]
struct Kept {
    packs: HashMap<Name, Counted>,
    /// How much all of them have.
    bytes: u64,
    /// Counts uses.
    uses: u64,
}

struct Counted {
    pack: Arc<Pack>,
    bytes: u64,
}

struct Pack {
    file: File,
    len: u64,
    used: AtomicU64,
    /// Which blocks are here.  Held while one is fetched, so that others find it.
    blocks: Mutex<Vec<bool>>,
}

impl Cache {
    /// Begins with the packs that are whole of the last time, which `len_of` knows.
    pub(super) fn open(
        dir: PathBuf,
        bytes_max: u64,
        len_of: impl Fn(Name) -> Option<u64>,
    ) -> io::Result<Self> {
        fs::create_dir_all(&dir)?;
        let mut kept = Kept::default();
        let mut names = Vec::new();
        for file in fs::read_dir(&dir)? {
            let file = file?;
            let name: Option<Name> = file.file_name().to_str().and_then(|name| name.parse().ok());
            let len = file.metadata()?.len();
            match name {
                Some(name) if len_of(name) == Some(len) => names.push((name, len)),
                _ => fs::remove_file(file.path())?,
            }
        }
        names.sort_unstable();
        for (name, len) in names {
            kept.uses += 1;
            kept.bytes += len;
            let pack = Pack {
                file: OpenOptions::new()
                    .read(true)
                    .write(true)
                    .open(dir.join(name.to_string()))?,
                len,
                used: AtomicU64::new(kept.uses),
                blocks: Mutex::new(vec![true; blocks_of(len)]),
            };
            let pack = Arc::new(pack);
            kept.packs.insert(name, Counted { pack, bytes: len });
        }
        let cache = Self {
            dir,
            bytes_max,
            kept: Mutex::new(kept),
        };
        cache.make_room(&mut cache.kept());
        Ok(cache)
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The file of a pack whose blocks are not all here.
    fn partial(&self, name: Name) -> PathBuf {
        self.dir.join(format!("{name}.part"))
    }

    fn whole(&self, name: Name) -> PathBuf {
        self.dir.join(name.to_string())
    }

    /// Keeps all of a pack that was just written.
    pub(super) fn insert(&self, name: Name, body: &Bytes) {
        let len = body.len() as u64;
        if len > self.bytes_max {
            return;
        }
        let keep = || {
            let pack = self.pack(name, len)?;
            pack.file.write_all_at(body, 0)?;
            pack.blocks().fill(true);
            self.is_whole(name, &pack)
        };
        match keep() {
            Ok(()) => self.count(name, len),
            Err(error) => {
                tracing::debug!(%error, "could not keep a pack on the local disk");
                self.remove(name);
            }
        }
    }

    /// A part of a pack of `len` bytes: what is here, and what `fetch` gives of the rest.
    pub(super) fn read<E>(
        &self,
        name: Name,
        len: u64,
        range: Range<u64>,
        fetch: impl Fn(Range<u64>) -> Result<Option<Bytes>, E>,
    ) -> Result<Option<Bytes>, E> {
        let range = range.start.min(len)..range.end.min(len);
        if range.is_empty() {
            return Ok(Some(Bytes::new()));
        }
        let pack = match self.bytes_max {
            0 => None,
            _ => self.pack(name, len).ok(),
        };
        let Some(pack) = pack else {
            return fetch(range);
        };
        let fetched = match self.fill(name, &pack, &range, &fetch) {
            Ok(fetched) => fetched,
            Err(Trouble::Fetching(error)) => return Err(error),
            Err(Trouble::Gone) => return Ok(None),
            Err(Trouble::Disk(error)) => {
                tracing::debug!(%error, "could not keep what was read on the local disk");
                self.remove(name);
                return fetch(range);
            }
        };
        if fetched > 0 {
            self.count(name, fetched);
        }
        // It fits in memory: somebody wants it there.
        let mut bytes = BytesMut::zeroed((range.end - range.start) as usize);
        match pack.file.read_exact_at(&mut bytes, range.start) {
            Ok(()) => Ok(Some(bytes.freeze())),
            Err(_) => fetch(range),
        }
    }

    /// Fetches the blocks that are not here; gives how many bytes that were.
    fn fill<E>(
        &self,
        name: Name,
        pack: &Arc<Pack>,
        range: &Range<u64>,
        fetch: &impl Fn(Range<u64>) -> Result<Option<Bytes>, E>,
    ) -> Result<u64, Trouble<E>> {
        let (first, last) = (range.start / BLOCK_BYTES, (range.end - 1) / BLOCK_BYTES);
        let mut blocks = pack.blocks();
        let is_lacking = |blocks: &[bool], at: u64| blocks.get(at as usize) == Some(&false);
        let Some(from) = (first..=last).find(|at| is_lacking(&blocks, *at)) else {
            return Ok(0);
        };
        let follows = from > 0 && !is_lacking(&blocks, from - 1);
        let ahead = if follows { AHEAD_BLOCKS } else { 1 };
        let mut to = from;
        while is_lacking(&blocks, to) && (to <= last || to < from + ahead) {
            to += 1;
        }
        // A block behind one that is here: once more, all of it.
        let to = to.max(last + 1);
        let wanted = from * BLOCK_BYTES..(to * BLOCK_BYTES).min(pack.len);
        let got = fetch(wanted.clone()).map_err(Trouble::Fetching)?;
        let bytes = got.ok_or(Trouble::Gone)?;
        pack.file
            .write_all_at(&bytes, wanted.start)
            .map_err(Trouble::Disk)?;
        let mut new = 0;
        for at in from..to {
            if is_lacking(&blocks, at) {
                new += BLOCK_BYTES.min(pack.len.saturating_sub(at * BLOCK_BYTES));
                if let Some(block) = blocks.get_mut(at as usize) {
                    *block = true;
                }
            }
        }
        let is_whole = blocks.iter().all(|is_here| *is_here);
        drop(blocks);
        if is_whole {
            self.is_whole(name, pack).map_err(Trouble::Disk)?;
        }
        Ok(new)
    }

    /// The file of a pack, made if there is none.
    fn pack(&self, name: Name, len: u64) -> io::Result<Arc<Pack>> {
        let mut kept = self.kept();
        kept.uses += 1;
        let uses = kept.uses;
        if let Some(counted) = kept.packs.get(&name) {
            counted.pack.used.store(uses, Ordering::Relaxed);
            return Ok(Arc::clone(&counted.pack));
        }
        let file = OpenOptions::new()
            .create(true)
            .truncate(true)
            .read(true)
            .write(true)
            .open(self.partial(name))?;
        file.set_len(len)?;
        let pack = Arc::new(Pack {
            file,
            len,
            used: AtomicU64::new(uses),
            blocks: Mutex::new(vec![false; blocks_of(len)]),
        });
        let counted = Counted {
            pack: Arc::clone(&pack),
            bytes: 0,
        };
        kept.packs.insert(name, counted);
        Ok(pack)
    }

    /// From now on it is also here after a restart.
    fn is_whole(&self, name: Name, pack: &Arc<Pack>) -> io::Result<()> {
        let kept = self.kept();
        // Somebody may have made room of it meanwhile, or begun it anew.
        match kept.packs.get(&name) {
            Some(counted) if Arc::ptr_eq(&counted.pack, pack) => {
                fs::rename(self.partial(name), self.whole(name))
            }
            _ => Ok(()),
        }
    }

    fn count(&self, name: Name, bytes: u64) {
        let mut kept = self.kept();
        if let Some(counted) = kept.packs.get_mut(&name) {
            counted.bytes += bytes;
            kept.bytes += bytes;
        }
        self.make_room(&mut kept);
    }

    fn make_room(&self, kept: &mut Kept) {
        while kept.bytes > self.bytes_max {
            let oldest = kept
                .packs
                .iter()
                .min_by_key(|(_, counted)| counted.pack.used.load(Ordering::Relaxed));
            let Some(name) = oldest.map(|(name, _)| *name) else {
                return;
            };
            self.drop_pack(kept, name);
        }
    }

    /// Forgets what is here of a pack.
    pub(super) fn remove(&self, name: Name) {
        self.drop_pack(&mut self.kept(), name);
    }

    fn drop_pack(&self, kept: &mut Kept, name: Name) {
        let Some(counted) = kept.packs.remove(&name) else {
            return;
        };
        kept.bytes = kept.bytes.saturating_sub(counted.bytes);
        for path in [self.partial(name), self.whole(name)] {
            let _ = fs::remove_file(path);
        }
    }
}

impl Pack {
    fn blocks(&self) -> MutexGuard<'_, Vec<bool>> {
        self.blocks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

enum Trouble<E> {
    Fetching(E),
    Gone,
    Disk(io::Error),
}

fn blocks_of(len: u64) -> usize {
    len.div_ceil(BLOCK_BYTES) as usize
}

#[cfg(test)]
mod tests {
    use super::super::super::pack::Kind;
    use super::*;

    const LEN: u64 = 3 * BLOCK_BYTES + 100;

    fn name(order: u64) -> Name {
        Name::new(order, Kind::Bytes, 0)
    }

    fn content(order: u64) -> Bytes {
        (0..LEN).map(|at| (at % (250 - order)) as u8).collect()
    }

    fn read(cache: &Cache, order: u64, range: Range<u64>) -> (Bytes, u64) {
        let fetched = AtomicU64::new(0);
        let bytes = cache.read::<()>(name(order), LEN, range, |range| {
            fetched.fetch_add(range.end - range.start, Ordering::Relaxed);
            Ok(Some(
                content(order).slice(range.start as usize..range.end as usize),
            ))
        });
        (bytes.unwrap().unwrap(), fetched.into_inner())
    }

    #[test]
    fn what_was_read_is_here_and_what_is_read_on_is_fetched_ahead() {
        let dir = tempfile::tempdir().unwrap();
        let open = || Cache::open(dir.path().to_owned(), 10 * LEN, |_| Some(LEN)).unwrap();
        let cache = open();
        for (range, fetched) in [
            (10..20, BLOCK_BYTES),
            (5..BLOCK_BYTES, 0),
            (BLOCK_BYTES - 5..BLOCK_BYTES + 5, LEN - BLOCK_BYTES),
            (LEN - 10..LEN + 10, 0),
        ] {
            let (bytes, got) = read(&cache, 1, range.clone());
            let end = range.end.min(LEN) as usize;
            assert_eq!(bytes, content(1).slice(range.start as usize..end));
            assert_eq!(got, fetched, "{range:?}");
        }
        read(&cache, 2, 0..10);
        drop(cache);
        // What is whole is here the next time, too.
        let cache = open();
        assert_eq!(read(&cache, 1, 0..LEN).1, 0);
        assert_eq!(read(&cache, 2, 0..10).1, BLOCK_BYTES);
    }

    #[test]
    fn it_takes_no_more_room_than_it_may() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::open(dir.path().to_owned(), 2 * LEN, |_| None).unwrap();
        for order in 0..5 {
            cache.insert(name(order), &content(order));
            assert_eq!(read(&cache, 0, 0..10).0, content(0).slice(0..10));
        }
        assert!(cache.kept().bytes <= 2 * LEN);
        assert_eq!(read(&cache, 4, 0..LEN).1, 0);
        assert_eq!(read(&cache, 1, 0..10).1, BLOCK_BYTES);
        let files = fs::read_dir(dir.path()).unwrap().count();
        assert!(files <= 3, "{files}");
        let none = Cache::open(dir.path().join("none"), 0, |_| None).unwrap();
        none.insert(name(1), &content(1));
        assert_eq!(read(&none, 1, 0..10).1, 10);
        assert_eq!(fs::read_dir(dir.path().join("none")).unwrap().count(), 0);
    }
}
