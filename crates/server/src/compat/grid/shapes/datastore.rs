//! Datastores, as they are sent and shown.

use grid_core::datastore::{SourceKind, State};
use grid_core::id::DatastoreVersionId;
use grid_engine::datastore::Version;
use serde::{Deserialize, Serialize};

use super::read::{Number, Text, or_default};
use super::time;
use crate::error::{Failure, Result};

/// What the client counts sizes in.
const MIB: u64 = 1 << 20;

/// The id of a version, in capitals: the client cuts the letters of `.json` off the end of
/// what it remembers an upload by, if they are small.
pub(in crate::compat::grid) fn shown_id(id: DatastoreVersionId) -> String {
    id.to_string().to_uppercase()
}

/// The id that is meant by one that was shown.
pub(in crate::compat::grid) fn meant_id(shown: &str) -> Result<DatastoreVersionId> {
    let meant = shown.to_lowercase().parse();
    meant.map_err(|_| {
        Failure::new(
            grid_api::error::ErrorCode::NotFound,
            format!("no datastore '{shown}'"),
        )
    })
}

/// A list of datastores.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(in crate::compat::grid) struct Datastores {
    pub(in crate::compat::grid) datastores: Vec<Datastore>,
    pub(in crate::compat::grid) next_page_token: String,
    pub(in crate::compat::grid) previous_page_token: String,
}

/// A version of one.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(in crate::compat::grid) struct Datastore {
    created_at: String,
    id: String,
    name: String,
    spec: Spec,
    status: Status,
    updated_at: String,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Spec {
    cluster_id: String,
    /// The one thing that is nothing where there is none: the client looks into it.
    fsx_spec: Option<()>,
    size_mib: u32,
    source: String,
    source_type: &'static str,
    uploaded_at: Option<String>,
    user_id: String,
    version: u32,
}

#[derive(Serialize)]
struct Status {
    message: String,
    phase: &'static str,
}

impl Datastore {
    pub(in crate::compat::grid) fn new(version: &Version, cluster: &str) -> Self {
        let row = &version.row;
        Self {
            created_at: time(row.created_at),
            id: shown_id(row.id),
            name: version.name.clone(),
            spec: Spec {
                cluster_id: cluster.to_owned(),
                fsx_spec: None,
                size_mib: size_mib(row.size_bytes),
                source: row.source.clone(),
                source_type: source_type(version),
                uploaded_at: row.finished_at.map(time),
                user_id: row.owner.to_string(),
                version: row.number,
            },
            status: Status {
                message: row.message.clone().unwrap_or_default(),
                phase: phase(row.state),
            },
            updated_at: time(row.updated_at),
        }
    }
}

/// A size as the client shows it: rounded up, so that what is there is not nothing.
fn size_mib(bytes: u64) -> u32 {
    u32::try_from(bytes.div_ceil(MIB)).unwrap_or(u32::MAX)
}

/// Where a version stands; what is not said is "uploading" to the client.
const fn phase(state: State) -> &'static str {
    match state {
        State::Uploading => "DATASTORE_OPTIMIZATION_STATUS_UNSPECIFIED",
        State::Processing => "DATASTORE_OPTIMIZATION_STATUS_OPTIMIZING",
        State::Available => "DATASTORE_OPTIMIZATION_STATUS_SUCCEEDED",
        State::Failed => "DATASTORE_OPTIMIZATION_STATUS_FAILED",
    }
}

const EXPANDED: &str = "DATASTORE_SOURCE_TYPE_EXPANDED_FILES";
const HTTP: &str = "DATASTORE_SOURCE_TYPE_HTTP_URL";
const BUCKET: &str = "DATASTORE_SOURCE_TYPE_OBJECT_STORE";
const REFERENCE: &str = "DATASTORE_SOURCE_TYPE_OBJECT_STORE_REFERENCE_ONLY";

fn source_type(version: &Version) -> &'static str {
    match version.row.source_kind {
        SourceKind::Folder | SourceKind::File => EXPANDED,
        SourceKind::Stream => "DATASTORE_SOURCE_TYPE_COMPRESSED_FILE",
        SourceKind::Http => HTTP,
        SourceKind::S3 if version.row.is_index => REFERENCE,
        SourceKind::S3 => BUCKET,
    }
}

