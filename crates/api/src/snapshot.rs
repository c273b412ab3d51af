//! Snapshots: captured trees of source files.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// One entry of a tree.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct TreeEntry {
    /// Path relative to the top, with `/`; no `..`, no leading `/`.
    pub path: String,
    /// What it is.
    pub kind: TreeKind,
    /// Permission bits (0o777).
    #[serde(default)]
    pub mode: u32,
    /// Size in bytes (files).
    #[serde(default)]
    pub size_bytes: u64,
    /// BLAKE3 of the bytes in hex (files), or where it points (symbolic links).
    #[serde(default)]
    pub content: String,
}

/// The kinds of entries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum TreeKind {
    /// A regular file.
    File,
    /// A folder; listed only when it is empty.
    Folder,
    /// A symbolic link that stays inside the tree.
    Link,
}

/// `POST /snapshots`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SnapshotCreate {
    /// The tree, sorted by path.
    pub entries: Vec<TreeEntry>,
}

/// The answer: a snapshot, or what has to be uploaded first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SnapshotResponse {
    /// The id of the snapshot, once nothing is missing.
    #[schema(value_type = Option<String>)]
    pub snapshot: Option<grid_core::id::SnapshotId>,
    /// Blobs that the server does not have: upload them with `PUT /blobs`, then ask again.
    #[serde(default)]
    pub missing: Vec<String>,
}

/// `GET /runner/snapshots/{snapshot}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SnapshotTree {
    /// The tree, sorted by path.
    pub entries: Vec<TreeEntry>,
}
