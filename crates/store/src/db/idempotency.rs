//! What was already done under a key that the caller chose.

use grid_core::id::{RunId, UserId};
use grid_core::time::Timestamp;

use super::error::Result;
use super::sql::{Columns, values};
use super::tx::Tx;

/// What was done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Done {
    /// The run that was made.
    pub run: RunId,
    /// The hash of what was asked for, to notice another wish under the same key.
    pub body_hash: String,
    /// When.
    pub created_at: Timestamp,
}

/// What a user did under a key, if it did.
pub async fn get(tx: &mut Tx, user: UserId, key: &str) -> Result<Option<Done>> {
    const DOING: &str = "looking for an idempotency key";
    let sql = "select run, body_hash, created_at from idempotency where usr = $1 and key = $2";
    let Some(row) = tx.row(DOING, sql, values![user, key]).await? else {
        return Ok(None);
    };
    let mut columns = Columns::of(DOING, &row);
    Ok(Some(Done {
        run: columns.parse()?,
        body_hash: columns.text()?,
        created_at: columns.time()?,
    }))
}

/// Notes what was done, in the transaction that does it.  A used key is a conflict.
pub async fn put(tx: &mut Tx, user: UserId, key: &str, done: &Done) -> Result<()> {
    let sql = "insert into idempotency (usr, key, run, body_hash, created_at) \
         values ($1, $2, $3, $4, $5)";
    let values = values![
        user,
        key,
        done.run,
        done.body_hash.as_str(),
        done.created_at
    ];
    let written = tx.execute("writing an idempotency key", sql, values).await;
    written
        .map(drop)
        .map_err(|e| e.taken("this idempotency key"))
}

/// Forgets what was done before a time; says how much that was.
pub async fn remove_before(tx: &mut Tx, time: Timestamp) -> Result<u64> {
    let sql = "delete from idempotency where created_at < $1";
    tx.execute("removing old idempotency keys", sql, values![time])
        .await
}
