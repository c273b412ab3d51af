//! The server side of the original `lightning-grid` client.
//!
//! Its REST half is here; GraphQL and web sockets are merged where the router is made.

mod asked;
mod auth;
mod clusters;
mod create;
mod credentials;
mod datastore;
mod datastore_upload;
mod error;
mod experiments;
pub(crate) mod graphql;
mod live;
pub(crate) mod routes;
mod runs;
mod sessions;
mod shapes;
mod socket;
mod transfer;
mod words;

#[cfg(test)]
pub(crate) use socket::QUESTIONS_PER_SOCKET_MAX;

use axum::Router;
use axum::middleware::map_response;
use axum::routing::any;

use crate::extract::{no_such_method, no_such_path};
use crate::rest::App;

/// Everything that the original client asks for, from the top of the server's addresses.
pub(crate) fn router(_app: &App) -> Router<App> {
    let rest = routes::router()
        .route("/v1/{*rest}", any(no_such_path))
        .method_not_allowed_fallback(no_such_method)
        .layer(map_response(error::reshape));
    rest.merge(graphql::routes())
}
