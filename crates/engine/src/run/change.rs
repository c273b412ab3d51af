//! Changing runs: stopping, deleting, restoring, cloning, retrying.

use grid_core::access::Action;
use grid_core::name::RunName;
use grid_core::spec::split_command;
use grid_core::workload::{Actor, Command, Outcome, State, Status};
use grid_store::db;

use super::create::{Created, NewRun, create};
use super::{Run, one};
use crate::access::Caller;
use crate::audit::{Draft, Thing};
use crate::error::{Error, Result};
use crate::recorder::Audit;
use crate::{Engine, artifact, datastore, reference, to_the_end, trash};

/// Experiments that are changed at a time.
const PAGE: u32 = 2_000;

async fn find(
    engine: &Engine,
    caller: &Caller,
    name: &str,
    action: Action,
    trash: bool,
) -> Result<db::run::Run> {
    let mut tx = engine.inner.db.read().await?;
    let run = reference::run(&mut tx, caller, name, trash).await?;
    artifact::check(&mut tx, caller, &run, action).await?;
    Ok(run)
}

async fn described(engine: &Engine, caller: &Caller, id: grid_core::id::RunId) -> Result<Run> {
    let mut tx = engine.inner.db.read().await?;
    let run = db::run::by_id(&mut tx, id).await?;
    let run = run.ok_or_else(|| Error::not_found("the run is gone"))?;
    one(&mut tx, caller, run).await
}

/// Sends a command to every experiment of a run in one of `statuses` that `wanted` picks.
async fn each(
    engine: &Engine,
    caller: &Caller,
    run: &db::run::Run,
    statuses: &[Status],
    command: &Command,
    wanted: impl Fn(&State) -> bool,
    mut audit: Option<Draft>,
) -> Result<u64> {
    let mut after = None;
    let mut changed = 0;
    loop {
        let mut tx = engine.inner.db.read().await?;
        let page =
            db::workload::list_of_run(&mut tx, run.id, statuses, db::Trash::Without, after, PAGE)
                .await?;
        drop(tx);
        let commands: Vec<_> = page
            .items
            .iter()
            .filter(|row| wanted(&row.workload.state))
            .map(|row| (row.workload.id, command.clone(), Actor::User(caller.id())))
            .collect();
        if !commands.is_empty() {
            let audit = audit.take().map(|draft| Audit {
                entry: draft.entry(&*engine.inner.clock),
                alone: false,
            });
            for answer in engine.inner.recorder.record_all(commands, audit).await? {
                changed += u64::from(answer?.is_ok_and(|events| events > 0));
            }
        }
        let Some(next) = page.next else {
            break;
        };
        after = Some(next);
    }
    // Nothing was there to be changed: who asked for it is written down all the same.
    if let Some(draft) = audit.filter(|_| matches!(command, Command::Stop { .. })) {
        let draft = draft.detail("nothing was open");
        draft.write_alone(engine).await?;
    }
    Ok(changed)
}

/// The event that tells of a change of a run.
async fn did(
    engine: &Engine,
    caller: &Caller,
    run: &db::run::Run,
    action: Action,
) -> Result<Draft> {
    let creator = creator(engine, caller, run).await?;
    Ok(caller.did(action.word(), Some(run.team), Thing::run(run, &creator)))
}

/// The name of who made a run.
pub(crate) async fn creator(
    engine: &Engine,
    caller: &Caller,
    run: &db::run::Run,
) -> Result<String> {
    if run.creator == caller.id() {
        return Ok(caller.user.username.clone());
    }
    let mut tx = engine.inner.db.read().await?;
    let user = db::user::by_id(&mut tx, run.creator).await?;
    Ok(user.map_or_else(String::new, |user| user.username))
}

const OPEN: [Status; 5] = [
    Status::Queued,
    Status::Pending,
    Status::Running,
    Status::Stopping,
    Status::Paused,
];

async fn stop_open(
    engine: &Engine,
    caller: &Caller,
    run: &db::run::Run,
    audit: Option<Draft>,
) -> Result<u64> {
    let command = Command::Stop {
        by: Some(caller.id()),
    };
    each(engine, caller, run, &OPEN, &command, |_| true, audit).await
}

