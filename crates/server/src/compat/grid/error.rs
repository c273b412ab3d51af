//! What went wrong, in the shape that the original client reads: it shows the message of
//! the one detail, and nothing else.

use axum::Json;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use grid_api::error::{ErrorCode, ErrorDetail};
use serde::Serialize;

use crate::error::Failure;

#[derive(Serialize)]
struct Body {
    code: u8,
    message: String,
    details: Vec<Detail>,
}

#[derive(Serialize)]
struct Detail {
    message: String,
}

/// Marks an answer whose details stay away: with them the client takes an experiment that
/// is gone for a question that failed, and shows nothing of its run.
#[derive(Clone, Copy)]
struct Bare;

/// The answer to a request for a thing that may be gone.
pub(super) fn or_gone(failure: Failure) -> Response {
    let mut response = failure.into_response();
    if response.status() == StatusCode::NOT_FOUND {
        response.extensions_mut().insert(Bare);
    }
    response
}

/// The answer to what this server does not have.
pub(super) fn unsupported(message: impl Into<String>) -> Response {
    const UNIMPLEMENTED: u8 = 12;
    shaped(
        StatusCode::NOT_IMPLEMENTED,
        UNIMPLEMENTED,
        message.into(),
        false,
    )
}

/// Puts an error of ours, wherever it comes from, into the shape of the client.
pub(super) async fn reshape(response: Response) -> Response {
    let Some(detail) = response.extensions().get::<ErrorDetail>() else {
        return response;
    };
    let bare = response.extensions().get::<Bare>().is_some();
    let mut shaped = shaped(response.status(), code(detail.code), words(detail), bare);
    for (name, value) in response.headers() {
        if *name != header::CONTENT_LENGTH && *name != header::CONTENT_TYPE {
            shaped.headers_mut().insert(name, value.clone());
        }
    }
    shaped
}

fn shaped(status: StatusCode, code: u8, message: String, bare: bool) -> Response {
    let details = if bare {
        vec![]
    } else {
        vec![Detail {
            message: message.clone(),
        }]
    };
    let body = Body {
        code,
        message,
        details,
    };
    (status, Json(body)).into_response()
}

/// Message and hint in one line.
pub(super) fn words(detail: &ErrorDetail) -> String {
    match &detail.hint {
        Some(hint) if detail.message.ends_with('.') => format!("{} ({hint})", detail.message),
        Some(hint) => format!("{}; {hint}", detail.message),
        None => detail.message.clone(),
    }
}

/// The number that gRPC gives to this kind of error.
const fn code(code: ErrorCode) -> u8 {
    match code {
        ErrorCode::Invalid => 3,
        ErrorCode::NotFound => 5,
        ErrorCode::Forbidden => 7,
        ErrorCode::TooLarge | ErrorCode::TooMany | ErrorCode::Full => 8,
        ErrorCode::Conflict => 9,
        ErrorCode::MethodNotAllowed => 12,
        ErrorCode::Internal => 13,
        ErrorCode::Unavailable => 14,
        ErrorCode::Unauthenticated => 16,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn check(response: Response, status: u16, expected: &str) {
        assert_eq!(response.status().as_u16(), status);
        let body = axum::body::to_bytes(response.into_body(), 4_096).await;
        assert_eq!(body.expect("a body"), expected);
    }

    #[tokio::test]
    async fn an_error_has_the_clients_shape() {
        let failure =
            Failure::new(ErrorCode::NotFound, "no run 'x' of yours").hint("did you mean ada:x?");
        check(
            reshape(failure.into_response()).await,
            404,
            r#"{"code":5,"message":"no run 'x' of yours; did you mean ada:x?","details":[{"message":"no run 'x' of yours; did you mean ada:x?"}]}"#,
        )
        .await;
        let refused = Failure::new(ErrorCode::Forbidden, "Only ada can.").hint("admins: ada");
        check(
            reshape(refused.into_response()).await,
            403,
            r#"{"code":7,"message":"Only ada can. (admins: ada)","details":[{"message":"Only ada can. (admins: ada)"}]}"#,
        )
        .await;
        let gone = Failure::new(ErrorCode::NotFound, "gone");
        check(
            reshape(or_gone(gone)).await,
            404,
            r#"{"code":5,"message":"gone","details":[]}"#,
        )
        .await;
        let refused = Failure::new(ErrorCode::Forbidden, "no");
        check(
            reshape(or_gone(refused)).await,
            403,
            r#"{"code":7,"message":"no","details":[{"message":"no"}]}"#,
        )
        .await;
        check(reshape("fine".into_response()).await, 200, "fine").await;
    }
}
