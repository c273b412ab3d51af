//! Who is calling, and whether they may: every use case asks here, and here asks
//! the one table in `core`.

use grid_core::access::{Action, Decision, Relation, Scope, may, refusal, team_refusal};
use grid_core::id::{KeyId, TeamId, UserId};
use grid_core::team::{Role, TeamPolicy};
use grid_store::db::{self, Tx};

use crate::audit::{Thing, Trail};
use crate::error::{Error, Result};

/// Names of admins in the hint of a refusal.  More: a hint becomes a list.
const ADMINS_NAMED_MAX: usize = 5;

/// A signed-in user with what they are in each team.
#[derive(Debug, Clone)]
pub struct Caller {
    /// Who.
    pub user: db::user::User,
    /// By which key; `None` for a fresh login by other means.
    pub key: Option<KeyId>,
    /// What that key is good for.
    pub scope: Scope,
    /// In which teams, as what, under which policy.
    pub teams: Vec<(db::team::Team, Role)>,
    /// Where the request comes from, and what it leaves behind.
    pub trail: Trail,
}

/// A thing that somebody made and a team owns.
pub(crate) trait Owned {
    /// The team.
    fn team(&self) -> TeamId;
    /// Who made it.
    fn creator(&self) -> UserId;
    /// What it is called in refusals: `run 'bert-1'`.
    fn called(&self) -> String;
    /// What it is called in the audit log, with its creator's name.
    fn thing(&self, creator: &str) -> Thing;
}

impl Owned for db::run::Run {
    fn team(&self) -> TeamId {
        self.team
    }

    fn creator(&self) -> UserId {
        self.creator
    }

    fn called(&self) -> String {
        format!("run '{}'", self.name)
    }

    fn thing(&self, creator: &str) -> Thing {
        Thing::run(self, creator)
    }
}

/// A team and what the caller is in it; an operator may be nothing.
#[derive(Debug, Clone)]
pub(crate) struct InTeam {
    pub(crate) team: db::team::Team,
    pub(crate) role: Option<Role>,
}

impl InTeam {
    fn relation(&self) -> Relation {
        // Nobody is the creator of a team: only the role counts.
        self.role.map_or(Relation::Operator, Relation::Teammate)
    }
}

impl Caller {
    /// The teams that the caller is in.
    pub(crate) fn team_ids(&self) -> Vec<TeamId> {
        self.teams.iter().map(|(team, _)| team.id).collect()
    }

    /// Reads what the user is in which team.
    pub(crate) async fn load(
        tx: &mut Tx,
        user: db::user::User,
        key: Option<KeyId>,
    ) -> Result<Self> {
        let teams = db::team::teams_of(tx, user.id).await?;
        Ok(Self {
            user,
            key,
            scope: Scope::All,
            teams,
            trail: Trail::default(),
        })
    }

    /// The same caller, by a request that leaves this trail.
    #[must_use]
    pub fn on(mut self, trail: Trail) -> Self {
        self.trail = trail;
        self
    }

    /// The id.
    pub fn id(&self) -> UserId {
        self.user.id
    }

    /// How the caller stands to what `creator` made in `team`, and the team's policy.
    pub(crate) fn relation(&self, team: TeamId, creator: UserId) -> (Relation, TeamPolicy) {
        match self.teams.iter().find(|(mine, _)| mine.id == team) {
            Some((team, role)) if creator == self.user.id => {
                (Relation::Creator(*role), team.policy)
            }
            Some((team, role)) => (Relation::Teammate(*role), team.policy),
            None if self.user.operator => (Relation::Operator, TeamPolicy::default()),
            None => (Relation::Outsider, TeamPolicy::default()),
        }
    }

    /// Whether the caller may see `thing` at all.
    pub(crate) fn sees(&self, thing: &impl Owned, action: Action) -> bool {
        let (relation, policy) = self.relation(thing.team(), thing.creator());
        may(relation, action, policy) != Decision::Hide
    }

    /// Whether the caller may do `action` to `thing`, key and all.  Leaves no trail.
    pub(crate) fn may(&self, thing: &impl Owned, action: Action) -> bool {
        let (relation, policy) = self.relation(thing.team(), thing.creator());
        action.scope() <= self.scope && is_allowed(may(relation, action, policy))
    }

