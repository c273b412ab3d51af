//! Objects that are written: files of the version that their creator is making.
//!
//! What goes to `datastores/ME/NAME/next/…` is staged: it can be read, replaced and deleted
//! there by its creator, and nobody else sees it.  A version is made of all of it by
//! [`commit`], or by an object `datastores/ME/NAME/next/.commit`; the next object that comes
//! after that begins the version behind it.
//!
//! An object whose key ends with a slash is a folder, which is in the version though nothing
//! is in it.

use std::io;

use ::bytes::Bytes;
use futures::Stream;
use grid_core::access::Action;
use grid_core::datastore::{SourceKind, State};
use grid_core::id::{DatastoreVersionId, UploadId};
use grid_core::name::{DatastoreName, DatastoreRef};
use grid_store::db::{self, Tx, staged, tree};
use tokio::sync::Mutex;

use super::find::{self, EMPTY};
use super::key::Key;
use super::{Error, Notes, Result, team};
use crate::Engine;
use crate::access::Caller;
use crate::datastore::staging::{self, Announced, Completion};
use crate::datastore::{self, BucketWish, NewVersion, Version};

/// What is said of where such a version comes from.
pub(super) const SOURCE: &str = "S3";

/// The path that stands for the end of a version.
pub const COMMIT: &str = ".commit";

/// One begins a version at a time: two objects that come first are of one version.
static BEGINNING: Mutex<()> = Mutex::const_new(());

/// How long after a version was made of what was written whoever asks for that again is told
/// the same: clients ask again when a line was cut.  Higher: who has written nothing since is
/// not told so; lower: a client that asks again is told that nothing was written.
const SAME_MS: i64 = 15 * 60 * 1_000;

/// What an object that came is known by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Written {
    /// What its content is known by.
    pub etag: String,
    /// When it came, in milliseconds since 1970 UTC.
    pub modified_ms: i64,
}

/// A version that is about to be made of what was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Closing {
    /// Its id.
    pub id: DatastoreVersionId,
    /// Its number.
    pub number: u32,
}

/// A place in the version that is being made.
struct Place<'a> {
    datastore: &'a str,
    path: &'a str,
}

/// Where an object may be written, if the key is such a place and the caller's.
async fn place<'a>(
    tx: &mut Tx,
    caller: &Caller,
    team: &db::team::Team,
    key: &'a str,
) -> Result<(Place<'a>, Option<db::datastore::Datastore>)> {
    let (user, datastore, path) = match Key::parse(key) {
        Some(Key::Staged {
            user,
            datastore,
            path,
        }) => (user, datastore, path),
        Some(Key::File {
            user, datastore, ..
        }) => {
            return Err(Error::Immutable(format!(
                "a version never changes once it is finished: write to \
                 datastores/{user}/{datastore}/next/… and commit that"
            )));
        }
        Some(Key::Artifact { .. }) => {
            return Err(Error::Immutable(
                "artifacts are what an experiment left behind: they can only be read".to_owned(),
            ));
        }
        None => {
            return Err(Error::Immutable(format!(
                "objects can only be written below datastores/{}/NAME/next/",
                caller.user.username
            )));
        }
    };
    if user == caller.user.username {
        let known = db::datastore::by_name(tx, caller.id(), datastore).await?;
        if let Some(store) = &known {
            caller.check(tx, store, Action::ExtendDatastore).await?;
            if store.team != team.id {
                return Err(Error::Other(crate::Error::conflict(format!(
                    "your datastore '{datastore}' belongs to another team: write to its bucket, \
                     or choose another name"
                ))));
            }
        }
        return Ok((Place { datastore, path }, known));
    }
    // Of a teammate's the table says why not; there is no other.
    let store = find::store(tx, caller, team.id, user, datastore).await?;
    caller.check(tx, &store, Action::ExtendDatastore).await?;
    Err(Error::NoKey)
}

