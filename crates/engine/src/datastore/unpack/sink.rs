//! Where the entries of an archive go: their bytes into the store, their paths into a list.
//!
//! The list is in memory until the archive is over, because only then it is known what counts.
//! So a name is kept once, and what the list takes has limits of its own: names pack so well
//! that an archive of some kilobytes can have a gigabyte of them.

use std::collections::{BTreeMap, HashMap};
use std::io::Read;
use std::ops::Bound;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use grid_core::blob::BlobId;
use grid_manifest::{Entry, Node};
use grid_store::blobs::{BlobError, Blobs, SMALL_BYTES_MAX};
use tokio::runtime::Handle;

use super::form::{self, broken, broken_at, shown};
use super::{ENTRIES_MAX, PIECE_BYTES, Progress};
use crate::datastore::work::Fault;

/// Bytes of all files of one archive together (4 TiB).
const UNPACKED_BYTES_MAX: u64 = 4 << 40;

/// How many times larger than what was sent its files may be, beyond [`FREE_BYTES`], and its
/// list, beyond [`LIST_FREE_BYTES`].
/// Higher: a small archive fills the disk; lower: files of nothing are refused.
const RATIO_MAX: u64 = 300;

/// Bytes of files that nobody minds however small the archive is.
const FREE_BYTES: u64 = 1 << 30;

/// The same of its list.  Higher: a small archive takes that much memory; lower: many empty
/// files that are packed well are refused.
const LIST_FREE_BYTES: u64 = 128 << 20;

/// Bytes of the names of one archive, and of where its links point, together.  Higher: an
/// archive takes that much memory; lower: many files with long paths have to be sent as a
/// folder.
const NAMES_BYTES_MAX: u64 = 256 << 20;

/// Bytes that an entry counts for beside its name: what it takes of memory.
const ENTRY_BYTES: u64 = 256;

/// Small files that are stored together, in bytes and in number.
const BATCH_BYTES: usize = 8 << 20;
const BATCH_FILES: usize = 2_048;

/// Longest name in a path, and longest path, in bytes; what a disk takes.
const NAME_BYTES_MAX: usize = 255;
const PATH_BYTES_MAX: usize = 4_095;

/// Names in one refusal.
const NAMES_MAX: usize = 10;

/// What an entry of an archive says before its bytes.
pub(super) struct Head<'a> {
    pub(super) name: &'a [u8],
    pub(super) mode: u32,
    pub(super) modified_ms: i64,
}

impl Head<'_> {
    fn kept(&self, what: What) -> Kept {
        Kept {
            modified_ms: self.modified_ms,
            mode: self.mode,
            what,
        }
    }
}

/// An entry without its path, as small as may be: there are millions of them.
#[derive(Debug, Clone)]
struct Kept {
    modified_ms: i64,
    mode: u32,
    what: What,
}

#[derive(Debug, Clone)]
enum What {
    File { blob: BlobId, size_bytes: u64 },
    Folder,
    Link { target: Box<str> },
}

impl Kept {
    fn size_bytes(&self) -> u64 {
        match self.what {
            What::File { size_bytes, .. } => size_bytes,
            What::Folder | What::Link { .. } => 0,
        }
    }

    fn is_folder(&self) -> bool {
        matches!(self.what, What::Folder)
    }

    fn entry(self, path: Box<str>) -> Entry {
        let node = match self.what {
            What::File { blob, size_bytes } => Node::File { blob, size_bytes },
            What::Folder => Node::Folder,
            What::Link { target } => Node::Link {
                target: target.into(),
            },
        };
        Entry {
            path: path.into(),
            mode: self.mode,
            modified_ms: self.modified_ms,
            node,
        }
    }
}

/// What was in an archive.
#[derive(Debug)]
pub(in super::super) struct Unpacked {
    entries: BTreeMap<Box<str>, Kept>,
    /// Bytes that were not stored before.
    pub(in super::super) new_bytes: u64,
}

impl Unpacked {
    /// The next entries, by path, at most so many; none at the end.  Of folders only those in
    /// which nothing is.
    pub(in super::super) fn take(&mut self, most: usize) -> Vec<Entry> {
        let mut taken = Vec::with_capacity(most.min(self.entries.len()));
        while taken.len() < most {
            let Some((path, kept)) = self.entries.pop_first() else {
                break;
            };
            // What lies in it comes behind it.
            if !kept.is_folder() || !self.has_below(&path) {
                taken.push(kept.entry(path));
            }
        }
        taken
    }

    fn has_below(&self, path: &str) -> bool {
        let below = format!("{path}/");
        let range = (Bound::Included(below.as_str()), Bound::Unbounded);
        let next = self.entries.range::<str, _>(range).next();
        next.is_some_and(|(next, _)| next.starts_with(&below))
    }
}

