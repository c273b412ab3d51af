//! Datastores: versions, their files, uploads of them.

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use grid_api::datastore::{
    DatastoreCommit, DatastoreCreate, DatastorePart, DatastorePartResponse, DatastorePartView,
    DatastorePartsQuery, DatastorePartsResponse, DatastoreResponse, DatastoreUpdate, DatastoreUser,
    DatastoreUsersQuery, DatastoreUsersResponse, DatastoreView, DatastoresQuery,
    DatastoresResponse, DiffQuery, DiffResponse, FileChange, FileEntry, FileKind, FilesFetch,
    FilesQuery, FilesResponse,
};
use grid_core::datastore::SourceKind;
use grid_core::time::Timestamp;
use grid_engine::Engine;
use grid_engine::datastore::{
    self, BucketWish, Change, Filter, Item, NewVersion, Outcome, Reader, Remote, Version,
};
use grid_manifest::{Entry, Node};

use super::artifact::Plan;
use super::{artifact, blob, cursor};
use crate::auth::Caller;
use crate::error::{Failure, Result};
use crate::extract::{JsonBody, Nothing, Path, Pieces, Query, Unread};

/// Versions in one answer, unless another number is asked for.
const LIMIT: u32 = 100;

/// Most versions in one answer.  Higher: one caller holds memory and database of many.
const LIMIT_MAX: u32 = 1_000;

/// Files in one answer, unless another number is asked for.
const FILES: u32 = 1_000;

/// Most files in one answer.
const FILES_MAX: u32 = 10_000;

/// Parts in one answer.
const PARTS: u32 = 10_000;

/// The largest part of a list: 10,000 entries with long paths.
const PART_BYTES_MAX: usize = 96 << 20;

/// The cluster that everything is on.
const CLUSTER: &str = "local";

/// List versions of datastores, newest first
#[utoipa::path(get, path = "/datastores", tag = "datastores", params(DatastoresQuery),
    responses((status = 200, body = DatastoresResponse)))]
pub(super) async fn datastore_list(
    State(engine): State<Engine>,
    Caller(caller): Caller,
    Query(query): Query<DatastoresQuery>,
) -> Result<Json<DatastoresResponse>> {
    let filter = Filter {
        global: query.global.unwrap_or(false),
        created_by: query.created_by,
        name: query.name,
        incomplete: query.incomplete.unwrap_or(false),
        deleted: query.deleted.unwrap_or(false),
        after: query.cursor.as_deref().map(cursor::datastore).transpose()?,
        limit: cursor::limit(query.limit, LIMIT, LIMIT_MAX)?,
    };
    let page = datastore::list(&engine, &caller, &filter).await?;
    Ok(Json(DatastoresResponse {
        datastores: page.items.into_iter().map(view).collect(),
        next: page.next.as_ref().map(cursor::of_datastore),
    }))
}

/// Begin a version of a datastore
///
/// Every version under a name gets the next number. What is sent is kept, so that an upload
/// that was cut goes on: see the parts. What has an address is fetched by the server.
#[utoipa::path(post, path = "/datastores", tag = "datastores", request_body = DatastoreCreate,
    responses((status = 201, description = "Begun", body = DatastoreResponse)))]
pub(super) async fn datastore_create(
    State(engine): State<Engine>,
    Caller(caller): Caller,
    _: Query<Nothing>,
    JsonBody(create): JsonBody<DatastoreCreate>,
) -> Result<(StatusCode, Json<DatastoreResponse>)> {
    let new = NewVersion {
        name: create.name,
        team: create.team,
        source: create.source,
        source_kind: create.source_kind,
        description: create.description,
        bucket: BucketWish {
            credential: create.credential,
            endpoint: create.endpoint,
            is_index: create.no_copy,
        },
    };
    let version = datastore::begin(&engine, &caller, new).await?;
    Ok((StatusCode::CREATED, Json(one(version))))
}

/// Get a version of a datastore
#[utoipa::path(get, path = "/datastores/{datastore}", tag = "datastores",
    params(("datastore" = String, Path, description = "`NAME`, `NAME:VERSION`, `USER:NAME`, `USER:NAME:VERSION`, or id")),
    responses((status = 200, body = DatastoreResponse)))]