/// The version that is being made where `key` is, which is begun if need be.
pub(super) async fn begun<'a>(
    engine: &Engine,
    caller: &Caller,
    bucket: &str,
    key: &'a str,
) -> Result<(DatastoreVersionId, &'a str)> {
    let found = open(engine, caller, bucket, key).await?;
    let (place, team) = match found {
        (Some(version), place, _) => return Ok((version, place.path)),
        (None, place, team) => (place, team),
    };
    let _one = BEGINNING.lock().await;
    if let (Some(version), place, _) = open(engine, caller, bucket, key).await? {
        return Ok((version, place.path));
    }
    DatastoreName::parse(place.datastore)
        .map_err(|error| crate::Error::invalid(error.to_string()))?;
    let new = NewVersion {
        name: place.datastore.to_owned(),
        team: Some(team.name),
        source: SOURCE.to_owned(),
        source_kind: SourceKind::Folder,
        description: String::new(),
        bucket: BucketWish::default(),
    };
    let version = datastore::begin(engine, caller, new).await?;
    Ok((version.row.id, place.path))
}

/// The version that is being made where `key` is, if there is one.
async fn open<'a>(
    engine: &Engine,
    caller: &Caller,
    bucket: &str,
    key: &'a str,
) -> Result<(Option<DatastoreVersionId>, Place<'a>, db::team::Team)> {
    let mut tx = engine.inner.db.read().await?;
    let team = team(&mut tx, caller, bucket).await?;
    let (place, store) = place(&mut tx, caller, &team, key).await?;
    let version = match store {
        Some(store) => tree::staged(&mut tx, store.id, SOURCE).await?,
        None => None,
    };
    Ok((version, place, team))
}

/// The same, which has to be there.
async fn under_way<'a>(
    engine: &Engine,
    caller: &Caller,
    bucket: &str,
    key: &'a str,
) -> Result<(String, &'a str)> {
    let (version, place, _) = open(engine, caller, bucket, key).await?;
    let version = version.ok_or(Error::NoKey)?;
    Ok((version.to_string(), place.path))
}

/// The staged file under a path of a datastore, if the caller is making it.
pub(super) async fn file(
    tx: &mut Tx,
    caller: &Caller,
    store: &db::datastore::Datastore,
    path: &str,
) -> Result<staged::File> {
    if store.creator != caller.id() {
        return Err(Error::NoKey);
    }
    let version = tree::staged(tx, store.id, SOURCE).await?;
    let (bare, is_folder) = match path.strip_suffix('/') {
        Some(folder) => (folder, true),
        None => (path, false),
    };
    match version {
        Some(version) => {
            let found = staged::file(tx, version, bare).await?;
            let found = found.filter(|found| found.is_folder == is_folder);
            found.ok_or(Error::NoKey)
        }
        // What was committed last: who asks whether it was is told so.
        None if path == COMMIT => {
            let newest = db::datastore_version::newest(tx, store.id).await?;
            let newest = newest.ok_or(Error::NoKey)?;
            Ok(staged::File {
                path: path.to_owned(),
                // Of what has no bytes, nobody asks for them.
                blob: grid_core::blob::BlobId::from_bytes([0; 32]),
                size_bytes: 0,
                new_bytes: 0,
                etag: EMPTY.to_owned(),
                upload: None,
                sent_at: newest.finished_at.unwrap_or(newest.updated_at),
                is_folder: false,
                notes: Notes::new(),
            })
        }
        None => Err(Error::NoKey),
    }
}

/// Refuses a key under which the caller writes nothing.
pub async fn require_writable(
    engine: &Engine,
    caller: &Caller,
    (bucket, key): (&str, &str),
) -> Result<()> {
    match key.strip_suffix('/') {
        Some(folder) => folder_ahead(engine, caller, bucket, folder).await,
        None => open(engine, caller, bucket, key).await.map(drop),
    }
}

/// Writes an object that comes in one piece, with what is noted beside it.  One whose key
/// ends with a slash is a folder.
pub async fn put(
    engine: &Engine,
    caller: &Caller,
    (bucket, key): (&str, &str),
    notes: Notes,
    announced: Announced,
    body: impl Stream<Item = io::Result<Bytes>> + Send,
) -> Result<Written> {
    if let Some(folder) = key.strip_suffix('/') {
        return put_folder(engine, caller, (bucket, folder), notes, body).await;
    }
    let (version, path) = begun(engine, caller, bucket, key).await?;
    let (version, place) = (version.to_string(), (path, notes));
    let file = staging::put_noted(engine, caller, &version, place, announced, body).await?;
    Ok(written(file))
}

