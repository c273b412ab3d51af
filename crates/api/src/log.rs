//! Logs as people read them.

use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

/// Which log of an experiment.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum LogStream {
    /// What building its environment printed.
    Build,
    /// What the script and its actions printed.
    Experiment,
}

impl LogStream {
    /// The word.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Build => "build",
            Self::Experiment => "experiment",
        }
    }
}

/// Where a line came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum LogSource {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
    /// The platform itself.
    Grid,
}

/// One line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct LogLine {
    /// Which log.
    pub stream: LogStream,
    /// Number of the attempt that wrote it.
    pub attempt: u32,
    /// When, RFC 3339.
    pub at: String,
    /// Where from.
    pub source: LogSource,
    /// The text without its line end; what a terminal would show after carriage returns.
    pub text: String,
    /// Whether the line may still be rewritten (a progress bar).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub partial: bool,
}

/// `GET /experiments/{experiment}/logs`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct LogsResponse {
    /// In order.
    pub lines: Vec<LogLine>,
    /// Pass as `cursor` to go on after these; absent when all that will ever be there was read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
    /// Whether earlier lines exist.
    #[serde(default)]
    pub truncated: bool,
}

/// The query of `GET /experiments/{experiment}/logs`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
pub struct LogsQuery {
    /// Which log; experiment when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[param(inline)]
    pub stream: Option<LogStream>,
    /// The last so many lines.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[param(maximum = 10_000)]
    pub tail: Option<u32>,
    /// Go on where a former answer ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cursor: Option<String>,
    /// At most this many lines (1 to 10,000; default 1,000).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[param(minimum = 1, maximum = 10_000)]
    pub limit: Option<u32>,
}

/// The query of `GET /experiments/{experiment}/logs/follow`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
pub struct FollowQuery {
    /// Which log; experiment when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[param(inline)]
    pub stream: Option<LogStream>,
    /// Begin with the last so many lines; with all when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[param(maximum = 10_000)]
    pub tail: Option<u32>,
    /// Begin where a former answer ended; the header `Last-Event-ID` goes before it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cursor: Option<String>,
}

/// The query of `GET /experiments/{experiment}/logs/raw`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
pub struct RawQuery {
    /// Which log; experiment when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[param(inline)]
    pub stream: Option<LogStream>,
    /// Only what came from there; everything when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[param(inline)]
    pub source: Option<LogSource>,
}

/// The data of the event `status` of `GET /experiments/{experiment}/logs/follow`: the
/// first event, and again whenever it changes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct LogsStatus {
    /// The status of the experiment.
    pub status: grid_core::workload::Status,
    /// One sentence about where it stands.
    #[serde(default)]
    pub message: Option<String>,
}

/// The data of the event `end` of `GET /experiments/{experiment}/logs/follow`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct LogsEnd {
    /// The status in which the experiment ended.
    pub status: grid_core::workload::Status,
}