pub(super) async fn datastore_get(
    State(engine): State<Engine>,
    Caller(caller): Caller,
    Path(name): Path<String>,
    _: Query<Nothing>,
) -> Result<Json<DatastoreResponse>> {
    let version = datastore::get(&engine, &caller, &name).await?;
    Ok(Json(one(version)))
}

/// Rename a datastore, or describe a version
#[utoipa::path(put, path = "/datastores/{datastore}", tag = "datastores", request_body = DatastoreUpdate,
    params(("datastore" = String, Path, description = "`NAME`, `NAME:VERSION`, or id")),
    responses((status = 200, body = DatastoreResponse)))]
pub(super) async fn datastore_update(
    State(engine): State<Engine>,
    Caller(caller): Caller,
    Path(name): Path<String>,
    _: Query<Nothing>,
    JsonBody(update): JsonBody<DatastoreUpdate>,
) -> Result<Json<DatastoreResponse>> {
    let DatastoreUpdate {
        name: new_name,
        description,
    } = update;
    let version = datastore::update(&engine, &caller, &name, new_name, description).await?;
    Ok(Json(one(version)))
}

/// Move a version of a datastore to the trash
///
/// Refused while experiments mount it. It can be restored for 7 days.
#[utoipa::path(delete, path = "/datastores/{datastore}", tag = "datastores",
    params(("datastore" = String, Path, description = "`NAME:VERSION`, `USER:NAME:VERSION`, or id")),
    responses((status = 200, body = DatastoreResponse)))]
pub(super) async fn datastore_delete(
    State(engine): State<Engine>,
    Caller(caller): Caller,
    Path(name): Path<String>,
    _: Query<Nothing>,
) -> Result<Json<DatastoreResponse>> {
    let version = datastore::delete(&engine, &caller, &name).await?;
    Ok(Json(one(version)))
}

/// Take a version of a datastore out of the trash
#[utoipa::path(post, path = "/datastores/{datastore}/restore", tag = "datastores",
    params(("datastore" = String, Path, description = "`NAME:VERSION`, `USER:NAME:VERSION`, or id")),
    responses((status = 200, body = DatastoreResponse)))]
pub(super) async fn datastore_restore(
    State(engine): State<Engine>,
    Caller(caller): Caller,
    Path(name): Path<String>,
    _: Query<Nothing>,
) -> Result<Json<DatastoreResponse>> {
    let version = datastore::restore(&engine, &caller, &name).await?;
    Ok(Json(one(version)))
}

/// Send a part of the list of an upload
///
/// It is kept when all bytes that it names are stored; else the answer says which are to
/// be uploaded first. Sending it again replaces it.
#[utoipa::path(put, path = "/datastores/{datastore}/parts/{number}", tag = "datastores",
    request_body = DatastorePart,
    params(
        ("datastore" = String, Path, description = "`NAME:VERSION`, or id"),
        ("number" = u32, Path, description = "Which part, from 0")),
    responses((status = 200, body = DatastorePartResponse)))]
pub(super) async fn datastore_part_put(
    State(engine): State<Engine>,
    Caller(caller): Caller,
    Path((name, number)): Path<(String, u32)>,
    _: Query<Nothing>,
    body: Unread<JsonBody<DatastorePart, PART_BYTES_MAX>>,
) -> Result<Json<DatastorePartResponse>> {
    if body.may_be_large() {
        datastore::takes_parts(&engine, &caller, &name).await?;
    }
    let JsonBody(part) = body.read().await?;
    let (sent, entries) = (part.sent_bytes, part.entries.into_iter().map(entry));
    let entries = entries.collect::<Result<_>>()?;
    let outcome = datastore::put_part(&engine, &caller, &name, number, entries, sent).await?;
    Ok(Json(DatastorePartResponse {
        missing: match outcome {
            Outcome::Kept => vec![],
            Outcome::Missing(blobs) => blobs.iter().map(ToString::to_string).collect(),
        },
    }))
}

/// List the parts of an upload that are kept
#[utoipa::path(get, path = "/datastores/{datastore}/parts", tag = "datastores",
    params(("datastore" = String, Path, description = "`NAME:VERSION`, or id"), DatastorePartsQuery),
    responses((status = 200, body = DatastorePartsResponse)))]
