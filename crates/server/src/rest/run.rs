//! Runs.

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use grid_api::run::{
    RunChanged, RunClone, RunCreate, RunCreated, RunResponse, RunRetry, RunView, RunsQuery,
    RunsResponse,
};
use grid_engine::run::{Filter, NewRun};
use grid_engine::{Engine, draft};

use super::{cursor, views};
use crate::auth::Caller;
use crate::error::{Failure, Result};
use crate::extract::{JsonBody, Nothing, Path, Query};

/// Runs in one answer, unless another number is asked for.
const LIMIT: u32 = 100;

/// Most runs in one answer.  Higher: one caller holds memory and database of many.
const LIMIT_MAX: u32 = 1_000;

/// The largest description of a run.  The engine's own limit is lower and says more.
const BODY_BYTES_MAX: usize = 4 << 20;

/// List runs, newest first
///
/// The first page also has my own whose code is still on its way, or did not come whole.
#[utoipa::path(get, path = "/runs", tag = "runs", params(RunsQuery),
    responses((status = 200, body = RunsResponse)))]
pub(super) async fn run_list(
    State(engine): State<Engine>,
    Caller(caller): Caller,
    Query(query): Query<RunsQuery>,
) -> Result<Json<RunsResponse>> {
    let filter = Filter {
        active: query.active,
        deleted: query.deleted.unwrap_or(false),
        global: query.global.unwrap_or(false),
        created_by: query.created_by,
        must_be_somebody: true,
        name: query.name,
        statuses: query.state,
        since: cursor::time("since", query.since)?,
        after: query.cursor.as_deref().map(cursor::run).transpose()?,
        limit: cursor::limit(query.limit, LIMIT, LIMIT_MAX)?,
    };
    let page = grid_engine::run::list(&engine, &caller, &filter).await?;
    let drafts = draft::listed(&engine, &caller, &filter).await?;
    let drafts = drafts.into_iter().map(|draft| RunView {
        spec: None,
        ..views::draft(draft, &caller)
    });
    let mut runs: Vec<RunView> = drafts
        .chain(page.items.into_iter().map(views::run))
        .collect();
    // Times of one form and one zone: as text they sort as they are.
    runs.sort_by(|a, b| b.created_at.cmp(&a.created_at));
    Ok(Json(RunsResponse {
        runs,
        next: page.next.as_ref().map(cursor::of_run),
    }))
}

/// Create a run with its experiments
///
/// With the header `Idempotency-Key`, sending it twice makes one run.
#[utoipa::path(post, path = "/runs", tag = "runs", request_body = RunCreate,
    params(("Idempotency-Key" = Option<String>, Header, description = "Any text of at most 255 bytes")),
    responses(
        (status = 201, description = "Created", body = RunCreated),
        (status = 200, description = "A dry run: as it would be", body = RunCreated)))]
pub(super) async fn run_create(
    State(engine): State<Engine>,
    Caller(caller): Caller,
    _: Query<Nothing>,
    headers: HeaderMap,
    JsonBody(create): JsonBody<RunCreate, BODY_BYTES_MAX>,
) -> Result<(StatusCode, Json<RunCreated>)> {
    let key = headers
        .get("idempotency-key")
        .map(|value| value.to_str().map(str::to_owned))
        .transpose();
    let key = key.map_err(|_| Failure::invalid("the header Idempotency-Key must be ASCII text"))?;
    let new = NewRun {
        name: create.name,
        team: create.team,
        spec: create.spec,
        invocation: create.invocation,
        project: create.project,
        cloned_from: None,
        dry_run: create.dry_run,
        idempotency_key: key,
    };
    let created = grid_engine::run::create(&engine, &caller, new).await?;
    Ok((made(create.dry_run), Json(views::created(created)?)))
}

fn made(dry_run: bool) -> StatusCode {
    if dry_run {
        StatusCode::OK
    } else {
        StatusCode::CREATED
    }
}

/// Get a run
#[utoipa::path(get, path = "/runs/{run}", tag = "runs",
    params(("run" = String, Path, description = "Name, `user:name`, or id")),
    responses((status = 200, body = RunResponse)))]
