//! What the experiments of runs come to: how many are in which status, and from when to
//! when they ran.

use std::collections::HashMap;

use grid_core::id::RunId;
use grid_core::run::Counts;
use grid_core::time::Timestamp;
use grid_core::workload::Status;
use sqlx::AssertSqlSafe;

use crate::db::error::Result;
use crate::db::sql::{Columns, lists};
use crate::db::tx::Tx;

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
    const DOING: &str = "counting experiments";
    let mut tallies: HashMap<RunId, Tally> = HashMap::with_capacity(runs.len());
    for (list, values) in lists(runs) {
        let sql = format!(
            "select run, status, count(*), min(started_at), max(finished_at) from workload \
              where run in {list} and deleted_at is null group by run, status"
        );
        for row in &tx.rows(DOING, AssertSqlSafe(sql), values).await? {
            let mut columns = Columns::of(DOING, row);
            let tally = tallies.entry(columns.parse()?).or_default();
            let status = columns.word(Status::parse)?;
            tally.counts.add(status, columns.number()?);
            let span = Span {
                started_at: columns.opt_time()?,
                finished_at: columns.opt_time()?,
            };
            tally.span = tally.span.and(span);
        }
    }
    Ok(tallies)
}