pub(super) async fn datastore_part_list(
    State(engine): State<Engine>,
    Caller(caller): Caller,
    Path(name): Path<String>,
    Query(query): Query<DatastorePartsQuery>,
) -> Result<Json<DatastorePartsResponse>> {
    let page = datastore::parts(&engine, &caller, &name, query.after, PARTS).await?;
    let view = |part: grid_store::db::datastore_page::Part| DatastorePartView {
        number: part.number,
        digest: part.digest,
        block: part
            .blob
            .filter(|_| part.block.is_some())
            .map(|blob| blob.to_string()),
    };
    Ok(Json(DatastorePartsResponse {
        parts: page.items.into_iter().map(view).collect(),
        next: page.next,
    }))
}

/// End an upload
///
/// Without a number of parts, of what was written by S3: a bare `NAME` means the version that
/// is being made there. The version is available at once, or, when it is large, processed for a while.
#[utoipa::path(post, path = "/datastores/{datastore}/commit", tag = "datastores",
    request_body = DatastoreCommit,
    params(("datastore" = String, Path, description = "`NAME:VERSION`, or id")),
    responses((status = 200, body = DatastoreResponse)))]
pub(super) async fn datastore_commit(
    State(engine): State<Engine>,
    Caller(caller): Caller,
    Path(name): Path<String>,
    _: Query<Nothing>,
    JsonBody(commit): JsonBody<DatastoreCommit>,
) -> Result<Json<DatastoreResponse>> {
    let version = match commit.parts {
        Some(parts) => datastore::commit(&engine, &caller, &name, parts).await?,
        None => grid_engine::objects::commit(&engine, &caller, &name).await?,
    };
    Ok(Json(one(version)))
}

/// Send an archive as one stream
///
/// For a version that was begun with the source kind `stream`: a tar, plain or packed by
/// gzip or zstd, or a zip. Cut in the middle, the version has failed.
#[utoipa::path(put, path = "/datastores/{datastore}/archive", tag = "datastores",
    request_body(content = Vec<u8>, content_type = "application/octet-stream"),
    params(("datastore" = String, Path, description = "`NAME:VERSION`, or id")),
    responses((status = 200, body = DatastoreResponse)))]
pub(super) async fn datastore_archive_put(
    State(engine): State<Engine>,
    Caller(caller): Caller,
    Path(name): Path<String>,
    _: Query<Nothing>,
    body: Body,
) -> Result<Json<DatastoreResponse>> {
    let pieces = Pieces::new(body).stream();
    let version = datastore::receive(&engine, &caller, &name, pieces).await?;
    Ok(Json(one(version)))
}

/// List the files of a version, folder by folder
#[utoipa::path(get, path = "/datastores/{datastore}/files", tag = "datastores",
    params(("datastore" = String, Path, description = "`NAME`, `NAME:VERSION`, `USER:NAME`, `USER:NAME:VERSION`, or id"), FilesQuery),
    responses((status = 200, body = FilesResponse)))]
pub(super) async fn datastore_file_list(
    State(engine): State<Engine>,
    Caller(caller): Caller,
    Path(name): Path<String>,
    Query(query): Query<FilesQuery>,
) -> Result<Json<FilesResponse>> {
    let wanted = datastore::Wanted {
        path: query.path.as_deref().unwrap_or_default(),
        is_deep: query.recursive.unwrap_or(false),
        after: query.after.as_deref(),
        limit: cursor::limit(query.limit, FILES, FILES_MAX)? as usize,
    };
    let page = datastore::files(&engine, &caller, &name, &wanted).await?;
    Ok(Json(FilesResponse {
        files: page.items.into_iter().map(item).collect(),
        next: page.next,
    }))
}

/// Download a file of a version
///
/// Whole, or a range of it; the `ETag` is its BLAKE3.
#[utoipa::path(get, path = "/datastores/{datastore}/files/{*path}", tag = "datastores",
    params(
        ("datastore" = String, Path, description = "`NAME`, `NAME:VERSION`, `USER:NAME`, `USER:NAME:VERSION`, or id"),
        ("path" = String, Path, description = "Path of the file; slashes stay as they are"),
        ("Range" = Option<String>, Header, description = "`bytes=FROM-TO`"),
        ("If-None-Match" = Option<String>, Header, description = "An `ETag` that is known already")),
    responses(
        (status = 200, description = "The bytes", content_type = "application/octet-stream", body = Vec<u8>),
        (status = 206, description = "A range of them", content_type = "application/octet-stream", body = Vec<u8>),
        (status = 304, description = "Known already")))]
