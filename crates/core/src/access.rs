//! Who may do what: the one table.  No other place decides.
//!
//! The rows are those of the rules of a team; [`may`] looks one up.  A refusal
//! carries its reason as data, so that every door words it alike.

mod words;

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::team::{Role, Sharing, TeamPolicy};

pub use words::{cell, refusal, team_refusal};

/// What somebody wants to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// See the team, its members and their roles.
    SeeTeam,
    /// See a run or an experiment: status, history, parameters.
    SeeRun,
    /// Read its logs.
    ReadLogs,
    /// List and download its artifacts.
    ReadArtifacts,
    /// See its metrics.
    ReadMetrics,
    /// Open its TensorBoard.
    OpenTensorboard,
    /// Make a link to it.
    ShareRun,
    /// Make a run of one's own from it.
    CloneRun,
    /// Stop it.
    StopRun,
    /// Move it to the trash, and bring it back.
    DeleteRun,
    /// Run its failed experiments again, in place.
    RetryRun,
    /// See a session.
    SeeSession,
    /// Open its JupyterLab.
    OpenJupyter,
    /// SSH or VS Code into it.
    OpenSsh,
    /// Pause it.
    PauseSession,
    /// Resume or change it.
    ChangeSession,
    /// Delete it.
    DeleteSession,
    /// See a datastore and browse its files.
    SeeDatastore,
    /// Mount a datastore.
    UseDatastore,
    /// Add a version to a datastore.
    ExtendDatastore,
    /// Delete a datastore version.
    DeleteDatastore,
    /// Use a cloud credential and read its non-secret part.
    UseCredential,
    /// Put something else into a credential.
    ChangeCredential,
    /// Delete a credential.
    DeleteCredential,
    /// Read the secret part of a credential.
    ReadSecret,
    /// Create runs, sessions and datastores.
    Create,
    /// Invite and remove members, set roles below owner, change the policy, rename.
    ManageTeam,
    /// Make and unmake owners.
    ManageOwners,
    /// Add credit.
    AddCredit,
    /// See the team's balance.
    SeeBalance,
    /// See the whole audit log of the team (everybody sees their own actions).
    ReadAudit,
}

/// What an API key is good for, from the least to the most.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub enum Scope {
    /// Looking at things.
    Read,
    /// Also making and changing runs.
    Run,
    /// Everything that its user may.
    #[default]
    All,
}

impl Scope {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Read, Self::Run, Self::All];

    /// The word.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Run => "run",
            Self::All => "all",
        }
    }

    /// Reads the word.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|scope| scope.as_str() == text)
    }
}

/// How the caller stands to the thing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Relation {
    /// Made it, and still has the role in the team that it belongs to.
    Creator(Role),
    /// Is in the same team.
    Teammate(Role),
    /// Is not in the team: for them it does not exist.
    Outsider,
    /// Is not in the team and runs the server; whatever is allowed is audited.
    Operator,
}

/// The answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// Go ahead.
    Allow,
    /// Go ahead, and leave an audit event: an operator in a team's data.
    AllowAudited,
    /// The caller may know that it exists, but not do this.
    Deny(Denial),
    /// The caller is told that it does not exist.
    Hide,
}

/// Who could do what the caller may not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Denial {
    /// Only its creator.
    OnlyCreator,
    /// Its creator and the team's admins.
    CreatorOrAdmin,
    /// The team's admins.
    OnlyAdmin,
    /// The team's owners.
    OnlyOwner,
    /// Members; the caller is a viewer.
    OnlyMembers,
    /// Whoever runs the server.
    OnlyOperator,
    /// Nobody at all.
    Nobody,
}

impl fmt::Display for Denial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::OnlyCreator => "only its creator can",
            Self::CreatorOrAdmin => "only its creator or a team admin can",
            Self::OnlyAdmin => "only a team admin can",
            Self::OnlyOwner => "only a team owner can",
            Self::OnlyMembers => "only members of the team can",
            Self::OnlyOperator => "only the operator of the server can",
            Self::Nobody => "nobody can",
        })
    }
}

/// One row: what a teammate who is member, viewer or admin may do.
struct Row {
    member: Cell,
    viewer: Cell,
    admin: Cell,
    /// A creator who has become a viewer of the team.
    creator_as_viewer: Cell,
}

#[derive(Clone, Copy)]
enum Cell {
    Yes,
    No(Denial),
    /// As `run_control` says.
    RunControl,
    /// As `jupyter_access` says.
    JupyterAccess,
}

