//! Reading and following logs.
//!
//! The log of an experiment is the logs of its attempts, one after the other.
//! A cursor is `<attempt>:<position>`.

use bytes::Bytes;
use grid_api::log::LogStream;
use grid_core::access::Action;
use grid_core::id::WorkloadId;
use grid_core::workload::{Status, Workload};
use grid_store::logs::{Follow, LineLimits, LogId, LogLine, Stream};

use crate::access::Caller;
use crate::error::{Error, Result};
use crate::{Engine, Watcher, artifact, reference};

/// Most lines of one answer.
pub const LINES_MAX: usize = 10_000;

/// Most bytes of lines of one answer.  Higher: more memory per reader.
const LINE_PAGE_BYTES: usize = 4 << 20;

/// Where a reader is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cursor {
    /// Number of the attempt.
    pub attempt: u32,
    /// Position in its log.
    pub at: u64,
}

impl Cursor {
    /// The beginning.
    pub const START: Self = Self { attempt: 1, at: 0 };

    /// Reads `<attempt>:<position>`.
    pub fn parse(text: &str) -> Result<Self> {
        let bad = || Error::invalid(format!("'{text}' is not a place in a log"));
        let (attempt, at) = text.split_once(':').ok_or_else(bad)?;
        Ok(Self {
            attempt: attempt.parse().map_err(|_| bad())?,
            at: at.parse().map_err(|_| bad())?,
        })
    }
}

impl std::fmt::Display for Cursor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.attempt, self.at)
    }
}

/// A line and where it stands.
#[derive(Debug, Clone)]
pub struct Line {
    /// Number of the attempt that wrote it.
    pub attempt: u32,
    /// The line.
    pub line: LogLine,
}

/// Some lines.
#[derive(Debug, Clone)]
pub struct Page {
    /// In order.
    pub lines: Vec<Line>,
    /// Where to go on.
    pub next: Cursor,
    /// Whether all that will ever be there has been read.
    pub over: bool,
    /// Whether earlier lines exist.
    pub truncated: bool,
}

/// A reader of one log of one experiment, already let in.
pub struct Reader {
    engine: Engine,
    caller: Caller,
    experiment: String,
    workload: WorkloadId,
    stream: Stream,
}

/// How far an experiment is, for those who follow it.
#[derive(Debug, Clone)]
pub struct Standing {
    /// Its status.
    pub status: Status,
    /// Number of its last attempt; 0 before the first.
    pub attempts: u32,
    /// A sentence about where it stands.
    pub message: Option<String>,
}

/// The store's key of the logs of an attempt.
pub(crate) fn key(workload: WorkloadId, attempt: u32) -> String {
    format!("{workload}-{attempt}")
}

pub(crate) fn stream_of(stream: LogStream) -> Stream {
    match stream {
        LogStream::Build => Stream::Build,
        LogStream::Experiment => Stream::Experiment,
    }
}

pub(crate) fn log_id(workload: WorkloadId, attempt: u32, stream: Stream) -> Result<LogId> {
    Ok(LogId::new(&key(workload, attempt), stream)?)
}

/// Lets the caller read a log.
pub async fn open(
    engine: &Engine,
    caller: &Caller,
    experiment: &str,
    stream: LogStream,
) -> Result<Reader> {
    let mut tx = engine.inner.db.read().await?;
    let (run, row) = reference::experiment(&mut tx, caller, experiment, false).await?;
    artifact::check(&mut tx, caller, &run, Action::ReadLogs).await?;
    Ok(Reader {
        engine: engine.clone(),
        caller: caller.clone(),
        experiment: experiment.to_owned(),
        workload: row.workload.id,
        stream: stream_of(stream),
    })
}

impl Reader {
    /// How far the experiment is now.
    pub async fn standing(&self) -> Result<Standing> {
        let open = self
            .engine
            .inner
            .book()
            .get(self.workload)
            .map(|entry| entry.workload.clone());
        let workload = match open {
            Some(workload) => workload,
            None => self.finished().await?,
        };
        Ok(Standing {
            status: workload.state.status(),
            attempts: workload.attempts,
            message: crate::experiment::message(&self.engine, &self.caller, &workload),
        })
    }

    async fn finished(&self) -> Result<Workload> {
        let entry = self.engine.inner.load_entry(self.workload).await?;
        let entry = entry
            .ok_or_else(|| Error::not_found(format!("no experiment '{}'", self.experiment)))?;
        Ok(entry.workload)
    }

