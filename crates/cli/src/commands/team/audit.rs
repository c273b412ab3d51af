//! Who did what in a team, and what was refused.

use anyhow::Result;
use clap::Args;
use futures::StreamExt as _;
use grid_api::audit::{AuditEvent, AuditQuery, AuditResponse};
use grid_api::client::Client;
use grid_core::time::Timestamp;
use reqwest::Method;
use serde::Serialize;

use super::{or_current, path};
use crate::context::Ctx;
use crate::printer::Printer;
use crate::table::{Cell, Table};
use crate::values;

/// Events that are shown when nobody says how many.
const LIMIT_DEFAULT: usize = 100;

/// Events of a page; the most that the server gives.  Lower: more round trips.
const PAGE: u32 = 1_000;

const EXAMPLES: &str = "\
Admins see the team's events, everybody else in it their own.  Newest first.

Examples:
  grid team audit                            of your current team
  grid team audit vision --since 7d
  grid team audit vision --user bob --result refused
  grid team audit vision --resource ada:bert-1
  grid team audit vision --jsonl > audit.jsonl    all of them, one JSON object a line
  grid team audit --mine                     all that you did, in any team";

/// Show who did what in a team, and what was refused
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct AuditArgs {
    /// The team [default: your current one]
    team: Option<String>,

    /// All that you did, in any team or in none
    #[arg(long, conflicts_with_all = ["team", "all"])]
    mine: bool,

    /// Everybody's, of all teams (operators)
    #[arg(long, conflicts_with = "team")]
    all: bool,

    /// From then on: how long ago (7d, 12h), or a time (2026-11-22)
    #[arg(long, value_name = "TIME", value_parser = values::moment)]
    since: Option<Timestamp>,

    /// Before then
    #[arg(long, value_name = "TIME", value_parser = values::moment)]
    until: Option<Timestamp>,

    /// Only what this user did
    #[arg(long, value_name = "USERNAME")]
    user: Option<String>,

    /// Only about this thing: its name as it is listed, or its id
    #[arg(long, value_name = "NAME")]
    resource: Option<String>,

    /// Only this action, as it is listed: run.stop
    #[arg(long, value_name = "ACTION")]
    action: Option<String>,

    /// Only with this result: done, refused or failed
    #[arg(long, value_name = "RESULT")]
    result: Option<String>,

    /// At most so many
    #[arg(long, value_name = "N", default_value_t = LIMIT_DEFAULT)]
    limit: usize,

    /// All of them, as one JSON object a line
    #[arg(long, conflicts_with = "limit")]
    jsonl: bool,
}

#[derive(Serialize)]
struct Events {
    events: Vec<AuditEvent>,
}

pub(super) fn run(ctx: &Ctx, args: &AuditArgs) -> Result<()> {
    let query = AuditQuery {
        all: args.all.then_some(true),
        since: args.since.map(|at| at.to_string()),
        until: args.until.map(|at| at.to_string()),
        user: args.user.clone(),
        action: args.action.clone(),
        resource: args.resource.clone(),
        result: args.result.clone(),
        ..AuditQuery::default()
    };
    let client = ctx.client()?;
    let found = ctx.block_on(async {
        let route = if args.mine || args.all {
            "/audit".to_owned()
        } else {
            let team = or_current(&client, args.team.as_deref()).await?;
            format!("{}/audit", path(&team))
        };
        if args.jsonl {
            export(&ctx.printer, &client, &route, &query).await?;
            return Ok(None);
        }
        page(&client, &route, query, args.limit.max(1))
            .await
            .map(Some)
    })??;
    let Some((events, has_more)) = found else {
        return Ok(());
    };
    if ctx.printer.is_json() {
        ctx.printer.json(&Events { events })?;
    } else if events.is_empty() {
        ctx.printer.line("No events.")?;
    } else {
        ctx.printer.table(&table(&events))?;
    }
    if has_more {
        ctx.printer.note(&format!(
            "These are the newest {}; --limit N shows more, --jsonl all.",
            args.limit
        ));
    }
    Ok(())
}

/// The newest `limit` events, and whether there are more.
async fn page(
    client: &Client,
    route: &str,
    mut query: AuditQuery,
    limit: usize,
) -> Result<(Vec<AuditEvent>, bool)> {
    let mut events: Vec<AuditEvent> = Vec::new();
    loop {
        let wanted = (limit - events.len()).min(PAGE as usize);
        query.limit = Some(u32::try_from(wanted).unwrap_or(PAGE));
        let page: AuditResponse = client.get(route, &query).await?;
        let is_empty = page.events.is_empty();
        events.extend(page.events);
        let has_more = page.next.is_some() && !is_empty;
        if !has_more || events.len() >= limit {
            events.truncate(limit);
            return Ok((events, has_more));
        }
        query.cursor = page.next;
    }
}

/// Prints all events as they come, line by line.
async fn export(printer: &Printer, client: &Client, route: &str, query: &AuditQuery) -> Result<()> {
    let request = client
        .request(Method::GET, &format!("{route}/export"))
        .query(query);
    let response = client.send(request).await?;
    let url = client.url().to_owned();
    let mut chunks = response.bytes_stream();
    let mut open = Vec::new();
    while let Some(chunk) = chunks.next().await {
        let chunk = chunk.map_err(|error| grid_api::client::Error::Broken {
            url: url.clone(),
            source: error.into(),
        })?;
        open.extend_from_slice(&chunk);
        // Only whole lines are printed: what breaks off leaves nothing that does not read.
        if let Some(end) = open.iter().rposition(|byte| *byte == b'\n') {
            let lines: Vec<u8> = open.drain(..=end).collect();
            printer.text(&String::from_utf8_lossy(&lines))?;
        }
    }
    Ok(())
}

fn table(events: &[AuditEvent]) -> Table {
    let mut table = Table::new([
        "At", "Who", "Action", "Thing", "Result", "Detail", "Address", "Client",
    ])
    .spare(&["Client", "Address", "Detail"]);
    for event in events {
        let who = match event.actor_kind.as_str() {
            "user" => event.actor.clone(),
            kind if event.actor.is_empty() => kind.to_owned(),
            kind => format!("{} ({kind})", event.actor),
        };
        let thing = match event.thing.is_empty() {
            true => format!("{} {}", event.thing_kind, event.thing_id),
            false => format!("{} {}", event.thing_kind, event.thing),
        };
        let maybe = |text: &str| Cell::text(if text.is_empty() { "-" } else { text });
        table.row([
            Cell::time(&event.at),
            Cell::text(who),
            Cell::text(&event.action),
            Cell::text(thing),
            Cell::text(&event.result),
            maybe(&event.detail),
            maybe(&event.address),
            maybe(&event.client),
        ]);
    }
    table
}
