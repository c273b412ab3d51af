//! Writing a spool: what a process says, from its pipes into files.
//!
//! `out` and `err` hold the bytes; `index` holds a [`Record`] for each piece that
//! was moved, which gives the pieces of both their order and their time.  The
//! record is written after its bytes, and readers go by the index, so that they
//! never see bytes that are not there.  A spool whose writer was killed in between
//! is completed by [`repair`].

use std::fs::{self, File};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::pipe::{SpliceFlags, fcntl_setpipe_size, splice};

use super::clock;
use super::protocol::Exit;
use crate::spare::overwrite;

/// Most bytes that are moved before another task has its turn.
/// Higher: a fast writer makes the others wait.  Lower: more system calls per byte.
const TURN_BYTES: usize = 1024 * 1024;

/// What a pipe is enlarged to when its process writes fast, in bytes.  What an
/// ordinary user is allowed at most.
/// Higher: refused, and the pipe stays small.  Lower: more wake-ups per byte.
const PIPE_BYTES: usize = 1024 * 1024;

/// A piece of at least this many bytes means that the process writes fast.
pub(crate) const FAST_BYTES: usize = 32 * 1024;

/// Every file that a spool may consist of, but for the two that each start writes anew:
/// the task's record and what the sandbox reports.
pub(crate) const FILES: [&str; 4] = ["out", "err", "index", EXIT_FILE];

/// How the task ended: there when, and only when, the spool is complete.
pub(crate) const EXIT_FILE: &str = "exit.json";

/// The same, until it is written whole.
pub(crate) const FRESH_EXIT_FILE: &str = "exit.json.new";

pub(crate) const INDEX_FILE: &str = "index";

/// One of the two streams of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Stream {
    Stdout,
    Stderr,
}

impl Stream {
    /// Both, in the order of their codes.
    pub const ALL: [Self; 2] = [Self::Stdout, Self::Stderr];

    pub(crate) const fn number(self) -> usize {
        match self {
            Self::Stdout => 0,
            Self::Stderr => 1,
        }
    }

    pub(crate) const fn file_name(self) -> &'static str {
        match self {
            Self::Stdout => "out",
            Self::Stderr => "err",
        }
    }
}

/// Length of a record on disk, in bytes.  Divides a page, so that no record is
/// half on one.
pub(crate) const RECORD_BYTES: usize = 32;

/// One piece of output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Record {
    /// Bytes of both streams before this piece: its position.
    pub(crate) position: u64,
    /// Where the piece begins in the file of its stream.
    pub(crate) offset: u64,
    pub(crate) at_ms: i64,
    pub(crate) length: u32,
    pub(crate) stream: Stream,
}

impl Record {
    pub(crate) fn encode(&self) -> [u8; RECORD_BYTES] {
        let mut bytes = [0; RECORD_BYTES];
        bytes[0..8].copy_from_slice(&self.position.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.offset.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.at_ms.to_le_bytes());
        bytes[24..28].copy_from_slice(&self.length.to_le_bytes());
        bytes[28] = match self.stream {
            Stream::Stdout => 1,
            Stream::Stderr => 2,
        };
        let check = check(&bytes);
        bytes[29..32].copy_from_slice(&check);
        bytes
    }

    /// `None` for anything but a record: zeros of a discarded part, for example.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; RECORD_BYTES] = bytes.try_into().ok()?;
        if bytes[29..32] != check(bytes) {
            return None;
        }
        let word = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap_or_default());
        let stream = match bytes[28] {
            1 => Stream::Stdout,
            2 => Stream::Stderr,
            _ => return None,
        };
        Some(Self {
            position: word(0),
            offset: word(8),
            at_ms: word(16).cast_signed(),
            length: u32::from_le_bytes(bytes[24..28].try_into().unwrap_or_default()),
            stream,
        })
    }

    pub(crate) fn end(&self) -> u64 {
        self.position + u64::from(self.length)
    }
}

