//! `grid share`: links to runs, for teammates.

use std::process::ExitCode;

use anyhow::Result;
use clap::{Args, Subcommand};
use grid_api::client::{Client, segment};
use grid_api::share::{
    ShareCreate, ShareCreated, ShareKind, ShareResponse, ShareView, SharesQuery, SharesResponse,
};

use crate::context::Ctx;
use crate::table::{Cell, Table};
use crate::time::civil;
use crate::{target, values};

/// Links of a page; the most that the server gives.  Lower: more round trips.
const PAGE: u32 = 1_000;

const EXAMPLES: &str = "\
A link to a run shows it to teammates who are signed in, to nobody else.  The links of
`grid artifacts --link` are listed and revoked here, too.

Examples:
  grid share gifted-seahorse-583
  grid share ada:bert-1 --expires 7d
  grid status LINK                   what a teammate types
  grid share --list                  your links that work
  grid share revoke ID";

/// Make a link to a run, or list and revoke links
#[derive(Debug, Args)]
#[command(
    after_help = EXAMPLES,
    args_conflicts_with_subcommands = true,
    subcommand_negates_reqs = true
)]
pub(crate) struct ShareArgs {
    #[command(subcommand)]
    command: Option<ShareCommand>,

    /// A run: NAME, USER:NAME or an id; with --list, whose links are shown
    #[arg(required_unless_present = "list")]
    run: Option<String>,

    /// List the links that work
    #[arg(short, long)]
    list: bool,

    /// With --list: your teammates' links, too
    #[arg(long, requires = "list")]
    global: bool,

    /// After how long the link ends: 7d [default: 30d]
    #[arg(long, value_name = "TIME", value_parser = values::seconds, conflicts_with = "list")]
    expires: Option<u64>,
}

#[derive(Debug, Subcommand)]
enum ShareCommand {
    /// End links at once
    Revoke {
        /// Ids, as listed
        #[arg(required = true, value_name = "IDS")]
        ids: Vec<String>,
    },
}

/// Makes, lists or revokes links.
pub(crate) fn run(args: ShareArgs, ctx: &Ctx) -> Result<ExitCode> {
    match (args.command, args.run) {
        (Some(ShareCommand::Revoke { ids }), _) => revoke(ctx, &ids)?,
        (None, Some(run)) if !args.list => create(ctx, &run, args.expires)?,
        (None, run) => list(ctx, run, args.global)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn create(ctx: &Ctx, run: &str, expires: Option<u64>) -> Result<()> {
    let route = format!("{}/shares", target::run_path(run)?);
    let client = ctx.client()?;
    let body = ShareCreate {
        expires_in_s: expires,
    };
    let created: ShareCreated = ctx.block_on(client.post(&route, &body))??;
    if ctx.printer.is_json() {
        return ctx.printer.json(&created);
    }
    ctx.printer.line(&created.url)?;
    let until = match &created.share.expires_at {
        Some(at) => format!("until {}", civil(at)),
        None => "for ever".to_owned(),
    };
    ctx.printer.note(&format!(
        "For members of team {}, {until}: `grid status LINK`. It is shown this once.",
        created.share.team
    ));
    Ok(())
}

async fn all(client: &Client, mut query: SharesQuery) -> Result<Vec<ShareView>> {
    query.limit = Some(PAGE);
    let mut shares = Vec::new();
    loop {
        let page: SharesResponse = client.get("/shares", &query).await?;
        let is_last = page.next.is_none() || page.shares.is_empty();
        shares.extend(page.shares);
        if is_last {
            return Ok(shares);
        }
        query.cursor = page.next;
    }
}

fn list(ctx: &Ctx, run: Option<String>, global: bool) -> Result<()> {
    let query = SharesQuery {
        global: global.then_some(true),
        run,
        ..SharesQuery::default()
    };
    let client = ctx.client()?;
    let shares = ctx.block_on(all(&client, query))??;
    if ctx.printer.is_json() {
        return ctx.printer.json(&serde_json::json!({ "shares": shares }));
    }
    if shares.is_empty() {
        return ctx.printer.line("No links.");
    }
    let mut head = vec!["Id", "To", "Path"];
    head.extend(global.then_some("Created by"));
    head.extend(["Created At", "Expires At", "Last used"]);
    let mut table = Table::new(head);
    for share in &shares {
        let to = match share.kind {
            ShareKind::Run => format!("run {}", share.thing),
            ShareKind::Artifact => format!("artifact of {}", share.thing),
        };
        let mut row = vec![
            Cell::text(&share.id),
            Cell::text(to),
            Cell::maybe(share.path.as_deref()),
        ];
        row.extend(global.then(|| Cell::text(&share.created_by)));
        row.extend([
            Cell::time(&share.created_at),
            Cell::maybe_time(share.expires_at.as_deref()),
            Cell::maybe_time(share.last_used_at.as_deref()),
        ]);
        table.row(row);
    }
    ctx.printer.table(&table)
}

fn revoke(ctx: &Ctx, ids: &[String]) -> Result<()> {
    let client = ctx.client()?;
    let mut revoked = Vec::new();
    for id in ids {
        let route = format!("/shares/{}", segment(id));
        let answer: ShareResponse = ctx.block_on(client.delete(&route))??;
        if !ctx.printer.is_json() {
            ctx.printer.line(&format!(
                "The link {} to {} no longer works",
                answer.share.id, answer.share.thing
            ))?;
        }
        revoked.push(answer.share);
    }
    if ctx.printer.is_json() {
        return ctx.printer.json(&serde_json::json!({ "shares": revoked }));
    }
    Ok(())
}
