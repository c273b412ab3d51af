//! Experiments together with the runs they belong to, as whoever shows one by itself needs
//! them: who made it, what was asked for.

use grid_core::access::Action;
use grid_core::id::{RunId, WorkloadId};
use grid_store::db;

use super::{Experiment, describe, program};
use crate::access::Caller;
use crate::error::{Error, Result};
use crate::{Engine, artifact, reference, run};

/// Experiments that are read at a time.
const PAGE: u32 = 1_000;

/// Things that may be named in one question.  Higher: one question holds the database for
/// long; lower: programs ask more often.
const NAMED_MAX: usize = 1_000;

/// An experiment and its run.
#[derive(Debug, Clone)]
pub struct Whole {
    /// The experiment.
    pub experiment: Experiment,
    /// Its run.
    pub run: db::run::Run,
    /// User name of who made them.
    pub created_by: String,
}

/// One experiment that is not in the trash, neither itself nor with its run.
pub async fn whole(engine: &Engine, caller: &Caller, name: &str) -> Result<Whole> {
    let mut tx = engine.inner.db.read().await?;
    let (run, row) = reference::experiment(&mut tx, caller, name, false).await?;
    artifact::check(&mut tx, caller, &run, Action::SeeRun).await?;
    drop(tx);
    let created_by = run::creator(engine, caller, &run).await?;
    Ok(Whole {
        experiment: describe(engine, caller, &run.name, &program(&run)?, row),
        run,
        created_by,
    })
}

/// Those of these that there are, as far as the caller may know, each as it was named.
pub async fn named(
    engine: &Engine,
    caller: &Caller,
    names: &[String],
) -> Result<Vec<(String, Whole)>> {
    require_few(names)?;
    let mut found = Vec::with_capacity(names.len());
    for name in names {
        match whole(engine, caller, name).await {
            Ok(whole) => found.push((name.clone(), whole)),
            Err(Error::NotFound { .. }) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(found)
}

/// All experiments of these runs, by number, but those in the trash.
pub async fn of_runs(engine: &Engine, caller: &Caller, runs: &[String]) -> Result<Vec<Whole>> {
    require_few(runs)?;
    let mut found = Vec::new();
    for name in runs {
        let mut tx = engine.inner.db.read().await?;
        let run = match reference::run(&mut tx, caller, name, false).await {
            Ok(run) => run,
            Err(Error::NotFound { .. }) => continue,
            Err(error) => return Err(error),
        };
        artifact::check(&mut tx, caller, &run, Action::SeeRun).await?;
        let mut rows = Vec::new();
        let mut after = None;
        loop {
            let page =
                db::workload::list_of_run(&mut tx, run.id, &[], db::Trash::Without, after, PAGE)
                    .await?;
            rows.extend(page.items);
            after = page.next;
            if after.is_none() {
                break;
            }
        }
        drop(tx);
        let (program, created_by) = (program(&run)?, run::creator(engine, caller, &run).await?);
        found.extend(rows.into_iter().map(|row| Whole {
            experiment: describe(engine, caller, &run.name, &program, row),
            run: run.clone(),
            created_by: created_by.clone(),
        }));
    }
    Ok(found)
}

fn require_few(names: &[String]) -> Result<()> {
    if names.len() <= NAMED_MAX {
        return Ok(());
    }
    Err(Error::invalid(format!(
        "ask about at most {NAMED_MAX} at a time"
    )))
}

/// The ids of the experiments of runs that the caller was shown, by number, but those in
/// the trash.
pub async fn ids(
    engine: &Engine,
    runs: &[RunId],
) -> Result<std::collections::HashMap<RunId, Vec<WorkloadId>>> {
    let mut tx = engine.inner.db.read().await?;
    Ok(db::workload::ids_of_runs(&mut tx, runs).await?)
}
