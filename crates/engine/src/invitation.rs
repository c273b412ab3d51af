//! Invitations: into a team, for a user by name or for whoever has a link.
//!
//! Inviting tells nothing of who has an account here: a name that nobody has is invited
//! like any other, and nobody will ever accept it.  An invitation is good only while
//! whoever made it could still make it.

use grid_core::access::Action;
use grid_core::id::InvitationId;
use grid_core::name::UserName;
use grid_core::team::Role;
use grid_store::db::invitation::{Invitation, Outcome};
use grid_store::db::{self, Tx};

use crate::access::Caller;
use crate::audit::{Draft, Thing, Trail};
use crate::error::{Error, Result};
use crate::secret::seal;
use crate::user::{self, NewUser, WithKey};
use crate::{Engine, team};

/// How long an invitation can be accepted.
pub const LIFE_MS: i64 = 7 * 24 * 60 * 60 * 1_000;

/// Open invitations of one team.  Higher: somebody who writes a loop fills the table.
const OPEN_MAX: usize = 1_000;

/// An invitation with the names that people know.
#[derive(Debug, Clone)]
pub struct Info {
    /// The row.
    pub row: Invitation,
    /// Name of the team.
    pub team: String,
    /// User name of who invites.
    pub invited_by: String,
}

/// A new one; with a token if it is to an address, in clear this once.
pub struct Created {
    /// The invitation.
    pub info: Info,
    /// What `join` and `register` take.
    pub token: Option<String>,
}

/// Invites somebody by user name or address.
pub async fn create(
    engine: &Engine,
    caller: &Caller,
    team: &str,
    to: &str,
    role: Role,
) -> Result<Created> {
    let action = match role {
        Role::Owner => Action::ManageOwners,
        _ => Action::ManageTeam,
    };
    let (clock, now) = (&engine.inner.clock, engine.inner.clock.now());
    let mut tx = engine.inner.db.write().await?;
    let found = team::locked(&mut tx, caller, team, action).await?;
    team::require_shared(&found.team)?;
    let to = UserName::parse(to.trim()).map_err(|e| Error::invalid(e.to_string()))?;
    let is_address = to.as_str().contains('@');
    if db::invitation::of_team(&mut tx, found.team.id, now)
        .await?
        .len()
        >= OPEN_MAX
    {
        return Err(Error::conflict(format!(
            "{OPEN_MAX} invitations are open, which is the limit: revoke some first"
        )));
    }
    let members = db::team::members(&mut tx, found.team.id).await?;
    if members.iter().any(|one| one.user.username == to.as_str()) {
        return Err(Error::conflict(format!(
            "{to} is in team '{}' already",
            found.team.name
        )));
    }
    // A name is bound to whoever has it now: whoever takes it later is somebody else.
    let user = db::user::by_username(&mut tx, to.as_str()).await?;
    let token = is_address.then(|| format!("{:032x}", clock.entropy()));
    let row = Invitation {
        id: InvitationId::from_parts(now, clock.entropy()).to_string(),
        team: found.team.id,
        invitee: to.to_string(),
        user: user.map(|user| user.id),
        role,
        invited_by: caller.id(),
        created_at: now,
        expires_at: now.plus_millis(LIFE_MS),
    };
    let hash = token
        .as_deref()
        .map(|token| seal(&engine.inner.secret, token));
    db::invitation::insert(&mut tx, &row, hash.as_deref()).await?;
    let event = caller.did("invitation.create", Some(row.team), thing(&row));
    let event = event.detail(format!("as {role}"));
    event.write(engine, &mut tx).await?;
    tx.commit().await?;
    Ok(Created {
        info: Info {
            row,
            team: found.team.name,
            invited_by: caller.user.username.clone(),
        },
        token,
    })
}

fn thing(row: &Invitation) -> Thing {
    Thing::new("invitation", &row.id, row.invitee.clone())
}

/// The open invitations of a team, for its admins.
pub async fn of_team(engine: &Engine, caller: &Caller, team: &str) -> Result<Vec<Info>> {
    let mut tx = engine.inner.db.read().await?;
    let found = caller.team(&mut tx, team).await?;
    caller.check_team(&found, Action::ManageTeam)?;
    let rows = db::invitation::of_team(&mut tx, found.team.id, engine.inner.clock.now()).await?;
    named(&mut tx, rows).await
}

