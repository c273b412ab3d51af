//! Teams: making them, who is in them, as what, and by which rules.
//!
//! Whoever changes a team locks its row first and looks at their own role again, so that
//! two changes at once cannot leave it without an owner, nor use a right that just ended.

use grid_core::access::Action;
use grid_core::id::{TeamId, UserId};
use grid_core::name::TeamName;
use grid_core::team::{Role, Sharing, TeamPolicy};
use grid_store::db::{self, Tx, team::Member};

use crate::access::{Caller, InTeam};
use crate::audit::Thing;
use crate::error::{Error, Result};
use crate::{Engine, user};

/// Teams of one person.  Higher: one account takes many names; lower: somebody who helps
/// everywhere is turned away.
const TEAMS_OF_ONE_MAX: usize = 200;

/// Members of one team.  Higher: lists of members, which are not paged, take long.
pub(crate) const MEMBERS_MAX: u64 = 10_000;

/// Teams in one answer to an operator.
const TEAMS_MAX: u32 = 10_000;

/// A team as somebody sees it.
#[derive(Debug, Clone)]
pub struct Info {
    /// The team.
    pub team: db::team::Team,
    /// What the caller is in it; an operator may be nothing.
    pub role: Option<Role>,
    /// Whether the caller's new things go there.
    pub current: bool,
    /// How many are in it.
    pub size: u64,
    /// Who, by name; only of one team.
    pub members: Vec<Member>,
}

/// The caller's teams, by name; for operators also all that are nobody's own.
pub async fn list(engine: &Engine, caller: &Caller, all: bool) -> Result<Vec<Info>> {
    let mut tx = engine.inner.db.read().await?;
    let mut teams: Vec<(db::team::Team, Option<Role>)> = caller
        .teams
        .iter()
        .map(|(team, role)| (team.clone(), Some(*role)))
        .collect();
    if all {
        caller.require_operator("list all teams")?;
        let thing = Thing::new("server", "", "all teams");
        caller.note_look(Action::SeeTeam, None, thing);
        for team in db::team::list(&mut tx, None, TEAMS_MAX).await?.items {
            if teams.iter().all(|(mine, _)| mine.id != team.id) {
                teams.push((team, None));
            }
        }
        teams.sort_by(|(a, _), (b, _)| a.name.cmp(&b.name));
    }
    let ids: Vec<TeamId> = teams.iter().map(|(team, _)| team.id).collect();
    let sizes = db::team::sizes(&mut tx, &ids).await?;
    let info = |(team, role): (db::team::Team, Option<Role>)| Info {
        current: Some(team.id) == caller.user.current_team,
        size: sizes.get(&team.id).copied().unwrap_or(0),
        members: vec![],
        team,
        role,
    };
    Ok(teams.into_iter().map(info).collect())
}

/// One team with its members.
pub async fn get(engine: &Engine, caller: &Caller, name: &str) -> Result<Info> {
    let mut tx = engine.inner.db.read().await?;
    let found = caller.team(&mut tx, name).await?;
    caller.check_team(&found, Action::SeeTeam)?;
    describe(&mut tx, caller, found.team.id).await
}

/// The team as it is in this transaction, whatever the caller knew of it.
pub(crate) async fn describe(tx: &mut Tx, caller: &Caller, id: TeamId) -> Result<Info> {
    let team = db::team::by_id(tx, id).await?;
    let team = team.ok_or_else(|| Error::not_found("the team is gone"))?;
    let members = db::team::members(tx, id).await?;
    let me = members.iter().find(|member| member.user.id == caller.id());
    let now = me.map(|member| (member.role, member.user.current_team));
    Ok(Info {
        role: now.map(|(role, _)| role),
        current: now.is_some_and(|(_, current)| current == Some(id)),
        size: members.len() as u64,
        members,
        team,
    })
}