pub(super) async fn datastore_file_download(
    State(engine): State<Engine>,
    Caller(caller): Caller,
    Path((name, path)): Path<(String, String)>,
    _: Query<Nothing>,
    headers: HeaderMap,
) -> Result<Response> {
    if artifact::climbs(&path) {
        return Err(
            Failure::invalid(format!("'{path}' is not the path of a file in a version"))
                .hint("name the file as the list of the files of the version does"),
        );
    }
    let path = path.as_str();
    let opened = datastore::open(&engine, &caller, &name, path).await?;
    match opened.reader {
        Reader::Stored(reader) => artifact::send(&headers, path, reader.id(), reader).await,
        Reader::Elsewhere(remote) => send_remote(&headers, path, &remote).await,
    }
}

/// The bytes of an object, or those that were asked for, through this server.
pub(super) async fn send_remote(
    request: &HeaderMap,
    path: &str,
    remote: &Remote,
) -> Result<Response> {
    let (head, range) = match Plan::of(request, path, remote.tag(), remote.len()) {
        Plan::Answer(response) => return Ok(*response),
        Plan::Send { head, range } => (head, range),
    };
    let status = match range {
        Some(_) => StatusCode::PARTIAL_CONTENT,
        None => StatusCode::OK,
    };
    let pieces = remote.stream(range).await?;
    Ok((status, head, artifact::begun(pieces).await?).into_response())
}

/// Download many small files
///
/// The answer is a sequence of records, in the order asked for: BLAKE3 of the bytes
/// (32 bytes), their number (8 bytes, little endian), the bytes.
#[utoipa::path(post, path = "/datastores/{datastore}/fetch", tag = "datastores", request_body = FilesFetch,
    params(("datastore" = String, Path, description = "`NAME`, `NAME:VERSION`, `USER:NAME`, `USER:NAME:VERSION`, or id")),
    responses((status = 200, description = "Records", content_type = "application/octet-stream", body = Vec<u8>)))]
pub(super) async fn datastore_file_fetch(
    State(engine): State<Engine>,
    Caller(caller): Caller,
    Path(name): Path<String>,
    _: Query<Nothing>,
    body: Unread<JsonBody<FilesFetch, PART_BYTES_MAX>>,
) -> Result<Response> {
    if body.may_be_large() {
        datastore::get(&engine, &caller, &name).await?;
    }
    let JsonBody(fetch) = body.read().await?;
    let blobs = datastore::fetch(&engine, &caller, &name, &fetch.paths).await?;
    Ok(blob::records(&engine, blobs, false))
}

/// Compare two versions
///
/// Answers with what was added, removed and changed on the way to the other one.
#[utoipa::path(get, path = "/datastores/{datastore}/diff", tag = "datastores",
    params(("datastore" = String, Path, description = "`NAME`, `NAME:VERSION`, `USER:NAME`, `USER:NAME:VERSION`, or id"), DiffQuery),
    responses((status = 200, body = DiffResponse)))]
pub(super) async fn datastore_diff(
    State(engine): State<Engine>,
    Caller(caller): Caller,
    Path(name): Path<String>,
    Query(query): Query<DiffQuery>,
) -> Result<Json<DiffResponse>> {
    let limit = cursor::limit(query.limit, FILES, FILES_MAX)? as usize;
    let versions = (name.as_str(), query.with.as_str());
    let after = query.after.as_deref();
    let page = datastore::diff(&engine, &caller, versions, after, limit).await?;
    Ok(Json(DiffResponse {
        changes: page.changes.into_iter().map(change).collect(),
        next: page.next,
    }))
}

/// List the runs that use a version or did, newest first
#[utoipa::path(get, path = "/datastores/{datastore}/users", tag = "datastores",
    params(("datastore" = String, Path, description = "`NAME`, `NAME:VERSION`, `USER:NAME`, `USER:NAME:VERSION`, or id"), DatastoreUsersQuery),
    responses((status = 200, body = DatastoreUsersResponse)))]
