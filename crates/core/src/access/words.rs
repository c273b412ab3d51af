//! The words of the table: how actions are called, and how a refusal is said.

use super::{Action, Decision, Denial, Relation, Scope, may};
use crate::team::{Role, TeamPolicy};

/// Actions with what is made in a team, by the kind of the thing.  What a person may do
/// with a thing is told from these.
const RUN: [Action; 10] = [
    Action::SeeRun,
    Action::ReadLogs,
    Action::ReadArtifacts,
    Action::ReadMetrics,
    Action::OpenTensorboard,
    Action::ShareRun,
    Action::CloneRun,
    Action::StopRun,
    Action::DeleteRun,
    Action::RetryRun,
];
const SESSION: [Action; 6] = [
    Action::SeeSession,
    Action::OpenJupyter,
    Action::OpenSsh,
    Action::PauseSession,
    Action::ChangeSession,
    Action::DeleteSession,
];
const DATASTORE: [Action; 4] = [
    Action::SeeDatastore,
    Action::UseDatastore,
    Action::ExtendDatastore,
    Action::DeleteDatastore,
];
const CREDENTIAL: [Action; 4] = [
    Action::UseCredential,
    Action::ChangeCredential,
    Action::DeleteCredential,
    Action::ReadSecret,
];

impl Action {
    /// What it is called in sentences about one thing: "you cannot …".
    pub const fn verb(self) -> &'static str {
        match self {
            Self::SeeTeam => "see the team",
            Self::SeeRun => "see it",
            Self::ReadLogs => "read its logs",
            Self::ReadArtifacts => "download its artifacts",
            Self::ReadMetrics => "see its metrics",
            Self::OpenTensorboard => "open its TensorBoard",
            Self::ShareRun => "share it",
            Self::CloneRun => "clone it",
            Self::StopRun => "stop it",
            Self::DeleteRun => "delete it",
            Self::RetryRun => "retry it",
            Self::SeeSession => "see it",
            Self::OpenJupyter => "open its JupyterLab",
            Self::OpenSsh => "open a shell in it",
            Self::PauseSession => "pause it",
            Self::ChangeSession => "resume or change it",
            Self::DeleteSession => "delete it",
            Self::SeeDatastore => "browse its files",
            Self::UseDatastore => "use it",
            Self::ExtendDatastore => "add a version to it, rename it or describe it",
            Self::DeleteDatastore => "delete it",
            Self::UseCredential => "use it",
            Self::ChangeCredential => "change it",
            Self::DeleteCredential => "delete it",
            Self::ReadSecret => "read its secret part",
            Self::Create => "create runs, sessions and datastores",
            Self::ManageTeam => "manage the team",
            Self::ManageOwners => "make or unmake owners",
            Self::AddCredit => "add credit",
            Self::SeeBalance => "see the team's balance",
            Self::ReadAudit => "read the team's audit log",
        }
    }

    /// What it is called in the table, about no thing in particular.
    pub const fn label(self) -> &'static str {
        match self {
            Self::SeeTeam => "see the team, its members and their roles",
            Self::SeeRun => "see runs and experiments, their status and history",
            Self::ReadLogs => "read logs",
            Self::ReadArtifacts => "download artifacts",
            Self::ReadMetrics => "see metrics",
            Self::OpenTensorboard => "open TensorBoard",
            Self::ShareRun => "share a run or an experiment",
            Self::CloneRun => "clone a run or an experiment",
            Self::StopRun => "stop a run or an experiment",
            Self::DeleteRun => "delete a run or an experiment, and restore it",
            Self::RetryRun => "retry failed experiments",
            Self::SeeSession => "see sessions",
            Self::OpenJupyter => "open JupyterLab",
            Self::OpenSsh => "open a session by SSH or VS Code",
            Self::PauseSession => "pause a session",
            Self::ChangeSession => "resume or change a session",
            Self::DeleteSession => "delete a session",
            Self::SeeDatastore => "see datastores and browse their files",
            Self::UseDatastore => "run with a datastore, mount it in a session",
            Self::ExtendDatastore => "add a version to a datastore",
            Self::DeleteDatastore => "delete a datastore",
            Self::UseCredential => "use a cloud credential, read its non-secret part",
            Self::ChangeCredential => "change a credential",
            Self::DeleteCredential => "delete a credential",
            Self::ReadSecret => "read the secret part of a credential",
            Self::Create => "create runs, sessions and datastores",
            Self::ManageTeam => "invite and remove members, set roles, change the policy",
            Self::ManageOwners => "make and unmake owners",
            Self::AddCredit => "add credit to the team",
            Self::SeeBalance => "see the team's balance",
            Self::ReadAudit => "see the team's whole audit log",
        }
    }

    /// What it is called in the audit log.
    pub const fn word(self) -> &'static str {
        match self {
            Self::SeeTeam => "team.see",
            Self::SeeRun => "run.see",
            Self::ReadLogs => "run.logs",
            Self::ReadArtifacts => "run.artifacts",
            Self::ReadMetrics => "run.metrics",
            Self::OpenTensorboard => "run.tensorboard",
            Self::ShareRun => "run.share",
            Self::CloneRun => "run.clone",
            Self::StopRun => "run.stop",
            Self::DeleteRun => "run.delete",
            Self::RetryRun => "run.retry",
            Self::SeeSession => "session.see",
            Self::OpenJupyter => "session.jupyter",
            Self::OpenSsh => "session.ssh",
            Self::PauseSession => "session.pause",
            Self::ChangeSession => "session.change",
            Self::DeleteSession => "session.delete",
            Self::SeeDatastore => "datastore.see",
            Self::UseDatastore => "datastore.use",
            Self::ExtendDatastore => "datastore.extend",
            Self::DeleteDatastore => "datastore.delete",
            Self::UseCredential => "credential.use",
            Self::ChangeCredential => "credential.change",
            Self::DeleteCredential => "credential.delete",
            Self::ReadSecret => "credential.secret",
            Self::Create => "team.create_in",
            Self::ManageTeam => "team.manage",
            Self::ManageOwners => "team.owners",
            Self::AddCredit => "team.credit",
            Self::SeeBalance => "team.balance",
            Self::ReadAudit => "team.audit",
        }
    }

    /// The least that a key must be good for to do it.
    pub const fn scope(self) -> Scope {
        match self {
            Self::SeeTeam
            | Self::SeeRun
            | Self::ReadLogs
            | Self::ReadArtifacts
            | Self::ReadMetrics
            | Self::OpenTensorboard
            | Self::SeeSession
            | Self::SeeDatastore
            | Self::SeeBalance
            | Self::ReadAudit => Scope::Read,
            Self::ShareRun
            | Self::CloneRun
            | Self::StopRun
            | Self::DeleteRun
            | Self::RetryRun
            | Self::OpenJupyter
            | Self::OpenSsh
            | Self::PauseSession
            | Self::ChangeSession
            | Self::DeleteSession
            | Self::UseDatastore
            | Self::ExtendDatastore
            | Self::DeleteDatastore
            | Self::UseCredential
            | Self::Create => Scope::Run,
            Self::ChangeCredential
            | Self::DeleteCredential
            | Self::ReadSecret
            | Self::ManageTeam
            | Self::ManageOwners
            | Self::AddCredit => Scope::All,
        }
    }

    /// All that can be done with the same kind of thing; nothing for what is about a team.
    const fn siblings(self) -> &'static [Self] {
        match self {
            Self::SeeRun
            | Self::ReadLogs
            | Self::ReadArtifacts
            | Self::ReadMetrics
            | Self::OpenTensorboard
            | Self::ShareRun
            | Self::CloneRun
            | Self::StopRun
            | Self::DeleteRun
            | Self::RetryRun => &RUN,
            Self::SeeSession
            | Self::OpenJupyter
            | Self::OpenSsh
            | Self::PauseSession
            | Self::ChangeSession
            | Self::DeleteSession => &SESSION,
            Self::SeeDatastore
            | Self::UseDatastore
            | Self::ExtendDatastore
            | Self::DeleteDatastore => &DATASTORE,
            Self::UseCredential
            | Self::ChangeCredential
            | Self::DeleteCredential
            | Self::ReadSecret => &CREDENTIAL,
            Self::SeeTeam
            | Self::Create
            | Self::ManageTeam
            | Self::ManageOwners
            | Self::AddCredit
            | Self::SeeBalance
            | Self::ReadAudit => &[],
        }
    }
}

