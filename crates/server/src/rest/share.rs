//! Links that people pass on.

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, Uri};
use grid_api::run::RunResponse;
use grid_api::share::{
    ShareCreate, ShareCreated, ShareKind, ShareResponse, ShareView, SharesQuery, SharesResponse,
};
use grid_engine::Engine;
use grid_engine::share::{Filter, Info};

use super::{App, cursor, views};
use crate::auth::Caller;
use crate::error::Result;
use crate::extract::{JsonBody, Nothing, Path, Query};

/// Links in one answer, unless another number is asked for.
const LIMIT: u32 = 100;

/// Most links in one answer.
const LIMIT_MAX: u32 = 1_000;

/// Make a link to a run, for teammates
#[utoipa::path(post, path = "/runs/{run}/shares", tag = "runs", request_body = ShareCreate,
    params(("run" = String, Path, description = "Name, `user:name`, or id")),
    responses((status = 201, body = ShareCreated)))]
pub(super) async fn share_create(
    State(app): State<App>,
    Caller(caller): Caller,
    Path(run): Path<String>,
    _: Query<Nothing>,
    uri: Uri,
    headers: HeaderMap,
    JsonBody(create): JsonBody<ShareCreate>,
) -> Result<(StatusCode, Json<ShareCreated>)> {
    let base = app.base(&uri, &headers)?;
    let (info, token) =
        grid_engine::share::create(&app.engine, &caller, &run, create.expires_in_s).await?;
    let created = ShareCreated {
        share: view(info),
        url: format!("{base}/s/{token}"),
        token,
    };
    Ok((StatusCode::CREATED, Json(created)))
}

/// List links that work, the newest first
#[utoipa::path(get, path = "/shares", tag = "runs", params(SharesQuery),
    responses((status = 200, body = SharesResponse)))]
pub(super) async fn share_list(
    State(engine): State<Engine>,
    Caller(caller): Caller,
    Query(query): Query<SharesQuery>,
) -> Result<Json<SharesResponse>> {
    let filter = Filter {
        global: query.global.unwrap_or(false),
        run: query.run,
        after: query.cursor.as_deref().map(cursor::share).transpose()?,
        limit: cursor::limit(query.limit, LIMIT, LIMIT_MAX)?,
    };
    let page = grid_engine::share::list(&engine, &caller, &filter).await?;
    Ok(Json(SharesResponse {
        shares: page.items.into_iter().map(view).collect(),
        next: page.next.as_ref().map(cursor::of_share),
    }))
}

/// Revoke a link
///
/// Whoever made it, and admins of the team.
#[utoipa::path(delete, path = "/shares/{share}", tag = "runs",
    params(("share" = String, Path, description = "Id")),
    responses((status = 200, body = ShareResponse)))]
pub(super) async fn share_revoke(
    State(engine): State<Engine>,
    Caller(caller): Caller,
    Path(share): Path<String>,
    _: Query<Nothing>,
) -> Result<Json<ShareResponse>> {
    let info = grid_engine::share::revoke(&engine, &caller, &share).await?;
    Ok(Json(ShareResponse { share: view(info) }))
}

/// Get the run that a link leads to
#[utoipa::path(get, path = "/shared/{token}", tag = "runs",
    params(("token" = String, Path, description = "The last part of the link")),
    responses((status = 200, body = RunResponse)))]
pub(super) async fn share_open(
    State(engine): State<Engine>,
    Caller(caller): Caller,
    Path(token): Path<String>,
    _: Query<Nothing>,
) -> Result<Json<RunResponse>> {
    let run = grid_engine::share::resolve(&engine, &caller, &token).await?;
    Ok(Json(RunResponse {
        run: views::run_whole(run)?,
    }))
}

fn view(info: Info) -> ShareView {
    let row = info.row;
    let path = row.artifact.map(|(_, path)| path);
    ShareView {
        id: row.id,
        kind: if path.is_some() {
            ShareKind::Artifact
        } else {
            ShareKind::Run
        },
        thing: info.thing,
        path,
        team: info.team,
        created_by: info.created_by,
        created_at: row.created_at.to_string(),
        expires_at: row.expires_at.map(|at| at.to_string()),
        revoked_at: row.revoked_at.map(|at| at.to_string()),
        last_used_at: row.last_used_at.map(|at| at.to_string()),
    }
}
