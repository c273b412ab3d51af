//! What a team has, as objects in a bucket: each under one key, in the order of the bytes of
//! the keys.
//!
//! | key | is |
//! | --- | --- |
//! | `datastores/USER/NAME/VERSION/PATH` | a file of a version that can be read |
//! | `datastores/USER/NAME/next/PATH` | a file of the version that USER is making, for USER |
//! | `artifacts/USER/RUN/EXPERIMENT/PATH` | a file that an experiment left behind |
//!
//! A bucket is a team, under its own name where that is one for a bucket.  An empty folder of
//! a version is an object without bytes, whose key ends with a slash; a link that leads to a
//! file is read as that file, and any other link is no object.  Who may see what is asked of
//! the one table; who may not know of a team is told that there is no such bucket.

mod copy;
mod find;
mod key;
mod lines;
mod name;
mod staged;
mod walk;

use grid_core::access::Action;
use grid_core::blob::BlobId;
use grid_core::time::Timestamp;
use grid_store::blobs::BlobError;
use grid_store::db::{self, Tx};

use crate::Engine;
use crate::access::{Caller, InTeam};
use crate::datastore::{self, Reader};

use find::Where;

pub use copy::{copy, copy_part};
pub use find::EMPTY as NOTHING;
pub use grid_store::db::staged::Notes;
pub use name::of_team as bucket_of_team;
pub use staged::{
    COMMIT, Closing, Incoming, Written, abort, begin, close, closed, commit, complete, incoming,
    is_commit, parts, put, put_part, remove, require_writable,
};

/// What is wrong with a request about objects.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no such bucket, as far as the caller may know.
    #[error("there is no such bucket among those of your teams")]
    NoBucket,
    /// There is nothing under the key.
    #[error("there is nothing under this key")]
    NoKey,
    /// There is no such upload of it.
    #[error("there is no such upload: it was put together or given up, or never begun")]
    NoUpload,
    /// Nothing is written under such a key.
    #[error("{0}")]
    Immutable(String),
    /// Anything else.
    #[error(transparent)]
    Other(crate::Error),
}

/// What comes of a request about objects.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl From<crate::Error> for Error {
    fn from(error: crate::Error) -> Self {
        Self::Other(error)
    }
}

impl From<db::Error> for Error {
    fn from(error: db::Error) -> Self {
        Self::Other(error.into())
    }
}

impl From<BlobError> for Error {
    fn from(error: BlobError) -> Self {
        Self::Other(error.into())
    }
}

/// A team, as those see it who know it as a bucket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bucket {
    /// Its name there.
    pub name: String,
    /// When the team was made.
    pub created_at: Timestamp,
}

/// An object without its bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Object {
    /// The whole key.
    pub key: String,
    /// How many bytes.
    pub size_bytes: u64,
    /// What its content is known by; the same as long as the content is.
    pub etag: String,
    /// When it was last changed, in milliseconds since 1970 UTC.
    pub modified_ms: i64,
    /// What is noted beside it; of what is finished, when it was last changed.
    pub notes: Notes,
}

/// An object, to read.
#[derive(Debug)]
pub struct Opened {
    /// It.
    pub object: Object,
    /// Its bytes; none of what has none by what it is.
    pub reader: Option<Reader>,
    blob: Option<BlobId>,
}

/// Which objects are asked for.
#[derive(Debug, Clone, Copy)]
pub struct Wanted<'a> {
    /// Those whose keys begin so.
    pub prefix: &'a str,
    /// Keys with this behind the prefix are not listed, but once for all what they have in
    /// common up to it; empty for every key.
    pub delimiter: &'a str,
    /// No key before this one.
    pub from: &'a str,
    /// At most so many.
    pub limit: usize,
}

/// A page of keys.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Listing {
    /// Objects, by key.
    pub objects: Vec<Object>,
    /// What keys with the delimiter have in common, by key.
    pub prefixes: Vec<String>,
    /// Where the next page begins: pass it as `from`.
    pub next: Option<String>,
}

