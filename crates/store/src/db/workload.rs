//! Workloads: experiments and sessions, as they stand.  What happens to them is recorded
//! through [`crate::db::event`].

use std::collections::HashMap;

use grid_core::id::{RunId, TeamId, UserId, WorkloadId};
use grid_core::time::Timestamp;
use grid_core::workload::{Actor, Event, Kind, Status, Workload};
use sqlx::AssertSqlSafe;
use sqlx::any::AnyRow;

use super::error::Result;
use super::event::{self, actor_text, log_row};
use super::page::{Deletion, Page, Position, Trash, before, greater, one_more};
use super::scope::Scope;
use super::sql::{Columns, Value, json, list as in_list, lists, pieces, tuples, values};
use super::tx::Tx;

/// A workload to be added.
#[derive(Debug, Clone)]
pub struct New {
    /// The workload, as created.
    pub workload: Workload,
    /// Its run; `None` for a session.
    pub run: Option<RunId>,
    /// Its number in the run, from 0.
    pub idx: u32,
    /// Its parameters, in order.
    pub params: Vec<(String, String)>,
    /// The arguments of its command.
    pub args: Vec<String>,
    /// Whose it is.
    pub owner: UserId,
    /// Whose team's.
    pub team: TeamId,
}

/// A workload as it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    /// The workload.
    pub workload: Workload,
    /// Its version: the number of its events.
    pub version: u64,
    /// Its run; `None` for a session.
    pub run: Option<RunId>,
    /// Its number in the run, from 0.
    pub idx: u32,
    /// Its parameters, in order.
    pub params: Vec<(String, String)>,
    /// The arguments of its command.
    pub args: Vec<String>,
    /// Whose it is.
    pub owner: UserId,
    /// Whose team's.
    pub team: TeamId,
    /// That it is in the trash: itself, or with its run.
    pub deleted: Option<Deletion>,
}

/// A workload that is not finished, as the engine needs it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Open {
    /// The workload.
    pub workload: Workload,
    /// Its version: the number of its events.
    pub version: u64,
    /// Its run; `None` for a session.
    pub run: Option<RunId>,
    /// Whose it is.
    pub owner: UserId,
    /// Whose team's.
    pub team: TeamId,
}

/// Which workloads a list shows; what is `None` does not matter.
#[derive(Debug, Clone, Copy, Default)]
pub struct Filter<'a> {
    /// Whose.
    pub scope: Scope<'a>,
    /// Experiments or sessions.
    pub kind: Option<Kind>,
    /// Those in one of these statuses; empty for all.
    pub statuses: &'a [Status],
    /// Whether those in the trash.
    pub trash: Trash,
    /// Those after this place in the list.
    pub after: Option<Position<WorkloadId>>,
}

const COLUMNS: &str = "w.state, w.version, w.run, w.idx, w.params, w.args, w.owner, w.team, \
     coalesce(w.deleted_at, r.deleted_at), coalesce(w.deleted_by, r.deleted_by)";

const FROM: &str = "workload w left join run r on r.id = w.run";

/// In the trash: itself, or with its run.
const DELETED: &str = "coalesce(w.deleted_at, r.deleted_at)";

fn of_row(row: &AnyRow) -> Result<Stored> {
    let mut columns = Columns::of("reading a workload", row);
    Ok(Stored {
        workload: columns.json()?,
        version: columns.number()?,
        run: columns.opt_parse()?,
        idx: columns.number()?,
        params: columns.json()?,
        args: columns.json()?,
        owner: columns.parse()?,
        team: columns.parse()?,
        deleted: columns.deletion()?,
    })
}

fn kind_word(kind: Kind) -> &'static str {
    match kind {
        Kind::Experiment => "experiment",
        Kind::Session => "session",
    }
}

