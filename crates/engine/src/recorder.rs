//! The one place through which workloads change: decide, commit, then tell.
//!
//! Commands of people, runners and the scheduler come in through one queue and
//! are taken in batches: each batch is one transaction (group commit), because
//! a commit costs about as much for a hundred workloads as for one.

use std::collections::{BTreeMap, VecDeque, btree_map};

use grid_core::id::WorkloadId;
use grid_core::time::Timestamp;
use grid_core::workload::{Actor, Command, Event, Refusal, State, Workload};
use grid_store::db;
use tokio::sync::{mpsc, oneshot};

use crate::book::Entry;
use crate::error::{Error, Result};
use crate::{Engine, Inner};

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
    reply: Option<oneshot::Sender<Answer>>,
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
    ) -> Answer {
        let (reply, answer) = oneshot::channel();
        let request = Request {
            workload,
            command,
            actor,
            reply: Some(reply),
        };
        let gone = || Error::Unavailable("the server is shutting down; try again".to_owned());
        self.queue.send(request).await.map_err(|_| gone())?;
        answer.await.map_err(|_| gone())?
    }

    /// Records many, in order; answers after all are committed, in the same order.
    pub(crate) async fn record_all(
        &self,
        commands: Vec<(WorkloadId, Command, Actor)>,
    ) -> Result<Vec<Answer>> {
        let gone = || Error::Unavailable("the server is shutting down; try again".to_owned());
        let mut answers = Vec::with_capacity(commands.len());
        for (workload, command, actor) in commands {
            let (reply, answer) = oneshot::channel();
            let request = Request {
                workload,
                command,
                actor,
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

/// Records until the last sender is gone.
pub(crate) async fn run(engine: Engine, mut requests: Requests) {
    let mut waiting = VecDeque::new();
    let mut taken = Vec::with_capacity(BATCH_MAX);
    loop {
        if waiting.is_empty() {
            if requests.0.recv_many(&mut taken, BATCH_MAX).await == 0 {
                return;
            }
            waiting.extend(taken.drain(..));
        }
        let batch = batch(&mut waiting);
        let changed = record_batch(&engine, batch).await;
        if changed {
            engine.wake();
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
}

impl Draft {
    fn new(entry: Entry, actor: Actor) -> Self {
        Self {
            before: entry.workload.clone(),
            expected: entry.version,
            entry,
            events: Vec::new(),
            actor,
        }
    }
}

async fn record_batch(engine: &Engine, batch: Vec<Request>) -> bool {
    let inner = &engine.inner;
    let mut requests = batch;
    for _ in 0..RECORD_TRIES_MAX {
        let now = inner.clock.now();
        let (drafts, decided) = match decide_all(inner, &requests, now).await {
            Ok(decided) => decided,
            Err(error) => {
                fail_all(requests, &error);
                return false;
            }
        };
        let changed: Vec<&Draft> = drafts
            .values()
            .filter(|draft| !draft.events.is_empty())
            .collect();
        let won = match commit(inner, &changed, now).await {
            Ok(won) => won,
            Err(error) => {
                fail_all(requests, &error);
                return false;
            }
        };
        let lost: Vec<WorkloadId> = changed
            .iter()
            .zip(&won)
            .filter(|(_, won)| !**won)
            .map(|(draft, _)| draft.entry.workload.id)
            .collect();
        let any = won.iter().any(|won| *won);
        publish(inner, drafts, &lost, now);
        let mut again = Vec::new();
        for (mut request, answer) in requests.into_iter().zip(decided) {
            if lost.contains(&request.workload) {
                again.push(request);
            } else if let Some(reply) = request.reply.take() {
                // The caller may have gone away; what it asked for is done all the same.
                let _ = reply.send(Ok(answer));
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

type Decided = Vec<Result<usize, Refusal>>;

async fn decide_all(
    inner: &Inner,
    requests: &[Request],
    now: Timestamp,
) -> Result<(BTreeMap<WorkloadId, Draft>, Decided)> {
    let mut drafts: BTreeMap<WorkloadId, Draft> = BTreeMap::new();
    let mut decided = Vec::with_capacity(requests.len());
    for request in requests {
        let draft = match drafts.entry(request.workload) {
            btree_map::Entry::Occupied(known) => known.into_mut(),
            btree_map::Entry::Vacant(new) => match find(inner, request.workload).await? {
                Some(entry) => new.insert(Draft::new(entry, request.actor)),
                None => {
                    decided.push(Err(Refusal::Stale(0)));
                    continue;
                }
            },
        };
        match draft.entry.workload.decide(&request.command) {
            Ok(events) => {
                for event in &events {
                    draft.entry.workload.apply(event, now);
                }
                decided.push(Ok(events.len()));
                draft.entry.version += events.len() as u64;
                draft.events.extend(events);
            }
            Err(refusal) => decided.push(Err(refusal)),
        }
    }
    Ok((drafts, decided))
}

/// The workload as the book has it, or as the database does (it has ended).
async fn find(inner: &Inner, id: WorkloadId) -> Result<Option<Entry>> {
    if let Some(entry) = inner.book().get(id) {
        return Ok(Some(entry.clone()));
    }
    inner.load_entry(id).await
}

async fn commit(inner: &Inner, changed: &[&Draft], now: Timestamp) -> Result<Vec<bool>> {
    if changed.is_empty() {
        return Ok(vec![]);
    }
    let records: Vec<db::event::Record<'_>> = changed
        .iter()
        .map(|draft| db::event::Record {
            workload: &draft.entry.workload,
            expected_version: draft.expected,
            events: &draft.events,
            actor: draft.actor,
            at: now,
        })
        .collect();
    let mut tx = inner.db.write().await?;
    let won = db::event::record_many(&mut tx, &records).await?;
    tx.commit().await?;
    Ok(won)
}

/// Makes what was committed known: book, board, watchers.
fn publish(
    inner: &Inner,
    drafts: BTreeMap<WorkloadId, Draft>,
    lost: &[WorkloadId],
    now: Timestamp,
) {
    {
        let mut book = inner.book();
        for (id, mut draft) in drafts {
            if draft.events.is_empty() || lost.contains(&id) {
                continue;
            }
            if let (State::Running { attempt, since }, Some(_)) = (
                &draft.before.state,
                draft.entry.workload.state.finished_at(),
            ) {
                let (node, took) = (attempt.placement.node.clone(), now.millis_since(*since));
                let cpus = inner.node_cpus(&book, &node);
                book.learn(&node, took, cpus);
            } else if let (State::Starting { attempt }, Some(_)) = (
                &draft.before.state,
                draft.entry.workload.state.finished_at(),
            ) {
                // Started and ended within one report: as short as it gets.
                let node = attempt.placement.node.clone();
                let cpus = inner.node_cpus(&book, &node);
                book.learn(&node, 0, cpus);
            }
            if matches!(draft.entry.workload.state, State::Queued)
                && !matches!(draft.before.state, State::Queued)
            {
                draft.entry.since = draft.entry.workload.created_at;
            }
            book.set(draft.entry);
        }
    }
    inner.watch.changed();
}

async fn reload(inner: &Inner, id: WorkloadId) {
    match inner.load_entry(id).await {
        Ok(Some(entry)) => inner.book().set(entry),
        Ok(None) => inner.book().unplan(id),
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
