//! Which runs mount which versions of datastores.

use grid_core::id::{DatastoreVersionId, RunId, UserId};
use grid_core::time::Timestamp;
use sqlx::AssertSqlSafe;

use super::error::Result;
use super::page::{Page, Position, before, one_more};
use super::sql::{Columns, values};
use super::tx::Tx;

/// A run that mounts a version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Use {
    /// Which run.
    pub run: RunId,
    /// Its name.
    pub name: String,
    /// Who made it.
    pub creator: UserId,
    /// When.
    pub created_at: Timestamp,
    /// Whether an experiment of it may still read the version.
    pub is_open: bool,
}

/// What an experiment that is not over looks like.
const OPEN: &str = "exists (select 1 from workload w where w.run = r.id \
     and w.finished_at is null and w.deleted_at is null)";

/// Notes that a new run mounts a version, unless that went away meanwhile: `false` then.
///
/// The row of the version is taken, so that nobody deletes it before this is committed.
pub async fn insert(tx: &mut Tx, run: RunId, version: DatastoreVersionId) -> Result<bool> {
    const DOING: &str = "noting a mount";
    let sql = "update datastore_version set updated_at = updated_at \
          where id = $1 and state = 'available' and deleted_at is null";
    if tx.execute(DOING, sql, values![version]).await? == 0 {
        return Ok(false);
    }
    let sql = "insert into run_datastore (run, version) values ($1, $2) on conflict do nothing";
    tx.execute(DOING, sql, values![run, version]).await?;
    Ok(true)
}

/// Takes the row of a version, so that nobody begins to mount it until this transaction is
/// over; `false` when it is not there.
pub async fn hold(tx: &mut Tx, version: DatastoreVersionId) -> Result<bool> {
    let sql = "update datastore_version set updated_at = updated_at where id = $1";
    let rows = tx
        .execute("holding a datastore version", sql, values![version])
        .await?;
    Ok(rows == 1)
}

/// Runs that mount a version and are not over, the oldest first.
pub async fn open_users(tx: &mut Tx, version: DatastoreVersionId, limit: u32) -> Result<Vec<Use>> {
    let sql = format!(
        "select r.id, r.name, r.creator, r.created_at, cast(1 as bigint) from run_datastore m \
           join run r on r.id = m.run \
          where m.version = $1 and {OPEN} order by r.created_at, r.id limit $2"
    );
    rows(tx, sql, values![version, one_more(limit) - 1]).await
}

/// Runs that mount a version or did, but those in the trash; the newest first.
pub async fn users(
    tx: &mut Tx,
    version: DatastoreVersionId,
    after: Option<Position<RunId>>,
    limit: u32,
) -> Result<Page<Use, Position<RunId>>> {
    let (at, id) = before(after.as_ref());
    let sql = format!(
        "select r.id, r.name, r.creator, r.created_at, cast(case when {OPEN} then 1 else 0 end as bigint) \
           from run_datastore m join run r on r.id = m.run \
          where m.version = $1 and r.deleted_at is null and (r.created_at, r.id) < ($2, $3) \
          order by r.created_at desc, r.id desc limit $4"
    );
    let found = rows(tx, sql, values![version, at, id, one_more(limit)]).await?;
    Ok(Page::cut(found, limit, |used| Position {
        at: used.created_at,
        id: used.run,
    }))
}

async fn rows(tx: &mut Tx, sql: String, values: Vec<super::sql::Value>) -> Result<Vec<Use>> {
    const DOING: &str = "looking for users of a datastore";
    let rows = tx.rows(DOING, AssertSqlSafe(sql), values).await?;
    let read = |row| {
        let mut columns = Columns::of(DOING, row);
        Ok(Use {
            run: columns.parse()?,
            name: columns.text()?,
            creator: columns.parse()?,
            created_at: columns.time()?,
            is_open: columns.flag()?,
        })
    };
    rows.iter().map(read).collect()
}
