//! Experiments.

use grid_core::workload::{Reason, Status};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

/// An experiment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ExperimentView {
    /// Id; empty in a dry run.
    pub id: String,
    /// `<run>-exp<N>`.
    pub name: String,
    /// Name of the run.
    pub run: String,
    /// User name of the creator.
    pub created_by: String,
    /// Number in the run, from 0.
    pub index: u64,
    /// Status.
    pub status: Status,
    /// The command that is executed.
    pub command: Vec<String>,
    /// Parameters in the order of the command: name and value.
    pub parameters: Vec<(String, String)>,
    /// RFC 3339.
    pub created_at: String,
    /// When its process first started.
    pub started_at: Option<String>,
    /// When it ended.
    pub finished_at: Option<String>,
    /// How many attempts it has had.
    pub attempts: u32,
    /// The node of the present attempt.
    pub node: Option<String>,
    /// Why it failed.
    #[schema(value_type = Option<Object>)]
    pub reason: Option<Reason>,
    /// One sentence about where it stands: why it waits, what is being prepared, why it failed.
    pub message: Option<String>,
    /// How many artifacts are stored so far; only in answers about one experiment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifacts: Option<u64>,
    /// Their size in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifact_bytes: Option<u64>,
    /// When it was moved to the trash.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deleted_at: Option<String>,
}

/// Every answer about one experiment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ExperimentResponse {
    /// The experiment.
    pub experiment: ExperimentView,
}

/// `GET /runs/{run}/experiments`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ExperimentsResponse {
    /// In order of their number; newest first with `order=desc`.
    pub experiments: Vec<ExperimentView>,
    /// Pass as `cursor` for the next page; absent on the last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

/// The query of `GET /runs/{run}/experiments`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
pub struct ExperimentsQuery {
    /// Only those in one of these statuses, several with commas between:
    /// `status=failed,stopped`.
    #[serde(
        default,
        skip_serializing_if = "Vec::is_empty",
        with = "crate::query::statuses"
    )]
    #[param(inline, style = Form, explode = false)]
    pub status: Vec<Status>,
    /// At most this many (1 to 1,000; default 1,000).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[param(minimum = 1, maximum = 1_000)]
    pub limit: Option<u32>,
    /// Where the last page ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cursor: Option<String>,
}

/// One entry of the history of an experiment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct EventView {
    /// Number, from 1.
    pub seq: i64,
    /// RFC 3339.
    pub at: String,
    /// User name, `engine`, or `runner`.
    pub actor: String,
    /// What happened, in a word.
    pub kind: String,
    /// What happened, in a sentence.
    pub message: String,
}

/// `GET /experiments/{experiment}/events`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct EventsResponse {
    /// Oldest first.
    pub events: Vec<EventView>,
}