/// The table.  Listed by name, without a default: a new action does not compile
/// until it has a row.
const fn row(action: Action) -> Row {
    use Cell::{JupyterAccess, No, RunControl, Yes};
    use Denial::{
        CreatorOrAdmin, Nobody, OnlyAdmin, OnlyCreator, OnlyMembers, OnlyOperator, OnlyOwner,
    };
    const fn cells(member: Cell, viewer: Cell, admin: Cell, creator_as_viewer: Cell) -> Row {
        Row {
            member,
            viewer,
            admin,
            creator_as_viewer,
        }
    }
    match action {
        Action::SeeTeam
        | Action::SeeRun
        | Action::ReadLogs
        | Action::ReadArtifacts
        | Action::ReadMetrics
        | Action::OpenTensorboard
        | Action::ShareRun
        | Action::SeeSession
        | Action::SeeDatastore => cells(Yes, Yes, Yes, Yes),
        Action::CloneRun | Action::UseDatastore | Action::UseCredential | Action::Create => {
            cells(Yes, No(OnlyMembers), Yes, No(OnlyMembers))
        }
        Action::StopRun | Action::DeleteRun => cells(RunControl, No(CreatorOrAdmin), Yes, Yes),
        Action::RetryRun => cells(RunControl, No(OnlyMembers), Yes, No(OnlyMembers)),
        Action::OpenJupyter => cells(JupyterAccess, No(OnlyMembers), Yes, No(OnlyMembers)),
        Action::OpenSsh => cells(
            No(OnlyCreator),
            No(OnlyCreator),
            No(OnlyCreator),
            No(OnlyMembers),
        ),
        Action::PauseSession | Action::DeleteSession => {
            cells(No(CreatorOrAdmin), No(CreatorOrAdmin), Yes, Yes)
        }
        Action::ChangeSession => cells(
            No(OnlyCreator),
            No(OnlyCreator),
            No(OnlyCreator),
            No(OnlyMembers),
        ),
        Action::ExtendDatastore | Action::ChangeCredential => cells(
            No(OnlyCreator),
            No(OnlyCreator),
            No(OnlyCreator),
            No(OnlyMembers),
        ),
        Action::DeleteDatastore | Action::DeleteCredential => {
            cells(No(CreatorOrAdmin), No(CreatorOrAdmin), Yes, Yes)
        }
        Action::ReadSecret => cells(No(Nobody), No(Nobody), No(Nobody), No(Nobody)),
        Action::ManageTeam | Action::ReadAudit => {
            cells(No(OnlyAdmin), No(OnlyAdmin), Yes, No(OnlyAdmin))
        }
        Action::ManageOwners => cells(No(OnlyOwner), No(OnlyOwner), No(OnlyOwner), No(OnlyOwner)),
        Action::AddCredit => cells(
            No(OnlyOperator),
            No(OnlyOperator),
            No(OnlyOperator),
            No(OnlyOperator),
        ),
        Action::SeeBalance => cells(Yes, No(OnlyMembers), Yes, No(OnlyMembers)),
    }
}

/// Whether an action is about the team itself or about making something new in it:
/// then nobody is its creator, and only the role counts.
pub const fn about_team(action: Action) -> bool {
    matches!(
        action,
        Action::SeeTeam
            | Action::Create
            | Action::ManageTeam
            | Action::ManageOwners
            | Action::AddCredit
            | Action::SeeBalance
            | Action::ReadAudit
    )
}

/// Decides whether `relation` allows `action` under the team's `policy`.
pub fn may(relation: Relation, action: Action, policy: TeamPolicy) -> Decision {
    let row = row(action);
    let cell = match relation {
        Relation::Outsider => return Decision::Hide,
        Relation::Operator => {
            // Secrets and shells stay closed to whoever runs the server, too.
            return match action {
                Action::ReadSecret => Decision::Deny(Denial::Nobody),
                Action::OpenSsh
                | Action::OpenJupyter
                | Action::ChangeSession
                | Action::ExtendDatastore
                | Action::ChangeCredential => Decision::Deny(Denial::OnlyCreator),
                Action::Create
                | Action::CloneRun
                | Action::UseCredential
                | Action::UseDatastore => Decision::Deny(Denial::OnlyMembers),
                _ => Decision::AllowAudited,
            };
        }
        Relation::Creator(Role::Viewer) => row.creator_as_viewer,
        Relation::Creator(_) if !about_team(action) => match action {
            Action::ReadSecret => Cell::No(Denial::Nobody),
            _ => Cell::Yes,
        },
        Relation::Teammate(Role::Viewer) => row.viewer,
        Relation::Creator(Role::Member) | Relation::Teammate(Role::Member) => row.member,
        Relation::Creator(Role::Owner) | Relation::Teammate(Role::Owner)
            if matches!(action, Action::ManageOwners) =>
        {
            Cell::Yes
        }
        Relation::Creator(Role::Admin | Role::Owner)
        | Relation::Teammate(Role::Admin | Role::Owner) => row.admin,
    };
    match cell {
        Cell::Yes => Decision::Allow,
        Cell::No(denial) => Decision::Deny(denial),
        Cell::RunControl => shared(policy.run_control),
        Cell::JupyterAccess => shared(policy.jupyter_access),
    }
}

