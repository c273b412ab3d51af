//! Finding the runs of a list.
//!
//! A run has no status of its own: it follows from those of its experiments
//! ([`grid_core::run::status`]), and the conditions here are made of the same order.  Where
//! to look depends on what is looked for, so that a page costs what is on it and not how
//! long the history is:
//!
//! * what somebody made who made few runs, by age;
//! * what goes on, among the open experiments, of which there are few — or, if many, by age;
//! * what is over, by age;
//! * one way of being over, among the experiments that ended that way, by age.

use grid_core::id::{RunId, TeamId};
use grid_core::run::{DECISIVE, ENDED, OPEN, WHEN_EMPTY, counted_as};
use grid_core::time::Timestamp;
use grid_core::workload::Status;
use sqlx::AssertSqlSafe;

use super::{COLUMNS, Filter, Run, of_row};
use crate::db::error::Result;
use crate::db::page::{Position, before, one_more};
use crate::db::scope::Condition;
use crate::db::sql::{Columns, MEMBERS_PER_LIST, Value, list as in_list, values};
use crate::db::tx::Tx;

const DOING: &str = "listing runs";

/// How many runs are few: that decides where they are looked for, and never what is found.
#[derive(Debug, Clone, Copy)]
pub(in crate::db) struct Few {
    /// Fewer open runs than this are gathered and sorted; of more, a page is found sooner by
    /// age.  Higher: a list of what goes on sorts so many; lower: it walks through what is
    /// over to find few.
    pub(in crate::db) open: i64,
    /// Fewer runs of one person than this are looked through by age.  Higher: each is asked
    /// about what it needs, where an index could tell; lower: who has made few runs in a large
    /// team waits until all that the team's experiments have come to is looked through.
    pub(in crate::db) own: i64,
}

impl Few {
    pub(in crate::db) const USUAL: Self = Self {
        open: 5_000,
        own: 5_000,
    };
}

/// Most runs that are looked at in one step for one way of being over.  Higher: more is read
/// than is needed; lower: more statements where the other filters leave little.
const CANDIDATES_MAX: i64 = 4_096;

/// Placeholders of [`select`] before those of the scope.
const FIXED_N: usize = 6;

/// Runs by age.
const BY_AGE: &str = "run r";

/// Runs with something open.  `cross join` keeps SQLite from turning this around.
const WITH_OPEN: &str = "(select distinct run from workload \
          where finished_at is null and deleted_at is null and run is not null) as a \
     cross join run r";

/// At least the first `limit` of the runs, in no order.
pub(super) async fn find(
    tx: &mut Tx,
    filter: &Filter<'_>,
    limit: u32,
    few: Few,
) -> Result<Vec<Run>> {
    let wanted = |all: &[Status]| -> Vec<Status> {
        let is_wanted = |status: &&Status| filter.statuses.contains(*status);
        all.iter().filter(is_wanted).copied().collect()
    };
    let (open, ended) = (wanted(&OPEN), wanted(&ENDED));
    let is_all = open.len() + ended.len() == DECISIVE.len();
    if filter.statuses.is_empty() || is_all {
        return by_age(tx, filter, "1 = 1", limit).await;
    }
    let mut found = Vec::new();
    if !open.is_empty() {
        found.extend(going_on(tx, filter, &open, limit, few).await?);
    }
    if ended.len() == ENDED.len() {
        found.extend(by_age(tx, filter, &format!("not {HAS_OPEN}"), limit).await?);
    } else if !ended.is_empty() {
        found.extend(over(tx, filter, &ended, limit, few).await?);
    }
    Ok(found)
}

/// Runs for which a condition holds, looked through by age.
async fn by_age(tx: &mut Tx, filter: &Filter<'_>, condition: &str, limit: u32) -> Result<Vec<Run>> {
    let mut found = Vec::new();
    for scope in filter.scope.parts("r.creator", "r.team", FIXED_N + 1) {
        found.extend(select(tx, filter, BY_AGE, condition, scope, limit).await?);
    }
    Ok(found)
}

/// Runs in some of the statuses of what goes on.
async fn going_on(
    tx: &mut Tx,
    filter: &Filter<'_>,
    statuses: &[Status],
    limit: u32,
    few: Few,
) -> Result<Vec<Run>> {
    let is_any = statuses.len() == OPEN.len();
    if has_few_runs(tx, filter, few).await? || are_many_open(tx, few).await? {
        let one_of = if is_any {
            HAS_OPEN.to_owned()
        } else {
            stands_in(statuses)
        };
        return by_age(tx, filter, &one_of, limit).await;
    }
    let mut condition = "r.id = a.run".to_owned();
    if !is_any {
        condition = format!("{condition} and {}", stands_in(statuses));
    }
    let scope = filter.scope.whole("r.creator", "r.team", FIXED_N + 1);
    select(tx, filter, WITH_OPEN, &condition, scope, limit).await
}