/// Tells a record from other bytes (FNV-1a over all but the check itself).
fn check(bytes: &[u8; RECORD_BYTES]) -> [u8; 3] {
    let hash = bytes[..29].iter().fold(0x811c_9dc5_u32, |hash, byte| {
        (hash ^ u32::from(*byte)).wrapping_mul(16_777_619)
    });
    let [a, b, c, d] = hash.to_le_bytes();
    [a, b, c ^ d]
}

/// What one turn of moving bytes came to.
#[derive(Debug)]
pub(crate) enum Moved {
    Bytes(usize),
    /// Nothing there, the writer lives.
    Nothing,
    /// Nothing there and no writer left.
    End,
    /// The bytes cannot be kept for now: they wait in the pipe.
    Stalled(io::Error),
}

/// The writing side of a task's spool.
pub(crate) struct Spool {
    folder: PathBuf,
    files: [Option<File>; 2],
    offsets: [u64; 2],
    enlarged: [bool; 2],
    index: Option<File>,
    index_offset: u64,
    total: u64,
    /// Moved, but not yet in the index: the disk was full.
    unindexed: Option<Record>,
}

impl Spool {
    pub(crate) fn new(folder: PathBuf) -> Self {
        Self {
            folder,
            files: [None, None],
            offsets: [0; 2],
            enlarged: [false; 2],
            index: None,
            index_offset: 0,
            total: 0,
            unindexed: None,
        }
    }

    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Bytes of both streams that readers can see.
    pub(crate) fn total_bytes(&self) -> u64 {
        self.total
    }

    /// Moves what is in the pipe, up to a turn's worth.
    pub(crate) fn take(&mut self, stream: Stream, pipe: &OwnedFd) -> Moved {
        match self.try_take(stream, pipe) {
            Ok(moved) => moved,
            Err(error) => Moved::Stalled(error),
        }
    }

    fn try_take(&mut self, stream: Stream, pipe: &OwnedFd) -> io::Result<Moved> {
        self.write_index()?;
        let number = stream.number();
        if self.files[number].is_none() {
            // Most tasks write nothing to at least one stream: no file for those.
            match peek(pipe)? {
                Peeked::Data => {}
                Peeked::Nothing => return Ok(Moved::Nothing),
                Peeked::End => return Ok(Moved::End),
            }
            self.files[number] = Some(File::create(self.folder.join(stream.file_name()))?);
        }
        let Some(file) = &self.files[number] else {
            return Ok(Moved::Nothing);
        };
        let mut offset = self.offsets[number];
        let moved = match splice(
            pipe,
            None,
            file,
            Some(&mut offset),
            TURN_BYTES,
            SpliceFlags::NONBLOCK,
        ) {
            Ok(0) => return Ok(Moved::End),
            Ok(moved) => moved,
            Err(Errno::AGAIN | Errno::INTR) => return Ok(Moved::Nothing),
            Err(error) => return Err(error.into()),
        };
        self.unindexed = Some(Record {
            position: self.total,
            offset: self.offsets[number],
            at_ms: clock::wall_ms(),
            length: u32::try_from(moved).unwrap_or(u32::MAX),
            stream,
        });
        self.offsets[number] += moved as u64;
        if moved >= FAST_BYTES && !self.enlarged[number] {
            self.enlarged[number] = true;
            // Refused beyond what a user's pipes may hold together: then it is slower.
            let _ = fcntl_setpipe_size(pipe, PIPE_BYTES);
        }
        self.write_index()?;
        Ok(Moved::Bytes(moved))
    }

    /// Writes the record that waits, if there is one.
    fn write_index(&mut self) -> io::Result<()> {
        let Some(record) = self.unindexed else {
            return Ok(());
        };
        if self.index.is_none() {
            let file = File::options()
                .create(true)
                .truncate(true)
                .write(true)
                .open(self.folder.join(INDEX_FILE))?;
            self.index = Some(file);
        }
        if let Some(index) = &self.index {
            index.write_all_at(&record.encode(), self.index_offset)?;
        }
        self.index_offset += RECORD_BYTES as u64;
        self.total = record.end();
        self.unindexed = None;
        Ok(())
    }

