//! What the engine answers, in the shapes of the wire.

use std::collections::HashMap;

use grid_api::artifact::ArtifactView;
use grid_api::cluster::NodeView;
use grid_api::experiment::{EventView, ExperimentView};
use grid_api::log::{LogLine, LogSource, LogStream};
use grid_api::run::{RunCreated, RunView, UploadView};
use grid_api::user::{MembershipView, UserKey, UserView};
use grid_core::id::UserId;
use grid_core::logframe::Source;
use grid_core::run::status;
use grid_core::time::Timestamp;
use grid_core::workload::{Actor, Event, Outcome, State, Status};
use grid_engine::draft::{self, Draft, Found};
use grid_engine::experiment::Experiment;
use grid_engine::run::{Created, Run};
use grid_engine::user::WithKey;
use grid_store::db;

use crate::error::Result;

type Names = HashMap<UserId, String>;

pub(super) fn user(user: db::user::User, teams: Vec<MembershipView>) -> UserView {
    UserView {
        user_id: user.id.to_string(),
        display_name: display_name(&user),
        username: user.username,
        email: Some(user.email).filter(|email| !email.is_empty()),
        operator: user.operator,
        teams,
        current_team: None,
        service_account: user.service_team.is_some(),
        created_at: user.created_at.to_string(),
    }
}

/// First and last name, or the user name.
pub(super) fn display_name(user: &db::user::User) -> String {
    let full = format!("{} {}", user.first_name, user.last_name);
    let full = full.trim();
    if full.is_empty() {
        user.username.clone()
    } else {
        full.to_owned()
    }
}

pub(super) fn caller(caller: grid_engine::Caller) -> UserView {
    let current = caller
        .teams
        .iter()
        .find(|(team, _)| Some(team.id) == caller.user.current_team)
        .map(|(team, _)| team.name.clone());
    let teams = caller.teams.into_iter().map(|(team, role)| MembershipView {
        team: team.name,
        role,
    });
    let teams = teams.collect();
    UserView {
        current_team: current,
        ..user(caller.user, teams)
    }
}

pub(super) fn key(with: WithKey) -> UserKey {
    UserKey {
        username: with.user.username,
        user_id: with.user.id.to_string(),
        api_key: with.api_key,
    }
}

/// A run in a list; with its spec in answers about one.
pub(super) fn run(run: Run) -> RunView {
    let open = run.counts.open() > 0;
    RunView {
        id: run.row.id.to_string(),
        name: run.row.name,
        created_by: run.created_by,
        team: run.team,
        project: run.row.project,
        status: status(&run.counts),
        counts: run.counts,
        invocation: run.row.invocation,
        spec: None,
        seed: run.row.seed,
        created_at: run.row.created_at.to_string(),
        started_at: run.span.started_at.map(text),
        finished_at: run.span.finished_at.filter(|_| !open).map(text),
        deleted_at: run.row.deleted.map(|deleted| text(deleted.at)),
        deleted_by: run.deleted_by,
        cloned_from: run.cloned_from,
        upload: None,
    }
}

/// A run of the caller's whose code has not come.
pub(super) fn draft(draft: Draft, caller: &grid_engine::Caller) -> RunView {
    let counts = draft.counts();
    let upload = UploadView {
        waiting: draft.state == draft::State::Waiting,
        message: draft.message().to_owned(),
        expires_at: text(draft.row.expires_at),
    };
    let team = caller.teams.iter().map(|(team, _)| team);
    let team = team.clone().find(|team| team.id == draft.row.team);
    RunView {
        id: draft.row.id.to_string(),
        created_by: caller.user.username.clone(),
        team: team.map_or_else(String::new, |team| team.name.clone()),
        project: None,
        status: status(&counts),
        counts,
        seed: String::new(),
        created_at: text(draft.row.created_at),
        started_at: None,
        finished_at: draft.ended_at().map(text),
        deleted_at: None,
        deleted_by: None,
        cloned_from: None,
        upload: Some(upload),
        name: draft.row.name,
        invocation: draft.invocation,
        spec: Some(draft.spec),
    }
}

/// A run, or one that is to become one, with its spec.
pub(super) fn found(found: Found, caller: &grid_engine::Caller) -> Result<RunView> {
    match found {
        Found::Run(run) => run_whole(*run),
        Found::Draft(found) => Ok(draft(*found, caller)),
    }
}

pub(super) fn run_whole(whole: Run) -> Result<RunView> {
    let spec = whole.spec_now()?;
    Ok(RunView {
        spec: Some(spec),
        ..run(whole)
    })
}

