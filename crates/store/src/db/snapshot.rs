//! Captured trees of source files: their names and sizes; the bytes are blobs.

use grid_core::blob::BlobId;
use grid_core::id::{SnapshotId, TeamId, UserId};
use grid_core::time::Timestamp;
use sqlx::AssertSqlSafe;
use sqlx::any::AnyRow;

use super::error::{Error, Result};
use super::page::{Page, greater, one_more};
use super::sql::{Columns, values};
use super::tx::Tx;

/// A captured tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// Its id.
    pub id: SnapshotId,
    /// Whose it is.
    pub team: TeamId,
    /// What tells it apart from every other tree.
    pub digest: String,
    /// The blob that lists its files.
    pub manifest_blob: BlobId,
    /// How many files it has.
    pub files: u64,
    /// How large they are together.
    pub size_bytes: u64,
    /// Who sent it first.
    pub created_by: UserId,
    /// When.
    pub created_at: Timestamp,
}

const COLUMNS: &str = "id, team, digest, manifest_blob, files, size_bytes, created_by, created_at";

fn of_row(row: &AnyRow) -> Result<Snapshot> {
    let mut columns = Columns::of("reading a snapshot", row);
    Ok(Snapshot {
        id: columns.parse()?,
        team: columns.parse()?,
        digest: columns.text()?,
        manifest_blob: columns.parse()?,
        files: columns.number()?,
        size_bytes: columns.number()?,
        created_by: columns.parse()?,
        created_at: columns.time()?,
    })
}

/// Adds a snapshot, or finds the one that the team already has of this tree: that one is
/// returned, whose id then differs from the one given.
pub async fn insert_or_get(tx: &mut Tx, snapshot: &Snapshot) -> Result<Snapshot> {
    const DOING: &str = "adding a snapshot";
    let sql = format!(
        "insert into snapshot ({COLUMNS}) values ($1, $2, $3, $4, $5, $6, $7, $8) \
         on conflict (team, digest) do nothing"
    );
    let values = values![
        snapshot.id,
        snapshot.team,
        snapshot.digest.as_str(),
        snapshot.manifest_blob,
        snapshot.files,
        snapshot.size_bytes,
        snapshot.created_by,
        snapshot.created_at,
    ];
    tx.execute(DOING, AssertSqlSafe(sql), values).await?;
    let kept = by_digest(tx, snapshot.team, &snapshot.digest).await?;
    kept.ok_or_else(|| Error::internal(DOING, "it went away at once"))
}

/// The snapshot with an id.
pub async fn by_id(tx: &mut Tx, id: SnapshotId) -> Result<Option<Snapshot>> {
    let sql = format!("select {COLUMNS} from snapshot where id = $1");
    let row = tx
        .row("reading a snapshot", AssertSqlSafe(sql), values![id])
        .await?;
    row.as_ref().map(of_row).transpose()
}

/// The snapshot that a team has of a tree.
pub async fn by_digest(tx: &mut Tx, team: TeamId, digest: &str) -> Result<Option<Snapshot>> {
    let sql = format!("select {COLUMNS} from snapshot where team = $1 and digest = $2");
    let row = tx
        .row(
            "looking for a snapshot",
            AssertSqlSafe(sql),
            values![team, digest],
        )
        .await?;
    row.as_ref().map(of_row).transpose()
}

/// All snapshots, by id, from the one after `after` on: for those who look after blobs.
pub async fn all(
    tx: &mut Tx,
    after: Option<SnapshotId>,
    limit: u32,
) -> Result<Page<Snapshot, SnapshotId>> {
    let sql = format!("select {COLUMNS} from snapshot where id > $1 order by id limit $2");
    let values = values![greater(after.as_ref()), one_more(limit)];
    let rows = tx
        .rows("listing snapshots", AssertSqlSafe(sql), values)
        .await?;
    let all: Vec<Snapshot> = rows.iter().map(of_row).collect::<Result<_>>()?;
    Ok(Page::cut(all, limit, |snapshot| snapshot.id))
}

/// Snapshots older than `before` that no run uses, not even one in the trash.
pub async fn unreferenced(tx: &mut Tx, before: Timestamp, limit: u32) -> Result<Vec<Snapshot>> {
    let sql = format!(
        "select {COLUMNS} from snapshot where created_at < $1 \
            and not exists (select 1 from run where run.snapshot = snapshot.id) \
          order by id limit $2"
    );
    let values = values![before, one_more(limit) - 1];
    let rows = tx
        .rows("looking for unused snapshots", AssertSqlSafe(sql), values)
        .await?;
    rows.iter().map(of_row).collect()
}

/// Removes a snapshot unless a run uses it; says whether it did.
pub async fn remove(tx: &mut Tx, id: SnapshotId) -> Result<bool> {
    let sql = "delete from snapshot where id = $1 \
            and not exists (select 1 from run where run.snapshot = snapshot.id)";
    Ok(tx.execute("removing a snapshot", sql, values![id]).await? == 1)
}
