//! The routes: one file per noun, one function per operation, and each a translation.

pub(crate) mod access;
pub(crate) mod artifact;
mod audit;
mod blob;
mod change;
mod cluster;
mod credential;
mod cursor;
mod datastore;
mod datastore_parts;
mod doctor;
mod experiment;
mod health;
mod invitation;
mod key;
mod link;
mod log;
pub(crate) mod openapi;
mod page;
mod routes;
mod run;
mod runner;
mod share;
mod snapshot;
mod ssh_key;
mod team;
mod user;
mod views;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{ConnectInfo, FromRef, MatchedPath, Request, State};
use axum::http::{HeaderValue, header};
use axum::middleware::{Next, from_fn, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use grid_engine::Engine;
use grid_engine::audit::{Origin, Trail};
use grid_store::db;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tower_http::catch_panic::CatchPanicLayer;

pub(crate) use doctor::{CollectedView, Examined};
pub(crate) use views::line as line_view;

use self::routes::{Routes, routes};
use crate::auth::Tokens;
use crate::error::Failure;
use crate::extract::{hold, no_such_method, no_such_path};
use crate::folder::Folder;
use crate::handover::Handover;
use crate::proxies::TrustedProxies;
use crate::unread;

/// After how long an answer counts as slow in the log.
pub(crate) const SLOW: Duration = Duration::from_secs(2);

/// How many statements an answer took, beside it.  Never sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Statements(pub(crate) u64);

/// What every handler may use.  Cheap to clone.
#[derive(Clone)]
pub(crate) struct App {
    pub(crate) engine: Engine,
    /// Over when the server is to end: whoever waits for something stops waiting.
    pub(crate) stop: CancellationToken,
    pub(crate) tokens: Tokens,
    /// Where open files are taken.
    pub(crate) handover: Handover,
    pub(crate) folder_token: Arc<str>,
    pub(crate) folder: Arc<Folder>,
    /// The address that users reach the server under, where it was told; else links
    /// begin with what the request names.
    pub(crate) url: Option<Arc<str>>,
    /// Where it speaks S3, if it does, as people are told.
    pub(crate) s3_url: Option<Arc<str>>,
    /// Whether it speaks TLS.
    pub(crate) tls: bool,
    /// Whose word is taken for who is asking.
    pub(crate) trusted_proxies: Arc<TrustedProxies>,
}

impl FromRef<App> for Engine {
    fn from_ref(app: &App) -> Self {
        app.engine.clone()
    }
}

/// Everything below the prefix but what runners use, with its description.
fn described() -> Routes {
    work(teams(people(Routes::default())))
        .routes(routes!(change::change_follow))
        .routes(routes!(cluster::cluster_list))
        .routes(routes!(openapi::openapi_get))
}

/// Users, and what is their own.
fn people(router: Routes) -> Routes {
    router
        .routes(routes!(health::health_get))
        .routes(routes!(user::login))
        .routes(routes!(user::user_get))
        .routes(routes!(user::user_rotate_key))
        .routes(routes!(user::user_list, user::user_create))
        .routes(routes!(key::key_list, key::key_create))
        .routes(routes!(key::key_revoke))
        .routes(routes!(ssh_key::ssh_key_list, ssh_key::ssh_key_create))
        .routes(routes!(ssh_key::ssh_key_remove))
        .routes(routes!(
            credential::credential_list,
            credential::credential_create
        ))
        .routes(routes!(
            credential::credential_get,
            credential::credential_update,
            credential::credential_delete
        ))
}

/// Teams, and what is theirs.
fn teams(router: Routes) -> Routes {
    router
        .routes(routes!(team::user_set_team))
        .routes(routes!(team::team_list, team::team_create))
        .routes(routes!(team::team_get))
        .routes(routes!(team::team_rename))
        .routes(routes!(team::team_leave))
        .routes(routes!(team::team_policy, team::team_set_policy))
        .routes(routes!(team::member_update, team::member_remove))
        .routes(routes!(
            invitation::team_invitation_list,
            invitation::invitation_create
        ))
        .routes(routes!(invitation::invitation_revoke))
        .routes(routes!(invitation::invitation_list))
        .routes(routes!(invitation::invitation_accept))
        .routes(routes!(invitation::invitation_decline))
        .routes(routes!(invitation::invitation_register))
        .routes(routes!(
            key::service_account_list,
            key::service_account_create
        ))
        .routes(routes!(key::service_account_key_create))
        .routes(routes!(key::service_account_remove))
        .routes(routes!(audit::team_audit))
        .routes(routes!(audit::team_audit_export))
        .routes(routes!(audit::audit_list))
        .routes(routes!(audit::audit_export))
        .routes(routes!(share::share_create))
        .routes(routes!(share::share_list))
        .routes(routes!(share::share_revoke))
        .routes(routes!(share::share_open))
}

/// Code, data, runs, and what comes of them.
fn work(router: Routes) -> Routes {
    router
        .routes(routes!(snapshot::snapshot_create))
        .routes(routes!(blob::blob_upload))
        .routes(routes!(blob::blob_near_upload))
        .routes(routes!(blob::blob_missing))
        .routes(routes!(blob::blob_recipes))
        .routes(routes!(
            datastore::datastore_list,
            datastore::datastore_create
        ))
        .routes(routes!(
            datastore::datastore_get,
            datastore::datastore_update,
            datastore::datastore_delete
        ))
        .routes(routes!(datastore::datastore_restore))
        .routes(routes!(
            datastore::datastore_part_list,
            datastore_parts::datastore_parts_put
        ))
        .routes(routes!(datastore::datastore_part_put))
        .routes(routes!(datastore::datastore_commit))
        .routes(routes!(datastore::datastore_archive_put))
        .routes(routes!(datastore::datastore_file_list))
        .routes(routes!(datastore::datastore_file_download))
        .routes(routes!(datastore::datastore_file_fetch))
        .routes(routes!(datastore::datastore_diff))
        .routes(routes!(datastore::datastore_user_list))
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
}

/// The whole of it.
pub(crate) fn router(app: App) -> Router {
    let api = described()
        .serve()
        .merge(runner::routes())
        .merge(doctor::routes());
    Router::new()
        .route("/", get(page::home))
        .route("/s/{token}", get(page::shared))
        .route("/join/{token}", get(page::join))
        .route("/runs/{run}", get(page::run))
        .route("/experiments/{experiment}", get(page::experiment))
        .nest(grid_api::PREFIX, api)
        .merge(crate::compat::grid::router(&app))
        .fallback(no_such_path)
        .method_not_allowed_fallback(no_such_method)
        .layer(CatchPanicLayer::custom(panicked))
        .layer(from_fn_with_state(app.clone(), finish))
        .layer(from_fn(hold))
        .layer(from_fn(unread::close))
        .with_state(app)
}

/// What only a runner uses, for a listener that only a runner is told of.
pub(crate) fn runner_router(app: App) -> Router {
    Router::new()
        .nest(grid_api::PREFIX, runner::routes().merge(doctor::routes()))
        .fallback(no_such_path)
        .method_not_allowed_fallback(no_such_method)
        .layer(CatchPanicLayer::custom(panicked))
        .layer(from_fn_with_state(app.clone(), finish))
        .layer(from_fn(hold))
        .layer(from_fn(unread::close))
        .with_state(app)
}

/// Adds what every answer has, sees to it that what has to be written down about the
/// request is, and logs the answer where somebody wants to know.
async fn finish(State(app): State<App>, mut request: Request, next: Next) -> Response {
    // The pattern and not the path: a path may hold a signed link.
    let route = request.extensions().get::<MatchedPath>().cloned();
    let method = request.method().clone();
    let begun = Instant::now();
    let trail = Trail::new(origin(&request, &app.trusted_proxies));
    request.extensions_mut().insert(trail.clone());
    let (mut response, statements) = db::counted(next.run(request)).await;
    response.extensions_mut().insert(Statements(statements));
    if let Err(error) = app.engine.settle(&trail).await {
        response = Failure::from(error).into_response();
    }
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
        statements,
        took_ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
        slow = took > SLOW,
        "answered"
    );
    response
}

/// Where a request comes from.
pub(crate) fn origin(request: &Request, proxies: &TrustedProxies) -> Origin {
    let connection = request.extensions().get::<ConnectInfo<SocketAddr>>();
    let client = request.headers().get(header::USER_AGENT);
    Origin {
        address: connection.map_or_else(String::new, |connection| {
            let client = proxies.client(connection.0.ip(), request.headers());
            client.to_string()
        }),
        client: client
            .and_then(|client| client.to_str().ok())
            .unwrap_or_default()
            .to_owned(),
    }
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