/// The open invitations to the caller.
pub async fn of_caller(engine: &Engine, caller: &Caller) -> Result<Vec<Info>> {
    let mut tx = engine.inner.db.read().await?;
    let rows = to_caller(engine, &mut tx, caller).await?;
    named(&mut tx, rows).await
}

async fn to_caller(engine: &Engine, tx: &mut Tx, caller: &Caller) -> Result<Vec<Invitation>> {
    let now = engine.inner.clock.now();
    let rows = db::invitation::to_user(tx, caller.id(), &caller.user.email, now).await?;
    let mut open = Vec::with_capacity(rows.len());
    for row in rows {
        if still_good(tx, &row).await? {
            open.push(row);
        }
    }
    Ok(open)
}

/// Whether who invited could still do it.
async fn still_good(tx: &mut Tx, row: &Invitation) -> Result<bool> {
    let role = db::team::role_of(tx, row.invited_by, row.team).await?;
    let least = match row.role {
        Role::Owner => Role::Owner,
        _ => Role::Admin,
    };
    if role.is_some_and(|role| role >= least) {
        return Ok(true);
    }
    let user = db::user::by_id(tx, row.invited_by).await?;
    Ok(role.is_none() && user.is_some_and(|user| user.operator && user.disabled_at.is_none()))
}

async fn named(tx: &mut Tx, rows: Vec<Invitation>) -> Result<Vec<Info>> {
    let teams: Vec<_> = rows.iter().map(|row| row.team).collect();
    let people: Vec<_> = rows.iter().map(|row| row.invited_by).collect();
    let teams = db::team::by_ids(tx, &teams).await?;
    let people = db::user::by_ids(tx, &people).await?;
    let info = |row: Invitation| {
        let team = teams.iter().find(|team| team.id == row.team);
        let by = people.iter().find(|user| user.id == row.invited_by);
        Info {
            team: team.map_or_else(String::new, |team| team.name.clone()),
            invited_by: by.map_or_else(String::new, |user| user.username.clone()),
            row,
        }
    };
    Ok(rows.into_iter().map(info).collect())
}

async fn one(tx: &mut Tx, row: Invitation) -> Result<Info> {
    let infos = named(tx, vec![row]).await?;
    infos.into_iter().next().ok_or_else(gone)
}

/// Takes an invitation back.
pub async fn revoke(engine: &Engine, caller: &Caller, team: &str, id: &str) -> Result<Info> {
    let now = engine.inner.clock.now();
    let mut tx = engine.inner.db.write().await?;
    let found = team::locked(&mut tx, caller, team, Action::ManageTeam).await?;
    let rows = db::invitation::of_team(&mut tx, found.team.id, now).await?;
    let row = rows
        .into_iter()
        .find(|row| row.id == id || row.invitee == id);
    let row = row.ok_or_else(|| {
        let name = &found.team.name;
        Error::not_found(format!("team '{name}' has no open invitation '{id}'"))
    })?;
    db::invitation::end(&mut tx, &row.id, Outcome::Revoked, now).await?;
    let event = caller.did("invitation.revoke", Some(row.team), thing(&row));
    event.write(engine, &mut tx).await?;
    let info = one(&mut tx, row).await?;
    tx.commit().await?;
    Ok(info)
}

fn gone() -> Error {
    Error::NotFound {
        what: "this invitation does not work, or no longer".to_owned(),
        hint: Some("invitations last 7 days and work once; ask for a new one".to_owned()),
    }
}

