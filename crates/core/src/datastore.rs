//! Datastores: what a version can be, and where it can come from.

use std::fmt;

use serde::{Deserialize, Serialize};

/// How far a version is.
///
/// Uploading → (processing) → available or failed.  What is available never changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub enum State {
    /// Its files are being sent.
    Uploading,
    /// The server fetches or files it.
    Processing,
    /// It can be read and mounted.
    Available,
    /// It will never be.
    Failed,
}

impl State {
    /// The word.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Uploading => "uploading",
            Self::Processing => "processing",
            Self::Available => "available",
            Self::Failed => "failed",
        }
    }

    /// Reads the word.
    pub fn parse(text: &str) -> Option<Self> {
        [
            Self::Uploading,
            Self::Processing,
            Self::Available,
            Self::Failed,
        ]
        .into_iter()
        .find(|state| state.as_str() == text)
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// Where a version comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub enum SourceKind {
    /// A folder of whoever made it.
    Folder,
    /// A single file.
    File,
    /// An archive that was sent in one stream.
    Stream,
    /// An archive that the server fetches.
    Http,
    /// Objects in a bucket.
    S3,
}

impl SourceKind {
    /// The word.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Folder => "folder",
            Self::File => "file",
            Self::Stream => "stream",
            Self::Http => "http",
            Self::S3 => "s3",
        }
    }

    /// Reads the word.
    pub fn parse(text: &str) -> Option<Self> {
        [Self::Folder, Self::File, Self::Stream, Self::Http, Self::S3]
            .into_iter()
            .find(|kind| kind.as_str() == text)
    }

    /// Whether its files are listed and sent by whoever makes it, a part at a time.
    pub const fn is_sent_in_parts(self) -> bool {
        matches!(self, Self::Folder | Self::File)
    }

    /// Whether the server fetches it by itself.
    pub const fn is_fetched(self) -> bool {
        matches!(self, Self::Http | Self::S3)
    }
}

impl fmt::Display for SourceKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}
