//! Teams: members, roles, policy, invitations, service accounts.
//!
//! `{team}` in a path is the name of a team (or its id).  Whoever is not in it is answered
//! `404`; operators may do the same as an admin, and it is written down.
//!
//! | route | who | body | answer |
//! | --- | --- | --- | --- |
//! | `GET /teams` | me; `?all=true` for operators | | [`TeamsResponse`], without members |
//! | `POST /teams` | everybody | [`TeamCreate`] | 201 [`TeamResponse`]; I am its owner |
//! | `GET /teams/{team}` | members | | [`TeamResponse`], with members |
//! | `POST /teams/{team}/rename` | admins | [`TeamRename`] | [`TeamResponse`] |
//! | `POST /teams/{team}/leave` | members | | [`TeamLeft`] |
//! | `GET /teams/{team}/policy` | members | | [`PolicyResponse`]: the rules, as they are for me |
//! | `PUT /teams/{team}/policy` | admins | [`PolicyUpdate`] | [`PolicyResponse`] |
//! | `PUT /teams/{team}/members/{user}` | admins; owners for `owner` | [`MemberUpdate`] | [`TeamResponse`] |
//! | `DELETE /teams/{team}/members/{user}` | admins; owners for owners | | [`TeamResponse`] |
//! | `GET /teams/{team}/invitations` | admins | | [`InvitationsResponse`], open ones |
//! | `POST /teams/{team}/invitations` | admins | [`InvitationCreate`] | 201 [`InvitationCreated`] |
//! | `DELETE /teams/{team}/invitations/{invitation}` | admins | | [`InvitationResponse`] |
//! | `GET /invitations` | me | | [`InvitationsResponse`]: those that wait for me |
//! | `POST /invitations/accept` | the invited | [`InvitationAnswer`] | [`TeamResponse`] |
//! | `POST /invitations/decline` | the invited | [`InvitationAnswer`] | [`InvitationResponse`] |
//! | `POST /invitations/register` | whoever has a token, without an account | [`InvitationRegister`] | 201 [`crate::user::UserKey`]; is in the team |
//! | `PUT /user/team` | me | [`CurrentTeam`] | [`crate::user::UserResponse`] |
//! | `GET /teams/{team}/service-accounts` | members | | [`ServiceAccountsResponse`] |
//! | `POST /teams/{team}/service-accounts` | admins | [`ServiceAccountCreate`] | 201 [`crate::key::KeyCreated`] |
//! | `POST /teams/{team}/service-accounts/{account}/keys` | admins | [`crate::key::KeyCreate`] | 201 [`crate::key::KeyCreated`] |
//! | `DELETE /teams/{team}/service-accounts/{account}` | admins | | [`ServiceAccountsResponse`] |

use grid_core::access::Action;
use grid_core::team::{Role, Sharing, TeamPolicy};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

/// A team.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TeamView {
    /// Id.
    pub id: String,
    /// Name; unique.
    pub name: String,
    /// Whether it is somebody's own, with nobody else in it.
    pub personal: bool,
    /// RFC 3339.
    pub created_at: String,
    /// What I am in it; absent for an operator who is not in it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<Role>,
    /// Whether new things of mine go there.
    #[serde(default)]
    pub current: bool,
    /// The switches.
    pub policy: TeamPolicy,
    /// How many people and service accounts are in it.
    pub member_count: u64,
    /// Who, by name; only in answers about one team.
    #[serde(default)]
    pub members: Vec<MemberView>,
}

/// Somebody in a team.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct MemberView {
    /// Name to sign in with.
    pub username: String,
    /// First and last name, or the user name.
    pub display_name: String,
    /// What they are in the team.
    pub role: Role,
    /// Whether it is a service account.
    #[serde(default)]
    pub service_account: bool,
    /// Since when, RFC 3339.
    pub since: String,
}

/// Every answer about one team.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TeamResponse {
    /// The team.
    pub team: TeamView,
}

/// `GET /teams`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TeamsResponse {
    /// By name.
    pub teams: Vec<TeamView>,
}

/// The query of `GET /teams`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
pub struct TeamsQuery {
    /// All teams of the server; for operators.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub all: Option<bool>,
}

/// `POST /teams`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct TeamCreate {
    /// Name: letters, digits, `-`.
    #[schema(min_length = 1)]
    pub name: String,
}

/// `POST /teams/{team}/rename`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct TeamRename {
    /// The new name.
    #[schema(min_length = 1)]
    pub name: String,
}

/// `POST /teams/{team}/leave`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TeamLeft {
    /// Name of the team that was left.
    pub team: String,
    /// Name of the team that new things go to now.
    pub current: String,
}

