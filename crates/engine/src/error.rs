//! Why a use case was not done: words for people, free of any transport.

use grid_core::blob::BlobId;
use grid_core::workload::Refusal;
use grid_store::{blobs, db, logs};

/// The result of a use case.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a use case was not done.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no such thing, as far as the caller may know.
    #[error("{what}")]
    NotFound { what: String, hint: Option<String> },
    /// The request asks for something impossible.
    #[error("{message}")]
    Invalid {
        message: String,
        hint: Option<String>,
    },
    /// The caller may know of the thing but not do this to it.
    #[error("{message}")]
    Forbidden {
        message: String,
        hint: Option<String>,
    },
    /// No key, or one that is wrong, expired or revoked.
    #[error("{0}")]
    Unauthenticated(String),
    /// The name is taken, or the thing is in a state that does not allow it.
    #[error("{message}")]
    Conflict {
        message: String,
        hint: Option<String>,
    },
    /// Larger than a limit.
    #[error("{message}")]
    TooLarge {
        message: String,
        hint: Option<String>,
    },
    /// Too often.
    #[error("{0}")]
    TooMany(String),
    /// Not now; trying again may help.
    #[error("{0}")]
    Unavailable(String),
    /// The disk is full.
    #[error("{0}")]
    Full(String),
    /// A fault of ours.  Logged once at the edge, and never shown.
    #[error("the server failed")]
    Internal(#[source] anyhow::Error),
}

/// A list of others that the server made is not what it was.
#[derive(Debug, thiserror::Error)]
#[error(
    "a list of files, blob {list}, is damaged or missing: `grid server doctor` says whose it is"
)]
struct Lost {
    list: BlobId,
}

impl Error {
    /// Nothing of that name.
    pub fn not_found(what: impl Into<String>) -> Self {
        Self::NotFound {
            what: what.into(),
            hint: None,
        }
    }

    /// Impossible, and why.
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::Invalid {
            message: message.into(),
            hint: None,
        }
    }

    /// Impossible, why, and what to do.
    pub fn invalid_hint(message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::Invalid {
            message: message.into(),
            hint: Some(hint.into()),
        }
    }

    /// Not for this caller.
    pub fn forbidden(message: impl Into<String>) -> Self {
        Self::Forbidden {
            message: message.into(),
            hint: None,
        }
    }

    /// Not in this state.
    pub fn conflict(message: impl Into<String>) -> Self {
        Self::Conflict {
            message: message.into(),
            hint: None,
        }
    }

    /// A fault of ours.
    pub fn internal(cause: impl Into<anyhow::Error>) -> Self {
        Self::Internal(cause.into())
    }

    /// A list of ours is not stored any more, or damaged.
    pub(crate) fn lost(list: BlobId) -> Self {
        Self::internal(Lost { list })
    }

    /// Which list, if it is that.
    pub(crate) fn lost_list(&self) -> Option<BlobId> {
        match self {
            Self::Internal(cause) => cause.downcast_ref().map(|lost: &Lost| lost.list),
            _ => None,
        }
    }

    /// Whether it is that.
    pub(crate) fn is_lost(&self) -> bool {
        self.lost_list().is_some()
    }

    /// Of reading a list of ours.
    pub(crate) fn reading(list: BlobId, error: blobs::BlobError) -> Self {
        match error {
            blobs::BlobError::Corrupt { .. } | blobs::BlobError::Damaged { .. } => Self::lost(list),
            other => other.into(),
        }
    }

    /// Why the machine of `name` refused.
    pub(crate) fn refused(name: &str, refusal: Refusal) -> Self {
        Self::conflict(format!("{name}: {refusal}"))
    }

    /// What to do next.
    pub fn hint(&self) -> Option<&str> {
        match self {
            Self::NotFound { hint, .. }
            | Self::Invalid { hint, .. }
            | Self::Forbidden { hint, .. }
            | Self::Conflict { hint, .. }
            | Self::TooLarge { hint, .. } => hint.as_deref(),
            _ => None,
        }
    }
}

impl From<db::Error> for Error {
    fn from(error: db::Error) -> Self {
        match error {
            db::Error::Unavailable { .. } => Self::Unavailable(error.to_string()),
            db::Error::Full { .. } => Self::Full(error.to_string()),
            db::Error::Conflict { .. } | db::Error::Refused(_) => Self::conflict(error.to_string()),
            // Whatever it names was looked up a moment before.
            db::Error::Missing { .. } => Self::conflict(format!("{error}; try again")),
            db::Error::TooNew { .. } | db::Error::TooOld | db::Error::Internal { .. } => {
                Self::internal(error)
            }
        }
    }
}

impl From<logs::LogError> for Error {
    fn from(error: logs::LogError) -> Self {
        match error {
            logs::LogError::Full { .. } => Self::Full(
                "the server's disk is full: the log could not be written; make room and it goes on"
                    .to_owned(),
            ),
            other => Self::internal(other),
        }
    }
}

impl From<blobs::BlobError> for Error {
    fn from(error: blobs::BlobError) -> Self {
        match error {
            blobs::BlobError::Full { .. } => Self::Full(
                "the server's disk is full: the file could not be stored; make room and try again"
                    .to_owned(),
            ),
            blobs::BlobError::Bucket(error) => {
                tracing::error!(
                    error = &error as &dyn std::error::Error,
                    "the bucket does not do its work"
                );
                Self::Unavailable(error.to_string())
            }
            // What was sent is not what was announced.
            blobs::BlobError::WrongHash { .. }
            | blobs::BlobError::WrongLength { .. }
            | blobs::BlobError::BadRecipe { .. } => Self::invalid(error.to_string()),
            blobs::BlobError::TooLong { .. } | blobs::BlobError::TooMany { .. } => Self::TooLarge {
                message: error.to_string(),
                hint: None,
            },
            other => Self::internal(other),
        }
    }
}
