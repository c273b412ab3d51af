//! Following the log of an experiment: its lines as they come, and how it stands.

use std::time::Duration;

use bytes::Bytes;
use futures::{Stream, StreamExt};
use grid_api::log::{LogLine, LogSource, LogStream, LogsEnd, LogsStatus};
use grid_core::workload::Status;
use grid_engine::log::{Cursor, Page, Reader};
use grid_engine::{Error, Result, Watcher};
use grid_store::logs::Follow;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{Events, KEEP_ALIVE};
use crate::error::Failure;
use crate::rest::line_view;

/// Lines sent in one piece.  Higher: more memory per follower; lower: a long log that
/// is caught up with takes longer.
const LINES: usize = 2_000;

/// How soon a log is read again that grows all the time.  Higher: lines come late;
/// lower: a busy log keeps the server busy for each follower.
const READ_APART: Duration = Duration::from_millis(20);

/// How soon a line that is not over is sent again: ten times a second, as a progress
/// bar moves.
const PARTIAL_APART: Duration = Duration::from_millis(100);

/// How soon after one look at the experiment's status the next one is.
const LOOK_APART: Duration = Duration::from_millis(50);

/// How often the status is looked at without being woken: what a runner notes in
/// passing ("installing 12 packages") wakes nobody.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// How often it is asked whether the follower still may.  Higher: who was removed from
/// a team reads on for longer; lower: each follower costs more.
const CHECK_EVERY: Duration = Duration::from_secs(3);

/// For how long nothing more of a build comes once its experiment runs, until it is over:
/// what it wrote last is on its way.  Higher: whoever waits for the build waits longer;
/// lower: its last lines are not told.
const BUILD_QUIET: Duration = Duration::from_secs(1);

/// What a follower is told.
#[derive(Debug)]
pub(crate) enum Told {
    /// How the experiment stands; first, and when it changes.
    Status(LogsStatus),
    /// A line, and where to go on behind it.  One that is not over has no such place, and
    /// comes again.
    Line { at: Option<Cursor>, line: LogLine },
    /// All is told.
    End(LogsEnd),
}

/// Where following begins.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Start {
    /// With so many last lines.
    Tail(usize),
    /// Behind a place.
    At(Cursor),
}

/// Somebody who follows a log.
pub(crate) struct Follower {
    reader: Reader,
    stream: LogStream,
    watcher: Watcher,
    /// Wakes when who may do what has changed.
    people: Watcher,
    /// Whether it is to be asked at once whether the follower still may.
    ask: bool,
    stop: CancellationToken,
    /// Since when nothing has come of a build whose experiment runs; `None` for those who
    /// follow to the end of the experiment.
    build: Option<Option<Instant>>,
    /// The first lines, if they are the last ones.
    tail: Option<usize>,
    cursor: Cursor,
    over: bool,
    told: Option<LogsStatus>,
    /// The log of the attempt that is read, to be woken by.
    log: Option<(u32, Follow)>,
    /// How long that log was when it was last read.
    seen: u64,
    /// Whether reading is likely to find something.
    more: bool,
    /// Lines that are not over, as they were sent last.
    partial: Vec<LogLine>,
    /// When a line that is not over and has changed may be sent.
    partial_due: Option<Instant>,
    partial_sent: Instant,
    /// Whether the experiment has changed since the last look.
    changed: bool,
    looked: Instant,
    read: Instant,
    checked: Instant,
    spoke: Instant,
}

impl Follower {
    pub(crate) fn new(
        reader: Reader,
        stream: LogStream,
        start: Start,
        (watcher, people): (Watcher, Watcher),
        stop: CancellationToken,
    ) -> Self {
        let now = Instant::now();
        let long_ago = now.checked_sub(PARTIAL_APART).unwrap_or(now);
        let (tail, cursor) = match start {
            Start::Tail(lines) => (Some(lines), Cursor::START),
            Start::At(cursor) => (None, cursor),
        };
        Self {
            reader,
            stream,
            watcher,
            people,
            ask: false,
            stop,
            build: None,
            tail,
            cursor,
            over: false,
            told: None,
            log: None,
            seen: 0,
            more: true,
            partial: Vec::new(),
            partial_due: None,
            partial_sent: long_ago,
            changed: true,
            looked: long_ago,
            read: long_ago,
            checked: now,
            spoke: now,
        }
    }

