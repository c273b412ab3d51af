//! Addresses that work without other credentials: code is sent to them, artifacts are
//! fetched from them.

use axum::body::Body;
use axum::extract::State;
use axum::http::header::{CONTENT_LENGTH, ETAG};
use axum::http::{HeaderMap, HeaderValue, Uri};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use futures::stream;
use grid_api::client::segments;
use grid_core::id::{RunId, WorkloadId};
use grid_engine::audit::Trail;
use grid_engine::ticket::{self, Purpose, Ticket};
use grid_engine::{artifact, draft};

use super::asked::{self, Parameters};
use super::auth::Caller;
use super::shapes::Empty;
use super::shapes::artifact::{Artifact, Artifacts};
use crate::error::{Failure, Result};
use crate::extract::{Path, Pieces, Query};
use crate::rest::App;
use crate::rest::artifact::{download, inside};

/// Artifacts in one answer, unless another number is asked for.
const LIMIT: u32 = 1_000;

/// Most artifacts in one answer.  Higher: one answer holds much memory.
const LIMIT_MAX: u32 = 1_000;

/// How long artifacts can be fetched after they were listed.  Higher: an address that leaks
/// is good for longer; lower: the last of many large ones is not reached in time.
const FETCH_LIFE_MS: i64 = 6 * 60 * 60 * 1_000;

/// What the ticket is called in an address.
pub(super) const TICKET: &str = "ticket";

/// Where the code of a run is sent.
pub(super) fn upload_url(base: &str, ticket: &Ticket, run: RunId) -> String {
    format!("{base}/v1/uploads/{run}?{TICKET}={}", ticket.text)
}

pub(super) async fn upload(
    State(app): State<App>,
    Extension(trail): Extension<Trail>,
    Path(run): Path<String>,
    Query(parameters): Parameters,
    headers: HeaderMap,
    body: Body,
) -> Result<Response> {
    let run: RunId = run
        .parse()
        .map_err(|_| Failure::invalid("this is not an address to which anything is sent"))?;
    let announced = headers
        .get(CONTENT_LENGTH)
        .and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    let pieces = Pieces::new(body);
    let ticket = asked::one(&parameters, TICKET).unwrap_or_default();
    let upload = draft::upload(&app.engine, &trail, ticket, run).await?;
    let pieces = stream::try_unfold(pieces, async |mut pieces| match pieces.next().await {
        Ok(piece) => Ok(piece.map(|piece| (piece, pieces))),
        Err(cut) => Err(std::io::Error::from(cut).to_string()),
    });
    let received = upload.receive(announced, pieces).await?;
    let tag = HeaderValue::from_str(&format!("\"{}\"", received.digest));
    let tag = tag.map_err(|e| Failure::internal(&e.into()))?;
    Ok(([(ETAG, tag)], Json(Empty {})).into_response())
}

pub(super) async fn list(
    State(app): State<App>,
    Caller(caller): Caller,
    Path((cluster, experiment)): Path<(String, String)>,
    Query(parameters): Parameters,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Json<Artifacts>> {
    let engine = &app.engine;
    asked::cluster(engine, &cluster)?;
    let base = app.base(&uri, &headers)?;
    let limit = asked::page_size(&parameters, LIMIT_MAX)?.unwrap_or(LIMIT);
    let after = asked::one(&parameters, "pageToken");
    let page = artifact::list(engine, &caller, &experiment, after, limit).await?;
    let artifacts = page.items.into_iter().map(|artifact| {
        let (workload, path) = (artifact.workload, artifact.path.clone());
        let purpose = Purpose::FetchArtifact(workload, path.clone());
        let ticket = ticket::issue(engine, &caller, &purpose, FETCH_LIFE_MS);
        let path = segments(&path);
        let url = format!(
            "{base}/v1/downloads/{workload}/{path}?{TICKET}={}",
            ticket.text
        );
        Artifact::new(artifact, url)
    });
    Ok(Json(Artifacts {
        artifacts: artifacts.collect(),
        next_page_token: page.next.unwrap_or_default(),
        previous_page_token: String::new(),
    }))
}

pub(super) async fn fetch(
    State(app): State<App>,
    Extension(trail): Extension<Trail>,
    Path((experiment, path)): Path<(String, String)>,
    Query(parameters): Parameters,
    headers: HeaderMap,
) -> Result<Response> {
    let workload: WorkloadId = experiment
        .parse()
        .map_err(|_| Failure::invalid("this is not an address of an artifact"))?;
    let path = inside(&path)?;
    let purpose = Purpose::FetchArtifact(workload, path.to_owned());
    let ticket = asked::one(&parameters, TICKET).unwrap_or_default();
    let caller = ticket::admit(&app.engine, &trail, ticket, &purpose).await?;
    let (artifact, reader) = artifact::open(&app.engine, &caller, &experiment, path).await?;
    download(&headers, &artifact, reader).await
}
