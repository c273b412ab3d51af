//! The conversation with the server.
//!
//! A report says how everything stands and is answered at once; while there is
//! nothing to report, a listening call waits for orders.  What happens does not wait
//! for a call that listens: the report goes beside it.  Both carry everything that
//! the server needs to know, so any of them may be lost.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use grid_api::client::Error;
use grid_api::runner::{Have, InlineLog, Orders, Phase, SYNC_WAIT_MS_MAX, Sync};
use grid_core::id::AttemptId;
use grid_core::workload::End;
use tokio::time::{Instant, sleep_until};

use crate::attempt::{Attempt, Wish};
use crate::context::Context;
use crate::server::Backoff;
use crate::ship::logs::{Due, Log};

/// Most bytes of logs in one report.  Higher: reports take longer; lower: many
/// short experiments take more of them.
const INLINE_BYTES_MAX: usize = 1 << 20;

/// Most artifacts listed in reports by one attempt; more go by requests of their own.
pub(crate) const INLINE_ARTIFACTS_MAX: usize = 100;

/// Least time between two reports, per thousand attempts that they describe.
/// Higher: changes are told later; lower: a node with many attempts talks without end.
const REPORT_GAP_PER_1000: Duration = Duration::from_millis(20);

/// Least time between two reports at all.  Higher: what comes next is told later;
/// lower: many short experiments each cost the server a commit of their own.
const REPORT_GAP_MIN: Duration = Duration::from_millis(20);

/// How long a machine that goes away waits for scripts to save, in milliseconds.
const INTERRUPT_GRACE_MS: u64 = 30_000;

type Call = Pin<Box<dyn Future<Output = Result<Orders, Error>> + Send>>;

/// Why the conversation ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Over {
    /// Somebody ended this process; what runs goes on.
    Asked,
    /// The server wants this runner to go, and nothing is left to run.
    Retired,
}

/// What the process is asked to do from outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Signal {
    /// End, and leave what runs running.
    Leave,
    /// The machine goes away: let everything save and end.
    Interrupt,
}

/// The conversation.
pub(crate) struct Conversation {
    context: Arc<Context>,
    epoch: u64,
    seq: u64,
    /// The listening call, while its answer is waited for.
    listens: Option<u64>,
    silence_max: Option<Duration>,
    idle_max: Duration,
    heard_at: Instant,
    is_retiring: bool,
}

/// What a report carried that must be confirmed.
struct Sent {
    logs: Vec<(Arc<Log>, u64)>,
    ended: Vec<Arc<Attempt>>,
    /// There was more than one report can carry.
    has_more: bool,
}

/// What is being done for an attempt, or what it lacks on a machine without room.
fn said(attempt: &Attempt, shortage: Option<&str>) -> Option<String> {
    match (attempt.note(), shortage) {
        (Some(note), Some(shortage)) => Some(format!("{note}; {shortage}")),
        (note, shortage) => note.or_else(|| shortage.map(str::to_owned)),
    }
}

impl Conversation {
    pub(crate) fn new(
        context: Arc<Context>,
        epoch: u64,
        silence_max: Option<Duration>,
        idle_max: Duration,
    ) -> Self {
        Self {
            context,
            epoch,
            seq: 0,
            listens: None,
            silence_max,
            idle_max,
            heard_at: Instant::now(),
            is_retiring: false,
        }
    }

    /// Talks until it is over.
    pub(crate) async fn hold(&mut self, mut signals: tokio::sync::mpsc::Receiver<Signal>) -> Over {
        let mut report: Option<(Call, Sent)> = None;
        let mut listening: Option<Call> = None;
        let mut backoff = Backoff::new();
        let mut not_before = Instant::now();
        loop {
            let is_due = Instant::now() >= not_before;
            if report.is_none() && is_due && self.context.take_changed() {
                let (sync, sent) = self.compose(0);
                not_before = Instant::now() + gap(sync.have.len());
                report = Some((self.call(sync), sent));
            } else if report.is_none() && listening.is_none() && !self.context.is_changed() {
                // Not after a while: orders that come just then would wait that long.
                let sync = self.compose_listening();
                listening = Some(self.call(sync));
            }
            let may_report = report.is_none();
            let answer = tokio::select! {
                answer = of_report(&mut report) => Some(answer),
                answer = of_call(&mut listening) => {
                    listening = None;
                    self.listens = None;
                    Some((answer, None))
                }
                () = self.context.until_changed(), if may_report && is_due => None,
                () = sleep_until(not_before), if may_report && !is_due => None,
                signal = signals.recv() => match signal {
                    Some(Signal::Interrupt) => { self.interrupt(); None }
                    Some(Signal::Leave) | None => {
                        self.context.leave();
                        return Over::Asked;
                    }
                },
                () = self.silence() => { self.abandon(); None }
            };
            match answer {
                Some((Ok(orders), sent)) => {
                    backoff = Backoff::new();
                    self.heard_at = Instant::now();
                    if let Some(sent) = sent {
                        self.confirm(sent);
                    }
                    self.obey(orders);
                }
                Some((Err(error), sent)) => {
                    tracing::debug!(
                        error = &error as &dyn std::error::Error,
                        "the server does not answer"
                    );
                    self.doubt(sent);
                    self.context.changed();
                    not_before = Instant::now() + backoff.next();
                    self.context.server.look_again();
                    if self.heard_at.elapsed() >= self.idle_max && self.has_nothing_left() {
                        // Its server was stopped for good; the next one starts another.
                        return Over::Retired;
                    }
                }
                None => {}
            }
            if self.is_retiring && self.has_nothing_left() {
                return Over::Retired;
            }
        }
    }

