//! Experiments, as they are shown.

use std::collections::BTreeMap;

use grid_core::spec::RunSpec;
use grid_core::workload::{Outcome, State, Status};
use grid_engine::experiment::Whole;
use serde::Serialize;

use super::run::instance_type;
use super::spec::{Actions, Image, Mount, Resources, Scratch, source_code};
use super::time;

/// A list of experiments.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(in crate::compat::grid) struct Experiments {
    pub(in crate::compat::grid) experiments: Vec<Experiment>,
    pub(in crate::compat::grid) next_page_token: String,
    pub(in crate::compat::grid) previous_page_token: String,
    pub(in crate::compat::grid) total_size: String,
}

/// An experiment.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(in crate::compat::grid) struct Experiment {
    created_at: String,
    description: String,
    id: String,
    name: String,
    spec: Spec,
    pub(in crate::compat::grid) status: ExperimentStatus,
    updated_at: String,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Spec {
    actions: Actions,
    auto_resume: bool,
    cluster_id: String,
    command: Vec<String>,
    datastores: Vec<Mount>,
    desired_state: &'static str,
    dry_run: bool,
    env: BTreeMap<String, String>,
    image: Image,
    instance_type: String,
    resources: Resources,
    run_controller_id: String,
    run_id: String,
    scratch: Vec<Scratch>,
    source_code: String,
    use_spot: bool,
    user_id: String,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(in crate::compat::grid) struct ExperimentStatus {
    cost: f64,
    deleted_timestamp: Option<String>,
    finish_timestamp: Option<String>,
    hourly_cost: f64,
    message: String,
    pub(in crate::compat::grid) phase: &'static str,
    start_timestamp: Option<String>,
}

impl Experiment {
    /// An experiment, under the name that it is asked for by.
    pub(in crate::compat::grid) fn new(
        whole: Whole,
        spec: &RunSpec,
        name: String,
        cluster: &str,
    ) -> Self {
        let run = whole.run;
        let experiment = whole.experiment;
        let workload = &experiment.row.workload;
        let finished = workload.state.finished_at();
        let updated = finished.or(workload.started_at);
        Self {
            created_at: time(workload.created_at),
            description: spec.description.clone(),
            id: workload.id.to_string(),
            name,
            spec: Spec {
                actions: Actions::of(&spec.actions),
                auto_resume: spec.auto_resume,
                cluster_id: cluster.to_owned(),
                command: with_interpreter(experiment.command),
                datastores: Mount::of(spec),
                desired_state: desired(&workload.state),
                dry_run: false,
                env: spec.environment.variables.clone(),
                image: Image::of(spec),
                instance_type: instance_type(spec, cluster),
                resources: Resources::of(spec),
                run_controller_id: run.id.to_string(),
                run_id: run.id.to_string(),
                scratch: Scratch::of(spec),
                source_code: source_code(spec, cluster),
                use_spot: spec.resources.use_spot,
                user_id: experiment.row.owner.to_string(),
            },
            status: ExperimentStatus {
                cost: 0.0,
                deleted_timestamp: None,
                finish_timestamp: finished.map(time),
                hourly_cost: 0.0,
                message: experiment.message.unwrap_or_default(),
                phase: phase(workload.state.status()),
                // The client counts how long something has waited until now when it has no
                // start; what ended in the queue waited until then, and ran for no time.
                start_timestamp: workload.started_at.or(finished).map(time),
            },
            updated_at: time(updated.unwrap_or(workload.created_at)),
        }
    }
}

/// Where an experiment stands, in the words of the client.
const fn phase(status: Status) -> &'static str {
    match status {
        Status::Queued => "EXPERIMENT_STATE_QUEUED",
        Status::Pending => "EXPERIMENT_STATE_PENDING",
        // The client knows no word for what is being stopped.
        Status::Running | Status::Stopping => "EXPERIMENT_STATE_RUNNING",
        Status::Paused => "EXPERIMENT_STATE_PAUSED",
        Status::Succeeded => "EXPERIMENT_STATE_SUCCEEDED",
        Status::Failed => "EXPERIMENT_STATE_FAILED",
        Status::Stopped => "EXPERIMENT_STATE_CANCELLED",
    }
}

fn desired(state: &State) -> &'static str {
    match state {
        State::Stopping { .. }
        | State::Finished {
            outcome: Outcome::Stopped { .. },
            ..
        } => "EXPERIMENT_STATE_CANCELLED",
        _ => "EXPERIMENT_STATE_SUCCEEDED",
    }
}

/// The command with what runs the script before it.  Clients up to 0.8.20 take the first word
/// for that and the second for the script, and fail when there is no second.
fn with_interpreter(mut command: Vec<String>) -> Vec<String> {
    let ending = command.first().and_then(|script| script.rsplit_once('.'));
    let interpreter = match ending {
        Some((_, "py")) => "python",
        Some((_, "sh")) => "bash",
        Some((_, "jl")) => "julia",
        _ => return command,
    };
    command.insert(0, interpreter.to_owned());
    command
}

#[cfg(test)]
mod tests {
    use super::with_interpreter;

    #[test]
    fn a_script_has_its_interpreter_before_it() {
        let shown = |words: &[&str]| {
            let words = words.iter().map(|word| (*word).to_owned()).collect();
            with_interpreter(words).join(" ")
        };
        assert_eq!(
            shown(&["sub/train.py", "--lr", "1"]),
            "python sub/train.py --lr 1"
        );
        assert_eq!(shown(&["a.sh"]), "bash a.sh");
        assert_eq!(shown(&["sleep", "1"]), "sleep 1");
        assert_eq!(shown(&[]), "");
    }
}
