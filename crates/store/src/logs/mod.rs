//! Logs: what processes wrote, kept byte for byte.
//!
//! A log belongs to an attempt and a stream (`build` or `experiment`) and is a string
//! of frames ([`grid_core::logframe`]).  The store does not care where a sender cuts
//! it: it appends ranges of bytes.  Promises:
//!
//! - **Nothing is lost or doubled.**  An append says at which offset its bytes belong.
//!   Bytes that are there already are compared and skipped, a gap is refused with
//!   what is there.  A sender that does not know goes on from [`LogStore::progress`].
//! - **What was accepted survives the process.**  Each append is written before it
//!   returns.  It is not forced to the disk: after a loss of power the end may be
//!   missing, and the sender, who keeps its spool, sends it again.
//! - **An append happens or does not.**  On a full disk what was written of it is
//!   taken back.
//! - **Any page of any log is cheap.**  A sparse index finds its place; nothing reads
//!   a whole log into memory.
//! - **Nothing is made for nothing.**  A log without bytes has no file.
//!
//! The server process is the only writer of the folder.

mod index;
mod lines;
mod log;
mod registry;
mod scan;
mod segment;
#[cfg(test)]
pub(crate) mod tests;

use std::fmt;
use std::io;
use std::path::Path;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use tokio::sync::watch;

pub use lines::{LineLimits, LinePage, LineReader, LogLine};
pub use log::{APPEND_BYTES_MAX, Progress};
pub use scan::{LINE_BYTES_MAX, LINE_SPAN_BYTES_MAX};
pub use segment::SEGMENT_BYTES;

use log::Log;
use registry::Registry;
use segment::{SegmentReader, Sizes};

/// Most bytes that one read returns.
/// Higher: a reader may ask for more memory at a time.  Lower: more calls per copy.
pub const READ_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Longest key of an attempt in bytes: part of a file's name.
const ATTEMPT_BYTES_MAX: usize = 128;

/// Which of an attempt's logs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Stream {
    /// What making the environment wrote.
    Build,
    /// What the user's process wrote.
    Experiment,
}

impl Stream {
    /// Every stream.
    pub const ALL: [Self; 2] = [Self::Build, Self::Experiment];
}

impl fmt::Display for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Build => "build",
            Self::Experiment => "experiment",
        })
    }
}

/// The name of a log.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LogId {
    attempt: Arc<str>,
    stream: Stream,
}

impl LogId {
    /// Names a log.  The attempt's key becomes a file name: 1 to 128 ASCII letters,
    /// digits, `-` and `_`.
    pub fn new(attempt: &str, stream: Stream) -> Result<Self, LogError> {
        let good = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
        if attempt.is_empty() || attempt.len() > ATTEMPT_BYTES_MAX || !attempt.bytes().all(good) {
            return Err(LogError::Name {
                attempt: attempt.chars().take(ATTEMPT_BYTES_MAX).collect(),
            });
        }
        Ok(Self {
            attempt: attempt.into(),
            stream,
        })
    }

    fn streams_of(attempt: &str) -> Result<[Self; Stream::ALL.len()], LogError> {
        let [build, experiment] = Stream::ALL;
        Ok([Self::new(attempt, build)?, Self::new(attempt, experiment)?])
    }

    /// The key of the attempt.
    pub fn attempt(&self) -> &str {
        &self.attempt
    }

    /// Which of the attempt's logs.
    pub fn stream(&self) -> Stream {
        self.stream
    }
}

impl fmt::Display for LogId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the {} log of attempt {}", self.stream, self.attempt)
    }
}

/// Why a log operation did not happen.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LogError {
    /// The attempt's key cannot be a file name.
    #[error("'{attempt}' cannot name a log: expected 1 to 128 ASCII letters, digits, '-' and '_'")]
    Name { attempt: String },
    /// Bytes before these are missing.
    #[error("{log} has {have} bytes, so none can be added at {offset}: send from {have} on")]
    Gap { log: LogId, have: u64, offset: u64 },
    /// These bytes are not those that are stored there.
    #[error(
        "{log} has other bytes from {offset} on: two senders write to it, or one changed its mind"
    )]
    Diverged { log: LogId, offset: u64 },
    /// The log is complete.
    #[error("{log} is complete at {len} bytes: nothing can be added")]
    Sealed { log: LogId, len: u64 },
    /// One append had too much.
    #[error("{bytes} bytes are too many for one append: send at most {APPEND_BYTES_MAX}")]
    TooLarge { bytes: usize },
    /// The disk is full; nothing was written.  The same append works when there is room.
    #[error("no room on disk for {log}: make room, then send again")]
    Full { log: LogId, source: io::Error },
    /// The file system failed.
    #[error("could not {doing} {log}")]
    Io {
        doing: &'static str,
        log: LogId,
        source: io::Error,
    },
    /// The folder of the logs cannot be used.
    #[error("could not open the folder of the logs, {folder}")]
    Folder { folder: String, source: io::Error },
}

impl LogError {
    fn io(doing: &'static str, log: &LogId, source: io::Error) -> Self {
        let log = log.clone();
        match source.kind() {
            io::ErrorKind::StorageFull
            | io::ErrorKind::QuotaExceeded
            | io::ErrorKind::FileTooLarge => Self::Full { log, source },
            _ => Self::Io { doing, log, source },
        }
    }
}

/// The logs of all attempts.
#[derive(Clone)]
pub struct LogStore {
    registry: Arc<Registry>,
}

impl LogStore {
    /// Opens the folder of the logs and makes it if it is not there.
    pub fn open(dir: &Path) -> Result<Self, LogError> {
        Self::open_with(dir, Sizes::default())
    }

