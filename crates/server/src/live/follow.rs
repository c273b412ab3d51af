//! Following the log of an experiment: its lines as they come, and how it stands.

use std::time::Duration;

use bytes::Bytes;
use futures::Stream;
use grid_api::log::{LogLine, LogSource, LogStream, LogsEnd, LogsStatus};
use grid_engine::log::{Cursor, Page, Reader};
use grid_engine::{Result, Watcher};
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
    /// The first lines, if they are the last ones.
    tail: Option<usize>,
    cursor: Cursor,
    begun: bool,
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
            tail,
            cursor,
            begun: false,
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

    /// The events, until the experiment is over and all of its log is told.
    pub(crate) fn events(self) -> impl Stream<Item = Bytes> + Send {
        futures::stream::unfold(self, |mut follower| async move {
            if follower.over {
                return None;
            }
            let events = match follower.next().await {
                Ok(events) => events?,
                Err(error) => {
                    follower.over = true;
                    let mut events = Events::default();
                    events.push_json("error", None, &Failure::from(error).body());
                    events
                }
            };
            follower.spoke = Instant::now();
            Some((events.into_bytes(), follower))
        })
    }

    /// What there is to say next; `None` when the server ends.
    async fn next(&mut self) -> Result<Option<Events>> {
        let mut events = if self.begun {
            Events::default()
        } else {
            Events::begin()
        };
        self.begun = true;
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
                self.look(&mut events).await?;
            }
            self.read(&mut events).await?;
            if !events.is_empty() {
                return Ok(Some(events));
            }
            if self.spoke.elapsed() >= KEEP_ALIVE {
                return Ok(Some(Events::keep_alive()));
            }
            self.wait().await;
        }
    }

    fn is_time_to_look(&self) -> bool {
        let since = self.looked.elapsed();
        since >= LOOK_EVERY || (self.changed && since >= LOOK_APART)
    }

    /// Looks how the experiment stands.
    async fn look(&mut self, events: &mut Events) -> Result<()> {
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
            events.push_json("status", None, &status);
            self.told = Some(status);
        }
        Ok(())
    }

    /// Reads what is new in the log.
    async fn read(&mut self, events: &mut Events) -> Result<()> {
        let now = Instant::now();
        let due = self.partial_due.is_some_and(|due| due <= now);
        if !self.more && !due {
            return Ok(());
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
        self.tell(page, events);
        if over {
            // Its status now, and not from before it was over.
            self.look(events).await?;
            if let Some(LogsStatus { status, .. }) =
                self.told.as_ref().filter(|told| told.status.is_final())
            {
                events.push_json("end", None, &LogsEnd { status: *status });
                self.over = true;
            }
        }
        Ok(())
    }

    fn tell(&mut self, page: Page, events: &mut Events) {
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
                events.push_json("log", Some(&at), &line);
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
                    events.push_json("log", None, &line);
                    self.partial.retain(|shown| !is_same_place(shown, &line));
                    self.partial.push(line);
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

/// Whether `new` is what has become of `shown`.
fn is_same_place(shown: &LogLine, new: &LogLine) -> bool {
    let place = |line: &LogLine| -> (u32, LogSource) { (line.attempt, line.source) };
    place(shown) == place(new)
}
