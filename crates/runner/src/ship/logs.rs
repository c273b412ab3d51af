//! Sending a log: what the framer makes, from where the server has it.
//!
//! Few bytes ride along in the next report of the sync loop, more go by requests of
//! their own.  Only one of both is on its way at a time.  Bytes that the server has
//! confirmed are dropped, and of a long log the spool too.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use grid_api::client;
use grid_api::log::LogStream;
use grid_api::runner::{INLINE_LOG_BYTES_MAX, LogLength};
use grid_core::id::AttemptId;
use tokio::sync::Notify;

use super::frames::{Framer, Mark, read_mark};
use crate::context::Context;
use crate::folder;
use crate::server::Backoff;

/// Most bytes of one request.  Higher: more memory per busy log; lower: more requests.
const BATCH_BYTES: usize = 4 << 20;

/// After how many confirmed bytes the spool is cut and the place noted.
/// Higher: more disk is held, and a restart reads more again; lower: more small writes.
const CUT_BYTES: u64 = 64 << 20;

/// One log of an attempt.
pub(crate) struct Log {
    attempt: AttemptId,
    stream: LogStream,
    state: Mutex<State>,
    /// There may be something new to send.
    dirty: AtomicBool,
    /// There was or may have been something to send once.
    is_used: AtomicBool,
    /// Something was confirmed.
    progress: Notify,
}

struct State {
    framer: Framer,
    /// Frames that are not confirmed, from `begin` on.
    buffer: Vec<u8>,
    begin: u64,
    /// What the server has.
    confirmed: u64,
    /// Whether `confirmed` is what the server said, or what it must be.
    is_sure: bool,
    in_flight: bool,
    /// Given up: the server wants nothing more of this attempt.
    is_dropped: bool,
    /// Where to go on after a restart, once the server has that much.
    marks: VecDeque<Mark>,
    cut_at: u64,
    cut_path: PathBuf,
}

/// A piece to send.
pub(crate) struct Piece {
    pub(crate) offset: u64,
    pub(crate) frames: Vec<u8>,
}

/// What is to be sent of a log now.
pub(crate) enum Due {
    Nothing,
    /// A few bytes, for which this report has no room.
    Later,
    /// A few bytes, for the next report.  All there is, unless something comes meanwhile.
    Inline(Piece),
    /// Requests of its own.
    Requests,
}

