//! Accounts for programs, which belong to a team.

use anyhow::Result;
use clap::{Args, Subcommand};
use grid_api::client::segment;
use grid_api::key::{KeyCreate, KeyCreated};
use grid_api::team::{ServiceAccountCreate, ServiceAccountsResponse};
use grid_core::access::Scope;
use grid_core::name::UserName;
use grid_core::team::Role;

use super::{or_current, path};
use crate::commands::keys;
use crate::context::Ctx;
use crate::error::Problem;
use crate::table::{Cell, Table};
use crate::values;

const EXAMPLES: &str = "\
A service account signs in with its own name and key, like a person, and does what its
role in this one team and the scope of its key let it.

Examples:
  grid team service-account list vision
  grid team service-account create vision vision-ci --expires 90d
  grid team service-account add-key vision vision-ci second --scope read
  grid team service-account delete vision vision-ci";

/// Look after accounts for programs (CI)
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct ServiceArgs {
    #[command(subcommand)]
    command: ServiceCommand,
}

#[derive(Debug, Subcommand)]
enum ServiceCommand {
    /// List them, with their keys
    List {
        /// The team [default: your current one]
        team: Option<String>,
    },
    /// Create one and show its first key, once (admins)
    Create {
        /// The team
        team: String,
        /// Its name; unique among all users
        name: String,
        /// member or viewer [default: member]
        #[arg(long, value_parser = values::role)]
        role: Option<Role>,
        #[command(flatten)]
        key: KeyFlags,
    },
    /// Give one another key and show it, once (admins)
    AddKey {
        /// The team
        team: String,
        /// Name of the account
        account: String,
        /// What to call the key
        name: String,
        #[command(flatten)]
        key: KeyFlags,
        /// For S3: an access key with its secret, which signs requests there
        #[arg(long)]
        s3: bool,
    },
    /// Delete one; its keys end at once, its runs stay (admins)
    Delete {
        /// The team
        team: String,
        /// Name of the account
        account: String,
    },
}

#[derive(Debug, Args)]
struct KeyFlags {
    /// What the key is good for: read, run or all [default: run]
    #[arg(long, value_parser = values::scope)]
    scope: Option<Scope>,

    /// After how long the key ends: 90d [default: never]
    #[arg(long, value_name = "TIME", value_parser = values::seconds)]
    expires: Option<u64>,
}

fn accounts(team: &str) -> String {
    format!("{}/service-accounts", path(team))
}

pub(super) fn run(ctx: &Ctx, args: ServiceArgs) -> Result<()> {
    match args.command {
        ServiceCommand::List { team } => list(ctx, team.as_deref()),
        ServiceCommand::Create {
            team,
            name,
            role,
            key,
        } => {
            UserName::parse(&name).map_err(|error| Problem::usage(error.to_string()))?;
            let body = ServiceAccountCreate {
                name,
                role,
                scope: key.scope,
                expires_in_s: key.expires,
            };
            let client = ctx.client()?;
            let created: KeyCreated = ctx.block_on(client.post(&accounts(&team), &body))??;
            keys::show_created(ctx, &created)
        }
        ServiceCommand::AddKey {
            team,
            account,
            name,
            key,
            s3,
        } => {
            let body = KeyCreate {
                name,
                scope: key.scope,
                expires_in_s: key.expires,
                s3: s3.then_some(true),
            };
            let route = format!("{}/{}/keys", accounts(&team), segment(&account));
            let client = ctx.client()?;
            let created: KeyCreated = ctx.block_on(client.post(&route, &body))??;
            keys::show_created(ctx, &created)
        }
        ServiceCommand::Delete { team, account } => {
            let route = format!("{}/{}", accounts(&team), segment(&account));
            let client = ctx.client()?;
            let left: ServiceAccountsResponse = ctx.block_on(client.delete(&route))??;
            if ctx.printer.is_json() {
                return ctx.printer.json(&left);
            }
            ctx.printer
                .line(&format!("Service account {account} is deleted"))
        }
    }
}

fn list(ctx: &Ctx, team: Option<&str>) -> Result<()> {
    let client = ctx.client()?;
    let answer: ServiceAccountsResponse = ctx.block_on(async {
        let team = or_current(&client, team).await?;
        anyhow::Ok(client.get(&accounts(&team), &()).await?)
    })??;
    if ctx.printer.is_json() {
        return ctx.printer.json(&answer);
    }
    if answer.service_accounts.is_empty() {
        return ctx.printer.line("No service accounts.");
    }
    let mut table = Table::new([
        "Username",
        "Role",
        "Created At",
        "Key",
        "Scope",
        "Expires At",
        "Last used",
    ]);
    for account in &answer.service_accounts {
        let head = || {
            [
                Cell::text(&account.username),
                Cell::text(account.role.to_string()),
                Cell::time(&account.created_at),
            ]
        };
        if account.keys.is_empty() {
            let none = || Cell::text("-");
            table.row(head().into_iter().chain([none(), none(), none(), none()]));
        }
        for key in &account.keys {
            table.row(head().into_iter().chain([
                Cell::text(&key.name),
                Cell::text(key.scope.as_str()),
                Cell::maybe_time(key.expires_at.as_deref()),
                Cell::maybe_time(key.last_used_at.as_deref()),
            ]));
        }
    }
    ctx.printer.table(&table)
}
