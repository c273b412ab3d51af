//! Each address with what it asks of the one table, and what answers it.  There is no other
//! way to add one, so that none is without its row.

use axum::Router;
use axum::handler::Handler;
use axum::http::Method;
use axum::routing::{MethodFilter, MethodRouter, on};
use grid_core::access::Action;

use super::{
    auth, clusters, credentials, datastore, datastore_upload as sending, experiments, runs,
    sessions, transfer,
};
use crate::rest::App;
use crate::rest::access::Asks;

/// An address that the client asks.
pub(crate) struct Route {
    /// Its name in the table.
    pub(crate) operation: &'static str,
    /// By which method.
    pub(crate) method: Method,
    /// Where.
    pub(crate) path: &'static str,
    /// What it asks of the table.
    pub(crate) asks: Asks,
    handler: MethodRouter<App>,
}

/// All of them in one router.
pub(super) fn router() -> Router<App> {
    routes().into_iter().fold(Router::new(), |router, route| {
        router.route(route.path, route.handler)
    })
}

/// All of them.
pub(crate) fn routes() -> Vec<Route> {
    let mut routes = people_and_clusters();
    routes.extend(work());
    routes.extend(data());
    routes
}

/// The addresses as Markdown, behind the table of our own.
pub(crate) fn table() -> String {
    let mut text = String::from(
        "\n## What each address of the original client asks\n\n\
         | operation | address | asks for | about |\n| --- | --- | --- | --- |\n",
    );
    for route in routes() {
        let (what, about) = route.asks.words();
        let (method, path) = (route.method, route.path);
        let operation = route.operation;
        text.push_str(&format!(
            "| `{operation}` | `{method} {path}` | {what} | {about} |\n"
        ));
    }
    text
}

fn route<H, T>(
    operation: &'static str,
    method: Method,
    path: &'static str,
    asks: Asks,
    handler: H,
) -> Route
where
    H: Handler<T, App>,
    T: 'static,
{
    // Every method that is used below is one of those there are filters for.
    let filter = MethodFilter::try_from(method.clone()).unwrap_or(MethodFilter::TRACE);
    Route {
        operation,
        method,
        path,
        asks,
        handler: on(filter, handler),
    }
}

fn get<H, T>(operation: &'static str, path: &'static str, asks: Asks, handler: H) -> Route
where
    H: Handler<T, App>,
    T: 'static,
{
    route(operation, Method::GET, path, asks, handler)
}

fn post<H, T>(operation: &'static str, path: &'static str, asks: Asks, handler: H) -> Route
where
    H: Handler<T, App>,
    T: 'static,
{
    route(operation, Method::POST, path, asks, handler)
}

fn put<H, T>(operation: &'static str, path: &'static str, asks: Asks, handler: H) -> Route
where
    H: Handler<T, App>,
    T: 'static,
{
    route(operation, Method::PUT, path, asks, handler)
}

fn delete<H, T>(operation: &'static str, path: &'static str, asks: Asks, handler: H) -> Route
where
    H: Handler<T, App>,
    T: 'static,
{
    route(operation, Method::DELETE, path, asks, handler)
}

fn people_and_clusters() -> Vec<Route> {
    use Asks::{Nothing, SignedIn};
    const CLUSTERS: &str = "/v1/core/clusters";
    const CLUSTER: &str = "/v1/core/clusters/{cluster}";
    const TYPES: &str = "/v1/core/clusters/{cluster}/instance-types";
    const PROVIDER: &str = "/v1/core/clusters/{cluster}/cloud-provider-id";
    const SESSIONS: &str = "/v1/core/sessions";
    const SESSION: &str = "/v1/core/sessions/{session}";
    vec![
        post("login", "/v1/auth/login", Nothing, auth::login),
        get("user_get", "/v1/auth/user", SignedIn, auth::user),
        get("cluster_list", CLUSTERS, SignedIn, clusters::list),
        post("cluster_create", CLUSTERS, SignedIn, clusters::create),
        get("cluster_get", CLUSTER, SignedIn, clusters::get),
        put("cluster_update", CLUSTER, SignedIn, clusters::change),
        delete("cluster_delete", CLUSTER, SignedIn, clusters::change),
        get(
            "instance_type_list",
            TYPES,
            SignedIn,
            clusters::instance_types,
        ),
        get(
            "cloud_provider_get",
            PROVIDER,
            SignedIn,
            clusters::cloud_provider_id,
        ),
        get("session_list", SESSIONS, SignedIn, sessions::list),
        post("session_create", SESSIONS, SignedIn, sessions::create),
        get("session_get", SESSION, SignedIn, sessions::none),
        put("session_update", SESSION, SignedIn, sessions::none),
        delete("session_delete", SESSION, SignedIn, sessions::none),
    ]
}

