//! Versions of datastores.

use grid_core::blob::BlobId;
use grid_core::datastore::{SourceKind, State};
use grid_core::id::{CredentialId, DatastoreId, DatastoreVersionId, TeamId, UserId};
use grid_core::time::Timestamp;
use sqlx::AssertSqlSafe;
use sqlx::any::AnyRow;

use super::error::Result;
use super::page::{Deletion, Page, Position, Trash, before, greater, one_more};
use super::scope::Scope;
use super::sql::{Columns, Value, values};
use super::staged;
use super::tx::Tx;

/// A version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Version {
    /// Its id.
    pub id: DatastoreVersionId,
    /// Of which datastore.
    pub datastore: DatastoreId,
    /// Its number there.
    pub number: u32,
    /// Who made the datastore, and so this.
    pub owner: UserId,
    /// Whose team's the datastore is.
    pub owner_team: TeamId,
    /// How far it is.
    pub state: State,
    /// Where it comes from, for people.
    pub source: String,
    /// What kind of place that is.
    pub source_kind: SourceKind,
    /// Where the server of its bucket is, unless it is Amazon's.
    pub endpoint: Option<String>,
    /// What opens its bucket.
    pub credential: Option<CredentialId>,
    /// Whether its files were left where they are, and only their list is stored.
    pub is_index: bool,
    /// What its creator says about it.
    pub description: String,
    /// Of how many parts the list of its files was sent, once that is known.
    pub pages: Option<u32>,
    /// The blob that lists its files, once it is available.
    pub manifest: Option<BlobId>,
    /// How many files it has.
    pub files: u64,
    /// Their bytes together.
    pub size_bytes: u64,
    /// How many of them were not stored before.
    pub new_bytes: u64,
    /// What the server has done.
    pub progress_bytes: u64,
    /// Of how much, where that is known.
    pub progress_total: Option<u64>,
    /// Why it has failed.
    pub message: Option<String>,
    /// When it was begun.
    pub created_at: Timestamp,
    /// When something last happened to it.
    pub updated_at: Timestamp,
    /// When it became available, or failed.
    pub finished_at: Option<Timestamp>,
    /// That it is in the trash.
    pub deleted: Option<Deletion>,
}

/// Which versions a list shows.
#[derive(Debug, Clone, Copy, Default)]
pub struct Filter<'a> {
    /// Whose.
    pub scope: Scope<'a>,
    /// Those of the datastore of this name.
    pub name: Option<&'a str>,
    /// Those that are being uploaded, too.
    pub incomplete: bool,
    /// Whether those in the trash.
    pub trash: Trash,
    /// Those after this place in the list.
    pub after: Option<Position<DatastoreVersionId>>,
}

const COLUMNS: &str = "v.id, v.datastore, v.number, v.owner, v.owner_team, v.state, v.source, \
     v.source_kind, v.endpoint, v.credential, v.is_index, v.description, v.pages, v.manifest, v.files, v.size_bytes, v.new_bytes, \
     v.progress_bytes, v.progress_total, v.message, v.created_at, v.updated_at, v.finished_at, \
     v.deleted_at, v.deleted_by";

fn of_row(row: &AnyRow) -> Result<Version> {
    let mut columns = Columns::of("reading a datastore version", row);
    Ok(Version {
        id: columns.parse()?,
        datastore: columns.parse()?,
        number: columns.number()?,
        owner: columns.parse()?,
        owner_team: columns.parse()?,
        state: columns.word(State::parse)?,
        source: columns.text()?,
        source_kind: columns.word(SourceKind::parse)?,
        endpoint: columns.opt_text()?,
        credential: columns.opt_parse()?,
        is_index: columns.flag()?,
        description: columns.text()?,
        pages: columns.opt_number()?,
        manifest: columns.opt_parse()?,
        files: columns.number()?,
        size_bytes: columns.number()?,
        new_bytes: columns.number()?,
        progress_bytes: columns.number()?,
        progress_total: columns.opt_number()?,
        message: columns.opt_text()?,
        created_at: columns.time()?,
        updated_at: columns.time()?,
        finished_at: columns.opt_time()?,
        deleted: columns.deletion()?,
    })
}

