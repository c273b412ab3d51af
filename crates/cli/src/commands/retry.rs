//! `grid retry`: tries experiments again in place.

use std::process::ExitCode;

use anyhow::Result;
use clap::Args;
use grid_api::run::{RunChanged, RunRetry};

use crate::context::Ctx;
use crate::target;
use crate::words::counted;

const EXAMPLES: &str = "\
The experiments keep their names and parameters; nothing runs twice.

Examples:
  grid retry gifted-seahorse-583             what failed or was stopped
  grid retry gifted-seahorse-583 --failed    only what failed";

/// Try the experiments of a run again that did not succeed
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct RetryArgs {
    /// NAME, USER:NAME or an id
    run: String,

    /// Only those that failed, not those that were stopped
    #[arg(long)]
    failed: bool,
}

/// Tries again.
pub(crate) fn run(args: &RetryArgs, ctx: &Ctx) -> Result<ExitCode> {
    let path = target::run_path(&args.run)?;
    let client = ctx.client()?;
    let retry = RunRetry {
        failed: args.failed,
    };
    let answer: RunChanged = ctx.block_on(client.post(&format!("{path}/retry"), &retry))??;
    if ctx.printer.is_json() {
        ctx.printer
            .json(&serde_json::json!({ "runs": [answer.run], "changed": answer.changed }))?;
    } else if answer.changed == 0 {
        ctx.printer.line(&format!(
            "Nothing of run {} is to be tried again",
            answer.run.name
        ))?;
    } else {
        ctx.printer.line(&format!(
            "Trying {} of run {} again",
            counted(answer.changed, "experiment"),
            answer.run.name
        ))?;
    }
    Ok(ExitCode::SUCCESS)
}
