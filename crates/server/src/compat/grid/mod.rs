//! The server side of the original `lightning-grid` client.
//!
//! Its REST half is here; GraphQL and web sockets are merged where the router is made.

use axum::Router;

use crate::rest::App;

/// Everything that the original client asks for, from the top of the server's addresses.
pub(crate) fn router(_app: &App) -> Router<App> {
    // The GraphQL half is merged here.
    Router::new()
}
