//! Runs, as they are shown.

use std::collections::BTreeMap;

use grid_core::id::WorkloadId;
use grid_core::run::{Counts, status};
use grid_core::spec::RunSpec;
use grid_core::sweep::Strategy;
use grid_core::time::Timestamp;
use grid_core::workload::Status;
use grid_engine::draft::{Draft, State};
use serde::Serialize;

use super::spec::{Actions, Image, Mount, Resources, Scratch, source_code};
use super::time;
use crate::compat::grid::words;
use crate::error::Result;

/// A part of the list of runs.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(in crate::compat::grid) struct Runs {
    pub(in crate::compat::grid) next_page_token: String,
    pub(in crate::compat::grid) previous_page_token: String,
    pub(in crate::compat::grid) runs: Vec<Run>,
    pub(in crate::compat::grid) total_size: String,
}

/// A run.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(in crate::compat::grid) struct Run {
    pub(in crate::compat::grid) created_at: String,
    description: String,
    id: String,
    pub(in crate::compat::grid) name: String,
    spec: Spec,
    pub(in crate::compat::grid) status: RunStatus,
    updated_at: String,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Spec {
    actions: Actions,
    auto_resume: bool,
    cluster_id: String,
    datastores: Vec<Mount>,
    desired_state: &'static str,
    dry_run: bool,
    env: BTreeMap<String, String>,
    image: Image,
    instance_type: String,
    relative_work_dir: String,
    resources: Resources,
    run_controller_command: String,
    run_controller_id: String,
    scratch: Vec<Scratch>,
    source_code: String,
    strategy: &'static str,
    sweep_options: BTreeMap<&'static str, String>,
    sweep_type: &'static str,
    use_spot: bool,
    user_id: String,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(in crate::compat::grid) struct RunStatus {
    cost: f64,
    deleted_timestamp: Option<String>,
    experiment_counts: ExperimentCounts,
    experiment_ids: Vec<String>,
    finish_timestamp: Option<String>,
    hourly_cost: f64,
    message: String,
    pub(in crate::compat::grid) phase: &'static str,
    start_timestamp: Option<String>,
    pub(in crate::compat::grid) upload_url: String,
}

#[derive(Default, Serialize)]
struct ExperimentCounts {
    cancelled: u64,
    deleted: u64,
    failed: u64,
    pending: u64,
    running: u64,
    succeeded: u64,
}

/// What a run is shown with that it does not say itself.
struct Origin<'a> {
    cluster: &'a str,
    id: String,
    user: String,
    seed: &'a str,
    invocation: &'a str,
    desired_state: &'static str,
}

impl Run {
    /// A run, under the name that it is asked for by.
    pub(in crate::compat::grid) fn new(
        run: &grid_engine::run::Run,
        name: String,
        ids: &[WorkloadId],
        cluster: &str,
    ) -> Result<Self> {
        let row = &run.row;
        let phase = phase(run);
        let origin = Origin {
            cluster,
            id: row.id.to_string(),
            user: row.creator.to_string(),
            seed: &row.seed,
            invocation: &row.invocation,
            desired_state: desired(run, phase),
        };
        let spec = run.spec()?;
        let finished = run.span.finished_at.filter(|_| run.counts.open() == 0);
        let last = row.deleted.map(|deleted| deleted.at).or(finished);
        Ok(Self {
            created_at: time(row.created_at),
            description: spec.description.clone(),
            id: origin.id.clone(),
            name,
            spec: Spec::new(&spec, &origin),
            status: RunStatus {
                cost: 0.0,
                deleted_timestamp: row.deleted.map(|deleted| time(deleted.at)),
                experiment_counts: ExperimentCounts::new(&run.counts, row.experiments),
                experiment_ids: ids.iter().map(ToString::to_string).collect(),
                finish_timestamp: finished.map(time),
                hourly_cost: 0.0,
                message: String::new(),
                phase,
                start_timestamp: run.span.started_at.map(time),
                upload_url: String::new(),
            },
            updated_at: time(latest(row.created_at, run.span.started_at, last)),
        })
    }

    /// A run whose code is still on its way.
    pub(in crate::compat::grid) fn of_draft(draft: &Draft, name: String, cluster: &str) -> Self {
        let row = &draft.row;
        let phase = match &draft.state {
            State::Waiting => "RUN_STATE_PENDING",
            State::Failed { .. } => "RUN_STATE_FAILED",
            State::Stopped { .. } => "RUN_STATE_CANCELED",
        };
        let ended = draft.ended_at();
        let origin = Origin {
            cluster,
            id: row.id.to_string(),
            user: row.creator.to_string(),
            seed: "",
            invocation: &draft.invocation,
            desired_state: match draft.state {
                State::Stopped { .. } => "RUN_STATE_CANCELED",
                State::Waiting | State::Failed { .. } => "RUN_STATE_SUCCEEDED",
            },
        };
        let spec = Spec {
            // Nothing else is sent this way.
            source_code: format!("s3://{cluster}/code/{}", row.id),
            ..Spec::new(&draft.spec, &origin)
        };
        Self {
            created_at: time(row.created_at),
            description: draft.spec.description.clone(),
            id: origin.id.clone(),
            name,
            spec,
            status: RunStatus {
                cost: 0.0,
                deleted_timestamp: None,
                experiment_counts: ExperimentCounts::new(&draft.counts(), row.experiments),
                experiment_ids: vec![],
                finish_timestamp: ended.map(time),
                hourly_cost: 0.0,
                message: draft.message().to_owned(),
                phase,
                start_timestamp: None,
                upload_url: String::new(),
            },
            updated_at: time(ended.unwrap_or(row.created_at)),
        }
    }
}

