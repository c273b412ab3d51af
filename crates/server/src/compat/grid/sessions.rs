//! Interactive sessions, which are not there yet.

use axum::Json;
use axum::extract::State;
use axum::response::Response;
use grid_api::error::ErrorCode;

use super::asked::{self, Parameters};
use super::auth::Caller;
use super::error::unsupported;
use super::shapes::session::Sessions;
use crate::error::{Failure, Result};
use crate::extract::{Path, Query};
use crate::rest::App;

pub(super) async fn list(
    State(app): State<App>,
    _: Caller,
    Query(parameters): Parameters,
) -> Result<Json<Sessions>> {
    if let Some(cluster) = asked::one(&parameters, "clusterId") {
        asked::cluster(&app.engine, cluster)?;
    }
    Ok(Json(Sessions::NONE))
}

pub(super) async fn create(_: Caller) -> Response {
    unsupported("sessions are not there yet on this server: run a script with `grid run`")
}

/// Looking at one, changing it, deleting it.
pub(super) async fn none(_: Caller, Path(session): Path<String>) -> Failure {
    Failure::new(ErrorCode::NotFound, format!("no session '{session}'"))
        .hint("sessions are not there yet on this server")
}
