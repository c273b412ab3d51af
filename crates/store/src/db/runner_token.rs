//! What the runner of a node proves itself with.  Only hashes are kept.

use grid_core::id::NodeId;
use grid_core::time::Timestamp;

use super::error::Result;
use super::sql::{Columns, values};
use super::tx::Tx;

/// Sets the token of a node; the one before is no longer good.
pub async fn put(tx: &mut Tx, node: &NodeId, hash: &str, at: Timestamp) -> Result<()> {
    let sql = "insert into runner_token (node, hash, created_at) values ($1, $2, $3) \
         on conflict (node) do update set hash = excluded.hash, created_at = excluded.created_at";
    let done = tx
        .execute("setting a runner's token", sql, values![node, hash, at])
        .await;
    done.map(drop).map_err(|e| e.taken("this runner token"))
}

/// The node whose token has this hash.
pub async fn node_by_hash(tx: &mut Tx, hash: &str) -> Result<Option<NodeId>> {
    const DOING: &str = "looking for a runner's token";
    let row = tx
        .row(
            DOING,
            "select node from runner_token where hash = $1",
            values![hash],
        )
        .await?;
    row.as_ref()
        .map(|row| Columns::of(DOING, row).parse())
        .transpose()
}

/// Forgets the token of a node; `false` when it had none.
pub async fn remove(tx: &mut Tx, node: &NodeId) -> Result<bool> {
    let sql = "delete from runner_token where node = $1";
    Ok(tx
        .execute("removing a runner's token", sql, values![node])
        .await?
        == 1)
}
