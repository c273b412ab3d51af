//! Telling that something has changed.

use axum::extract::State;
use axum::response::Response;

use grid_engine::Changes;

use super::App;
use crate::auth::Caller;
use crate::extract::{Nothing, Query};
use crate::live;

/// Be told when something may have changed
///
/// Server-sent events named `changed`, one at once and then at most ten a second. They
/// carry nothing: look again at what you show.
#[utoipa::path(get, path = "/changes", tag = "server",
    responses((status = 200, description = "Events", content_type = "text/event-stream", body = String)))]
pub(super) async fn change_follow(
    State(app): State<App>,
    Caller(caller): Caller,
    _: Query<Nothing>,
) -> Response {
    live::response(live::changes(Changes::new(&app.engine, &caller), app.stop))
}
