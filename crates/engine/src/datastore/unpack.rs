//! Taking an archive apart: tar, plain or packed by gzip or zstd, and zip.
//!
//! Nothing is written under a path of the archive: bytes go into the store, and paths into
//! the list of a version, which refuses what leads out of it.  Names of what is refused are
//! gathered, so that whoever made the archive sees them at once.

mod form;
mod listed;
mod sink;
mod tape;

use std::io::{self, BufReader, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use flate2::read::MultiGzDecoder;
use grid_store::blobs::Blobs;

use self::form::{Form, broken};
use self::sink::Sink;
use self::tape::tar;
use super::work::Fault;

pub(super) use self::sink::Unpacked;

/// Entries of one archive.  Higher: its list takes more memory while it is taken apart;
/// lower: data sets of many small files have to be sent as a folder.
pub(super) const ENTRIES_MAX: usize = 2_000_000;

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
