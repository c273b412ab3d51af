//! Datastores: data in versions that never change.

use grid_core::datastore::{SourceKind, State};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

/// A version of a datastore.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DatastoreView {
    /// Id of the version.
    pub id: String,
    /// Name of the datastore; unique among the creator's.
    pub name: String,
    /// Number of the version; none is ever given twice.
    pub version: u32,
    /// User name of the creator.
    pub created_by: String,
    /// Name of the team it belongs to.
    pub team: String,
    /// Where it can be mounted.
    pub cluster: String,
    /// How far it is.
    pub state: State,
    /// Where the data came from.
    pub source: String,
    /// What kind of place that is.
    pub source_kind: SourceKind,
    /// Whether the objects of a bucket were left where they are, and are only listed here.
    #[serde(default)]
    pub no_copy: bool,
    /// What its creator says about it.
    pub description: String,
    /// How many files it has; while it is uploaded, how many are there.
    pub files: u64,
    /// Their bytes together.
    pub size_bytes: u64,
    /// How many of them were not stored before.
    pub new_bytes: u64,
    /// Bytes that the server has fetched or filed.
    pub progress_bytes: u64,
    /// Of how many, where that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub progress_total_bytes: Option<u64>,
    /// Why it has failed, or what it waits for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// Runs that mount it now, as `user:run`; the first few.
    pub used_by: Vec<String>,
    /// RFC 3339.
    pub created_at: String,
    /// When it became available, or failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finished_at: Option<String>,
    /// When it was moved to the trash.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deleted_at: Option<String>,
    /// User name of who moved it there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deleted_by: Option<String>,
}

/// One version.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DatastoreResponse {
    /// It.
    pub datastore: DatastoreView,
}

/// `GET /datastores`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DatastoresResponse {
    /// Versions, the newest first.
    pub datastores: Vec<DatastoreView>,
    /// Pass as `cursor` for the next page; absent on the last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

/// The query of `GET /datastores`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
pub struct DatastoresQuery {
    /// Teammates' datastores, too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub global: Option<bool>,
    /// Only datastores of this user.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created_by: Option<String>,
    /// Only versions of the datastore of this name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Versions that are being uploaded, too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub incomplete: Option<bool>,
    /// The trash instead.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deleted: Option<bool>,
    /// At most this many (1 to 1,000; default 100).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
    /// Where the last page ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cursor: Option<String>,
}

/// `POST /datastores`: begins a version.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct DatastoreCreate {
    /// Name of the datastore; a version is added to the one that there is.
    pub name: String,
    /// Team by name, for a new datastore; the user's current one when absent.
    #[serde(default)]
    pub team: Option<String>,
    /// Where the data comes from.  What has an address is fetched by the server.
    pub source: String,
    /// What kind of place that is.
    pub source_kind: SourceKind,
    /// For people.
    #[serde(default)]
    pub description: String,
    /// What opens a bucket: `NAME`, `USER:NAME` or an id; without one it has to be open, or one
    /// of the credentials that the caller may use has to open it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credential: Option<String>,
    /// Where the server of a bucket is; that of the credential, or Amazon's, when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<String>,
    /// Leave the objects of a bucket where they are, and only list them.
    #[serde(default)]
    pub no_copy: bool,
}

/// `PUT /datastores/{datastore}`; what is absent stays as it is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct DatastoreUpdate {
    /// A new name, for the datastore with all its versions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// What there is to say about this version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
}

/// One entry of a version.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct FileEntry {
    /// Path relative to the top, with `/`; no `..`, no leading `/`.
    pub path: String,
    /// What it is.
    pub kind: FileKind,
    /// Permission bits (0o777).
    #[serde(default)]
    pub mode: u32,
    /// Modification time, milliseconds since the epoch.
    #[serde(default)]
    pub modified_ms: i64,
    /// Size in bytes; of a folder, of all files below it.
    #[serde(default)]
    pub size_bytes: u64,
    /// BLAKE3 of the bytes in hex (files), or where it points (symbolic links).
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub content: String,
    /// Of a folder: how many files are below it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub files: Option<u64>,
}

/// The kinds of entries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum FileKind {
    /// A regular file.
    File,
    /// A folder; in an upload only when it is empty.
    Folder,
    /// A symbolic link that stays inside.
    Link,
    /// A file whose bytes were left where they are.
    Elsewhere,
}