/// Adds a version that is uploading or processing.
pub async fn insert(tx: &mut Tx, version: &Version) -> Result<()> {
    let sql = "insert into datastore_version (id, datastore, number, owner, owner_team, state, \
         source, source_kind, description, files, size_bytes, new_bytes, progress_bytes, \
         created_at, updated_at, endpoint, credential, is_index) \
         values ($1, $2, $3, $4, $5, $6, $7, $8, $9, 0, 0, 0, 0, $10, $10, $11, $12, $13)";
    let values = values![
        version.id,
        version.datastore,
        version.number,
        version.owner,
        version.owner_team,
        version.state.as_str(),
        version.source.as_str(),
        version.source_kind.as_str(),
        version.description.as_str(),
        version.created_at,
        version.endpoint.as_deref(),
        version.credential,
        version.is_index,
    ];
    tx.execute("adding a datastore version", sql, values)
        .await?;
    Ok(())
}

async fn one(tx: &mut Tx, condition: &str, values: Vec<Value>) -> Result<Option<Version>> {
    let sql = format!("select {COLUMNS} from datastore_version v where {condition}");
    let row = tx
        .row("reading a datastore version", AssertSqlSafe(sql), values)
        .await?;
    row.as_ref().map(of_row).transpose()
}

async fn many(tx: &mut Tx, condition: &str, values: Vec<Value>) -> Result<Vec<Version>> {
    let sql = format!("select {COLUMNS} from datastore_version v where {condition}");
    let rows = tx
        .rows("listing datastore versions", AssertSqlSafe(sql), values)
        .await?;
    rows.iter().map(of_row).collect()
}

/// The version with an id, in the trash or not.
pub async fn by_id(tx: &mut Tx, id: DatastoreVersionId) -> Result<Option<Version>> {
    one(tx, "v.id = $1", values![id]).await
}

/// The version of a datastore with a number, in the trash or not.
pub async fn by_number(
    tx: &mut Tx,
    datastore: DatastoreId,
    number: u32,
) -> Result<Option<Version>> {
    let condition = "v.datastore = $1 and v.number = $2";
    one(tx, condition, values![datastore, number]).await
}

/// The newest version of a datastore that can be used.
pub async fn newest(tx: &mut Tx, datastore: DatastoreId) -> Result<Option<Version>> {
    let condition = "v.datastore = $1 and v.state = 'available' and v.deleted_at is null \
          order by v.number desc limit 1";
    one(tx, condition, values![datastore]).await
}

/// Whether a datastore has any version, in the trash or not.
pub async fn has_any(tx: &mut Tx, datastore: DatastoreId) -> Result<bool> {
    let found = one(tx, "v.datastore = $1 limit 1", values![datastore]).await?;
    Ok(found.is_some())
}

/// Whether a datastore has any version that is not in the trash.
pub async fn has_any_outside_trash(tx: &mut Tx, datastore: DatastoreId) -> Result<bool> {
    let condition = "v.datastore = $1 and v.deleted_at is null limit 1";
    let found = one(tx, condition, values![datastore]).await?;
    Ok(found.is_some())
}

/// Versions, the newest first.
pub async fn list(
    tx: &mut Tx,
    filter: &Filter<'_>,
    limit: u32,
) -> Result<Page<Version, Position<DatastoreVersionId>>> {
    const FIXED_N: usize = 4;
    let (at, id) = before(filter.after.as_ref());
    let state = if filter.incomplete {
        "1 = 1"
    } else {
        "v.state <> 'uploading'"
    };
    let mut found = Vec::new();
    for (scope, more) in filter.scope.parts("v.owner", "v.owner_team", FIXED_N + 1) {
        let condition = format!(
            "{scope} and (v.created_at, v.id) < ($1, $2) and {state} and {} \
                and (cast($3 as text) is null or exists \
                    (select 1 from datastore d where d.id = v.datastore and d.name = $3)) \
              order by v.created_at desc, v.id desc limit $4",
            filter.trash.condition("v.deleted_at")
        );
        let mut values = values![at, id.as_str(), filter.name, one_more(limit)];
        values.extend(more);
        found.extend(many(tx, &condition, values).await?);
    }
    let position = |version: &Version| Position {
        at: version.created_at,
        id: version.id,
    };
    found.sort_by_key(|version| std::cmp::Reverse(position(version)));
    Ok(Page::cut(found, limit, position))
}

