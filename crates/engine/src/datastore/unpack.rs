//! Taking an archive apart: tar, plain or packed by gzip or zstd, and zip.
//!
//! Nothing is written under a path of the archive: bytes go into the store, and paths into
//! the list of a version, which refuses what leads out of it.  Names of what is refused are
//! gathered, so that whoever made the archive sees them at once.

mod form;

use std::cell::Cell;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs::File;
use std::io::{self, BufReader, Read, Seek};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use bytes::Bytes;
use flate2::read::MultiGzDecoder;
use grid_core::blob::BlobId;
use grid_manifest::{Entry, Node};
use grid_store::blobs::{BlobError, Blobs, SMALL_BYTES_MAX};
use tar::EntryType;
use tokio::runtime::Handle;

use self::form::{Form, broken, broken_at, broken_zip, shown};
use super::work::Fault;

/// Entries of one archive.  Higher: its list takes more memory while it is taken apart;
/// lower: data sets of many small files have to be sent as a folder.
pub(super) const ENTRIES_MAX: usize = 2_000_000;

/// Bytes of all files of one archive together (4 TiB).
const UNPACKED_BYTES_MAX: u64 = 4 << 40;

/// How many times larger than what was sent its files may be, beyond [`FREE_BYTES`].
/// Higher: a small archive fills the disk; lower: files of nothing are refused.
const RATIO_MAX: u64 = 300;

/// Bytes of files that nobody minds however small the archive is.
const FREE_BYTES: u64 = 1 << 30;

/// Bytes of names and attributes of one entry of a tar.  Higher: one entry takes that much
/// memory; lower: files with very many holes are refused.
const HEAD_BYTES_MAX: u64 = 4 << 20;

/// Small files that are stored together, in bytes and in number.
const BATCH_BYTES: usize = 8 << 20;
const BATCH_FILES: usize = 2_048;

/// Bytes of a file on their way into the store.
const PIECE_BYTES: usize = 1 << 20;

/// What a tar is made of.
const BLOCK_BYTES: u64 = 512;

/// Longest name in a path, and longest path, in bytes; what a disk takes.
const NAME_BYTES_MAX: usize = 255;
const PATH_BYTES_MAX: usize = 4_095;

/// Names in one refusal.
const NAMES_MAX: usize = 10;

/// How far it is, for whoever looks on.
#[derive(Debug, Default)]
pub(super) struct Progress {
    /// Bytes of the archive that came.
    pub(super) received: AtomicU64,
    /// Of how many, where that is known by now.
    pub(super) total: AtomicU64,
    /// Nobody wants the rest any more.
    pub(super) is_given_up: AtomicBool,
}

/// What was in an archive.
#[derive(Debug)]
pub(super) struct Unpacked {
    /// Its entries, by path.
    pub(super) entries: Vec<Entry>,
    /// Bytes that were not stored before.
    pub(super) new_bytes: u64,
}

/// Reads an archive that comes in one stream.  This blocks; the runtime stores meanwhile.
///
/// A zip has its list at the end, so it is kept in a file of `scratch` first.
pub(super) fn unpack(
    input: impl Read,
    scratch: &std::path::Path,
    blobs: &Blobs,
    progress: &Arc<Progress>,
) -> Result<Unpacked, Fault> {
    let counted = Counted {
        input,
        progress: Arc::clone(progress),
    };
    let mut input = BufReader::with_capacity(PIECE_BYTES, counted);
    let mut sink = Sink::new(blobs, progress);
    let head = io::BufRead::fill_buf(&mut input).map_err(broken)?.to_vec();
    match Form::of(&head) {
        Form::Zip => {
            let mut file = tempfile::tempfile_in(scratch).map_err(full)?;
            io::copy(&mut input, &mut file).map_err(broken)?;
            file.rewind().map_err(full)?;
            zip(file, &mut sink)?;
        }
        Form::Gzip => packed_tar(MultiGzDecoder::new(input), &mut sink)?,
        Form::Zstd => {
            let unpacked = zstd::stream::read::Decoder::with_buffer(input).map_err(broken)?;
            packed_tar(unpacked, &mut sink)?;
        }
        Form::Tar => tar(input, &mut sink)?,
        Form::Unknown => return Err(form::unknown(&head)),
    }
    sink.finish()
}

