//! The shapes that the original client selects from, under the names that it knows.

use async_graphql::{ComplexObject, Context, ID, Result, SimpleObject};
use grid_core::spec::Source;
use grid_core::time::Timestamp;
use grid_core::workload::{Outcome, State, Status};
use grid_engine::run::Run;
use grid_engine::team::Info;
use grid_store::db;
use tokio::sync::OnceCell;

use super::scalar::{DateTime, text};
use super::{asked, refused};
use crate::compat::grid::words;

/// Who is signed in.
#[derive(SimpleObject)]
pub(super) struct User {
    user_id: ID,
    is_verified: bool,
    completed_signup: bool,
    is_blocked: bool,
    username: String,
    first_name: String,
    last_name: String,
    email: String,
}

impl User {
    /// Whoever is signed in here is verified: an operator or a team let them in.
    pub(super) fn new(user: db::user::User) -> Self {
        let first_name = first_name(&user);
        Self {
            user_id: user.id.to_string().into(),
            is_verified: true,
            completed_signup: true,
            is_blocked: false,
            username: user.username,
            first_name,
            last_name: user.last_name,
            email: user.email,
        }
    }
}

/// The client makes a display name of first and last name; who has neither is called by
/// their user name, as everywhere.
fn first_name(user: &db::user::User) -> String {
    if user.first_name.is_empty() && user.last_name.is_empty() {
        user.username.clone()
    } else {
        user.first_name.clone()
    }
}

/// The teams of who is signed in.
#[derive(SimpleObject)]
pub(super) struct UserTeamsResult {
    pub(super) success: bool,
    pub(super) message: String,
    pub(super) teams: Vec<Team>,
}

/// A team.
#[derive(SimpleObject)]
#[graphql(complex)]
pub(super) struct Team {
    id: ID,
    name: String,
    created_at: String,
    role: String,
}

impl Team {
    pub(super) fn new(info: &Info) -> Self {
        Self {
            id: info.team.id.to_string().into(),
            name: info.team.name.clone(),
            created_at: text(info.team.created_at),
            role: info.role.map_or_else(String::new, |role| role.to_string()),
        }
    }
}

#[ComplexObject]
impl Team {
    async fn members(&self, ctx: &Context<'_>) -> Result<Vec<Member>> {
        let asked = asked(ctx)?;
        let info = grid_engine::team::get(&asked.app.engine, &asked.caller, &self.id).await;
        let members = info.map_err(refused)?.members;
        Ok(members.into_iter().map(Member::new).collect())
    }
}

/// Somebody in a team.
#[derive(SimpleObject)]
pub(super) struct Member {
    id: ID,
    username: String,
    first_name: String,
    last_name: String,
}

impl Member {
    fn new(member: db::team::Member) -> Self {
        let first_name = first_name(&member.user);
        Self {
            id: member.user.id.to_string().into(),
            username: member.user.username,
            first_name,
            last_name: member.user.last_name,
        }
    }
}

/// The id of an experiment that was named.
#[derive(SimpleObject)]
pub(super) struct ExperimentIdResult {
    pub(super) success: bool,
    pub(super) message: String,
    pub(super) experiment_id: Option<ID>,
}

/// What a run is called.
#[derive(SimpleObject)]
pub(super) struct RunRef {
    run_id: ID,
    name: String,
}

/// One parameter of an experiment.
#[derive(SimpleObject)]
pub(super) struct Param {
    name: String,
    value: String,
}

/// An experiment.
pub(super) struct Experiment {
    found: grid_engine::experiment::Experiment,
    run: OnceCell<Option<Run>>,
}

impl Experiment {
    pub(super) fn new(found: grid_engine::experiment::Experiment) -> Self {
        Self {
            found,
            run: OnceCell::new(),
        }
    }

    /// Its run, read once and only when something of it is selected.
    async fn run_of(&self, ctx: &Context<'_>) -> Result<Option<&Run>> {
        let asked = asked(ctx)?;
        let read = async || match self.found.row.run {
            None => Ok(None),
            Some(run) => {
                let name = run.to_string();
                grid_engine::run::get(&asked.app.engine, &asked.caller, &name)
                    .await
                    .map(Some)
            }
        };
        let run = self.run.get_or_try_init(read).await;
        Ok(run.map_err(refused)?.as_ref())
    }
}

