//! What experiments leave behind.

use grid_core::time::Timestamp;
use grid_store::db;
use serde::Serialize;

use super::time;

/// A part of the artifacts of an experiment.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(in crate::compat::grid) struct Artifacts {
    pub(in crate::compat::grid) artifacts: Vec<Artifact>,
    /// Empty at the end: the client asks until it is.
    pub(in crate::compat::grid) next_page_token: String,
    pub(in crate::compat::grid) previous_page_token: String,
}

/// A file.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(in crate::compat::grid) struct Artifact {
    filename: String,
    last_modified: String,
    /// Base64, or nothing: what is stored is known by another hash, and no command of the
    /// client looks at this one.
    md5_checksum: &'static str,
    size_bytes: String,
    url: String,
}

impl Artifact {
    pub(in crate::compat::grid) fn new(artifact: db::artifact::Artifact, url: String) -> Self {
        Self {
            filename: artifact.path,
            last_modified: time(Timestamp::from_millis(artifact.mtime_ms)),
            md5_checksum: "",
            size_bytes: artifact.size_bytes.to_string(),
            url,
        }
    }
}