#[expect(clippy::needless_pass_by_value, reason = "stands in `map_err`")]
fn full(error: io::Error) -> Fault {
    Fault::Ours(crate::Error::Full(format!(
        "an archive could not be kept on the server's disk: {error}"
    )))
}

/// Counts what comes, and ends when nobody wants it any more.
struct Counted<R> {
    input: R,
    progress: Arc<Progress>,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.progress.is_given_up.load(Ordering::Relaxed) {
            return Err(io::Error::other("it was given up"));
        }
        let length = self.input.read(buffer)?;
        self.progress
            .received
            .fetch_add(length as u64, Ordering::Relaxed);
        Ok(length)
    }
}

/// Gives out only so many bytes: names that never end must not fill the memory.
struct Rationed<R> {
    input: R,
    left: Rc<Cell<u64>>,
}

impl<R: Read> Read for Rationed<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = self.left.get();
        if left == 0 && !buffer.is_empty() {
            return Err(io::Error::other("an entry has a name without an end"));
        }
        let most = usize::try_from(left)
            .unwrap_or(usize::MAX)
            .min(buffer.len());
        let length = self.input.read(&mut buffer[..most])?;
        self.left.set(left - length as u64);
        Ok(length)
    }
}

/// A tar that was packed by something which packs anything.
fn packed_tar(mut input: impl Read, sink: &mut Sink<'_>) -> Result<(), Fault> {
    let mut head = Vec::new();
    let first = (&mut input).take(BLOCK_BYTES).read_to_end(&mut head);
    first.map_err(broken)?;
    if !form::begins_tar(&head) {
        return Err(form::packed_other());
    }
    tar(io::Cursor::new(head).chain(input), sink)
}

fn tar(input: impl Read, sink: &mut Sink<'_>) -> Result<(), Fault> {
    let left = Rc::new(Cell::new(HEAD_BYTES_MAX));
    let rationed = Rationed {
        input,
        left: Rc::clone(&left),
    };
    let mut archive = tar::Archive::new(rationed);
    let mut entries = archive.entries().map_err(broken)?;
    loop {
        left.set(HEAD_BYTES_MAX);
        let Some(entry) = entries.next() else {
            break;
        };
        let mut entry = entry.map_err(broken)?;
        left.set(u64::MAX);
        let kind = entry.header().entry_type();
        let name = entry.path_bytes().into_owned();
        let mode = entry.header().mode().unwrap_or(0o644) & 0o777;
        let modified_ms = entry.header().mtime().unwrap_or_default();
        let modified_ms = i64::try_from(modified_ms)
            .unwrap_or_default()
            .saturating_mul(1_000);
        let target = entry.link_name_bytes().map(std::borrow::Cow::into_owned);
        let head = Head {
            name: &name,
            mode,
            modified_ms,
        };
        match kind {
            EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => {
                sink.file(&head, entry.size(), &mut entry)?;
            }
            EntryType::Directory => sink.folder(&head)?,
            EntryType::Symlink => sink.link(&head, &target.unwrap_or_default())?,
            EntryType::Link => sink.same_as(&head, &target.unwrap_or_default())?,
            EntryType::XGlobalHeader => {}
            _ => sink.refuse(&name, "no file, folder or link"),
        }
        // What is left of an entry is read under no ration.
        io::copy(&mut entry, &mut io::sink()).map_err(|error| broken_at(&name, &error))?;
    }
    // An archive ends with a block of zeros.  One without was cut between two entries, and
    // who unpacks it would never know.
    if HEAD_BYTES_MAX - left.get() < BLOCK_BYTES {
        let cut = "it ends without the mark that stands at the end of each";
        return Err(broken(io::Error::new(io::ErrorKind::UnexpectedEof, cut)));
    }
    left.set(u64::MAX);
    sink.rest(archive.into_inner())
}

