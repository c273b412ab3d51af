//! Where experiments run.

use axum::Json;
use axum::extract::State;
use grid_api::cluster::{ClusterView, ClustersResponse};
use grid_engine::Engine;

use super::views;
use crate::auth::Caller;
use crate::error::Result;
use crate::extract::{Nothing, Query};

/// List clusters with their machines and what is in use
#[utoipa::path(get, path = "/clusters", tag = "server", responses((status = 200, body = ClustersResponse)))]
pub(super) async fn cluster_list(
    State(engine): State<Engine>,
    _: Caller,
    _: Query<Nothing>,
) -> Result<Json<ClustersResponse>> {
    let nodes = engine.nodes().await?;
    let local = ClusterView {
        name: engine.cluster().to_owned(),
        kind: "process".to_owned(),
        nodes: nodes.into_iter().map(views::node).collect(),
        waiting: engine.waiting(),
    };
    Ok(Json(ClustersResponse {
        clusters: vec![local],
    }))
}