impl Denial {
    /// Who could do `verb`, with the creator's name: "only ada or a team admin can stop it".
    fn sentence(self, creator: &str, verb: &str) -> String {
        match self {
            Self::OnlyCreator => format!("only {creator} can {verb}"),
            Self::CreatorOrAdmin => format!("only {creator} or a team admin can {verb}"),
            Self::OnlyAdmin => format!("only a team admin can {verb}"),
            Self::OnlyOwner => format!("only a team owner can {verb}"),
            Self::OnlyMembers => {
                format!("only members of the team can {verb}; an admin can make you one")
            }
            Self::OnlyOperator => format!("only the operator of the server can {verb}"),
            Self::Nobody => format!("nobody can {verb}"),
        }
    }
}

/// The words to somebody who may not do `action` with `called` ("run 'bert-1'"), which
/// `creator` made: what they may do instead, and who could do this.
pub fn refusal(
    called: &str,
    creator: &str,
    action: Action,
    (relation, policy): (Relation, TeamPolicy),
    denial: Denial,
) -> String {
    let allowed: Vec<&str> = action
        .siblings()
        .iter()
        .filter(|other| {
            let decision = may(relation, **other, policy);
            matches!(decision, Decision::Allow | Decision::AllowAudited)
        })
        .map(|other| other.verb())
        .collect();
    let whose = match relation {
        Relation::Creator(Role::Viewer) => format!("{called} is yours, but you are a viewer now"),
        Relation::Creator(_) => format!("{called} is yours"),
        Relation::Teammate(_) | Relation::Operator | Relation::Outsider => {
            format!("{called} belongs to {creator}")
        }
    };
    let only = denial.sentence(creator, action.verb());
    match listed(&allowed) {
        Some(allowed) => format!("{whose}. You can {allowed}; {only}."),
        None => format!("{whose}: {only}."),
    }
}

