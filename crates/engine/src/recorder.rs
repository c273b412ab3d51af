//! The one place through which workloads change: decide, commit, then tell.
//!
//! Commands of people, runners and the scheduler come in through one queue and
//! are taken in batches: each batch is one transaction (group commit), because
//! a commit costs about as much for a hundred workloads as for one.

use std::collections::{BTreeMap, BTreeSet, HashSet, VecDeque, btree_map};
use std::sync::Weak;

use grid_core::id::WorkloadId;
use grid_core::time::Timestamp;
use grid_core::workload::{Actor, Command, Event, Refusal, State, Workload};
use grid_store::db;
use tokio::sync::{mpsc, oneshot};

use crate::Inner;
use crate::book::Entry;
use crate::error::{Error, Result};

/// Commands that may wait to be recorded.  Higher: more memory when the disk is
/// slow; lower: callers wait in line sooner.
const QUEUE_MAX: usize = 16_384;

/// Commands in one transaction.  Higher: a caller waits longer for others' work;
/// lower: more commits.
const BATCH_MAX: usize = 1_024;

/// How often a command is decided anew because somebody else was faster.  More
/// than two only happens with several programs on one database.
const RECORD_TRIES_MAX: u32 = 5;

/// One command on its way.
struct Request {
    workload: WorkloadId,
    command: Command,
    actor: Actor,
    /// What is written down with it.
    audit: Option<Box<Audit>>,
    reply: Option<oneshot::Sender<Answer>>,
}

/// What is written down in the transaction of a command.
#[derive(Debug, Clone)]
pub(crate) struct Audit {
    pub(crate) entry: db::audit::Entry,
    /// Whether the event tells of this command alone, and so of its failure.
    pub(crate) alone: bool,
}

/// What became of a command: how many events it caused.
type Answer = Result<Result<usize, Refusal>>;

/// The way in.
#[derive(Clone)]
pub(crate) struct Recorder {
    queue: mpsc::Sender<Request>,
}

/// The way out: hand it to [`run`].
pub(crate) struct Requests(mpsc::Receiver<Request>);

impl Recorder {
    pub(crate) fn new() -> (Self, Requests) {
        let (queue, requests) = mpsc::channel(QUEUE_MAX);
        (Self { queue }, Requests(requests))
    }

    /// Records what `command` means for a workload.  Answers after the commit.
    pub(crate) async fn record(
        &self,
        workload: WorkloadId,
        command: Command,
        actor: Actor,
        audit: Option<Audit>,
    ) -> Answer {
        let (reply, answer) = oneshot::channel();
        let request = Request {
            workload,
            command,
            actor,
            audit: audit.map(Box::new),
            reply: Some(reply),
        };
        let gone = || Error::Unavailable("the server is shutting down; try again".to_owned());
        self.queue.send(request).await.map_err(|_| gone())?;
        answer.await.map_err(|_| gone())?
    }

    /// Records many, in order; answers after all are committed, in the same order.  What
    /// is written down about them goes with the first.
    pub(crate) async fn record_all(
        &self,
        commands: Vec<(WorkloadId, Command, Actor)>,
        audit: Option<Audit>,
    ) -> Result<Vec<Answer>> {
        let mut audit = audit.map(Box::new);
        let gone = || Error::Unavailable("the server is shutting down; try again".to_owned());
        let mut answers = Vec::with_capacity(commands.len());
        for (workload, command, actor) in commands {
            let (reply, answer) = oneshot::channel();
            let request = Request {
                workload,
                command,
                actor,
                audit: audit.take(),
                reply: Some(reply),
            };
            self.queue.send(request).await.map_err(|_| gone())?;
            answers.push(answer);
        }
        let mut results = Vec::with_capacity(answers.len());
        for answer in answers {
            results.push(answer.await.map_err(|_| gone())?);
        }
        Ok(results)
    }
}

/// Records until the last engine is gone.
pub(crate) async fn run(engine: Weak<Inner>, mut requests: Requests) {
    let mut waiting = VecDeque::new();
    let mut taken = Vec::with_capacity(BATCH_MAX);
    loop {
        if waiting.is_empty() {
            if requests.0.recv_many(&mut taken, BATCH_MAX).await == 0 {
                return;
            }
            waiting.extend(taken.drain(..));
        }
        // Not held while waiting, or the queue would never close.
        let Some(inner) = engine.upgrade() else {
            return;
        };
        if record_batch(&inner, batch(&mut waiting)).await {
            inner.wake.notify_one();
        }
    }
}

