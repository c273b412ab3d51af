//! Captured trees.

use axum::Json;
use axum::extract::State;
use grid_api::snapshot::{SnapshotCreate, SnapshotResponse};
use grid_engine::Engine;
use grid_engine::snapshot::Outcome;

use crate::auth::Caller;
use crate::error::Result;
use crate::extract::{JsonBody, Nothing, Query};

/// The largest description of a tree: some 200,000 files.  Higher: one request takes
/// that much memory several times; lower: large trees that are allowed do not fit.
const BODY_BYTES_MAX: usize = 64 << 20;

/// Capture a tree of files
///
/// Answers with the id of the snapshot, or with the blobs that have to be uploaded first.
#[utoipa::path(post, path = "/snapshots", tag = "code", request_body = SnapshotCreate,
    responses((status = 200, body = SnapshotResponse)))]
pub(super) async fn snapshot_create(
    State(engine): State<Engine>,
    Caller(caller): Caller,
    _: Query<Nothing>,
    JsonBody(create): JsonBody<SnapshotCreate, BODY_BYTES_MAX>,
) -> Result<Json<SnapshotResponse>> {
    let outcome = grid_engine::snapshot::create(&engine, &caller, create.entries).await?;
    Ok(Json(match outcome {
        Outcome::Taken(id) => SnapshotResponse {
            snapshot: Some(id),
            missing: vec![],
        },
        Outcome::Missing(blobs) => SnapshotResponse {
            snapshot: None,
            missing: blobs.iter().map(ToString::to_string).collect(),
        },
    }))
}