/// A version to begin.
#[derive(Default, Deserialize)]
#[serde(default)]
pub(in crate::compat::grid) struct Create {
    #[serde(deserialize_with = "or_default")]
    pub(in crate::compat::grid) name: String,
    #[serde(deserialize_with = "or_default")]
    pub(in crate::compat::grid) spec: Asked,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(in crate::compat::grid) struct Asked {
    #[serde(deserialize_with = "or_default")]
    pub(in crate::compat::grid) source: String,
    #[serde(deserialize_with = "or_default")]
    source_type: String,
}

/// Where the bytes of a version come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::compat::grid) enum From {
    /// Its files are sent one by one.
    Files,
    /// The server fetches an archive.
    Http,
    /// The server reads a bucket.
    Bucket {
        /// Only what is in it is listed; the bytes stay there.
        is_index: bool,
    },
}

impl Asked {
    pub(in crate::compat::grid) fn from(&self) -> Result<From> {
        match self.source_type.as_str() {
            EXPANDED => Ok(From::Files),
            HTTP => Ok(From::Http),
            BUCKET => Ok(From::Bucket { is_index: false }),
            REFERENCE => Ok(From::Bucket { is_index: true }),
            "DATASTORE_SOURCE_TYPE_FSX" => Err(Failure::invalid(
                "there is no file system of AWS here: high-performance datastores cannot be made",
            )
            .hint("leave --hpd out")),
            other => Err(Failure::invalid(format!(
                "there is no way to make a datastore from '{other}'"
            ))),
        }
    }
}

/// Files that are to be sent, or that were given addresses.
#[derive(Default, Serialize, Deserialize)]
#[serde(default)]
pub(in crate::compat::grid) struct Objects<T: Default> {
    pub(in crate::compat::grid) objects: Vec<T>,
}

/// A file that is to be sent.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(in crate::compat::grid) struct Wanted {
    #[serde(deserialize_with = "or_default")]
    pub(in crate::compat::grid) key: String,
    pub(in crate::compat::grid) part_count: Number,
    /// The upload that was given to it before, when this is not the first time.
    #[serde(deserialize_with = "or_default")]
    pub(in crate::compat::grid) upload_id: String,
}

/// Where its parts are sent.
#[derive(Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub(in crate::compat::grid) struct Given {
    /// Seconds since 1970.
    pub(in crate::compat::grid) expiry_time: String,
    pub(in crate::compat::grid) key: String,
    pub(in crate::compat::grid) part_count: String,
    pub(in crate::compat::grid) upload_id: String,
    pub(in crate::compat::grid) urls: Vec<PartUrl>,
}

/// Where one part is sent.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(in crate::compat::grid) struct PartUrl {
    pub(in crate::compat::grid) part_number: String,
    pub(in crate::compat::grid) url: String,
}

/// A file whose parts were all sent.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(in crate::compat::grid) struct Sent {
    #[serde(deserialize_with = "or_default")]
    pub(in crate::compat::grid) key: String,
    #[serde(deserialize_with = "or_default")]
    pub(in crate::compat::grid) upload_id: String,
    #[serde(deserialize_with = "or_default")]
    pub(in crate::compat::grid) urls: Vec<SentPart>,
}

/// A part that was sent, and what the answer called it.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(in crate::compat::grid) struct SentPart {
    pub(in crate::compat::grid) part_number: Number,
    pub(in crate::compat::grid) etag: Text,
}

#[cfg(test)]
mod tests {
    use grid_core::time::Timestamp;

    use super::*;

    #[test]
    fn no_id_ends_in_what_the_client_cuts_off() {
        for entropy in 0..64 {
            let id = DatastoreVersionId::from_parts(Timestamp::from_millis(1), entropy);
            let shown = shown_id(id);
            let file = format!("{shown}.json");
            let cut = file.trim_end_matches(['.', 'j', 's', 'o', 'n']);
            assert_eq!(cut, shown);
            assert_eq!(meant_id(&shown).ok(), Some(id));
            assert_eq!(meant_id(&id.to_string()).ok(), Some(id));
        }
        assert!(meant_id("../x").is_err());
    }

    #[test]
    fn sizes_are_rounded_up() {
        let sizes = [0, 1, MIB, MIB + 1, u64::MAX].map(size_mib);
        assert_eq!(sizes, [0, 1, 1, 2, u32::MAX]);
    }
}
