//! The routes: one file per noun, one function per operation, and each a translation.

mod artifact;
mod blob;
mod change;
mod cluster;
mod cursor;
mod doctor;
mod experiment;
mod health;
mod home;
mod link;
mod log;
pub(crate) mod openapi;
mod run;
mod runner;
mod snapshot;
mod user;
mod views;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{FromRef, MatchedPath, Request};
use axum::http::{HeaderValue, header};
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use grid_engine::Engine;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tower_http::catch_panic::CatchPanicLayer;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

pub(crate) use doctor::Examined;
pub(crate) use views::line as line_view;

use crate::auth::Tokens;
use crate::error::Failure;
use crate::extract::{no_such_method, no_such_path};
use crate::folder::Folder;

/// After how long an answer counts as slow in the log.
const SLOW: Duration = Duration::from_secs(2);

/// What every handler may use.  Cheap to clone.
#[derive(Clone)]
pub(crate) struct App {
    pub(crate) engine: Engine,
    /// Over when the server is to end: whoever waits for something stops waiting.
    pub(crate) stop: CancellationToken,
    pub(crate) tokens: Tokens,
    pub(crate) folder_token: Arc<str>,
    pub(crate) folder: Arc<Folder>,
    /// The address that users reach the server under, where it was told; else links
    /// begin with what the request names.
    pub(crate) url: Option<Arc<str>>,
    /// Whether it speaks TLS.
    pub(crate) tls: bool,
}

impl FromRef<App> for Engine {
    fn from_ref(app: &App) -> Self {
        app.engine.clone()
    }
}

/// Everything below the prefix but what runners use, with its description.
fn described() -> OpenApiRouter<App> {
    OpenApiRouter::with_openapi(openapi::begin())
        .routes(routes!(health::health_get))
        .routes(routes!(user::login))
        .routes(routes!(user::user_get))
        .routes(routes!(user::user_rotate_key))
        .routes(routes!(user::user_list, user::user_create))
        .routes(routes!(snapshot::snapshot_create))
        .routes(routes!(blob::blob_upload))
        .routes(routes!(run::run_list, run::run_create))
        .routes(routes!(run::run_get, run::run_delete))
        .routes(routes!(run::run_stop))
        .routes(routes!(run::run_restore))
        .routes(routes!(run::run_clone))
        .routes(routes!(run::run_retry))
        .routes(routes!(experiment::experiment_list))
        .routes(routes!(
            experiment::experiment_get,
            experiment::experiment_delete
        ))
        .routes(routes!(experiment::experiment_stop))
        .routes(routes!(experiment::experiment_restore))
        .routes(routes!(experiment::event_list))
        .routes(routes!(log::log_list))
        .routes(routes!(log::log_download))
        .routes(routes!(log::log_follow))
        .routes(routes!(artifact::artifact_list))
        .routes(routes!(artifact::artifact_download))
        .routes(routes!(link::link_create))
        .routes(routes!(link::link_follow))
        .routes(routes!(change::change_follow))
        .routes(routes!(cluster::cluster_list))
        .routes(routes!(openapi::openapi_get))
}

/// The whole of it.
pub(crate) fn router(app: App) -> Router {
    let (described, _) = described().split_for_parts();
    let api = described.merge(runner::routes()).merge(doctor::routes());
    Router::new()
        .route("/", get(home::page))
        .nest(grid_api::PREFIX, api)
        .fallback(no_such_path)
        .method_not_allowed_fallback(no_such_method)
        .layer(CatchPanicLayer::custom(panicked))
        .layer(from_fn(finish))
        .with_state(app)
}

/// What only a runner uses, for a listener that only a runner is told of.
pub(crate) fn runner_router(app: App) -> Router {
    Router::new()
        .nest(grid_api::PREFIX, runner::routes().merge(doctor::routes()))
        .fallback(no_such_path)
        .method_not_allowed_fallback(no_such_method)
        .layer(CatchPanicLayer::custom(panicked))
        .layer(from_fn(finish))
        .with_state(app)
}

/// Adds what every answer has, and logs it where somebody wants to know.
async fn finish(request: Request, next: Next) -> Response {
    // The pattern and not the path: a path may hold a signed link.
    let route = request.extensions().get::<MatchedPath>().cloned();
    let method = request.method().clone();
    let begun = Instant::now();
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    headers.insert(
        header::X_CONTENT_TYPE_OPTIONS,
        HeaderValue::from_static("nosniff"),
    );
    if !headers.contains_key(header::CACHE_CONTROL) {
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    }
    let took = begun.elapsed();
    tracing::debug!(
        %method,
        route = route.as_ref().map_or("none", MatchedPath::as_str),
        status = response.status().as_u16(),
        took_ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
        slow = took > SLOW,
        "answered"
    );
    response
}

/// A bug in a handler ends its request, not the server.
#[expect(
    clippy::needless_pass_by_value,
    reason = "the layer hands the panic over"
)]
pub(crate) fn panicked(panic: Box<dyn std::any::Any + Send>) -> Response {
    let text = panic
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| panic.downcast_ref::<&str>().copied())
        .unwrap_or("no message");
    Failure::internal(&anyhow::anyhow!("a handler panicked: {text}")).into_response()
}