pub(super) fn too_many() -> Fault {
    Fault::Data(format!(
        "the archive has more than {ENTRIES_MAX} entries; unpack it, and send the folder"
    ))
}

/// Where entries go.
pub(super) struct Sink<'a> {
    blobs: &'a Blobs,
    runtime: Handle,
    progress: &'a Progress,
    entries: BTreeMap<Box<str>, Kept>,
    refused: Vec<String>,
    refused_more: usize,
    batch: Vec<(BlobId, Bytes)>,
    batch_bytes: usize,
    unpacked: u64,
    /// Bytes of names, and what the whole list takes; also of what was replaced.
    names: u64,
    list: u64,
    new_bytes: u64,
}

impl<'a> Sink<'a> {
    pub(super) fn new(blobs: &'a Blobs, progress: &'a Progress) -> Self {
        Self {
            blobs,
            runtime: Handle::current(),
            progress,
            entries: BTreeMap::new(),
            refused: Vec::new(),
            refused_more: 0,
            batch: Vec::new(),
            batch_bytes: 0,
            unpacked: 0,
            names: 0,
            list: 0,
            new_bytes: 0,
        }
    }

    pub(super) fn refuse(&mut self, name: &[u8], why: &str) {
        if self.refused.len() < NAMES_MAX {
            self.refused.push(format!("'{}' ({why})", shown(name)));
        } else {
            self.refused_more += 1;
        }
    }

    /// The path of an entry that is no folder; `None` when it is refused.
    fn path_below(&mut self, name: &[u8]) -> Result<Option<Box<str>>, Fault> {
        let refused = (self.refused.len(), self.refused_more);
        let is_folder = name.ends_with(b"/.");
        let path = self.path(name)?.filter(|_| !is_folder);
        if path.is_none() && refused == (self.refused.len(), self.refused_more) {
            self.refuse(name, "no name for something that is no folder");
        }
        Ok(path)
    }

    /// The path of an entry; `None` when it is refused or is the top.
    fn path(&mut self, name: &[u8]) -> Result<Option<Box<str>>, Fault> {
        if self.entries.len() >= ENTRIES_MAX {
            return Err(too_many());
        }
        let Ok(text) = std::str::from_utf8(name) else {
            self.refuse(name, "its name is not UTF-8");
            return Ok(None);
        };
        if text.contains('\0') {
            self.refuse(name, "a name with a zero byte in it");
            return Ok(None);
        }
        if text.starts_with('/') {
            self.refuse(name, "an absolute path");
            return Ok(None);
        }
        let parts: Vec<&str> = text
            .split('/')
            .filter(|part| !matches!(*part, "" | "."))
            .collect();
        if parts.contains(&"..") {
            self.refuse(name, "it climbs out");
            return Ok(None);
        }
        let path = parts.join("/");
        if parts.iter().any(|part| part.len() > NAME_BYTES_MAX) {
            self.refuse(name, &format!("a name of more than {NAME_BYTES_MAX} bytes"));
            return Ok(None);
        }
        if path.len() > PATH_BYTES_MAX {
            self.refuse(name, &format!("a path of more than {PATH_BYTES_MAX} bytes"));
            return Ok(None);
        }
        Ok(Some(path.into_boxed_str()).filter(|path| !path.is_empty()))
    }

    /// Keeps an entry; of one path the last counts.
    fn keep(&mut self, path: Box<str>, kept: Kept) -> Result<(), Fault> {
        let target = match &kept.what {
            What::Link { target } => target.len(),
            What::File { .. } | What::Folder => 0,
        };
        let names = (path.len() + target) as u64;
        self.names = self.names.saturating_add(names);
        if self.names > NAMES_BYTES_MAX {
            return Err(Fault::Data(format!(
                "the names in the archive have more than {} MiB together: unpack it, and send the \
                 folder",
                NAMES_BYTES_MAX >> 20
            )));
        }
        self.list = self.list.saturating_add(names + ENTRY_BYTES);
        if self.list > LIST_FREE_BYTES.max(self.allowed()) {
            return Err(bomb());
        }
        self.count(names + ENTRY_BYTES)?;
        self.entries.insert(path, kept);
        Ok(())
    }

    pub(super) fn folder(&mut self, head: &Head<'_>) -> Result<(), Fault> {
        let Some(path) = self.path(head.name)? else {
            return Ok(());
        };
        // What is something else already stays it: it is told of when something lies in it.
        let is_other = self.entries.get(&path).is_some_and(|it| !it.is_folder());
        if is_other {
            return Ok(());
        }
        self.keep(path, head.kept(What::Folder))
    }

