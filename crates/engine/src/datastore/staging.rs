//! Making a version of files that are sent one by one, each under its path, by somebody who
//! does not know their hashes beforehand.
//!
//! A version that was begun as a folder or a file takes them until it is finished.  A file
//! comes in one piece, or as an upload of numbered parts, in any order and several at a
//! time, which are then put together by naming each with its etag.  What came stays: a
//! server that is killed loses no part that it has answered for, and nobody sees half of
//! one.  A file that comes again under the same path takes the place of the first.
//!
//! [`finish`] makes the version of what is whole.  Until then it is nobody's but its
//! creator's, and it is given up when nobody goes on with it for days, as any other upload
//! ([`work`]).

mod bytes;
mod whole;

use std::io;
use std::time::Duration;

use ::bytes::Bytes;
use futures::Stream;
use grid_core::access::Action;
use grid_core::blob::BlobId;
use grid_core::datastore::State;
use grid_core::id::{DatastoreVersionId, UploadId};
use grid_manifest::{Check, Entry, Node};
use grid_store::blobs::BlobReader;
use grid_store::db::staged::Notes;
use grid_store::db::{self, Tx, staged};

use super::upload::require_uploading;
use super::{Found, Version, name, one, work};
use crate::Engine;
use crate::access::Caller;
use crate::error::{Error, Result};

pub use bytes::{Announced, PART_BYTES_MAX};
pub(crate) use whole::MODIFIED;
pub(super) use whole::filed;
pub use whole::{Completion, complete};

/// Most parts of one file.  Higher: putting it together names more in one request; lower:
/// large files need larger parts.
pub const PARTS_MAX: u32 = 10_000;

/// Longest path, in bytes.  Higher: an index of the database does not take it; lower: deep
/// trees do not fit.
pub const PATH_BYTES_MAX: usize = 1_024;

/// Most bytes of what is noted beside a file, names and texts together, as S3 has it.
/// Higher: the database grows by it.
pub const NOTES_BYTES_MAX: usize = 2 << 10;

/// Files of one version, and uploads of one that are open.  Higher: making its list takes
/// longer; lower: large sets of small files have to be packed.
pub const FILES_MAX: u64 = 10_000_000;

/// How long after a version was found not to be made it is looked again.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// Uploads that are begun in one request.  Higher: it holds the database for longer.
pub const BEGUN_MAX: usize = 10_000;

/// A part that is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kept {
    /// What it is named by when the file is put together: the MD5 of its bytes.
    pub etag: String,
    /// How many bytes came.
    pub size_bytes: u64,
}

/// The version that `text` names, if the caller may add files to it one by one.
async fn open_version(engine: &Engine, caller: &Caller, text: &str) -> Result<Found> {
    let found = seen_version(engine, caller, text).await?;
    require_uploading(&found)?;
    if !found.version.source_kind.is_sent_in_parts() {
        return Err(Error::invalid(format!(
            "{} comes from a {}: no files are added to it",
            found.called(),
            found.version.source_kind
        )));
    }
    Ok(found)
}

/// The same, whatever has become of it.
async fn seen_version(engine: &Engine, caller: &Caller, text: &str) -> Result<Found> {
    let mut tx = engine.inner.db.read().await?;
    let found = name::find(&mut tx, caller, text, name::Which::Any).await?;
    caller
        .check(&mut tx, &found.datastore, Action::ExtendDatastore)
        .await?;
    Ok(found)
}

/// Refuses a path that leads out of the version, or that no file system takes.
fn check_path(path: &str) -> Result<()> {
    if path.len() > PATH_BYTES_MAX {
        let shown: String = path.chars().take(100).collect();
        return Err(Error::invalid(format!(
            "the path '{shown}…' has more than {PATH_BYTES_MAX} bytes"
        )));
    }
    let entry = Entry {
        path: path.to_owned(),
        mode: whole::MODE,
        modified_ms: 0,
        node: Node::Folder,
    };
    Check::default()
        .next(&entry)
        .map_err(|error| Error::invalid(error.to_string()))
}