/// Whether so many runs have something open that it is better not to gather them.
async fn are_many_open(tx: &mut Tx, few: Few) -> Result<bool> {
    let sql = "select count(*) from (select distinct run from workload \
              where finished_at is null and deleted_at is null and run is not null limit $1) as a";
    let row = tx.row(DOING, sql, values![few.open]).await?;
    let count = row.as_ref().map(|row| Columns::of(DOING, row).int());
    Ok(count.transpose()?.is_some_and(|count| count >= few.open))
}

/// Whether it is about somebody who has made so few runs that all of them can be looked
/// through.
async fn has_few_runs(tx: &mut Tx, filter: &Filter<'_>, few: Few) -> Result<bool> {
    let Some(owner) = filter.scope.owner else {
        return Ok(false);
    };
    let sql = "select count(*) from (select 1 from run where creator = $1 limit $2) as own";
    let row = tx.row(DOING, sql, values![owner, few.own]).await?;
    let count = row.as_ref().map(|row| Columns::of(DOING, row).int());
    Ok(count.transpose()?.is_some_and(|count| count < few.own))
}

/// Runs in some of the statuses of what is over.
async fn over(
    tx: &mut Tx,
    filter: &Filter<'_>,
    statuses: &[Status],
    limit: u32,
    few: Few,
) -> Result<Vec<Run>> {
    let is_small = has_few_runs(tx, filter, few).await?;
    let Some(teams) = filter.scope.few_teams().filter(|_| !is_small) else {
        return by_age(tx, filter, &stands_in(statuses), limit).await;
    };
    let mut found = Vec::new();
    for team in teams {
        for status in statuses {
            found.extend(ended_as(tx, filter, team, *status, limit).await?);
        }
        if statuses.contains(&WHEN_EMPTY) {
            let mut scope = ("r.team = $7".to_owned(), values![team]);
            if let Some(owner) = filter.scope.owner {
                scope.0.push_str(" and r.creator = $8");
                scope.1.push(Value::from(owner));
            }
            let condition = format!("r.thinned = 1 and not {}", has("1 = 1"));
            found.extend(select(tx, filter, BY_AGE, &condition, scope, limit).await?);
        }
    }
    Ok(found)
}

/// At least the first `limit` of the runs for which a condition and the filter hold; `scope`
/// has its placeholders from [`FIXED_N`] on.
async fn select(
    tx: &mut Tx,
    filter: &Filter<'_>,
    from: &str,
    condition: &str,
    (scope, more): Condition,
    limit: u32,
) -> Result<Vec<Run>> {
    let (at, id) = before(filter.after.as_ref());
    let name = filter.name_contains.map(pattern);
    let sql = format!(
        "select {COLUMNS} from {from} where {scope} and {condition} \
            and (r.created_at, r.id) < ($1, $2) \
            and r.created_at >= $3 and r.created_at < $4 and {} \
            and (cast($5 as text) is null or lower(r.name) like $5 escape '\\') \
          order by r.created_at desc, r.id desc limit $6",
        filter.trash.condition("r.deleted_at")
    );
    let mut values = values![
        at,
        id.as_str(),
        filter.created_from.map_or(i64::MIN, Timestamp::as_millis),
        filter.created_until.map_or(i64::MAX, Timestamp::as_millis),
        name.as_deref(),
        one_more(limit),
    ];
    values.extend(more);
    let rows = tx.rows(DOING, AssertSqlSafe(sql), values).await?;
    rows.iter().map(of_row).collect()
}

/// Runs of a team that have come to one end: those of its experiments that did, by age, lead
/// to them.
async fn ended_as(
    tx: &mut Tx,
    filter: &Filter<'_>,
    team: TeamId,
    status: Status,
    limit: u32,
) -> Result<Vec<Run>> {
    let enough = one_more(limit);
    let mut found = Vec::new();
    let mut after = filter.after;
    let mut step = enough;
    loop {
        let candidates = ended_before(tx, filter, team, status, after.as_ref(), step).await?;
        for chunk in candidates.chunks(MEMBERS_PER_LIST) {
            found.extend(chosen(tx, filter, status, chunk).await?);
        }
        let is_last = i64::try_from(candidates.len()).is_ok_and(|n| n < step);
        let is_enough = i64::try_from(found.len()).is_ok_and(|n| n >= enough);
        let Some(last) = candidates.last().filter(|_| !is_last && !is_enough) else {
            return Ok(found);
        };
        after = Some(*last);
        step = (step * 2).min(CANDIDATES_MAX.max(enough));
    }
}

