//! What can go wrong with the database, sorted by what the caller does about it.

use std::error::Error as StdError;

/// An error of a driver, or of a value that does not read back.
type Cause = Box<dyn StdError + Send + Sync>;

/// What the functions of [`crate::db`] return.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why the database did not do what it was asked.
///
/// "Not found" is not among these: it is `None` or `false`.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It cannot be reached, or others kept it busy for too long.  Trying again may help.
    #[error("the database did not answer while {doing}; try again in a moment")]
    Unavailable {
        /// What was going on.
        doing: &'static str,
        /// Why.
        source: Cause,
    },
    /// Its disk is full.  Nothing was written; trying again helps once there is room.
    #[error("the disk of the database is full: {doing} was not possible; make room and try again")]
    Full {
        /// What was going on.
        doing: &'static str,
        /// Why.
        source: Cause,
    },
    /// Something that must be unique is there already.
    #[error("{what} is taken")]
    Conflict {
        /// What is taken, for people: "this user name".
        what: &'static str,
    },
    /// It names something that is not there (any more).
    #[error("{doing} names something that is not there any more")]
    Missing {
        /// What was going on.
        doing: &'static str,
    },
    /// A newer program made this database; working on it would damage what that one wrote.
    #[error(
        "the database has schema version {found}, and this program knows versions up to {known}: \
         use the program that made it, or a newer one"
    )]
    TooNew {
        /// The version found.
        found: i64,
        /// The newest version this program knows.
        known: i64,
    },
    /// The database is older than this program, which was told not to change it.
    #[error("the database is older than this program: run `grid server migrate` first")]
    TooOld,
    /// What was asked cannot be done here; the sentence says what to do instead.
    #[error("{0}")]
    Refused(String),
    /// A bug of ours, or a damaged database.
    #[error("the database failed while {doing}")]
    Internal {
        /// What was going on.
        doing: &'static str,
        /// Why.
        source: Cause,
    },
}

impl Error {
    /// Sorts an error of the driver.
    pub(super) fn of(doing: &'static str, error: sqlx::Error) -> Self {
        let kind = match &error {
            sqlx::Error::Database(e) if e.is_unique_violation() => {
                return Self::Conflict {
                    what: "something that must be unique",
                };
            }
            sqlx::Error::Database(e) if e.is_foreign_key_violation() => {
                return Self::Missing { doing };
            }
            sqlx::Error::Database(e) => e.code().map_or(Trouble::Other, |code| trouble(&code)),
            sqlx::Error::Io(e) if e.kind() == std::io::ErrorKind::StorageFull => Trouble::Full,
            sqlx::Error::Io(_)
            | sqlx::Error::Tls(_)
            | sqlx::Error::PoolTimedOut
            | sqlx::Error::PoolClosed
            | sqlx::Error::WorkerCrashed => Trouble::Away,
            _ => Trouble::Other,
        };
        let source = Box::new(error);
        match kind {
            Trouble::Away => Self::Unavailable { doing, source },
            Trouble::Full => Self::Full { doing, source },
            Trouble::Other => Self::Internal { doing, source },
        }
    }

    /// Says what a unique violation of the statement at hand means.
    pub(super) fn taken(self, what: &'static str) -> Self {
        if let Self::Conflict { .. } = self {
            Self::Conflict { what }
        } else {
            self
        }
    }

    pub(super) fn internal(doing: &'static str, source: impl Into<Cause>) -> Self {
        Self::Internal {
            doing,
            source: source.into(),
        }
    }
}

enum Trouble {
    Away,
    Full,
    Other,
}

/// Sorts the codes of both databases: five characters are PostgreSQL's, a number is SQLite's.
fn trouble(code: &str) -> Trouble {
    if code.len() == 5 {
        return match code {
            "53100" => Trouble::Full,
            // Serialization failure, deadlock, lock timeout, statement cancelled, read-only standby.
            "40001" | "40P01" | "55P03" | "57014" | "25006" => Trouble::Away,
            // Connection trouble, too few resources, an operator at work.
            _ if ["08", "53", "57P"]
                .iter()
                .any(|class| code.starts_with(class)) =>
            {
                Trouble::Away
            }
            _ => Trouble::Other,
        };
    }
    const SHARED_MEMORY_CANNOT_GROW: i64 = 4874;
    let Ok(code) = code.parse::<i64>() else {
        return Trouble::Other;
    };
    match (code, code & 0xff) {
        // The index of the log is a file too, and growing it is what fails first.
        (SHARED_MEMORY_CANNOT_GROW, _) | (_, 13) => Trouble::Full,
        // Busy, locked, disk trouble, cannot open.
        (_, 5 | 6 | 10 | 14) => Trouble::Away,
        _ => Trouble::Other,
    }
}