/// Refuses notes that are longer than a file of them should be.
fn check_notes(notes: &Notes) -> Result<()> {
    let bytes: usize = notes
        .iter()
        .map(|(name, text)| name.len() + text.len())
        .sum();
    if bytes <= NOTES_BYTES_MAX {
        return Ok(());
    }
    Err(Error::TooLarge {
        message: format!(
            "{bytes} bytes are noted beside a file, and at most {NOTES_BYTES_MAX} are kept"
        ),
        hint: Some("keep them in a file of the datastore".to_owned()),
    })
}

/// Takes the row of the version, or says why it takes no files.
async fn hold(engine: &Engine, tx: &mut Tx, found: &Found) -> Result<()> {
    let now = engine.inner.clock.now();
    if staged::hold(tx, found.version.id, now).await? {
        return Ok(());
    }
    Err(Error::conflict(format!(
        "{} takes no more files: somebody else has ended it",
        found.called()
    )))
}

fn no_upload(found: &Found, id: UploadId) -> Error {
    Error::NotFound {
        what: format!("{} has no upload '{id}'", found.called()),
        hint: Some("it was put together or given up: begin another one".to_owned()),
    }
}

/// An upload of a version.
async fn find_upload(tx: &mut Tx, found: &Found, id: UploadId) -> Result<staged::Upload> {
    let upload = staged::upload(tx, id).await?;
    let upload = upload.filter(|upload| upload.version == found.version.id);
    upload.ok_or_else(|| no_upload(found, id))
}

/// Begins to send files in parts, one upload for each path, in their order.
pub async fn begin(
    engine: &Engine,
    caller: &Caller,
    text: &str,
    paths: &[String],
) -> Result<Vec<staged::Upload>> {
    begin_all(engine, caller, text, paths, &Notes::new()).await
}

/// Begins to send a file in parts, with what is noted beside it.
pub async fn begin_noted(
    engine: &Engine,
    caller: &Caller,
    text: &str,
    path: &str,
    notes: &Notes,
) -> Result<staged::Upload> {
    let begun = begin_all(engine, caller, text, &[path.to_owned()], notes).await?;
    let first = begun.into_iter().next();
    first.ok_or_else(|| Error::internal(anyhow::anyhow!("no upload was begun")))
}

async fn begin_all(
    engine: &Engine,
    caller: &Caller,
    text: &str,
    paths: &[String],
    notes: &Notes,
) -> Result<Vec<staged::Upload>> {
    if paths.len() > BEGUN_MAX {
        return Err(Error::invalid(format!(
            "begin to send at most {BEGUN_MAX} files at a time"
        )));
    }
    for path in paths {
        check_path(path)?;
    }
    check_notes(notes)?;
    let found = open_version(engine, caller, text).await?;
    let now = engine.inner.clock.now();
    let begun = |path: &String| staged::Upload {
        id: UploadId::from_parts(now, engine.inner.clock.entropy()),
        version: found.version.id,
        path: path.clone(),
        begun_at: now,
        notes: notes.clone(),
    };
    let uploads: Vec<_> = paths.iter().map(begun).collect();
    let mut tx = engine.inner.db.write().await?;
    hold(engine, &mut tx, &found).await?;
    let open = staged::count_uploads(&mut tx, found.version.id, FILES_MAX).await?;
    if open + uploads.len() as u64 > FILES_MAX {
        return Err(too_many(&found));
    }
    staged::begin(&mut tx, &uploads).await?;
    tx.commit().await?;
    Ok(uploads)
}

fn too_many(found: &Found) -> Error {
    Error::TooLarge {
        message: format!("{} would have more than {FILES_MAX} files", found.called()),
        hint: Some("pack small files into larger ones".to_owned()),
    }
}

fn require_number(number: u32) -> Result<()> {
    if (1..=PARTS_MAX).contains(&number) {
        return Ok(());
    }
    Err(Error::invalid(format!(
        "there is no part {number}: they are counted from 1 to {PARTS_MAX}"
    )))
}