    /// The same, and over as soon as the experiment has begun and its build is told.
    pub(crate) fn until_built(mut self) -> Self {
        self.build = Some(None);
        self
    }

    /// The events, until the experiment is over and all of its log is told.
    pub(crate) fn events(self) -> impl Stream<Item = Bytes> + Send {
        let mut begun = false;
        self.told().map(move |told| {
            let mut events = if begun {
                Events::default()
            } else {
                Events::begin()
            };
            begun = true;
            match told {
                Ok(told) => told.iter().for_each(|one| push(&mut events, one)),
                Err(error) => events.push_json("error", None, &Failure::from(error).body()),
            }
            if events.is_empty() {
                events = Events::keep_alive();
            }
            events.into_bytes()
        })
    }

    /// What there is to tell, piece by piece; a piece with nothing says that the stream
    /// lives.  An error is the last.
    pub(crate) fn told(self) -> impl Stream<Item = Result<Vec<Told>, Error>> + Send {
        futures::stream::unfold(self, |mut follower| async move {
            if follower.over {
                return None;
            }
            let told = match follower.next().await {
                Ok(told) => Ok(told?),
                Err(error) => {
                    follower.over = true;
                    Err(error)
                }
            };
            follower.spoke = Instant::now();
            Some((told, follower))
        })
    }

    /// What there is to say next; `None` when the server ends.
    async fn next(&mut self) -> Result<Option<Vec<Told>>> {
        let mut told = Vec::new();
        loop {
            if self.stop.is_cancelled() {
                return Ok(None);
            }
            self.ask |= self.people.has_changed();
            if self.ask || self.checked.elapsed() >= CHECK_EVERY {
                self.ask = false;
                self.reader.still_allowed().await?;
                self.checked = Instant::now();
            }
            if self.is_time_to_look() {
                self.look(&mut told).await?;
            }
            self.read(&mut told).await?;
            if !told.is_empty() {
                return Ok(Some(told));
            }
            if self.over || self.spoke.elapsed() >= KEEP_ALIVE {
                return Ok(Some(told));
            }
            self.wait().await;
        }
    }

    fn is_time_to_look(&self) -> bool {
        let since = self.looked.elapsed();
        since >= LOOK_EVERY || (self.changed && since >= LOOK_APART)
    }

    /// Looks how the experiment stands.
    async fn look(&mut self, told: &mut Vec<Told>) -> Result<()> {
        self.changed = false;
        self.looked = Instant::now();
        let standing = self.reader.standing().await?;
        let status = LogsStatus {
            status: standing.status,
            message: standing.message,
        };
        // A new attempt has a log of its own, and what is over is read to its end.
        self.more |= standing.attempts > self.cursor.attempt || standing.status.is_final();
        if self.told.as_ref() != Some(&status) {
            told.push(Told::Status(status.clone()));
            self.told = Some(status);
        }
        Ok(())
    }

    /// Reads what is new in the log.
    async fn read(&mut self, told: &mut Vec<Told>) -> Result<()> {
        let now = Instant::now();
        let due = self.partial_due.is_some_and(|due| due <= now);
        if !self.more && !due {
            self.over |= self.is_built(now);
            return Ok(());
        }
        if let Some(quiet) = &mut self.build {
            *quiet = None;
        }
        if self
            .log
            .as_ref()
            .is_none_or(|(attempt, _)| *attempt != self.cursor.attempt)
        {
            self.log = Some((
                self.cursor.attempt,
                self.reader.follow(self.cursor.attempt).await?,
            ));
        }
        if let Some((_, log)) = &mut self.log {
            self.seen = log.progress().len;
        }
        let page = match self.tail.take() {
            Some(lines) => self.reader.tail(lines, true).await?,
            None => self.reader.lines(self.cursor, LINES, true).await?,
        };
        self.read = Instant::now();
        // A full page or a new attempt: there may be more at once.
        self.more = page.lines.len() >= LINES || page.next.attempt != self.cursor.attempt;
        self.cursor = page.next;
        let over = page.over;
        self.tell(page, told);
        if over {
            // Its status now, and not from before it was over.
            self.look(told).await?;
            if let Some(LogsStatus { status, .. }) =
                self.told.as_ref().filter(|told| told.status.is_final())
            {
                told.push(Told::End(LogsEnd { status: *status }));
                self.over = true;
            }
        }
        Ok(())
    }