/// Makes a team, of which the caller is the owner.
pub async fn create(engine: &Engine, caller: &Caller, name: &str) -> Result<Info> {
    caller.require_whole("make teams")?;
    require_person(caller)?;
    let name = parse(name)?;
    if caller.teams.len() >= TEAMS_OF_ONE_MAX {
        return Err(Error::conflict(format!(
            "you are in {TEAMS_OF_ONE_MAX} teams, which is the limit: leave one first"
        )));
    }
    let (clock, now) = (&engine.inner.clock, engine.inner.clock.now());
    let team = db::team::Team {
        id: TeamId::from_parts(now, clock.entropy()),
        name: name.to_string(),
        personal: false,
        policy: TeamPolicy::default(),
        created_at: now,
    };
    let mut tx = engine.inner.db.write().await?;
    db::team::insert(&mut tx, &team).await.map_err(taken)?;
    join(engine, &mut tx, caller.id(), team.id, Role::Owner).await?;
    let event = caller.did("team.create", Some(team.id), Thing::team(&team));
    event.by_anybody().write(engine, &mut tx).await?;
    let info = describe(&mut tx, caller, team.id).await?;
    tx.commit().await?;
    engine.inner.watch.people_changed();
    Ok(info)
}

fn parse(name: &str) -> Result<TeamName> {
    TeamName::parse(name).map_err(|e| Error::invalid(e.to_string()))
}

fn taken(error: db::Error) -> Error {
    match error {
        db::Error::Conflict { .. } => Error::Conflict {
            message: "this team name is taken".to_owned(),
            hint: Some("choose another; every user's own name is taken, too".to_owned()),
        },
        other => other.into(),
    }
}

/// Refuses accounts for programs: they stay in the team that owns them.
pub(crate) fn require_person(caller: &Caller) -> Result<()> {
    if caller.user.service_team.is_none() {
        return Ok(());
    }
    let message = "a service account is in the team that owns it and in no other";
    caller.note_refusal("team.join", None, Thing::user(&caller.user), message);
    Err(Error::forbidden(message))
}

/// Puts a user into a team; the first one joined becomes the current one.
pub(crate) async fn join(
    engine: &Engine,
    tx: &mut Tx,
    user: UserId,
    team: TeamId,
    role: Role,
) -> Result<()> {
    let before = db::team::teams_of(tx, user).await?;
    db::team::set_role(tx, team, user, role, engine.inner.clock.now()).await?;
    if before.iter().all(|(team, _)| team.personal) {
        db::user::set_current_team(tx, user, team).await?;
    }
    Ok(())
}

/// Locks a team that the caller may do `action` in, and looks again at what they are.
pub(crate) async fn locked(
    tx: &mut Tx,
    caller: &Caller,
    name: &str,
    action: Action,
) -> Result<InTeam> {
    let known = caller.team(tx, name).await?;
    db::team::lock(tx, known.team.id).await?;
    let role = db::team::role_of(tx, caller.id(), known.team.id).await?;
    let team = db::team::by_id(tx, known.team.id).await?;
    let Some(team) = team.filter(|_| role.is_some() || caller.user.operator) else {
        return Err(Error::not_found(format!("no team '{name}' of yours")));
    };
    let found = InTeam { team, role };
    caller.check_team(&found, action)?;
    Ok(found)
}

/// Refuses what would make somebody's own team something else.
pub(crate) fn require_shared(team: &db::team::Team) -> Result<()> {
    if !team.personal {
        return Ok(());
    }
    Err(Error::Conflict {
        message: format!(
            "'{}' is somebody's own team: it has one member and keeps its name",
            team.name
        ),
        hint: Some("make a team to share: grid team create NAME".to_owned()),
    })
}

/// Names a team anew.
pub async fn rename(engine: &Engine, caller: &Caller, name: &str, new: &str) -> Result<Info> {
    let new = parse(new)?;
    let mut tx = engine.inner.db.write().await?;
    let found = locked(&mut tx, caller, name, Action::ManageTeam).await?;
    require_shared(&found.team)?;
    let renamed = db::team::rename(&mut tx, found.team.id, new.as_str()).await;
    renamed.map_err(taken)?;
    let event = caller.did("team.rename", Some(found.team.id), Thing::team(&found.team));
    let event = event.detail(format!("to '{new}'"));
    event.write(engine, &mut tx).await?;
    finish(engine, tx, caller, found.team.id).await
}

async fn finish(engine: &Engine, mut tx: Tx, caller: &Caller, team: TeamId) -> Result<Info> {
    let info = describe(&mut tx, caller, team).await?;
    tx.commit().await?;
    engine.inner.watch.people_changed();
    Ok(info)
}

