//! The one error envelope.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Every answer with a status of 400 or more has this body.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ErrorBody {
    /// What went wrong.
    pub error: ErrorDetail,
}

/// What went wrong, for programs and for people.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ErrorDetail {
    /// For programs.
    pub code: ErrorCode,
    /// For people: what happened, and to what.
    pub message: String,
    /// For people: what to do next.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

/// The kinds of error; each has one HTTP status.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ErrorCode {
    /// 400: the request is not well formed or asks for something impossible.
    Invalid,
    /// 401: no key, or one that is wrong, expired or revoked.
    Unauthenticated,
    /// 403: the caller may know of the thing but not do this to it.
    Forbidden,
    /// 404: there is no such thing, as far as the caller may know.
    NotFound,
    /// 405: the path is there, but not for this method.
    MethodNotAllowed,
    /// 409: the name is taken, or the thing is in a state that does not allow it.
    Conflict,
    /// 413: the body, the tree or the sweep is larger than the limit.
    TooLarge,
    /// 429: too many requests.
    TooMany,
    /// 500: a fault of the server; it is in the server's log.
    Internal,
    /// 503: the server cannot do it now; try again.
    Unavailable,
    /// 507: the server's disk is full.
    Full,
}

impl ErrorCode {
    /// The HTTP status of this kind of error.
    pub const fn status(self) -> u16 {
        match self {
            Self::Invalid => 400,
            Self::Unauthenticated => 401,
            Self::Forbidden => 403,
            Self::NotFound => 404,
            Self::MethodNotAllowed => 405,
            Self::Conflict => 409,
            Self::TooLarge => 413,
            Self::TooMany => 429,
            Self::Internal => 500,
            Self::Unavailable => 503,
            Self::Full => 507,
        }
    }
}
