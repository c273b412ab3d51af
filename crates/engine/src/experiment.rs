//! Experiments: looking at them, stopping, deleting, restoring.

mod whole;

use grid_core::access::Action;
use grid_core::id::{AttemptId, WorkloadId};
use grid_core::workload::{Actor, Command, Event, Outcome, Refusal, State, Status, Why, Workload};
use grid_store::db;

use crate::access::Caller;
use crate::audit::{Draft, Thing};
use crate::error::{Error, Result};
use crate::recorder::Audit;
use crate::{Engine, artifact, reference, to_the_end, trash};

pub use whole::{Whole, ids, named, of_runs, whole};

/// An experiment with the run it belongs to.
#[derive(Debug, Clone)]
pub struct Experiment {
    /// The row.
    pub row: db::workload::Stored,
    /// Name of the run.
    pub run: String,
    /// What is executed: program and arguments.
    pub command: Vec<String>,
    /// A sentence about where it stands.
    pub message: Option<String>,
    /// Artifacts: how many, and their bytes.  Only when one is asked for.
    pub artifacts: Option<(u64, u64)>,
}

impl Experiment {
    /// `<run>-exp<N>`.
    pub fn name(&self) -> String {
        format!("{}-exp{}", self.run, self.row.idx)
    }
}

/// One experiment.
pub async fn get(engine: &Engine, caller: &Caller, name: &str) -> Result<Experiment> {
    let mut tx = engine.inner.db.read().await?;
    let (run, row) = reference::experiment(&mut tx, caller, name, true).await?;
    artifact::check(&mut tx, caller, &run, Action::SeeRun).await?;
    let totals = db::artifact::totals(&mut tx, row.workload.id).await?;
    drop(tx);
    let mut experiment = describe(engine, caller, &run.name, &program(&run)?, row);
    experiment.artifacts = Some(totals);
    Ok(experiment)
}

/// One page of the experiments of a run, by number.
pub async fn list(
    engine: &Engine,
    caller: &Caller,
    run: &str,
    statuses: &[Status],
    after: Option<u32>,
    limit: u32,
) -> Result<db::Page<Experiment, u32>> {
    let mut tx = engine.inner.db.read().await?;
    let run = reference::run(&mut tx, caller, run, true).await?;
    artifact::check(&mut tx, caller, &run, Action::SeeRun).await?;
    let trash = db::Trash::Without;
    let page = db::workload::list_of_run(&mut tx, run.id, statuses, trash, after, limit).await?;
    drop(tx);
    let program = program(&run)?;
    let items = page
        .items
        .into_iter()
        .map(|row| describe(engine, caller, &run.name, &program, row))
        .collect();
    Ok(db::Page {
        items,
        next: page.next,
    })
}

/// What the experiments of a run have in common in their commands.
fn program(run: &db::run::Run) -> Result<Vec<String>> {
    let spec: grid_core::spec::RunSpec =
        serde_json::from_str(&run.spec).map_err(Error::internal)?;
    Ok(grid_core::spec::split_command(&spec.command).0.to_vec())
}

fn describe(
    engine: &Engine,
    caller: &Caller,
    run: &str,
    program: &[String],
    row: db::workload::Stored,
) -> Experiment {
    let mut command = program.to_vec();
    command.extend(row.args.iter().cloned());
    Experiment {
        run: run.to_owned(),
        command,
        message: message(engine, caller, &row.workload),
        artifacts: None,
        row,
    }
}