/// Keeps a part of a file, once all of it came.  Sent again, it replaces the first.
pub async fn put_part(
    engine: &Engine,
    caller: &Caller,
    text: &str,
    upload: UploadId,
    number: u32,
    announced: Announced,
    body: impl Stream<Item = io::Result<Bytes>> + Send,
) -> Result<Kept> {
    require_number(number)?;
    let found = open_version(engine, caller, text).await?;
    let mut tx = engine.inner.db.read().await?;
    find_upload(&mut tx, &found, upload).await?;
    drop(tx);
    let received = bytes::receive(engine, caller, announced, body).await?;
    let kept = Kept {
        etag: bytes::hex(&received.md5),
        size_bytes: received.size_bytes,
    };
    let part = staged::Part {
        number,
        blob: received.blob,
        size_bytes: received.size_bytes,
        new_bytes: received.new_bytes,
        etag: kept.etag.clone(),
        sent_at: engine.inner.clock.now(),
    };
    keep(engine, &found, upload, &part).await?;
    Ok(kept)
}

async fn keep(engine: &Engine, found: &Found, upload: UploadId, part: &staged::Part) -> Result<()> {
    let mut tx = engine.inner.db.write().await?;
    hold(engine, &mut tx, found).await?;
    find_upload(&mut tx, found, upload).await?;
    staged::put_part(&mut tx, upload, part).await?;
    Ok(tx.commit().await?)
}

/// Bytes that are stored already, and that the caller was found to be allowed to read.
#[derive(Debug, Clone)]
pub struct Stored {
    /// Which.
    pub blob: BlobId,
    /// How many.
    pub size_bytes: u64,
    /// What they are known by where they were found.
    pub etag: String,
}

/// Keeps bytes that are stored already as a part of a file, without reading them.
pub async fn put_stored_part(
    engine: &Engine,
    caller: &Caller,
    text: &str,
    (upload, number): (UploadId, u32),
    stored: &Stored,
) -> Result<Kept> {
    require_number(number)?;
    let found = open_version(engine, caller, text).await?;
    whole::require_stored(engine, vec![stored.blob]).await?;
    let part = staged::Part {
        number,
        blob: stored.blob,
        size_bytes: stored.size_bytes,
        new_bytes: 0,
        // Of its MD5 nobody knows; this says as well what it is, and is as hexadecimal.
        etag: stored.blob.to_string(),
        sent_at: engine.inner.clock.now(),
    };
    keep(engine, &found, upload, &part).await?;
    Ok(Kept {
        etag: part.etag,
        size_bytes: part.size_bytes,
    })
}

/// Adds a file of bytes that are stored already, without reading them.
pub async fn put_stored(
    engine: &Engine,
    caller: &Caller,
    text: &str,
    (path, notes): (&str, Notes),
    stored: Stored,
) -> Result<staged::File> {
    check_path(path)?;
    check_notes(&notes)?;
    let found = open_version(engine, caller, text).await?;
    let file = staged::File {
        path: path.to_owned(),
        blob: stored.blob,
        size_bytes: stored.size_bytes,
        new_bytes: 0,
        etag: stored.etag,
        upload: None,
        sent_at: engine.inner.clock.now(),
        is_folder: false,
        notes,
    };
    whole::add(engine, &found, std::slice::from_ref(&file)).await?;
    Ok(file)
}

/// Adds a folder, which is kept though nothing is in it.
pub async fn put_folder(
    engine: &Engine,
    caller: &Caller,
    text: &str,
    (path, notes): (&str, Notes),
    etag: &str,
) -> Result<staged::File> {
    check_path(path)?;
    check_notes(&notes)?;
    let found = open_version(engine, caller, text).await?;
    let folder = staged::File {
        path: path.to_owned(),
        blob: BlobId::from_bytes([0; 32]),
        size_bytes: 0,
        new_bytes: 0,
        etag: etag.to_owned(),
        upload: None,
        sent_at: engine.inner.clock.now(),
        is_folder: true,
        notes,
    };
    whole::add(engine, &found, std::slice::from_ref(&folder)).await?;
    Ok(folder)
}

