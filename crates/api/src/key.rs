//! API keys: several per user, each with a name, a scope and an end.
//!
//! | route | body | answer |
//! | --- | --- | --- |
//! | `GET /user/keys` | | [`KeysResponse`], the oldest first; revoked and expired ones with `?all=true` |
//! | `POST /user/keys` | [`KeyCreate`] | 201 [`KeyCreated`]; the secret is shown this once |
//! | `DELETE /user/keys/{key}` (name or id) | | [`KeyResponse`], revoked |
//! | `POST /user/rotate-key` | | replaces all keys by one ([`crate::user::UserKey`]) |
//!
//! A key with `"s3": true` signs requests of S3 and is good for nothing else; the others
//! are sent, and do not sign.
//!
//! A key of the scope `read` answers reads only, `run` also makes and changes runs, `all`
//! does everything its user may.  A request beyond the scope is answered `403`.

use grid_core::access::Scope;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

/// A key, without its secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct KeyView {
    /// Id.
    pub id: String,
    /// What its owner calls it; unique among those that work.
    pub name: String,
    /// What it is good for.
    pub scope: Scope,
    /// RFC 3339.
    pub created_at: String,
    /// When it ends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<String>,
    /// When it was last used, to the minute.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_used_at: Option<String>,
    /// When it was revoked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revoked_at: Option<String>,
    /// Whether this request was made with it.
    #[serde(default)]
    pub current: bool,
    /// What it is known by where it signs requests of S3; none for keys that are sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub access_key_id: Option<String>,
}

/// `GET /user/keys`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct KeysResponse {
    /// The oldest first.
    pub keys: Vec<KeyView>,
}

/// The query of `GET /user/keys`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
pub struct KeysQuery {
    /// Also those that were revoked or have expired.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub all: Option<bool>,
}

/// An answer about one key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct KeyResponse {
    /// The key.
    pub key: KeyView,
}

/// `POST /user/keys`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct KeyCreate {
    /// What to call it: `laptop`, `ci`.
    #[schema(min_length = 1)]
    pub name: String,
    /// What it is good for; `all` when absent (`run` for service accounts).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scope: Option<Scope>,
    /// After how many seconds it ends; never when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_in_s: Option<u64>,
    /// Whether it signs requests of S3 instead of being sent; `false` when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub s3: Option<bool>,
}

/// A new key, shown this once.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct KeyCreated {
    /// Whose: the user name to sign in with.
    pub username: String,
    /// Whose: the id to send with it.
    pub user_id: String,
    /// The key without its secret.
    pub key: KeyView,
    /// The secret, of which the server keeps only a hash; absent for keys of S3.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub api_key: Option<String>,
    /// What signs requests of S3, for such keys.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub s3: Option<S3Secret>,
}

/// What signs requests of S3, shown this once; the server keeps the secret encrypted.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct S3Secret {
    /// The access key id.
    pub access_key_id: String,
    /// The secret access key.
    pub secret_access_key: String,
    /// Where the server speaks S3; absent when it does not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<String>,
}

impl std::fmt::Debug for S3Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("S3Secret")
            .field("access_key_id", &self.access_key_id)
            .finish_non_exhaustive()
    }
}

// The secret never reaches a log by way of `{:?}`.
impl std::fmt::Debug for KeyCreated {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KeyCreated")
            .field("username", &self.username)
            .field("key", &self.key)
            .finish_non_exhaustive()
    }
}
