//! Public SSH keys: what one may get into one's sessions with.
//!
//! | route | body | answer |
//! | --- | --- | --- |
//! | `GET /user/ssh-keys` | | [`SshKeysResponse`], the oldest first |
//! | `POST /user/ssh-keys` | [`SshKeyCreate`] | 201 [`SshKeyResponse`] |
//! | `DELETE /user/ssh-keys/{key}` (name or id) | | [`SshKeyResponse`], removed |
//!
//! They are one's own: nobody else sees them.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// A public key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SshKeyView {
    /// Id.
    pub id: String,
    /// What its owner calls it.
    pub name: String,
    /// The line of a `.pub` file.
    pub public_key: String,
    /// `SHA256:…`, as `ssh-keygen -l` shows it.
    pub fingerprint: String,
    /// RFC 3339.
    pub created_at: String,
}

/// `GET /user/ssh-keys`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SshKeysResponse {
    /// The oldest first.
    pub ssh_keys: Vec<SshKeyView>,
}

/// `POST /user/ssh-keys`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SshKeyCreate {
    /// What to call it: `laptop`.
    pub name: String,
    /// The line of a `.pub` file.
    pub public_key: String,
}

/// An answer about one key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SshKeyResponse {
    /// The key.
    pub ssh_key: SshKeyView,
}