/// Adds a file that comes in one piece.
pub async fn put(
    engine: &Engine,
    caller: &Caller,
    text: &str,
    path: &str,
    announced: Announced,
    body: impl Stream<Item = io::Result<Bytes>> + Send,
) -> Result<staged::File> {
    put_noted(engine, caller, text, (path, Notes::new()), announced, body).await
}

/// The same, with what is noted beside it.
pub async fn put_noted(
    engine: &Engine,
    caller: &Caller,
    text: &str,
    (path, notes): (&str, Notes),
    announced: Announced,
    body: impl Stream<Item = io::Result<Bytes>> + Send,
) -> Result<staged::File> {
    check_path(path)?;
    check_notes(&notes)?;
    let found = open_version(engine, caller, text).await?;
    let received = bytes::receive(engine, caller, announced, body).await?;
    let file = staged::File {
        path: path.to_owned(),
        blob: received.blob,
        size_bytes: received.size_bytes,
        new_bytes: received.new_bytes,
        etag: bytes::hex(&received.md5),
        upload: None,
        sent_at: engine.inner.clock.now(),
        is_folder: false,
        notes,
    };
    whole::add(engine, &found, std::slice::from_ref(&file)).await?;
    Ok(file)
}

/// Gives an upload up, with its parts.
pub async fn abort(engine: &Engine, caller: &Caller, text: &str, upload: UploadId) -> Result<()> {
    let found = seen_version(engine, caller, text).await?;
    let mut tx = engine.inner.db.write().await?;
    find_upload(&mut tx, &found, upload).await?;
    if !staged::end_upload(&mut tx, upload).await? {
        return Err(no_upload(&found, upload));
    }
    Ok(tx.commit().await?)
}

/// One upload.
pub async fn upload(
    engine: &Engine,
    caller: &Caller,
    text: &str,
    id: UploadId,
) -> Result<staged::Upload> {
    let found = seen_version(engine, caller, text).await?;
    let mut tx = engine.inner.db.read().await?;
    find_upload(&mut tx, &found, id).await
}

/// Uploads that are open whose paths begin with `prefix`, by path and then by age.
pub async fn uploads(
    engine: &Engine,
    caller: &Caller,
    text: &str,
    prefix: &str,
    after: Option<&(String, UploadId)>,
    limit: u32,
) -> Result<db::Page<staged::Upload, (String, UploadId)>> {
    let found = seen_version(engine, caller, text).await?;
    let mut tx = engine.inner.db.read().await?;
    Ok(staged::uploads(&mut tx, found.version.id, prefix, after, limit).await?)
}

/// The parts of an upload that are kept, by number.
pub async fn parts(
    engine: &Engine,
    caller: &Caller,
    text: &str,
    upload: UploadId,
    after: Option<u32>,
    limit: u32,
) -> Result<db::Page<staged::Part, u32>> {
    let found = seen_version(engine, caller, text).await?;
    let mut tx = engine.inner.db.read().await?;
    find_upload(&mut tx, &found, upload).await?;
    Ok(staged::parts(&mut tx, upload, after, limit).await?)
}

/// Files of a version that is not finished whose paths begin with `prefix`, by path.
pub async fn files(
    engine: &Engine,
    caller: &Caller,
    text: &str,
    prefix: &str,
    after: Option<&str>,
    limit: u32,
) -> Result<db::Page<staged::File, String>> {
    let found = seen_version(engine, caller, text).await?;
    let mut tx = engine.inner.db.read().await?;
    Ok(staged::files(&mut tx, found.version.id, prefix, after, limit).await?)
}

/// One file of a version that is not finished.
pub async fn file(
    engine: &Engine,
    caller: &Caller,
    text: &str,
    path: &str,
) -> Result<staged::File> {
    let found = seen_version(engine, caller, text).await?;
    let mut tx = engine.inner.db.read().await?;
    find_file(&mut tx, &found, path).await
}