/// Adds workloads, and to the log of each that it was created.
pub async fn insert(tx: &mut Tx, new: &[New], actor: Actor) -> Result<()> {
    const COLUMNS_N: usize = 14;
    for piece in pieces(new) {
        let sql = format!(
            "insert into workload (id, kind, status, state, version, run, idx, params, args, \
                owner, team, created_at, started_at, finished_at) values {}",
            tuples(piece.len(), COLUMNS_N, 1)
        );
        let mut values = Vec::with_capacity(piece.len() * COLUMNS_N);
        for new in piece {
            values.extend(row_of(new)?);
        }
        let done = tx
            .execute("adding workloads", AssertSqlSafe(sql), values)
            .await;
        done.map_err(|e| e.taken("this experiment"))?;
    }
    let actor = actor_text(actor);
    let created = |new: &New| {
        let Workload {
            id,
            kind,
            policy,
            created_at,
            ..
        } = &new.workload;
        let event = Event::Created {
            workload: *kind,
            policy: policy.clone(),
        };
        log_row(*id, 1, *created_at, &actor, &event)
    };
    event::insert(tx, new.iter().map(created).collect::<Result<_>>()?).await
}

fn row_of(new: &New) -> Result<Vec<Value>> {
    let workload = &new.workload;
    Ok(values![
        workload.id,
        kind_word(workload.kind),
        workload.state.status().as_str(),
        json(workload)?,
        1_i64,
        new.run,
        new.idx,
        json(&new.params)?,
        json(&new.args)?,
        new.owner,
        new.team,
        workload.created_at,
        workload.started_at,
        workload.state.finished_at(),
    ])
}

/// The workload with an id, in the trash or not.
pub async fn get(tx: &mut Tx, id: WorkloadId) -> Result<Option<Stored>> {
    let sql = format!("select {COLUMNS} from {FROM} where w.id = $1");
    let row = tx
        .row("reading a workload", AssertSqlSafe(sql), values![id])
        .await?;
    row.as_ref().map(of_row).transpose()
}

/// The experiment of a run with a number, in the trash or not.
pub async fn by_run_and_idx(tx: &mut Tx, run: RunId, idx: u32) -> Result<Option<Stored>> {
    let sql = format!("select {COLUMNS} from {FROM} where w.run = $1 and w.idx = $2");
    let row = tx
        .row(
            "reading an experiment",
            AssertSqlSafe(sql),
            values![run, idx],
        )
        .await?;
    row.as_ref().map(of_row).transpose()
}

/// Experiments of a run by number, from the one after `after` on.  `trash` looks at each
/// experiment by itself: those of a run in the trash are listed like others.
pub async fn list_of_run(
    tx: &mut Tx,
    run: RunId,
    statuses: &[Status],
    trash: Trash,
    after: Option<u32>,
    limit: u32,
) -> Result<Page<Stored, u32>> {
    let (status, more) = status_condition("w.status", statuses, 4);
    let sql = format!(
        "select {COLUMNS} from {FROM} where w.run = $1 and w.idx > $2 and {} and {status} \
          order by w.idx limit $3",
        trash.condition("w.deleted_at")
    );
    let mut values = values![run, after.map_or(-1, i64::from), one_more(limit)];
    values.extend(more);
    let rows = tx
        .rows("listing experiments", AssertSqlSafe(sql), values)
        .await?;
    let stored: Vec<Stored> = rows.iter().map(of_row).collect::<Result<_>>()?;
    Ok(Page::cut(stored, limit, |stored| stored.idx))
}

/// The ids of the experiments of runs, by number, but those that are in the trash by
/// themselves.
pub async fn ids_of_runs(tx: &mut Tx, runs: &[RunId]) -> Result<HashMap<RunId, Vec<WorkloadId>>> {
    const DOING: &str = "listing experiments by id";
    let mut ids: HashMap<RunId, Vec<WorkloadId>> = HashMap::with_capacity(runs.len());
    for (list, values) in lists(runs) {
        let sql = format!(
            "select run, id from workload where run in {list} and deleted_at is null \
              order by run, idx"
        );
        for row in &tx.rows(DOING, AssertSqlSafe(sql), values).await? {
            let mut columns = Columns::of(DOING, row);
            let run = columns.parse()?;
            ids.entry(run).or_default().push(columns.parse()?);
        }
    }
    Ok(ids)
}

