//! Files that experiments left behind: their names; the bytes are blobs.

use std::collections::HashMap;

use grid_core::blob::BlobId;
use grid_core::id::WorkloadId;
use grid_core::time::{Timestamp, file_ms};
use sqlx::AssertSqlSafe;
use sqlx::any::AnyRow;

use super::error::Result;
use super::page::{Page, greater, one_more};
use super::sql::{Columns, Value, pieces, tuples, values};
use super::tx::Tx;

/// A file that an experiment left behind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Artifact {
    /// Whose it is.
    pub workload: WorkloadId,
    /// Where it was, below the work directory.
    pub path: String,
    /// Its bytes.
    pub blob: BlobId,
    /// How many they are.
    pub size_bytes: u64,
    /// Its mode bits.
    pub mode: u32,
    /// When it was last changed, in milliseconds since 1970 UTC.
    pub mtime_ms: i64,
    /// Which attempt left it.
    pub attempt: u32,
    /// When it was stored.
    pub stored_at: Timestamp,
}

const COLUMNS: &str = "workload, path, blob, size_bytes, mode, mtime_ms, attempt, stored_at";
const COLUMNS_N: usize = 8;

fn of_row(row: &AnyRow) -> Result<Artifact> {
    let mut columns = Columns::of("reading an artifact", row);
    Ok(Artifact {
        workload: columns.parse()?,
        path: columns.text()?,
        blob: columns.parse()?,
        size_bytes: columns.number()?,
        mode: columns.number()?,
        mtime_ms: file_ms(columns.int()?),
        attempt: columns.number()?,
        stored_at: columns.time()?,
    })
}

/// Adds files, or replaces those of the same path.
///
/// What a later attempt left is not replaced by an earlier one.  Of two files with one path
/// the last wins.
pub async fn put_many(tx: &mut Tx, artifacts: &[Artifact]) -> Result<()> {
    // One statement must not touch a row twice.
    let mut latest: HashMap<(WorkloadId, &str), usize> = HashMap::with_capacity(artifacts.len());
    for (index, artifact) in artifacts.iter().enumerate() {
        let at = latest
            .entry((artifact.workload, &artifact.path))
            .or_insert(index);
        if artifacts[*at].attempt <= artifact.attempt {
            *at = index;
        }
    }
    let mut chosen: Vec<usize> = latest.into_values().collect();
    chosen.sort_unstable();
    for piece in pieces(&chosen) {
        let sql = format!(
            "insert into artifact ({COLUMNS}) values {} \
             on conflict (workload, path) do update set blob = excluded.blob, \
                size_bytes = excluded.size_bytes, mode = excluded.mode, \
                mtime_ms = excluded.mtime_ms, attempt = excluded.attempt, \
                stored_at = excluded.stored_at \
              where artifact.attempt <= excluded.attempt",
            tuples(piece.len(), COLUMNS_N, 1)
        );
        let values = piece
            .iter()
            .flat_map(|index| row_of(&artifacts[*index]))
            .collect();
        tx.execute("storing artifacts", AssertSqlSafe(sql), values)
            .await?;
    }
    Ok(())
}

fn row_of(artifact: &Artifact) -> Vec<Value> {
    values![
        artifact.workload,
        artifact.path.as_str(),
        artifact.blob,
        artifact.size_bytes,
        artifact.mode,
        artifact.mtime_ms,
        artifact.attempt,
        artifact.stored_at,
    ]
}

/// Files of an experiment whose paths begin with `prefix`, by path, from the one after
/// `after` on.
pub async fn list(
    tx: &mut Tx,
    workload: WorkloadId,
    prefix: &str,
    after: Option<&str>,
    limit: u32,
) -> Result<Page<Artifact, String>> {
    let sql = format!(
        "select {COLUMNS} from artifact where workload = $1 and path > $2 \
            and substr(path, 1, length($3)) = $3 \
          order by path limit $4"
    );
    let values = values![workload, after.unwrap_or_default(), prefix, one_more(limit)];
    let rows = tx
        .rows("listing artifacts", AssertSqlSafe(sql), values)
        .await?;
    let artifacts: Vec<Artifact> = rows.iter().map(of_row).collect::<Result<_>>()?;
    Ok(Page::cut(artifacts, limit, |artifact| {
        artifact.path.clone()
    }))
}

/// Files of an experiment from the path `from` on, in the order of the bytes of their paths.
pub async fn list_from(
    tx: &mut Tx,
    workload: WorkloadId,
    from: &str,
    limit: u32,
) -> Result<Vec<Artifact>> {
    bytewise(tx, workload, (">=", from), limit).await
}

/// The same, from the one after the path `after` on.
pub async fn list_after(
    tx: &mut Tx,
    workload: WorkloadId,
    after: &str,
    limit: u32,
) -> Result<Vec<Artifact>> {
    bytewise(tx, workload, (">", after), limit).await
}

async fn bytewise(
    tx: &mut Tx,
    workload: WorkloadId,
    (is, bound): (&str, &str),
    limit: u32,
) -> Result<Vec<Artifact>> {
    let sorted = format!("path {}", tx.bytewise());
    let sql = format!(
        "select {COLUMNS} from artifact where workload = $1 and {sorted} {is} $2 \
          order by {sorted} limit $3"
    );
    let rows = tx
        .rows(
            "listing artifacts by path",
            AssertSqlSafe(sql),
            values![workload, bound, limit],
        )
        .await?;
    rows.iter().map(of_row).collect()
}

/// One file of an experiment.
pub async fn get(tx: &mut Tx, workload: WorkloadId, path: &str) -> Result<Option<Artifact>> {
    let sql = format!("select {COLUMNS} from artifact where workload = $1 and path = $2");
    let row = tx
        .row(
            "reading an artifact",
            AssertSqlSafe(sql),
            values![workload, path],
        )
        .await?;
    row.as_ref().map(of_row).transpose()
}

/// How many files an experiment has, and their size in bytes together.
pub async fn totals(tx: &mut Tx, workload: WorkloadId) -> Result<(u64, u64)> {
    const DOING: &str = "counting artifacts";
    let sql = "select count(*), cast(coalesce(sum(size_bytes), 0) as bigint) \
           from artifact where workload = $1";
    let Some(row) = tx.row(DOING, sql, values![workload]).await? else {
        return Ok((0, 0));
    };
    let mut columns = Columns::of(DOING, &row);
    Ok((columns.number()?, columns.number()?))
}

/// Every blob that an artifact or a snapshot names, once each and in order, from the one
/// after `after` on.  (A snapshot's blob lists further blobs, which are not in the database.)
pub async fn blobs_referenced(
    tx: &mut Tx,
    after: Option<BlobId>,
    limit: u32,
) -> Result<Page<BlobId, BlobId>> {
    const DOING: &str = "listing blobs in use";
    let sql = "select blob from \
               (select distinct blob from artifact where blob > $1 order by blob limit $2) as a \
          union select manifest_blob from \
               (select distinct manifest_blob from snapshot where manifest_blob > $1 \
                 order by manifest_blob limit $2) as s \
          order by 1 limit $2";
    let rows = tx
        .rows(
            DOING,
            sql,
            values![greater(after.as_ref()), one_more(limit)],
        )
        .await?;
    let blobs: Vec<BlobId> = rows
        .iter()
        .map(|row| Columns::of(DOING, row).parse())
        .collect::<Result<_>>()?;
    Ok(Page::cut(blobs, limit, |blob| *blob))
}