    /// Whether the experiment has begun and nothing of its build has come for a while.
    fn is_built(&mut self, now: Instant) -> bool {
        let begun = self
            .told
            .as_ref()
            .is_some_and(|told| !matches!(told.status, Status::Queued | Status::Pending));
        match &mut self.build {
            Some(since) if begun => now >= *since.get_or_insert(now) + BUILD_QUIET,
            Some(since) => {
                *since = None;
                false
            }
            None => false,
        }
    }

    fn tell(&mut self, page: Page, told: &mut Vec<Told>) {
        let (next, over) = (page.next, page.over);
        let mut partial = Vec::new();
        for line in page.lines {
            let at = Cursor {
                attempt: line.attempt,
                at: line.line.end,
            };
            let line = line_view(line, self.stream, next, over);
            if line.partial {
                partial.push(line);
            } else {
                self.partial.retain(|shown| !is_same_place(shown, &line));
                told.push(Told::Line { at: Some(at), line });
            }
        }
        self.partial_due = None;
        let news: Vec<_> = partial
            .into_iter()
            .filter(|line| !self.partial.contains(line))
            .collect();
        if !news.is_empty() {
            let due = self.partial_sent + PARTIAL_APART;
            if due > Instant::now() {
                self.partial_due = Some(due);
            } else {
                self.partial_sent = Instant::now();
                for line in news {
                    self.partial.retain(|shown| !is_same_place(shown, &line));
                    self.partial.push(line.clone());
                    told.push(Told::Line { at: None, line });
                }
            }
        }
    }

    /// Waits for the log to grow, the experiment to change, or a time.
    async fn wait(&mut self) {
        let mut until = (self.spoke + KEEP_ALIVE)
            .min(self.checked + CHECK_EVERY)
            .min(self.looked + if self.changed { LOOK_APART } else { LOOK_EVERY });
        if let Some(due) = self.partial_due {
            until = until.min(due);
        }
        if let Some(Some(since)) = self.build {
            until = until.min(since + BUILD_QUIET);
        }
        let grown = async {
            if let Some((_, log)) = &mut self.log
                && !log.progress().sealed
            {
                log.beyond(self.seen).await;
            } else {
                // Complete, or not there yet: only the experiment can change now.
                std::future::pending::<()>().await;
            }
        };
        let changed = async {
            if self.changed {
                std::future::pending::<()>().await;
            }
            self.watcher.changed().await;
        };
        let mut has_grown = false;
        tokio::select! {
            () = self.stop.cancelled() => return,
            () = grown => has_grown = true,
            // Before anything else is read, it is asked again.
            () = self.people.changed() => self.ask = true,
            () = changed => self.changed = true,
            () = tokio::time::sleep_until(until) => {}
        }
        if has_grown {
            self.more = true;
            tokio::time::sleep_until(self.read + READ_APART).await;
        }
    }
}

/// Adds what is told to the events.
fn push(events: &mut Events, told: &Told) {
    match told {
        Told::Status(status) => events.push_json("status", None, status),
        Told::Line { at, line } => {
            let id = at.as_ref().map(|at| at as &dyn std::fmt::Display);
            events.push_json("log", id, line);
        }
        Told::End(end) => events.push_json("end", None, end),
    }
}

/// Whether `new` is what has become of `shown`.
fn is_same_place(shown: &LogLine, new: &LogLine) -> bool {
    let place = |line: &LogLine| -> (u32, LogSource) { (line.attempt, line.source) };
    place(shown) == place(new)
}