/// Takes what can go into one transaction: commands of one workload by different
/// actors are kept apart, because a record names one.
fn batch(waiting: &mut VecDeque<Request>) -> Vec<Request> {
    let mut actors: BTreeMap<WorkloadId, Actor> = BTreeMap::new();
    let mut batch = Vec::new();
    while let Some(next) = waiting.front() {
        let actor = *actors.entry(next.workload).or_insert(next.actor);
        if batch.len() == BATCH_MAX || actor != next.actor {
            break;
        }
        batch.extend(waiting.pop_front());
    }
    batch
}

/// A workload as this batch has changed it so far.
struct Draft {
    entry: Entry,
    before: Workload,
    expected: u64,
    events: Vec<Event>,
    actor: Actor,
    at: Timestamp,
}

impl Draft {
    fn new(entry: Entry, actor: Actor, now: Timestamp) -> Self {
        let before = entry.workload.clone();
        // Where the clock was set back, time stands still for what is open: nothing ends
        // before it began.
        let begun = match before.state {
            State::Running { since, .. } => since,
            State::Finished { at, .. } => at,
            _ => before.created_at,
        };
        let at = now.max(begun).max(before.created_at);
        Self {
            before,
            expected: entry.version,
            entry,
            events: Vec::new(),
            actor,
            at,
        }
    }
}

/// Records a batch and answers it.  Says whether anything has changed.
async fn record_batch(inner: &Inner, batch: Vec<Request>) -> bool {
    let mut requests = batch;
    let mut any = false;
    for _ in 0..RECORD_TRIES_MAX {
        let (drafts, decided) = decide_all(inner, &requests).await;
        let changed: Vec<&Draft> = drafts
            .values()
            .filter(|draft| !draft.events.is_empty())
            .collect();
        let won = match commit(inner, &changed, &requests, &decided).await {
            Ok(won) => won,
            Err(Error::Internal(error)) if requests.len() > 1 => {
                // Something about one of them: it must not keep the others from happening.
                tracing::error!(error = ?error, "a batch could not be recorded; one at a time");
                for request in requests {
                    any |= Box::pin(record_batch(inner, vec![request])).await;
                }
                return any;
            }
            Err(error) => {
                fail_all(requests, &error);
                return any;
            }
        };
        let lost: HashSet<WorkloadId> = changed
            .iter()
            .zip(&won)
            .filter(|(_, won)| !**won)
            .map(|(draft, _)| draft.entry.workload.id)
            .collect();
        if won.contains(&true) {
            any = true;
            publish(inner, drafts, &lost);
        }
        let mut again = Vec::new();
        for (mut request, answer) in requests.into_iter().zip(decided) {
            if lost.contains(&request.workload) {
                again.push(request);
            } else if let Some(reply) = request.reply.take() {
                // The caller may have gone away; what it asked for is done all the same.
                let _ = reply.send(answer);
            }
        }
        if again.is_empty() {
            return any;
        }
        requests = again;
        for id in &lost {
            reload(inner, *id).await;
        }
    }
    let busy =
        Error::Unavailable("others keep changing the same experiments; try again".to_owned());
    fail_all(requests, &busy);
    true
}

/// What the commands come to, one after the other.  One that cannot be looked at fails
/// alone.
async fn decide_all(
    inner: &Inner,
    requests: &[Request],
) -> (BTreeMap<WorkloadId, Draft>, Vec<Answer>) {
    let now = inner.clock.now();
    let mut drafts: BTreeMap<WorkloadId, Draft> = BTreeMap::new();
    let mut decided = Vec::with_capacity(requests.len());
    for request in requests {
        let draft = match drafts.entry(request.workload) {
            btree_map::Entry::Occupied(known) => known.into_mut(),
            btree_map::Entry::Vacant(new) => match find(inner, request.workload).await {
                Ok(Some(entry)) => new.insert(Draft::new(entry, request.actor, now)),
                Ok(None) => {
                    decided.push(Ok(Err(Refusal::Stale(0))));
                    continue;
                }
                Err(error) => {
                    decided.push(Err(error));
                    continue;
                }
            },
        };
        match draft.entry.workload.decide(&request.command) {
            Ok(events) => {
                for event in &events {
                    draft.entry.workload.apply(event, draft.at);
                }
                decided.push(Ok(Ok(events.len())));
                draft.entry.version += events.len() as u64;
                draft.events.extend(events);
            }
            Err(refusal) => decided.push(Ok(Err(refusal))),
        }
    }
    (drafts, decided)
}