/// The buckets of the caller, by name.
pub fn buckets(caller: &Caller) -> Vec<Bucket> {
    let teams = caller.teams.iter().filter(|(team, role)| {
        let found = InTeam {
            team: team.clone(),
            role: Some(*role),
        };
        caller.may_team(&found, Action::SeeTeam)
    });
    let mut buckets: Vec<Bucket> = teams
        .map(|(team, _)| Bucket {
            name: name::of_team(&team.name),
            created_at: team.created_at,
        })
        .collect();
    buckets.sort_by(|a, b| a.name.cmp(&b.name));
    buckets
}

/// One bucket, if the caller may know of it.
pub async fn bucket(engine: &Engine, caller: &Caller, name: &str) -> Result<Bucket> {
    let mut tx = engine.inner.db.read().await?;
    let team = team(&mut tx, caller, name).await?;
    Ok(Bucket {
        name: name.to_owned(),
        created_at: team.created_at,
    })
}

/// A page of the keys of a bucket.
pub async fn list(
    engine: &Engine,
    caller: &Caller,
    bucket: &str,
    wanted: &Wanted<'_>,
) -> Result<Listing> {
    let mut tx = engine.inner.db.read().await?;
    let team = team(&mut tx, caller, bucket).await?;
    drop(tx);
    walk::walk(engine, caller, &team, wanted).await
}

/// One object, without its bytes.
pub async fn stat(engine: &Engine, caller: &Caller, bucket: &str, key: &str) -> Result<Object> {
    Ok(find::find(engine, caller, bucket, key).await?.object)
}

/// One object, to read.
pub async fn open(engine: &Engine, caller: &Caller, bucket: &str, key: &str) -> Result<Opened> {
    let found = find::find(engine, caller, bucket, key).await?;
    let (reader, blob) = match found.bytes {
        Where::Nowhere => (None, None),
        Where::Stored(blob) => {
            let reader = engine.inner.blobs.get(blob).await?;
            let reader = reader.ok_or_else(|| {
                crate::Error::internal(anyhow::anyhow!("the bytes of '{key}' ({blob}) are missing"))
            })?;
            (Some(Reader::Stored(reader)), Some(blob))
        }
        Where::Elsewhere(version, path) => {
            let opened = datastore::open(engine, caller, &version.to_string(), &path).await?;
            (Some(opened.reader), None)
        }
    };
    Ok(Opened {
        object: found.object,
        reader,
        blob,
    })
}

/// The first text behind all that begin with `prefix`; `None` when nothing is.
pub fn behind(prefix: &str) -> Option<String> {
    let mut text = prefix.to_owned();
    while let Some(last) = text.pop() {
        let next = match u32::from(last) + 1 {
            // What is between is no character.
            0xD800 => Some('\u{E000}'),
            code => char::from_u32(code),
        };
        if let Some(next) = next {
            text.push(next);
            return Some(text);
        }
    }
    None
}

/// The team that is known as a bucket, if the caller may know of it.  The same work whether
/// it is not theirs or not there.
async fn team(tx: &mut Tx, caller: &Caller, bucket: &str) -> Result<db::team::Team> {
    let mine = caller
        .teams
        .iter()
        .find(|(team, _)| name::of_team(&team.name) == bucket);
    let found = match mine {
        Some((team, role)) => InTeam {
            team: team.clone(),
            role: Some(*role),
        },
        // Who runs the server knows of every team, where its name is one of a bucket.
        None => match caller.team(tx, bucket).await {
            Ok(found) if name::of_team(&found.team.name) == bucket => found,
            Ok(_) | Err(crate::Error::NotFound { .. }) => return Err(Error::NoBucket),
            Err(other) => return Err(other.into()),
        },
    };
    caller.check_team(&found, Action::SeeTeam)?;
    Ok(found.team)
}

#[cfg(test)]
mod tests {
    use super::behind;

    #[test]
    fn what_is_behind_a_prefix_is_behind_all_that_begin_with_it() {
        for (prefix, expected) in [
            ("a/", Some("a0")),
            ("a", Some("b")),
            ("a\u{D7FF}", Some("a\u{E000}")),
            ("a\u{10FFFF}", Some("b")),
            ("\u{10FFFF}", None),
            ("", None),
        ] {
            assert_eq!(behind(prefix).as_deref(), expected, "{prefix}");
        }
    }
}