pub(super) fn written(file: staged::File) -> Written {
    Written {
        etag: file.etag,
        modified_ms: file.sent_at.as_millis(),
    }
}

/// Writes a folder.  One that is on the way to a version is there already.
async fn put_folder(
    engine: &Engine,
    caller: &Caller,
    (bucket, folder): (&str, &str),
    notes: Notes,
    body: impl Stream<Item = io::Result<Bytes>> + Send,
) -> Result<Written> {
    if let Some(Key::Staged { .. }) = Key::parse(folder) {
        let (version, path) = begun(engine, caller, bucket, folder).await?;
        require_empty(body).await?;
        let (version, place) = (version.to_string(), (path, notes));
        let made = staging::put_folder(engine, caller, &version, place, EMPTY).await?;
        return Ok(written(made));
    }
    folder_ahead(engine, caller, bucket, folder).await?;
    require_empty(body).await?;
    Ok(Written {
        etag: EMPTY.to_owned(),
        modified_ms: engine.inner.clock.now().as_millis(),
    })
}

/// Begins to make a version of what was written, as the object does that stands for that.
/// Doing it twice is the same as once, for a while.
pub async fn close(
    engine: &Engine,
    caller: &Caller,
    (bucket, key): (&str, &str),
    body: impl Stream<Item = io::Result<Bytes>> + Send,
) -> Result<Closing> {
    let mut tx = engine.inner.db.read().await?;
    let team = team(&mut tx, caller, bucket).await?;
    let (_, store) = place(&mut tx, caller, &team, key).await?;
    let (open, ended) = match &store {
        Some(store) => (
            tree::staged(&mut tx, store.id, SOURCE).await?,
            tree::ended(&mut tx, store.id, SOURCE).await?,
        ),
        None => (None, None),
    };
    let id = match (open, ended) {
        (Some(open), _) => open,
        (None, Some(ended)) if is_same(engine, &mut tx, ended).await? => ended,
        (None, _) => return Err(nothing_to_commit()),
    };
    let row = db::datastore_version::by_id(&mut tx, id).await?;
    let number = row.ok_or_else(nothing_to_commit)?.number;
    drop(tx);
    require_empty(body).await?;
    staging::end(engine, caller, &id.to_string()).await?;
    Ok(Closing { id, number })
}

/// Whether a version is about to be made, or was only just.
async fn is_same(engine: &Engine, tx: &mut Tx, id: DatastoreVersionId) -> Result<bool> {
    let row = db::datastore_version::by_id(tx, id).await?;
    let since = engine.inner.clock.now().plus_millis(-SAME_MS);
    Ok(row.is_some_and(|row| row.state == State::Processing || row.updated_at >= since))
}

/// Waits until that version is made, however long it takes; what cannot be made of it is an
/// error.
pub async fn closed(engine: &Engine, closing: &Closing) -> Result<()> {
    let row = staging::ended(engine, closing.id).await?;
    match row.state {
        State::Available => Ok(()),
        _ => Err(Error::Other(crate::Error::conflict(format!(
            "version {} has failed: {}",
            row.number,
            row.message.as_deref().unwrap_or_default()
        )))),
    }
}

/// Refuses a folder in which, and on the way to which, the caller writes nothing.
async fn folder_ahead(engine: &Engine, caller: &Caller, bucket: &str, key: &str) -> Result<()> {
    let parts: Vec<&str> = key.split('/').collect();
    let me = caller.user.username.as_str();
    let is_on_the_way = match parts.as_slice() {
        ["datastores"] => true,
        ["datastores", user] | ["datastores", user, _] => *user == me,
        _ => false,
    };
    let named = match parts.len() {
        4 => format!("{key}/x"),
        _ => key.to_owned(),
    };
    if is_on_the_way {
        let mut tx = engine.inner.db.read().await?;
        return team(&mut tx, caller, bucket).await.map(drop);
    }
    open(engine, caller, bucket, &named).await.map(drop)
}

/// Whether a key is that of the object which stands for the end of a version.
pub fn is_commit(key: &str) -> bool {
    matches!(Key::parse(key), Some(Key::Staged { path: COMMIT, .. }))
}