fn latest(created: Timestamp, started: Option<Timestamp>, ended: Option<Timestamp>) -> Timestamp {
    ended.or(started).unwrap_or(created).max(created)
}

/// Where a run stands, in the words of the client.
pub(in crate::compat::grid) fn phase(run: &grid_engine::run::Run) -> &'static str {
    if run.row.deleted.is_some() {
        return "RUN_STATE_DELETED";
    }
    match status(&run.counts) {
        Status::Queued | Status::Pending | Status::Paused => "RUN_STATE_PENDING",
        // The client knows no word for what is being stopped.
        Status::Running | Status::Stopping => "RUN_STATE_RUNNING",
        Status::Succeeded => "RUN_STATE_SUCCEEDED",
        Status::Failed => "RUN_STATE_FAILED",
        Status::Stopped => "RUN_STATE_CANCELED",
    }
}

/// What is to become of a run: to succeed, unless somebody has stopped or deleted it.
fn desired(run: &grid_engine::run::Run, phase: &'static str) -> &'static str {
    let counts = &run.counts;
    let being_stopped = counts.stopping > 0 && counts.open() == counts.stopping;
    match phase {
        "RUN_STATE_DELETED" | "RUN_STATE_CANCELED" => phase,
        _ if being_stopped => "RUN_STATE_CANCELED",
        _ => "RUN_STATE_SUCCEEDED",
    }
}

impl ExperimentCounts {
    fn new(counts: &Counts, made: u32) -> Self {
        Self {
            cancelled: counts.stopped,
            deleted: u64::from(made).saturating_sub(counts.total()),
            failed: counts.failed,
            pending: counts.queued + counts.pending,
            running: counts.running + counts.stopping,
            succeeded: counts.succeeded,
        }
    }
}

impl Spec {
    fn new(spec: &RunSpec, origin: &Origin<'_>) -> Self {
        Self {
            actions: Actions::of(&spec.actions),
            auto_resume: spec.auto_resume,
            cluster_id: origin.cluster.to_owned(),
            datastores: Mount::of(spec),
            desired_state: origin.desired_state,
            dry_run: false,
            env: spec.environment.variables.clone(),
            image: Image::of(spec),
            instance_type: instance_type(spec, origin.cluster),
            relative_work_dir: spec.workdir.clone(),
            resources: Resources::of(spec),
            run_controller_command: command(spec, origin.invocation),
            run_controller_id: origin.id.clone(),
            scratch: Scratch::of(spec),
            source_code: source_code(spec, origin.cluster),
            strategy: "EXPERIMENT_STRATEGY_SINGLE",
            sweep_options: options(spec, origin.seed),
            sweep_type: match spec.sweep.strategy {
                Strategy::GridSearch => "grid_search",
                Strategy::RandomSearch => "random_search",
                Strategy::None => "none",
            },
            use_spot: spec.resources.use_spot,
            user_id: origin.user.clone(),
        }
    }
}

/// The machine that was asked for; the cluster's own when none was named.
pub(in crate::compat::grid) fn instance_type(spec: &RunSpec, cluster: &str) -> String {
    let named = spec.resources.instance_type.clone();
    named.unwrap_or_else(|| cluster.to_owned())
}

/// The command line as it was sent, when it came from this client; else one that means
/// the same.
fn command(spec: &RunSpec, invocation: &str) -> String {
    let sent = invocation.strip_prefix(INVOCATION);
    let sent = sent.filter(|sent| words::split(sent).as_ref() == Ok(&spec.command));
    sent.map_or_else(|| words::join(&spec.command), str::to_owned)
}

/// What stands before the command line in what is kept of it.
pub(in crate::compat::grid) const INVOCATION: &str = "grid run ";

fn options(spec: &RunSpec, seed: &str) -> BTreeMap<&'static str, String> {
    let mut options = BTreeMap::new();
    if spec.sweep.strategy == Strategy::RandomSearch {
        if let Some(trials) = spec.sweep.num_trials {
            options.insert("num_trials", trials.to_string());
        }
        let seed = spec
            .sweep
            .seed
            .map_or(seed.to_owned(), |seed| seed.to_string());
        if !seed.is_empty() {
            options.insert("seed", seed);
        }
    }
    options
}