/// By what an invitation is answered.
#[derive(Debug, Clone, Copy)]
pub enum By<'a> {
    /// The name of the team that invited the caller.
    Team(&'a str),
    /// A token, or the link that ends in it.
    Token(&'a str),
}

async fn find(engine: &Engine, tx: &mut Tx, caller: &Caller, by: By<'_>) -> Result<Invitation> {
    match by {
        By::Token(token) => by_token(engine, tx, token).await,
        By::Team(name) => {
            let name = name.to_lowercase();
            let rows = to_caller(engine, tx, caller).await?;
            for row in rows {
                let team = db::team::by_id(tx, row.team).await?;
                if team.is_some_and(|team| team.name == name) {
                    return Ok(row);
                }
            }
            Err(Error::NotFound {
                what: format!("no invitation to a team '{name}' waits for you"),
                hint: Some("`grid team join` lists those that do".to_owned()),
            })
        }
    }
}

async fn by_token(engine: &Engine, tx: &mut Tx, token: &str) -> Result<Invitation> {
    let token = token.trim().rsplit('/').next().unwrap_or_default();
    let row = db::invitation::by_hash(tx, &seal(&engine.inner.secret, token)).await?;
    let row = row.filter(|row| row.expires_at > engine.inner.clock.now());
    let row = row.ok_or_else(gone)?;
    if still_good(tx, &row).await? {
        Ok(row)
    } else {
        Err(gone())
    }
}

/// What whoever has a token is invited to.
pub async fn peek(engine: &Engine, token: &str) -> Result<Info> {
    let mut tx = engine.inner.db.read().await?;
    let row = by_token(engine, &mut tx, token).await?;
    one(&mut tx, row).await
}

/// Joins the team of an invitation.
pub async fn accept(engine: &Engine, caller: &Caller, by: By<'_>) -> Result<team::Info> {
    caller.require_whole("join teams")?;
    team::require_person(caller)?;
    let mut tx = engine.inner.db.write().await?;
    let row = find(engine, &mut tx, caller, by).await?;
    let team = enter(engine, &mut tx, &row, &caller.user).await?;
    let event = caller.did("member.join", Some(team.id), Thing::team(&team));
    let event = event.by_anybody().detail(format!("as {}", row.role));
    event.write(engine, &mut tx).await?;
    let info = team::describe(&mut tx, caller, team.id).await?;
    tx.commit().await?;
    engine.inner.watch.people_changed();
    Ok(info)
}

/// Uses an invitation up and puts a user into its team.
async fn enter(
    engine: &Engine,
    tx: &mut Tx,
    row: &Invitation,
    user: &db::user::User,
) -> Result<db::team::Team> {
    db::team::lock(tx, row.team).await?;
    let team = db::team::by_id(tx, row.team).await?.ok_or_else(gone)?;
    let now = engine.inner.clock.now();
    if db::team::role_of(tx, user.id, team.id).await?.is_some() {
        return Err(Error::conflict(format!(
            "you are in team '{}' already",
            team.name
        )));
    }
    let sizes = db::team::sizes(tx, &[team.id]).await?;
    if sizes
        .get(&team.id)
        .is_some_and(|size| *size >= team::MEMBERS_MAX)
    {
        return Err(Error::conflict(format!("team '{}' is full", team.name)));
    }
    if !db::invitation::end(tx, &row.id, Outcome::Accepted, now).await? {
        return Err(gone());
    }
    team::join(engine, tx, user.id, team.id, row.role).await?;
    Ok(team)
}

/// Will not join.
pub async fn decline(engine: &Engine, caller: &Caller, by: By<'_>) -> Result<Info> {
    caller.require_whole("answer invitations")?;
    let mut tx = engine.inner.db.write().await?;
    let row = find(engine, &mut tx, caller, by).await?;
    let now = engine.inner.clock.now();
    db::invitation::end(&mut tx, &row.id, Outcome::Declined, now).await?;
    let event = caller.did("invitation.decline", Some(row.team), thing(&row));
    event.by_anybody().write(engine, &mut tx).await?;
    let info = one(&mut tx, row).await?;
    tx.commit().await?;
    Ok(info)
}

/// Makes an account for whoever has a token, and joins with it.  The address of the
/// account is the one that was invited.
pub async fn register(
    engine: &Engine,
    trail: &Trail,
    token: &str,
    mut new: NewUser,
) -> Result<WithKey> {
    let mut tx = engine.inner.db.write().await?;
    let row = by_token(engine, &mut tx, token).await?;
    new.operator = false;
    new.email = Some(row.invitee.clone());
    let made = user::insert(engine, &mut tx, &new).await?;
    let team = enter(engine, &mut tx, &row, &made.user).await?;
    let event = Draft::by_user(trail, &made.user, "user.register", Thing::user(&made.user));
    event.in_team(team.id).write(engine, &mut tx).await?;
    let event = Draft::by_user(trail, &made.user, "member.join", Thing::team(&team));
    let event = event.in_team(team.id).detail(format!("as {}", row.role));
    event.write(engine, &mut tx).await?;
    tx.commit().await?;
    engine.inner.watch.people_changed();
    Ok(made)
}