pub(super) fn created(created: Created) -> Result<RunCreated> {
    let run_name = created.run.row.name.clone();
    let experiments = created
        .experiments
        .into_iter()
        .zip(0..)
        .map(|(planned, index)| {
            let mut command = created.program.clone();
            command.extend(planned.args);
            ExperimentView {
                id: planned.id.map(|id| id.to_string()).unwrap_or_default(),
                name: format!("{run_name}-exp{index}"),
                run: run_name.clone(),
                created_by: created.run.created_by.clone(),
                index,
                status: Status::Queued,
                command,
                parameters: planned.params,
                created_at: text(created.run.row.created_at),
                started_at: None,
                finished_at: None,
                attempts: 0,
                node: None,
                reason: None,
                message: None,
                artifacts: None,
                artifact_bytes: None,
                deleted_at: None,
            }
        });
    Ok(RunCreated {
        experiments: experiments.collect(),
        warnings: created.warnings,
        run: run_whole(created.run)?,
    })
}

pub(super) fn experiment(experiment: Experiment, names: &Names) -> ExperimentView {
    let name = experiment.name();
    let row = experiment.row;
    let state = row.workload.state;
    ExperimentView {
        id: row.workload.id.to_string(),
        name,
        run: experiment.run,
        created_by: names.get(&row.owner).cloned().unwrap_or_default(),
        index: row.idx.into(),
        status: state.status(),
        command: experiment.command,
        parameters: row.params,
        created_at: text(row.workload.created_at),
        started_at: row.workload.started_at.map(text),
        finished_at: state.finished_at().map(text),
        attempts: row.workload.attempts,
        node: state
            .attempt()
            .map(|attempt| attempt.placement.node.to_string()),
        reason: match state {
            State::Finished {
                outcome: Outcome::Failed { reason },
                ..
            } => Some(reason),
            _ => None,
        },
        message: experiment.message,
        artifacts: experiment.artifacts.map(|(files, _)| files),
        artifact_bytes: experiment.artifacts.map(|(_, bytes)| bytes),
        deleted_at: row.deleted.map(|deleted| text(deleted.at)),
    }
}

/// Who caused these events, where it was somebody.
pub(super) fn people(events: &[db::event::Logged]) -> Vec<UserId> {
    let user = |event: &db::event::Logged| match event.actor {
        Actor::User(user) => Some(user),
        Actor::Engine | Actor::Runner(_) => None,
    };
    events.iter().filter_map(user).collect()
}

pub(super) fn event(logged: &db::event::Logged, names: &Names) -> EventView {
    EventView {
        seq: i64::try_from(logged.seq).unwrap_or(i64::MAX),
        at: text(logged.at),
        actor: match logged.actor {
            Actor::Engine => "engine".to_owned(),
            Actor::Runner(_) => "runner".to_owned(),
            Actor::User(user) => names
                .get(&user)
                .cloned()
                .unwrap_or_else(|| user.to_string()),
        },
        kind: event_kind(&logged.event).to_owned(),
        message: grid_engine::experiment::event_message(&logged.event),
    }
}

fn event_kind(event: &Event) -> &'static str {
    match event {
        Event::Created { .. } => "created",
        Event::Placed { .. } => "placed",
        Event::Started { .. } => "started",
        Event::Requeued { .. } => "requeued",
        Event::StopRequested { .. } => "stop_requested",
        Event::PauseRequested => "pause_requested",
        Event::Paused => "paused",
        Event::Resumed => "resumed",
        Event::Retried => "retried",
        Event::Finished { .. } => "finished",
    }
}

pub(super) fn artifact(artifact: db::artifact::Artifact) -> ArtifactView {
    ArtifactView {
        path: artifact.path,
        size_bytes: artifact.size_bytes,
        blake3: artifact.blob.to_string(),
        mode: artifact.mode,
        modified_ms: artifact.mtime_ms,
    }
}

pub(super) fn node(status: grid_engine::NodeStatus) -> NodeView {
    NodeView {
        name: status.node.id.to_string(),
        connected: status.connected,
        cpus: status.node.cpus,
        cpus_used: status.cpus_used,
        gpus: status.node.gpus,
        gpus_used: status.gpus_used,
        memory_bytes: status.node.memory_bytes,
        warnings: status.warnings,
    }
}

/// A line of a page that goes on at `next`; with `over`, nothing goes on.
pub(crate) fn line(
    line: grid_engine::log::Line,
    stream: LogStream,
    next: grid_engine::log::Cursor,
    over: bool,
) -> LogLine {
    LogLine {
        stream,
        attempt: line.attempt,
        at: text(Timestamp::from_millis(line.line.at_ms)),
        source: match line.line.source {
            Source::Stdout => LogSource::Stdout,
            Source::Stderr => LogSource::Stderr,
            Source::Platform => LogSource::Grid,
        },
        text: line.line.text,
        // What an attempt that is over wrote last stays as it is, line end or not.
        partial: line.line.partial && !over && line.attempt == next.attempt,
    }
}

fn text(at: Timestamp) -> String {
    at.to_string()
}
