//! Each address with what it asks of the one table, and what answers it.  There is no other
//! way to add one, so that none is without its row.

use axum::Router;
use axum::http::Method;
use axum::routing::{MethodRouter, delete, get, post, put};
use grid_core::access::Action;

use super::{auth, clusters, credentials, datastore, experiments, runs, sessions, transfer};
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

fn route(
    operation: &'static str,
    method: Method,
    path: &'static str,
    asks: Asks,
    handler: MethodRouter<App>,
) -> Route {
    Route {
        operation,
        method,
        path,
        asks,
        handler,
    }
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
        route(
            "login",
            Method::POST,
            "/v1/auth/login",
            Nothing,
            post(auth::login),
        ),
        route(
            "user_get",
            Method::GET,
            "/v1/auth/user",
            SignedIn,
            get(auth::user),
        ),
        route(
            "cluster_list",
            Method::GET,
            CLUSTERS,
            SignedIn,
            get(clusters::list),
        ),
        route(
            "cluster_create",
            Method::POST,
            CLUSTERS,
            SignedIn,
            post(clusters::create),
        ),
        route(
            "cluster_get",
            Method::GET,
            CLUSTER,
            SignedIn,
            get(clusters::get),
        ),
        route(
            "cluster_update",
            Method::PUT,
            CLUSTER,
            SignedIn,
            put(clusters::change),
        ),
        route(
            "cluster_delete",
            Method::DELETE,
            CLUSTER,
            SignedIn,
            delete(clusters::change),
        ),
        route(
            "instance_type_list",
            Method::GET,
            TYPES,
            SignedIn,
            get(clusters::instance_types),
        ),
        route(
            "cloud_provider_get",
            Method::GET,
            PROVIDER,
            SignedIn,
            get(clusters::cloud_provider_id),
        ),
        route(
            "session_list",
            Method::GET,
            SESSIONS,
            SignedIn,
            get(sessions::list),
        ),
        route(
            "session_create",
            Method::POST,
            SESSIONS,
            SignedIn,
            post(sessions::create),
        ),
        route(
            "session_get",
            Method::GET,
            SESSION,
            SignedIn,
            get(sessions::none),
        ),
        route(
            "session_update",
            Method::PUT,
            SESSION,
            SignedIn,
            put(sessions::none),
        ),
        route(
            "session_delete",
            Method::DELETE,
            SESSION,
            SignedIn,
            delete(sessions::none),
        ),
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
        route("run_list", Method::GET, RUNS, SignedIn, get(runs::list)),
        route(
            "run_create",
            Method::POST,
            RUNS,
            Named(Action::Create),
            post(runs::create),
        ),
        route("run_get", Method::GET, RUN, see, get(runs::get)),
        route("run_update", Method::PUT, RUN, stop, put(runs::update)),
        route(
            "run_delete",
            Method::DELETE,
            RUN,
            remove,
            delete(runs::delete),
        ),
        route(
            "experiment_list",
            Method::GET,
            EXPERIMENTS,
            SignedIn,
            get(experiments::list),
        ),
        route(
            "experiment_get",
            Method::GET,
            EXPERIMENT,
            see,
            get(experiments::get),
        ),
        route(
            "experiment_update",
            Method::PUT,
            EXPERIMENT,
            stop,
            put(experiments::update),
        ),
        route(
            "experiment_delete",
            Method::DELETE,
            EXPERIMENT,
            remove,
            delete(experiments::delete),
        ),
        route(
            "artifact_list",
            Method::GET,
            ARTIFACTS,
            read,
            get(transfer::list),
        ),
        route(
            "artifact_fetch",
            Method::GET,
            DOWNLOAD,
            Nothing,
            get(transfer::fetch),
        ),
        route(
            "code_upload",
            Method::PUT,
            UPLOAD,
            Nothing,
            put(transfer::upload),
        ),
    ]
}

fn data() -> Vec<Route> {
    use Asks::{Credential, Named, SignedIn};
    const CREDENTIALS: &str = "/v1/core/{cluster}/credentials";
    const CREDENTIAL: &str = "/v1/core/{cluster}/credentials/{credential}";
    const STORES: &str = "/v1/core/{cluster}/datastores";
    const STORE: &str = "/v1/core/{cluster}/datastores/{datastore}";
    const SENT: &str = "/v1/core/{cluster}/datastores/{datastore}/completed";
    const ADDRESSES: &str = "/v1/core/{cluster}/datastores/{datastore}/presigned-urls";
    const ARRIVED: &str = "/v1/core/{cluster}/datastores/{datastore}/presigned-urls/completed";
    vec![
        route(
            "credential_list",
            Method::GET,
            CREDENTIALS,
            SignedIn,
            get(credentials::list),
        ),
        route(
            "credential_create",
            Method::POST,
            CREDENTIALS,
            Named(Action::Create),
            post(credentials::create),
        ),
        route(
            "credential_get",
            Method::GET,
            CREDENTIAL,
            Credential(Action::UseCredential),
            get(credentials::get),
        ),
        route(
            "credential_delete",
            Method::DELETE,
            CREDENTIAL,
            Credential(Action::DeleteCredential),
            delete(credentials::delete),
        ),
        route(
            "datastore_list",
            Method::GET,
            STORES,
            SignedIn,
            get(datastore::list),
        ),
        route(
            "datastore_create",
            Method::POST,
            STORES,
            SignedIn,
            post(datastore::create),
        ),
        route(
            "datastore_get",
            Method::GET,
            STORE,
            SignedIn,
            get(datastore::get),
        ),
        route(
            "datastore_delete",
            Method::DELETE,
            STORE,
            SignedIn,
            delete(datastore::change),
        ),
        route(
            "datastore_complete",
            Method::POST,
            SENT,
            SignedIn,
            post(datastore::change),
        ),
        route(
            "datastore_urls",
            Method::POST,
            ADDRESSES,
            SignedIn,
            post(datastore::change),
        ),
        route(
            "datastore_parts",
            Method::POST,
            ARRIVED,
            SignedIn,
            post(datastore::change),
        ),
    ]
}
