//! Teams and who is in them.

use std::collections::HashMap;

use grid_core::id::{TeamId, UserId};
use grid_core::team::{Role, Sharing, TeamPolicy};
use grid_core::time::Timestamp;
use sqlx::AssertSqlSafe;
use sqlx::any::AnyRow;

use super::error::Result;
use super::page::{Page, one_more};
use super::sql::{Columns, lists, values};
use super::tx::Tx;
use super::user::{self, User};

/// A team.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Team {
    /// Its id.
    pub id: TeamId,
    /// Its name; unique.
    pub name: String,
    /// Whether it is somebody's own, made with the user.
    pub personal: bool,
    /// Its switches.
    pub policy: TeamPolicy,
    /// When it was made.
    pub created_at: Timestamp,
}

/// A person in a team.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// The person.
    pub user: User,
    /// What it is there.
    pub role: Role,
    /// Since when.
    pub since: Timestamp,
}

const COLUMNS: &str = "t.id, t.name, t.personal, t.run_control, t.jupyter_access, t.created_at";

fn read(columns: &mut Columns<'_>) -> Result<Team> {
    Ok(Team {
        id: columns.parse()?,
        name: columns.text()?,
        personal: columns.flag()?,
        policy: TeamPolicy {
            run_control: columns.word(sharing)?,
            jupyter_access: columns.word(sharing)?,
        },
        created_at: columns.time()?,
    })
}

fn of_row(row: &AnyRow) -> Result<Team> {
    read(&mut Columns::of("reading a team", row))
}

fn sharing(word: &str) -> Option<Sharing> {
    [Sharing::Team, Sharing::Creator]
        .into_iter()
        .find(|sharing| sharing_word(*sharing) == word)
}

fn sharing_word(sharing: Sharing) -> &'static str {
    match sharing {
        Sharing::Team => "team",
        Sharing::Creator => "creator",
    }
}

/// Adds a team.  A taken name is a conflict.
pub async fn insert(tx: &mut Tx, team: &Team) -> Result<()> {
    let sql = "insert into team (id, name, personal, run_control, jupyter_access, created_at) \
         values ($1, $2, $3, $4, $5, $6)";
    let values = values![
        team.id,
        team.name.as_str(),
        team.personal,
        sharing_word(team.policy.run_control),
        sharing_word(team.policy.jupyter_access),
        team.created_at,
    ];
    tx.execute("adding a team", sql, values)
        .await
        .map_err(|e| e.taken("this team name"))?;
    Ok(())
}

/// The team with an id.
pub async fn by_id(tx: &mut Tx, id: TeamId) -> Result<Option<Team>> {
    let sql = format!("select {COLUMNS} from team t where t.id = $1");
    let row = tx
        .row("reading a team", AssertSqlSafe(sql), values![id])
        .await?;
    row.as_ref().map(of_row).transpose()
}

/// The teams with these ids, in no order; unknown ids are left out.
pub async fn by_ids(tx: &mut Tx, ids: &[TeamId]) -> Result<Vec<Team>> {
    let mut teams = Vec::with_capacity(ids.len());
    for (list, values) in lists(ids) {
        let sql = format!("select {COLUMNS} from team t where t.id in {list}");
        let rows = tx.rows("reading teams", AssertSqlSafe(sql), values).await?;
        for row in &rows {
            teams.push(of_row(row)?);
        }
    }
    Ok(teams)
}

/// The team with a name.
pub async fn by_name(tx: &mut Tx, name: &str) -> Result<Option<Team>> {
    let sql = format!("select {COLUMNS} from team t where t.name = $1");
    let row = tx
        .row("looking for a team", AssertSqlSafe(sql), values![name])
        .await?;
    row.as_ref().map(of_row).transpose()
}

/// The teams that a user is in, with what it is there, by name.
pub async fn teams_of(tx: &mut Tx, user: UserId) -> Result<Vec<(Team, Role)>> {
    const DOING: &str = "listing the teams of a user";
    let sql = format!(
        "select {COLUMNS}, m.role from membership m join team t on t.id = m.team \
          where m.usr = $1 order by t.name"
    );
    let rows = tx.rows(DOING, AssertSqlSafe(sql), values![user]).await?;
    let both = |row| {
        let mut columns = Columns::of(DOING, row);
        Ok((read(&mut columns)?, columns.word(Role::parse)?))
    };
    rows.iter().map(both).collect()
}

/// The ids of the teams that a user is in.
pub async fn visible_teams(tx: &mut Tx, user: UserId) -> Result<Vec<TeamId>> {
    const DOING: &str = "looking at the teams of a user";
    let sql = "select team from membership where usr = $1 order by team";
    let rows = tx.rows(DOING, sql, values![user]).await?;
    rows.iter()
        .map(|row| Columns::of(DOING, row).parse())
        .collect()
}

