//! The one object under a key.

use grid_core::access::Action;
use grid_core::blob::BlobId;
use grid_core::datastore::State;
use grid_core::id::{DatastoreVersionId, TeamId, UserId, WorkloadId};
use grid_core::time::Timestamp;
use grid_manifest::{Entry, Node};
use grid_store::db::{self, Tx};

use super::key::Key;
use super::{Error, Notes, Object, Result, staged, team};
use crate::access::{Caller, Owned};
use crate::datastore::staging::MODIFIED;
use crate::datastore::{List, bare_tag, link};
use crate::{Engine, reference};

/// The MD5 of nothing: what objects without bytes are known by.
pub const EMPTY: &str = "d41d8cd98f00b204e9800998ecf8427e";

/// An object, and where its bytes are.
pub(super) struct Found {
    pub(super) object: Object,
    pub(super) bytes: Where,
}

/// Where the bytes of an object are.
pub(super) enum Where {
    /// It has none.
    Nowhere,
    /// Stored here.
    Stored(BlobId),
    /// Elsewhere, as this version knows, which has them under this path.
    Elsewhere(DatastoreVersionId, String),
}

/// The object under a key, if the caller may read it.
pub(super) async fn find(
    engine: &Engine,
    caller: &Caller,
    bucket: &str,
    key: &str,
) -> Result<Found> {
    let mut tx = engine.inner.db.read().await?;
    let team = team(&mut tx, caller, bucket).await?;
    match Key::parse(key).ok_or(Error::NoKey)? {
        Key::File {
            user,
            datastore,
            version,
            path,
        } => {
            let store = store(&mut tx, caller, team.id, user, datastore).await?;
            let row = db::datastore_version::by_number(&mut tx, store.id, version).await?;
            drop(tx);
            let is_there = |row: &db::datastore_version::Version| {
                row.state == State::Available && row.deleted.is_none()
            };
            let row = row.filter(is_there).ok_or(Error::NoKey)?;
            let mut list = List::open(engine, &row).await?;
            let folder = path.strip_suffix('/');
            let entry = list.get(folder.unwrap_or(path)).await?;
            let entry = entry.ok_or(Error::NoKey)?;
            let is_folder = entry.node == Node::Folder;
            let entry = match &entry.node {
                Node::Link { .. } => link::follow(&mut list, &entry.path).await?.file(),
                _ => Some(entry),
            };
            let entry = entry.filter(|_| is_folder == folder.is_some());
            of_entry(key.to_owned(), &entry.ok_or(Error::NoKey)?, row.id).ok_or(Error::NoKey)
        }
        Key::Staged {
            user,
            datastore,
            path,
        } => {
            let store = store(&mut tx, caller, team.id, user, datastore).await?;
            let file = staged::file(&mut tx, caller, &store, path).await?;
            Ok(of_staged(key.to_owned(), file))
        }
        Key::Artifact {
            user,
            run,
            experiment,
            path,
        } => {
            let run = self::run(&mut tx, caller, team.id, user, run).await?;
            let row = db::workload::by_run_and_idx(&mut tx, run.id, experiment).await?;
            let row = row.filter(|row| row.deleted.is_none());
            let workload = row.map_or_else(no_workload, |row| row.workload.id);
            let artifact = db::artifact::get(&mut tx, workload, path).await?;
            let artifact = artifact.ok_or(Error::NoKey)?;
            Ok(of_artifact(key.to_owned(), &artifact))
        }
    }
}

/// A datastore of a team by its creator and name, if the caller may read it.  The same work
/// whether it is not there, of another team, or of nobody.
pub(super) async fn store(
    tx: &mut Tx,
    caller: &Caller,
    team: TeamId,
    user: &str,
    name: &str,
) -> Result<db::datastore::Datastore> {
    let creator = creator(tx, user).await?;
    let found = db::datastore::by_name(tx, creator, name).await?;
    let store = found.filter(|store| store.team == team);
    allowed(tx, caller, store, Action::SeeDatastore).await
}

