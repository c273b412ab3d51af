//! Who is calling, and whether they may: every use case asks here, and here asks
//! the one table in `core`.

use grid_core::access::{Action, Decision, Relation, may};
use grid_core::id::{KeyId, TeamId, UserId};
use grid_core::team::{Role, TeamPolicy};
use grid_store::db::{self, Tx};

use crate::error::{Error, Result};

/// A signed-in user with what they are in each team.
#[derive(Debug, Clone)]
pub struct Caller {
    /// Who.
    pub user: db::user::User,
    /// By which key; `None` for a fresh login by other means.
    pub key: Option<KeyId>,
    /// In which teams, as what, under which policy.
    pub teams: Vec<(db::team::Team, Role)>,
}

/// A thing that somebody made and a team owns.
pub(crate) trait Owned {
    /// The team.
    fn team(&self) -> TeamId;
    /// Who made it.
    fn creator(&self) -> UserId;
    /// What it is called in refusals: `run 'bert-1'`.
    fn called(&self) -> String;
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
}

impl Caller {
    /// Reads what the user is in which team.
    pub(crate) async fn load(
        tx: &mut Tx,
        user: db::user::User,
        key: Option<KeyId>,
    ) -> Result<Self> {
        let teams = db::team::teams_of(tx, user.id).await?;
        Ok(Self { user, key, teams })
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

    /// Lets the caller do `action` to `thing`, or says why not.
    ///
    /// `creator` is the name of whoever made the thing, for the refusal.
    pub(crate) fn check(&self, thing: &impl Owned, action: Action, creator: &str) -> Result<()> {
        let (relation, policy) = self.relation(thing.team(), thing.creator());
        match may(relation, action, policy) {
            Decision::Allow => Ok(()),
            Decision::AllowAudited => {
                // Durable audit comes with teams; until then the server's log has it.
                tracing::info!(
                    operator = %self.user.username,
                    action = ?action,
                    thing = thing.called(),
                    "an operator looks into a team"
                );
                Ok(())
            }
            Decision::Hide => Err(Error::not_found(format!("no {}", thing.called()))),
            Decision::Deny(denial) => Err(Error::Forbidden {
                message: format!(
                    "{} belongs to {creator}: you cannot {}; {denial}",
                    thing.called(),
                    action.verb()
                ),
            }),
        }
    }

    /// The team in which the caller makes new things: `named`, else the current one.
    pub(crate) fn team_for_new(&self, named: Option<&str>) -> Result<&db::team::Team> {
        let found = match named {
            Some(name) => self.teams.iter().find(|(team, _)| team.name == name),
            None => self
                .teams
                .iter()
                .find(|(team, _)| Some(team.id) == self.user.current_team)
                .or_else(|| self.teams.iter().find(|(team, _)| team.personal)),
        };
        let Some((team, role)) = found else {
            return Err(match named {
                Some(name) => Error::not_found(format!("no team '{name}' of yours")),
                None => Error::invalid("you are in no team; ask the operator of the server"),
            });
        };
        // Nobody is the creator of what does not exist yet: only the role counts.
        match may(Relation::Teammate(*role), Action::Create, team.policy) {
            Decision::Allow | Decision::AllowAudited => Ok(team),
            Decision::Deny(denial) => Err(Error::Forbidden {
                message: format!(
                    "team '{}': you cannot {}; {denial}",
                    team.name,
                    Action::Create.verb()
                ),
            }),
            Decision::Hide => Err(Error::not_found("no such team of yours".to_owned())),
        }
    }

    /// Whether the caller may make things in `team`.
    pub(crate) fn creates_in(&self, team: TeamId) -> bool {
        let mine = self.teams.iter().find(|(mine, _)| mine.id == team);
        mine.is_some_and(|(team, role)| {
            let decision = may(Relation::Teammate(*role), Action::Create, team.policy);
            matches!(decision, Decision::Allow | Decision::AllowAudited)
        })
    }

    /// Refuses everybody but those who run the server.
    pub(crate) fn require_operator(&self, what: &str) -> Result<()> {
        if self.user.operator {
            return Ok(());
        }
        Err(Error::Forbidden {
            message: format!("only an operator of the server can {what}"),
        })
    }
}
