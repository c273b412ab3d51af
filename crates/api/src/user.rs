//! Users and their keys.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// A user, as others see them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct UserView {
    /// Id (UUID).
    pub user_id: String,
    /// Name to sign in with.
    pub username: String,
    /// First and last name, or the user name.
    pub display_name: String,
    /// E-mail address, if known.
    pub email: Option<String>,
    /// Whether this user runs the server.
    pub operator: bool,
    /// The teams and the role in each.
    #[serde(default)]
    pub teams: Vec<MembershipView>,
    /// Name of the team that new things go to; only in answers about myself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub current_team: Option<String>,
    /// Whether it is an account for programs, owned by a team.
    #[serde(default)]
    pub service_account: bool,
    /// RFC 3339.
    pub created_at: String,
}

/// A team and the user's role in it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct MembershipView {
    /// Name of the team.
    pub team: String,
    /// Role in it.
    #[schema(value_type = String)]
    pub role: grid_core::team::Role,
}

/// `GET /user`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct UserResponse {
    /// The user.
    pub user: UserView,
}

/// `GET /users`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct UsersResponse {
    /// The users, by name.
    pub users: Vec<UserView>,
}

/// `POST /users`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct UserCreate {
    /// Name to sign in with.
    #[schema(min_length = 1)]
    pub username: String,
    /// E-mail address.
    #[serde(default)]
    pub email: Option<String>,
    /// First name.
    #[serde(default)]
    pub first_name: Option<String>,
    /// Last name.
    #[serde(default)]
    pub last_name: Option<String>,
    /// Whether the new user runs the server, too.
    #[serde(default)]
    pub operator: bool,
}

/// A user and a new API key, shown this once.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct UserKey {
    /// Name.
    pub username: String,
    /// Id.
    pub user_id: String,
    /// The key; the server keeps only a hash of it.
    pub api_key: String,
}

/// `POST /auth/login`: finds the id that belongs to a name and a key.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct LoginRequest {
    /// User name or e-mail address.
    #[schema(min_length = 1)]
    pub username: String,
    /// API key.
    #[schema(min_length = 1)]
    pub api_key: String,
}

// The secrets of these two never reach a log by way of `{:?}`.
impl std::fmt::Debug for UserKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("UserKey")
            .field("username", &self.username)
            .finish_non_exhaustive()
    }
}

impl std::fmt::Debug for LoginRequest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LoginRequest")
            .field("username", &self.username)
            .finish_non_exhaustive()
    }
}
