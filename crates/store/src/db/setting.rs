//! Single values of the installation.

use super::error::Result;
use super::sql::{Columns, values};
use super::tx::Tx;

/// A value, if it was set.
pub async fn get(tx: &mut Tx, key: &str) -> Result<Option<String>> {
    const DOING: &str = "reading a setting";
    let row = tx
        .row(
            DOING,
            "select value from setting where key = $1",
            values![key],
        )
        .await?;
    row.as_ref()
        .map(|row| Columns::of(DOING, row).text())
        .transpose()
}

/// Sets a value.
pub async fn put(tx: &mut Tx, key: &str, value: &str) -> Result<()> {
    let sql = "insert into setting (key, value) values ($1, $2) \
         on conflict (key) do update set value = excluded.value";
    tx.execute("writing a setting", sql, values![key, value])
        .await
        .map(drop)
}

/// Forgets a value; `false` when there was none.
pub async fn remove(tx: &mut Tx, key: &str) -> Result<bool> {
    Ok(tx
        .execute(
            "removing a setting",
            "delete from setting where key = $1",
            values![key],
        )
        .await?
        == 1)
}
