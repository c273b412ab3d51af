//! Public SSH keys of users.

use grid_core::id::{SshKeyId, UserId};
use grid_core::time::Timestamp;
use sqlx::any::AnyRow;

use super::error::Result;
use super::sql::{Columns, values};
use super::tx::Tx;

/// A public key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SshKey {
    /// Its id.
    pub id: SshKeyId,
    /// Whose it is.
    pub user: UserId,
    /// What its owner calls it; unique among theirs.
    pub name: String,
    /// The line of a `.pub` file.
    pub public_key: String,
    /// `SHA256:…`; unique among those of its owner.
    pub fingerprint: String,
    /// When it was added.
    pub created_at: Timestamp,
}

fn of_row(row: &AnyRow) -> Result<SshKey> {
    let mut columns = Columns::of("reading an SSH key", row);
    Ok(SshKey {
        id: columns.parse()?,
        user: columns.parse()?,
        name: columns.text()?,
        public_key: columns.text()?,
        fingerprint: columns.text()?,
        created_at: columns.time()?,
    })
}

/// Adds a key.
pub async fn insert(tx: &mut Tx, key: &SshKey) -> Result<()> {
    let sql = "insert into ssh_key (id, usr, name, public_key, fingerprint, created_at) \
         values ($1, $2, $3, $4, $5, $6)";
    let values = values![
        key.id.to_string(),
        key.user,
        key.name.as_str(),
        key.public_key.as_str(),
        key.fingerprint.as_str(),
        key.created_at,
    ];
    let inserted = tx.execute("adding an SSH key", sql, values).await;
    inserted.map_err(|e| e.taken("this SSH key")).map(drop)
}

/// The keys of a user, the oldest first.
pub async fn of_user(tx: &mut Tx, user: UserId) -> Result<Vec<SshKey>> {
    let sql = "select id, usr, name, public_key, fingerprint, created_at \
           from ssh_key where usr = $1 order by created_at, id";
    let rows = tx.rows("listing SSH keys", sql, values![user]).await?;
    rows.iter().map(of_row).collect()
}

/// Removes a key of a user; `false` when there is none.
pub async fn remove(tx: &mut Tx, user: UserId, id: SshKeyId) -> Result<bool> {
    let sql = "delete from ssh_key where id = $1 and usr = $2";
    let values = values![id.to_string(), user];
    Ok(tx.execute("removing an SSH key", sql, values).await? == 1)
}