async fn find_file(tx: &mut Tx, found: &Found, path: &str) -> Result<staged::File> {
    let file = staged::file(tx, found.version.id, path).await?;
    let file = file.filter(|file| !file.is_folder);
    file.ok_or_else(|| Error::not_found(format!("{} has no file '{path}'", found.called())))
}

/// The same, to read.
pub async fn open(
    engine: &Engine,
    caller: &Caller,
    text: &str,
    path: &str,
) -> Result<(staged::File, BlobReader)> {
    let file = file(engine, caller, text, path).await?;
    let reader = engine.inner.blobs.get(file.blob).await?;
    let reader = reader.ok_or_else(|| {
        Error::internal(anyhow::anyhow!(
            "the bytes of the staged file '{path}' ({}) are missing",
            file.blob
        ))
    })?;
    Ok((file, reader))
}

/// Takes a file out of a version that is not finished; a folder, where the path ends with a
/// slash.
pub async fn remove(engine: &Engine, caller: &Caller, text: &str, path: &str) -> Result<()> {
    let found = open_version(engine, caller, text).await?;
    let mut tx = engine.inner.db.write().await?;
    hold(engine, &mut tx, &found).await?;
    let id = found.version.id;
    let (path, is_folder) = match path.strip_suffix('/') {
        Some(folder) => (folder, true),
        None => (path, false),
    };
    let Some(growth) = staged::remove_file(&mut tx, id, path, is_folder).await? else {
        return Err(Error::not_found(format!(
            "{} has no file '{path}'",
            found.called()
        )));
    };
    staged::grow(&mut tx, id, growth).await?;
    Ok(tx.commit().await?)
}

/// Makes the version of the files that are whole; uploads that are still open are given up.
/// It is available at once, or, when there are many, soon.  Doing it twice is the same as
/// once; of a version that the server fetches it says how far that is.
pub async fn finish(engine: &Engine, caller: &Caller, text: &str) -> Result<Version> {
    let id = end(engine, caller, text).await?;
    work::wait(engine, id).await;
    let mut tx = engine.inner.db.read().await?;
    let row = db::datastore_version::by_id(&mut tx, id).await?;
    let row = row.ok_or_else(|| Error::not_found("the version is gone"))?;
    one(&mut tx, caller, row).await
}

/// Begins to do that, and waits for nothing.
pub async fn end(engine: &Engine, caller: &Caller, text: &str) -> Result<DatastoreVersionId> {
    let found = seen_version(engine, caller, text).await?;
    let (id, team) = (found.version.id, found.datastore.team);
    if found.version.state == State::Uploading {
        let found = open_version(engine, caller, &id.to_string()).await?;
        let now = engine.inner.clock.now();
        let thing = found.thing(&caller.user.username);
        let event = caller.did("datastore.commit", Some(team), thing);
        let mut tx = engine.inner.db.write().await?;
        if db::datastore_version::set_processing(&mut tx, id, None, now).await? {
            let files = db::datastore_version::by_id(&mut tx, id).await?;
            let files = files.map_or(0, |version| version.files);
            let event = event.detail(format!("{files} files, sent one by one"));
            event.write(engine, &mut tx).await?;
        }
        tx.commit().await?;
    }
    work::start(engine, id);
    Ok(id)
}

/// Waits until a version is made, or is found to be one that cannot be, however long that
/// takes; gives how it is then.
pub async fn ended(
    engine: &Engine,
    id: DatastoreVersionId,
) -> Result<db::datastore_version::Version> {
    loop {
        work::wait(engine, id).await;
        let mut tx = engine.inner.db.read().await?;
        let row = db::datastore_version::by_id(&mut tx, id).await?;
        drop(tx);
        let row = row.ok_or_else(|| Error::not_found("the version is gone"))?;
        if row.state != State::Processing || row.deleted.is_some() {
            return Ok(row);
        }
        // Nobody works on it for a moment: it is tried again later.
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}
