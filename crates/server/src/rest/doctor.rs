//! `grid server doctor` and `grid server collect` while a server runs: only the server may
//! look into its folder.

use axum::Router;
use axum::extract::State;
use axum::response::Response;
use axum::routing::get;
use serde::{Deserialize, Serialize};

use super::App;
use crate::auth::FolderOwner;
use crate::error::Failure;
use crate::extract::Query;
use crate::live::{self, Events, KEEP_ALIVE};

/// What is asked.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct DoctorQuery {
    /// Whether every blob is read and hashed.
    pub(crate) deep: bool,
}

/// What was found.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Examined {
    pub(crate) workloads: u64,
    pub(crate) events: u64,
    pub(crate) blobs: u64,
    pub(crate) findings: Vec<String>,
    pub(crate) wrong: u64,
    pub(crate) notes: Vec<String>,
}

impl From<grid_engine::doctor::Report> for Examined {
    fn from(report: grid_engine::doctor::Report) -> Self {
        Self {
            workloads: report.workloads,
            events: report.events,
            blobs: report.blobs,
            findings: report.findings,
            wrong: report.wrong,
            notes: report.notes,
        }
    }
}

/// What is to be collected.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct CollectQuery {
    /// Whether nothing is deleted.
    pub(crate) dry_run: bool,
}

/// What was collected.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct CollectedView {
    pub(crate) removed: u64,
    pub(crate) removed_bytes: u64,
    pub(crate) young: u64,
    pub(crate) kept: u64,
}

impl From<grid_store::blobs::Collected> for CollectedView {
    fn from(collected: grid_store::blobs::Collected) -> Self {
        Self {
            removed: collected.removed,
            removed_bytes: collected.removed_bytes,
            young: collected.young,
            kept: collected.kept,
        }
    }
}

pub(super) fn routes() -> Router<App> {
    Router::new()
        .route("/doctor", get(doctor))
        .route("/collect", get(collect))
}

/// Events, so that the line is not silent while terabytes are hashed: `report` with an
/// [`Examined`], or `error` with the envelope.
async fn doctor(
    State(app): State<App>,
    _: FolderOwner,
    Query(query): Query<DoctorQuery>,
) -> Response {
    let engine = app.engine.clone();
    tell(app, async move {
        let report = grid_engine::doctor::examine(&engine, query.deep).await?;
        Ok(Examined::from(report))
    })
}

/// Events: `report` with a [`CollectedView`], or `error` with the envelope.
async fn collect(
    State(app): State<App>,
    _: FolderOwner,
    Query(query): Query<CollectQuery>,
) -> Response {
    let engine = app.engine.clone();
    tell(app, async move {
        let collected = grid_engine::trash::collect(&engine, query.dry_run).await?;
        Ok(CollectedView::from(collected))
    })
}

/// Answers with what comes of long work, once there is something.
fn tell<T: Serialize + Send + 'static>(
    app: App,
    work: impl Future<Output = grid_engine::Result<T>> + Send + 'static,
) -> Response {
    let work = tokio::spawn(work);
    let state = (Some(work), app.stop);
    live::response(futures::stream::unfold(state, |(work, stop)| async move {
        let mut work = work?;
        let result = tokio::select! {
            () = stop.cancelled() => return None,
            () = tokio::time::sleep(KEEP_ALIVE) => {
                return Some((Events::keep_alive().into_bytes(), (Some(work), stop)));
            }
            result = &mut work => result,
        };
        let mut events = Events::default();
        match result {
            Ok(Ok(report)) => events.push_json("report", None, &report),
            Ok(Err(error)) => events.push_json("error", None, &Failure::from(error).body()),
            Err(error) => {
                events.push_json("error", None, &Failure::internal(&error.into()).body());
            }
        }
        Some((events.into_bytes(), (None, stop)))
    }))
}