/// What an experiment is called, how it stands, and what it was made of.
#[async_graphql::Object]
impl Experiment {
    async fn experiment_id(&self) -> ID {
        self.found.row.workload.id.to_string().into()
    }

    async fn name(&self) -> String {
        self.found.name()
    }

    async fn status(&self) -> &'static str {
        status(self.found.row.workload.state.status())
    }

    async fn github_id(&self, ctx: &Context<'_>) -> Result<Option<String>> {
        let run = self.run_of(ctx).await?;
        Ok(run.and_then(|run| run.row.project.clone()))
    }

    /// What is to become of it: to succeed, unless somebody stops it.
    async fn desired_state(&self) -> &'static str {
        match &self.found.row.workload.state {
            State::Stopping { .. }
            | State::Finished {
                outcome: Outcome::Stopped { .. },
                ..
            } => "cancelled",
            _ => "succeeded",
        }
    }

    async fn commit_sha(&self, ctx: &Context<'_>) -> Result<Option<String>> {
        let Some(run) = self.run_of(ctx).await? else {
            return Ok(None);
        };
        Ok(match run.spec().map_err(refused)?.source {
            Source::Snapshot { git, .. } => git.map(|git| git.commit),
            Source::Git { reference, .. } => reference,
            Source::Nothing => None,
        })
    }

    async fn entrypoint(&self) -> Option<&String> {
        self.found.command.first()
    }

    async fn invocation_commands(&self) -> String {
        words::join(&self.found.command)
    }

    async fn created_at(&self) -> DateTime {
        DateTime(self.found.row.workload.created_at)
    }

    async fn started_running_at(&self) -> Option<DateTime> {
        self.found.row.workload.started_at.map(DateTime)
    }

    async fn finished_at(&self) -> Option<DateTime> {
        self.found.row.workload.state.finished_at().map(DateTime)
    }

    async fn run(&self, ctx: &Context<'_>) -> Result<Option<RunRef>> {
        let run = self.run_of(ctx).await?;
        Ok(run.map(|run| RunRef {
            run_id: run.row.id.to_string().into(),
            name: run.row.name.clone(),
        }))
    }

    async fn parameters(&self) -> Vec<Param> {
        let params = self.found.row.params.iter();
        params
            .map(|(name, value)| Param {
                name: name.clone(),
                value: value.clone(),
            })
            .collect()
    }
}

/// The words that the original client acts on.  What is being prepared is `queued` there:
/// then the client follows the build, and goes on with what the script prints.
const fn status(status: Status) -> &'static str {
    match status {
        Status::Queued | Status::Pending => "queued",
        Status::Running | Status::Stopping => "running",
        Status::Paused => "pending",
        Status::Succeeded => "succeeded",
        Status::Failed => "failed",
        Status::Stopped => "cancelled",
    }
}

/// A line of a log.  The client prints it as it is.
#[derive(SimpleObject)]
pub(super) struct LogLine {
    message: String,
    timestamp: String,
}

impl LogLine {
    pub(super) fn new(text_of_line: &str, at: Timestamp) -> Self {
        Self {
            message: format!("{text_of_line}\n"),
            timestamp: text(at),
        }
    }
}

/// What an experiment has printed.
#[derive(SimpleObject)]
pub(super) struct ExperimentLogs {
    pub(super) success: bool,
    pub(super) message: String,
    pub(super) lines: Vec<LogLine>,
}

/// A public key of who is signed in.
#[derive(SimpleObject)]
#[graphql(name = "SSHKey")]
pub(super) struct SshKey {
    id: ID,
    public_key: String,
    name: String,
}

impl SshKey {
    pub(super) fn new(key: db::ssh_key::SshKey) -> Self {
        Self {
            id: key.id.to_string().into(),
            public_key: key.public_key,
            name: key.name,
        }
    }
}

/// A session.  There are none yet.
#[derive(SimpleObject)]
pub(super) struct InteractiveNode {
    interactive_node_name: String,
    ssh_url: Option<String>,
    status: String,
}

/// What came of adding a public key.
#[derive(SimpleObject)]
pub(super) struct AddKeyResult {
    pub(super) success: bool,
    pub(super) message: String,
    pub(super) id: Option<ID>,
}

/// What came of a change.
#[derive(SimpleObject)]
pub(super) struct MutationResult {
    pub(super) success: bool,
    pub(super) message: String,
}