/// Workloads, the newest first.
pub async fn list(
    tx: &mut Tx,
    filter: &Filter<'_>,
    limit: u32,
) -> Result<Page<Stored, Position<WorkloadId>>> {
    const FIXED_N: usize = 4;
    let (at, id) = before(filter.after.as_ref());
    let kind = filter.kind.map(kind_word);
    let mut found: Vec<Stored> = Vec::new();
    for (scope, scope_values) in filter.scope.parts("w.owner", "w.team", FIXED_N + 1) {
        let (status, status_values) = status_condition(
            "w.status",
            filter.statuses,
            FIXED_N + 1 + scope_values.len(),
        );
        let sql = format!(
            "select {COLUMNS} from {FROM} where {scope} and (w.created_at, w.id) < ($1, $2) \
                and (cast($3 as text) is null or w.kind = $3) and {} and {status} \
              order by w.created_at desc, w.id desc limit $4",
            filter.trash.condition(DELETED)
        );
        let mut values = values![at, id.as_str(), kind, one_more(limit)];
        values.extend(scope_values);
        values.extend(status_values);
        let rows = tx
            .rows("listing workloads", AssertSqlSafe(sql), values)
            .await?;
        for row in &rows {
            found.push(of_row(row)?);
        }
    }
    let position = |stored: &Stored| Position {
        at: stored.workload.created_at,
        id: stored.workload.id,
    };
    found.sort_by_key(|stored| std::cmp::Reverse(position(stored)));
    Ok(Page::cut(found, limit, position))
}

fn status_condition(column: &str, statuses: &[Status], first: usize) -> (String, Vec<Value>) {
    let words: Vec<&str> = statuses.iter().map(|status| status.as_str()).collect();
    match in_list(&words, first) {
        Some((list, values)) => (format!("{column} in {list}"), values),
        None => ("1 = 1".to_owned(), Vec::new()),
    }
}

/// Everything that is not finished, by id, from the one after `after` on.
pub async fn open(
    tx: &mut Tx,
    after: Option<WorkloadId>,
    limit: u32,
) -> Result<Page<Open, WorkloadId>> {
    const DOING: &str = "reading what is not finished";
    let sql = "select state, version, run, owner, team from workload \
          where finished_at is null and id > $1 order by id limit $2";
    let rows = tx
        .rows(
            DOING,
            sql,
            values![greater(after.as_ref()), one_more(limit)],
        )
        .await?;
    let open = |row| {
        let mut columns = Columns::of(DOING, row);
        Ok(Open {
            workload: columns.json()?,
            version: columns.number()?,
            run: columns.opt_parse()?,
            owner: columns.parse()?,
            team: columns.parse()?,
        })
    };
    let open: Vec<Open> = rows.iter().map(open).collect::<Result<_>>()?;
    Ok(Page::cut(open, limit, |open| open.workload.id))
}

/// The ids of all workloads there are, in order, from the one after `after` on.
pub async fn all_ids(
    tx: &mut Tx,
    after: Option<WorkloadId>,
    limit: u32,
) -> Result<Page<WorkloadId, WorkloadId>> {
    const DOING: &str = "listing all workloads";
    let sql = "select id from workload where id > $1 order by id limit $2";
    let rows = tx
        .rows(
            DOING,
            sql,
            values![greater(after.as_ref()), one_more(limit)],
        )
        .await?;
    let ids: Vec<WorkloadId> = rows
        .iter()
        .map(|row| Columns::of(DOING, row).parse())
        .collect::<Result<_>>()?;
    Ok(Page::cut(ids, limit, |id| *id))
}

/// Puts a single workload into the trash; `false` when it is not there or is in it by itself.
pub async fn set_deleted(tx: &mut Tx, id: WorkloadId, by: UserId, at: Timestamp) -> Result<bool> {
    // The run first, as everybody who changes both does it.
    let sql = "update run set thinned = 1 where thinned = 0 \
            and id = (select run from workload where id = $1 and deleted_at is null)";
    tx.execute("deleting a workload", sql, values![id]).await?;
    let sql = "update workload set deleted_at = $2, deleted_by = $3 \
          where id = $1 and deleted_at is null";
    Ok(tx
        .execute("deleting a workload", sql, values![id, at, by])
        .await?
        == 1)
}

/// Takes a workload out of the trash; `false` when it is not in it by itself.
pub async fn restore(tx: &mut Tx, id: WorkloadId) -> Result<bool> {
    let sql = "update workload set deleted_at = null, deleted_by = null \
          where id = $1 and deleted_at is not null";
    Ok(tx.execute("restoring a workload", sql, values![id]).await? == 1)
}