fn zip(file: File, sink: &mut Sink<'_>) -> Result<(), Fault> {
    let archive = zip::ZipArchive::new(BufReader::new(file));
    let mut archive = archive.map_err(|error| broken_zip(None, error))?;
    if archive.len() > ENTRIES_MAX {
        return Err(too_many());
    }
    for index in 0..archive.len() {
        let name = archive.by_index_raw(index);
        let name = name
            .map_err(|error| broken_zip(None, error))?
            .name_raw()
            .to_vec();
        let entry = archive.by_index(index);
        let mut entry = entry.map_err(|error| broken_zip(Some(&name), error))?;
        let mode = entry.unix_mode();
        let head = Head {
            name: &name,
            mode: mode.unwrap_or(0o644) & 0o777,
            modified_ms: entry.last_modified().map_or(0, zip_time),
        };
        if entry.is_dir() {
            sink.folder(&head)?;
        } else if mode.is_some_and(|mode| mode & 0o170_000 == 0o120_000) {
            let mut target = Vec::new();
            let most = grid_manifest::TARGET_BYTES_MAX as u64 + 1;
            (&mut entry)
                .take(most)
                .read_to_end(&mut target)
                .map_err(|error| broken_at(&name, &error))?;
            sink.link(&head, &target)?;
        } else {
            let size = entry.size();
            sink.file(&head, size, &mut entry)?;
        }
    }
    Ok(())
}

/// Times in a zip have no zone; they are taken for UTC.
fn zip_time(time: zip::DateTime) -> i64 {
    let text = format!(
        "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}Z",
        time.year(),
        time.month(),
        time.day(),
        time.hour(),
        time.minute(),
        time.second().min(59)
    );
    grid_core::time::Timestamp::parse(&text).map_or(0, grid_core::time::Timestamp::as_millis)
}

/// What an entry of an archive says before its bytes.
struct Head<'a> {
    name: &'a [u8],
    mode: u32,
    modified_ms: i64,
}

fn too_many() -> Fault {
    Fault::Data(format!(
        "the archive has more than {ENTRIES_MAX} entries; unpack it, and send the folder"
    ))
}

/// Where entries go.
struct Sink<'a> {
    blobs: &'a Blobs,
    runtime: Handle,
    progress: &'a Progress,
    entries: BTreeMap<String, Entry>,
    folders: BTreeMap<String, (u32, i64)>,
    refused: Vec<String>,
    refused_more: usize,
    batch: Vec<(BlobId, Bytes)>,
    batch_bytes: usize,
    unpacked: u64,
    new_bytes: u64,
}

impl<'a> Sink<'a> {
    fn new(blobs: &'a Blobs, progress: &'a Progress) -> Self {
        Self {
            blobs,
            runtime: Handle::current(),
            progress,
            entries: BTreeMap::new(),
            folders: BTreeMap::new(),
            refused: Vec::new(),
            refused_more: 0,
            batch: Vec::new(),
            batch_bytes: 0,
            unpacked: 0,
            new_bytes: 0,
        }
    }

    fn refuse(&mut self, name: &[u8], why: &str) {
        if self.refused.len() < NAMES_MAX {
            self.refused.push(format!("'{}' ({why})", shown(name)));
        } else {
            self.refused_more += 1;
        }
    }

    /// The path of an entry; `None` when it is refused or is the top.
    fn path(&mut self, name: &[u8]) -> Result<Option<String>, Fault> {
        if self.entries.len() + self.folders.len() >= ENTRIES_MAX {
            return Err(too_many());
        }
        let Ok(text) = std::str::from_utf8(name) else {
            self.refuse(name, "its name is not UTF-8");
            return Ok(None);
        };
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
        Ok(Some(path).filter(|path| !path.is_empty()))
    }

    fn folder(&mut self, head: &Head<'_>) -> Result<(), Fault> {
        if let Some(path) = self.path(head.name)? {
            self.folders.insert(path, (head.mode, head.modified_ms));
        }
        Ok(())
    }