    /// Whether a person in the caller's place may do `action` to `thing`, with whatever key.
    /// Leaves no trail.
    pub(crate) fn would(&self, thing: &impl Owned, action: Action) -> bool {
        let (relation, policy) = self.relation(thing.team(), thing.creator());
        is_allowed(may(relation, action, policy))
    }

    /// Lets the caller do `action` to `thing`, or says why not.
    pub(crate) async fn check(
        &self,
        tx: &mut Tx,
        thing: &impl Owned,
        action: Action,
    ) -> Result<()> {
        let standing = self.relation(thing.team(), thing.creator());
        let (relation, policy) = standing;
        let decision = may(relation, action, policy);
        if decision == Decision::Allow && action.scope() <= self.scope {
            return Ok(());
        }
        // Only from here on does the name of the creator matter.
        let creator = db::user::by_id(tx, thing.creator()).await?;
        let creator = creator.map_or_else(String::new, |user| user.username);
        let (team, what) = (thing.team(), thing.thing(&creator));
        match decision {
            Decision::Hide => {
                let message = format!("no {}", thing.called());
                self.note_hidden(action, team, what);
                Err(Error::not_found(message))
            }
            Decision::Deny(denial) => {
                let message = refusal(&thing.called(), &creator, action, standing, denial);
                self.note_refusal(action.word(), Some(team), what, &message);
                Err(Error::Forbidden {
                    message,
                    hint: who_could(tx, team).await?,
                })
            }
            Decision::Allow | Decision::AllowAudited => {
                self.require_scope(action.scope(), action, Some(team), what.clone())?;
                // A change by an operator is written down with the change.
                if action.scope() == Scope::Read {
                    self.note_look(action, Some(team), what);
                }
                Ok(())
            }
        }
    }

    /// The team that `text` names (or has as its id), if the caller is in it or an
    /// operator.
    pub(crate) async fn team(&self, tx: &mut Tx, text: &str) -> Result<InTeam> {
        let name = text.to_lowercase();
        let id: Option<TeamId> = text.parse().ok();
        let is_it = |team: &db::team::Team| team.name == name || Some(team.id) == id;
        if let Some((team, role)) = self.teams.iter().find(|(team, _)| is_it(team)) {
            return Ok(InTeam {
                team: team.clone(),
                role: Some(*role),
            });
        }
        let none = || Error::NotFound {
            what: format!("no team '{text}' of yours"),
            hint: Some("`grid team` lists your teams".to_owned()),
        };
        // Nobody else is told by the time it takes whether there is such a team.
        if !self.user.operator {
            return Err(none());
        }
        let found = match id {
            Some(id) => db::team::by_id(tx, id).await?,
            None => db::team::by_name(tx, &name).await?,
        };
        let team = found.ok_or_else(none)?;
        Ok(InTeam { team, role: None })
    }

    /// Whether the caller may do what is about a team.  Leaves no trail.
    pub(crate) fn may_team(&self, found: &InTeam, action: Action) -> bool {
        action.scope() <= self.scope && is_allowed(may(found.relation(), action, found.team.policy))
    }

    /// Lets the caller do what is about a team, or says why not.
    pub(crate) fn check_team(&self, found: &InTeam, action: Action) -> Result<()> {
        let team = &found.team;
        let thing = || Thing::team(team);
        match may(found.relation(), action, team.policy) {
            Decision::Allow => self.require_scope(action.scope(), action, Some(team.id), thing()),
            Decision::AllowAudited => {
                self.require_scope(action.scope(), action, Some(team.id), thing())?;
                if action.scope() == Scope::Read {
                    self.note_look(action, Some(team.id), thing());
                }
                Ok(())
            }
            Decision::Deny(denial) => {
                let message = team_refusal(&team.name, action, denial);
                self.note_refusal(action.word(), Some(team.id), thing(), &message);
                Err(Error::forbidden(message))
            }
            Decision::Hide => Err(Error::not_found(format!(
                "no team '{}' of yours",
                team.name
            ))),
        }
    }

    /// The team in which the caller makes new things unless they name another.
    pub(crate) fn current(&self) -> Option<&(db::team::Team, Role)> {
        let current = |(team, _): &&(db::team::Team, Role)| Some(team.id) == self.user.current_team;
        let own = || self.teams.iter().find(|(team, _)| team.personal);
        self.teams.iter().find(current).or_else(own)
    }

