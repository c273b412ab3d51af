//! Emptying the trash: removing rows for good, and saying which bytes went with them.

use std::collections::BTreeSet;

use grid_core::blob::BlobId;
use grid_core::id::{AttemptId, RunId, WorkloadId};
use grid_core::time::Timestamp;
use grid_core::workload::Workload;
use sqlx::AssertSqlSafe;

use super::error::Result;
use super::page::one_more;
use super::sql::{Columns, lists, values};
use super::tx::Tx;

/// Most workloads that one call removes.  More: writers wait behind a transaction that
/// removes hundreds of thousands of artifacts.  Fewer: emptying the trash takes longer.
pub const PURGE_WORKLOADS_MAX: u32 = 64;

/// What went, and with it should go what the database does not hold.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Purged {
    /// Attempts, whose logs nobody can reach any more.
    pub attempts: Vec<AttemptId>,
    /// Blobs that nothing in the database names any more, once this is committed.
    pub blobs: Vec<BlobId>,
    /// Whether nothing is left to remove; otherwise, call again in a new transaction.
    pub done: bool,
}

/// Runs that have been in the trash since before a time, and none of whose experiments is
/// still open.
pub async fn runs(tx: &mut Tx, before: Timestamp, limit: u32) -> Result<Vec<RunId>> {
    const DOING: &str = "looking for old runs in the trash";
    let sql = "select id from run where deleted_at < $1 \
            and not exists (select 1 from workload \
                             where workload.run = run.id and workload.finished_at is null) \
          order by deleted_at, id limit $2";
    let rows = tx
        .rows(DOING, sql, values![before, one_more(limit) - 1])
        .await?;
    rows.iter()
        .map(|row| Columns::of(DOING, row).parse())
        .collect()
}

/// Finished workloads that have been in the trash by themselves since before a time.
pub async fn workloads(tx: &mut Tx, before: Timestamp, limit: u32) -> Result<Vec<WorkloadId>> {
    const DOING: &str = "looking for old experiments in the trash";
    let sql = "select id from workload where deleted_at < $1 and finished_at is not null \
          order by deleted_at, id limit $2";
    let rows = tx
        .rows(DOING, sql, values![before, one_more(limit) - 1])
        .await?;
    rows.iter()
        .map(|row| Columns::of(DOING, row).parse())
        .collect()
}

/// Removes a run that is in the trash, a part of its experiments at a time.  A run that is
/// not (any more) in the trash stays whole.
pub async fn run(tx: &mut Tx, id: RunId) -> Result<Purged> {
    const DOING: &str = "removing a run";
    // Taken first, so that nobody restores it meanwhile.
    let sql = "update run set deleted_at = deleted_at where id = $1 and deleted_at is not null";
    if tx.execute(DOING, sql, values![id]).await? == 0 {
        return Ok(Purged {
            done: true,
            ..Purged::default()
        });
    }
    let sql = "select id from workload where run = $1 order by idx limit $2";
    let rows = tx
        .rows(DOING, sql, values![id, one_more(PURGE_WORKLOADS_MAX)])
        .await?;
    let mut ids: Vec<WorkloadId> = rows
        .iter()
        .map(|row| Columns::of(DOING, row).parse())
        .collect::<Result<_>>()?;
    let done = ids.len() <= PURGE_WORKLOADS_MAX as usize;
    ids.truncate(PURGE_WORKLOADS_MAX as usize);
    let (attempts, blobs) = remove(tx, &ids).await?;
    if done {
        tx.execute(DOING, "delete from run where id = $1", values![id])
            .await?;
    }
    Ok(Purged {
        attempts,
        blobs,
        done,
    })
}

/// Removes single workloads that are in the trash by themselves, at most
/// [`PURGE_WORKLOADS_MAX`] of those given; the others stay.
pub async fn single(tx: &mut Tx, ids: &[WorkloadId]) -> Result<Purged> {
    const DOING: &str = "removing experiments";
    let (now, later) = ids.split_at(ids.len().min(PURGE_WORKLOADS_MAX as usize));
    let mut deleted = Vec::with_capacity(now.len());
    for (list, values) in lists(now) {
        let sql = format!(
            "update workload set deleted_at = deleted_at \
              where id in {list} and deleted_at is not null returning id"
        );
        for row in &tx.rows(DOING, AssertSqlSafe(sql), values).await? {
            deleted.push(Columns::of(DOING, row).parse()?);
        }
    }
    deleted.sort_unstable();
    let (attempts, blobs) = remove(tx, &deleted).await?;
    Ok(Purged {
        attempts,
        blobs,
        done: later.is_empty(),
    })
}

/// Removes workloads with their events and artifacts; returns their attempts, and the blobs
/// that are no longer named.
async fn remove(tx: &mut Tx, ids: &[WorkloadId]) -> Result<(Vec<AttemptId>, Vec<BlobId>)> {
    const DOING: &str = "removing experiments";
    let mut attempts = Vec::new();
    let mut blobs = BTreeSet::new();
    for (list, values) in lists(ids) {
        let sql = format!("select state from workload where id in {list} order by id");
        for row in &tx.rows(DOING, AssertSqlSafe(sql), values.clone()).await? {
            let Workload {
                id, attempts: last, ..
            } = Columns::of(DOING, row).json()?;
            attempts.extend((1..=last).map(|number| AttemptId {
                workload: id,
                number,
            }));
        }
        let sql = format!("select distinct blob from artifact where workload in {list}");
        for row in &tx.rows(DOING, AssertSqlSafe(sql), values.clone()).await? {
            blobs.insert(Columns::of(DOING, row).parse::<BlobId>()?);
        }
        let sql = format!("delete from workload where id in {list}");
        tx.execute(DOING, AssertSqlSafe(sql), values).await?;
    }
    let candidates: Vec<BlobId> = blobs.iter().copied().collect();
    for (list, values) in lists(&candidates) {
        let sql = format!(
            "select blob from artifact where blob in {list} \
              union select manifest_blob from snapshot where manifest_blob in {list}"
        );
        for row in &tx.rows(DOING, AssertSqlSafe(sql), values).await? {
            blobs.remove(&Columns::of(DOING, row).parse()?);
        }
    }
    Ok((attempts, blobs.into_iter().collect()))
}