/// `PUT /teams/{team}/policy`: what is absent stays.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PolicyUpdate {
    /// Who may stop and delete a teammate's run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run_control: Option<Sharing>,
    /// Who may open a teammate's JupyterLab.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jupyter_access: Option<Sharing>,
}

/// The rules of a team as they are for whoever asks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PolicyResponse {
    /// Name of the team.
    pub team: String,
    /// What I am in it; absent for an operator who is not in it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<Role>,
    /// The switches.
    pub policy: TeamPolicy,
    /// One for each thing that can be done.
    pub rules: Vec<RuleView>,
}

/// One rule, for me.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RuleView {
    /// The action, for programs.
    #[schema(value_type = String)]
    pub action: Action,
    /// The same in words: `stop a run or experiment`.
    pub what: String,
    /// With what is mine, in words: `yes`, `no: …`; absent where nothing has a creator
    /// (managing the team).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mine: Option<String>,
    /// With what is a teammate's, or with the team itself.
    pub theirs: String,
    /// Whether I may with what is mine.
    pub mine_allowed: bool,
    /// Whether I may with what is a teammate's, or with the team itself.
    pub theirs_allowed: bool,
}

/// `PUT /teams/{team}/members/{user}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct MemberUpdate {
    /// The new role.
    pub role: Role,
}

/// `POST /teams/{team}/invitations`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct InvitationCreate {
    /// User name, or e-mail address.
    #[schema(min_length = 1)]
    pub to: String,
    /// What they will be; `member` when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<Role>,
}

/// An invitation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct InvitationView {
    /// Id.
    pub id: String,
    /// Name of the team.
    pub team: String,
    /// Whom: the user name or address that was given.
    pub to: String,
    /// What they will be.
    pub role: Role,
    /// User name of who invites.
    pub invited_by: String,
    /// RFC 3339.
    pub created_at: String,
    /// Until when it can be accepted, RFC 3339.
    pub expires_at: String,
}

/// An answer about one invitation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct InvitationResponse {
    /// The invitation.
    pub invitation: InvitationView,
}

/// A new invitation.  One to an address also has a link, shown this once, that whoever has
/// it can use once; one to a user name waits until they accept it.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct InvitationCreated {
    /// The invitation.
    pub invitation: InvitationView,
    /// The token of the link: `grid team join TOKEN`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<String>,
    /// The link itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
}

/// Invitations.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct InvitationsResponse {
    /// Oldest first.
    pub invitations: Vec<InvitationView>,
}

/// `POST /invitations/accept` and `/decline`: by the team that invited me, or by the token
/// of a link (the link itself will do).
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct InvitationAnswer {
    /// Name of the team.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub team: Option<String>,
    /// Token, or link.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<String>,
}

/// `POST /invitations/register`: makes an account and joins with it.  Needs no account.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct InvitationRegister {
    /// Token, or link.
    #[schema(min_length = 1)]
    pub token: String,
    /// Name to sign in with.
    #[schema(min_length = 1)]
    pub username: String,
    /// First name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first_name: Option<String>,
    /// Last name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_name: Option<String>,
}

/// `PUT /user/team`: where my new things go.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CurrentTeam {
    /// Name of a team of mine.
    #[schema(min_length = 1)]
    pub team: String,
}

/// `POST /teams/{team}/service-accounts`: an account for programs, with its first key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ServiceAccountCreate {
    /// Name; unique among all users.
    #[schema(min_length = 1)]
    pub name: String,
    /// `member` (when absent) or `viewer`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<Role>,
    /// What the first key is good for; `run` when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scope: Option<grid_core::access::Scope>,
    /// After how many seconds the first key ends; never when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_in_s: Option<u64>,
}

/// A service account.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ServiceAccountView {
    /// Name.
    pub username: String,
    /// Id.
    pub user_id: String,
    /// What it is in the team.
    pub role: Role,
    /// RFC 3339.
    pub created_at: String,
    /// Its keys that work.
    pub keys: Vec<crate::key::KeyView>,
}

/// The service accounts of a team.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ServiceAccountsResponse {
    /// By name.
    pub service_accounts: Vec<ServiceAccountView>,
}

// The tokens of these never reach a log by way of `{:?}`.
impl std::fmt::Debug for InvitationCreated {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("InvitationCreated")
            .field("invitation", &self.invitation)
            .finish_non_exhaustive()
    }
}

impl std::fmt::Debug for InvitationAnswer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("InvitationAnswer")
            .field("team", &self.team)
            .finish_non_exhaustive()
    }
}

impl std::fmt::Debug for InvitationRegister {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("InvitationRegister")
            .field("username", &self.username)
            .finish_non_exhaustive()
    }
}