fn nothing_to_commit() -> Error {
    Error::Other(crate::Error::invalid(
        "nothing was written to it since the last version: write objects first",
    ))
}

async fn require_empty(body: impl Stream<Item = io::Result<Bytes>> + Send) -> Result<()> {
    use futures::StreamExt;
    let mut body = std::pin::pin!(body);
    while let Some(piece) = body.next().await {
        let piece = piece
            .map_err(|error| crate::Error::invalid(format!("the bytes broke off: {error}")))?;
        if !piece.is_empty() {
            return Err(Error::Other(crate::Error::invalid(
                "an object with this key has no bytes: it stands for a folder, or for the end \
                 of a version",
            )));
        }
    }
    Ok(())
}

/// What became of a version that was finished.
fn finished(version: Version) -> crate::Result<Version> {
    if version.row.state == State::Failed {
        return Err(crate::Error::conflict(format!(
            "version {} of datastore '{}' has failed: {}",
            version.row.number,
            version.name,
            version.row.message.as_deref().unwrap_or_default()
        )));
    }
    Ok(version)
}

/// Makes a version of what was written of a datastore, named as people name it: `NAME`, or
/// `NAME:VERSION`.
pub async fn commit(engine: &Engine, caller: &Caller, text: &str) -> crate::Result<Version> {
    let named = text.parse::<DatastoreRef>().ok();
    let bare = named.filter(|named| named.version.is_none());
    let Some(named) = bare else {
        return finished(staging::finish(engine, caller, text).await?);
    };
    let mut tx = engine.inner.db.read().await?;
    let store = datastore::store(&mut tx, caller, &named).await?;
    caller
        .check(&mut tx, &store, Action::ExtendDatastore)
        .await?;
    let version = tree::staged(&mut tx, store.id, SOURCE).await?;
    drop(tx);
    let version = version.ok_or_else(|| crate::Error::Conflict {
        message: format!(
            "nothing was written to '{}' by S3 since its last version",
            store.name
        ),
        hint: Some(format!(
            "write objects to datastores/{}/{}/next/ first",
            caller.user.username, store.name
        )),
    })?;
    finished(staging::finish(engine, caller, &version.to_string()).await?)
}

/// Deletes an object that was written.  One that is not there is deleted already.
pub async fn remove(engine: &Engine, caller: &Caller, bucket: &str, key: &str) -> Result<()> {
    let is_top = key.ends_with('/') && Key::parse(key).is_none();
    let named = match is_top {
        true => &format!("{key}x"),
        false => key,
    };
    match under_way(engine, caller, bucket, named).await {
        Ok((version, path)) if !is_top => {
            match staging::remove(engine, caller, &version, path).await {
                Ok(()) | Err(crate::Error::NotFound { .. }) => Ok(()),
                Err(other) => Err(other.into()),
            }
        }
        Ok(_) | Err(Error::NoKey) => Ok(()),
        Err(other) => Err(other),
    }
}

/// Begins an object that comes in parts.
pub async fn begin(
    engine: &Engine,
    caller: &Caller,
    (bucket, key): (&str, &str),
    notes: &Notes,
) -> Result<staged::Upload> {
    if is_commit(key) || key.ends_with('/') {
        return Err(Error::Other(crate::Error::invalid(
            "an object with this key has no bytes: it does not come in parts",
        )));
    }
    let (version, path) = begun(engine, caller, bucket, key).await?;
    Ok(staging::begin_noted(engine, caller, &version.to_string(), path, notes).await?)
}

/// An upload that is under way: its version, and its path.
pub(super) async fn upload<'a>(
    engine: &Engine,
    caller: &Caller,
    (bucket, key): (&str, &'a str),
    id: &str,
) -> Result<(String, &'a str, UploadId)> {
    let id: UploadId = id.parse().map_err(|_| Error::NoUpload)?;
    let none = |error| match error {
        Error::NoKey => Error::NoUpload,
        other => other,
    };
    let (version, path) = under_way(engine, caller, bucket, key).await.map_err(none)?;
    let found = staging::upload(engine, caller, &version, id).await;
    let found = found.map_err(no_upload)?;
    if found.path != path {
        return Err(Error::NoUpload);
    }
    Ok((version, path, id))
}

