//! `grid clone`: runs a run again, changed or not.

use std::process::ExitCode;

use anyhow::Result;
use clap::Args;
use grid_api::run::{RunClone, RunCreated};
use grid_core::name::RunName;

use crate::commands::run::{misplaced, summary};
use crate::context::Ctx;
use crate::error::Problem;
use crate::target;

const EXAMPLES: &str = "\
The clone runs the same code with the same settings.  What follows --set replaces
arguments of the script or is added to them; it may sweep.

Examples:
  grid clone gifted-seahorse-583
  grid clone gifted-seahorse-583 --name longer --set --epochs 100
  grid clone ada:bert-1 --set --lr='[0.1, 0.01]'";

/// Run a run again, with the same code and settings
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct CloneArgs {
    /// NAME, USER:NAME or an id
    run: String,

    /// Name of the clone [default: <original>-cl<digits>]
    #[arg(long, value_name = "NAME")]
    name: Option<String>,

    /// Show the experiments and start nothing
    #[arg(long = "dry-run")]
    dry_run: bool,

    /// Arguments of the script to change or add; everything behind --set
    #[arg(long, value_name = "ARGS", num_args = 1.., allow_hyphen_values = true)]
    set: Vec<String>,
}

/// Clones a run.
pub(crate) fn run(args: CloneArgs, ctx: &Ctx) -> Result<ExitCode> {
    let path = target::run_path(&args.run)?;
    if let Some(name) = &args.name {
        RunName::parse(name).map_err(|error| Problem::usage(error.to_string()))?;
    }
    // Everything behind the first `--set` is taken as it is, a second one too.
    let set: Vec<String> = args
        .set
        .into_iter()
        .filter(|word| word != "--set")
        .collect();
    if !ctx.settings.ignore_warnings {
        for warning in misplaced(&set, "--set") {
            ctx.printer.warn(&warning);
        }
    }
    let clone = RunClone {
        name: args.name,
        set,
        dry_run: args.dry_run,
    };
    let client = ctx.client()?;
    let created: RunCreated = ctx.block_on(client.post(&format!("{path}/clone"), &clone))??;
    for warning in &created.warnings {
        ctx.printer.warn(warning);
    }
    summary::print(&ctx.printer, &created, args.dry_run)?;
    Ok(ExitCode::SUCCESS)
}
