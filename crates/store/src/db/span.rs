//! From when to when the experiments of runs ran.

use std::collections::HashMap;

use grid_core::id::RunId;
use grid_core::time::Timestamp;
use sqlx::AssertSqlSafe;

use super::error::Result;
use super::sql::{Columns, lists};
use super::tx::Tx;

/// From when to when the experiments of a run ran.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Span {
    /// When the first one started, if one did.
    pub started_at: Option<Timestamp>,
    /// When the last one ended so far.
    pub finished_at: Option<Timestamp>,
}

/// The spans of runs; a run none of whose experiments is left is left out.
pub async fn of_runs(tx: &mut Tx, runs: &[RunId]) -> Result<HashMap<RunId, Span>> {
    const DOING: &str = "reading when runs ran";
    let mut spans = HashMap::with_capacity(runs.len());
    for (list, values) in lists(runs) {
        let sql = format!(
            "select run, min(started_at), max(finished_at) from workload \
              where run in {list} and deleted_at is null group by run"
        );
        for row in &tx.rows(DOING, AssertSqlSafe(sql), values).await? {
            let mut columns = Columns::of(DOING, row);
            let run = columns.parse()?;
            let span = Span {
                started_at: columns.opt_time()?,
                finished_at: columns.opt_time()?,
            };
            spans.insert(run, span);
        }
    }
    Ok(spans)
}