const fn shared(sharing: Sharing) -> Decision {
    match sharing {
        Sharing::Team => Decision::Allow,
        Sharing::Creator => Decision::Deny(Denial::CreatorOrAdmin),
    }
}

impl Action {
    /// All actions, in the order of the table.
    pub const ALL: [Self; 31] = [
        Self::SeeTeam,
        Self::SeeRun,
        Self::ReadLogs,
        Self::ReadArtifacts,
        Self::ReadMetrics,
        Self::OpenTensorboard,
        Self::ShareRun,
        Self::CloneRun,
        Self::StopRun,
        Self::DeleteRun,
        Self::RetryRun,
        Self::SeeSession,
        Self::OpenJupyter,
        Self::OpenSsh,
        Self::PauseSession,
        Self::ChangeSession,
        Self::DeleteSession,
        Self::SeeDatastore,
        Self::UseDatastore,
        Self::ExtendDatastore,
        Self::DeleteDatastore,
        Self::UseCredential,
        Self::ChangeCredential,
        Self::DeleteCredential,
        Self::ReadSecret,
        Self::Create,
        Self::ManageTeam,
        Self::ManageOwners,
        Self::AddCredit,
        Self::SeeBalance,
        Self::ReadAudit,
    ];
}

/// The table as Markdown, for the docs and for people who live under it.
pub fn access_table() -> String {
    let policies = [
        ("run_control, jupyter_access: team", TeamPolicy::default()),
        (
            "run_control, jupyter_access: creator",
            TeamPolicy {
                run_control: Sharing::Creator,
                jupyter_access: Sharing::Creator,
            },
        ),
    ];
    let relations = [
        ("creator", Relation::Creator(Role::Member)),
        ("creator, now viewer", Relation::Creator(Role::Viewer)),
        ("member", Relation::Teammate(Role::Member)),
        ("viewer", Relation::Teammate(Role::Viewer)),
        ("admin", Relation::Teammate(Role::Admin)),
        ("owner", Relation::Teammate(Role::Owner)),
        ("outsider", Relation::Outsider),
        ("operator", Relation::Operator),
    ];
    let mut text = String::from(
        "# Who may do what\n\n`yes` · `audited` yes, and it is written down · `404` is told that it does not exist\n",
    );
    for (title, policy) in policies {
        text.push_str(&format!("\n## {title}\n\n| action |"));
        for (name, _) in relations {
            text.push_str(&format!(" {name} |"));
        }
        text.push_str("\n| --- |");
        text.push_str(&" --- |".repeat(relations.len()));
        text.push('\n');
        for action in Action::ALL {
            text.push_str(&format!("| {} |", action.label()));
            for (_, relation) in relations {
                let cell = cell(may(relation, action, policy));
                text.push_str(&format!(" {cell} |"));
            }
            text.push('\n');
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_the_one_that_was_agreed() {
        insta::assert_snapshot!(access_table());
    }

    #[test]
    fn an_outsider_learns_nothing() {
        for action in Action::ALL {
            assert_eq!(
                may(Relation::Outsider, action, TeamPolicy::default()),
                Decision::Hide
            );
        }
    }

    #[test]
    fn the_policy_closes_what_it_names_and_nothing_else() {
        let closed = TeamPolicy {
            run_control: Sharing::Creator,
            jupyter_access: Sharing::Creator,
        };
        for action in Action::ALL {
            let member = Relation::Teammate(Role::Member);
            let changed = may(member, action, TeamPolicy::default()) != may(member, action, closed);
            let governed = matches!(
                action,
                Action::StopRun | Action::DeleteRun | Action::RetryRun | Action::OpenJupyter
            );
            assert_eq!(changed, governed, "{action:?}");
        }
    }
}
