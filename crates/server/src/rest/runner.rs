//! What runners call.  Not described for others: it changes with the runner.

use axum::Json;
use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::Response;
use axum::routing::{get, post, put};
use grid_api::artifact::{ArtifactsQuery, ArtifactsResponse};
use grid_api::blob::{
    BlobNamed, BlobRecipes, BlobRecipesAnswer, BlobWhole, BlobsStored, RECIPES_BYTES_MAX,
};
use grid_api::error::ErrorCode;
use grid_api::log::LogStream;
use grid_api::runner::{
    ArtifactsPut, BlobsFetch, BlobsMissing, LogLength, LogPut, Orders, Sync, VersionsKnown,
};
use grid_api::snapshot::SnapshotTree;
use grid_core::blob::BlobId;
use grid_core::id::SnapshotId;
use grid_engine::{Engine, blob, datastore, runner};
use grid_store::logs::APPEND_BYTES_MAX;
use serde::{Deserialize, Serialize};

use super::{App, views};
use crate::auth::RunnerNode;
use crate::error::{Failure, Result};
use crate::extract::{BytesBody, JsonBody, Nothing, Path, Pieces, Query};

/// The largest report of a runner: 10,000 attempts with notes, logs and artifacts.
const SYNC_BYTES_MAX: usize = 64 << 20;

/// The largest list of artifacts: 10,000 with long names.
const ARTIFACTS_BYTES_MAX: usize = 64 << 20;

/// The largest list of blobs: 10,000 hashes.
const BLOBS_BYTES_MAX: usize = 1 << 20;

/// An answer that only says that it was done.
#[derive(Serialize, Deserialize)]
struct Done {}

pub(super) fn routes() -> Router<App> {
    Router::new()
        .route("/runner/sync", post(sync))
        .route(
            "/runner/attempts/{attempt}/logs/{stream}",
            put(put_log).get(log_length),
        )
        .route(
            "/runner/attempts/{attempt}/artifacts",
            put(put_artifacts).get(artifacts),
        )
        .route("/runner/blobs", put(put_blobs))
        .route("/runner/blobs/whole", put(put_whole))
        .route("/runner/blobs/missing", post(missing))
        .route("/runner/blobs/recipes", post(recipes))
        .route("/runner/blobs/fetch", post(fetch))
        .route("/runner/datastores/known", post(known))
        .route("/runner/snapshots/{snapshot}", get(snapshot))
        .route("/runner/datastores/{version}/files/{*path}", get(elsewhere))
}

async fn sync(
    State(app): State<App>,
    RunnerNode(node): RunnerNode,
    JsonBody(sync): JsonBody<Sync, SYNC_BYTES_MAX>,
) -> Result<Json<Orders>> {
    tokio::select! {
        // What was said is taken before anybody waits, and is said again anyway.
        () = app.stop.cancelled() => Err(Failure::new(ErrorCode::Unavailable, "the server is stopping")),
        orders = runner::sync(&app.engine, &node, sync) => Ok(Json(orders?)),
    }
}

async fn put_log(
    State(engine): State<Engine>,
    RunnerNode(node): RunnerNode,
    Path((attempt, stream)): Path<(String, LogStream)>,
    Query(query): Query<LogPut>,
    BytesBody(bytes): BytesBody<APPEND_BYTES_MAX>,
) -> Result<Json<LogLength>> {
    let attempt = parse(&attempt)?;
    let length = runner::put_log(&engine, &node, attempt, stream, query.offset, bytes).await?;
    Ok(Json(LogLength { length }))
}

async fn log_length(
    State(engine): State<Engine>,
    RunnerNode(node): RunnerNode,
    Path((attempt, stream)): Path<(String, LogStream)>,
    _: Query<Nothing>,
) -> Result<Json<LogLength>> {
    let length = runner::log_length(&engine, &node, parse(&attempt)?, stream).await?;
    Ok(Json(LogLength { length }))
}

async fn put_artifacts(
    State(engine): State<Engine>,
    RunnerNode(node): RunnerNode,
    Path(attempt): Path<String>,
    JsonBody(put): JsonBody<ArtifactsPut, ARTIFACTS_BYTES_MAX>,
) -> Result<Json<Done>> {
    runner::put_artifacts(&engine, &node, parse(&attempt)?, &put.artifacts).await?;
    Ok(Json(Done {}))
}

