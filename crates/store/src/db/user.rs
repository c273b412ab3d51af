//! People.

use std::collections::HashMap;

use grid_core::id::{TeamId, UserId};
use grid_core::time::Timestamp;
use sqlx::AssertSqlSafe;
use sqlx::any::AnyRow;

use super::error::{Error, Result};
use super::page::{Page, one_more};
use super::sql::{Columns, lists, values};
use super::tx::Tx;

/// A person.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// Its id.
    pub id: UserId,
    /// What it signs in with; unique whatever the case of its letters.
    pub username: String,
    /// Its e-mail address; may be empty.
    pub email: String,
    /// First name; may be empty.
    pub first_name: String,
    /// Last name; may be empty.
    pub last_name: String,
    /// Whether it looks after the installation.
    pub operator: bool,
    /// The team it works in at present.
    pub current_team: Option<TeamId>,
    /// When it was made.
    pub created_at: Timestamp,
    /// Since when it may not sign in.
    pub disabled_at: Option<Timestamp>,
    /// The team that owns it, if it is an account for programs.
    pub service_team: Option<TeamId>,
}

/// What [`read`] reads.
pub(super) const COLUMNS: &str = "u.id, u.username, u.email, u.first_name, u.last_name, \
     u.operator, u.current_team, u.created_at, u.disabled_at, u.service_team";

pub(super) fn read(columns: &mut Columns<'_>) -> Result<User> {
    Ok(User {
        id: columns.parse()?,
        username: columns.text()?,
        email: columns.text()?,
        first_name: columns.text()?,
        last_name: columns.text()?,
        operator: columns.flag()?,
        current_team: columns.opt_parse()?,
        created_at: columns.time()?,
        disabled_at: columns.opt_time()?,
        service_team: columns.opt_parse()?,
    })
}

fn of_row(row: &AnyRow) -> Result<User> {
    read(&mut Columns::of("reading a user", row))
}

/// The form in which names and addresses are compared.
fn fold(text: &str) -> String {
    text.trim().to_lowercase()
}

/// Adds a user.  A taken name is a conflict.
pub async fn insert(tx: &mut Tx, user: &User) -> Result<()> {
    let sql = "insert into usr (id, username, username_folded, email, email_folded, first_name, \
         last_name, operator, current_team, created_at, disabled_at, service_team) \
         values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)";
    let values = values![
        user.id,
        user.username.as_str(),
        fold(&user.username),
        user.email.as_str(),
        fold(&user.email),
        user.first_name.as_str(),
        user.last_name.as_str(),
        user.operator,
        user.current_team,
        user.created_at,
        user.disabled_at,
        user.service_team,
    ];
    tx.execute("adding a user", sql, values)
        .await
        .map_err(|e| e.taken("this user name"))?;
    Ok(())
}

/// When the first user was made: when there began to be anything here.
pub async fn first_at(tx: &mut Tx) -> Result<Option<Timestamp>> {
    const DOING: &str = "looking for the first user";
    let row = tx
        .row(DOING, "select min(created_at) from usr", values![])
        .await?;
    match row {
        Some(row) => Columns::of(DOING, &row).opt_time(),
        None => Ok(None),
    }
}

/// The user with an id.
pub async fn by_id(tx: &mut Tx, id: UserId) -> Result<Option<User>> {
    let sql = format!("select {COLUMNS} from usr u where u.id = $1");
    let row = tx
        .row("reading a user", AssertSqlSafe(sql), values![id])
        .await?;
    row.as_ref().map(of_row).transpose()
}

/// The users with these ids, in no order; unknown ids are left out.
pub async fn by_ids(tx: &mut Tx, ids: &[UserId]) -> Result<Vec<User>> {
    let mut users = Vec::with_capacity(ids.len());
    for (list, values) in lists(ids) {
        let sql = format!("select {COLUMNS} from usr u where u.id in {list}");
        let rows = tx.rows("reading users", AssertSqlSafe(sql), values).await?;
        for row in &rows {
            users.push(of_row(row)?);
        }
    }
    Ok(users)
}

