//! `grid history`: runs that are over.

use std::process::ExitCode;

use anyhow::Result;
use clap::Args;
use grid_api::run::RunsQuery;

use crate::context::Ctx;
use crate::filter::Filter;
use crate::{lists, values, views};

/// Runs that are shown when nobody says how many.
const LIMIT_DEFAULT: usize = 100;

const EXAMPLES: &str = "\
Examples:
  grid history
  grid history --limit 1000
  grid history --global              your teammates' runs, too
  grid history --global ada          those of ada
  grid history --state failed --since 7d --name bert
  grid history --deleted             the trash; `grid restore RUN` brings one back";

/// Show the runs that are over, newest first
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct HistoryArgs {
    /// Your teammates' runs, too, or those of one of them
    #[arg(long, value_name = "USERNAME", num_args = 0..=1, default_missing_value = "")]
    global: Option<String>,

    /// The runs in the trash
    #[arg(long)]
    deleted: bool,

    /// At most so many
    #[arg(long, value_name = "N", default_value_t = LIMIT_DEFAULT, value_parser = values::count)]
    limit: usize,

    #[command(flatten)]
    filter: Filter,
}

/// Shows what is over.
pub(crate) fn run(args: &HistoryArgs, ctx: &Ctx) -> Result<ExitCode> {
    let query = RunsQuery {
        active: (!args.deleted).then_some(false),
        deleted: args.deleted.then_some(true),
        global: args.global.is_some().then_some(true),
        created_by: args.global.clone().filter(|user| !user.is_empty()),
        ..RunsQuery::default()
    };
    let client = ctx.client()?;
    let listed = lists::runs(&client, args.filter.narrow(query), args.limit);
    let (runs, has_more) = ctx.block_on(listed)??;
    if ctx.printer.is_json() {
        ctx.printer.json(&serde_json::json!({ "runs": runs }))?;
    } else if runs.is_empty() {
        let none = if args.deleted {
            "The trash is empty."
        } else {
            "No runs."
        };
        ctx.printer.line(none)?;
    } else {
        ctx.printer.table(&views::past_runs(
            &runs,
            args.global.is_some(),
            args.deleted,
        ))?;
    }
    if has_more {
        ctx.printer.note(&format!(
            "These are the newest {}; --limit N shows more.",
            runs.len()
        ));
    }
    Ok(ExitCode::SUCCESS)
}