fn work() -> Vec<Route> {
    use Asks::{Named, Nothing, Run, SignedIn};
    const RUNS: &str = "/v1/core/{cluster}/runs";
    const RUN: &str = "/v1/core/{cluster}/runs/{run}";
    const EXPERIMENTS: &str = "/v1/core/{cluster}/experiments";
    const EXPERIMENT: &str = "/v1/core/{cluster}/experiments/{experiment}";
    const ARTIFACTS: &str = "/v1/core/{cluster}/experiments/{experiment}/artifacts";
    const UPLOAD: &str = "/v1/uploads/{run}";
    const DOWNLOAD: &str = "/v1/downloads/{experiment}/{*path}";
    let (see, stop, remove) = (
        Run(Action::SeeRun),
        Run(Action::StopRun),
        Run(Action::DeleteRun),
    );
    let read = Run(Action::ReadArtifacts);
    vec![
        get("run_list", RUNS, SignedIn, runs::list),
        post("run_create", RUNS, Named(Action::Create), runs::create),
        get("run_get", RUN, see, runs::get),
        put("run_update", RUN, stop, runs::update),
        delete("run_delete", RUN, remove, runs::delete),
        get("experiment_list", EXPERIMENTS, SignedIn, experiments::list),
        get("experiment_get", EXPERIMENT, see, experiments::get),
        put("experiment_update", EXPERIMENT, stop, experiments::update),
        delete("experiment_delete", EXPERIMENT, remove, experiments::delete),
        get("artifact_list", ARTIFACTS, read, transfer::list),
        get("artifact_fetch", DOWNLOAD, Nothing, transfer::fetch),
        put("code_upload", UPLOAD, Nothing, transfer::upload),
    ]
}

fn data() -> Vec<Route> {
    use Asks::{Credential, Datastore, Named, Nothing, SignedIn};
    const CREDENTIALS: &str = "/v1/core/{cluster}/credentials";
    const CREDENTIAL: &str = "/v1/core/{cluster}/credentials/{credential}";
    const STORES: &str = "/v1/core/{cluster}/datastores";
    const STORE: &str = "/v1/core/{cluster}/datastores/{datastore}";
    const SENT: &str = "/v1/core/{cluster}/datastores/{datastore}/completed";
    const ADDRESSES: &str = "/v1/core/{cluster}/datastores/{datastore}/presigned-urls";
    const ARRIVED: &str = "/v1/core/{cluster}/datastores/{datastore}/presigned-urls/completed";
    const PART: &str = "/v1/uploads/{datastore}/{upload}/{number}";
    let (see, extend, remove) = (
        Datastore(Action::SeeDatastore),
        Datastore(Action::ExtendDatastore),
        Datastore(Action::DeleteDatastore),
    );
    vec![
        get("credential_list", CREDENTIALS, SignedIn, credentials::list),
        post(
            "credential_create",
            CREDENTIALS,
            Named(Action::Create),
            credentials::create,
        ),
        get(
            "credential_get",
            CREDENTIAL,
            Credential(Action::UseCredential),
            credentials::get,
        ),
        delete(
            "credential_delete",
            CREDENTIAL,
            Credential(Action::DeleteCredential),
            credentials::delete,
        ),
        get("datastore_list", STORES, SignedIn, datastore::list),
        post(
            "datastore_create",
            STORES,
            Named(Action::Create),
            datastore::create,
        ),
        get("datastore_get", STORE, see, datastore::get),
        delete("datastore_delete", STORE, remove, datastore::delete),
        post("datastore_complete", SENT, extend, datastore::complete),
        post("datastore_urls", ADDRESSES, extend, sending::addresses),
        post("datastore_parts", ARRIVED, extend, sending::put_together),
        put("datastore_part_upload", PART, Nothing, sending::put),
    ]
}
