//! Runs, and how many of their experiments are in which status.

mod find;
mod tally;

use grid_core::id::{RunId, SnapshotId, TeamId, UserId};
use grid_core::time::Timestamp;
use grid_core::workload::{Actor, Status, Workload};
use sqlx::AssertSqlSafe;
use sqlx::any::AnyRow;

use super::error::{Error, Result};
use super::page::{Deletion, Page, Position, Trash};
use super::scope::Scope;
use super::sql::{Columns, list as in_list, lists, values};
use super::tx::Tx;
use super::workload;

pub(super) use find::Few;
pub use tally::{Span, Tally, tallies};

/// A run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Run {
    /// Its id.
    pub id: RunId,
    /// Whose team's it is.
    pub team: TeamId,
    /// Who made it.
    pub creator: UserId,
    /// Its name: unique among those of its creator that are not in the trash.
    pub name: String,
    /// When it was made.
    pub created_at: Timestamp,
    /// What was asked for, as JSON.
    pub spec: String,
    /// What its sweep was drawn from, so that it can be repeated.
    pub seed: String,
    /// The command line it was made with.
    pub invocation: String,
    /// The project it belongs to.
    pub project: Option<String>,
    /// The source it runs.
    pub snapshot: Option<SnapshotId>,
    /// The run it was made from.
    pub cloned_from: Option<RunId>,
    /// How many experiments it was made with.
    pub experiments: u32,
    /// That it is in the trash, with its experiments.
    pub deleted: Option<Deletion>,
}

/// An experiment of a new run.
#[derive(Debug, Clone)]
pub struct NewExperiment {
    /// The workload, as created.
    pub workload: Workload,
    /// Its parameters, in order.
    pub params: Vec<(String, String)>,
    /// The arguments of its command.
    pub args: Vec<String>,
}

/// A run and what its experiments come to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// The run.
    pub run: Run,
    /// Its experiments, but those that are in the trash by themselves.
    pub tally: Tally,
}

/// Which runs a list shows; what is `None` does not matter.
#[derive(Debug, Clone, Copy, Default)]
pub struct Filter<'a> {
    /// Whose.
    pub scope: Scope<'a>,
    /// Those whose name contains this, whatever the case of its letters.
    pub name_contains: Option<&'a str>,
    /// Those whose status, as [`grid_core::run::status`] derives it from what is not in the
    /// trash by itself, is one of these; empty for all.
    pub statuses: &'a [Status],
    /// Whether those in the trash.
    pub trash: Trash,
    /// Those made at this time or later.
    pub created_from: Option<Timestamp>,
    /// Those made before this time.
    pub created_until: Option<Timestamp>,
    /// Those after this place in the list.
    pub after: Option<Position<RunId>>,
}

const COLUMNS: &str = "r.id, r.team, r.creator, r.name, r.created_at, r.spec, r.seed, \
     r.invocation, r.project, r.snapshot, r.cloned_from, r.experiments, r.deleted_at, r.deleted_by";

fn of_row(row: &AnyRow) -> Result<Run> {
    let mut columns = Columns::of("reading a run", row);
    Ok(Run {
        id: columns.parse()?,
        team: columns.parse()?,
        creator: columns.parse()?,
        name: columns.text()?,
        created_at: columns.time()?,
        spec: columns.text()?,
        seed: columns.text()?,
        invocation: columns.text()?,
        project: columns.opt_text()?,
        snapshot: columns.opt_parse()?,
        cloned_from: columns.opt_parse()?,
        experiments: columns.number()?,
        deleted: columns.deletion()?,
    })
}

/// Adds a run with its experiments, numbered in their order from 0, and to the log of each
/// that it was created.  A taken name is a conflict.
pub async fn insert(
    tx: &mut Tx,
    run: &Run,
    experiments: Vec<NewExperiment>,
    actor: Actor,
) -> Result<()> {
    const DOING: &str = "adding a run";
    // Lists find a run by the age of its experiments, too.
    let is_as_old = |new: &NewExperiment| new.workload.created_at == run.created_at;
    if !experiments.iter().all(is_as_old) {
        let message = "an experiment is not as old as its run";
        return Err(Error::internal(DOING, message));
    }
    let sql = "insert into run (id, team, creator, name, created_at, spec, seed, invocation, \
         project, snapshot, cloned_from, experiments, deleted_at, deleted_by, thinned) \
         values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15)";
    let values = values![
        run.id,
        run.team,
        run.creator,
        run.name.as_str(),
        run.created_at,
        run.spec.as_str(),
        run.seed.as_str(),
        run.invocation.as_str(),
        run.project.as_deref(),
        run.snapshot,
        run.cloned_from,
        run.experiments,
        run.deleted.map(|deletion| deletion.at),
        run.deleted.map(|deletion| deletion.by),
        experiments.is_empty(),
    ];
    tx.execute(DOING, sql, values)
        .await
        .map_err(|e| e.taken("this run name"))?;
    let new = |(experiment, idx): (NewExperiment, u32)| workload::New {
        workload: experiment.workload,
        run: Some(run.id),
        idx,
        params: experiment.params,
        args: experiment.args,
        owner: run.creator,
        team: run.team,
    };
    let new: Vec<_> = experiments.into_iter().zip(0..).map(new).collect();
    workload::insert(tx, &new, actor).await
}