/// Changes the switches that are given.
pub async fn set_policy(
    engine: &Engine,
    caller: &Caller,
    name: &str,
    run_control: Option<Sharing>,
    jupyter_access: Option<Sharing>,
) -> Result<Info> {
    let mut tx = engine.inner.db.write().await?;
    let found = locked(&mut tx, caller, name, Action::ManageTeam).await?;
    let before = found.team.policy;
    let policy = TeamPolicy {
        run_control: run_control.unwrap_or(before.run_control),
        jupyter_access: jupyter_access.unwrap_or(before.jupyter_access),
    };
    db::team::set_policy(&mut tx, found.team.id, policy).await?;
    let event = caller.did("team.policy", Some(found.team.id), Thing::team(&found.team));
    let said = |policy: TeamPolicy| {
        let word = |sharing| match sharing {
            Sharing::Team => "team",
            Sharing::Creator => "creator",
        };
        format!(
            "run_control={} jupyter_access={}",
            word(policy.run_control),
            word(policy.jupyter_access)
        )
    };
    let event = event.detail(format!("from {} to {}", said(before), said(policy)));
    event.write(engine, &mut tx).await?;
    finish(engine, tx, caller, found.team.id).await
}

/// What somebody is in a team, found by name.
async fn member(tx: &mut Tx, team: &db::team::Team, name: &str) -> Result<Member> {
    let members = db::team::members(tx, team.id).await?;
    let name = name.to_lowercase();
    let found = members
        .into_iter()
        .find(|member| member.user.username == name);
    found.ok_or_else(|| Error::NotFound {
        what: format!("team '{}' has no member '{name}'", team.name),
        hint: Some(format!("`grid team {}` lists its members", team.name)),
    })
}

/// Changing somebody from one role to another asks for this.
const fn action_for(from: Role, to: Role) -> Action {
    match (from, to) {
        (Role::Owner, _) | (_, Role::Owner) => Action::ManageOwners,
        _ => Action::ManageTeam,
    }
}

/// Changes what somebody is in a team.
pub async fn set_role(
    engine: &Engine,
    caller: &Caller,
    name: &str,
    who: &str,
    role: Role,
) -> Result<Info> {
    let mut tx = engine.inner.db.write().await?;
    let found = locked(&mut tx, caller, name, Action::ManageTeam).await?;
    require_shared(&found.team)?;
    let member = member(&mut tx, &found.team, who).await?;
    caller.check_team(&found, action_for(member.role, role))?;
    if member.user.service_team.is_some() && role > Role::Member {
        return Err(Error::invalid(
            "a service account can be a member or a viewer, and no more",
        ));
    }
    if member.role == Role::Owner && role != Role::Owner {
        require_another_owner(&mut tx, &found.team, who).await?;
    }
    let (team, now) = (found.team.id, engine.inner.clock.now());
    db::team::set_role(&mut tx, team, member.user.id, role, now).await?;
    let event = caller.did("member.role", Some(team), Thing::user(&member.user));
    let event = event.detail(format!("from {} to {role}", member.role));
    event.write(engine, &mut tx).await?;
    finish(engine, tx, caller, team).await
}

async fn require_another_owner(tx: &mut Tx, team: &db::team::Team, who: &str) -> Result<()> {
    if db::team::owners(tx, team.id).await? > 1 {
        return Ok(());
    }
    Err(Error::Conflict {
        message: format!(
            "{who} is the last owner of team '{}': it would have none",
            team.name
        ),
        hint: Some(format!(
            "make somebody else an owner first: grid team role {} USER owner",
            team.name
        )),
    })
}

/// Takes somebody out of a team.  Their runs stay in it.
pub async fn remove(engine: &Engine, caller: &Caller, name: &str, who: &str) -> Result<Info> {
    if who.to_lowercase() == caller.user.username {
        return Err(Error::Conflict {
            message: "this is you".to_owned(),
            hint: Some(format!("leave the team: grid team leave {name}")),
        });
    }
    let mut tx = engine.inner.db.write().await?;
    let found = locked(&mut tx, caller, name, Action::ManageTeam).await?;
    require_shared(&found.team)?;
    let member = member(&mut tx, &found.team, who).await?;
    caller.check_team(&found, action_for(member.role, Role::Member))?;
    if member.role == Role::Owner {
        require_another_owner(&mut tx, &found.team, who).await?;
    }
    let parted = part(engine, &mut tx, &member.user, found.team.id).await?;
    let event = caller.did(
        "member.remove",
        Some(found.team.id),
        Thing::user(&member.user),
    );
    let event = event.detail(format!("was {}{}", member.role, ended(parted.links)));
    event.write(engine, &mut tx).await?;
    finish(engine, tx, caller, found.team.id).await
}

