//! S3: what a team has, as objects that `boto3`, `s3fs`, `aws` and `rclone` read and write.
//!
//! # The way of a request
//!
//! 1. [`sign`] finds the key that says it has signed, and refuses what is not signed by
//!    version 4 of the protocol.
//! 2. The crate `s3s` checks the signature, takes the request apart and finds the operation.
//! 3. [`access`] lets it in: the caller of a right signature, for an operation that has a row.
//! 4. [`service`] makes one call of [`grid_engine::objects`], which asks the one table, and
//!    maps the answer.
//! 5. What went wrong becomes the XML of S3 in [`error`], and nowhere else.
//!
//! What a request leaves behind is written down before it is answered, as everywhere.

pub(crate) mod access;
mod body;
mod copy;
mod error;
mod late;
mod read;
mod service;
mod sign;
mod write;

use std::sync::Arc;

use axum::Router;
use axum::body::{Body, HttpBody};
use axum::extract::{Request, State};
use axum::http::{Method, StatusCode, header};
use axum::middleware::{Next, from_fn, from_fn_with_state};
use axum::response::Response;
use grid_engine::audit::Trail;
use grid_store::db;
use s3s::config::{S3Config, StaticConfigProvider};
use s3s::service::S3ServiceBuilder;
use s3s::{S3Error, S3ErrorCode};
use tokio::time::Instant;
use tower_http::catch_panic::CatchPanicLayer;

use crate::extract::Pieces;
use crate::rest::{self, App, SLOW};
use crate::unread;
use access::Gate;
use late::Late;
use service::Door;
use sign::Secret;

/// Most bytes of a body in XML: what names ten thousand parts, or a thousand keys to delete.
/// Higher: one request takes more memory; lower: honest requests are refused.
const XML_BYTES_MAX: usize = 4 << 20;

/// Most bytes of a refusal of ours that is read again.
const REFUSAL_BYTES_MAX: usize = 64 << 10;

/// What is said of a signature that is not the one of the request.
const MISMATCH: &str = "The request signature we calculated does not match the signature you \
     provided: check the secret access key, and that nothing on the way changes requests.";

/// The whole of it.
pub(crate) fn router(app: App) -> Router {
    Router::new()
        .fallback(answered)
        .layer(CatchPanicLayer::custom(panicked))
        .layer(from_fn_with_state(app.clone(), finish))
        .layer(from_fn(unread::close))
        .with_state(app)
}

async fn answered(State(app): State<App>, request: Request) -> Response {
    let is_head = request.method() == Method::HEAD;
    let trail = request.extensions().get::<Trail>().cloned();
    let trail = trail.unwrap_or_default();
    let signed = match sign::signed(&request) {
        Ok(signed) => signed,
        Err(refused) => return answer(refused, is_head),
    };
    let signer = match signed {
        None => None,
        Some(access_key) => {
            let found = grid_engine::key::signer(&app.engine, &trail, &access_key).await;
            match found {
                Ok(found) => found,
                Err(failed) => return answer(error::of(failed.into()), is_head),
            }
        }
    };
    let gate = Arc::new(Gate::new(app.engine.clone(), trail.clone(), signer));
    let late = Arc::new(Late::default());
    let mut service = S3ServiceBuilder::new(Door::new(app, Arc::clone(&late)));
    service.set_auth(Secret::of(&gate));
    service.set_access(access::Asked(Arc::clone(&gate)));
    let mut config = S3Config::default();
    config.xml_max_body_size = XML_BYTES_MAX;
    service.set_config(Arc::new(StaticConfigProvider::new(Arc::new(config))));
    let request = request.map(patient);
    let response = match service.build().call(request).await {
        Ok(response) => late.finish(response.map(Body::new)),
        Err(fault) => {
            let fault = anyhow::anyhow!("S3: {fault:?}");
            let _logged = crate::error::Failure::internal(&fault);
            return answer(S3Error::new(S3ErrorCode::InternalError), is_head);
        }
    };
    if gate.end(response.status()) {
        return bare(worded(response).await, is_head);
    }
    bare(response, is_head)
}

/// An answer to a wrong signature, with words where it has none: clients show nothing else.
async fn worded(response: Response) -> Response {
    let (mut parts, body) = response.into_parts();
    let bytes = axum::body::to_bytes(body, REFUSAL_BYTES_MAX).await;
    let text = String::from_utf8_lossy(&bytes.unwrap_or_default()).into_owned();
    let text = match text.contains("<Message>") {
        true => text,
        false => text.replace("</Code>", &format!("</Code><Message>{MISMATCH}</Message>")),
    };
    parts.headers.remove(header::CONTENT_LENGTH);
    Response::from_parts(parts, Body::from(text))
}

/// A body whose sender may not be silent for long.
fn patient(body: Body) -> s3s::Body {
    // Of none it must be seen that there is none.
    if body.size_hint().exact() == Some(0) {
        return s3s::Body::empty();
    }
    s3s::Body::http_body_unsync(Body::from_stream(Pieces::new(body).stream()))
}

/// An error as an answer.
fn answer(error: S3Error, is_head: bool) -> Response {
    match error.to_http_response() {
        Ok(response) => bare(response.map(Body::new), is_head),
        Err(_) => {
            let mut response = Response::new(Body::empty());
            *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
            response
        }
    }
}

/// Without a body where HTTP has none.
fn bare(mut response: Response, is_head: bool) -> Response {
    let is_failed = !response.status().is_success();
    if response.status() == StatusCode::NOT_MODIFIED || (is_head && is_failed) {
        *response.body_mut() = Body::empty();
        let headers = response.headers_mut();
        headers.remove(header::CONTENT_LENGTH);
        headers.remove(header::CONTENT_TYPE);
    }
    response
}

/// Sees to it that what has to be written down about the request is, and logs the answer
/// where somebody wants to know.
async fn finish(State(app): State<App>, mut request: Request, next: Next) -> Response {
    let method = request.method().clone();
    let begun = Instant::now();
    let trail = Trail::new(rest::origin(&request, &app.trusted_proxies));
    request.extensions_mut().insert(trail.clone());
    let (mut response, statements) = db::counted(next.run(request)).await;
    response
        .extensions_mut()
        .insert(rest::Statements(statements));
    if let Err(failed) = app.engine.settle(&trail).await {
        response = answer(error::of(failed.into()), method == Method::HEAD);
    }
    let took = begun.elapsed();
    tracing::debug!(
        %method,
        door = "s3",
        status = response.status().as_u16(),
        statements,
        took_ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
        slow = took > SLOW,
        "answered"
    );
    response
}

/// A bug in a handler ends its request, not the server.
fn panicked(panic: Box<dyn std::any::Any + Send>) -> Response {
    let _logged = rest::panicked(panic);
    answer(S3Error::new(S3ErrorCode::InternalError), false)
}
