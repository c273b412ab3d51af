//! Runs: creating, looking at, stopping, deleting, restoring, cloning, retrying.

mod change;
mod check;
mod create;

use grid_core::access::Action;
use grid_core::id::{RunId, UserId};
use grid_core::run::Counts;
use grid_core::spec::RunSpec;
use grid_store::db;

use crate::access::Caller;
use crate::error::{Error, Result};
use crate::{Engine, artifact, reference};

pub(crate) use change::creator;
pub use change::{clone, delete, restore, retry, stop};
pub(crate) use create::{Reserved, checked, create_reserved, taken};
pub use create::{Created, NewRun, create};

/// A run with what is derived from its experiments.
#[derive(Debug, Clone)]
pub struct Run {
    /// The row.
    pub row: db::run::Run,
    /// Experiments by status.
    pub counts: Counts,
    /// From when to when they ran.
    pub span: db::span::Span,
    /// User name of the creator.
    pub created_by: String,
    /// Name of the team.
    pub team: String,
    /// User name of who moved it to the trash.
    pub deleted_by: Option<String>,
    /// Name of the run it was cloned from, if the caller may see that.
    pub cloned_from: Option<String>,
}

impl Run {
    /// What was asked for.
    pub fn spec(&self) -> Result<RunSpec> {
        serde_json::from_str(&self.row.spec).map_err(Error::internal)
    }
}

/// Which runs a list shows.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    /// Only those with an open experiment (`true`) or without (`false`).
    pub active: Option<bool>,
    /// The trash instead.
    pub deleted: bool,
    /// Teammates', too.
    pub global: bool,
    /// Only this user's.
    pub created_by: Option<String>,
    /// Only those whose name contains this.
    pub name: Option<String>,
    /// After this place.
    pub after: Option<db::Position<RunId>>,
    /// At most so many.
    pub limit: u32,
}

/// Pages of runs that are looked through for one of finished ones.  Higher: one question
/// keeps the database longer when much is open; lower: pages are short, even empty, while
/// there is more.
const SCANS_MAX: u32 = 16;

/// One page of runs, newest first.
pub async fn list(
    engine: &Engine,
    caller: &Caller,
    filter: &Filter,
) -> Result<db::Page<Run, db::Position<RunId>>> {
    let mut tx = engine.inner.db.read().await?;
    let teams: Vec<_> = caller.teams.iter().map(|(team, _)| team.id).collect();
    let owner: Option<UserId> = match &filter.created_by {
        // Somebody unknown has no runs that one can see.
        Some(name) => match reference::user_by_name(&mut tx, name).await? {
            Some(user) => Some(user.id),
            None => {
                return Ok(db::Page {
                    items: vec![],
                    next: None,
                });
            }
        },
        None if filter.global => None,
        None => Some(caller.id()),
    };
    let mut after = filter.after;
    let mut listed = Vec::new();
    let finished_only = filter.active == Some(false);
    for _ in 0..SCANS_MAX {
        let filter_row = db::run::Filter {
            scope: db::Scope {
                owner,
                teams: Some(&teams),
            },
            name_contains: filter.name.as_deref(),
            active: filter.active == Some(true),
            trash: if filter.deleted {
                db::Trash::Only
            } else {
                db::Trash::Without
            },
            created_from: None,
            created_until: None,
            after,
        };
        let page = db::run::list(&mut tx, &filter_row, filter.limit).await?;
        after = page.next;
        listed.extend(
            page.items
                .into_iter()
                .filter(|one| !finished_only || one.counts.open() == 0),
        );
        if listed.len() >= filter.limit as usize || after.is_none() {
            break;
        }
    }
    let limit = filter.limit as usize;
    if listed.len() > limit {
        listed.truncate(limit);
        after = listed.last().map(|one| db::Position {
            at: one.run.created_at,
            id: one.run.id,
        });
    }
    let items = derive(&mut tx, caller, listed).await?;
    Ok(db::Page { items, next: after })
}

/// Adds what is derived, for a whole page at once.
async fn derive(
    tx: &mut db::Tx,
    caller: &Caller,
    listed: Vec<db::run::Listed>,
) -> Result<Vec<Run>> {
    let ids: Vec<RunId> = listed.iter().map(|one| one.run.id).collect();
    let spans = db::span::of_runs(tx, &ids).await?;
    let mut people: Vec<UserId> = listed
        .iter()
        .flat_map(|one| {
            std::iter::once(one.run.creator).chain(one.run.deleted.map(|deleted| deleted.by))
        })
        .collect();
    people.sort_unstable();
    people.dedup();
    let names: std::collections::HashMap<UserId, String> = db::user::by_ids(tx, &people)
        .await?
        .into_iter()
        .map(|user| (user.id, user.username))
        .collect();
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
            counts: one.counts,
            span: spans.get(&one.run.id).copied().unwrap_or_default(),
            created_by: names.get(&one.run.creator).cloned().unwrap_or_default(),
            team,
            deleted_by: one
                .run
                .deleted
                .and_then(|deleted| names.get(&deleted.by).cloned()),
            cloned_from: origin.map(|origin| origin.name.clone()),
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
    let counts = db::run::counts(tx, &[run.id])
        .await?
        .remove(&run.id)
        .unwrap_or_default();
    let runs = derive(tx, caller, vec![db::run::Listed { run, counts }]).await?;
    runs.into_iter()
        .next()
        .ok_or_else(|| Error::internal(anyhow::anyhow!("a list of one is empty")))
}
