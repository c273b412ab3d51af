//! Names under which data is kept; what is kept are their versions.

use grid_core::id::{DatastoreId, TeamId, UserId};
use grid_core::time::Timestamp;
use sqlx::AssertSqlSafe;
use sqlx::any::AnyRow;

use super::error::{Error, Result};
use super::sql::{Columns, list as in_list, lists, values};
use super::tx::Tx;

/// A datastore.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Datastore {
    /// Its id.
    pub id: DatastoreId,
    /// Whose team's it is.
    pub team: TeamId,
    /// Who made it.
    pub creator: UserId,
    /// Its name: unique among its creator's.
    pub name: String,
    /// The last number that a version was given.
    pub numbers: u32,
    /// When it was made.
    pub created_at: Timestamp,
}

pub(super) const COLUMNS: &str = "id, team, creator, name, numbers, created_at";

pub(super) fn of_row(row: &AnyRow) -> Result<Datastore> {
    let mut columns = Columns::of("reading a datastore", row);
    Ok(Datastore {
        id: columns.parse()?,
        team: columns.parse()?,
        creator: columns.parse()?,
        name: columns.text()?,
        numbers: columns.number()?,
        created_at: columns.time()?,
    })
}

/// Adds a datastore, or finds the one of this creator and name: that one is returned, whose
/// id then differs from the one given.
pub async fn insert_or_get(tx: &mut Tx, datastore: &Datastore) -> Result<Datastore> {
    const DOING: &str = "adding a datastore";
    let sql = format!(
        "insert into datastore ({COLUMNS}) values ($1, $2, $3, $4, $5, $6) \
         on conflict (creator, name) do nothing"
    );
    let values = values![
        datastore.id,
        datastore.team,
        datastore.creator,
        datastore.name.as_str(),
        datastore.numbers,
        datastore.created_at,
    ];
    tx.execute(DOING, AssertSqlSafe(sql), values).await?;
    let kept = by_name(tx, datastore.creator, &datastore.name).await?;
    kept.ok_or_else(|| Error::internal(DOING, "it went away at once"))
}

/// The datastore with an id.
pub async fn by_id(tx: &mut Tx, id: DatastoreId) -> Result<Option<Datastore>> {
    let sql = format!("select {COLUMNS} from datastore where id = $1");
    let row = tx
        .row("reading a datastore", AssertSqlSafe(sql), values![id])
        .await?;
    row.as_ref().map(of_row).transpose()
}

/// The datastores with these ids, in no order; unknown ids are left out.
pub async fn by_ids(tx: &mut Tx, ids: &[DatastoreId]) -> Result<Vec<Datastore>> {
    let mut found = Vec::with_capacity(ids.len());
    for (list, values) in lists(ids) {
        let sql = format!("select {COLUMNS} from datastore where id in {list}");
        let rows = tx
            .rows("reading datastores", AssertSqlSafe(sql), values)
            .await?;
        for row in &rows {
            found.push(of_row(row)?);
        }
    }
    Ok(found)
}

/// The datastore of a creator with a name.
pub async fn by_name(tx: &mut Tx, creator: UserId, name: &str) -> Result<Option<Datastore>> {
    let sql = format!("select {COLUMNS} from datastore where creator = $1 and name = $2");
    let row = tx
        .row(
            "looking for a datastore",
            AssertSqlSafe(sql),
            values![creator, name],
        )
        .await?;
    row.as_ref().map(of_row).transpose()
}

/// The names of the newest datastores of a creator in these teams.
pub async fn newest_names(
    tx: &mut Tx,
    creator: UserId,
    teams: &[TeamId],
    limit: u32,
) -> Result<Vec<String>> {
    const DOING: &str = "looking for names of datastores";
    let Some((list, more)) = in_list(teams, 3) else {
        return Ok(Vec::new());
    };
    let sql = format!(
        "select name from datastore where creator = $1 and team in {list} \
          order by created_at desc, id desc limit $2"
    );
    let mut values = values![creator, limit];
    values.extend(more);
    let rows = tx.rows(DOING, AssertSqlSafe(sql), values).await?;
    rows.iter()
        .map(|row| Columns::of(DOING, row).text())
        .collect()
}

/// Gives the next number; `None` when there is no such datastore.
pub async fn next_number(tx: &mut Tx, id: DatastoreId) -> Result<Option<u32>> {
    const DOING: &str = "numbering a version";
    let sql = "update datastore set numbers = numbers + 1 where id = $1 returning numbers";
    let row = tx.row(DOING, sql, values![id]).await?;
    row.map(|row| Columns::of(DOING, &row).number()).transpose()
}

/// Numbers at least up to `least` count as given.
pub async fn skip_numbers(tx: &mut Tx, id: DatastoreId, least: u32) -> Result<()> {
    let sql = "update datastore set numbers = $2 where id = $1 and numbers < $2";
    tx.execute("numbering a version", sql, values![id, least])
        .await?;
    Ok(())
}

/// Gives it another name; `false` when it is not there.  A taken name is a conflict.
pub async fn rename(tx: &mut Tx, id: DatastoreId, name: &str) -> Result<bool> {
    let sql = "update datastore set name = $2 where id = $1";
    let done = tx
        .execute("renaming a datastore", sql, values![id, name])
        .await;
    done.map(|rows| rows == 1)
        .map_err(|e| e.taken("this datastore name"))
}

/// Removes one that has no versions, not even in the trash; says whether it did.
pub async fn remove_empty(tx: &mut Tx, id: DatastoreId) -> Result<bool> {
    const DOING: &str = "removing a datastore";
    // First whoever begins a version in it is waited for; what they did is seen by a statement
    // that begins afterwards, and not by one that waited itself.
    let sql = "update datastore set numbers = numbers where id = $1";
    tx.execute(DOING, sql, values![id]).await?;
    let sql = "delete from datastore where id = $1 and not exists \
         (select 1 from datastore_version v where v.datastore = datastore.id)";
    Ok(tx.execute(DOING, sql, values![id]).await? == 1)
}
