//! Artifacts: the files that an experiment left behind.

use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

/// One file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ArtifactView {
    /// Path relative to the working directory, with `/`.
    pub path: String,
    /// Size in bytes.
    pub size_bytes: u64,
    /// BLAKE3 of its bytes, in hex.
    pub blake3: String,
    /// Permission bits.
    pub mode: u32,
    /// Modification time, milliseconds since the epoch.
    pub modified_ms: i64,
}

/// `GET /experiments/{experiment}/artifacts`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ArtifactsResponse {
    /// By path.
    pub artifacts: Vec<ArtifactView>,
    /// Pass as `after` for the next page; absent on the last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

/// The query of `GET /experiments/{experiment}/artifacts`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
pub struct ArtifactsQuery {
    /// Only paths after this one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<String>,
    /// At most this many (1 to 10,000; default 1,000).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[param(minimum = 1, maximum = 10_000)]
    pub limit: Option<u32>,
}

/// `POST /experiments/{experiment}/artifact-links`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ArtifactLinkCreate {
    /// Which artifacts, by path.
    pub paths: Vec<String>,
}

/// A link that works without an account, for 24 hours.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ArtifactLink {
    /// Which artifact.
    pub path: String,
    /// Where to fetch it.
    pub url: String,
    /// RFC 3339.
    pub expires_at: String,
}

/// The answer to it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ArtifactLinksResponse {
    /// In the order asked for.
    pub links: Vec<ArtifactLink>,
}