/// Runs with an experiment that has come to an end, the newest first: an experiment is as
/// old as its run.
async fn ended_before(
    tx: &mut Tx,
    filter: &Filter<'_>,
    team: TeamId,
    status: Status,
    after: Option<&Position<RunId>>,
    limit: i64,
) -> Result<Vec<Position<RunId>>> {
    let owner = match filter.scope.owner {
        Some(_) => "w.owner = $7",
        None => "cast($7 as text) is null",
    };
    // The status is in the text, so that the index is known to fit.
    let sql = format!(
        "select distinct w.created_at, w.run from workload w \
          where w.team = $6 and w.status in ({}) and {owner} \
            and w.finished_at is not null and w.deleted_at is null and w.run is not null \
            and (w.created_at, w.run) < ($1, $2) and w.created_at >= $3 and w.created_at < $4 \
          order by w.created_at desc, w.run desc limit $5",
        words(&[status])
    );
    let (at, id) = before(after);
    let values = values![
        at,
        id,
        filter.created_from.map_or(i64::MIN, Timestamp::as_millis),
        filter.created_until.map_or(i64::MAX, Timestamp::as_millis),
        limit,
        team,
        filter.scope.owner,
    ];
    let rows = tx.rows(DOING, AssertSqlSafe(sql), values).await?;
    let position = |row| {
        let mut columns = Columns::of(DOING, row);
        Ok(Position {
            at: columns.time()?,
            id: columns.parse()?,
        })
    };
    rows.iter().map(position).collect()
}

/// Those of some runs that are in a status and that the filter does not leave out otherwise.
async fn chosen(
    tx: &mut Tx,
    filter: &Filter<'_>,
    status: Status,
    runs: &[Position<RunId>],
) -> Result<Vec<Run>> {
    let ids: Vec<RunId> = runs.iter().map(|run| run.id).collect();
    let Some((list, more)) = in_list(&ids, 2) else {
        return Ok(Vec::new());
    };
    let name = filter.name_contains.map(pattern);
    let sql = format!(
        "select {COLUMNS} from run r where r.id in {list} and {} and {} \
            and (cast($1 as text) is null or lower(r.name) like $1 escape '\\')",
        filter.trash.condition("r.deleted_at"),
        stands_in(&[status])
    );
    let mut values = values![name.as_deref()];
    values.extend(more);
    let rows = tx.rows(DOING, AssertSqlSafe(sql), values).await?;
    rows.iter().map(of_row).collect()
}

/// The condition that a run has an experiment that is not finished.
const HAS_OPEN: &str = "exists (select 1 from workload w \
      where w.run = r.id and w.deleted_at is null and w.finished_at is null)";

/// The condition that a run has an experiment for which another holds.
fn has(condition: &str) -> String {
    format!(
        "exists (select 1 from workload w \
          where w.run = r.id and w.deleted_at is null and {condition})"
    )
}

/// The condition that the status of a run is one of these.
fn stands_in(statuses: &[Status]) -> String {
    let each: Vec<String> = statuses.iter().map(|status| stands(*status)).collect();
    format!("({})", each.join(" or "))
}

/// The condition that this is the status of a run: an experiment is in it, and none in one
/// that decides before it.
fn stands(status: Status) -> String {
    let before: Vec<Status> = DECISIVE
        .into_iter()
        .take_while(|earlier| *earlier != status)
        .collect();
    let mut condition = has(&format!("w.status in ({})", words(&[status])));
    let (ended, open): (Vec<Status>, Vec<Status>) =
        before.into_iter().partition(|earlier| earlier.is_final());
    if status.is_final() {
        condition = format!("{condition} and not {HAS_OPEN}");
    } else if !open.is_empty() {
        let open = has(&format!("w.status in ({})", words(&open)));
        condition = format!("{condition} and not {open}");
    }
    if !ended.is_empty() {
        let ended = has(&format!("w.status in ({})", words(&ended)));
        condition = format!("{condition} and not {ended}");
    }
    if status == WHEN_EMPTY {
        condition = format!("({condition} or not {})", has("1 = 1"));
    }
    format!("({condition})")
}

/// What experiments that count as one of these are in, as SQL has it.
fn words(statuses: &[Status]) -> String {
    let words: Vec<String> = Status::ALL
        .into_iter()
        .filter(|status| statuses.contains(&counted_as(*status)))
        .map(|status| format!("'{}'", status.as_str()))
        .collect();
    words.join(", ")
}

/// A pattern for names that contain a text.
fn pattern(contained: &str) -> String {
    let mut pattern = "%".to_owned();
    for character in contained.to_lowercase().chars() {
        if matches!(character, '%' | '_' | '\\') {
            pattern.push('\\');
        }
        pattern.push(character);
    }
    pattern.push('%');
    pattern
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_condition_of_a_status_names_what_decides_before_it() {
        assert_eq!(
            stands(Status::Running),
            "(exists (select 1 from workload w \
               where w.run = r.id and w.deleted_at is null and w.status in ('running')))"
        );
        assert!(stands(Status::Stopping).contains("in ('queued', 'pending', 'running', 'paused')"));
        assert!(stands(Status::Succeeded).contains("in ('failed', 'stopped')"));
        assert!(stands(WHEN_EMPTY).contains(" or not exists"));
    }
}
