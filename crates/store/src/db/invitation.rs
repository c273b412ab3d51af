//! Invitations to teams: open until accepted, declined, revoked or over.

use grid_core::id::{TeamId, UserId};
use grid_core::team::Role;
use grid_core::time::Timestamp;
use sqlx::AssertSqlSafe;
use sqlx::any::AnyRow;

use super::error::Result;
use super::sql::{Columns, values};
use super::tx::Tx;

/// An invitation that nobody has answered yet; it may be over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Invitation {
    /// Its id; sorts by age.
    pub id: String,
    /// Into which team.
    pub team: TeamId,
    /// Whom: a user name or an address, as it was given.
    pub invitee: String,
    /// Who was named, if there was such a user.
    pub user: Option<UserId>,
    /// What they will be there.
    pub role: Role,
    /// Who invites.
    pub invited_by: UserId,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it is over.
    pub expires_at: Timestamp,
}

/// How an invitation ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The invited joined.
    Accepted,
    /// The invited would not.
    Declined,
    /// It was taken back, or replaced by a newer one.
    Revoked,
}

impl Outcome {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Accepted => "accepted",
            Self::Declined => "declined",
            Self::Revoked => "revoked",
        }
    }
}

const COLUMNS: &str = "id, team, invitee, usr, role, invited_by, created_at, expires_at";

fn of_row(row: &AnyRow) -> Result<Invitation> {
    let mut columns = Columns::of("reading an invitation", row);
    Ok(Invitation {
        id: columns.text()?,
        team: columns.parse()?,
        invitee: columns.text()?,
        user: columns.opt_parse()?,
        role: columns.word(Role::parse)?,
        invited_by: columns.parse()?,
        created_at: columns.time()?,
        expires_at: columns.time()?,
    })
}

fn fold(text: &str) -> String {
    text.trim().to_lowercase()
}

/// Adds an invitation, with the hash of its token if it has one.  An open one of the same
/// team to the same name ends.
pub async fn insert(tx: &mut Tx, invitation: &Invitation, hash: Option<&str>) -> Result<()> {
    let sql = "update invitation set ended_at = $3, outcome = 'revoked' \
          where team = $1 and invitee_folded = $2 and ended_at is null";
    let folded = fold(&invitation.invitee);
    let at = invitation.created_at;
    let values = values![invitation.team, folded.as_str(), at];
    tx.execute("replacing an invitation", sql, values).await?;
    let sql = "insert into invitation (id, team, invitee, invitee_folded, usr, role, token_hash, \
         invited_by, created_at, expires_at) values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)";
    let values = values![
        invitation.id.as_str(),
        invitation.team,
        invitation.invitee.as_str(),
        folded,
        invitation.user,
        invitation.role.as_str(),
        hash,
        invitation.invited_by,
        at,
        invitation.expires_at,
    ];
    tx.execute("adding an invitation", sql, values)
        .await
        .map(drop)
}

/// The open invitations of a team at a time, the oldest first.
pub async fn of_team(tx: &mut Tx, team: TeamId, now: Timestamp) -> Result<Vec<Invitation>> {
    let sql = format!(
        "select {COLUMNS} from invitation \
          where team = $1 and ended_at is null and expires_at > $2 order by created_at, id"
    );
    let rows = tx
        .rows(
            "listing invitations",
            AssertSqlSafe(sql),
            values![team, now],
        )
        .await?;
    rows.iter().map(of_row).collect()
}

/// The open invitations to a user at a time, by id or by address, the oldest first.
pub async fn to_user(
    tx: &mut Tx,
    user: UserId,
    address: &str,
    now: Timestamp,
) -> Result<Vec<Invitation>> {
    const DOING: &str = "listing invitations";
    let open = "ended_at is null and expires_at > $2";
    let sql = format!("select {COLUMNS} from invitation where usr = $1 and {open}");
    let mut rows = tx
        .rows(DOING, AssertSqlSafe(sql), values![user, now])
        .await?;
    let folded = fold(address);
    if !folded.is_empty() {
        let sql = format!("select {COLUMNS} from invitation where invitee_folded = $1 and {open}");
        rows.extend(
            tx.rows(DOING, AssertSqlSafe(sql), values![folded, now])
                .await?,
        );
    }
    let mut found: Vec<Invitation> = rows.iter().map(of_row).collect::<Result<_>>()?;
    found.sort_by(|a, b| (a.created_at, &a.id).cmp(&(b.created_at, &b.id)));
    found.dedup_by(|a, b| a.id == b.id);
    Ok(found)
}

/// The open invitation whose token has this hash; it may be over.
pub async fn by_hash(tx: &mut Tx, hash: &str) -> Result<Option<Invitation>> {
    let sql =
        format!("select {COLUMNS} from invitation where token_hash = $1 and ended_at is null");
    let row = tx
        .row(
            "looking for an invitation",
            AssertSqlSafe(sql),
            values![hash],
        )
        .await?;
    row.as_ref().map(of_row).transpose()
}

/// Ends an invitation; `false` when it is not there or has ended before.
pub async fn end(tx: &mut Tx, id: &str, outcome: Outcome, at: Timestamp) -> Result<bool> {
    let sql = "update invitation set ended_at = $2, outcome = $3 \
          where id = $1 and ended_at is null";
    let values = values![id, at, outcome.as_str()];
    Ok(tx.execute("ending an invitation", sql, values).await? == 1)
}