    pub(super) fn link(&mut self, head: &Head<'_>, target: &[u8]) -> Result<(), Fault> {
        let Some(path) = self.path_below(head.name)? else {
            return Ok(());
        };
        let Ok(target) = std::str::from_utf8(target) else {
            self.refuse(head.name, "where it points is not UTF-8");
            return Ok(());
        };
        let kept = Kept {
            mode: 0o777,
            ..head.kept(What::Link {
                target: target.into(),
            })
        };
        let mut check = grid_manifest::Check::default();
        match check.next(&kept.clone().entry(path.clone())) {
            Ok(()) => self.keep(path, kept),
            Err(_) => {
                self.refuse(
                    head.name,
                    &format!("a link that leads out, to {}", shown(target.as_bytes())),
                );
                Ok(())
            }
        }
    }

    /// A second name of a file that came before.
    pub(super) fn same_as(&mut self, head: &Head<'_>, target: &[u8]) -> Result<(), Fault> {
        let (Some(path), Some(target)) = (self.path_below(head.name)?, self.path_below(target)?)
        else {
            return Ok(());
        };
        let first = self.entries.get(&target).filter(|it| !it.is_folder());
        match first.cloned() {
            Some(first) => {
                self.count(first.size_bytes())?;
                self.keep(path, first)
            }
            None => {
                let why = format!(
                    "a link to '{}', which does not come before it",
                    shown(target.as_bytes())
                );
                self.refuse(head.name, &why);
                Ok(())
            }
        }
    }

    /// What may come of as much as was received.
    fn allowed(&self) -> u64 {
        let received = self.progress.received.load(Ordering::Relaxed);
        received.saturating_mul(RATIO_MAX)
    }

    /// Refuses what grows without end.
    pub(super) fn count(&mut self, bytes: u64) -> Result<(), Fault> {
        self.unpacked = self.unpacked.saturating_add(bytes);
        let most = FREE_BYTES.max(self.allowed());
        if self.unpacked > most.min(UNPACKED_BYTES_MAX) {
            return Err(bomb());
        }
        Ok(())
    }

    /// What stands behind the last entry, which is nothing but padding: only at the very end
    /// it is known whether what was unpacked is what was packed.
    pub(super) fn rest(&mut self, mut input: impl Read) -> Result<(), Fault> {
        let mut piece = vec![0; PIECE_BYTES];
        loop {
            match input.read(&mut piece) {
                Ok(0) => return Ok(()),
                Ok(length) => self.count(length as u64)?,
                // All that was packed was right: what `gzip` ignores behind it is, here, too.
                Err(error) if form::is_behind_gzip(&error) => return Ok(()),
                Err(error) => return Err(broken(error)),
            }
        }
    }

    pub(super) fn file(
        &mut self,
        head: &Head<'_>,
        size: u64,
        bytes: &mut impl Read,
    ) -> Result<(), Fault> {
        let Some(path) = self.path_below(head.name)? else {
            return Ok(());
        };
        let (blob, size_bytes) = if size <= SMALL_BYTES_MAX as u64 {
            self.small(head.name, bytes)?
        } else {
            self.large(head.name, bytes)?
        };
        self.keep(path, head.kept(What::File { blob, size_bytes }))
    }

    fn small(&mut self, name: &[u8], bytes: &mut impl Read) -> Result<(BlobId, u64), Fault> {
        let mut whole = Vec::new();
        let most = SMALL_BYTES_MAX as u64 + 1;
        let read = bytes.take(most).read_to_end(&mut whole);
        read.map_err(|error| broken_at(name, &error))?;
        if whole.len() > SMALL_BYTES_MAX {
            return Err(Fault::Data(format!(
                "the archive is damaged: of '{}' there is more than it says",
                shown(name)
            )));
        }
        let size = whole.len();
        self.count(size as u64)?;
        let blob = BlobId::from_bytes(*blake3::hash(&whole).as_bytes());
        self.batch.push((blob, whole.into()));
        self.batch_bytes += size;
        if self.batch_bytes >= BATCH_BYTES || self.batch.len() >= BATCH_FILES {
            self.flush()?;
        }
        Ok((blob, size as u64))
    }

