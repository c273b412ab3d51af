//! `grid team`: who works together, in which role, under which rules.

mod audit;
mod members;
mod policy;
mod service;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Args, Subcommand};
use grid_api::client::{Client, segment};
use grid_api::team::{
    TeamCreate, TeamLeft, TeamRename, TeamResponse, TeamView, TeamsQuery, TeamsResponse,
};
use grid_core::name::TeamName;
use reqwest::Method;

use crate::context::Ctx;
use crate::error::Problem;
use crate::table::{Cell, Table};
use crate::time::civil;
use crate::values::sharing_word;

const EXAMPLES: &str = "\
Examples:
  grid team                          your teams
  grid team vision                   one of them, with its members
  grid team create vision
  grid team invite vision bob        bob joins with `grid team join vision`
  grid team policy vision            what you may do there
  grid team role vision bob admin
  grid team audit vision --since 7d  who did what";

/// Show your teams, or look after them
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES, args_conflicts_with_subcommands = true)]
pub(crate) struct TeamArgs {
    #[command(subcommand)]
    command: Option<TeamCommand>,

    /// The team to show [default: all of yours]
    #[arg(value_name = "TEAM")]
    name: Option<String>,

    /// All teams of the server (operators)
    #[arg(short, long, conflicts_with = "name")]
    all: bool,
}

#[derive(Debug, Subcommand)]
enum TeamCommand {
    /// Create a team; you are its owner
    Create {
        /// Letters, digits and `-`
        name: String,
    },
    Invite(members::InviteArgs),
    Join(members::JoinArgs),
    Decline(members::DeclineArgs),
    Invitations(members::InvitationsArgs),
    Uninvite(members::UninviteArgs),
    /// Leave a team
    Leave {
        /// The team
        team: String,
    },
    /// Remove somebody from a team
    Remove {
        /// The team
        team: String,
        /// Their user name
        user: String,
    },
    Role(members::RoleArgs),
    /// Give a team another name
    Rename {
        /// The team
        team: String,
        /// Its new name
        name: String,
    },
    Policy(policy::PolicyArgs),
    Audit(audit::AuditArgs),
    ServiceAccount(service::ServiceArgs),
}

/// Shows or changes teams.
pub(crate) fn run(args: TeamArgs, ctx: &Ctx) -> Result<ExitCode> {
    match args.command {
        None => match args.name {
            Some(team) => show(ctx, &team)?,
            None => list(ctx, args.all)?,
        },
        Some(TeamCommand::Create { name }) => create(ctx, name)?,
        Some(TeamCommand::Invite(args)) => members::invite(ctx, args)?,
        Some(TeamCommand::Join(args)) => members::join(ctx, args)?,
        Some(TeamCommand::Decline(args)) => members::decline(ctx, args)?,
        Some(TeamCommand::Invitations(args)) => members::invitations(ctx, &args)?,
        Some(TeamCommand::Uninvite(args)) => members::uninvite(ctx, &args)?,
        Some(TeamCommand::Leave { team }) => leave(ctx, &team)?,
        Some(TeamCommand::Remove { team, user }) => members::remove(ctx, &team, &user)?,
        Some(TeamCommand::Role(args)) => members::role(ctx, &args)?,
        Some(TeamCommand::Rename { team, name }) => rename(ctx, &team, name)?,
        Some(TeamCommand::Policy(args)) => policy::run(ctx, &args)?,
        Some(TeamCommand::Audit(args)) => audit::run(ctx, &args)?,
        Some(TeamCommand::ServiceAccount(args)) => service::run(ctx, args)?,
    }
    Ok(ExitCode::SUCCESS)
}

/// The path of a team.
fn path(team: &str) -> String {
    format!("/teams/{}", segment(team))
}

/// The team that is meant when none is named.
async fn or_current(client: &Client, team: Option<&str>) -> Result<String> {
    if let Some(team) = team {
        return Ok(team.to_owned());
    }
    let answer: TeamsResponse = client.get("/teams", &()).await?;
    let current = answer.teams.into_iter().find(|team| team.current);
    Ok(current
        .ok_or_else(|| {
            Problem::new("you have no current team")
                .hint("name one; `grid team` lists yours, `grid user set-team TEAM` chooses one")
        })?
        .name)
}