    fn call(&self, sync: Sync) -> Call {
        let client = self.context.server.client();
        Box::pin(async move { client.post("/runner/sync", &sync).await })
    }

    /// What this machine cannot enforce, and what it lacks at the moment.
    fn warnings(&self) -> Vec<String> {
        let lasting = self.context.warnings.iter().cloned();
        lasting.chain(self.context.folder.shortage()).collect()
    }

    fn sync(&mut self, have: Vec<Have>, wait_ms: u64) -> Sync {
        self.seq += 1;
        Sync {
            node: self.context.node.clone(),
            warnings: self.warnings(),
            tools: self.context.tools.clone(),
            have,
            wait_ms,
            seq: self.seq,
            epoch: self.epoch,
            awaiting: self.listens.into_iter().collect(),
        }
    }

    /// What listens says how things stood at the last report.
    fn compose_listening(&mut self) -> Sync {
        let all = self.context.table.all();
        let shortage = self.context.folder.shortage();
        let have = all.iter().map(|attempt| {
            let phase = attempt.phase();
            // Only a report says that something ended, since logs go with it.
            let phase = match phase {
                Phase::Ended { .. } if !attempt.is_told() => Phase::Running,
                other => other,
            };
            Have {
                attempt: attempt.id,
                phase,
                note: said(attempt, shortage.as_deref()),
                logs: Vec::new(),
                artifacts: Vec::new(),
            }
        });
        let have = have.collect();
        let sync = self.sync(have, SYNC_WAIT_MS_MAX);
        self.listens = Some(sync.seq);
        sync
    }

    fn compose(&mut self, wait_ms: u64) -> (Sync, Sent) {
        let mut sent = Sent {
            logs: Vec::new(),
            ended: Vec::new(),
            has_more: false,
        };
        let mut room = INLINE_BYTES_MAX;
        let all = self.context.table.all();
        let shortage = self.context.folder.shortage();
        let have = all
            .iter()
            .map(|attempt| Have {
                note: said(attempt, shortage.as_deref()),
                ..self.describe(attempt, &mut room, &mut sent)
            })
            .collect();
        (self.sync(have, wait_ms), sent)
    }

    fn describe(&self, attempt: &Arc<Attempt>, room: &mut usize, sent: &mut Sent) -> Have {
        let mut have = Have {
            attempt: attempt.id,
            // Before the logs are looked at: what comes later goes with a later report.
            phase: attempt.phase(),
            note: None,
            logs: Vec::new(),
            artifacts: Vec::new(),
        };
        let is_ended = matches!(have.phase, Phase::Ended { .. });
        if is_ended && attempt.is_told() {
            return have;
        }
        let mut is_complete = true;
        for (stream, log) in attempt.logs() {
            match log.due(*room) {
                Due::Inline(piece) => {
                    *room -= piece.frames.len().min(*room);
                    sent.logs
                        .push((Arc::clone(log), piece.offset + piece.frames.len() as u64));
                    let frames = base64::engine::general_purpose::STANDARD.encode(&piece.frames);
                    have.logs.push(InlineLog {
                        stream,
                        offset: piece.offset,
                        frames,
                    });
                }
                Due::Requests => {
                    tokio::spawn(Arc::clone(log).send(Arc::clone(&self.context)));
                    is_complete = false;
                }
                Due::Later => {
                    sent.has_more = true;
                    is_complete = false;
                }
                Due::Nothing => is_complete &= !is_ended || log.is_settled(),
            }
        }
        if !is_ended {
            return have;
        }
        if !is_complete {
            have.phase = Phase::Running;
            return have;
        }
        have.artifacts = attempt.listed_artifacts();
        sent.ended.push(Arc::clone(attempt));
        have
    }