    fn large(&mut self, name: &[u8], bytes: &mut impl Read) -> Result<(BlobId, u64), Fault> {
        let mut writer = self.blobs.writer();
        let mut hasher = blake3::Hasher::new();
        let mut piece = vec![0; PIECE_BYTES];
        let mut size = 0;
        loop {
            let read = bytes.read(&mut piece);
            let length = read.map_err(|error| broken_at(name, &error))?;
            if length == 0 {
                break;
            }
            size += length as u64;
            self.count(length as u64)?;
            hasher.update(&piece[..length]);
            self.runtime.block_on(writer.write(&piece[..length]))?;
        }
        let blob = BlobId::from_bytes(*hasher.finalize().as_bytes());
        let missing = self.runtime.block_on(self.blobs.missing(vec![blob]))?;
        if !missing.is_empty() {
            self.new_bytes += size;
        }
        self.runtime.block_on(writer.finish(blob, size))?;
        Ok((blob, size))
    }

    fn flush(&mut self) -> Result<(), Fault> {
        let batch = std::mem::take(&mut self.batch);
        self.batch_bytes = 0;
        let sizes: HashMap<BlobId, u64> = batch
            .iter()
            .map(|(blob, bytes)| (*blob, bytes.len() as u64))
            .collect();
        let blobs = self.blobs;
        let missing = self.runtime.block_on(async {
            let missing = blobs.missing(sizes.keys().copied().collect()).await?;
            blobs.put_small_batch(batch).await?;
            Ok::<_, BlobError>(missing)
        })?;
        self.new_bytes += missing
            .iter()
            .filter_map(|blob| sizes.get(blob))
            .sum::<u64>();
        Ok(())
    }

    pub(super) fn finish(mut self) -> Result<Unpacked, Fault> {
        self.flush()?;
        if !self.refused.is_empty() {
            let more = match self.refused_more {
                0 => String::new(),
                more => format!(" and {more} more"),
            };
            return Err(Fault::Data(format!(
                "the archive has entries that cannot be taken, so none was: {}{more}",
                self.refused.join(", ")
            )));
        }
        Ok(Unpacked {
            entries: self.entries,
            new_bytes: self.new_bytes,
        })
    }
}

fn bomb() -> Fault {
    Fault::Data(format!(
        "the archive unpacks to more than {RATIO_MAX} times its size, or more than {} TiB: it is not taken; if it is meant to be, unpack it, and create the datastore from the folder",
        UNPACKED_BYTES_MAX >> 40
    ))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use grid_store::blobs::Settings;

    use super::*;

    fn blobs(folder: &Path) -> Blobs {
        let now = || grid_core::time::Timestamp::from_millis(1);
        Blobs::open(folder, Settings::new(now)).expect("a store")
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn names_have_a_limit_however_large_the_archive_is() {
        let dir = tempfile::tempdir().expect("a folder");
        let blobs = blobs(dir.path());
        let progress = Progress::default();
        progress.received.store(1 << 40, Ordering::Relaxed);
        let mut sink = Sink::new(&blobs, &progress);
        let long = vec!["n".repeat(250); 15].join("/");
        let mut kept = 0;
        let refused = loop {
            let name = format!("{kept}/{long}");
            let head = Head {
                name: name.as_bytes(),
                mode: 0o644,
                modified_ms: 0,
            };
            match sink.link(&head, long.as_bytes()) {
                Ok(()) => kept += 1,
                Err(refused) => break refused,
            }
        };
        let Fault::Data(said) = refused else {
            panic!("it is the data")
        };
        assert!(said.contains("more than 256 MiB"), "{said}");
        assert!((34_000..36_000).contains(&kept), "{kept}");
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn folders_are_told_only_where_nothing_is_in_them() {
        let dir = tempfile::tempdir().expect("a folder");
        let blobs = blobs(dir.path());
        let progress = Progress::default();
        let mut sink = Sink::new(&blobs, &progress);
        let head = |name: &'static str| Head {
            name: name.as_bytes(),
            mode: 0o755,
            modified_ms: 7,
        };
        for name in ["a", "a-b", "a/c/", "b", "b/d", "e"] {
            sink.folder(&head(name)).expect("taken");
        }
        for name in ["x/y", "b/d/f", "e"] {
            sink.link(&head(name), b"z").expect("taken");
        }
        // What is something else stays it.
        sink.folder(&head("e")).expect("taken");
        let mut unpacked = tokio::task::block_in_place(|| sink.finish()).expect("whole");
        let mut paths = Vec::new();
        loop {
            let part = unpacked.take(2);
            if part.is_empty() {
                break;
            }
            assert!(part.len() <= 2);
            let shown = |entry: Entry| (entry.path, entry.node == Node::Folder);
            paths.extend(part.into_iter().map(shown));
        }
        let expected = [
            ("a-b", true),
            ("a/c", true),
            ("b/d/f", false),
            ("e", false),
            ("x/y", false),
        ];
        assert_eq!(paths, expected.map(|(path, is)| (path.to_owned(), is)));
    }
}
