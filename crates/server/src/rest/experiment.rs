//! Experiments and their history.

use axum::Json;
use axum::extract::State;
use grid_api::experiment::{
    EventsResponse, ExperimentResponse, ExperimentsQuery, ExperimentsResponse,
};
use grid_engine::Engine;
use grid_engine::experiment::Experiment;

use super::{cursor, views};
use crate::auth::Caller;
use crate::error::Result;
use crate::extract::{Nothing, Path, Query};

/// Most experiments in one answer, and as many as are given unless asked for fewer.
const LIMIT_MAX: u32 = 1_000;

/// List the experiments of a run, by number
#[utoipa::path(get, path = "/runs/{run}/experiments", tag = "experiments",
    params(("run" = String, Path, description = "Name, `user:name`, or id"), ExperimentsQuery),
    responses((status = 200, body = ExperimentsResponse)))]
pub(super) async fn experiment_list(
    State(engine): State<Engine>,
    Caller(caller): Caller,
    Path(run): Path<String>,
    Query(query): Query<ExperimentsQuery>,
) -> Result<Json<ExperimentsResponse>> {
    let limit = cursor::limit(query.limit, LIMIT_MAX, LIMIT_MAX)?;
    let after = query
        .cursor
        .as_deref()
        .map(cursor::experiment)
        .transpose()?;
    let page =
        grid_engine::experiment::list(&engine, &caller, &run, &query.status, after, limit).await?;
    let owners: Vec<_> = page.items.iter().map(|one| one.row.owner).collect();
    let names = grid_engine::user::names(&engine, &owners).await?;
    Ok(Json(ExperimentsResponse {
        experiments: page
            .items
            .into_iter()
            .map(|one| views::experiment(one, &names))
            .collect(),
        next: page.next.map(cursor::of_experiment),
    }))
}

/// Get an experiment
#[utoipa::path(get, path = "/experiments/{experiment}", tag = "experiments",
    params(("experiment" = String, Path, description = "Name, `user:name`, or id")),
    responses((status = 200, body = ExperimentResponse)))]
pub(super) async fn experiment_get(
    State(engine): State<Engine>,
    Caller(caller): Caller,
    Path(experiment): Path<String>,
    _: Query<Nothing>,
) -> Result<Json<ExperimentResponse>> {
    let experiment = grid_engine::experiment::get(&engine, &caller, &experiment).await?;
    answer(&engine, experiment).await
}

/// Move an experiment to the trash
///
/// If it runs it is stopped first. It can be restored for 7 days.
#[utoipa::path(delete, path = "/experiments/{experiment}", tag = "experiments",
    params(("experiment" = String, Path, description = "Name, `user:name`, or id")),
    responses((status = 200, body = ExperimentResponse)))]
pub(super) async fn experiment_delete(
    State(engine): State<Engine>,
    Caller(caller): Caller,
    Path(experiment): Path<String>,
    _: Query<Nothing>,
) -> Result<Json<ExperimentResponse>> {
    let experiment = grid_engine::experiment::delete(&engine, &caller, &experiment).await?;
    answer(&engine, experiment).await
}

/// Stop an experiment
#[utoipa::path(post, path = "/experiments/{experiment}/stop", tag = "experiments",
    params(("experiment" = String, Path, description = "Name, `user:name`, or id")),
    responses((status = 200, body = ExperimentResponse)))]
pub(super) async fn experiment_stop(
    State(engine): State<Engine>,
    Caller(caller): Caller,
    Path(experiment): Path<String>,
    _: Query<Nothing>,
) -> Result<Json<ExperimentResponse>> {
    let experiment = grid_engine::experiment::stop(&engine, &caller, &experiment).await?;
    answer(&engine, experiment).await
}

/// Take an experiment out of the trash
#[utoipa::path(post, path = "/experiments/{experiment}/restore", tag = "experiments",
    params(("experiment" = String, Path, description = "Name, `user:name`, or id")),
    responses((status = 200, body = ExperimentResponse)))]
pub(super) async fn experiment_restore(
    State(engine): State<Engine>,
    Caller(caller): Caller,
    Path(experiment): Path<String>,
    _: Query<Nothing>,
) -> Result<Json<ExperimentResponse>> {
    let experiment = grid_engine::experiment::restore(&engine, &caller, &experiment).await?;
    answer(&engine, experiment).await
}

async fn answer(engine: &Engine, experiment: Experiment) -> Result<Json<ExperimentResponse>> {
    let names = grid_engine::user::names(engine, &[experiment.row.owner]).await?;
    Ok(Json(ExperimentResponse {
        experiment: views::experiment(experiment, &names),
    }))
}

/// The history of an experiment, oldest first
#[utoipa::path(get, path = "/experiments/{experiment}/events", tag = "experiments",
    params(("experiment" = String, Path, description = "Name, `user:name`, or id")),
    responses((status = 200, body = EventsResponse)))]
pub(super) async fn event_list(
    State(engine): State<Engine>,
    Caller(caller): Caller,
    Path(experiment): Path<String>,
    _: Query<Nothing>,
) -> Result<Json<EventsResponse>> {
    let events = grid_engine::experiment::events(&engine, &caller, &experiment).await?;
    let names = grid_engine::user::names(&engine, &views::people(&events)).await?;
    Ok(Json(EventsResponse {
        events: events
            .iter()
            .map(|event| views::event(event, &names))
            .collect(),
    }))
}
