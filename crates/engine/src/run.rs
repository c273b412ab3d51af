//! Runs: creating, looking at, stopping, deleting, restoring, cloning, retrying.

mod change;
mod check;
mod create;
mod name;

use grid_core::access::Action;
use grid_core::id::{RunId, UserId};
use grid_core::run::{Counts, ENDED, OPEN};
use grid_core::spec::RunSpec;
use grid_core::time::Timestamp;
use grid_core::workload::Status;
use grid_store::db;

use crate::access::Caller;
use crate::error::{Error, Result};
use crate::{Engine, artifact, datastore, reference};

pub(crate) use change::creator;
pub use change::{clone, delete, restore, retry, stop};
pub use create::{Created, NewRun, create};
pub(crate) use create::{checked, create_reserved};
pub(crate) use name::{Reserved, taken};

/// A run with what is derived from its experiments.
#[derive(Debug, Clone)]
pub struct Run {
    /// The row.
    pub row: db::run::Run,
    /// Experiments by status.
    pub counts: Counts,
    /// From when to when they ran.
    pub span: db::run::Span,
    /// User name of the creator.
    pub created_by: String,
    /// Name of the team.
    pub team: String,
    /// User name of who moved it to the trash.
    pub deleted_by: Option<String>,
    /// Name of the run it was cloned from, if the caller may see that.
    pub cloned_from: Option<String>,
    /// What the versions that it mounts are called now, in the order of its spec; not of
    /// runs in a list.
    pub datastores: Vec<String>,
}

impl Run {
    /// What was asked for.
    pub fn spec(&self) -> Result<RunSpec> {
        serde_json::from_str(&self.row.spec).map_err(Error::internal)
    }

    /// The same with the names of now, to be shown.
    pub fn spec_now(&self) -> Result<RunSpec> {
        let mut spec = self.spec()?;
        for (mount, name) in spec.datastores.iter_mut().zip(&self.datastores) {
            mount.datastore.clone_from(name);
        }
        Ok(spec)
    }
}

/// Which runs a list shows.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    /// Only those with an open experiment (`true`) or without (`false`).
    pub active: Option<bool>,
    /// Only those in one of these statuses; empty for all.
    pub statuses: Vec<Status>,
    /// Only those made at this time or later.
    pub since: Option<Timestamp>,
    /// The trash instead.
    pub deleted: bool,
    /// Teammates', too.
    pub global: bool,
    /// Only this user's.
    pub created_by: Option<String>,
    /// Whether it is an error that nobody is called so, as far as the caller may know.
    pub must_be_somebody: bool,
    /// Only those whose name contains this.
    pub name: Option<String>,
    /// After this place.
    pub after: Option<db::Position<RunId>>,
    /// At most so many.
    pub limit: u32,
}

impl Filter {
    /// The statuses that are left, empty for all; `None` when none is.
    pub(crate) fn statuses(&self) -> Option<Vec<Status>> {
        let allowed = match self.active {
            None => return Some(self.statuses.clone()),
            Some(true) => OPEN.to_vec(),
            Some(false) => ENDED.to_vec(),
        };
        if self.statuses.is_empty() {
            return Some(allowed);
        }
        let mut both = allowed;
        both.retain(|status| self.statuses.contains(status));
        (!both.is_empty()).then_some(both)
    }
}

/// One page of runs, newest first.
pub async fn list(
    engine: &Engine,
    caller: &Caller,
    filter: &Filter,
) -> Result<db::Page<Run, db::Position<RunId>>> {
    let Some(statuses) = filter.statuses() else {
        return Ok(db::Page {
            items: vec![],
            next: None,
        });
    };
    let mut tx = engine.inner.db.read().await?;
    let teams: Vec<_> = caller.teams.iter().map(|(team, _)| team.id).collect();
    let owner: Option<UserId> = match &filter.created_by {
        // Somebody unknown has no runs that one can see.
        Some(name) => Some(reference::user_or_nobody(&mut tx, name).await?),
        None if filter.global => None,
        None => Some(caller.id()),
    };
    let wanted = db::run::Filter {
        scope: db::Scope {
            owner,
            teams: Some(&teams),
        },
        name_contains: filter.name.as_deref(),
        statuses: &statuses,
        trash: if filter.deleted {
            db::Trash::Only
        } else {
            db::Trash::Without
        },
        created_from: filter.since,
        created_until: None,
        after: filter.after,
    };
    let page = db::run::list(&mut tx, &wanted, filter.limit).await?;
    if let Some(name) = &filter.created_by
        && filter.must_be_somebody
        && page.items.is_empty()
    {
        reference::require_known(&mut tx, caller, name).await?;
    }
    let items = derive(&mut tx, caller, page.items).await?;
    Ok(db::Page {
        items,
        next: page.next,
    })
}

/// Adds what is derived, for a whole page at once.
async fn derive(
    tx: &mut db::Tx,
    caller: &Caller,
    listed: Vec<db::run::Listed>,
) -> Result<Vec<Run>> {
    let mut people: Vec<UserId> = listed
        .iter()
        .flat_map(|one| {
            std::iter::once(one.run.creator).chain(one.run.deleted.map(|deleted| deleted.by))
        })
        .collect();
    people.sort_unstable();
    people.dedup();
    let names = db::user::names(tx, &people).await?;
    let origins: Vec<RunId> = listed
        .iter()
        .filter_map(|one| one.run.cloned_from)
        .collect();
    let origins = db::run::by_ids(tx, &origins).await?;
    let mut runs = Vec::with_capacity(listed.len());
    for one in listed {
        let team = match caller
            .teams
            .iter()
            .find(|(team, _)| team.id == one.run.team)
        {
            Some((team, _)) => team.name.clone(),
            None => db::team::by_id(tx, one.run.team)
                .await?
                .map_or_else(String::new, |team| team.name),
        };
        let origin = origins.iter().find(|origin| {
            Some(origin.id) == one.run.cloned_from && caller.sees(*origin, Action::SeeRun)
        });
        runs.push(Run {
            counts: one.tally.counts,
            span: one.tally.span,
            created_by: names.get(&one.run.creator).cloned().unwrap_or_default(),
            team,
            deleted_by: one
                .run
                .deleted
                .and_then(|deleted| names.get(&deleted.by).cloned()),
            cloned_from: origin.map(|origin| origin.name.clone()),
            datastores: vec![],
            row: one.run,
        });
    }
    Ok(runs)
}

/// One run; also one in the trash.
pub async fn get(engine: &Engine, caller: &Caller, name: &str) -> Result<Run> {
    let mut tx = engine.inner.db.read().await?;
    let run = reference::run(&mut tx, caller, name, true).await?;
    artifact::check(&mut tx, caller, &run, Action::SeeRun).await?;
    one(&mut tx, caller, run).await
}

pub(crate) async fn one(tx: &mut db::Tx, caller: &Caller, run: db::run::Run) -> Result<Run> {
    let mut tallies = db::run::tallies(tx, &[run.id]).await?;
    let tally = tallies.remove(&run.id).unwrap_or_default();
    let runs = derive(tx, caller, vec![db::run::Listed { run, tally }]).await?;
    let run = runs.into_iter().next();
    let mut run = run.ok_or_else(|| Error::internal(anyhow::anyhow!("a list of one is empty")))?;
    run.datastores = datastore::names(tx, caller, &run.spec()?).await?;
    Ok(run)
}