pub(super) async fn datastore_user_list(
    State(engine): State<Engine>,
    Caller(caller): Caller,
    Path(name): Path<String>,
    Query(query): Query<DatastoreUsersQuery>,
) -> Result<Json<DatastoreUsersResponse>> {
    let limit = cursor::limit(query.limit, LIMIT, LIMIT_MAX)?;
    let after = query.cursor.as_deref().map(cursor::run).transpose()?;
    let page = datastore::users(&engine, &caller, &name, after, limit).await?;
    let view = |user: datastore::User| DatastoreUser {
        run: user.run,
        created_by: user.created_by,
        created_at: user.created_at.to_string(),
        active: user.is_open,
    };
    Ok(Json(DatastoreUsersResponse {
        users: page.items.into_iter().map(view).collect(),
        next: page.next.as_ref().map(cursor::of_run),
    }))
}

fn one(version: Version) -> DatastoreResponse {
    DatastoreResponse {
        datastore: view(version),
    }
}

fn view(version: Version) -> DatastoreView {
    let row = version.row;
    let text = |at: Timestamp| at.to_string();
    DatastoreView {
        id: row.id.to_string(),
        name: version.name,
        version: row.number,
        created_by: version.created_by,
        team: version.team,
        cluster: CLUSTER.to_owned(),
        state: row.state,
        source: shown_source(row.source_kind, row.source),
        source_kind: row.source_kind,
        no_copy: row.is_index,
        description: row.description,
        files: row.files,
        size_bytes: row.size_bytes,
        new_bytes: row.new_bytes,
        progress_bytes: row.progress_bytes,
        progress_total_bytes: row.progress_total,
        message: row.message,
        used_by: version.used_by,
        created_at: text(row.created_at),
        finished_at: row.finished_at.map(text),
        deleted_at: row.deleted.map(|deleted| text(deleted.at)),
        deleted_by: version.deleted_by,
    }
}

/// What stands behind a `?` in an address is often a secret of who has it.
fn shown_source(kind: SourceKind, source: String) -> String {
    match (kind, source.split_once('?')) {
        (SourceKind::Http, Some((address, _))) => format!("{address}?…"),
        _ => source,
    }
}

fn entry(sent: FileEntry) -> Result<Entry> {
    let node = match sent.kind {
        FileKind::File => Node::File {
            blob: grid_engine::blob::parse(&sent.content)?,
            size_bytes: sent.size_bytes,
        },
        FileKind::Folder => Node::Folder,
        FileKind::Link => Node::Link {
            target: sent.content,
        },
        FileKind::Elsewhere => {
            return Err(Failure::invalid(format!(
                "'{}': only the server says what is elsewhere",
                sent.path
            )));
        }
    };
    Ok(Entry {
        path: sent.path,
        mode: sent.mode & 0o777,
        modified_ms: sent.modified_ms,
        node,
    })
}

fn file(entry: Entry) -> FileEntry {
    let size_bytes = entry.size_bytes();
    let (kind, content) = match entry.node {
        Node::File { blob, .. } => (FileKind::File, blob.to_string()),
        Node::Folder => (FileKind::Folder, String::new()),
        Node::Link { target } => (FileKind::Link, target),
        Node::Elsewhere { tag, .. } => (FileKind::Elsewhere, tag),
    };
    FileEntry {
        path: entry.path,
        kind,
        mode: entry.mode,
        modified_ms: entry.modified_ms,
        size_bytes,
        content,
        files: None,
    }
}

fn item(item: Item) -> FileEntry {
    match item {
        Item::Entry(entry) => file(entry),
        Item::Folder { path, totals } => FileEntry {
            path,
            kind: FileKind::Folder,
            mode: 0o755,
            modified_ms: 0,
            size_bytes: totals.bytes,
            content: String::new(),
            files: Some(totals.files),
        },
    }
}

fn change(change: Change) -> FileChange {
    let named = change.before.as_ref().or(change.after.as_ref());
    FileChange {
        path: named.map_or_else(String::new, |entry| entry.path.clone()),
        before: change.before.map(file),
        after: change.after.map(file),
    }
}
