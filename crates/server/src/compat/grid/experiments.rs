//! Experiments: finding, stopping, deleting.

use axum::Json;
use axum::extract::State;
use axum::response::Response;
use grid_core::spec::RunSpec;
use grid_engine::experiment::{self, Whole};
use grid_engine::run::{self, Filter};

use super::asked::{self, Parameters, Words};
use super::auth::Caller;
use super::error::or_gone;
use super::runs::Update;
use super::shapes::Empty;
use super::shapes::experiment::{Experiment, Experiments};
use crate::error::{Failure, Result};
use crate::extract::{JsonBody, Path, Query};
use crate::rest::App;

/// Runs whose experiments are listed when nobody says which.
const RUNS_MAX: u32 = 100;

/// The largest request for a change: the client sends back all that it was shown.
const BODY_BYTES_MAX: usize = 4 << 20;

fn shape(whole: Whole, name: String, cluster: &str) -> Result<Experiment> {
    let spec: RunSpec = serde_json::from_str(&whole.run.spec)
        .map_err(|e| Failure::internal(&anyhow::Error::new(e).context("reading a run's spec")))?;
    Ok(Experiment::new(whole, &spec, name, cluster))
}

/// An experiment's name by itself: of somebody else one by which it is found again.
fn name(caller: &grid_engine::Caller, whole: &Whole) -> String {
    let name = whole.experiment.name();
    if whole.run.creator == caller.id() {
        name
    } else {
        format!("{}:{name}", whole.created_by)
    }
}

pub(super) async fn list(
    State(app): State<App>,
    Caller(caller): Caller,
    Path(cluster): Path<String>,
    Query(parameters): Parameters,
) -> Result<Json<Experiments>> {
    let engine = &app.engine;
    let cluster = asked::cluster(engine, &cluster)?;
    let names: Vec<String> = asked::all(&parameters, "names")
        .map(str::to_owned)
        .collect();
    let runs: Vec<String> = asked::all(&parameters, "runIds")
        .map(str::to_owned)
        .collect();
    let mut found = Vec::new();
    if names.is_empty() {
        let runs = if runs.is_empty() {
            newest(engine, &caller).await?
        } else {
            runs
        };
        for whole in experiment::of_runs(engine, &caller, &runs).await? {
            found.push(shape(whole.clone(), name(&caller, &whole), cluster)?);
        }
    } else {
        let is_wanted = |whole: &Whole| runs.is_empty() || runs.contains(&whole.run.id.to_string());
        for (asked, whole) in experiment::named(engine, &caller, &names).await? {
            if is_wanted(&whole) {
                found.push(shape(whole, asked, cluster)?);
            }
        }
    }
    let phases = Words::read(&parameters, "phaseIn", "phaseNotIn");
    found.retain(|experiment| phases.allow(experiment.status.phase));
    Ok(Json(Experiments {
        next_page_token: String::new(),
        previous_page_token: String::new(),
        total_size: found.len().to_string(),
        experiments: found,
    }))
}

async fn newest(engine: &grid_engine::Engine, caller: &grid_engine::Caller) -> Result<Vec<String>> {
    let filter = Filter {
        limit: RUNS_MAX,
        ..Filter::default()
    };
    let page = run::list(engine, caller, &filter).await?;
    let ids = page.items.iter().map(|run| run.row.id.to_string());
    Ok(ids.collect())
}

/// What is gone is told without details, so that the client goes on without it.
pub(super) async fn get(
    State(app): State<App>,
    Caller(caller): Caller,
    Path((cluster, experiment)): Path<(String, String)>,
) -> Result<Json<Experiment>, Response> {
    let cluster = asked::cluster(&app.engine, &cluster).map_err(or_gone)?;
    read(&app, &caller, &experiment, cluster)
        .await
        .map_err(or_gone)
}

async fn read(
    app: &App,
    caller: &grid_engine::Caller,
    experiment: &str,
    cluster: &str,
) -> Result<Json<Experiment>> {
    let whole = experiment::whole(&app.engine, caller, experiment).await?;
    let name = name(caller, &whole);
    shape(whole, name, cluster).map(Json)
}

pub(super) async fn update(
    State(app): State<App>,
    Caller(caller): Caller,
    Path((cluster, experiment)): Path<(String, String)>,
    JsonBody(update): JsonBody<Update, BODY_BYTES_MAX>,
) -> Result<Json<Experiment>> {
    let cluster = asked::cluster(&app.engine, &cluster)?;
    if update.stops("EXPERIMENT_STATE_")? {
        experiment::stop(&app.engine, &caller, &experiment).await?;
    }
    read(&app, &caller, &experiment, cluster).await
}

pub(super) async fn delete(
    State(app): State<App>,
    Caller(caller): Caller,
    Path((cluster, experiment)): Path<(String, String)>,
) -> Result<Json<Empty>> {
    asked::cluster(&app.engine, &cluster)?;
    experiment::delete(&app.engine, &caller, &experiment).await?;
    Ok(Json(Empty {}))
}
