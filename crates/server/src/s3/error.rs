//! What went wrong, as S3 says it.

use grid_engine::objects::Error;
use s3s::{S3Error, S3ErrorCode};

use crate::error::Failure;

/// The status of a disk that is full, for which S3 has no code of its own.
const FULL: u16 = 507;

/// What went wrong.
pub(super) fn of(error: Error) -> S3Error {
    let message = error.to_string();
    match error {
        Error::NoBucket => S3Error::with_message(S3ErrorCode::NoSuchBucket, message),
        Error::NoKey => S3Error::with_message(S3ErrorCode::NoSuchKey, message),
        Error::NoUpload => S3Error::with_message(S3ErrorCode::NoSuchUpload, message),
        Error::Immutable(why) => S3Error::with_message(S3ErrorCode::MethodNotAllowed, why),
        Error::Other(other) => of_engine(other),
    }
}

fn of_engine(error: grid_engine::Error) -> S3Error {
    use grid_engine::Error as E;
    let code = match &error {
        E::NotFound { .. } => S3ErrorCode::NoSuchKey,
        E::Invalid { .. } => S3ErrorCode::InvalidRequest,
        E::Forbidden { .. } => S3ErrorCode::AccessDenied,
        E::Unauthenticated(_) => S3ErrorCode::InvalidAccessKeyId,
        E::Conflict { .. } => S3ErrorCode::OperationAborted,
        E::TooLarge { .. } => S3ErrorCode::EntityTooLarge,
        E::TooMany(_) => S3ErrorCode::SlowDown,
        E::Unavailable(_) => S3ErrorCode::ServiceUnavailable,
        E::Full(_) => S3ErrorCode::Custom("InsufficientStorage".into()),
        E::Internal(_) => S3ErrorCode::InternalError,
    };
    let is_full = matches!(error, E::Full(_));
    // Logs what is a fault of ours, and hides it.
    let detail = Failure::from(error).body().error;
    let message = match detail.hint {
        Some(hint) => format!("{}; {hint}", detail.message),
        None => detail.message,
    };
    let mut error = S3Error::with_message(code, message);
    if let (true, Ok(status)) = (is_full, axum::http::StatusCode::from_u16(FULL)) {
        error.set_status_code(status);
    }
    error
}
