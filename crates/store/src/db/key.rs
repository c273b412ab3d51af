//! API keys: what signs a person in.  Only hashes are kept.

use grid_core::id::{KeyId, UserId};
use grid_core::time::Timestamp;
use sqlx::AssertSqlSafe;
use sqlx::any::AnyRow;

use super::error::Result;
use super::sql::{Columns, values};
use super::tx::Tx;
use super::user::{self, User};

/// An API key, without its secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Key {
    /// Its id.
    pub id: KeyId,
    /// Whose it is.
    pub user: UserId,
    /// What its owner calls it.
    pub name: String,
    /// What it is good for: a word or document of the caller.
    pub scope: String,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it ends.
    pub expires_at: Option<Timestamp>,
    /// When it was last seen, to the minute or so.
    pub last_used_at: Option<Timestamp>,
    /// When it was taken back.
    pub revoked_at: Option<Timestamp>,
    /// What it is known by where requests are signed with it; none for keys that are sent.
    pub access_key: Option<String>,
}

/// The secret of a key that signs requests, closed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SealedSecret {
    /// It.
    pub text: String,
    /// What the key that opens it is called.
    pub with: String,
}

/// The columns that [`read`] reads.
const COLUMNS: &str = "k.id, k.usr, k.name, k.scope, k.created_at, k.expires_at, \
     k.last_used_at, k.revoked_at, k.access_key";

fn read(columns: &mut Columns<'_>) -> Result<Key> {
    Ok(Key {
        id: columns.parse()?,
        user: columns.parse()?,
        name: columns.text()?,
        scope: columns.text()?,
        created_at: columns.time()?,
        expires_at: columns.opt_time()?,
        last_used_at: columns.opt_time()?,
        revoked_at: columns.opt_time()?,
        access_key: columns.opt_text()?,
    })
}

/// Adds a key that signs requests, with its secret, closed.
pub async fn insert_signing(tx: &mut Tx, key: &Key, sealed: &SealedSecret) -> Result<()> {
    let sql = "insert into api_key (id, usr, name, hash, scope, created_at, expires_at, \
         access_key, sealed, sealed_with) values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)";
    let access_key = key.access_key.as_deref().unwrap_or_default();
    let values = values![
        key.id,
        key.user,
        key.name.as_str(),
        // No key that is sent has this hash.
        format!("s3 {access_key}"),
        key.scope.as_str(),
        key.created_at,
        key.expires_at,
        access_key,
        sealed.text.as_str(),
        sealed.with.as_str(),
    ];
    tx.execute("adding a key that signs", sql, values)
        .await
        .map_err(|e| e.taken("this key"))?;
    Ok(())
}

/// The key that signs under this name, its user and its secret, closed; whether they are
/// (still) good is for the caller to see.
pub async fn by_access_key(
    tx: &mut Tx,
    access_key: &str,
) -> Result<Option<(Key, User, SealedSecret)>> {
    const DOING: &str = "looking for a key that signs";
    let sql = format!(
        "select {COLUMNS}, {}, k.sealed, k.sealed_with \
           from api_key k join usr u on u.id = k.usr \
          where k.access_key = $1 and k.sealed is not null",
        user::COLUMNS
    );
    let row = tx
        .row(DOING, AssertSqlSafe(sql), values![access_key])
        .await?;
    let all = |row: &AnyRow| {
        let mut columns = Columns::of(DOING, row);
        let (key, user) = (read(&mut columns)?, user::read(&mut columns)?);
        let (text, with) = (columns.text()?, columns.text()?);
        Ok((key, user, SealedSecret { text, with }))
    };
    row.as_ref().map(all).transpose()
}

/// How many keys that sign, and could be used, were encrypted with another key than this one.
pub async fn sealed_otherwise(tx: &mut Tx, key: &str, now: Timestamp) -> Result<u64> {
    const DOING: &str = "counting keys that sign";
    let sql = "select count(*) from api_key where sealed is not null and sealed_with <> $1 \
            and revoked_at is null and (expires_at is null or expires_at > $2)";
    let row = tx.row(DOING, sql, values![key, now]).await?;
    match &row {
        Some(row) => Columns::of(DOING, row).number(),
        None => Ok(0),
    }
}

/// Adds a key with the hash of its secret.
pub async fn insert(tx: &mut Tx, key: &Key, hash: &str) -> Result<()> {
    let sql = "insert into api_key (id, usr, name, hash, scope, created_at, expires_at, \
         last_used_at, revoked_at) values ($1, $2, $3, $4, $5, $6, $7, $8, $9)";
    let values = values![
        key.id,
        key.user,
        key.name.as_str(),
        hash,
        key.scope.as_str(),
        key.created_at,
        key.expires_at,
        key.last_used_at,
        key.revoked_at,
    ];
    tx.execute("adding a key", sql, values)
        .await
        .map_err(|e| e.taken("this key"))?;
    Ok(())
}

/// The key whose secret has this hash, and its user; whether they are (still) good is for
/// the caller to see.
pub async fn by_hash(tx: &mut Tx, hash: &str) -> Result<Option<(Key, User)>> {
    const DOING: &str = "looking for a key";
    let sql = format!(
        "select {COLUMNS}, {} \
           from api_key k join usr u on u.id = k.usr where k.hash = $1",
        user::COLUMNS
    );
    let row = tx.row(DOING, AssertSqlSafe(sql), values![hash]).await?;
    let both = |row: &AnyRow| {
        let mut columns = Columns::of(DOING, row);
        Ok((read(&mut columns)?, user::read(&mut columns)?))
    };
    row.as_ref().map(both).transpose()
}

/// Notes that a key was seen.  Once a minute is enough: the caller looks at `last_used_at`.
pub async fn touch(tx: &mut Tx, id: KeyId, at: Timestamp) -> Result<bool> {
    let sql = "update api_key set last_used_at = $2 \
          where id = $1 and (last_used_at is null or last_used_at < $2)";
    Ok(tx
        .execute("noting that a key was used", sql, values![id, at])
        .await?
        == 1)
}

/// Takes a key back; `false` when it is not there or was taken back before.
pub async fn revoke(tx: &mut Tx, id: KeyId, at: Timestamp) -> Result<bool> {
    let sql = "update api_key set revoked_at = $2 where id = $1 and revoked_at is null";
    Ok(tx.execute("revoking a key", sql, values![id, at]).await? == 1)
}

/// All keys of a user, the oldest first, revoked ones too.
pub async fn of_user(tx: &mut Tx, user: UserId) -> Result<Vec<Key>> {
    const DOING: &str = "listing keys";
    let sql =
        format!("select {COLUMNS} from api_key k where k.usr = $1 order by k.created_at, k.id");
    let rows = tx.rows(DOING, AssertSqlSafe(sql), values![user]).await?;
    rows.iter()
        .map(|row| read(&mut Columns::of(DOING, row)))
        .collect()
}