/// `PUT /datastores/{datastore}/parts/{number}`: a part of the list of an upload.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct DatastorePart {
    /// At most 10,000, sorted by the bytes of their paths, also from part to part.
    pub entries: Vec<FileEntry>,
    /// How many bytes of them had to be sent before: these count as new.
    #[serde(default)]
    pub sent_bytes: u64,
}

/// The answer: it is kept when nothing is missing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DatastorePartResponse {
    /// Blobs that the server does not have: upload them, then send the part again.
    #[serde(default)]
    pub missing: Vec<String>,
}

/// The query of `PUT /datastores/{datastore}/parts`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
pub struct DatastoreOffers {
    /// Number of the first part of the body [default: 0].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<u32>,
    /// How many bytes of these parts had to be sent before: these count as new.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sent_bytes: Option<u64>,
}

/// The answer: what became of each part, in the order of the body.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DatastoreOffersResponse {
    /// One for each.
    pub parts: Vec<DatastoreOffered>,
}

/// What became of a part.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DatastoreOffered {
    /// It is kept, and is this block: the next version can name it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub block: Option<String>,
    /// Blobs that the server does not have: upload them, then send the part again.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub missing: Vec<String>,
    /// The version before does not have the block that was named, or not as it was meant: send
    /// all entries of the part.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub unknown: bool,
}

/// A part that is kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DatastorePartView {
    /// Which.
    pub number: u32,
    /// What its entries are called: another digest is another list.
    pub digest: String,
    /// The block that it is: the next version can name it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub block: Option<String>,
}

/// `GET /datastores/{datastore}/parts`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DatastorePartsResponse {
    /// By number.
    pub parts: Vec<DatastorePartView>,
    /// Pass as `after` for the next page; absent on the last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<u32>,
}

/// The query of `GET /datastores/{datastore}/parts`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
pub struct DatastorePartsQuery {
    /// Only parts after this one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<u32>,
}

/// `POST /datastores/{datastore}/commit`: the upload is whole.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct DatastoreCommit {
    /// How many parts it has; absent for what was written file by file, by S3.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parts: Option<u32>,
}

/// `GET /datastores/{datastore}/files`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct FilesResponse {
    /// By path.
    pub files: Vec<FileEntry>,
    /// Pass as `after` for the next page; absent on the last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

/// The query of `GET /datastores/{datastore}/files`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
pub struct FilesQuery {
    /// A folder, or a file; the top when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// Everything below it, not only what is in it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recursive: Option<bool>,
    /// Where the last page ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<String>,
    /// At most this many (1 to 10,000; default 1,000).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
}

/// `POST /datastores/{datastore}/fetch`: the bytes of many small files in one answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct FilesFetch {
    /// Paths of files, at most 10,000.
    pub paths: Vec<String>,
}

/// One difference between two versions.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct FileChange {
    /// What is different.
    pub path: String,
    /// As it is in the first; absent when it was added.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<FileEntry>,
    /// As it is in the second; absent when it was removed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<FileEntry>,
}

/// `GET /datastores/{datastore}/diff`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DiffResponse {
    /// By path.
    pub changes: Vec<FileChange>,
    /// Pass as `after` for the next page; absent on the last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

/// The query of `GET /datastores/{datastore}/diff`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
pub struct DiffQuery {
    /// The other version: `NAME:VERSION`, `USER:NAME:VERSION` or an id.
    pub with: String,
    /// Where the last page ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<String>,
    /// At most this many (1 to 10,000; default 1,000).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
}

/// A run that uses a version or did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DatastoreUser {
    /// Name of the run; absent where the caller may not know of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run: Option<String>,
    /// User name of its creator; absent with it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created_by: Option<String>,
    /// RFC 3339.
    pub created_at: String,
    /// Whether it may still read the version.
    pub active: bool,
}

/// `GET /datastores/{datastore}/users`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DatastoreUsersResponse {
    /// The newest first.
    pub users: Vec<DatastoreUser>,
    /// Pass as `cursor` for the next page; absent on the last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

/// The query of `GET /datastores/{datastore}/users`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
pub struct DatastoreUsersQuery {
    /// At most this many (1 to 1,000; default 100).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
    /// Where the last page ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cursor: Option<String>,
}
