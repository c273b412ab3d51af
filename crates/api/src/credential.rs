//! Credentials: what opens something elsewhere, for programs that work in one's name or in
//! that of a teammate.
//!
//! | route | body | answer |
//! | --- | --- | --- |
//! | `GET /credentials` | | [`CredentialsResponse`], the oldest first; with `?global=true` teammates', too |
//! | `POST /credentials` | [`CredentialCreate`] | 201 [`CredentialResponse`] |
//! | `GET /credentials/{credential}` (name, `user:name` or id) | | [`CredentialResponse`] |
//! | `PUT /credentials/{credential}` | [`CredentialUpdate`] | [`CredentialResponse`] |
//! | `DELETE /credentials/{credential}` | | [`CredentialResponse`], deleted |
//!
//! They are encrypted at rest.  What is secret in one is sent once, to the server, and is
//! never shown again, to nobody.

use grid_core::credential::Kind;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

/// A credential, without its secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct CredentialView {
    /// Id.
    pub id: String,
    /// What its creator calls it.
    pub name: String,
    /// What kind it is.
    pub kind: Kind,
    /// Who made it.
    pub created_by: String,
    /// The team whose members may use it.
    pub team: String,
    /// Of a role: its name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role_arn: Option<String>,
    /// Of a role: the id that its owner chose.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub external_id: Option<String>,
    /// Of a pair of keys: the part that is no secret.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub access_key_id: Option<String>,
    /// Where the S3 server is; Amazon's when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<String>,
    /// The region.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub region: Option<String>,
    /// RFC 3339.
    pub created_at: String,
    /// When something else was put into it; RFC 3339.
    pub updated_at: String,
    /// Why it cannot be used, if it cannot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
}

/// `GET /credentials`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct CredentialsResponse {
    /// The oldest first.
    pub credentials: Vec<CredentialView>,
}

/// The query of `GET /credentials`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
pub struct CredentialsQuery {
    /// Also those of teammates that one may use.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub global: Option<bool>,
}

/// An answer about one credential.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct CredentialResponse {
    /// The credential.
    pub credential: CredentialView,
}

/// What is in a credential: a role, or a pair of keys.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum CredentialContent {
    /// A role for buckets that may be taken on by whoever knows the id.
    S3Role {
        /// `arn:aws:iam::123456789012:role/NAME`.
        role_arn: String,
        /// The id.
        external_id: String,
    },
    /// A pair of keys for buckets.
    S3Key {
        /// The part that is no secret.
        access_key_id: String,
        /// The secret.
        secret_access_key: String,
        /// With keys that end, what comes with them.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        session_token: Option<String>,
        /// Where the server is; Amazon's when absent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        endpoint: Option<String>,
        /// The region; `us-east-1` when absent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        region: Option<String>,
    },
}

// What is secret never reaches a log by way of `{:?}`.
impl std::fmt::Debug for CredentialContent {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::S3Role { .. } => "S3Role",
            Self::S3Key { .. } => "S3Key",
        })
    }
}

/// `POST /credentials`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CredentialCreate {
    /// What to call it; chosen when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The team whose members may use it; the current one when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub team: Option<String>,
    /// What is in it.
    pub content: CredentialContent,
}

/// `PUT /credentials/{credential}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CredentialUpdate {
    /// What is in it from now on.
    pub content: CredentialContent,
}
