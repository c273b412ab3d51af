//! What each route asks of the one table: a route without a row here does not pass the
//! tests, and neither does a row without a route.

use grid_core::access::Action;

/// What a route asks before it does anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Asks {
    /// Nothing: it is for everybody, signed in or not.
    Nothing,
    /// Only that somebody is signed in: it shows and changes what is theirs alone.
    SignedIn,
    /// That somebody runs the server.
    Operator,
    /// The table, about a run (or an experiment, which is as its run).
    Run(Action),
    /// The table, about a team.
    Team(Action),
    /// The table, about a credential.
    Credential(Action),
    /// The table, about a datastore.
    Datastore(Action),
    /// The table, about whatever team or run the body or the query names.
    Named(Action),
}

impl Asks {
    /// What is asked for, and about what.
    pub(crate) fn words(self) -> (&'static str, &'static str) {
        match self {
            Self::Nothing => ("nothing", "everybody"),
            Self::SignedIn => ("to be signed in", "what is one's own"),
            Self::Operator => ("to be an operator", "the server"),
            Self::Run(action) => (action.label(), "the run in the path"),
            Self::Team(action) => (action.label(), "the team in the path"),
            Self::Credential(action) => (action.label(), "the credential in the path"),
            Self::Datastore(action) => (action.label(), "the datastore in the path"),
            Self::Named(action) => (action.label(), "what the request names"),
        }
    }
}

/// Every operation by its id.
pub(crate) const ROUTES: &[(&str, Asks)] = {
    use Asks::{Credential, Datastore, Named, Nothing, Operator, Run, SignedIn, Team};
    &[
        ("artifact_download", Run(Action::ReadArtifacts)),
        ("artifact_list", Run(Action::ReadArtifacts)),
        ("audit_export", SignedIn),
        ("audit_list", SignedIn),
        ("blob_missing", SignedIn),
        ("blob_near_upload", SignedIn),
        ("blob_recipes", SignedIn),
        ("blob_upload", SignedIn),
        ("change_follow", SignedIn),
        ("cluster_list", SignedIn),
        ("credential_create", Named(Action::Create)),
        ("credential_delete", Credential(Action::DeleteCredential)),
        ("credential_get", Credential(Action::UseCredential)),
        ("credential_list", SignedIn),
        ("credential_update", Credential(Action::ChangeCredential)),
        ("datastore_archive_put", Datastore(Action::ExtendDatastore)),
        ("datastore_commit", Datastore(Action::ExtendDatastore)),
        ("datastore_create", Named(Action::Create)),
        ("datastore_delete", Datastore(Action::DeleteDatastore)),
        ("datastore_diff", Datastore(Action::SeeDatastore)),
        ("datastore_file_download", Datastore(Action::SeeDatastore)),
        ("datastore_file_fetch", Datastore(Action::SeeDatastore)),
        ("datastore_file_list", Datastore(Action::SeeDatastore)),
        ("datastore_get", Datastore(Action::SeeDatastore)),
        ("datastore_list", SignedIn),
        ("datastore_part_list", Datastore(Action::ExtendDatastore)),
        ("datastore_part_put", Datastore(Action::ExtendDatastore)),
        ("datastore_parts_put", Datastore(Action::ExtendDatastore)),
        ("datastore_restore", Datastore(Action::DeleteDatastore)),
        ("datastore_update", Datastore(Action::ExtendDatastore)),
        ("datastore_user_list", Datastore(Action::SeeDatastore)),
        ("event_list", Run(Action::SeeRun)),
        ("experiment_delete", Run(Action::DeleteRun)),
        ("experiment_get", Run(Action::SeeRun)),
        ("experiment_list", Run(Action::SeeRun)),
        ("experiment_restore", Run(Action::DeleteRun)),
        ("experiment_stop", Run(Action::StopRun)),
        ("health_get", Nothing),
        ("invitation_accept", SignedIn),
        ("invitation_create", Team(Action::ManageTeam)),
        ("invitation_decline", SignedIn),
        ("invitation_list", SignedIn),
        ("invitation_register", Nothing),
        ("invitation_revoke", Team(Action::ManageTeam)),
        ("key_create", SignedIn),
        ("key_list", SignedIn),
        ("key_revoke", SignedIn),
        ("link_create", Run(Action::ReadArtifacts)),
        ("link_follow", Nothing),
        ("log_download", Run(Action::ReadLogs)),
        ("log_follow", Run(Action::ReadLogs)),
        ("log_list", Run(Action::ReadLogs)),
        ("member_remove", Team(Action::ManageTeam)),
        ("member_update", Team(Action::ManageTeam)),
        ("openapi_get", Nothing),
        ("run_clone", Run(Action::CloneRun)),
        ("run_create", Named(Action::Create)),
        ("run_delete", Run(Action::DeleteRun)),
        ("run_get", Run(Action::SeeRun)),
        ("run_list", SignedIn),
        ("run_restore", Run(Action::DeleteRun)),
        ("run_retry", Run(Action::RetryRun)),
        ("run_stop", Run(Action::StopRun)),
        ("service_account_create", Team(Action::ManageTeam)),
        ("service_account_key_create", Team(Action::ManageTeam)),
        ("service_account_list", Team(Action::SeeTeam)),
        ("service_account_remove", Team(Action::ManageTeam)),
        ("share_create", Run(Action::ShareRun)),
        ("share_list", SignedIn),
        ("share_open", Named(Action::SeeRun)),
        ("share_revoke", SignedIn),
        ("snapshot_create", Named(Action::Create)),
        ("ssh_key_create", SignedIn),
        ("ssh_key_list", SignedIn),
        ("ssh_key_remove", SignedIn),
        ("team_audit", Team(Action::SeeTeam)),
        ("team_audit_export", Team(Action::SeeTeam)),
        ("team_create", SignedIn),
        ("team_get", Team(Action::SeeTeam)),
        ("team_invitation_list", Team(Action::ManageTeam)),
        ("team_leave", Team(Action::SeeTeam)),
        ("team_list", SignedIn),
        ("team_policy", Team(Action::SeeTeam)),
        ("team_rename", Team(Action::ManageTeam)),
        ("team_set_policy", Team(Action::ManageTeam)),
        ("user_create", Operator),
        ("user_get", SignedIn),
        ("user_list", SignedIn),
        ("user_login", Nothing),
        ("user_rotate_key", SignedIn),
        ("user_set_team", SignedIn),
    ]
};

/// The routes as Markdown, behind the table of actions.
pub(crate) fn table() -> String {
    let mut text = String::from(
        "\n## What each route asks\n\n| operation | asks for | about |\n| --- | --- | --- |\n",
    );
    for (operation, asks) in ROUTES {
        let (what, about) = asks.words();
        text.push_str(&format!("| `{operation}` | {what} | {about} |\n"));
    }
    text
}
