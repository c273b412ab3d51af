//! `grid user keys`: what one signs in with.

use anyhow::Result;
use clap::{Args, Subcommand};
use grid_api::client::segment;
use grid_api::key::{KeyCreate, KeyCreated, KeyResponse, KeysQuery, KeysResponse};
use grid_core::access::Scope;

use crate::context::Ctx;
use crate::table::{Cell, Table};
use crate::values;

const EXAMPLES: &str = "\
A key with the scope `read` looks at things, one with `run` also makes and changes
runs, one with `all` does everything that you may.

Examples:
  grid user keys
  grid user keys create ci --scope run --expires 30d
  grid user keys create notebook --s3 --scope read
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
        /// For S3: an access key with its secret, which signs requests there
        #[arg(long)]
        s3: bool,
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
            s3,
        }) => {
            let body = KeyCreate {
                name,
                scope,
                expires_in_s: expires,
                s3: s3.then_some(true),
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
    let expires = created.key.expires_at.as_deref().map(crate::time::civil);
    let mut pairs = vec![
        ("Username", created.username.as_str()),
        ("UserID", &created.user_id),
    ];
    pairs.extend(created.api_key.as_deref().map(|key| ("API key", key)));
    if let Some(s3) = &created.s3 {
        pairs.push(("Access key id", &s3.access_key_id));
        pairs.push(("Secret key", &s3.secret_access_key));
        pairs.extend(
            s3.endpoint
                .as_deref()
                .map(|endpoint| ("Endpoint", endpoint)),
        );
    }
    pairs.extend([
        ("Name", created.key.name.as_str()),
        ("Scope", created.key.scope.as_str()),
        ("Expires At", expires.as_deref().unwrap_or("never")),
    ]);
    let lines = pairs.iter();
    let lines = lines.map(|(key, value)| format!("{key:<16}: {value}\n"));
    ctx.printer.text(&lines.collect::<String>())?;
    ctx.printer.note("The key is shown this once.");
    if created.s3.as_ref().is_some_and(|s3| s3.endpoint.is_none()) {
        ctx.printer
            .note("This server does not speak S3: its operator starts it with --s3-listen.");
    }
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
    // Most people have none for S3.
    let has_s3 = answer.keys.iter().any(|key| key.access_key_id.is_some());
    let mut head = vec!["Name", "Scope", "Created At", "Expires At", "Last used"];
    head.extend(has_s3.then_some("S3 access key"));
    head.extend(all.then_some("Revoked At"));
    head.extend(["This one", "Id"]);
    let mut table = Table::new(head);
    for key in &answer.keys {
        let mut row = vec![
            Cell::text(&key.name),
            Cell::text(key.scope.as_str()),
            Cell::time(&key.created_at),
            Cell::maybe_time(key.expires_at.as_deref()),
            Cell::maybe_time(key.last_used_at.as_deref()),
        ];
        row.extend(has_s3.then(|| Cell::maybe(key.access_key_id.clone())));
        row.extend(all.then(|| Cell::maybe_time(key.revoked_at.as_deref())));
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