/// The run with an id, in the trash or not.
pub async fn by_id(tx: &mut Tx, id: RunId) -> Result<Option<Run>> {
    let sql = format!("select {COLUMNS} from run r where r.id = $1");
    let row = tx
        .row("reading a run", AssertSqlSafe(sql), values![id])
        .await?;
    row.as_ref().map(of_row).transpose()
}

/// The runs with these ids, in no order, in the trash or not; unknown ids are left out.
pub async fn by_ids(tx: &mut Tx, ids: &[RunId]) -> Result<Vec<Run>> {
    let mut runs = Vec::with_capacity(ids.len());
    for (list, values) in lists(ids) {
        let sql = format!("select {COLUMNS} from run r where r.id in {list}");
        for row in &tx.rows("reading runs", AssertSqlSafe(sql), values).await? {
            runs.push(of_row(row)?);
        }
    }
    Ok(runs)
}

/// The run of a creator with a name.  Where the trash is looked at too, several may have
/// it: one that is not in the trash comes first, then the newest.
pub async fn by_name(
    tx: &mut Tx,
    creator: UserId,
    name: &str,
    trash: Trash,
) -> Result<Option<Run>> {
    let sql = format!(
        "select {COLUMNS} from run r where r.creator = $1 and r.name = $2 and {} \
          order by case when r.deleted_at is null then 0 else 1 end, \
                   r.created_at desc, r.id desc limit 1",
        trash.condition("r.deleted_at")
    );
    let row = tx
        .row(
            "looking for a run",
            AssertSqlSafe(sql),
            values![creator, name],
        )
        .await?;
    row.as_ref().map(of_row).transpose()
}

/// Which of these names a creator can not give to a run now.
pub async fn names_taken(tx: &mut Tx, creator: UserId, names: &[&str]) -> Result<Vec<String>> {
    const DOING: &str = "looking for taken names";
    let Some((list, more)) = in_list(names, 2) else {
        return Ok(Vec::new());
    };
    let sql = format!(
        "select name from run where creator = $1 and name in {list} and deleted_at is null \
          order by name"
    );
    let mut values = values![creator];
    values.extend(more);
    let rows = tx.rows(DOING, AssertSqlSafe(sql), values).await?;
    rows.iter()
        .map(|row| Columns::of(DOING, row).text())
        .collect()
}

/// The names of the newest runs of a creator in these teams.
pub async fn newest_names(
    tx: &mut Tx,
    creator: UserId,
    teams: &[TeamId],
    limit: u32,
) -> Result<Vec<String>> {
    const DOING: &str = "looking for names of runs";
    let Some((list, more)) = in_list(teams, 3) else {
        return Ok(Vec::new());
    };
    let sql = format!(
        "select name from run where creator = $1 and team in {list} and deleted_at is null \
          order by created_at desc, id desc limit $2"
    );
    let mut values = values![creator, limit];
    values.extend(more);
    let rows = tx.rows(DOING, AssertSqlSafe(sql), values).await?;
    rows.iter()
        .map(|row| Columns::of(DOING, row).text())
        .collect()
}

/// Runs with what their experiments come to, the newest first.
pub async fn list(
    tx: &mut Tx,
    filter: &Filter<'_>,
    limit: u32,
) -> Result<Page<Listed, Position<RunId>>> {
    list_where(tx, filter, limit, Few::USUAL).await
}

/// The same, where other numbers count as few.
pub(super) async fn list_where(
    tx: &mut Tx,
    filter: &Filter<'_>,
    limit: u32,
    few: Few,
) -> Result<Page<Listed, Position<RunId>>> {
    let mut found = find::find(tx, filter, limit, few).await?;
    let position = |run: &Run| Position {
        at: run.created_at,
        id: run.id,
    };
    found.sort_by_key(|run| std::cmp::Reverse(position(run)));
    let page = Page::cut(found, limit, position);
    let ids: Vec<RunId> = page.items.iter().map(|run| run.id).collect();
    let mut tallied = tallies(tx, &ids).await?;
    let listed = |run: Run| Listed {
        tally: tallied.remove(&run.id).unwrap_or_default(),
        run,
    };
    Ok(Page {
        items: page.items.into_iter().map(listed).collect(),
        next: page.next,
    })
}

/// Puts a run into the trash, with all that belongs to it; `false` when it is not there or
/// in it already.
pub async fn set_deleted(tx: &mut Tx, id: RunId, by: UserId, at: Timestamp) -> Result<bool> {
    let sql = "update run set deleted_at = $2, deleted_by = $3 \
          where id = $1 and deleted_at is null";
    Ok(tx
        .execute("deleting a run", sql, values![id, at, by])
        .await?
        == 1)
}

/// Takes a run out of the trash, with all but what was deleted by itself; `false` when it is
/// not in it.  A conflict when its creator has given the name to another one meanwhile.
pub async fn restore(tx: &mut Tx, id: RunId) -> Result<bool> {
    let sql = "update run set deleted_at = null, deleted_by = null \
          where id = $1 and deleted_at is not null";
    let done = tx.execute("restoring a run", sql, values![id]).await;
    done.map(|rows| rows == 1)
        .map_err(|e| e.taken("this run name"))
}
