//! What a team has as a tree of names, each folder in the order of the bytes of its names:
//! creators, what they made, and the versions or experiments of that.
//!
//! A name ends with a slash here, as it does in the path of what is below it: so `a-b` comes
//! before `a`, as `a-b/x` comes before `a/x`.

use grid_core::blob::BlobId;
use grid_core::id::{DatastoreId, DatastoreVersionId, RunId, TeamId, UserId, WorkloadId};
use sqlx::AssertSqlSafe;

use super::datastore::{self, Datastore};
use super::error::Result;
use super::sql::{Columns, values};
use super::tx::Tx;

/// Most creators, versions or experiments of one folder.  Higher: one question takes more
/// memory; lower: what is behind them is not listed.
const MEMBERS_MAX: u32 = 100_000;

/// Somebody who made something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Creator {
    /// Their id.
    pub id: UserId,
    /// Their name.
    pub username: String,
}

/// Who made datastores of a team that have a version to read, or, for `looker`, one that is
/// being made.  In no order.
pub async fn datastore_creators(tx: &mut Tx, team: TeamId, looker: UserId) -> Result<Vec<Creator>> {
    let sql = "select u.id, u.username from usr u where exists \
         (select 1 from datastore d join datastore_version v on v.datastore = d.id \
           where d.creator = u.id and d.team = $1 and v.deleted_at is null \
             and (v.state = 'available' or (v.state = 'uploading' and u.id = $2))) \
          limit $3";
    creators(tx, sql, values![team, looker, MEMBERS_MAX]).await
}

/// Who made runs of a team.  In no order.
pub async fn run_creators(tx: &mut Tx, team: TeamId) -> Result<Vec<Creator>> {
    let sql = "select u.id, u.username from usr u where exists \
         (select 1 from run r where r.creator = u.id and r.team = $1 and r.deleted_at is null) \
          limit $2";
    creators(tx, sql, values![team, MEMBERS_MAX]).await
}

async fn creators(
    tx: &mut Tx,
    sql: &'static str,
    values: Vec<super::sql::Value>,
) -> Result<Vec<Creator>> {
    const DOING: &str = "listing who made something";
    let rows = tx.rows(DOING, sql, values).await?;
    let creator = |row| {
        let mut columns = Columns::of(DOING, row);
        Ok(Creator {
            id: columns.parse()?,
            username: columns.text()?,
        })
    };
    rows.iter().map(creator).collect()
}

/// Datastores of a creator in a team from the folder `from` on, those with a version to read
/// or, when `is_looker`, one that is being made.
pub async fn datastores(
    tx: &mut Tx,
    (team, creator): (TeamId, UserId),
    is_looker: bool,
    from: &str,
    limit: u32,
) -> Result<Vec<Datastore>> {
    let sorted = format!("(d.name || '/') {}", tx.bytewise());
    let sql = format!(
        "select {} from datastore d where d.team = $1 and d.creator = $2 and {sorted} >= $3 \
            and exists (select 1 from datastore_version v where v.datastore = d.id \
                and v.deleted_at is null \
                and (v.state = 'available' or (v.state = 'uploading' and $4 = 1))) \
          order by {sorted} limit $5",
        datastore::COLUMNS
    );
    let values = values![team, creator, from, i64::from(is_looker), limit];
    let rows = tx
        .rows("listing datastores", AssertSqlSafe(sql), values)
        .await?;
    rows.iter().map(datastore::of_row).collect()
}

/// Runs of a creator in a team, by id and name, from the folder `from` on.
pub async fn runs(
    tx: &mut Tx,
    (team, creator): (TeamId, UserId),
    from: &str,
    limit: u32,
) -> Result<Vec<(RunId, String)>> {
    const DOING: &str = "listing runs by name";
    let sorted = format!("(r.name || '/') {}", tx.bytewise());
    let sql = format!(
        "select r.id, r.name from run r where r.team = $1 and r.creator = $2 \
            and r.deleted_at is null and {sorted} >= $3 order by {sorted} limit $4"
    );
    let values = values![team, creator, from, limit];
    let rows = tx.rows(DOING, AssertSqlSafe(sql), values).await?;
    let run = |row| {
        let mut columns = Columns::of(DOING, row);
        Ok((columns.parse()?, columns.text()?))
    };
    rows.iter().map(run).collect()
}