    /// Completes the spool: from now on it never changes.
    pub(crate) fn finish(&mut self, exit: &Exit) -> io::Result<()> {
        self.write_index()?;
        let text = serde_json::to_vec(exit).map_err(io::Error::other)?;
        let fresh = self.folder.join(FRESH_EXIT_FILE);
        overwrite(&fresh, &text)?;
        fs::rename(&fresh, self.folder.join(EXIT_FILE))
    }
}

enum Peeked {
    Data,
    Nothing,
    End,
}

fn peek(pipe: &OwnedFd) -> io::Result<Peeked> {
    let mut polled = [PollFd::new(pipe, PollFlags::IN)];
    let at_once = rustix::time::Timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    match poll(&mut polled, Some(&at_once)) {
        Ok(_) | Err(Errno::INTR) => {}
        Err(error) => return Err(error.into()),
    }
    let found = polled[0].revents();
    Ok(if found.contains(PollFlags::IN) {
        Peeked::Data
    } else if found.intersects(PollFlags::HUP | PollFlags::ERR) {
        Peeked::End
    } else {
        Peeked::Nothing
    })
}

/// Completes the index of a spool whose keeper was killed: cuts off a torn record,
/// and adds what was moved into the files and not noted.
pub(crate) fn repair(folder: &Path) -> io::Result<Spool> {
    let mut spool = Spool::new(folder.to_owned());
    let index = File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(folder.join(INDEX_FILE))?;
    let records = index.metadata()?.len() / RECORD_BYTES as u64;
    let mut last = None;
    let mut ends = [0_u64; 2];
    let mut bytes = [0; RECORD_BYTES];
    for number in 0..records {
        index.read_exact_at(&mut bytes, number * RECORD_BYTES as u64)?;
        match Record::decode(&bytes) {
            Some(record) => {
                ends[record.stream.number()] = record.offset + u64::from(record.length);
                last = Some(record);
                spool.index_offset = (number + 1) * RECORD_BYTES as u64;
            }
            // Zeros of a part that was discarded come before the first record.
            None if last.is_none() => spool.index_offset = (number + 1) * RECORD_BYTES as u64,
            None => break,
        }
    }
    index.set_len(spool.index_offset)?;
    spool.index = Some(index);
    spool.total = last.map_or(0, |record| record.end());
    let mut at_ms = last.map_or(0, |record| record.at_ms);
    for stream in Stream::ALL {
        let Ok(found) = fs::metadata(folder.join(stream.file_name())) else {
            continue;
        };
        let mut offset = ends[stream.number()];
        at_ms = at_ms.max(modified_ms(&found));
        while offset < found.len() {
            let length = u32::try_from(found.len() - offset)
                .unwrap_or(u32::MAX)
                .min(TURN_BYTES as u32);
            spool.unindexed = Some(Record {
                position: spool.total,
                offset,
                at_ms,
                length,
                stream,
            });
            spool.write_index()?;
            offset += u64::from(length);
        }
        spool.offsets[stream.number()] = offset;
    }
    Ok(spool)
}

fn modified_ms(found: &fs::Metadata) -> i64 {
    use std::os::unix::fs::MetadataExt;
    found.mtime() * 1_000 + found.mtime_nsec() / 1_000_000
}

/// How the task of a spool ended; `None` while it runs.
pub(crate) fn read_exit(folder: &Path) -> io::Result<Option<Exit>> {
    match fs::read(folder.join(EXIT_FILE)) {
        Ok(text) => Ok(Some(
            serde_json::from_slice(&text).map_err(io::Error::other)?,
        )),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}