/// What is left when a membership has ended.
pub(crate) struct Parted {
    /// The user's own team.
    own: Option<db::team::Team>,
    /// Links of theirs that worked until then.
    links: u64,
}

/// What the audit log says of links that ended with a membership.
fn ended(links: u64) -> String {
    match links {
        0 => String::new(),
        1 => "; 1 link of theirs ended".to_owned(),
        _ => format!("; {links} links of theirs ended"),
    }
}

/// Ends a membership, and what hangs on it.
///
/// Links that the user made in the team end for good: should they come back, what they once
/// handed out must not work again without anybody having decided so.
pub(crate) async fn part(
    engine: &Engine,
    tx: &mut Tx,
    user: &db::user::User,
    team: TeamId,
) -> Result<Parted> {
    db::team::remove_member(tx, team, user.id).await?;
    let links = db::share::revoke_of(tx, team, user.id, engine.inner.clock.now()).await?;
    if user.service_team == Some(team) {
        user::close(engine, tx, user.id).await?;
    }
    let left = db::team::teams_of(tx, user.id).await?;
    let own = left
        .into_iter()
        .map(|(team, _)| team)
        .find(|team| team.personal);
    if let Some(own) = own.as_ref().filter(|_| user.current_team == Some(team)) {
        db::user::set_current_team(tx, user.id, own.id).await?;
    }
    Ok(Parted { own, links })
}

/// Leaves a team.  Answers with its name and that of the team where new things go now.
pub async fn leave(engine: &Engine, caller: &Caller, name: &str) -> Result<(String, String)> {
    caller.require_whole("leave teams")?;
    let mut tx = engine.inner.db.write().await?;
    let found = locked(&mut tx, caller, name, Action::SeeTeam).await?;
    let team = found.team;
    require_shared(&team)?;
    require_person(caller)?;
    let Some(role) = found.role else {
        return Err(Error::conflict(format!(
            "you are not in team '{}'",
            team.name
        )));
    };
    if role == Role::Owner {
        require_another_owner(&mut tx, &team, &caller.user.username).await?;
    }
    let Parted { own, links } = part(engine, &mut tx, &caller.user, team.id).await?;
    let event = caller.did("member.leave", Some(team.id), Thing::team(&team));
    let event = event.detail(format!("was {role}{}", ended(links)));
    event.write(engine, &mut tx).await?;
    tx.commit().await?;
    engine.inner.watch.people_changed();
    let stays = caller
        .teams
        .iter()
        .map(|(other, _)| other)
        .find(|other| other.id != team.id && Some(other.id) == caller.user.current_team);
    let current = stays.or(own.as_ref()).map(|team| team.name.clone());
    Ok((team.name.clone(), current.unwrap_or_default()))
}

/// Chooses the team where the caller's new things go.
pub async fn set_current(engine: &Engine, caller: &Caller, name: &str) -> Result<Caller> {
    caller.require_whole("choose your team")?;
    let mut tx = engine.inner.db.write().await?;
    let found = caller.team(&mut tx, name).await?;
    let role = db::team::role_of(&mut tx, caller.id(), found.team.id).await?;
    if role.is_none() {
        return Err(Error::not_found(format!("no team '{name}' of yours")));
    }
    db::user::set_current_team(&mut tx, caller.id(), found.team.id).await?;
    let event = caller.did("user.team", Some(found.team.id), Thing::team(&found.team));
    event.write(engine, &mut tx).await?;
    let user = db::user::by_id(&mut tx, caller.id()).await?;
    tx.commit().await?;
    Ok(Caller {
        user: user.unwrap_or_else(|| caller.user.clone()),
        ..caller.clone()
    })
}