/// The versions of a datastore that can be read, by number, with their lists of files.
pub async fn versions(
    tx: &mut Tx,
    datastore: DatastoreId,
) -> Result<Vec<(u32, DatastoreVersionId, BlobId)>> {
    const DOING: &str = "listing versions by number";
    let sql = "select v.number, v.id, v.manifest from datastore_version v where v.datastore = $1 \
            and v.deleted_at is null and v.state = 'available' order by v.number limit $2";
    let rows = tx.rows(DOING, sql, values![datastore, MEMBERS_MAX]).await?;
    let version = |row| {
        let mut columns = Columns::of(DOING, row);
        Ok((columns.number()?, columns.parse()?, columns.parse()?))
    };
    rows.iter().map(version).collect()
}

/// The newest version of a datastore that is being made of what comes from `source`.
pub async fn staged(
    tx: &mut Tx,
    datastore: DatastoreId,
    source: &str,
) -> Result<Option<DatastoreVersionId>> {
    const DOING: &str = "looking for a version that is being made";
    let sql = "select v.id from datastore_version v where v.datastore = $1 \
            and v.state = 'uploading' and v.deleted_at is null and v.source = $2 \
          order by v.number desc limit 1";
    let row = tx.row(DOING, sql, values![datastore, source]).await?;
    row.map(|row| Columns::of(DOING, &row).parse()).transpose()
}

/// The newest version of a datastore that was made of what came from `source`, or could not
/// be, or is about to be.
pub async fn ended(
    tx: &mut Tx,
    datastore: DatastoreId,
    source: &str,
) -> Result<Option<DatastoreVersionId>> {
    const DOING: &str = "looking for a version that was made";
    let sql = "select v.id from datastore_version v where v.datastore = $1 \
            and v.state <> 'uploading' and v.deleted_at is null and v.source = $2 \
          order by v.number desc limit 1";
    let row = tx.row(DOING, sql, values![datastore, source]).await?;
    row.map(|row| Columns::of(DOING, &row).parse()).transpose()
}

/// What a creator is making of `source` in a team: names of datastores, with the version, in
/// the order of the names.
pub async fn all_staged(
    tx: &mut Tx,
    (team, creator): (TeamId, UserId),
    source: &str,
) -> Result<Vec<(String, DatastoreVersionId)>> {
    const DOING: &str = "listing versions that are being made";
    let sorted = format!("(d.name || '/') {}", tx.bytewise());
    let sql = format!(
        "select d.name, v.id from datastore d join datastore_version v on v.datastore = d.id \
          where d.team = $1 and d.creator = $2 and v.state = 'uploading' \
            and v.deleted_at is null and v.source = $3 \
          order by {sorted}, v.number desc limit $4"
    );
    let values = values![team, creator, source, MEMBERS_MAX];
    let rows = tx.rows(DOING, AssertSqlSafe(sql), values).await?;
    let staged = |row| {
        let mut columns = Columns::of(DOING, row);
        Ok((columns.text()?, columns.parse()?))
    };
    rows.iter().map(staged).collect()
}

/// The experiments of a run by number, but those in the trash.
pub async fn experiments(tx: &mut Tx, run: RunId) -> Result<Vec<(u32, WorkloadId)>> {
    const DOING: &str = "listing experiments by number";
    let sql = "select w.idx, w.id from workload w where w.run = $1 and w.deleted_at is null \
          order by w.idx limit $2";
    let rows = tx.rows(DOING, sql, values![run, MEMBERS_MAX]).await?;
    let experiment = |row| {
        let mut columns = Columns::of(DOING, row);
        Ok((columns.number()?, columns.parse()?))
    };
    rows.iter().map(experiment).collect()
}