    fn link(&mut self, head: &Head<'_>, target: &[u8]) -> Result<(), Fault> {
        let Some(path) = self.path(head.name)? else {
            return Ok(());
        };
        let Ok(target) = std::str::from_utf8(target) else {
            self.refuse(head.name, "where it points is not UTF-8");
            return Ok(());
        };
        let entry = Entry {
            path: path.clone(),
            mode: 0o777,
            modified_ms: head.modified_ms,
            node: Node::Link {
                target: target.to_owned(),
            },
        };
        let mut check = grid_manifest::Check::default();
        match check.next(&entry) {
            Ok(()) => drop(self.entries.insert(path, entry)),
            Err(_) => self.refuse(head.name, &format!("a link that leads out, to {target}")),
        }
        Ok(())
    }

    /// A second name of a file that came before.
    fn same_as(&mut self, head: &Head<'_>, target: &[u8]) -> Result<(), Fault> {
        let (Some(path), Some(target)) = (self.path(head.name)?, self.path(target)?) else {
            return Ok(());
        };
        match self.entries.get(&target).cloned() {
            Some(first) => {
                let entry = Entry {
                    path: path.clone(),
                    ..first
                };
                self.count(entry.size_bytes())?;
                self.entries.insert(path, entry);
            }
            None => {
                let why = format!("a link to '{target}', which does not come before it");
                self.refuse(head.name, &why);
            }
        }
        Ok(())
    }

    /// Refuses what grows without end.
    fn count(&mut self, bytes: u64) -> Result<(), Fault> {
        self.unpacked = self.unpacked.saturating_add(bytes);
        let received = self.progress.received.load(Ordering::Relaxed);
        let most = FREE_BYTES.max(received.saturating_mul(RATIO_MAX));
        if self.unpacked > most.min(UNPACKED_BYTES_MAX) {
            return Err(Fault::Data(format!(
                "the archive unpacks to more than {RATIO_MAX} times its size, or more than {} TiB: it is not taken; if it is meant to be, unpack it, and create the datastore from the folder",
                UNPACKED_BYTES_MAX >> 40
            )));
        }
        Ok(())
    }

    /// What stands behind the last entry, which is nothing but padding: only at the very end
    /// it is known whether what was unpacked is what was packed.
    fn rest(&mut self, mut input: impl Read) -> Result<(), Fault> {
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

    fn file(&mut self, head: &Head<'_>, size: u64, bytes: &mut impl Read) -> Result<(), Fault> {
        let Some(path) = self.path(head.name)? else {
            return Ok(());
        };
        let (blob, size_bytes) = if size <= SMALL_BYTES_MAX as u64 {
            self.small(head.name, bytes)?
        } else {
            self.large(head.name, bytes)?
        };
        let entry = Entry {
            path: path.clone(),
            mode: head.mode,
            modified_ms: head.modified_ms,
            node: Node::File { blob, size_bytes },
        };
        self.entries.insert(path, entry);
        Ok(())
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

    fn finish(mut self) -> Result<Unpacked, Fault> {
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
        let mut full: HashSet<&str> = HashSet::new();
        for path in self.entries.keys().chain(self.folders.keys()) {
            let mut rest = path.as_str();
            while let Some((above, _)) = rest.rsplit_once('/') {
                if !full.insert(above) {
                    break;
                }
                rest = above;
            }
        }
        let empty: Vec<Entry> = self
            .folders
            .iter()
            .filter(|(path, _)| {
                !full.contains(path.as_str()) && !self.entries.contains_key(path.as_str())
            })
            .map(|(path, (mode, modified_ms))| Entry {
                path: path.clone(),
                mode: *mode,
                modified_ms: *modified_ms,
                node: Node::Folder,
            })
            .collect();
        let mut entries: Vec<Entry> = self.entries.into_values().chain(empty).collect();
        entries.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(Unpacked {
            entries,
            new_bytes: self.new_bytes,
        })
    }
}