/// Versions in a state that are not over, the one longest untouched first.
pub async fn list_open(
    tx: &mut Tx,
    state: State,
    updated_before: Timestamp,
    limit: u32,
) -> Result<Vec<Version>> {
    let condition = "v.state = $1 and v.updated_at < $2 and v.finished_at is null \
          order by v.updated_at limit $3";
    let values = values![state.as_str(), updated_before, one_more(limit) - 1];
    many(tx, condition, values).await
}

/// All versions, by id, from the one after `after` on: for those who look after blobs.
pub async fn all(
    tx: &mut Tx,
    after: Option<DatastoreVersionId>,
    limit: u32,
) -> Result<Page<Version, DatastoreVersionId>> {
    let condition = "v.id > $1 order by v.id limit $2";
    let values = values![greater(after.as_ref()), one_more(limit)];
    let all = many(tx, condition, values).await?;
    Ok(Page::cut(all, limit, |version| version.id))
}

/// Notes what was done of a version that is not over; `false` when it is.
pub async fn advance(
    tx: &mut Tx,
    id: DatastoreVersionId,
    done_bytes: u64,
    total_bytes: Option<u64>,
    at: Timestamp,
) -> Result<bool> {
    let sql = "update datastore_version set progress_bytes = $2, progress_total = $3, \
            updated_at = $4 where id = $1 and finished_at is null";
    let total = total_bytes.map_or(Value::NoInt, Value::from);
    let mut values = values![id, done_bytes];
    values.push(total);
    values.push(Value::from(at));
    let rows = tx
        .execute("noting progress of a datastore version", sql, values)
        .await?;
    Ok(rows == 1)
}

/// An upload goes on: adds what its parts hold by now.  `false` when it is over.
pub async fn sum_up(tx: &mut Tx, id: DatastoreVersionId, at: Timestamp) -> Result<bool> {
    let sum = |column: &str| {
        format!(
            "(select cast(coalesce(sum({column}), 0) as bigint) from datastore_page p \
               where p.version = datastore_version.id and p.blob is not null)"
        )
    };
    let sql = format!(
        "update datastore_version set files = {}, size_bytes = {}, new_bytes = {}, \
            updated_at = $2 where id = $1 and state = 'uploading'",
        sum("p.files"),
        sum("p.size_bytes"),
        sum("p.new_bytes")
    );
    let rows = tx
        .execute(
            "noting progress of an upload",
            AssertSqlSafe(sql),
            values![id, at],
        )
        .await?;
    Ok(rows == 1)
}

/// An upload is whole: from now on it is processed.  `false` when it was no upload.
pub async fn set_processing(
    tx: &mut Tx,
    id: DatastoreVersionId,
    pages: Option<u32>,
    at: Timestamp,
) -> Result<bool> {
    let sql = "update datastore_version set state = 'processing', pages = $2, updated_at = $3 \
          where id = $1 and state = 'uploading' and deleted_at is null";
    let mut values = values![id];
    values.push(pages.map_or(Value::NoInt, Value::from));
    values.push(Value::from(at));
    let rows = tx.execute("ending an upload", sql, values).await?;
    Ok(rows == 1)
}

/// Of what is processed it is known by now of how many parts its list is.
pub async fn set_pages(
    tx: &mut Tx,
    id: DatastoreVersionId,
    pages: u32,
    at: Timestamp,
) -> Result<bool> {
    let sql = "update datastore_version set pages = $2, updated_at = $3 \
          where id = $1 and state = 'processing'";
    let rows = tx
        .execute("noting the length of a list", sql, values![id, pages, at])
        .await?;
    Ok(rows == 1)
}

/// What the server fetches is begun anew: nothing of its list is kept.
pub async fn begin_anew(tx: &mut Tx, id: DatastoreVersionId, at: Timestamp) -> Result<()> {
    const DOING: &str = "beginning a datastore version anew";
    let sql = "update datastore_version set pages = null, updated_at = $2 \
          where id = $1 and state = 'processing'";
    tx.execute(DOING, sql, values![id, at]).await?;
    let sql = "delete from datastore_page where version = $1";
    tx.execute(DOING, sql, values![id]).await?;
    Ok(())
}

