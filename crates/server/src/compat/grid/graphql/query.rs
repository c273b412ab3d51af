//! What the original client asks.

use async_graphql::{Context, ID, Object, Result};
use grid_api::log::LogStream;
use grid_core::time::Timestamp;
use grid_engine::log::{LINES_MAX, Page};

use super::credentials::UserCredential;
use super::scalar::DateTime;
use super::types::{
    Experiment, ExperimentIdResult, ExperimentLogs, InteractiveNode, LogLine, SshKey, Team, User,
    UserTeamsResult,
};
use super::{LOG_COST, asked, refused, words};

pub(super) struct Query;

/// Reads of the original client.
#[Object]
impl Query {
    async fn get_user(&self, ctx: &Context<'_>) -> Result<User> {
        Ok(User::new(asked(ctx)?.caller.user.clone()))
    }

    async fn get_user_teams(&self, ctx: &Context<'_>) -> Result<UserTeamsResult> {
        let asked = asked(ctx)?;
        let teams = grid_engine::team::list(&asked.app.engine, &asked.caller, false).await;
        Ok(UserTeamsResult {
            success: true,
            message: String::new(),
            teams: teams.map_err(refused)?.iter().map(Team::new).collect(),
        })
    }

    async fn get_experiment_id(
        &self,
        ctx: &Context<'_>,
        experiment_name: String,
        username: Option<String>,
    ) -> Result<ExperimentIdResult> {
        let asked = asked(ctx)?;
        let name = match &username {
            Some(user) => format!("{user}:{experiment_name}"),
            None => experiment_name,
        };
        let found = grid_engine::experiment::get(&asked.app.engine, &asked.caller, &name).await;
        Ok(match found {
            Ok(found) => ExperimentIdResult {
                success: true,
                message: String::new(),
                experiment_id: Some(found.row.workload.id.to_string().into()),
            },
            // The client looks for these words, and then says what can be done.
            Err(error @ grid_engine::Error::NotFound { .. }) => ExperimentIdResult {
                success: false,
                message: format!("Cannot find experiment {name}: {}", words(error)),
                experiment_id: None,
            },
            Err(error) => return Err(refused(error)),
        })
    }

    async fn get_experiment_details(
        &self,
        ctx: &Context<'_>,
        experiment_id: ID,
    ) -> Result<Experiment> {
        let asked = asked(ctx)?;
        let found =
            grid_engine::experiment::get(&asked.app.engine, &asked.caller, &experiment_id).await;
        Ok(Experiment::new(found.map_err(refused)?))
    }

    #[graphql(complexity = "LOG_COST + child_complexity")]
    async fn get_experiment_logs(
        &self,
        ctx: &Context<'_>,
        experiment_id: ID,
        start: Option<DateTime>,
        stop: Option<DateTime>,
    ) -> Result<ExperimentLogs> {
        let page = log(ctx, &experiment_id, LogStream::Experiment).await?;
        let message = if page.truncated {
            format!("these are the last {LINES_MAX} lines or 4 MiB of the log")
        } else {
            String::new()
        };
        Ok(ExperimentLogs {
            success: true,
            message,
            lines: between(page, start, stop),
        })
    }

    #[graphql(complexity = "LOG_COST + child_complexity")]
    async fn get_build_logs(
        &self,
        ctx: &Context<'_>,
        experiment_id: ID,
        start: Option<DateTime>,
        stop: Option<DateTime>,
    ) -> Result<Vec<LogLine>> {
        let page = log(ctx, &experiment_id, LogStream::Build).await?;
        Ok(between(page, start, stop))
    }

    #[graphql(name = "getPublicSSHKeys")]
    async fn get_public_ssh_keys(&self, ctx: &Context<'_>, limit: i32) -> Result<Vec<SshKey>> {
        let asked = asked(ctx)?;
        let keys = grid_engine::ssh_key::list(&asked.app.engine, &asked.caller).await;
        let limit = usize::try_from(limit).unwrap_or(0);
        let keys = keys.map_err(refused)?.into_iter().take(limit);
        Ok(keys.map(SshKey::new).collect())
    }

    async fn get_user_credentials(&self, ctx: &Context<'_>) -> Result<Vec<UserCredential>> {
        let asked = asked(ctx)?;
        let all = grid_engine::credential::list(&asked.app.engine, &asked.caller, false).await;
        Ok(all
            .map_err(refused)?
            .iter()
            .map(UserCredential::new)
            .collect())
    }

    async fn get_interactive_nodes(&self) -> Vec<InteractiveNode> {
        Vec::new()
    }
}

/// The end of a log, as much of it as one answer holds.
async fn log(ctx: &Context<'_>, experiment: &str, stream: LogStream) -> Result<Page> {
    let asked = asked(ctx)?;
    let engine = &asked.app.engine;
    let reader = grid_engine::log::open(engine, &asked.caller, experiment, stream).await;
    let reader = reader.map_err(refused)?;
    reader.tail(LINES_MAX, false).await.map_err(refused)
}

fn between(page: Page, start: Option<DateTime>, stop: Option<DateTime>) -> Vec<LogLine> {
    let is_within = |at: Timestamp| {
        start.is_none_or(|start| start.0 <= at) && stop.is_none_or(|stop| at <= stop.0)
    };
    let lines = page.lines.into_iter().filter_map(|line| {
        let at = Timestamp::from_millis(line.line.at_ms);
        is_within(at).then(|| LogLine::new(&line.line.text, at))
    });
    lines.collect()
}
