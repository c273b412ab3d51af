//! The control loop: look at everything, change what should change, touch the
//! world last.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use grid_api::runner::{Launch, StopOrder};
use grid_core::id::{AttemptId, NodeId};
use grid_core::workload::{
    Actor, Command, End, Observed, Reason, ReasonCode, Reconcile, State, reconcile,
};
use grid_executor::{LOST_AFTER_MS, NodeState, Stopped};

use crate::book::{Entry, RunInfo};
use crate::error::Result;
use crate::node::CONNECTED_MS;
use crate::{Engine, datastore};

/// How often the loop looks without being told to.  Higher: a lost order is
/// repeated later; lower: an idle server works.
const TICK: Duration = Duration::from_secs(5);

/// Placements of one turn.  Higher: one turn keeps the recorder longer.
const PLACE_MAX: usize = 512;

/// After SIGTERM, how long a script has to save its work.  Higher: stops take
/// longer when scripts ignore it; lower: checkpoints are cut off.
pub(crate) const STOP_GRACE_MS: u64 = 10_000;

/// Turns until the task ends.
pub(crate) async fn run(engine: &Engine) {
    loop {
        let woken = tokio::time::timeout(TICK, engine.inner.wake.notified()).await;
        if let Err(error) = turn(engine).await {
            tracing::error!(
                error = &error as &dyn std::error::Error,
                "a turn failed; the next one tries again"
            );
            if woken.is_ok() {
                // Not as fast as one is woken: what failed needs time.
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
        }
    }
}

/// One pass.  Takes no hint about what changed; that is the point.
pub(crate) async fn turn(engine: &Engine) -> Result<()> {
    // The log before the world: what is recorded as running was seen before, so that
    // what is not seen now is gone.  The other way round, what started in between
    // would be taken for lost.
    let wanted: Vec<Arc<Entry>> = engine.inner.book().placed().cloned().collect();
    let nodes = observe(engine).await?;
    let mut todo = compare(&wanted, &nodes);
    let over = std::mem::take(&mut todo.forget);
    let acted = act(engine, todo).await;
    // What cannot be recorded now (the disk is full) does not keep what was from being
    // done, nor the other way round.
    let placed = place(engine).await;
    // Last, so that one answer tells the runner what to forget and what to start.
    let forgotten = forget(engine, over).await;
    acted.and(placed).and(forgotten)
}

/// What the executor sees, with the board told of the machines there are.
async fn observe(engine: &Engine) -> Result<Vec<NodeState>> {
    let nodes = engine
        .inner
        .executor
        .observe()
        .await
        .map_err(crate::Error::internal)?;
    let mut book = engine.inner.book();
    for state in &nodes {
        if book.board.nodes().all(|node| *node != state.node) {
            book.board.set_node(state.node.clone());
        }
        let is_closed = !state.patient && state.silent.as_millis() >= CONNECTED_MS;
        book.board.set_closed(&state.node.id, is_closed);
    }
    Ok(nodes)
}

/// Gives what waits its place, and has it launched there.
async fn place(engine: &Engine) -> Result<()> {
    let now = engine.inner.clock.now();
    let planned = engine.inner.book().board.plan(now, PLACE_MAX);
    if planned.is_empty() {
        return Ok(());
    }
    let commands = planned
        .iter()
        .map(|planned| {
            (
                planned.id,
                Command::Place(planned.placement.clone()),
                Actor::Engine,
            )
        })
        .collect();
    let answers = engine.inner.recorder.record_all(commands, None).await?;
    let mut failed = None;
    let mut placed = Vec::with_capacity(planned.len());
    {
        let mut book = engine.inner.book();
        for (planned, answer) in planned.iter().zip(answers) {
            match answer {
                Ok(Ok(_)) => placed.extend(book.get(planned.id).cloned()),
                // Stopped in the meantime: the board goes by what the book says.
                Ok(Err(_)) => book.unplan(planned.id),
                Err(error) => {
                    book.unplan(planned.id);
                    failed = Some(error);
                }
            }
        }
    }
    let launched = launch(engine, placed).await;
    failed.map_or(launched, Err)
}

/// What has to be done about attempts.
#[derive(Default)]
struct Todo {
    launch: Vec<Arc<Entry>>,
    stop: Vec<(StopOrder, NodeId)>,
    forget: Vec<(AttemptId, NodeId)>,
    report: Vec<(AttemptId, End)>,
}

/// Desired against observed, for every attempt that either side knows.
fn compare(wanted: &[Arc<Entry>], nodes: &[NodeState]) -> Todo {
    let mut todo = Todo::default();
    let mut seen: HashMap<AttemptId, (&NodeId, &Observed)> = HashMap::new();
    let mut spoken: HashMap<&NodeId, &NodeState> = HashMap::new();
    for state in nodes {
        spoken.insert(&state.node.id, state);
        for one in &state.seen {
            seen.insert(one.attempt, (&state.node.id, &one.observed));
        }
    }
    for entry in wanted {
        let Some((attempt, node)) = entry.attempt() else {
            continue;
        };
        // A node that has not spoken since this server began is not judged.
        let Some(state) = spoken.get(node) else {
            continue;
        };
        if is_lost(state) {
            let message = format!(
                "the machine '{node}' has been silent for {} s",
                state.silent.as_secs()
            );
            todo.report.push((attempt, End::Lost { message }));
            // If it has not fetched it, it shall not; if it comes back, it shall end it:
            // what is seen there is superseded from now on.
            continue;
        }
        let observed = seen
            .remove(&attempt)
            .map_or(&Observed::Nothing, |(_, observed)| observed);
        match reconcile(Some(&entry.workload.state), observed) {
            Reconcile::Leave => {}
            Reconcile::Launch => todo.launch.push(Arc::clone(entry)),
            Reconcile::Report(end) => todo.report.push((attempt, end)),
            Reconcile::Stop => todo.stop.push((stop_order(attempt, true), node.clone())),
            Reconcile::Forget => todo.forget.push((attempt, node.clone())),
        }
    }
    for (attempt, (node, observed)) in seen {
        match reconcile(None, observed) {
            // Superseded: what it leaves belongs to nobody.
            Reconcile::Stop => todo.stop.push((stop_order(attempt, false), node.clone())),
            Reconcile::Forget => todo.forget.push((attempt, node.clone())),
            Reconcile::Leave | Reconcile::Launch | Reconcile::Report(_) => {}
        }
    }
    todo
}

fn is_lost(state: &NodeState) -> bool {
    !state.patient && state.silent >= Duration::from_millis(LOST_AFTER_MS)
}

fn stop_order(attempt: AttemptId, keep: bool) -> StopOrder {
    StopOrder {
        attempt,
        grace_ms: if keep { STOP_GRACE_MS } else { 0 },
        keep,
    }
}

/// All that a runner needs to know to start this attempt.
async fn launch_of(engine: &Engine, entry: &Entry) -> Result<Option<Launch>> {
    let State::Starting { attempt } = &entry.workload.state else {
        return Ok(None);
    };
    let details = match &entry.details {
        Some(details) => Arc::clone(details),
        None => {
            let stored = engine.inner.load_entry(entry.workload.id).await?;
            match stored.and_then(|entry| entry.details) {
                Some(details) => details,
                None => return Ok(None),
            }
        }
    };
    let run = &entry.run;
    Ok(Some(Launch {
        attempt: AttemptId {
            workload: entry.workload.id,
            number: attempt.number,
        },
        placement: attempt.placement.clone(),
        run: run.name.clone(),
        experiment: format!("{}-exp{}", run.name, details.index),
        index: u64::from(details.index),
        username: run.username.clone(),
        user_id: run.owner.to_string(),
        cluster: engine.inner.cluster.clone(),
        spec: run.spec.clone(),
        program: run.program.clone(),
        args: details.args.clone(),
        parameters: details.params.iter().cloned().collect(),
        resume: attempt.number > 1 && run.spec.auto_resume,
        workload: entry.workload.id,
    }))
}

/// Orders launches.  One that cannot be described does not keep the others waiting, nor one
/// of somebody who may not use any more what it mounts: that one has failed.
async fn launch(engine: &Engine, entries: Vec<Arc<Entry>>) -> Result<()> {
    let mut launches = Vec::with_capacity(entries.len());
    let mut refused = Vec::new();
    let mut judged: Vec<(Arc<RunInfo>, Option<String>)> = Vec::new();
    let mut failed = None;
    for entry in entries {
        match judge(engine, &entry, &mut judged).await {
            Ok(None) => {}
            Ok(Some(end)) => {
                refused.push((entry.workload.id, end, Actor::Engine));
                continue;
            }
            Err(error) => {
                failed = Some(error);
                continue;
            }
        }
        match launch_of(engine, &entry).await {
            Ok(launch) => launches.extend(launch),
            Err(error) => failed = Some(error),
        }
    }
    if !launches.is_empty() {
        let launched = engine.inner.executor.launch(launches).await;
        launched.map_err(crate::Error::internal)?;
    }
    if !refused.is_empty() {
        for answer in engine.inner.recorder.record_all(refused, None).await? {
            // A refusal means that it was stopped meanwhile.
            let _refused = answer?;
        }
    }
    failed.map_or(Ok(()), Err)
}

/// The end of an attempt that must not begin, if it must not.  Runs are judged once a turn.
async fn judge(
    engine: &Engine,
    entry: &Entry,
    judged: &mut Vec<(Arc<RunInfo>, Option<String>)>,
) -> Result<Option<Command>> {
    let (State::Starting { attempt }, run) = (&entry.workload.state, &entry.run) else {
        return Ok(None);
    };
    let known = judged.iter().find(|(known, _)| Arc::ptr_eq(known, run));
    let why = match known {
        _ if run.spec.datastores.is_empty() => return Ok(None),
        Some((_, why)) => why.clone(),
        None => {
            let mut tx = engine.inner.db.read().await?;
            let why = datastore::refused(&mut tx, run.owner, &run.spec).await?;
            judged.push((Arc::clone(run), why.clone()));
            why
        }
    };
    Ok(why.map(|message| Command::Ended {
        attempt: attempt.number,
        end: End::Failed {
            reason: Reason {
                code: ReasonCode::Start,
                message,
                exit_code: None,
            },
        },
    }))
}

async fn forget(engine: &Engine, over: Vec<(AttemptId, NodeId)>) -> Result<()> {
    for (attempt, node) in over {
        let forgotten = engine.inner.executor.forget(attempt, &node).await;
        forgotten.map_err(crate::Error::internal)?;
    }
    Ok(())
}

async fn act(engine: &Engine, todo: Todo) -> Result<()> {
    let executor = &engine.inner.executor;
    let launched = launch(engine, todo.launch).await;
    let mut report = todo.report;
    for (stop, node) in todo.stop {
        let (attempt, keep) = (stop.attempt, stop.keep);
        let stopped = executor.stop(stop, &node).await;
        let stopped = stopped.map_err(crate::Error::internal)?;
        if keep && stopped == Stopped::NotThere {
            report.push((attempt, End::Stopped));
        }
    }
    if report.is_empty() {
        return launched;
    }
    let commands = report
        .into_iter()
        .map(|(attempt, end)| {
            let command = Command::Ended {
                attempt: attempt.number,
                end,
            };
            (attempt.workload, command, Actor::Engine)
        })
        .collect();
    for answer in engine.inner.recorder.record_all(commands, None).await? {
        // A refusal means that somebody else has reported it first.
        let _refused = answer?;
    }
    launched
}
