//! `grid user keys`: what one signs in with.

use anyhow::Result;
use clap::{Args, Subcommand};
use grid_api::client::segment;
use grid_api::key::{KeyCreate, KeyCreated, KeyResponse, KeysQuery, KeysResponse};
use grid_core::access::Scope;

use crate::context::Ctx;
use crate::table::{Cell, Table};
use crate::time::civil;
use crate::values;

const EXAMPLES: &str = "\
A key with the scope `read` looks at things, one with `run` also makes and changes
runs, one with `all` does everything that you may.

Examples:
  grid user keys
  grid user keys create ci --scope run --expires 30d
  grid user keys revoke ci";

/// List your API keys, or look after them
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES, args_conflicts_with_subcommands = true)]
pub(super) struct KeysArgs {
    #[command(subcommand)]
    command: Option<KeysCommand>,

    /// Revoked and expired ones, too
    #[arg(short, long)]
    all: bool,
}

#[derive(Debug, Subcommand)]
enum KeysCommand {
    /// List them
    List {
        /// Revoked and expired ones, too
        #[arg(short, long)]
        all: bool,
    },
    /// Create one and show it, once
    Create {
        /// What to call it: laptop, ci
        name: String,
        /// What it is good for: read, run or all [default: all]
        #[arg(long, value_parser = values::scope)]
        scope: Option<Scope>,
        /// After how long it ends: 30d [default: never]
        #[arg(long, value_name = "TIME", value_parser = values::seconds)]
        expires: Option<u64>,
    },
    /// End one at once
    Revoke {
        /// Its name or id
        #[arg(value_name = "NAME|ID")]
        key: String,
    },
}

/// Shows or changes the caller's keys.
pub(super) fn run(args: KeysArgs, ctx: &Ctx) -> Result<()> {
    match args.command {
        None => list(ctx, args.all),
        Some(KeysCommand::List { all }) => list(ctx, all),
        Some(KeysCommand::Create {
            name,
            scope,
            expires,
        }) => {
            let body = KeyCreate {
                name,
                scope,
                expires_in_s: expires,
            };
            let client = ctx.client()?;
            let created: KeyCreated = ctx.block_on(client.post("/user/keys", &body))??;
            show_created(ctx, &created)
        }
        Some(KeysCommand::Revoke { key }) => revoke(ctx, &key),
    }
}

/// Prints a new key, this once.
pub(super) fn show_created(ctx: &Ctx, created: &KeyCreated) -> Result<()> {
    if ctx.printer.is_json() {
        return ctx.printer.json(created);
    }
    let expires = created.key.expires_at.as_deref().map(civil);
    let pairs = [
        ("Username", created.username.as_str()),
        ("UserID", &created.user_id),
        ("API key", &created.api_key),
        ("Name", &created.key.name),
        ("Scope", created.key.scope.as_str()),
        ("Expires At", expires.as_deref().unwrap_or("never")),
    ];
    ctx.printer.text(
        &pairs
            .map(|(key, value)| format!("{key:<16}: {value}\n"))
            .concat(),
    )?;
    ctx.printer.note("The key is shown this once.");
    Ok(())
}

fn list(ctx: &Ctx, all: bool) -> Result<()> {
    let client = ctx.client()?;
    let query = KeysQuery {
        all: all.then_some(true),
    };
    let answer: KeysResponse = ctx.block_on(client.get("/user/keys", &query))??;
    if ctx.printer.is_json() {
        return ctx.printer.json(&answer);
    }
    let mut head = vec!["Name", "Scope", "Created At", "Expires At", "Last used"];
    head.extend(all.then_some("Revoked At"));
    head.extend(["This one", "Id"]);
    let mut table = Table::new(head);
    for key in &answer.keys {
        let mut row = vec![
            Cell::text(&key.name),
            Cell::text(key.scope.as_str()),
            Cell::text(civil(&key.created_at)),
            Cell::maybe(key.expires_at.as_deref().map(civil)),
            Cell::maybe(key.last_used_at.as_deref().map(civil)),
        ];
        row.extend(all.then(|| Cell::maybe(key.revoked_at.as_deref().map(civil))));
        row.extend([
            Cell::text(if key.current { "yes" } else { "-" }),
            Cell::text(&key.id),
        ]);
        table.row(row);
    }
    ctx.printer.table(&table)
}

fn revoke(ctx: &Ctx, key: &str) -> Result<()> {
    let client = ctx.client()?;
    let route = format!("/user/keys/{}", segment(key));
    let answer: KeyResponse = ctx.block_on(client.delete(&route))??;
    if ctx.printer.is_json() {
        return ctx.printer.json(&answer);
    }
    ctx.printer
        .line(&format!("Key {} no longer works", answer.key.name))?;
    if answer.key.current {
        ctx.printer
            .warn("it is the one this machine uses: `grid login` with another");
    }
    Ok(())
}
