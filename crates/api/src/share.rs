//! Links that people pass on: to a run, for teammates; to an artifact, for whoever has it.
//!
//! | route | body | answer |
//! | --- | --- | --- |
//! | `POST /runs/{run}/shares` | [`ShareCreate`] | 201 [`ShareCreated`] |
//! | `GET /shares` | [`SharesQuery`] | [`SharesResponse`]: links that work; mine, or with `global` my teams' |
//! | `DELETE /shares/{share}` (id) | | [`ShareResponse`], revoked; by its creator or a team admin |
//! | `GET /shared/{token}` | | [`crate::run::RunResponse`]; for teammates, signed in |
//! | `POST /experiments/{experiment}/artifact-links` | [`crate::artifact::ArtifactLinkCreate`] | 201 [`crate::artifact::ArtifactLinksResponse`] |
//! | `GET /links/{token}/{path}` | | the bytes, without an account, for 24 hours |
//!
//! A link shows nothing that its creator may not (any more) see: it ends when they leave
//! the team, when the thing is deleted, when it is revoked, and when its time is over.

use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

/// What a link leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ShareKind {
    /// A run; only teammates can open it.
    Run,
    /// An artifact; whoever has the link can download it.
    Artifact,
}

/// A link, without its token.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ShareView {
    /// Id.
    pub id: String,
    /// What it leads to.
    pub kind: ShareKind,
    /// Name of the run: `ada:bert-1`, or of the experiment: `ada:bert-1-exp0`.
    pub thing: String,
    /// Path of the artifact.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// Name of the team it belongs to.
    pub team: String,
    /// User name of who made the link.
    pub created_by: String,
    /// RFC 3339.
    pub created_at: String,
    /// Until when it works; absent for ever.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<String>,
    /// When it was revoked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revoked_at: Option<String>,
    /// When it was last used, to the minute.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_used_at: Option<String>,
}

/// `POST /runs/{run}/shares`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ShareCreate {
    /// After how many seconds it ends; 30 days when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_in_s: Option<u64>,
}

/// A new link, shown this once.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ShareCreated {
    /// The link without its token.
    pub share: ShareView,
    /// What `GET /shared/{token}` takes; the last part of the link.
    pub token: String,
    /// The link itself: `https://grid.example/s/TOKEN`.
    pub url: String,
}

/// An answer about one link.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ShareResponse {
    /// The link.
    pub share: ShareView,
}

/// `GET /shares`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SharesResponse {
    /// The newest first.
    pub shares: Vec<ShareView>,
    /// Pass as `cursor` for the next page; absent on the last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

/// The query of `GET /shares`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
pub struct SharesQuery {
    /// Teammates' links, too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub global: Option<bool>,
    /// Only links to this run and its artifacts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run: Option<String>,
    /// At most this many (1 to 1,000; default 100).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[param(minimum = 1, maximum = 1_000)]
    pub limit: Option<u32>,
    /// Where the last page ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cursor: Option<String>,
}

// The token never reaches a log by way of `{:?}`.
impl std::fmt::Debug for ShareCreated {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ShareCreated")
            .field("share", &self.share)
            .finish_non_exhaustive()
    }
}