/// Stops every experiment of a run that has not ended.  Answers with how many.
pub async fn stop(engine: &Engine, caller: &Caller, name: &str) -> Result<(Run, u64)> {
    let run = find(engine, caller, name, Action::StopRun, false).await?;
    let (engine, caller) = (engine.clone(), caller.clone());
    to_the_end(async move {
        let audit = did(&engine, &caller, &run, Action::StopRun).await?;
        let changed = stop_open(&engine, &caller, &run, Some(audit)).await?;
        Ok((described(&engine, &caller, run.id).await?, changed))
    })
    .await
}

/// Moves a run to the trash with all that belongs to it; what runs is stopped first.
pub async fn delete(engine: &Engine, caller: &Caller, name: &str) -> Result<Run> {
    let run = find(engine, caller, name, Action::DeleteRun, false).await?;
    let (engine, caller) = (engine.clone(), caller.clone());
    to_the_end(async move {
        let audit = did(&engine, &caller, &run, Action::DeleteRun).await?;
        stop_open(&engine, &caller, &run, None).await?;
        let mut tx = engine.inner.db.write().await?;
        db::run::set_deleted(&mut tx, run.id, caller.id(), engine.inner.clock.now()).await?;
        audit.write(&engine, &mut tx).await?;
        tx.commit().await?;
        // Somebody may have had one tried again in between; in the trash nothing runs.
        stop_open(&engine, &caller, &run, None).await?;
        engine.inner.watch.changed([run.team]);
        described(&engine, &caller, run.id).await
    })
    .await
}

/// Takes a run out of the trash, whole.
pub async fn restore(engine: &Engine, caller: &Caller, name: &str) -> Result<Run> {
    let run = find(engine, caller, name, Action::DeleteRun, true).await?;
    let not_there = || Error::conflict(format!("run '{}' is not in the trash", run.name));
    let thing = Thing::run(&run, &creator(engine, caller, &run).await?);
    let audit = caller.did("run.restore", Some(run.team), thing);
    let mut tx = engine.inner.db.write().await?;
    // Looked at again where nobody else writes: what is due to go for good may be half gone.
    let now = engine.inner.clock.now();
    let deleted = db::run::by_id(&mut tx, run.id)
        .await?
        .and_then(|run| run.deleted)
        .ok_or_else(not_there)?;
    trash::require_restorable(deleted.at, now, &format!("run '{}'", run.name))?;
    let restored = db::run::restore(&mut tx, run.id)
        .await
        .map_err(|e| match e {
            db::Error::Conflict { .. } => Error::Conflict {
                message: format!("there is another run '{}' by now", run.name),
                hint: Some(
                    "delete or rename that one first; this one stays in the trash until then"
                        .to_owned(),
                ),
            },
            other => other.into(),
        })?;
    if !restored {
        return Err(not_there());
    }
    audit.write(engine, &mut tx).await?;
    tx.commit().await?;
    engine.inner.watch.changed([run.team]);
    described(engine, caller, run.id).await
}

/// Tries failed (and, unless `failed_only`, stopped) experiments again, in place.
pub async fn retry(
    engine: &Engine,
    caller: &Caller,
    name: &str,
    failed_only: bool,
) -> Result<(Run, u64)> {
    let run = find(engine, caller, name, Action::RetryRun, false).await?;
    let (engine, caller) = (engine.clone(), caller.clone());
    to_the_end(async move { retry_run(&engine, &caller, &run, failed_only).await }).await
}

async fn retry_run(
    engine: &Engine,
    caller: &Caller,
    run: &db::run::Run,
    failed_only: bool,
) -> Result<(Run, u64)> {
    let statuses: &[Status] = if failed_only {
        &[Status::Failed]
    } else {
        &[Status::Failed, Status::Stopped]
    };
    let ended_badly = |state: &State| match state {
        State::Finished { outcome, .. } => !matches!(outcome, Outcome::Succeeded),
        _ => false,
    };
    let audit = did(engine, caller, run, Action::RetryRun).await?;
    let spec = described(engine, caller, run.id).await?.spec()?;
    let mut tx = engine.inner.db.read().await?;
    datastore::require_usable(&mut tx, caller, run, &spec).await?;
    drop(tx);
    let command = Command::Retry;
    let changed = each(
        engine,
        caller,
        run,
        statuses,
        &command,
        ended_badly,
        Some(audit),
    )
    .await?;
    if changed == 0 {
        let which = if failed_only {
            "failed"
        } else {
            "failed or stopped"
        };
        return Err(Error::conflict(format!(
            "no experiment of '{}' has {which}",
            run.name
        )));
    }
    let now = described(engine, caller, run.id).await?;
    if now.row.deleted.is_some() {
        // It was deleted meanwhile; in the trash nothing runs.
        stop_open(engine, caller, run, None).await?;
        return Err(Error::conflict(format!(
            "run '{}' is in the trash",
            run.name
        )));
    }
    Ok((now, changed))
}