/// The workload as the book has it, or as the database does (it has ended).
async fn find(inner: &Inner, id: WorkloadId) -> Result<Option<Entry>> {
    if let Some(entry) = inner.book().get(id) {
        return Ok(Some(Entry::clone(entry)));
    }
    inner.load_entry(id).await
}

async fn commit(
    inner: &Inner,
    changed: &[&Draft],
    requests: &[Request],
    decided: &[Answer],
) -> Result<Vec<bool>> {
    let is_audited = requests.iter().any(|request| request.audit.is_some());
    if changed.is_empty() && !is_audited {
        return Ok(vec![]);
    }
    let records: Vec<db::event::Record<'_>> = changed
        .iter()
        .map(|draft| db::event::Record {
            workload: &draft.entry.workload,
            expected_version: draft.expected,
            events: &draft.events,
            actor: draft.actor,
            at: draft.at,
        })
        .collect();
    let mut tx = inner.db.write().await?;
    let won = db::event::record_many(&mut tx, &records).await?;
    if is_audited {
        let lost = |id| {
            let mut pairs = changed.iter().zip(&won);
            pairs.any(|(draft, won)| draft.entry.workload.id == id && !won)
        };
        let entries = audits(requests, decided, lost);
        db::audit::insert_many(&mut tx, &entries).await?;
    }
    tx.commit().await?;
    Ok(won)
}

/// What is written down about commands that are not to be tried again.
fn audits(
    requests: &[Request],
    decided: &[Answer],
    lost: impl Fn(WorkloadId) -> bool,
) -> Vec<db::audit::Entry> {
    let mut entries = Vec::new();
    for (request, answer) in requests.iter().zip(decided) {
        let Some(audit) = &request.audit else {
            continue;
        };
        if lost(request.workload) {
            continue;
        }
        let mut entry = audit.entry.clone();
        let failure = match answer {
            Ok(Ok(_)) => None,
            Ok(Err(refusal)) => Some(refusal.to_string()),
            Err(error) => Some(error.to_string()),
        };
        if let Some(failure) = failure.filter(|_| audit.alone) {
            "failed".clone_into(&mut entry.result);
            entry.detail = failure;
        }
        entries.push(entry);
    }
    entries
}

/// Makes what was committed known: book, board, watchers.
fn publish(inner: &Inner, drafts: BTreeMap<WorkloadId, Draft>, lost: &HashSet<WorkloadId>) {
    let mut teams = BTreeSet::new();
    {
        let mut book = inner.book();
        for (id, mut draft) in drafts {
            if draft.events.is_empty() || lost.contains(&id) {
                continue;
            }
            if draft.entry.workload.state.finished_at().is_some() {
                let took_ms = match &draft.before.state {
                    State::Running { since, .. } => Some(draft.at.millis_since(*since)),
                    // Started and ended within one report: as short as it gets.
                    State::Starting { .. } => Some(0),
                    _ => None,
                };
                let attempt = draft.before.state.attempt();
                if let (Some(took_ms), Some(attempt)) = (took_ms, attempt) {
                    let node = &attempt.placement.node;
                    let cpus = inner.node_cpus(&book, node);
                    book.learn(node, took_ms, cpus);
                }
            }
            if matches!(draft.entry.workload.state, State::Queued) {
                draft.entry.since = draft.entry.workload.created_at;
            }
            teams.insert(draft.entry.run.team);
            book.set(draft.entry);
        }
    }
    inner.watch.changed(teams);
}

async fn reload(inner: &Inner, id: WorkloadId) {
    match inner.load_entry(id).await {
        Ok(Some(entry)) => inner.book().set(entry),
        Ok(None) => inner.book().remove(id),
        Err(error) => {
            tracing::warn!(workload = %id, error = &error as &dyn std::error::Error, "cannot read again");
        }
    }
}

fn fail_all(requests: Vec<Request>, error: &Error) {
    for request in requests {
        if let Some(reply) = request.reply {
            let copy = match error {
                Error::Full(message) => Error::Full(message.clone()),
                Error::Unavailable(message) => Error::Unavailable(message.clone()),
                other => Error::internal(anyhow::anyhow!("{other:?}")),
            };
            let _ = reply.send(Err(copy));
        }
    }
}