/// A sentence about where a workload stands: why it waits, what is being done, how it ended.
/// Of people whom the caller need not know it gives neither names nor numbers.
pub(crate) fn message(engine: &Engine, caller: &Caller, workload: &Workload) -> Option<String> {
    match &workload.state {
        State::Queued => Some(waiting(engine, caller, workload)),
        // What is said of one that runs is why it does not get on, or what is done at its end.
        State::Starting { attempt } | State::Running { attempt, .. } => {
            let id = AttemptId {
                workload: workload.id,
                number: attempt.number,
            };
            engine.inner.hub.note(id, &attempt.placement.node)
        }
        State::Paused => None,
        State::Stopping { .. } => Some("being stopped: its script may save its work".to_owned()),
        State::Finished { outcome, .. } => match outcome {
            Outcome::Failed { reason } => Some(reason.message.clone()),
            Outcome::Succeeded | Outcome::Stopped { .. } => None,
        },
    }
}

fn waiting(engine: &Engine, caller: &Caller, workload: &Workload) -> String {
    let book = engine.inner.book();
    let again = match &workload.again {
        None => String::new(),
        Some(Why::Lost { message }) => format!(" (again: {message})"),
        Some(Why::Interrupted) => " (again: it was interrupted)".to_owned(),
        Some(Why::Returned) => " (again: it was given back)".to_owned(),
        Some(Why::Failed { reason }) => format!(" (again: {})", reason.message),
    };
    let Some(waiting) = book.board.explain(workload.id) else {
        return format!("about to start{again}");
    };
    let mut text = if waiting.lacks.is_empty() {
        "about to start".to_owned()
    } else {
        format!("waiting for {}", waiting.lacks)
    };
    let mut others = false;
    let mut ahead: Vec<String> = Vec::new();
    for one in &waiting.ahead {
        let Some(whose) = book.name_of(one.owner, caller) else {
            others = true;
            continue;
        };
        let noun = if one.experiments == 1 {
            "experiment"
        } else {
            "experiments"
        };
        ahead.push(format!("{} {noun} of {whose}", one.experiments));
    }
    if others {
        ahead.push("others' work".to_owned());
    }
    if !ahead.is_empty() {
        text = format!("{text}; {} ahead", ahead.join(", "));
    }
    text + &again
}

/// The history of an experiment, oldest first.
pub async fn events(
    engine: &Engine,
    caller: &Caller,
    name: &str,
) -> Result<Vec<db::event::Logged>> {
    let mut tx = engine.inner.db.read().await?;
    let (run, row) = reference::experiment(&mut tx, caller, name, true).await?;
    artifact::check(&mut tx, caller, &run, Action::SeeRun).await?;
    Ok(db::event::of_workload(&mut tx, row.workload.id).await?)
}

/// What an event says, in a sentence.
pub fn event_message(event: &Event) -> String {
    match event {
        Event::Created { .. } => "submitted".to_owned(),
        Event::Placed { attempt } => {
            format!(
                "attempt {} got a place on '{}'",
                attempt.number, attempt.placement.node
            )
        }
        Event::Started { attempt } => format!("attempt {attempt} started"),
        Event::Requeued { attempt, why } => match why {
            Why::Lost { message } => {
                format!("attempt {attempt} was lost: {message}; it is tried again")
            }
            Why::Interrupted => format!("attempt {attempt} was interrupted; it goes on elsewhere"),
            Why::Returned => format!("attempt {attempt} was given back before it started"),
            Why::Failed { reason } => format!(
                "attempt {attempt} failed: {}; it is tried again",
                reason.message
            ),
        },
        Event::StopRequested { .. } => "asked to stop".to_owned(),
        Event::PauseRequested => "asked to pause".to_owned(),
        Event::Paused => "paused".to_owned(),
        Event::Resumed => "resumed".to_owned(),
        Event::Retried => "asked to be tried again".to_owned(),
        Event::Finished { outcome } => match outcome {
            Outcome::Succeeded => "succeeded".to_owned(),
            Outcome::Failed { reason } => format!("failed: {}", reason.message),
            Outcome::Stopped { .. } => "stopped".to_owned(),
        },
    }
}

/// The event that tells of a change of an experiment.
async fn did(
    engine: &Engine,
    caller: &Caller,
    run: &db::run::Run,
    row: &db::workload::Stored,
    action: &'static str,
) -> Result<Draft> {
    let creator = crate::run::creator(engine, caller, run).await?;
    Ok(caller.did(
        action,
        Some(run.team),
        Thing::experiment(run, row, &creator),
    ))
}

