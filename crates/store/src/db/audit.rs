//! Who did what: rows are only ever added, and go when they are too old.

use grid_core::id::{TeamId, UserId};
use grid_core::time::Timestamp;
use sqlx::AssertSqlSafe;
use sqlx::any::AnyRow;

use super::error::Result;
use super::page::{Page, Position, before, one_more};
use super::sql::{Columns, Value, pieces, tuples, values};
use super::tx::Tx;

/// One line of the audit log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its id; sorts by age.
    pub id: String,
    /// When.
    pub at: Timestamp,
    /// In which team, if in one.
    pub team: Option<TeamId>,
    /// Which user, if it was one.
    pub user: Option<UserId>,
    /// What kind of somebody: `user`, `operator`, `service`, `link`, `nobody`.
    pub actor_kind: String,
    /// Who, for people: a name that stays readable when the user is gone.
    pub actor: String,
    /// What was done.
    pub action: String,
    /// To what kind of thing.
    pub thing_kind: String,
    /// Its id.
    pub thing_id: String,
    /// Its name then.
    pub thing_name: String,
    /// What came of it.
    pub result: String,
    /// More about it.
    pub detail: String,
    /// From which address.
    pub address: String,
    /// With which program.
    pub client: String,
}

/// Which lines; what is `None` does not matter.
#[derive(Debug, Clone, Default)]
pub struct Filter<'a> {
    /// Those of a team.
    pub team: Option<TeamId>,
    /// Those of a user.
    pub user: Option<UserId>,
    /// Those of one action.
    pub action: Option<&'a str>,
    /// Those about one thing, by its id or its name.
    pub thing: Option<&'a str>,
    /// Those with one result.
    pub result: Option<&'a str>,
    /// Not the refusals for this reason.
    pub not_refused_as: Option<&'a str>,
    /// Those at this time or later.
    pub from: Option<Timestamp>,
    /// Those before this time.
    pub until: Option<Timestamp>,
    /// Those after this place in the list.
    pub after: Option<Position<String>>,
}

const COLUMNS: &str = "id, at, team, usr, actor, action, thing_kind, thing_id, thing_name, \
     result, detail, address, client, actor_kind";

/// How many columns these are.
const COLUMNS_N: usize = 14;

fn of_row(row: &AnyRow) -> Result<Entry> {
    let mut columns = Columns::of("reading the audit log", row);
    Ok(Entry {
        id: columns.text()?,
        at: columns.time()?,
        team: columns.opt_parse()?,
        user: columns.opt_parse()?,
        actor: columns.text()?,
        action: columns.text()?,
        thing_kind: columns.text()?,
        thing_id: columns.text()?,
        thing_name: columns.text()?,
        result: columns.text()?,
        detail: columns.text()?,
        address: columns.text()?,
        client: columns.text()?,
        actor_kind: columns.text()?,
    })
}

/// Adds a line.
pub async fn insert(tx: &mut Tx, entry: &Entry) -> Result<()> {
    insert_many(tx, std::slice::from_ref(entry)).await
}

/// Adds lines.
pub async fn insert_many(tx: &mut Tx, entries: &[Entry]) -> Result<()> {
    for piece in pieces(entries) {
        let sql = format!(
            "insert into audit ({COLUMNS}) values {}",
            tuples(piece.len(), COLUMNS_N, 1)
        );
        let mut values: Vec<Value> = Vec::with_capacity(piece.len() * COLUMNS_N);
        for entry in piece {
            values.extend(values![
                entry.id.as_str(),
                entry.at,
                entry.team,
                entry.user,
                entry.actor.as_str(),
                entry.action.as_str(),
                entry.thing_kind.as_str(),
                entry.thing_id.as_str(),
                entry.thing_name.as_str(),
                entry.result.as_str(),
                entry.detail.as_str(),
                entry.address.as_str(),
                entry.client.as_str(),
                entry.actor_kind.as_str(),
            ]);
        }
        tx.execute("writing the audit log", AssertSqlSafe(sql), values)
            .await?;
    }
    Ok(())
}

/// Lines, the newest first.
pub async fn list(
    tx: &mut Tx,
    filter: &Filter<'_>,
    limit: u32,
) -> Result<Page<Entry, Position<String>>> {
    // Team and user are in the text, so that their indexes can be used.
    let team = if filter.team.is_some() {
        "team = $8"
    } else {
        "cast($8 as text) is null"
    };
    let user = match (filter.user.is_some(), filter.team.is_some()) {
        (false, _) => "cast($5 as text) is null",
        (true, false) => "usr = $5",
        // The index of the team is the one to walk.
        (true, true) => "usr || '' = $5",
    };
    let sql = format!(
        "select {COLUMNS} from audit where {team} and {user} \
            and (at, id) < ($1, $2) and at >= $3 and at < $4 \
            and (cast($6 as text) is null or action = $6) \
            and (cast($7 as text) is null or thing_id = $7 or thing_name = $7) \
            and (cast($10 as text) is null or result = $10) \
            and (cast($11 as text) is null or result <> 'refused' or detail <> $11) \
          order by at desc, id desc limit $9"
    );
    let (at, id) = before(filter.after.as_ref());
    let from = filter.from.map_or(i64::MIN, Timestamp::as_millis);
    let until = filter.until.map_or(i64::MAX, Timestamp::as_millis);
    let values: Vec<Value> = values![
        at,
        id,
        from,
        until,
        filter.user,
        filter.action,
        filter.thing,
        filter.team,
        one_more(limit),
        filter.result,
        filter.not_refused_as,
    ];
    let rows = tx
        .rows("reading the audit log", AssertSqlSafe(sql), values)
        .await?;
    let entries: Vec<Entry> = rows.iter().map(of_row).collect::<Result<_>>()?;
    Ok(Page::cut(entries, limit, |entry| Position {
        at: entry.at,
        id: entry.id.clone(),
    }))
}

/// Forgets lines from before a time, at most `limit` of them; says how many.
pub async fn remove_before(tx: &mut Tx, time: Timestamp, limit: u32) -> Result<u64> {
    let sql = "delete from audit where id in \
         (select id from audit where at < $1 order by at, id limit $2)";
    tx.execute("shortening the audit log", sql, values![time, limit])
        .await
}
