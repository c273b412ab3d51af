//! The GraphQL half of the original client: one schema, asked over HTTP and over sockets.
//!
//! The client reads the schema first, in every process, and checks each of its documents
//! against it.  So the names and types here are those that it knows, the scalar of times is
//! called `DateTime`, and reading the schema is allowed to whoever is signed in.
//!
//! Everything is one call of the engine; who may see what is decided there.

mod credentials;
pub(crate) mod fields;
mod mutation;
mod query;
mod scalar;
mod subscription;
mod types;

use std::sync::LazyLock;

use async_graphql::{Context, ErrorExtensions, Response, Schema, ServerError};
use axum::extract::{FromRequest, Request, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::IntoResponse;
use axum::routing::{get, post};
use axum::{Extension, Json, Router};
use bytes::Bytes;
use futures::stream::BoxStream;
use grid_engine::Caller;
use grid_engine::audit::Trail;
use serde_json::json;

use super::live;
use super::socket::{self, Sockets};
use crate::error::Failure;
use crate::extract::BytesBody;
use crate::rest::App;

use mutation::Mutation;
use query::Query;
use subscription::Live;

/// Largest question, in bytes.  Higher: more memory for each that is asked at once; lower:
/// documents of honest programs are refused.  The longest of the client has 2 KiB.
pub(super) const QUESTION_BYTES_MAX: usize = 64 << 10;

/// How deep a question may go.  Higher: small questions have large answers; lower: the
/// client cannot read the schema, which takes 13.
const DEPTH_MAX: usize = 16;

/// How much a question may cost: one for each field that is selected, and more for those
/// below.  Higher: one request keeps the server busy; lower: the client cannot read the
/// schema, which costs about 200.
const COST_MAX: usize = 600;

/// What a page of a log costs: not more than five are read by one request.
const LOG_COST: usize = 100;

/// What following a log costs: not more than two are followed by one subscription.
const FOLLOW_COST: usize = 250;

/// Directives on one field.
const DIRECTIVES_MAX: usize = 4;

/// What is asked, and by whom.
pub(super) struct Asked {
    pub(super) app: App,
    pub(super) caller: Caller,
}

/// The schema; the same for everybody.
static SCHEMA: LazyLock<Schema<Query, Mutation, Live>> = LazyLock::new(|| {
    Schema::build(Query, Mutation, Live)
        .limit_depth(DEPTH_MAX)
        .limit_complexity(COST_MAX)
        .limit_directives(DIRECTIVES_MAX)
        .finish()
});

/// What is asked for below the top of the server's addresses.
pub(super) fn routes() -> Router<App> {
    Router::new()
        .route("/graphql", post(answer))
        .route("/subscriptions", get(socket::connect))
        .route("/v1/core/clusters/{cluster}/logs", get(live::cluster_log))
        .layer(Extension(Sockets::default()))
}

/// Answers one question, and goes on if it is one to follow.
pub(super) fn answers(
    question: async_graphql::Request,
    asked: Asked,
) -> BoxStream<'static, Response> {
    SCHEMA.execute_stream(question.data(asked))
}

/// Answers one question.
async fn answer(State(app): State<App>, request: Request) -> axum::response::Response {
    let (parts, body) = request.into_parts();
    let trail = parts.extensions.get::<Trail>().cloned().unwrap_or_default();
    let Some((user, key)) = credentials(&parts.headers) else {
        return not_signed_in("you are not signed in");
    };
    let caller = match grid_engine::user::enter(&app.engine, &trail, Some(user), key).await {
        Ok(caller) => caller,
        Err(grid_engine::Error::Unauthenticated(why)) => return not_signed_in(&why),
        Err(error) => return Failure::from(error).into_response(),
    };
    let request = Request::from_parts(parts, body);
    let bytes = match BytesBody::<QUESTION_BYTES_MAX>::from_request(request, &()).await {
        Ok(BytesBody(bytes)) => bytes,
        Err(failure) => {
            let status = failure.into_response().status();
            let text = format!(
                "the question could not be read: it may have {} KiB",
                QUESTION_BYTES_MAX >> 10
            );
            return unread(status, &text);
        }
    };
    match parse(&bytes) {
        Ok(question) => {
            let question = question.data(Asked { app, caller });
            Json(SCHEMA.execute(question).await).into_response()
        }
        Err(error) => unread(
            StatusCode::BAD_REQUEST,
            &format!("the question is not JSON of GraphQL: {error}"),
        ),
    }
}

fn parse(bytes: &Bytes) -> serde_json::Result<async_graphql::Request> {
    if bytes.trim_ascii_start().first() == Some(&b'[') {
        // A list would be read as the fields in their order.
        return Err(serde::de::Error::custom("one question at a time"));
    }
    serde_json::from_slice(bytes)
}

/// The names of the headers that say who asks; in sockets, the same in the first message.
pub(super) const USER: &str = "x-grid-user";
pub(super) const KEY: &str = "x-grid-key";

fn credentials(headers: &HeaderMap) -> Option<(&str, &str)> {
    let text = |name: &str| headers.get(name)?.to_str().ok();
    Some((text(USER)?, text(KEY)?))
}

/// What the client says to its user as "Not authorized. Did you login?".  It has no such
/// words for a status: it would show the address and the number, or the trace of its own
/// failure to read a schema out of an error.
fn not_signed_in(why: &str) -> axum::response::Response {
    Json(json!({ "error": why })).into_response()
}

/// The answer to what is no question.
fn unread(status: StatusCode, why: &str) -> axum::response::Response {
    let error = ServerError::new(why, None);
    (status, Json(Response::from_errors(vec![error]))).into_response()
}

/// Who asks, from inside of an answer.
fn asked<'a>(ctx: &Context<'a>) -> async_graphql::Result<&'a Asked> {
    ctx.data::<Asked>()
}

/// The words for somebody who was refused, with what to do next.
pub(super) fn words(error: grid_engine::Error) -> String {
    super::error::words(&Failure::from(error).body().error)
}

/// Why something was not done, as GraphQL says it.
pub(super) fn refused(error: grid_engine::Error) -> async_graphql::Error {
    let detail = Failure::from(error).body().error;
    let code = serde_json::to_value(detail.code).unwrap_or_default();
    let message = super::error::words(&detail);
    async_graphql::Error::new(message).extend_with(|_, extensions| {
        extensions.set("code", code.as_str().unwrap_or_default());
    })
}
