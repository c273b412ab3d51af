//! Clusters: the one there is, and its machines.

use axum::Json;
use axum::extract::State;
use axum::response::Response;

use super::asked::{self, Parameters, Words};
use super::auth::Caller;
use super::error::unsupported;
use super::shapes::cluster::{Cluster, Clusters, InstanceType, InstanceTypes, TYPE};
use crate::error::Result;
use crate::extract::{Path, Query};
use crate::rest::App;

async fn local(app: &App) -> Result<Cluster> {
    let engine = &app.engine;
    let (since, nodes) = (engine.since().await?, engine.nodes().await?);
    Ok(Cluster::new(engine.cluster(), since, &nodes))
}

pub(super) async fn list(
    State(app): State<App>,
    _: Caller,
    Query(parameters): Parameters,
) -> Result<Json<Clusters>> {
    let phases = Words::read(&parameters, "phaseIn", "phaseNotIn");
    let types = Words::read(&parameters, "clusterTypeIn", "clusterTypeNotIn");
    let mut clusters = vec![local(&app).await?];
    clusters.retain(|cluster| phases.allow(cluster.status.phase) && types.allow(TYPE));
    Ok(Json(Clusters {
        clusters,
        default_cluster: app.engine.cluster().to_owned(),
    }))
}

pub(super) async fn get(
    State(app): State<App>,
    _: Caller,
    Path(cluster): Path<String>,
) -> Result<Json<Cluster>> {
    asked::cluster(&app.engine, &cluster)?;
    local(&app).await.map(Json)
}

pub(super) async fn instance_types(
    State(app): State<App>,
    _: Caller,
    Path(cluster): Path<String>,
) -> Result<Json<InstanceTypes>> {
    asked::cluster(&app.engine, &cluster)?;
    let nodes = app.engine.nodes().await?;
    Ok(Json(InstanceTypes {
        instance_types: nodes.iter().map(InstanceType::new).collect(),
    }))
}

pub(super) async fn create(_: Caller) -> Response {
    unsupported(
        "clusters in a cloud cannot be made here: experiments run on the machines of this server",
    )
}

/// Changing and deleting.
pub(super) async fn change(
    State(app): State<App>,
    _: Caller,
    Path(cluster): Path<String>,
) -> Result<Response> {
    let cluster = asked::cluster(&app.engine, &cluster)?;
    Ok(unsupported(format!(
        "cluster '{cluster}' is this server itself: it is changed where the server runs, \
         with `grid server`, and not from here"
    )))
}

pub(super) async fn cloud_provider_id(
    State(app): State<App>,
    _: Caller,
    Path(cluster): Path<String>,
) -> Result<Response> {
    let cluster = asked::cluster(&app.engine, &cluster)?;
    Ok(unsupported(format!(
        "cluster '{cluster}' is in no cloud, so there is no account to trust; give the role \
         and its external id with --s3-role-arn and --s3-external-id"
    )))
}