/// Makes a run of the caller's own from another, with some arguments changed.
pub async fn clone(
    engine: &Engine,
    caller: &Caller,
    name: &str,
    new_name: Option<String>,
    set: &[String],
    dry_run: bool,
) -> Result<Created> {
    let run = find(engine, caller, name, Action::CloneRun, true).await?;
    let original = described(engine, caller, run.id).await?;
    let mut spec = original.spec()?;
    spec.command = changed_command(&spec.command, set);
    let mut drop_params = spec.params;
    drop_params.retain(|(key, _)| !set.iter().any(|token| same_flag(token, key)));
    spec.params = drop_params;
    // Repeated exactly, unless something about the sweep was changed.
    if set.is_empty() {
        spec.sweep.seed = run.seed.parse().ok();
    }
    let team = caller
        .teams
        .iter()
        .find(|(team, _)| team.id == run.team)
        .map(|(team, _)| team.name.clone());
    let generated = match new_name {
        Some(name) => name,
        None => {
            let of = RunName::parse(&run.name).map_err(|e| Error::invalid(e.to_string()))?;
            #[expect(
                clippy::cast_possible_truncation,
                reason = "some bits of entropy are wanted"
            )]
            of.clone_name(engine.inner.clock.entropy() as u64)
                .to_string()
        }
    };
    let new = NewRun {
        name: Some(generated),
        team,
        invocation: format!("grid run {}", spec.command.join(" ")),
        spec,
        project: run.project.clone(),
        cloned_from: Some(run.id),
        dry_run,
        idempotency_key: None,
    };
    create(engine, caller, new).await
}

/// The flag of a token, if it is one: `--lr=0.1` and `--lr` are both `--lr`.
fn flag(token: &str) -> Option<&str> {
    let flag = token.split_once('=').map_or(token, |(flag, _)| flag);
    let is_flag = flag.starts_with('-') && flag.parse::<f64>().is_err() && flag.len() > 1;
    is_flag.then_some(flag)
}

fn same_flag(token: &str, key: &str) -> bool {
    flag(token).is_some_and(|flag| flag.trim_start_matches('-') == key.trim_start_matches('-'))
}

/// The command with the flags of `set` replaced, or added at its end.
fn changed_command(command: &[String], set: &[String]) -> Vec<String> {
    let (program, args) = split_command(command);
    let mut changed = program.to_vec();
    let mut args = args.iter().peekable();
    while let Some(arg) = args.next() {
        let replaced = flag(arg).is_some_and(|flag| set.iter().any(|token| same_flag(token, flag)));
        if !replaced {
            changed.push(arg.clone());
        } else if !arg.contains('=') && args.peek().is_some_and(|next| flag(next).is_none()) {
            // Its value goes with it.
            args.next();
        }
    }
    changed.extend(set.iter().cloned());
    changed
}

#[cfg(test)]
mod tests {
    use super::changed_command;

    fn check(command: &str, set: &str, expected: &str) {
        let words = |text: &str| {
            text.split_whitespace()
                .map(str::to_owned)
                .collect::<Vec<_>>()
        };
        assert_eq!(
            changed_command(&words(command), &words(set)).join(" "),
            expected
        );
    }

    #[test]
    fn flags_are_replaced_or_added() {
        check(
            "train.py --lr 1 --epochs 3",
            "--lr=0.1",
            "train.py --epochs 3 --lr=0.1",
        );
        check("train.py --lr=1 x", "--lr 2", "train.py x --lr 2");
        check(
            "train.py --lr -1e-3 --toggle --n 2",
            "--lr 5",
            "train.py --toggle --n 2 --lr 5",
        );
        check(
            "train.py --toggle --n 2",
            "--toggle False",
            "train.py --n 2 --toggle False",
        );
        check("train.py", "--new 1", "train.py --new 1");
        check("train.py --lr 1", "", "train.py --lr 1");
    }
}