    fn confirm(&self, sent: Sent) {
        if sent.has_more {
            self.context.changed();
        }
        for (log, end) in sent.logs {
            log.delivered(Some(end));
            if log.is_dirty() {
                self.context.changed();
            }
        }
        for attempt in sent.ended {
            attempt.set_told();
        }
    }

    /// The server may or may not have what was on its way, and may be another one now.
    fn doubt(&self, sent: Option<Sent>) {
        for (log, _) in sent.into_iter().flat_map(|sent| sent.logs) {
            log.delivered(None);
        }
        for attempt in self.context.table.all() {
            if !attempt.is_told() {
                attempt.build_log.doubt();
                attempt.log.doubt();
            }
        }
    }

    fn obey(&mut self, orders: Orders) {
        // The server repeats what it does not see done.
        let is_news = !orders.launch.is_empty() || !orders.forget.is_empty();
        for launch in orders.launch {
            if self.context.table.knows(launch.attempt) {
                continue;
            }
            let attempt = Arc::new(Attempt::new(launch, &self.context.folder, true));
            let id = attempt.id;
            if !self.context.table.add(attempt) {
                tracing::error!(attempt = %id, "there are too many attempts on this node; it is not taken");
            }
        }
        for stop in orders.stop {
            self.stop(
                stop.attempt,
                Wish::Stop {
                    grace_ms: stop.grace_ms,
                    keep: stop.keep,
                },
            );
        }
        let forgotten: Vec<_> = orders
            .forget
            .iter()
            .filter_map(|attempt| self.context.table.forget(*attempt))
            .collect();
        if !forgotten.is_empty() {
            tokio::spawn(crate::remains::remove(Arc::clone(&self.context), forgotten));
        }
        if orders.retire && !self.is_retiring {
            tracing::info!("the server wants this runner to go when nothing is left to run");
            self.is_retiring = true;
        }
        if is_news {
            self.context.changed();
        }
        self.context.start_next();
    }

    fn stop(&self, id: AttemptId, wish: Wish) {
        let Some(attempt) = self.context.table.get(id) else {
            return;
        };
        if self.context.table.stop_waiting(id) {
            attempt.end(match wish {
                Wish::Interrupt { .. } => End::Returned,
                Wish::None | Wish::Abandon | Wish::Stop { .. } => End::Stopped,
            });
            self.context.changed();
        } else if !attempt.is_told() {
            attempt.wish(wish);
        }
    }

    /// The machine goes away.
    fn interrupt(&mut self) {
        tracing::warn!("this machine goes away: what runs may save and end");
        for attempt in self.context.table.all() {
            self.stop(
                attempt.id,
                Wish::Interrupt {
                    grace_ms: INTERRUPT_GRACE_MS,
                },
            );
        }
        self.is_retiring = true;
        self.context.changed();
    }

    /// Waits until the server has been silent for too long.
    fn silence(&self) -> impl Future<Output = ()> + use<> {
        let until = self.silence_max.map(|max| self.heard_at + max);
        async move {
            match until {
                Some(until) => sleep_until(until).await,
                None => std::future::pending().await,
            }
        }
    }

    fn abandon(&mut self) {
        tracing::error!("the server was silent for too long: what runs is ended");
        for attempt in self.context.table.all() {
            self.stop(attempt.id, Wish::Abandon);
        }
        // Counted anew, so that this is not said again at once.
        self.heard_at = Instant::now();
    }

    fn has_nothing_left(&self) -> bool {
        self.context
            .table
            .all()
            .iter()
            .all(|attempt| attempt.is_ended() && attempt.is_told())
    }
}

fn gap(attempts: usize) -> Duration {
    REPORT_GAP_MIN + REPORT_GAP_PER_1000 * u32::try_from(attempts / 1_000).unwrap_or(u32::MAX)
}

async fn of_report(report: &mut Option<(Call, Sent)>) -> (Result<Orders, Error>, Option<Sent>) {
    let Some((call, _)) = report else {
        return std::future::pending().await;
    };
    let answer = call.await;
    (answer, report.take().map(|(_, sent)| sent))
}

async fn of_call(call: &mut Option<Call>) -> Result<Orders, Error> {
    match call {
        Some(call) => call.await,
        None => std::future::pending().await,
    }
}
