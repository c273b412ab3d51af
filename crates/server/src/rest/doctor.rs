//! `grid server doctor` while a server runs: only the server may look into its folder.

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
}

impl From<grid_engine::doctor::Report> for Examined {
    fn from(report: grid_engine::doctor::Report) -> Self {
        Self {
            workloads: report.workloads,
            events: report.events,
            blobs: report.blobs,
            findings: report.findings,
            wrong: report.wrong,
        }
    }
}

pub(super) fn routes() -> Router<App> {
    Router::new().route("/doctor", get(doctor))
}

/// Events, so that the line is not silent while terabytes are hashed: `report` with an
/// [`Examined`], or `error` with the envelope.
async fn doctor(
    State(app): State<App>,
    _: FolderOwner,
    Query(query): Query<DoctorQuery>,
) -> Response {
    let examination = tokio::spawn({
        let engine = app.engine.clone();
        async move { grid_engine::doctor::examine(&engine, query.deep).await }
    });
    let state = (Some(examination), app.stop);
    live::response(futures::stream::unfold(
        state,
        |(examination, stop)| async move {
            let mut examination = examination?;
            let result = tokio::select! {
                () = stop.cancelled() => return None,
                () = tokio::time::sleep(KEEP_ALIVE) => {
                    return Some((Events::keep_alive().into_bytes(), (Some(examination), stop)));
                }
                result = &mut examination => result,
            };
            let mut events = Events::default();
            match result {
                Ok(Ok(report)) => events.push_json("report", None, &Examined::from(report)),
                Ok(Err(error)) => events.push_json("error", None, &Failure::from(error).body()),
                Err(error) => {
                    events.push_json("error", None, &Failure::internal(&error.into()).body());
                }
            }
            Some((events.into_bytes(), (None, stop)))
        },
    ))
}