    /// The team in which the caller makes new things: `named`, else the current one.
    pub(crate) fn team_for_new(&self, named: Option<&str>) -> Result<&db::team::Team> {
        let found = match named {
            Some(name) => {
                let name = name.to_lowercase();
                self.teams.iter().find(|(team, _)| team.name == name)
            }
            None => self.current(),
        };
        let Some((team, role)) = found else {
            return Err(match named {
                // Who runs the server knows of every team, and makes things in their own.
                Some(name) if self.user.operator => {
                    let message = format!(
                        "you are not in a team '{name}': only its members can {}",
                        Action::Create.verb()
                    );
                    let thing = Thing::new("team", "", name);
                    self.note_refusal(Action::Create.word(), None, thing, &message);
                    Error::forbidden(message)
                }
                Some(name) => Error::NotFound {
                    what: format!("no team '{name}' of yours"),
                    hint: Some("`grid team` lists your teams".to_owned()),
                },
                None => Error::invalid("you are in no team; ask the operator of the server"),
            });
        };
        let found = InTeam {
            team: team.clone(),
            role: Some(*role),
        };
        self.check_team(&found, Action::Create)?;
        Ok(team)
    }

    /// Whether the caller may make things in `team`.
    pub(crate) fn creates_in(&self, team: TeamId) -> bool {
        let mine = self.teams.iter().find(|(mine, _)| mine.id == team);
        mine.is_some_and(|(team, role)| {
            is_allowed(may(Relation::Teammate(*role), Action::Create, team.policy))
        })
    }

    /// Refuses everybody but those who run the server.
    pub(crate) fn require_operator(&self, what: &str) -> Result<()> {
        if !self.user.operator {
            let message = format!("only an operator of the server can {what}");
            let thing = Thing::new("server", "", "");
            self.note_refusal("server.operate", None, thing, &message);
            return Err(Error::forbidden(message));
        }
        self.require_whole(what)
    }

    /// Refuses keys that are not good for everything.
    pub(crate) fn require_whole(&self, what: &str) -> Result<()> {
        if self.scope == Scope::All {
            return Ok(());
        }
        let message = too_narrow(self.scope, what);
        let thing = Thing::user(&self.user);
        self.note_refusal("key.use", None, thing, &message);
        Err(scope_error(message))
    }

    /// Refuses keys that are only for reading.
    pub fn require_run_scope(&self, what: &str) -> Result<()> {
        if self.scope >= Scope::Run {
            return Ok(());
        }
        let message = too_narrow(self.scope, what);
        let thing = Thing::user(&self.user);
        self.note_refusal("key.use", None, thing, &message);
        Err(scope_error(message))
    }

    fn require_scope(
        &self,
        least: Scope,
        action: Action,
        team: Option<TeamId>,
        thing: Thing,
    ) -> Result<()> {
        if least <= self.scope {
            return Ok(());
        }
        let message = too_narrow(self.scope, action.verb());
        self.note_refusal(action.word(), team, thing, &message);
        Err(scope_error(message))
    }
}

fn too_narrow(scope: Scope, what: &str) -> String {
    format!(
        "this API key is only good for scope '{}': you cannot {what} with it",
        scope.as_str()
    )
}

fn scope_error(message: String) -> Error {
    Error::Forbidden {
        message,
        hint: Some("use another key: `grid user keys` lists yours with their scopes".to_owned()),
    }
}

fn is_allowed(decision: Decision) -> bool {
    matches!(decision, Decision::Allow | Decision::AllowAudited)
}

/// Who looks after a team, by name, for those who may not do something themselves.
async fn who_could(tx: &mut Tx, team: TeamId) -> Result<Option<String>> {
    let members = db::team::members(tx, team).await?;
    let mut admins: Vec<&str> = members
        .iter()
        .filter(|member| member.role >= Role::Admin)
        .map(|member| member.user.username.as_str())
        .collect();
    let more = admins.len().saturating_sub(ADMINS_NAMED_MAX);
    admins.truncate(ADMINS_NAMED_MAX);
    if admins.is_empty() {
        return Ok(None);
    }
    let others = if more > 0 {
        format!(" and {more} more")
    } else {
        String::new()
    };
    Ok(Some(format!(
        "admins of the team: {}{others}",
        admins.join(", ")
    )))
}
