//! Datastores, which are not there yet.

use axum::Json;
use axum::extract::State;
use axum::response::Response;
use grid_api::error::ErrorCode;
use grid_core::spec::DatastoreMount;
use serde::Serialize;

use super::asked;
use super::auth::Caller;
use super::error::{or_gone, unsupported};
use super::shapes::spec::Mount;
use crate::error::{Failure, Result};
use crate::extract::Path;
use crate::rest::App;

/// A list of datastores.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Datastores {
    datastores: [(); 0],
    next_page_token: &'static str,
    previous_page_token: &'static str,
}

/// What a run is to mount.
pub(super) fn mounts(mounts: &[Mount]) -> Result<Vec<DatastoreMount>> {
    match mounts.first() {
        None => Ok(vec![]),
        Some(mount) => Err(no_such(&mount.id)),
    }
}

fn no_such(datastore: &str) -> Failure {
    Failure::new(ErrorCode::NotFound, format!("no datastore '{datastore}'"))
        .hint("datastores are not there yet on this server")
}

pub(super) async fn list(
    State(app): State<App>,
    _: Caller,
    Path(cluster): Path<String>,
) -> Result<Json<Datastores>> {
    asked::cluster(&app.engine, &cluster)?;
    Ok(Json(Datastores {
        datastores: [],
        next_page_token: "",
        previous_page_token: "",
    }))
}

pub(super) async fn create(
    State(app): State<App>,
    _: Caller,
    Path(cluster): Path<String>,
) -> Result<Response> {
    asked::cluster(&app.engine, &cluster)?;
    Ok(unsupported(
        "datastores are not there yet on this server: keep the data beside the code, or where \
         the machine finds it",
    ))
}

/// What is gone is told without details, so that the client goes on without it.
pub(super) async fn get(_: Caller, Path((_, datastore)): Path<(String, String)>) -> Response {
    or_gone(no_such(&datastore))
}

/// Deleting one, and sending its files.
pub(super) async fn change(_: Caller, Path((_, datastore)): Path<(String, String)>) -> Failure {
    no_such(&datastore)
}
