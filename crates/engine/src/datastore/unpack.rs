//! Taking an archive apart: tar, plain or packed by gzip or zstd, and zip.
//!
//! Nothing is written under a path of the archive: bytes go into the store, and paths into
//! the list of a version, which refuses what leads out of it.  Names of what is refused are
//! gathered, so that whoever made the archive sees them at once.

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
        Form::Gzip => tar(MultiGzDecoder::new(input), &mut sink)?,
        Form::Zstd => {
            let unpacked = zstd::stream::read::Decoder::with_buffer(input).map_err(broken)?;
            tar(unpacked, &mut sink)?;
        }
        Form::Tar => tar(input, &mut sink)?,
        Form::Unknown => {
            return Err(Fault::Data(
                "it is no archive: .tar, .tar.gz, .tar.zst and .zip are taken apart".to_owned(),
            ));
        }
    }
    sink.finish()
}

/// What kind of archive it is, by its first bytes: names lie.
#[derive(Debug, PartialEq, Eq)]
enum Form {
    Zip,
    Gzip,
    Zstd,
    Tar,
    Unknown,
}

impl Form {
    fn of(head: &[u8]) -> Self {
        let is_empty_tar = head.len() >= 512 && head[..512].iter().all(|byte| *byte == 0);
        if head.starts_with(b"PK\x03\x04") || head.starts_with(b"PK\x05\x06") {
            Self::Zip
        } else if head.starts_with(&[0x1f, 0x8b]) {
            Self::Gzip
        } else if head.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]) {
            Self::Zstd
        } else if head.get(257..262) == Some(b"ustar") || is_empty_tar {
            Self::Tar
        } else {
            Self::Unknown
        }
    }
}

#[expect(clippy::needless_pass_by_value, reason = "stands in `map_err`")]
fn broken(error: io::Error) -> Fault {
    match error.kind() {
        io::ErrorKind::ConnectionReset
        | io::ErrorKind::ConnectionAborted
        | io::ErrorKind::TimedOut
        | io::ErrorKind::BrokenPipe => Fault::Ours(crate::Error::Unavailable(format!(
            "the archive broke off: {error}"
        ))),
        _ => Fault::Data(format!("the archive cannot be read: {error}")),
    }
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
            return Ok(());
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
        io::copy(&mut entry, &mut io::sink()).map_err(broken)?;
    }
}

fn zip(file: File, sink: &mut Sink<'_>) -> Result<(), Fault> {
    let bad =
        |error: zip::result::ZipError| Fault::Data(format!("the archive cannot be read: {error}"));
    let mut archive = zip::ZipArchive::new(BufReader::new(file)).map_err(bad)?;
    if archive.len() > ENTRIES_MAX {
        return Err(too_many());
    }
    for index in 0..archive.len() {
        let mut entry = archive.by_index(index).map_err(bad)?;
        let name = entry.name_raw().to_vec();
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
                .map_err(broken)?;
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
            let name: String = String::from_utf8_lossy(name).chars().take(200).collect();
            self.refused
                .push(format!("'{}' ({why})", name.escape_debug()));
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
        Ok(Some(parts.join("/")).filter(|path| !path.is_empty()))
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
            None => self.refuse(head.name, "a link to a file that does not come before it"),
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
                "the archive unpacks to more than {RATIO_MAX} times its size, or more than {} TiB: it is not taken",
                UNPACKED_BYTES_MAX >> 40
            )));
        }
        Ok(())
    }

    fn file(&mut self, head: &Head<'_>, size: u64, bytes: &mut impl Read) -> Result<(), Fault> {
        let Some(path) = self.path(head.name)? else {
            return Ok(());
        };
        let (blob, size_bytes) = if size <= SMALL_BYTES_MAX as u64 {
            self.small(bytes)?
        } else {
            self.large(bytes)?
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

    fn small(&mut self, bytes: &mut impl Read) -> Result<(BlobId, u64), Fault> {
        let mut whole = Vec::new();
        let most = SMALL_BYTES_MAX as u64 + 1;
        bytes.take(most).read_to_end(&mut whole).map_err(broken)?;
        if whole.len() > SMALL_BYTES_MAX {
            return Err(Fault::Data(
                "the archive says less of a file than there is of it".to_owned(),
            ));
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

    fn large(&mut self, bytes: &mut impl Read) -> Result<(BlobId, u64), Fault> {
        let mut writer = self.blobs.writer();
        let mut hasher = blake3::Hasher::new();
        let mut piece = vec![0; PIECE_BYTES];
        let mut size = 0;
        loop {
            let length = bytes.read(&mut piece).map_err(broken)?;
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
