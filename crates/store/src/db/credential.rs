//! Credentials.  What they say is encrypted; here it is text that nobody reads.

use grid_core::credential::Kind;
use grid_core::id::{CredentialId, TeamId, UserId};
use grid_core::time::Timestamp;
use sqlx::AssertSqlSafe;
use sqlx::any::AnyRow;

use super::error::Result;
use super::sql::{Columns, list as members, values};
use super::tx::Tx;

/// A credential, closed.
#[derive(Clone, PartialEq, Eq)]
pub struct Credential {
    /// Its id.
    pub id: CredentialId,
    /// The team that may use it.
    pub team: TeamId,
    /// Who made it.
    pub creator: UserId,
    /// What its creator calls it; unique among theirs.
    pub name: String,
    /// What kind it is.
    pub kind: Kind,
    /// What it says, encrypted.
    pub sealed: String,
    /// With which key, by the name of the key.
    pub sealed_with: String,
    /// When it was made.
    pub created_at: Timestamp,
    /// When something else was put into it.
    pub updated_at: Timestamp,
}

// What is encrypted has no business in a log either.
impl std::fmt::Debug for Credential {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Credential")
            .field("id", &self.id)
            .field("name", &self.name)
            .field("kind", &self.kind)
            .finish_non_exhaustive()
    }
}

const COLUMNS: &str = "id, team, creator, name, kind, sealed, sealed_with, created_at, updated_at";

fn of_row(row: &AnyRow) -> Result<Credential> {
    let mut columns = Columns::of("reading a credential", row);
    Ok(Credential {
        id: columns.parse()?,
        team: columns.parse()?,
        creator: columns.parse()?,
        name: columns.text()?,
        kind: columns.word(Kind::parse)?,
        sealed: columns.text()?,
        sealed_with: columns.text()?,
        created_at: columns.time()?,
        updated_at: columns.time()?,
    })
}

/// Adds a credential.
pub async fn insert(tx: &mut Tx, credential: &Credential) -> Result<()> {
    let sql = "insert into credential (id, team, creator, name, kind, sealed, sealed_with, \
         created_at, updated_at) values ($1, $2, $3, $4, $5, $6, $7, $8, $9)";
    let values = values![
        credential.id.to_string(),
        credential.team,
        credential.creator,
        credential.name.as_str(),
        credential.kind.as_str(),
        credential.sealed.as_str(),
        credential.sealed_with.as_str(),
        credential.created_at,
        credential.updated_at,
    ];
    let inserted = tx.execute("adding a credential", sql, values).await;
    inserted
        .map_err(|e| e.taken("the name of this credential"))
        .map(drop)
}

/// The credential with an id.
pub async fn by_id(tx: &mut Tx, id: CredentialId) -> Result<Option<Credential>> {
    let sql = format!("select {COLUMNS} from credential where id = $1");
    let values = values![id.to_string()];
    let row = tx
        .row("looking for a credential", AssertSqlSafe(sql), values)
        .await?;
    row.as_ref().map(of_row).transpose()
}

/// The credential that somebody made under a name.
pub async fn by_name(tx: &mut Tx, creator: UserId, name: &str) -> Result<Option<Credential>> {
    let sql = format!("select {COLUMNS} from credential where creator = $1 and name = $2");
    let row = tx
        .row(
            "looking for a credential",
            AssertSqlSafe(sql),
            values![creator, name],
        )
        .await?;
    row.as_ref().map(of_row).transpose()
}

/// What somebody made, the oldest first.
pub async fn of_creator(tx: &mut Tx, creator: UserId) -> Result<Vec<Credential>> {
    let sql =
        format!("select {COLUMNS} from credential where creator = $1 order by created_at, id");
    let rows = tx
        .rows("listing credentials", AssertSqlSafe(sql), values![creator])
        .await?;
    rows.iter().map(of_row).collect()
}

/// What belongs to these teams, the oldest first.  It is not paged: so many a user may make,
/// and so many members a team may have.
pub async fn of_teams(tx: &mut Tx, teams: &[TeamId]) -> Result<Vec<Credential>> {
    let Some((list, values)) = members(teams, 1) else {
        return Ok(vec![]);
    };
    let sql =
        format!("select {COLUMNS} from credential where team in {list} order by created_at, id");
    let rows = tx
        .rows("listing credentials", AssertSqlSafe(sql), values)
        .await?;
    rows.iter().map(of_row).collect()
}

/// Puts something else into a credential; `false` when it is gone or has changed since.
pub async fn update(
    tx: &mut Tx,
    credential: &Credential,
    changed_since: Timestamp,
) -> Result<bool> {
    let sql = "update credential set kind = $2, sealed = $3, sealed_with = $4, updated_at = $5 \
          where id = $1 and updated_at = $6";
    let values = values![
        credential.id.to_string(),
        credential.kind.as_str(),
        credential.sealed.as_str(),
        credential.sealed_with.as_str(),
        credential.updated_at,
        changed_since,
    ];
    Ok(tx.execute("changing a credential", sql, values).await? == 1)
}

/// Removes a credential; `false` when it is not there.
pub async fn remove(tx: &mut Tx, id: CredentialId) -> Result<bool> {
    let sql = "delete from credential where id = $1";
    let values = values![id.to_string()];
    Ok(tx.execute("removing a credential", sql, values).await? == 1)
}

/// How many credentials were encrypted with another key than this one.
pub async fn sealed_otherwise(tx: &mut Tx, key: &str) -> Result<u64> {
    const DOING: &str = "counting credentials";
    let sql = "select count(*) from credential where sealed_with <> $1";
    let row = tx.row(DOING, sql, values![key]).await?;
    match &row {
        Some(row) => Columns::of(DOING, row).number(),
        None => Ok(0),
    }
}