pub(super) async fn run_get(
    State(engine): State<Engine>,
    Caller(caller): Caller,
    Path(run): Path<String>,
    _: Query<Nothing>,
) -> Result<Json<RunResponse>> {
    let found = draft::get(&engine, &caller, &run).await?;
    Ok(Json(RunResponse {
        run: views::found(found, &caller)?,
    }))
}

/// Move a run to the trash
///
/// What runs is stopped first. It can be restored for 7 days; one whose code has not come
/// is gone.
#[utoipa::path(delete, path = "/runs/{run}", tag = "runs",
    params(("run" = String, Path, description = "Name, `user:name`, or id")),
    responses((status = 200, body = RunResponse)))]
pub(super) async fn run_delete(
    State(engine): State<Engine>,
    Caller(caller): Caller,
    Path(run): Path<String>,
    _: Query<Nothing>,
) -> Result<Json<RunResponse>> {
    let found = draft::delete(&engine, &caller, &run).await?;
    Ok(Json(RunResponse {
        run: views::found(found, &caller)?,
    }))
}

/// Stop every experiment of a run that has not ended
#[utoipa::path(post, path = "/runs/{run}/stop", tag = "runs",
    params(("run" = String, Path, description = "Name, `user:name`, or id")),
    responses((status = 200, body = RunChanged)))]
pub(super) async fn run_stop(
    State(engine): State<Engine>,
    Caller(caller): Caller,
    Path(run): Path<String>,
    _: Query<Nothing>,
) -> Result<Json<RunChanged>> {
    let (found, changed) = draft::stop(&engine, &caller, &run).await?;
    Ok(Json(RunChanged {
        run: views::found(found, &caller)?,
        changed,
    }))
}

/// Take a run out of the trash
#[utoipa::path(post, path = "/runs/{run}/restore", tag = "runs",
    params(("run" = String, Path, description = "Name, `user:name`, or id")),
    responses((status = 200, body = RunResponse)))]
pub(super) async fn run_restore(
    State(engine): State<Engine>,
    Caller(caller): Caller,
    Path(run): Path<String>,
    _: Query<Nothing>,
) -> Result<Json<RunResponse>> {
    let run = grid_engine::run::restore(&engine, &caller, &run).await?;
    Ok(Json(RunResponse {
        run: views::run_whole(run)?,
    }))
}

/// Make a run of my own from another, with some arguments changed
#[utoipa::path(post, path = "/runs/{run}/clone", tag = "runs", request_body = RunClone,
    params(("run" = String, Path, description = "Name, `user:name`, or id")),
    responses(
        (status = 201, description = "Created", body = RunCreated),
        (status = 200, description = "A dry run: as it would be", body = RunCreated)))]
pub(super) async fn run_clone(
    State(engine): State<Engine>,
    Caller(caller): Caller,
    Path(run): Path<String>,
    _: Query<Nothing>,
    JsonBody(clone): JsonBody<RunClone>,
) -> Result<(StatusCode, Json<RunCreated>)> {
    let created = grid_engine::run::clone(
        &engine,
        &caller,
        &run,
        clone.name,
        &clone.set,
        clone.dry_run,
    )
    .await?;
    Ok((made(clone.dry_run), Json(views::created(created)?)))
}

/// Try the experiments of a run again that failed or were stopped
#[utoipa::path(post, path = "/runs/{run}/retry", tag = "runs", request_body = RunRetry,
    params(("run" = String, Path, description = "Name, `user:name`, or id")),
    responses((status = 200, body = RunChanged)))]
pub(super) async fn run_retry(
    State(engine): State<Engine>,
    Caller(caller): Caller,
    Path(run): Path<String>,
    _: Query<Nothing>,
    JsonBody(retry): JsonBody<RunRetry>,
) -> Result<Json<RunChanged>> {
    let (run, changed) = grid_engine::run::retry(&engine, &caller, &run, retry.failed).await?;
    Ok(Json(RunChanged {
        run: views::run_whole(run)?,
        changed,
    }))
}