    fn open_with(dir: &Path, sizes: Sizes) -> Result<Self, LogError> {
        std::fs::create_dir_all(dir).map_err(|source| LogError::Folder {
            folder: dir.display().to_string(),
            source,
        })?;
        Ok(Self {
            registry: Arc::new(Registry::new(dir, sizes)),
        })
    }

    /// Adds bytes to a log at `offset`, and returns its new length.  What of them is
    /// there already must be the same, and is left alone.
    pub async fn append(&self, log: &LogId, offset: u64, bytes: Bytes) -> Result<u64, LogError> {
        let log = self.registry.get(log);
        if let Some(result) = log.try_append(offset, &bytes) {
            return result;
        }
        let registry = Arc::clone(&self.registry);
        blocking(move || {
            let result = log.append(offset, &bytes);
            registry.limit_files();
            result
        })
        .await
    }

    /// How long a log is, and whether it is complete.
    ///
    /// A complete log without bytes leaves nothing on disk: after a restart it is
    /// said to be open.
    pub async fn progress(&self, log: &LogId) -> Result<Progress, LogError> {
        let log = self.registry.get(log);
        if let Some(progress) = log.try_progress() {
            return Ok(progress);
        }
        blocking(move || log.progress()).await
    }

    /// How many lines have ended.
    pub async fn count_lines(&self, log: &LogId) -> Result<u64, LogError> {
        let log = self.registry.get(log);
        Ok(blocking(move || log.count()).await?.1)
    }

    /// Declares a log complete, and returns its length.  With `expected`, only if it
    /// has exactly so many bytes; without, with what there is.  Again is the same.
    pub async fn finish(&self, log: &LogId, expected: Option<u64>) -> Result<u64, LogError> {
        let id = log.clone();
        let registry = Arc::clone(&self.registry);
        blocking(move || {
            let log = registry.get(&id);
            let len = log.finish(expected)?;
            if len > 0 {
                registry.release(&id, log);
            }
            Ok(len)
        })
        .await
    }

    /// Removes the logs of an attempt.  What is not there is removed already.
    pub async fn delete(&self, attempt: &str) -> Result<(), LogError> {
        let attempt = attempt.to_owned();
        let registry = Arc::clone(&self.registry);
        blocking(move || registry.delete(&attempt)).await
    }

    /// Up to `bytes_max` raw bytes from `offset` on, and the offset behind them.
    pub async fn read(
        &self,
        log: &LogId,
        offset: u64,
        bytes_max: usize,
    ) -> Result<(Bytes, u64), LogError> {
        let log = self.registry.get(log);
        blocking(move || read(&log, offset, bytes_max)).await
    }

    /// Up to so many lines behind the cursor `from`: 0, or a cursor that a line or a
    /// page came with.
    pub async fn lines(
        &self,
        log: &LogId,
        from: u64,
        limits: LineLimits,
    ) -> Result<LinePage, LogError> {
        self.reader(log, from).next(limits).await
    }

    /// A reader that keeps its place, for whoever reads on and on.
    pub fn reader(&self, log: &LogId, from: u64) -> LineReader {
        LineReader::new(self.registry.get(log), from)
    }

    /// The last lines.
    pub async fn tail(&self, log: &LogId, limits: LineLimits) -> Result<LinePage, LogError> {
        let log = self.registry.get(log);
        blocking(move || lines::last(&log, None, limits)).await
    }

    /// The lines right before the one with this `end`, oldest first: with the first
    /// line of a page, the page before it.
    pub async fn lines_before(
        &self,
        log: &LogId,
        end: u64,
        limits: LineLimits,
    ) -> Result<LinePage, LogError> {
        let log = self.registry.get(log);
        blocking(move || lines::last(&log, Some(end.saturating_sub(1)), limits)).await
    }

    /// Wakes whenever the log has grown or is complete.
    pub async fn follow(&self, log: &LogId) -> Result<Follow, LogError> {
        let log = self.registry.get(log);
        let changes = log.subscribe();
        let held = Arc::clone(&log);
        blocking(move || log.progress()).await?;
        Ok(Follow {
            changes,
            _log: held,
        })
    }
}

/// Waits for a log to grow.  Costs nothing while it does not.
pub struct Follow {
    changes: watch::Receiver<Progress>,
    /// Keeps the sender of the changes where it is.
    _log: Arc<Log>,
}

impl Follow {
    /// How far the log is now; changes until now will not wake any more.
    pub fn progress(&mut self) -> Progress {
        *self.changes.borrow_and_update()
    }

    /// Waits until the log is longer than `len` or complete, and says how far it is.
    pub async fn beyond(&mut self, len: u64) -> Progress {
        let reached = |progress: &Progress| progress.len > len || progress.sealed;
        // It fails only when the sender is gone, which lives as long as this does.
        let progress = self.changes.wait_for(reached).await.map(|now| *now);
        progress.unwrap_or(Progress { len, sealed: true })
    }
}

fn read(log: &Arc<Log>, offset: u64, bytes_max: usize) -> Result<(Bytes, u64), LogError> {
    let left = log.progress()?.len.saturating_sub(offset);
    let want = usize::try_from(left)
        .unwrap_or(usize::MAX)
        .min(bytes_max)
        .min(READ_BYTES_MAX);
    let mut bytes = BytesMut::zeroed(want);
    let read = SegmentReader::new(log.segments().clone())
        .read_full_at(offset, &mut bytes)
        .map_err(log.error("read"))?;
    bytes.truncate(read);
    Ok((bytes.freeze(), offset + read as u64))
}

/// Runs file work on a thread that may block.
pub(crate) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // The runtime is shutting down, and whoever awaits this with it.
            Err(_) => std::future::pending().await,
        },
    }
}
