//! Leases: what only one process may do at a time.

use grid_core::time::Timestamp;

use super::error::Result;
use super::sql::{Columns, values};
use super::tx::Tx;

/// Takes a lease, or prolongs one's own, until `until`; `false` while another holds it.
pub async fn acquire(
    tx: &mut Tx,
    name: &str,
    holder: &str,
    now: Timestamp,
    until: Timestamp,
) -> Result<bool> {
    let sql = "insert into lease (name, holder, expires_at) values ($1, $2, $4) \
         on conflict (name) do update set holder = excluded.holder, expires_at = excluded.expires_at \
            where lease.holder = excluded.holder or lease.expires_at <= $3 \
         returning name";
    let row = tx
        .row("taking a lease", sql, values![name, holder, now, until])
        .await?;
    Ok(row.is_some())
}

/// Gives a lease back; `false` when it is not the holder's.
pub async fn release(tx: &mut Tx, name: &str, holder: &str) -> Result<bool> {
    let sql = "delete from lease where name = $1 and holder = $2";
    Ok(tx
        .execute("giving a lease back", sql, values![name, holder])
        .await?
        == 1)
}

/// Who holds a lease, and until when.
pub async fn holder(tx: &mut Tx, name: &str) -> Result<Option<(String, Timestamp)>> {
    const DOING: &str = "looking at a lease";
    let sql = "select holder, expires_at from lease where name = $1";
    let row = tx.row(DOING, sql, values![name]).await?;
    let Some(row) = row else { return Ok(None) };
    let mut columns = Columns::of(DOING, &row);
    Ok(Some((columns.text()?, columns.time()?)))
}