    /// Whether the caller may still read: membership, account or key may have ended since.
    pub async fn still_allowed(&self) -> Result<()> {
        let mut tx = self.engine.inner.db.read().await?;
        let caller = crate::user::again(&self.engine, &mut tx, &self.caller).await?;
        let id = self.workload.to_string();
        let (run, _) = reference::experiment(&mut tx, &caller, &id, false).await?;
        artifact::check(&mut tx, &caller, &run, Action::ReadLogs).await
    }

    fn log(&self, attempt: u32) -> Result<LogId> {
        log_id(self.workload, attempt, self.stream)
    }

    /// Up to `limit` lines after `from`; with `partial`, also a last line that is not over.
    pub async fn lines(&self, from: Cursor, limit: usize, partial: bool) -> Result<Page> {
        let standing = self.standing().await?;
        let mut cursor = from;
        let mut lines = Vec::new();
        let limit = limit.clamp(1, LINES_MAX);
        loop {
            let last = cursor.attempt >= standing.attempts;
            let limits = LineLimits {
                lines: limit - lines.len(),
                bytes: LINE_PAGE_BYTES,
                // What an attempt that is over wrote last is a line, ended or not.
                partial: partial || !last || standing.status.is_final(),
            };
            let page = self
                .engine
                .inner
                .logs
                .lines(&self.log(cursor.attempt)?, cursor.at, limits)
                .await?;
            lines.extend(page.lines.into_iter().map(|line| Line {
                attempt: cursor.attempt,
                line,
            }));
            cursor.at = page.next;
            let over = page.at_end && last && standing.status.is_final();
            if page.at_end && !last {
                cursor = Cursor {
                    attempt: cursor.attempt + 1,
                    at: 0,
                };
            }
            if !page.at_end || last || lines.len() >= limit {
                return Ok(Page {
                    lines,
                    next: cursor,
                    over,
                    truncated: from != Cursor::START,
                });
            }
        }
    }

    /// The last `count` lines.
    pub async fn tail(&self, count: usize, partial: bool) -> Result<Page> {
        let standing = self.standing().await?;
        let count = count.min(LINES_MAX);
        let last = standing.attempts.max(1);
        let mut lines: std::collections::VecDeque<Line> = std::collections::VecDeque::new();
        let mut next = None;
        let mut truncated = false;
        for attempt in (1..=last).rev() {
            let limits = LineLimits {
                lines: (count - lines.len()).max(1),
                bytes: LINE_PAGE_BYTES,
                partial: partial || attempt < last || standing.status.is_final(),
            };
            let page = self
                .engine
                .inner
                .logs
                .tail(&self.log(attempt)?, limits)
                .await?;
            next.get_or_insert(Cursor {
                attempt,
                at: page.next,
            });
            let room = count - lines.len();
            let skip = page.lines.len().saturating_sub(room);
            truncated = page.lines.first().is_some_and(|first| first.number > 0) || skip > 0;
            for line in page.lines.into_iter().skip(skip).rev() {
                lines.push_front(Line { attempt, line });
            }
            if lines.len() >= count {
                truncated = truncated || attempt > 1;
                break;
            }
        }
        Ok(Page {
            lines: lines.into(),
            next: next.unwrap_or(Cursor::START),
            over: standing.status.is_final(),
            truncated,
        })
    }

    /// Up to `bytes_max` bytes behind `cursor` as they are stored, in frames, and where
    /// to go on; none at the end of the attempt's log.
    pub async fn frames(&self, cursor: Cursor, bytes_max: usize) -> Result<(Bytes, Cursor)> {
        let log = self.log(cursor.attempt)?;
        let logs = &self.engine.inner.logs;
        let (bytes, at) = logs.read(&log, cursor.at, bytes_max).await?;
        Ok((bytes, Cursor { at, ..cursor }))
    }

    /// Wakes whenever the log of an attempt has grown.
    pub async fn follow(&self, attempt: u32) -> Result<Follow> {
        Ok(self.engine.inner.logs.follow(&self.log(attempt)?).await?)
    }

    /// Waits until the log has grown beyond `cursor`, or the experiment has changed.
    pub async fn wait(&self, cursor: Cursor, watch: &mut Watcher) -> Result<()> {
        let mut follow = self
            .engine
            .inner
            .logs
            .follow(&self.log(cursor.attempt)?)
            .await?;
        if follow.progress().len > cursor.at {
            return Ok(());
        }
        tokio::select! {
            progress = follow.beyond(cursor.at) => {
                if progress.len <= cursor.at {
                    // It is complete: what changes now is the experiment.
                    watch.changed().await;
                }
            }
            () = watch.changed() => {}
        }
        Ok(())
    }
}
