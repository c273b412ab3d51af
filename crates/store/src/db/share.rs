//! Links that people pass on.  Only the hashes of their tokens are kept.

use grid_core::id::{RunId, TeamId, UserId, WorkloadId};
use grid_core::time::Timestamp;
use sqlx::AssertSqlSafe;
use sqlx::any::AnyRow;

use super::error::Result;
use super::page::{Page, Position, before, one_more};
use super::scope::Scope;
use super::sql::{Columns, Value, pieces, tuples, values};
use super::tx::Tx;

/// A link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Share {
    /// Its id; sorts by age.
    pub id: String,
    /// The team of what it leads to.
    pub team: TeamId,
    /// Who made it.
    pub creator: UserId,
    /// The run that it leads to, or that the artifact belongs to.
    pub run: RunId,
    /// The experiment and the path of the artifact, if it leads to one.
    pub artifact: Option<(WorkloadId, String)>,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it ends.
    pub expires_at: Option<Timestamp>,
    /// When it was taken back.
    pub revoked_at: Option<Timestamp>,
    /// When it was last used, to the minute or so.
    pub last_used_at: Option<Timestamp>,
}

/// Which links; what is `None` does not matter.
#[derive(Debug, Clone, Default)]
pub struct Filter<'a> {
    /// Whose.
    pub scope: Scope<'a>,
    /// Those to a run and its artifacts.
    pub run: Option<RunId>,
    /// Those that work at this time.
    pub open_at: Option<Timestamp>,
    /// Those after this place in the list.
    pub after: Option<Position<String>>,
}

const COLUMNS: &str = "id, team, creator, run, workload, path, created_at, expires_at, \
     revoked_at, last_used_at";

/// Columns of a new row.
const NEW_COLUMNS_N: usize = 10;

fn of_row(row: &AnyRow) -> Result<Share> {
    let mut columns = Columns::of("reading a link", row);
    let (id, team, creator, run) = (
        columns.text()?,
        columns.parse()?,
        columns.parse()?,
        columns.parse()?,
    );
    let (workload, path) = (columns.opt_parse()?, columns.opt_text()?);
    Ok(Share {
        id,
        team,
        creator,
        run,
        artifact: workload.zip(path),
        created_at: columns.time()?,
        expires_at: columns.opt_time()?,
        revoked_at: columns.opt_time()?,
        last_used_at: columns.opt_time()?,
    })
}

/// Adds links, each with the hash of its token.
pub async fn insert_many(tx: &mut Tx, shares: &[(Share, String)]) -> Result<()> {
    for piece in pieces(shares) {
        let sql = format!(
            "insert into share (id, kind, token_hash, team, creator, run, workload, path, \
             created_at, expires_at) values {}",
            tuples(piece.len(), NEW_COLUMNS_N, 1)
        );
        let mut values: Vec<Value> = Vec::with_capacity(piece.len() * NEW_COLUMNS_N);
        for (share, hash) in piece {
            let artifact = share.artifact.as_ref();
            let kind = if artifact.is_some() {
                "artifact"
            } else {
                "run"
            };
            values.extend(values![
                share.id.as_str(),
                kind,
                hash.as_str(),
                share.team,
                share.creator,
                share.run,
                artifact.map(|(workload, _)| *workload),
                artifact.map(|(_, path)| path.as_str()),
                share.created_at,
                share.expires_at,
            ]);
        }
        tx.execute("adding links", AssertSqlSafe(sql), values)
            .await?;
    }
    Ok(())
}

/// The link whose token has this hash; whether it (still) works is for the caller to see.
pub async fn by_hash(tx: &mut Tx, hash: &str) -> Result<Option<Share>> {
    one(tx, "token_hash", hash).await
}

/// The link with an id.
pub async fn by_id(tx: &mut Tx, id: &str) -> Result<Option<Share>> {
    one(tx, "id", id).await
}

async fn one(tx: &mut Tx, column: &'static str, value: &str) -> Result<Option<Share>> {
    let sql = format!("select {COLUMNS} from share where {column} = $1");
    let row = tx
        .row("looking for a link", AssertSqlSafe(sql), values![value])
        .await?;
    row.as_ref().map(of_row).transpose()
}

/// Links, the newest first.
pub async fn list(
    tx: &mut Tx,
    filter: &Filter<'_>,
    limit: u32,
) -> Result<Page<Share, Position<String>>> {
    let (scope, more) = filter.scope.whole("creator", "team", 6);
    let sql = format!(
        "select {COLUMNS} from share where {scope} and (created_at, id) < ($1, $2) \
            and (cast($3 as text) is null or run = $3) \
            and (cast($4 as bigint) is null \
                 or (revoked_at is null and (expires_at is null or expires_at > $4))) \
          order by created_at desc, id desc limit $5"
    );
    let (at, id) = before(filter.after.as_ref());
    let mut values: Vec<Value> = values![at, id, filter.run, filter.open_at, one_more(limit)];
    values.extend(more);
    let rows = tx.rows("listing links", AssertSqlSafe(sql), values).await?;
    let shares: Vec<Share> = rows.iter().map(of_row).collect::<Result<_>>()?;
    Ok(Page::cut(shares, limit, |share| Position {
        at: share.created_at,
        id: share.id.clone(),
    }))
}

/// Takes a link back; `false` when it is not there or was taken back before.
pub async fn revoke(tx: &mut Tx, id: &str, at: Timestamp) -> Result<bool> {
    let sql = "update share set revoked_at = $2 where id = $1 and revoked_at is null";
    Ok(tx.execute("revoking a link", sql, values![id, at]).await? == 1)
}

/// Takes back all links that somebody made in a team; says how many worked until then.
pub async fn revoke_of(tx: &mut Tx, team: TeamId, creator: UserId, at: Timestamp) -> Result<u64> {
    let sql = "update share set revoked_at = $3 \
          where creator = $2 and team = $1 and revoked_at is null \
            and (expires_at is null or expires_at > $3)";
    let values = values![team, creator, at];
    tx.execute("revoking the links of a member", sql, values)
        .await
}

/// Notes that a link was used.
pub async fn touch(tx: &mut Tx, id: &str, at: Timestamp) -> Result<()> {
    let sql = "update share set last_used_at = $2 \
          where id = $1 and (last_used_at is null or last_used_at < $2)";
    tx.execute("noting that a link was used", sql, values![id, at])
        .await
        .map(drop)
}

/// Forgets links that ended before a time; says how many.
pub async fn remove_before(tx: &mut Tx, time: Timestamp) -> Result<u64> {
    let sql = "delete from share where expires_at < $1 or revoked_at < $1";
    tx.execute("removing old links", sql, values![time]).await
}