/// The words to somebody who may not do what is about a team.
pub fn team_refusal(team: &str, action: Action, denial: Denial) -> String {
    format!(
        "team '{team}': {}.",
        denial.sentence("its creator", action.verb())
    )
}

/// `a`, `a and b`, `a, b and c`.
fn listed(words: &[&str]) -> Option<String> {
    let (last, first) = words.split_last()?;
    Some(match first {
        [] => (*last).to_owned(),
        first => format!("{} and {last}", first.join(", ")),
    })
}

/// What a decision says in one cell of a table.
pub fn cell(decision: Decision) -> String {
    match decision {
        Decision::Allow => "yes".to_owned(),
        Decision::AllowAudited => "audited".to_owned(),
        Decision::Hide => "404".to_owned(),
        Decision::Deny(denial) => format!("no: {denial}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::team::Sharing;

    fn check(relation: Relation, policy: TeamPolicy, action: Action, expected: &str) {
        let Decision::Deny(denial) = may(relation, action, policy) else {
            panic!("{action:?} is not refused")
        };
        let said = refusal("run 'bert-1'", "ada", action, (relation, policy), denial);
        assert_eq!(said, expected);
    }

    #[test]
    fn a_refusal_says_what_can_be_done_and_who_could_do_it() {
        let closed = TeamPolicy {
            run_control: Sharing::Creator,
            ..TeamPolicy::default()
        };
        check(
            Relation::Teammate(Role::Member),
            closed,
            Action::StopRun,
            "run 'bert-1' belongs to ada. You can see it, read its logs, download its artifacts, \
             see its metrics, open its TensorBoard, share it and clone it; only ada or a team \
             admin can stop it.",
        );
        check(
            Relation::Creator(Role::Viewer),
            TeamPolicy::default(),
            Action::RetryRun,
            "run 'bert-1' is yours, but you are a viewer now. You can see it, read its logs, \
             download its artifacts, see its metrics, open its TensorBoard, share it, stop it and \
             delete it; only members of the team can retry it; an admin can make you one.",
        );
        check(
            Relation::Teammate(Role::Member),
            TeamPolicy::default(),
            Action::PauseSession,
            "run 'bert-1' belongs to ada. You can see it and open its JupyterLab; only ada or a \
             team admin can pause it.",
        );
    }

    #[test]
    fn no_two_actions_are_called_alike() {
        let mut words: Vec<&str> = Action::ALL.iter().map(|action| action.word()).collect();
        words.sort_unstable();
        words.dedup();
        assert_eq!(words.len(), Action::ALL.len());
    }

    #[test]
    fn what_changes_something_needs_more_than_a_key_to_read() {
        for action in Action::ALL {
            let reads = Action::SeeTeam.scope() == action.scope();
            let viewer = may(
                Relation::Teammate(Role::Viewer),
                action,
                TeamPolicy::default(),
            );
            // A viewer changes nothing of others', and shares.
            if !reads && action != Action::ShareRun {
                assert_ne!(viewer, Decision::Allow, "{action:?}");
            }
        }
    }
}
