//! Runs.

use grid_core::run::Counts;
use grid_core::spec::RunSpec;
use grid_core::workload::Status;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::experiment::ExperimentView;

/// A run with the counts of its experiments.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RunView {
    /// Id.
    pub id: String,
    /// Name; unique among the creator's.
    pub name: String,
    /// User name of the creator.
    pub created_by: String,
    /// Name of the team it belongs to.
    pub team: String,
    /// `owner/name` of the repository or the name of the folder it came from.
    pub project: Option<String>,
    /// Status, derived from its experiments.
    pub status: Status,
    /// Experiments by status.
    pub counts: Counts,
    /// The command as it was typed.
    pub invocation: String,
    /// What was asked for; only in answers about one run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spec: Option<RunSpec>,
    /// The seed of the sweep; the same seed gives the same experiments.  Text, because it
    /// is larger than the integers of JavaScript.
    pub seed: String,
    /// RFC 3339.
    pub created_at: String,
    /// When the first experiment started.
    pub started_at: Option<String>,
    /// When the last experiment ended; absent while any is open.
    pub finished_at: Option<String>,
    /// When it was moved to the trash.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deleted_at: Option<String>,
    /// Who moved it there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deleted_by: Option<String>,
    /// Name of the run this one was cloned from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cloned_from: Option<String>,
    /// Only of a run whose code has not come (yet): it has no experiments, and counts those
    /// that it is to have.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub upload: Option<UploadView>,
}

/// How it stands with the code of a run that was asked for before its code was there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct UploadView {
    /// Whether it may still come.
    pub waiting: bool,
    /// What is waited for, or why it came to nothing.
    pub message: String,
    /// Until when it may come; RFC 3339.
    pub expires_at: String,
}

/// `GET /runs/{run}` and every answer about one run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RunResponse {
    /// The run.
    pub run: RunView,
}

/// `GET /runs`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RunsResponse {
    /// Newest first.
    pub runs: Vec<RunView>,
    /// Pass as `cursor` for the next page; absent on the last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

/// The query of `GET /runs`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
pub struct RunsQuery {
    /// Only runs with an experiment that has not ended (`true`), or without (`false`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub active: Option<bool>,
    /// The trash instead.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deleted: Option<bool>,
    /// Teammates' runs, too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub global: Option<bool>,
    /// Only runs of this user.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created_by: Option<String>,
    /// Only runs whose name contains this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Only runs whose status is one of these, several with commas between:
    /// `state=failed,stopped`.
    #[serde(
        default,
        skip_serializing_if = "Vec::is_empty",
        with = "crate::query::statuses"
    )]
    #[param(inline, style = Form, explode = false)]
    pub state: Vec<Status>,
    /// Only runs created then or later, RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<String>,
    /// At most this many (1 to 1,000; default 100).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[param(minimum = 1, maximum = 1_000)]
    pub limit: Option<u32>,
    /// Where the last page ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cursor: Option<String>,
}

/// `POST /runs`.  With the header `Idempotency-Key`, sending it twice makes one run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RunCreate {
    /// Name; made up when absent.
    #[serde(default)]
    #[schema(min_length = 1)]
    pub name: Option<String>,
    /// Team by name; the user's current one when absent.
    #[serde(default)]
    pub team: Option<String>,
    /// What to run.
    pub spec: RunSpec,
    /// The command as it was typed, for people.
    pub invocation: String,
    /// Where the code comes from, for people.
    #[serde(default)]
    pub project: Option<String>,
    /// Answer with the experiments, and start nothing.
    #[serde(default)]
    pub dry_run: bool,
}

/// The answer to `POST /runs`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RunCreated {
    /// The run; of a dry run, as it would be.
    pub run: RunView,
    /// The experiments (the first 1,000), with their parameters.
    pub experiments: Vec<ExperimentView>,
    /// What the user should know: things recorded but not enforced, settings without effect here.
    #[serde(default)]
    pub warnings: Vec<String>,
}

/// `POST /runs/{run}/clone`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RunClone {
    /// Name; `<original>-cl<digits>` when absent.
    #[serde(default)]
    #[schema(min_length = 1)]
    pub name: Option<String>,
    /// Arguments to change or add, as typed after the script: `["--lr=0.1", "--epochs", "3"]`.
    #[serde(default)]
    pub set: Vec<String>,
    /// Answer with the experiments, and start nothing.
    #[serde(default)]
    pub dry_run: bool,
}

/// `POST /runs/{run}/retry`: tries experiments again in place, with the same parameters.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RunRetry {
    /// Only those that failed; otherwise also those that were stopped.
    #[serde(default)]
    pub failed: bool,
}

/// The answer to a change of several experiments.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RunChanged {
    /// The run after it.
    pub run: RunView,
    /// How many experiments were changed.
    pub changed: u64,
}