/// What was processed goes back to being uploaded: something of it is missing.
pub async fn set_uploading(tx: &mut Tx, id: DatastoreVersionId, at: Timestamp) -> Result<bool> {
    let sql = "update datastore_version set state = 'uploading', pages = null, updated_at = $2 \
          where id = $1 and state = 'processing'";
    let rows = tx
        .execute("reopening an upload", sql, values![id, at])
        .await?;
    Ok(rows == 1)
}

/// What a finished version holds.
#[derive(Debug, Clone, Copy)]
pub struct Content {
    /// The blob that lists its files.
    pub manifest: BlobId,
    /// How many they are.
    pub files: u64,
    /// Their bytes together.
    pub size_bytes: u64,
    /// How many of them were not stored before.
    pub new_bytes: u64,
}

/// Makes a version available, and forgets the parts that it was sent in; `false` when it
/// is over already.
pub async fn finish(
    tx: &mut Tx,
    id: DatastoreVersionId,
    content: &Content,
    at: Timestamp,
) -> Result<bool> {
    const DOING: &str = "finishing a datastore version";
    let sql = "update datastore_version set state = 'available', manifest = $2, files = $3, \
            size_bytes = $4, new_bytes = $5, finished_at = $6, updated_at = $6 \
          where id = $1 and state = 'processing'";
    let values = values![
        id,
        content.manifest,
        content.files,
        content.size_bytes,
        content.new_bytes,
        at
    ];
    if tx.execute(DOING, sql, values).await? == 0 {
        return Ok(false);
    }
    let sql = "delete from datastore_page where version = $1";
    tx.execute(DOING, sql, values![id]).await?;
    staged::forget(tx, id).await?;
    Ok(true)
}

/// Gives a version up, and forgets the parts that were sent; `false` when it is over already.
pub async fn fail(
    tx: &mut Tx,
    id: DatastoreVersionId,
    message: &str,
    at: Timestamp,
) -> Result<bool> {
    const DOING: &str = "giving up a datastore version";
    let sql = "update datastore_version set state = 'failed', message = $2, finished_at = $3, \
            updated_at = $3 where id = $1 and finished_at is null";
    if tx.execute(DOING, sql, values![id, message, at]).await? == 0 {
        return Ok(false);
    }
    let sql = "delete from datastore_page where version = $1";
    tx.execute(DOING, sql, values![id]).await?;
    staged::forget(tx, id).await?;
    Ok(true)
}

/// Changes what its creator says about it; `false` when it is not there.
pub async fn describe(tx: &mut Tx, id: DatastoreVersionId, text: &str) -> Result<bool> {
    let sql = "update datastore_version set description = $2 where id = $1";
    let rows = tx
        .execute("describing a datastore version", sql, values![id, text])
        .await?;
    Ok(rows == 1)
}

/// Puts a version into the trash; `false` when it is not there or in it already.
pub async fn set_deleted(
    tx: &mut Tx,
    id: DatastoreVersionId,
    by: UserId,
    at: Timestamp,
) -> Result<bool> {
    let sql = "update datastore_version set deleted_at = $2, deleted_by = $3 \
          where id = $1 and deleted_at is null";
    let rows = tx
        .execute("deleting a datastore version", sql, values![id, at, by])
        .await?;
    Ok(rows == 1)
}

/// Takes a version out of the trash; `false` when it is not in it.
pub async fn restore(tx: &mut Tx, id: DatastoreVersionId) -> Result<bool> {
    let sql = "update datastore_version set deleted_at = null, deleted_by = null \
          where id = $1 and deleted_at is not null";
    let rows = tx
        .execute("restoring a datastore version", sql, values![id])
        .await?;
    Ok(rows == 1)
}

/// Removes for good what was put into the trash, or failed, before `before`; says how many.
pub async fn purge(tx: &mut Tx, before: Timestamp, limit: u32) -> Result<u64> {
    let sql = "delete from datastore_version where id in (select id from datastore_version \
          where deleted_at < $1 or (state = 'failed' and finished_at < $1) \
          order by id limit $2)";
    let values = values![before, one_more(limit) - 1];
    tx.execute("emptying the trash of datastores", sql, values)
        .await
}