fn list(ctx: &Ctx, all: bool) -> Result<()> {
    let client = ctx.client()?;
    let query = TeamsQuery {
        all: all.then_some(true),
    };
    let answer: TeamsResponse = ctx.block_on(client.get("/teams", &query))??;
    if ctx.printer.is_json() {
        return ctx.printer.json(&answer);
    }
    let mut table = Table::new(["Team", "My role", "Members", "Current", "Created At"]);
    for team in &answer.teams {
        table.row([
            Cell::text(&team.name),
            Cell::maybe(team.role.map(|role| role.to_string())),
            Cell::number(team.member_count),
            Cell::text(if team.current { "yes" } else { "-" }),
            Cell::time(&team.created_at),
        ]);
    }
    ctx.printer.table(&table)
}

fn show(ctx: &Ctx, team: &str) -> Result<()> {
    let client = ctx.client()?;
    let answer: TeamResponse = ctx.block_on(client.get(&path(team), &()))??;
    show_answer(ctx, &answer)
}

/// Prints a team with its members.
fn show_answer(ctx: &Ctx, answer: &TeamResponse) -> Result<()> {
    if ctx.printer.is_json() {
        return ctx.printer.json(answer);
    }
    let team = &answer.team;
    ctx.printer.text(&described(team))?;
    let mut table = Table::new(["Username", "Display name", "Role", "Since"]);
    for member in &team.members {
        let display = match member.service_account {
            true => "service account",
            false => member.display_name.as_str(),
        };
        table.row([
            Cell::text(&member.username),
            Cell::text(display),
            Cell::text(member.role.to_string()),
            Cell::time(&member.since),
        ]);
    }
    ctx.printer.table(&table)
}

fn described(team: &TeamView) -> String {
    let role = match team.role {
        Some(role) => role.to_string(),
        None => "none (operator)".to_owned(),
    };
    let name = match team.personal {
        true => format!("{} (personal)", team.name),
        false => team.name.clone(),
    };
    [
        ("Team", name),
        ("Created At", civil(&team.created_at)),
        ("My role", role),
        (
            "run_control",
            sharing_word(team.policy.run_control).to_owned(),
        ),
        (
            "jupyter_access",
            sharing_word(team.policy.jupyter_access).to_owned(),
        ),
        ("Members", team.member_count.to_string()),
    ]
    .map(|(key, value)| format!("{key:<16}: {value}\n"))
    .concat()
}

fn checked(name: &str) -> Result<()> {
    TeamName::parse(name).map_err(|error| Problem::usage(error.to_string()))?;
    Ok(())
}

fn create(ctx: &Ctx, name: String) -> Result<()> {
    checked(&name)?;
    let client = ctx.client()?;
    let answer: TeamResponse = ctx.block_on(client.post("/teams", &TeamCreate { name }))??;
    if ctx.printer.is_json() {
        return ctx.printer.json(&answer);
    }
    let team = &answer.team;
    ctx.printer
        .line(&format!("Team {} is created; you are its owner", team.name))?;
    note_current(ctx, team);
    ctx.printer.note(&format!(
        "`grid team invite {} USER` invites somebody",
        team.name
    ));
    Ok(())
}

/// Says where new things go, when that is elsewhere.
fn note_current(ctx: &Ctx, team: &TeamView) {
    if team.current {
        ctx.printer
            .note(&format!("New runs of yours go to team {}", team.name));
    } else {
        ctx.printer.note(&format!(
            "New runs of yours go to another team; `grid user set-team {}` changes that",
            team.name
        ));
    }
}

fn rename(ctx: &Ctx, team: &str, name: String) -> Result<()> {
    checked(&name)?;
    let client = ctx.client()?;
    let body = TeamRename { name };
    let answer: TeamResponse =
        ctx.block_on(client.post(&format!("{}/rename", path(team)), &body))??;
    if ctx.printer.is_json() {
        return ctx.printer.json(&answer);
    }
    ctx.printer
        .line(&format!("Team {team} is called {} now", answer.team.name))
}

fn leave(ctx: &Ctx, team: &str) -> Result<()> {
    let client = ctx.client()?;
    let request = client.request(Method::POST, &format!("{}/leave", path(team)));
    let left: TeamLeft = ctx.block_on(client.json(request))??;
    if ctx.printer.is_json() {
        return ctx.printer.json(&left);
    }
    ctx.printer.line(&format!(
        "You are no longer in team {}; new runs of yours go to team {}",
        left.team, left.current
    ))
}