impl Log {
    pub(crate) fn new(
        attempt: AttemptId,
        stream: LogStream,
        spools: Vec<PathBuf>,
        folder: &std::path::Path,
        is_fresh: bool,
    ) -> Self {
        let messages = folder.join(format!("messages-{}.jsonl", stream.as_str()));
        let cut_path = folder.join(format!("shipped-{}.json", stream.as_str()));
        let framer = if is_fresh {
            Framer::new(spools, messages)
        } else {
            Framer::reopen(spools, messages, read_mark(&cut_path))
        };
        let begin = framer.mark().offset;
        Self {
            attempt,
            stream,
            state: Mutex::new(State {
                framer,
                buffer: Vec::new(),
                begin,
                confirmed: begin,
                is_sure: is_fresh,
                in_flight: false,
                is_dropped: false,
                marks: VecDeque::new(),
                cut_at: begin,
                cut_path,
            }),
            dirty: AtomicBool::new(!is_fresh),
            is_used: AtomicBool::new(!is_fresh),
            progress: Notify::new(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // What is behind the lock is made anew from disk on restart in any case.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Something was written.
    pub(crate) fn touch(&self) {
        self.is_used.store(true, Ordering::Release);
        self.dirty.store(true, Ordering::Release);
    }

    /// Whether anything was written, or may have been.
    pub(crate) fn is_used(&self) -> bool {
        self.is_used.load(Ordering::Acquire)
    }

    pub(crate) fn is_dirty(&self) -> bool {
        self.dirty.load(Ordering::Acquire)
    }

    /// Adds a line of the platform.
    pub(crate) fn say(&self, text: &str) {
        let at_ms = crate::clock::wall_ms();
        if let Err(error) = self.lock().framer.say(at_ms, text) {
            tracing::error!(attempt = %self.attempt, text, error = &error as &dyn std::error::Error, "a message is not in the log");
        }
        self.touch();
    }

    /// Adds a line of the platform after all that the script wrote.  To be called
    /// when it has ended.
    pub(crate) fn say_at_end(&self, text: &str) {
        let at_ms = crate::clock::wall_ms();
        if let Err(error) = self.lock().framer.say_at_end(at_ms, text) {
            tracing::error!(attempt = %self.attempt, text, error = &error as &dyn std::error::Error, "a message is not in the log");
        }
        self.touch();
    }

    /// The server wants nothing more of this attempt.
    pub(crate) fn drop_rest(&self) {
        let mut state = self.lock();
        state.is_dropped = true;
        state.buffer = Vec::new();
        drop(state);
        self.progress.notify_waiters();
    }

    /// The connection broke: what the server has is to be asked for.
    pub(crate) fn doubt(&self) {
        let mut state = self.lock();
        if !state.is_dropped && (state.confirmed > 0 || !state.buffer.is_empty()) {
            state.is_sure = false;
            self.touch();
        }
    }

    /// What is to be sent now, of which at most `inline_max` bytes in the report.
    pub(crate) fn due(&self, inline_max: usize) -> Due {
        if !self.dirty.swap(false, Ordering::AcqRel) {
            return Due::Nothing;
        }
        let mut state = self.lock();
        if state.in_flight || state.is_dropped {
            // Whoever sends looks again when that has arrived.
            self.touch();
            return Due::Nothing;
        }
        if !state.is_sure {
            state.in_flight = true;
            return Due::Requests;
        }
        self.fill(&mut state, INLINE_LOG_BYTES_MAX + 1);
        if state.buffer.is_empty() {
            return Due::Nothing;
        }
        state.in_flight = true;
        if state.buffer.len() > INLINE_LOG_BYTES_MAX {
            return Due::Requests;
        }
        if state.buffer.len() > inline_max {
            state.in_flight = false;
            self.touch();
            return Due::Later;
        }
        Due::Inline(Piece {
            offset: state.begin,
            frames: state.buffer.clone(),
        })
    }

    /// The report with a piece up to `end` arrived (or not).
    pub(crate) fn delivered(&self, end: Option<u64>) {
        let mut state = self.lock();
        state.in_flight = false;
        match end {
            Some(end) => state.confirm(end),
            None => {
                state.is_sure = false;
                self.touch();
            }
        }
        drop(state);
        self.progress.notify_waiters();
    }

    /// Whether all that was written up to now is confirmed.
    pub(crate) fn is_settled(&self) -> bool {
        if !self.is_used.load(Ordering::Acquire) {
            return true;
        }
        let mut state = self.lock();
        if state.is_dropped {
            return true;
        }
        if state.in_flight || !state.is_sure {
            return false;
        }
        self.fill(&mut state, 1);
        state.buffer.is_empty()
    }

    /// Waits until what is left is little enough to ride along with the last report.
    pub(crate) async fn nearly_settled(&self, context: &Context) {
        if !self.is_used.load(Ordering::Acquire) {
            return;
        }
        loop {
            let progress = self.progress.notified();
            tokio::pin!(progress);
            progress.as_mut().enable();
            {
                let mut state = self.lock();
                let is_near = state.is_dropped
                    || (!state.in_flight && state.is_sure && {
                        self.fill(&mut state, INLINE_LOG_BYTES_MAX + 1);
                        state.buffer.len() <= INLINE_LOG_BYTES_MAX
                    });
                if is_near {
                    drop(state);
                    // What is left goes with the next report.
                    self.touch();
                    return;
                }
            }
            self.touch();
            context.changed();
            progress.await;
        }
    }

    fn fill(&self, state: &mut State, bytes: usize) {
        while state.buffer.len() < bytes {
            let before = state.framer.mark();
            let missing = bytes - state.buffer.len();
            if let Err(error) = state.framer.pull(&mut state.buffer, missing) {
                tracing::error!(attempt = %self.attempt, stream = self.stream.as_str(), error = &error as &dyn std::error::Error, "a log cannot be read");
            }
            state.marks_push();
            // What the server has already is made again, but not sent again.
            state.trim();
            if state.framer.mark() == before {
                return;
            }
        }
    }

    /// Sends by requests until nothing is left.  To be called after [`Due::Requests`].
    pub(crate) async fn send(self: Arc<Self>, context: Arc<Context>) {
        let mut backoff = Backoff::new();
        loop {
            let piece = self.next_piece();
            let Some(piece) = piece else { break };
            match self.put(&context, piece).await {
                Put::Has(length) => {
                    backoff = Backoff::new();
                    let mut state = self.lock();
                    state.is_sure = true;
                    state.arrive_at(length);
                }
                Put::Superseded => {
                    tracing::info!(attempt = %self.attempt, "the server does not want this attempt any more");
                    context.superseded(self.attempt);
                    break;
                }
                Put::Failed(error) => {
                    tracing::debug!(attempt = %self.attempt, error = error, "a log waits for the server");
                    self.lock().is_sure = false;
                    backoff.wait().await;
                    context.server.look_again();
                }
            }
            self.progress.notify_waiters();
        }
        self.lock().in_flight = false;
        self.touch();
        self.progress.notify_waiters();
        context.changed();
    }

    /// `None` when everything is sent; an empty piece asks how long the log is.
    fn next_piece(&self) -> Option<Piece> {
        let mut state = self.lock();
        if state.is_dropped {
            return None;
        }
        if !state.is_sure {
            return Some(Piece {
                offset: state.begin,
                frames: Vec::new(),
            });
        }
        self.fill(&mut state, BATCH_BYTES);
        (!state.buffer.is_empty()).then(|| Piece {
            offset: state.begin,
            frames: state.buffer.clone(),
        })
    }

    async fn put(&self, context: &Context, piece: Piece) -> Put {
        if piece.frames.is_empty() {
            return self.ask_length(context).await;
        }
        match self.request(context, piece.offset, piece.frames).await {
            Ok(length) => Put::Has(length.length),
            // A gap, or an attempt that was superseded: the length tells.
            Err(error) if error.status() == Some(409) => self.ask_length(context).await,
            Err(error) => Put::of(&error),
        }
    }

    /// Nothing, sent to the beginning of a log, is answered with its length.
    async fn ask_length(&self, context: &Context) -> Put {
        match self.request(context, 0, Vec::new()).await {
            Ok(length) => Put::Has(length.length),
            Err(error) => Put::of(&error),
        }
    }

    async fn request(
        &self,
        context: &Context,
        offset: u64,
        frames: Vec<u8>,
    ) -> Result<LogLength, client::Error> {
        let path = format!(
            "/runner/attempts/{}/logs/{}?offset={offset}",
            self.attempt,
            self.stream.as_str()
        );
        context.server.client().put_bytes(&path, frames).await
    }
}

enum Put {
    Has(u64),
    Superseded,
    Failed(String),
}

impl Put {
    fn of(error: &client::Error) -> Self {
        match error.status() {
            Some(404 | 409 | 410) => Self::Superseded,
            _ => Self::Failed(error.to_string()),
        }
    }
}

impl State {
    /// The server has everything before `end`.
    fn confirm(&mut self, end: u64) {
        self.confirmed = self.confirmed.max(end);
        self.trim();
        self.cut();
    }

    /// The server has exactly `length`, whatever was thought.
    fn arrive_at(&mut self, length: u64) {
        if length < self.begin {
            // Made again from where the spool still begins.
            let mark = read_mark(&self.cut_path);
            self.framer.rewind(mark);
            self.buffer.clear();
            self.marks.clear();
            (self.begin, self.cut_at) = (mark.offset, mark.offset);
        }
        if length < self.begin {
            let lost_bytes = self.begin - length;
            // They are on this machine no more either: what is left goes on where the
            // server's log ends now.
            tracing::error!(lost_bytes, "the server lost a part of a log");
            self.framer.rebase(lost_bytes);
            (self.begin, self.cut_at) = (length, length);
        }
        self.confirmed = length;
        self.confirm(length);
    }

    fn trim(&mut self) {
        let known = self.confirmed.saturating_sub(self.begin);
        let known = usize::try_from(known)
            .unwrap_or(usize::MAX)
            .min(self.buffer.len());
        if known > 0 {
            self.buffer.drain(..known);
            self.begin += known as u64;
            if self.buffer.capacity() > 2 * BATCH_BYTES || self.buffer.is_empty() {
                self.buffer.shrink_to(0);
            }
        }
    }

    fn marks_push(&mut self) {
        let mark = self.framer.mark();
        let last = self.marks.back().map_or(self.cut_at, |last| last.offset);
        if mark.offset >= last + CUT_BYTES {
            self.marks.push_back(mark);
        }
    }

    /// Notes how far the log is stored, and gives back the disk up to there.
    fn cut(&mut self) {
        let mut reached = None;
        while let Some(mark) = self.marks.front()
            && mark.offset <= self.confirmed
        {
            reached = self.marks.pop_front();
        }
        let Some(mark) = reached else { return };
        self.cut_at = mark.offset;
        let text = serde_json::to_vec(&mark).unwrap_or_default();
        // In this order: what was given back is never wanted again.
        let noted = folder::write_whole(&self.cut_path, &text);
        if noted.is_ok()
            && let Err(error) = self.framer.discard(&mark)
        {
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                "a spool keeps its disk space"
            );
        }
    }
}