/// The people of a team, by name.
pub async fn members(tx: &mut Tx, team: TeamId) -> Result<Vec<Member>> {
    const DOING: &str = "listing the members of a team";
    let sql = format!(
        "select {}, m.role, m.created_at from membership m join usr u on u.id = m.usr \
          where m.team = $1 order by u.username_folded",
        user::COLUMNS
    );
    let rows = tx.rows(DOING, AssertSqlSafe(sql), values![team]).await?;
    let member = |row| {
        let mut columns = Columns::of(DOING, row);
        let user = user::read(&mut columns)?;
        Ok(Member {
            user,
            role: columns.word(Role::parse)?,
            since: columns.time()?,
        })
    };
    rows.iter().map(member).collect()
}

/// What a user is in a team, if it is in it.
pub async fn role_of(tx: &mut Tx, user: UserId, team: TeamId) -> Result<Option<Role>> {
    const DOING: &str = "looking for a role";
    let sql = "select role from membership where team = $1 and usr = $2";
    let row = tx.row(DOING, sql, values![team, user]).await?;
    row.as_ref()
        .map(|row| Columns::of(DOING, row).word(Role::parse))
        .transpose()
}

/// Puts a user into a team, or changes what it is there.
pub async fn set_role(
    tx: &mut Tx,
    team: TeamId,
    user: UserId,
    role: Role,
    at: Timestamp,
) -> Result<()> {
    let sql = "insert into membership (team, usr, role, created_at) values ($1, $2, $3, $4) \
         on conflict (team, usr) do update set role = excluded.role";
    tx.execute(
        "setting a role",
        sql,
        values![team, user, role.as_str(), at],
    )
    .await
    .map(drop)
}

/// Takes a user out of a team; `false` when it was not in it.
pub async fn remove_member(tx: &mut Tx, team: TeamId, user: UserId) -> Result<bool> {
    let sql = "delete from membership where team = $1 and usr = $2";
    Ok(tx
        .execute("removing a member", sql, values![team, user])
        .await?
        == 1)
}

/// Sets the switches of a team; `false` when there is no such team.
pub async fn set_policy(tx: &mut Tx, team: TeamId, policy: TeamPolicy) -> Result<bool> {
    let sql = "update team set run_control = $2, jupyter_access = $3 where id = $1";
    let values = values![
        team,
        sharing_word(policy.run_control),
        sharing_word(policy.jupyter_access)
    ];
    Ok(tx.execute("setting a policy", sql, values).await? == 1)
}

/// Keeps others from changing a team and who is in it until the transaction is over;
/// `false` when there is no such team.
pub async fn lock(tx: &mut Tx, id: TeamId) -> Result<bool> {
    let sql = "update team set name = name where id = $1";
    Ok(tx.execute("locking a team", sql, values![id]).await? == 1)
}

/// Names a team anew; `false` when there is no such team.  A taken name is a conflict.
pub async fn rename(tx: &mut Tx, id: TeamId, name: &str) -> Result<bool> {
    let sql = "update team set name = $2 where id = $1";
    let renamed = tx.execute("renaming a team", sql, values![id, name]).await;
    Ok(renamed.map_err(|e| e.taken("this team name"))? == 1)
}

/// How many owners a team has.
pub async fn owners(tx: &mut Tx, id: TeamId) -> Result<u64> {
    const DOING: &str = "counting owners";
    let sql = "select count(*) from membership where team = $1 and role = 'owner'";
    let row = tx.row(DOING, sql, values![id]).await?;
    row.as_ref()
        .map_or(Ok(0), |row| Columns::of(DOING, row).number())
}

/// How many people are in each of these teams.
pub async fn sizes(tx: &mut Tx, ids: &[TeamId]) -> Result<HashMap<TeamId, u64>> {
    const DOING: &str = "counting members";
    let mut sizes = HashMap::with_capacity(ids.len());
    for (list, values) in lists(ids) {
        let sql =
            format!("select team, count(*) from membership where team in {list} group by team");
        for row in &tx.rows(DOING, AssertSqlSafe(sql), values).await? {
            let mut columns = Columns::of(DOING, row);
            sizes.insert(columns.parse()?, columns.number()?);
        }
    }
    Ok(sizes)
}

/// All teams that are nobody's own, by name, from the one after `after` on.
pub async fn list(tx: &mut Tx, after: Option<&str>, limit: u32) -> Result<Page<Team, String>> {
    let sql = format!(
        "select {COLUMNS} from team t where t.name > $1 and t.personal = 0 \
          order by t.name limit $2"
    );
    let values = values![after.unwrap_or_default(), one_more(limit)];
    let rows = tx.rows("listing teams", AssertSqlSafe(sql), values).await?;
    let teams: Vec<Team> = rows.iter().map(of_row).collect::<Result<_>>()?;
    Ok(Page::cut(teams, limit, |team| team.name.clone()))
}
