//! Whether the server works.

use axum::Json;
use axum::extract::State;
use grid_api::cluster::Health;
use grid_engine::Engine;

use crate::error::Result;
use crate::extract::{Nothing, Query};

/// Whether the server works
///
/// Answers 503 while its database does not.
#[utoipa::path(get, path = "/health", tag = "server", responses((status = 200, body = Health)))]
pub(super) async fn health_get(
    State(engine): State<Engine>,
    _: Query<Nothing>,
) -> Result<Json<Health>> {
    engine.ping().await?;
    Ok(Json(Health {
        status: "ok".to_owned(),
        version: grid_api::VERSION.to_owned(),
    }))
}