/// The names of the users with these ids; unknown ids are left out.
pub async fn names(tx: &mut Tx, ids: &[UserId]) -> Result<HashMap<UserId, String>> {
    const DOING: &str = "reading the names of users";
    let mut names = HashMap::with_capacity(ids.len());
    for (list, values) in lists(ids) {
        // As one text: SQLite hands rows from one thread to another, one by one.  No name has
        // a comma or a space.
        let sql = format!(
            "select string_agg(u.id || ' ' || u.username, ',') from usr u where u.id in {list}"
        );
        let row = tx.row(DOING, AssertSqlSafe(sql), values).await?;
        let text = row.map(|row| Columns::of(DOING, &row).opt_text());
        for part in text.transpose()?.flatten().unwrap_or_default().split(',') {
            if let Some((id, name)) = part.split_once(' ') {
                let id = id.parse();
                let id = id.map_err(|e| Error::internal(DOING, format!("{part}: {e}")))?;
                names.insert(id, name.to_owned());
            }
        }
    }
    Ok(names)
}

/// The user with a name, whatever the case of its letters.
pub async fn by_username(tx: &mut Tx, username: &str) -> Result<Option<User>> {
    let sql = format!("select {COLUMNS} from usr u where u.username_folded = $1");
    let row = tx
        .row(
            "looking for a user",
            AssertSqlSafe(sql),
            values![fold(username)],
        )
        .await?;
    row.as_ref().map(of_row).transpose()
}

/// The user who is meant by a user name or an e-mail address.  A name wins over an
/// address; an address that several people share means nobody.
pub async fn by_login(tx: &mut Tx, login: &str) -> Result<Option<User>> {
    if let Some(user) = by_username(tx, login).await? {
        return Ok(Some(user));
    }
    let folded = fold(login);
    if folded.is_empty() {
        return Ok(None);
    }
    let sql = format!("select {COLUMNS} from usr u where u.email_folded = $1 limit 2");
    let rows = tx
        .rows("looking for a user", AssertSqlSafe(sql), values![folded])
        .await?;
    match &rows[..] {
        [row] => of_row(row).map(Some),
        _ => Ok(None),
    }
}

/// All users by name, from the one after `after` (the `next` of the page before) on.
pub async fn list(tx: &mut Tx, after: Option<&str>, limit: u32) -> Result<Page<User, String>> {
    let sql = format!(
        "select {COLUMNS} from usr u where u.username_folded > $1 \
          order by u.username_folded limit $2"
    );
    let values = values![after.unwrap_or_default(), one_more(limit)];
    let rows = tx.rows("listing users", AssertSqlSafe(sql), values).await?;
    let users: Vec<User> = rows.iter().map(of_row).collect::<Result<_>>()?;
    Ok(Page::cut(users, limit, |user| fold(&user.username)))
}

/// Sets the team that a user works in; `false` when there is no such user.
pub async fn set_current_team(tx: &mut Tx, id: UserId, team: TeamId) -> Result<bool> {
    let sql = "update usr set current_team = $2 where id = $1";
    Ok(tx
        .execute("setting the current team", sql, values![id, team])
        .await?
        == 1)
}

/// Keeps a user from signing in, or lets it again (`None`); `false` when there is no such user.
pub async fn set_disabled(tx: &mut Tx, id: UserId, at: Option<Timestamp>) -> Result<bool> {
    let sql = "update usr set disabled_at = $2 where id = $1";
    Ok(tx.execute("disabling a user", sql, values![id, at]).await? == 1)
}

/// The accounts for programs that a team owns, by name; closed ones, too.
pub async fn of_service_team(tx: &mut Tx, team: TeamId) -> Result<Vec<User>> {
    let sql = format!(
        "select {COLUMNS} from usr u join membership m on m.usr = u.id and m.team = $1 \
          where u.service_team = $1 order by u.username_folded"
    );
    let rows = tx
        .rows(
            "listing service accounts",
            AssertSqlSafe(sql),
            values![team],
        )
        .await?;
    rows.iter().map(of_row).collect()
}
