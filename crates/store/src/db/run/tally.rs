//! What the experiments of runs come to: how many are in which status, and from when to
//! when they ran.

use std::collections::HashMap;

use grid_core::id::RunId;
use grid_core::run::Counts;
use grid_core::time::Timestamp;
use grid_core::workload::Status;
use sqlx::AssertSqlSafe;

use crate::db::error::{Error, Result};
use crate::db::sql::{Columns, lists};
use crate::db::tx::Tx;

const DOING: &str = "counting experiments";

/// What the experiments of a run come to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    /// How many are in which status.
    pub counts: Counts,
    /// From when to when they ran.
    pub span: Span,
}

/// From when to when the experiments of a run ran.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Span {
    /// When the first one started, if one did.
    pub started_at: Option<Timestamp>,
    /// When the last one ended so far.
    pub finished_at: Option<Timestamp>,
}

impl Span {
    /// From the earlier beginning to the later end.
    fn and(self, other: Self) -> Self {
        let earlier = self.started_at.into_iter().chain(other.started_at).min();
        Self {
            started_at: earlier,
            finished_at: self.finished_at.max(other.finished_at),
        }
    }
}

/// What the experiments of runs come to, but those that are in the trash by themselves.  A
/// run without any is left out.
pub async fn tallies(tx: &mut Tx, runs: &[RunId]) -> Result<HashMap<RunId, Tally>> {
    let mut tallies: HashMap<RunId, Tally> = HashMap::with_capacity(runs.len());
    for (list, values) in lists(runs) {
        // As one text: SQLite hands rows from one thread to another, one by one.
        let sql = format!(
            "select string_agg(run || ' ' || status || ' ' || n || ' ' || \
                 coalesce(cast(started as text), '-') || ' ' || \
                 coalesce(cast(finished as text), '-'), ',') from \
               (select run, status, cast(count(*) as text) as n, \
                    min(started_at) as started, max(finished_at) as finished from workload \
                  where run in {list} and deleted_at is null group by run, status) as t"
        );
        let row = tx.row(DOING, AssertSqlSafe(sql), values).await?;
        let text = row.map(|row| Columns::of(DOING, &row).opt_text());
        for part in text.transpose()?.flatten().unwrap_or_default().split(',') {
            if !part.is_empty() {
                add(&mut tallies, part)
                    .ok_or_else(|| Error::internal(DOING, format!("'{part}' is no count")))?;
            }
        }
    }
    Ok(tallies)
}

/// Adds what is written as the run, a status, how many are in it, and from when to when.
fn add(tallies: &mut HashMap<RunId, Tally>, text: &str) -> Option<()> {
    fn time(word: &str) -> Option<Option<Timestamp>> {
        match word {
            "-" => Some(None),
            millis => Some(Some(Timestamp::from_millis(millis.parse().ok()?))),
        }
    }
    let mut words = text.split(' ');
    let mut word = || words.next();
    let tally = tallies.entry(word()?.parse().ok()?).or_default();
    let status = Status::parse(word()?)?;
    tally.counts.add(status, word()?.parse().ok()?);
    let span = Span {
        started_at: time(word()?)?,
        finished_at: time(word()?)?,
    };
    tally.span = tally.span.and(span);
    Some(())
}
