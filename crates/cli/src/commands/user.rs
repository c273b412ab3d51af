//! `grid user`: who am I, and who else is there.

use std::process::ExitCode;

use anyhow::Result;
use clap::{Args, Subcommand};
use grid_api::team::CurrentTeam;
use grid_api::user::{UserCreate, UserKey, UserResponse, UserView, UsersResponse};
use grid_core::name::UserName;
use reqwest::Method;

use crate::commands::keys;
use crate::context::Ctx;
use crate::error::Problem;
use crate::settings::Credentials;
use crate::table::{Cell, Table};

const EXAMPLES: &str = "\
Examples:
  grid user                          who am I
  grid user create ada --email ada@example.org
  grid user list
  grid user set-team vision          new runs go to this team
  grid user keys                     your API keys
  grid user rotate-key               one new API key; all others end";

/// Show who you are, or look after users
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES, args_conflicts_with_subcommands = true)]
pub(crate) struct UserArgs {
    #[command(subcommand)]
    command: Option<UserCommand>,
}

#[derive(Debug, Subcommand)]
enum UserCommand {
    /// Create a user and show the API key, once (operators)
    Create(CreateArgs),
    /// List the users you can see
    List,
    /// Choose the team that new runs go to
    SetTeam {
        /// A team of yours
        team: String,
    },
    Keys(keys::KeysArgs),
    /// Replace all your API keys by one; the others end at once
    RotateKey,
}

#[derive(Debug, Args)]
struct CreateArgs {
    /// Name to sign in with
    username: String,

    /// E-mail address
    #[arg(long)]
    email: Option<String>,

    /// First name
    #[arg(long = "first-name", value_name = "NAME")]
    first_name: Option<String>,

    /// Last name
    #[arg(long = "last-name", value_name = "NAME")]
    last_name: Option<String>,

    /// The user looks after the server, too
    #[arg(long)]
    operator: bool,
}

/// Shows or changes users.
pub(crate) fn run(args: UserArgs, ctx: &Ctx) -> Result<ExitCode> {
    match args.command {
        None => show(ctx)?,
        Some(UserCommand::Create(args)) => create(args, ctx)?,
        Some(UserCommand::List) => list(ctx)?,
        Some(UserCommand::SetTeam { team }) => set_team(ctx, team)?,
        Some(UserCommand::Keys(args)) => keys::run(args, ctx)?,
        Some(UserCommand::RotateKey) => rotate_key(ctx)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn show(ctx: &Ctx) -> Result<()> {
    let client = ctx.client()?;
    let answer: UserResponse = ctx.block_on(client.get("/user", &()))??;
    if ctx.printer.is_json() {
        return ctx
            .printer
            .json(&serde_json::json!({ "users": [answer.user] }));
    }
    ctx.printer
        .text(&described(&answer.user, ctx.settings.cluster.as_deref()))
}

fn described(user: &UserView, cluster: Option<&str>) -> String {
    let mut text = String::new();
    let pairs = [
        ("Display name", user.display_name.as_str()),
        ("UserID", &user.user_id),
        ("Username", &user.username),
        ("Email", user.email.as_deref().unwrap_or("-")),
        ("Cluster context", cluster.unwrap_or("local")),
    ];
    for (key, value) in pairs {
        text.push_str(&format!("{key:<16}: {value}\n"));
    }
    if user.operator {
        text.push_str(&format!("{:<16}: yes\n", "Operator"));
    }
    if let Some(team) = &user.current_team {
        text.push_str(&format!("{:<16}: {team}\n", "Current team"));
    }
    if !user.teams.is_empty() {
        text.push_str(&format!("{:<16}:\n", "Teams"));
        for membership in &user.teams {
            text.push_str(&format!("  {} - {}\n", membership.team, membership.role));
        }
    }
    text
}

fn create(args: CreateArgs, ctx: &Ctx) -> Result<()> {
    UserName::parse(&args.username).map_err(|error| Problem::usage(error.to_string()))?;
    let client = ctx.client()?;
    let create = UserCreate {
        username: args.username,
        email: args.email,
        first_name: args.first_name,
        last_name: args.last_name,
        operator: args.operator,
    };
    let key: UserKey = ctx.block_on(client.post("/users", &create))??;
    show_key(ctx, &key)?;
    ctx.printer
        .note("The key is shown this once. Its owner signs in with `grid login`.");
    Ok(())
}

fn show_key(ctx: &Ctx, key: &UserKey) -> Result<()> {
    if ctx.printer.is_json() {
        return ctx.printer.json(key);
    }
    ctx.printer.text(&format!(
        "Username        : {}\nUserID          : {}\nAPI key         : {}\n",
        key.username, key.user_id, key.api_key
    ))
}

fn list(ctx: &Ctx) -> Result<()> {
    let client = ctx.client()?;
    let answer: UsersResponse = ctx.block_on(client.get("/users", &()))??;
    if ctx.printer.is_json() {
        return ctx.printer.json(&answer);
    }
    let mut table = Table::new([
        "Username",
        "Display name",
        "Email",
        "UserID",
        "Operator",
        "Created At",
    ]);
    for user in &answer.users {
        table.row([
            Cell::text(&user.username),
            Cell::text(&user.display_name),
            Cell::maybe(user.email.as_deref()),
            Cell::text(&user.user_id),
            Cell::text(if user.operator { "yes" } else { "-" }),
            Cell::time(&user.created_at),
        ]);
    }
    ctx.printer.table(&table)
}

fn set_team(ctx: &Ctx, team: String) -> Result<()> {
    let client = ctx.client()?;
    let answer: UserResponse = ctx.block_on(client.put("/user/team", &CurrentTeam { team }))??;
    if ctx.printer.is_json() {
        return ctx
            .printer
            .json(&serde_json::json!({ "users": [answer.user] }));
    }
    let team = answer.user.current_team.as_deref().unwrap_or("-");
    ctx.printer
        .line(&format!("New runs of yours go to team {team}"))
}

fn rotate_key(ctx: &Ctx) -> Result<()> {
    let client = ctx.client()?;
    let request = client.request(Method::POST, "/user/rotate-key");
    let key: UserKey = ctx.block_on(client.json(request))??;
    // Shown before it is kept: should keeping it fail, it is not lost.
    show_key(ctx, &key)?;
    ctx.printer.flush()?;
    if ctx.settings.credentials_from_environment {
        ctx.printer
            .warn("the old key no longer works: change GRID_API_KEY to the new one");
        return Ok(());
    }
    let credentials = Credentials {
        user_id: key.user_id.clone(),
        api_key: key.api_key.clone(),
    };
    ctx.settings.save_credentials(&credentials)?;
    ctx.printer
        .note("The new key is kept on this machine; other machines need `grid login` again.");
    Ok(())
}
