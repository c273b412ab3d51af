//! What went wrong becomes a status and the one envelope; here and nowhere else.

use std::sync::atomic::{AtomicU64, Ordering};

use axum::Json;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use grid_api::error::{ErrorBody, ErrorCode, ErrorDetail};
use grid_engine::Error;

/// The answer to a request that was not done.
#[derive(Debug)]
pub(crate) struct Failure(ErrorDetail);

/// What a handler comes to.
pub(crate) type Result<T, E = Failure> = std::result::Result<T, E>;

impl Failure {
    pub(crate) fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self(ErrorDetail {
            code,
            message: message.into(),
            hint: None,
        })
    }

    /// The request is not well formed.
    pub(crate) fn invalid(message: impl Into<String>) -> Self {
        Self::new(ErrorCode::Invalid, message)
    }

    /// What to do next.
    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.0.hint = Some(hint.into());
        self
    }

    /// A fault of ours: logged here, once, with all its causes; shown as a number to
    /// find it by.
    pub(crate) fn internal(cause: &anyhow::Error) -> Self {
        static FAULTS: AtomicU64 = AtomicU64::new(1);
        let number = FAULTS.fetch_add(1, Ordering::Relaxed);
        let fault = format!("{}-{number}", std::process::id());
        tracing::error!(fault, cause = format!("{cause:#}"), "a request failed");
        Self::new(ErrorCode::Internal, "the server failed; see its log")
            .hint(format!("the operator finds it there as fault {fault}"))
    }

    /// The envelope.
    pub(crate) fn body(self) -> ErrorBody {
        ErrorBody { error: self.0 }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let hint = error.hint().map(str::to_owned);
        let code = match &error {
            Error::NotFound { .. } => ErrorCode::NotFound,
            Error::Invalid { .. } => ErrorCode::Invalid,
            Error::Forbidden { .. } => ErrorCode::Forbidden,
            Error::Unauthenticated(_) => ErrorCode::Unauthenticated,
            Error::Conflict { .. } => ErrorCode::Conflict,
            Error::TooLarge { .. } => ErrorCode::TooLarge,
            Error::TooMany(_) => ErrorCode::TooMany,
            Error::Unavailable(_) => ErrorCode::Unavailable,
            Error::Full(_) => ErrorCode::Full,
            Error::Internal(cause) => return Self::internal(cause),
        };
        Self(ErrorDetail {
            code,
            message: error.to_string(),
            hint,
        })
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let code = self.0.code;
        let status =
            StatusCode::from_u16(code.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let detail = self.0.clone();
        let mut response = (status, Json(self.body())).into_response();
        // Beside the answer, for doors that speak otherwise.
        response.extensions_mut().insert(detail);
        let headers = response.headers_mut();
        match code {
            // Not `Basic`: a browser would ask for a name, keep it, and add it to requests
            // that other sites make it send.
            ErrorCode::Unauthenticated => {
                headers.insert(
                    header::WWW_AUTHENTICATE,
                    header::HeaderValue::from_static("Bearer realm=\"grid\""),
                );
            }
            ErrorCode::TooMany | ErrorCode::Unavailable => {
                headers.insert(header::RETRY_AFTER, header::HeaderValue::from_static("1"));
            }
            _ => {}
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_is_not_shown() {
        let cause = anyhow::anyhow!("disk /dev/sda1").context("reading");
        let detail = Failure::from(Error::Internal(cause)).0;
        assert_eq!(detail.code, ErrorCode::Internal);
        let shown = format!("{detail:?}");
        assert!(
            !shown.contains("sda1") && !shown.contains("reading"),
            "{shown}"
        );
    }
}