/// A run of a team by its creator and name, if the caller may read its artifacts.
async fn run(
    tx: &mut Tx,
    caller: &Caller,
    team: TeamId,
    user: &str,
    name: &str,
) -> Result<db::run::Run> {
    let creator = creator(tx, user).await?;
    let found = db::run::by_name(tx, creator, name, db::Trash::Without).await?;
    let run = found.filter(|run| run.team == team);
    allowed(tx, caller, run, Action::ReadArtifacts).await
}

/// Who has a name, as it is written in keys.
async fn creator(tx: &mut Tx, user: &str) -> Result<UserId> {
    let found = reference::user_by_name(tx, user).await?;
    let found = found.filter(|found| found.username == user);
    Ok(found.map_or_else(|| UserId::from_entropy(0), |user| user.id))
}

async fn allowed<T: Owned>(
    tx: &mut Tx,
    caller: &Caller,
    thing: Option<T>,
    action: Action,
) -> Result<T> {
    let thing = thing.ok_or(Error::NoKey)?;
    match caller.check(tx, &thing, action).await {
        Ok(()) => Ok(thing),
        Err(crate::Error::NotFound { .. }) => Err(Error::NoKey),
        Err(other) => Err(other.into()),
    }
}

/// A line of the list of a version as an object; `None` for what is none: a link, which is
/// what it leads to.
pub(super) fn of_entry(key: String, entry: &Entry, version: DatastoreVersionId) -> Option<Found> {
    let (size_bytes, etag, bytes) = match &entry.node {
        Node::File { blob, size_bytes } => (*size_bytes, blob.to_string(), Where::Stored(*blob)),
        Node::Elsewhere { size_bytes, tag } => {
            let place = Where::Elsewhere(version, entry.path.clone());
            (*size_bytes, bare_tag(tag).to_owned(), place)
        }
        Node::Folder => (0, EMPTY.to_owned(), Where::Nowhere),
        Node::Link { .. } => return None,
    };
    Some(Found {
        object: Object {
            key,
            size_bytes,
            etag,
            modified_ms: entry.modified_ms,
            notes: modified(entry.modified_ms),
        },
        bytes,
    })
}

/// The note of when something was last changed, as programs write it.
fn modified(ms: i64) -> Notes {
    let Ok(ms) = u64::try_from(ms) else {
        return Notes::new();
    };
    let text = format!("{}.{:03}", ms / 1_000, ms % 1_000);
    Notes::from([(MODIFIED.to_owned(), text)])
}

/// A file that an experiment left behind as an object.
pub(super) fn of_artifact(key: String, artifact: &db::artifact::Artifact) -> Found {
    Found {
        object: Object {
            key,
            size_bytes: artifact.size_bytes,
            etag: artifact.blob.to_string(),
            modified_ms: artifact.mtime_ms,
            notes: modified(artifact.mtime_ms),
        },
        bytes: Where::Stored(artifact.blob),
    }
}

/// A file, or a folder, that is staged as an object.  It is as new as its coming: programs
/// that send what is newer find by that what they have sent.
pub(super) fn of_staged(key: String, file: db::staged::File) -> Found {
    let bytes = match file.is_folder || file.path == staged::COMMIT {
        true => Where::Nowhere,
        false => Where::Stored(file.blob),
    };
    Found {
        object: Object {
            key,
            size_bytes: file.size_bytes,
            etag: file.etag,
            modified_ms: file.sent_at.as_millis(),
            notes: file.notes,
        },
        bytes,
    }
}

/// An experiment that is none: what is looked for among its files is not found.
fn no_workload() -> WorkloadId {
    WorkloadId::from_parts(Timestamp::from_millis(0), 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_another_server_calls_a_content_has_no_quotes_of_its_own() {
        for (tag, expected) in [
            ("\"0123-2\"", "0123-2"),
            ("W/\"0123\"", "0123"),
            ("@1700000000000", "@1700000000000"),
        ] {
            let entry = Entry {
                path: "a".to_owned(),
                mode: 0o644,
                modified_ms: 0,
                node: Node::Elsewhere {
                    size_bytes: 1,
                    tag: tag.to_owned(),
                },
            };
            let version = DatastoreVersionId::from_parts(Timestamp::from_millis(0), 0);
            let found = of_entry("k".to_owned(), &entry, version).expect("an object");
            assert_eq!(found.object.etag, expected);
        }
    }
}
