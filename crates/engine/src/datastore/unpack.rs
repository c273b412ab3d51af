//! Taking an archive apart: tar, plain or packed by gzip or zstd, and zip.
//!
//! Nothing is written under a path of the archive: bytes go into the store, and paths into
//! the list of a version, which refuses what leads out of it.  Names of what is refused are
//! gathered, so that whoever made the archive sees them at once.

mod form;
mod listed;
mod sink;

use std::cell::Cell;
use std::io::{self, BufReader, Read};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use flate2::read::MultiGzDecoder;
use grid_store::blobs::Blobs;
use tar::EntryType;

use self::form::{Form, broken, broken_at};
use self::sink::{Head, Sink};
use super::work::Fault;

pub(super) use self::sink::Unpacked;

/// Entries of one archive.  Higher: its list takes more memory while it is taken apart;
/// lower: data sets of many small files have to be sent as a folder.
pub(super) const ENTRIES_MAX: usize = 2_000_000;

/// Bytes of names and attributes of one entry of a tar.  Higher: one entry takes that much
/// memory; lower: files with very many holes are refused.
const HEAD_BYTES_MAX: u64 = 4 << 20;

/// Bytes of a file on their way into the store.
const PIECE_BYTES: usize = 1 << 20;

/// What a tar is made of.
const BLOCK_BYTES: u64 = 512;

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
    // However little comes at a time.
    let mut head = Vec::new();
    let first = (&mut input).take(BLOCK_BYTES).read_to_end(&mut head);
    first.map_err(broken)?;
    let mut input = io::Cursor::new(head.clone()).chain(input);
    match Form::of(&head) {
        Form::Zip => {
            let mut file = tempfile::tempfile_in(scratch).map_err(full)?;
            io::copy(&mut input, &mut file).map_err(broken)?;
            listed::zip(&file, &mut sink)?;
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