/// Stops an experiment.
pub async fn stop(engine: &Engine, caller: &Caller, name: &str) -> Result<Experiment> {
    let mut tx = engine.inner.db.read().await?;
    let (run, row) = reference::experiment(&mut tx, caller, name, false).await?;
    artifact::check(&mut tx, caller, &run, Action::StopRun).await?;
    drop(tx);
    let id = row.workload.id;
    let audit = Audit {
        entry: did(engine, caller, &run, &row, Action::StopRun.word())
            .await?
            .entry(&*engine.inner.clock),
        alone: true,
    };
    let answer = record_stop(engine, caller, id, Some(audit)).await?;
    answer.map_err(|refusal| Error::refused(name, refusal))?;
    get(engine, caller, &id.to_string()).await
}

async fn record_stop(
    engine: &Engine,
    caller: &Caller,
    id: WorkloadId,
    audit: Option<Audit>,
) -> Result<Result<usize, Refusal>> {
    let command = Command::Stop {
        by: Some(caller.id()),
    };
    let recorder = &engine.inner.recorder;
    let actor = Actor::User(caller.id());
    recorder.record(id, command, actor, audit).await
}

/// Moves an experiment to the trash, stopping it first.
pub async fn delete(engine: &Engine, caller: &Caller, name: &str) -> Result<Experiment> {
    let mut tx = engine.inner.db.read().await?;
    let (run, row) = reference::experiment(&mut tx, caller, name, false).await?;
    artifact::check(&mut tx, caller, &run, Action::DeleteRun).await?;
    drop(tx);
    let id = row.workload.id;
    let (engine, caller) = (engine.clone(), caller.clone());
    to_the_end(async move {
        let audit = did(&engine, &caller, &run, &row, Action::DeleteRun.word()).await?;
        let _refused = record_stop(&engine, &caller, id, None).await?;
        let mut tx = engine.inner.db.write().await?;
        db::workload::set_deleted(&mut tx, id, caller.id(), engine.inner.clock.now()).await?;
        audit.write(&engine, &mut tx).await?;
        tx.commit().await?;
        // Somebody may have had it tried again in between; in the trash nothing runs.
        let _refused = record_stop(&engine, &caller, id, None).await?;
        engine.inner.watch.changed([run.team]);
        get(&engine, &caller, &id.to_string()).await
    })
    .await
}

/// Takes an experiment out of the trash.
pub async fn restore(engine: &Engine, caller: &Caller, name: &str) -> Result<Experiment> {
    let mut tx = engine.inner.db.read().await?;
    let (run, row) = reference::experiment(&mut tx, caller, name, true).await?;
    artifact::check(&mut tx, caller, &run, Action::DeleteRun).await?;
    drop(tx);
    if run.deleted.is_some() {
        return Err(Error::Conflict {
            message: format!(
                "run '{}' is in the trash with all its experiments",
                run.name
            ),
            hint: Some(format!("grid restore run {}", run.name)),
        });
    }
    let id = row.workload.id;
    let not_there = || Error::conflict(format!("{name} is not in the trash"));
    let audit = did(engine, caller, &run, &row, "run.restore").await?;
    let mut tx = engine.inner.db.write().await?;
    let deleted = db::workload::get(&mut tx, id)
        .await?
        .and_then(|row| row.deleted)
        .ok_or_else(not_there)?;
    trash::require_restorable(deleted.at, engine.inner.clock.now(), name)?;
    let restored = db::workload::restore(&mut tx, id).await?;
    if !restored {
        return Err(not_there());
    }
    audit.write(engine, &mut tx).await?;
    tx.commit().await?;
    engine.inner.watch.changed([run.team]);
    get(engine, caller, &id.to_string()).await
}
