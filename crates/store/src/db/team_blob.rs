//! Which bytes a team has sent, and so may name.

use std::collections::HashSet;

use grid_core::blob::BlobId;
use grid_core::id::TeamId;
use grid_core::time::Timestamp;
use sqlx::AssertSqlSafe;

use super::error::Result;
use super::sql::{Columns, MEMBERS_PER_LIST, Value, list, pieces, tuples, values};
use super::tx::Tx;

/// Notes that a team has sent blobs, now or again.
pub async fn put_many(tx: &mut Tx, team: TeamId, ids: &[BlobId], now: Timestamp) -> Result<()> {
    let mut ids = ids.to_vec();
    ids.sort_unstable();
    ids.dedup();
    for piece in pieces(&ids) {
        let sql = format!(
            "insert into team_blob (team, blob, sent_at) values {} \
             on conflict (team, blob) do update set sent_at = excluded.sent_at",
            tuples(piece.len(), 3, 1)
        );
        let mut values: Vec<Value> = Vec::with_capacity(piece.len() * 3);
        for id in piece {
            values.extend(values![team, *id, now]);
        }
        tx.execute("noting what a team has sent", AssertSqlSafe(sql), values)
            .await?;
    }
    Ok(())
}

/// Those of `ids` that a team has not sent, as far as is known, in their order.
pub async fn not_sent(tx: &mut Tx, team: TeamId, ids: &[BlobId]) -> Result<Vec<BlobId>> {
    const DOING: &str = "looking what a team has sent";
    let mut sent = HashSet::with_capacity(ids.len());
    for chunk in ids.chunks(MEMBERS_PER_LIST) {
        let Some((members, of_list)) = list(chunk, 2) else {
            continue;
        };
        let sql = format!("select blob from team_blob where team = $1 and blob in {members}");
        let mut values = values![team];
        values.extend(of_list);
        for row in &tx.rows(DOING, AssertSqlSafe(sql), values).await? {
            sent.insert(Columns::of(DOING, row).parse::<BlobId>()?);
        }
    }
    let lacks = |id: &BlobId| !sent.contains(id);
    Ok(ids.iter().copied().filter(lacks).collect())
}

/// What teams have sent, by team and blob, from behind `after` on.
pub async fn all(
    tx: &mut Tx,
    after: Option<(TeamId, BlobId)>,
    limit: u32,
) -> Result<Vec<(TeamId, BlobId)>> {
    const DOING: &str = "listing what was sent";
    let sql = "select team, blob from team_blob where (team, blob) > ($1, $2) \
         order by team, blob limit $3";
    let (team, blob) = match after {
        Some((team, blob)) => (team.to_string(), blob.to_string()),
        None => (String::new(), String::new()),
    };
    let rows = tx.rows(DOING, sql, values![team, blob, limit]).await?;
    let mut found = Vec::with_capacity(rows.len());
    for row in &rows {
        let mut columns = Columns::of(DOING, row);
        found.push((columns.parse()?, columns.parse()?));
    }
    Ok(found)
}

/// Forgets that a team has sent these; says of how many it was known.
pub async fn remove(tx: &mut Tx, team: TeamId, ids: &[BlobId]) -> Result<u64> {
    let mut removed = 0;
    for chunk in ids.chunks(MEMBERS_PER_LIST) {
        let Some((members, of_list)) = list(chunk, 2) else {
            continue;
        };
        let sql = format!("delete from team_blob where team = $1 and blob in {members}");
        let mut values = values![team];
        values.extend(of_list);
        removed += tx
            .execute("forgetting what is gone", AssertSqlSafe(sql), values)
            .await?;
    }
    Ok(removed)
}

/// Forgets what was sent before a time, at most `limit` of it; says how much.
pub async fn remove_before(tx: &mut Tx, time: Timestamp, limit: u32) -> Result<u64> {
    let sql = "delete from team_blob where (team, blob) in \
         (select team, blob from team_blob where sent_at < $1 order by sent_at limit $2)";
    tx.execute("forgetting what was sent", sql, values![time, limit])
        .await
}