pub(super) fn no_upload(error: crate::Error) -> Error {
    match error {
        crate::Error::NotFound { .. } => Error::NoUpload,
        other => other.into(),
    }
}

/// Keeps a part of an object; says what it is to be named by.
pub async fn put_part(
    engine: &Engine,
    caller: &Caller,
    place: (&str, &str),
    (id, number): (&str, u32),
    announced: Announced,
    body: impl Stream<Item = io::Result<Bytes>> + Send,
) -> Result<String> {
    let (version, _, id) = upload(engine, caller, place, id).await?;
    let kept = staging::put_part(engine, caller, &version, id, number, announced, body).await;
    Ok(kept.map_err(no_upload)?.etag)
}

/// Puts an object together from its parts.  Doing it twice is the same as once.
pub async fn complete(
    engine: &Engine,
    caller: &Caller,
    (bucket, key): (&str, &str),
    id: &str,
    parts: Vec<(u32, String)>,
) -> Result<Written> {
    let id: UploadId = id.parse().map_err(|_| Error::NoUpload)?;
    let none = |error| match error {
        Error::NoKey => Error::NoUpload,
        other => other,
    };
    let (version, path) = under_way(engine, caller, bucket, key).await.map_err(none)?;
    let completion = Completion {
        upload: id,
        path: path.to_owned(),
        parts,
    };
    let done = staging::complete(engine, caller, &version, vec![completion]).await;
    let done = done.map_err(no_upload)?.into_iter().next();
    let file = done.ok_or_else(|| crate::Error::internal(anyhow::anyhow!("no file was made")))?;
    Ok(written(file))
}

/// Gives an object up that comes in parts.
pub async fn abort(engine: &Engine, caller: &Caller, place: (&str, &str), id: &str) -> Result<()> {
    let (version, _, id) = upload(engine, caller, place, id).await?;
    staging::abort(engine, caller, &version, id)
        .await
        .map_err(no_upload)
}

/// The parts of an object that came, by number.
pub async fn parts(
    engine: &Engine,
    caller: &Caller,
    place: (&str, &str),
    id: &str,
    after: Option<u32>,
    limit: u32,
) -> Result<db::Page<staged::Part, u32>> {
    let (version, _, id) = upload(engine, caller, place, id).await?;
    staging::parts(engine, caller, &version, id, after, limit)
        .await
        .map_err(no_upload)
}

/// An object of which parts come, by its key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Incoming {
    /// The key.
    pub key: String,
    /// The upload.
    pub upload: staged::Upload,
}

/// The caller's objects of which parts come, by key and age, those behind `after`.
pub async fn incoming(
    engine: &Engine,
    caller: &Caller,
    bucket: &str,
    prefix: &str,
    after: Option<(&str, &str)>,
    limit: usize,
) -> Result<(Vec<Incoming>, bool)> {
    let mut tx = engine.inner.db.read().await?;
    let team = team(&mut tx, caller, bucket).await?;
    let all = tree::all_staged(&mut tx, (team.id, caller.id()), SOURCE).await?;
    let mut found = Vec::new();
    for (name, version) in all {
        let dir = format!("datastores/{}/{name}/next/", caller.user.username);
        if !dir.starts_with(prefix) && !prefix.starts_with(&dir) {
            continue;
        }
        let below = prefix.strip_prefix(&dir).unwrap_or_default();
        let mut at: Option<(String, UploadId)> = None;
        loop {
            let step = u32::try_from(limit).unwrap_or(u32::MAX).saturating_add(1);
            let page = staged::uploads(&mut tx, version, below, at.as_ref(), step).await?;
            for upload in page.items {
                let key = format!("{dir}{}", upload.path);
                let id = upload.id.to_string();
                if after.is_some_and(|after| (key.as_str(), id.as_str()) <= after) {
                    continue;
                }
                if found.len() >= limit {
                    return Ok((found, true));
                }
                found.push(Incoming { key, upload });
            }
            match page.next {
                Some(next) => at = Some(next),
                None => break,
            }
        }
    }
    Ok((found, false))
}