async fn artifacts(
    State(engine): State<Engine>,
    RunnerNode(node): RunnerNode,
    Path(attempt): Path<String>,
    Query(query): Query<ArtifactsQuery>,
) -> Result<Json<ArtifactsResponse>> {
    let page = runner::artifacts(&engine, &node, parse(&attempt)?, query.after.as_deref()).await?;
    Ok(Json(ArtifactsResponse {
        artifacts: page.items.into_iter().map(views::artifact).collect(),
        next: page.next,
    }))
}

async fn put_blobs(
    State(engine): State<Engine>,
    RunnerNode(node): RunnerNode,
    body: Body,
) -> Result<Json<BlobsStored>> {
    super::blob::store(blob::Upload::by_node(&engine, &node).await?, body).await
}

/// One blob whose hash the runner does not know.
async fn put_whole(
    State(engine): State<Engine>,
    RunnerNode(node): RunnerNode,
    Query(BlobWhole { size_bytes }): Query<BlobWhole>,
    body: Body,
) -> Result<Json<BlobNamed>> {
    let mut whole = blob::Whole::begin(&engine, &node, size_bytes).await?;
    let mut pieces = Pieces::new(body);
    while let Some(piece) = pieces.next().await? {
        whole.push(&piece).await?;
    }
    let blake3 = whole.finish().await?.to_string();
    Ok(Json(BlobNamed { blake3 }))
}

async fn missing(
    State(engine): State<Engine>,
    _: RunnerNode,
    JsonBody(ask): JsonBody<BlobsMissing, BLOBS_BYTES_MAX>,
) -> Result<Json<BlobsMissing>> {
    let missing = blob::missing(&engine, ids(&ask.blobs)?).await?;
    Ok(Json(BlobsMissing {
        blobs: missing.iter().map(ToString::to_string).collect(),
    }))
}

async fn recipes(
    State(engine): State<Engine>,
    RunnerNode(node): RunnerNode,
    JsonBody(announced): JsonBody<BlobRecipes, RECIPES_BYTES_MAX>,
) -> Result<Json<BlobRecipesAnswer>> {
    let answer = blob::announce_by_node(&engine, &node, &announced.recipes).await?;
    Ok(Json(answer))
}

async fn fetch(
    State(engine): State<Engine>,
    _: RunnerNode,
    JsonBody(ask): JsonBody<BlobsFetch, BLOBS_BYTES_MAX>,
) -> Result<Response> {
    Ok(super::blob::records(&engine, ids(&ask.blobs)?, ask.sparse))
}

async fn snapshot(
    State(engine): State<Engine>,
    RunnerNode(node): RunnerNode,
    Path(snapshot): Path<String>,
    _: Query<Nothing>,
) -> Result<Json<SnapshotTree>> {
    let id: SnapshotId = parse(&snapshot)?;
    Ok(Json(SnapshotTree {
        entries: runner::snapshot(&engine, &node, id).await?,
    }))
}

/// Which of the versions that a machine keeps are not gone for good.
async fn known(
    State(engine): State<Engine>,
    _: RunnerNode,
    JsonBody(ask): JsonBody<VersionsKnown, BLOBS_BYTES_MAX>,
) -> Result<Json<VersionsKnown>> {
    let ids = ask.versions.iter().map(|id| parse(id));
    let known = datastore::known(&engine, ids.collect::<Result<_>>()?).await?;
    Ok(Json(VersionsKnown {
        versions: known.iter().map(ToString::to_string).collect(),
    }))
}

/// A file of a version that was left in a bucket.
async fn elsewhere(
    State(engine): State<Engine>,
    RunnerNode(node): RunnerNode,
    Path((version, path)): Path<(String, String)>,
    _: Query<Nothing>,
    headers: HeaderMap,
) -> Result<Response> {
    let version = parse(&version)?;
    let remote = datastore::open_for_node(&engine, &node, version, &path).await?;
    super::datastore::send_remote(&headers, &path, &remote).await
}

fn parse<T: std::str::FromStr<Err = grid_core::id::IdError>>(text: &str) -> Result<T> {
    text.parse()
        .map_err(|error: grid_core::id::IdError| Failure::invalid(error.to_string()))
}

fn ids(texts: &[String]) -> Result<Vec<BlobId>> {
    if texts.len() > blob::BLOBS_MAX {
        let max = blob::BLOBS_MAX;
        return Err(Failure::invalid(format!(
            "name at most {max} blobs at a time, not {}",
            texts.len()
        )));
    }
    Ok(texts
        .iter()
        .map(|text| blob::parse(text))
        .collect::<Result<_, _>>()?)
}
