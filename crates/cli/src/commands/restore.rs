//! `grid restore`: brings things back from the trash.

use std::process::ExitCode;

use anyhow::Result;
use clap::{Args, Subcommand};
use grid_api::experiment::ExperimentResponse;
use grid_api::run::RunResponse;
use reqwest::Method;

use crate::context::Ctx;
use crate::each::{Each, Kind};

const EXAMPLES: &str = "\
Examples:
  grid history --deleted             what is in the trash
  grid restore gifted-seahorse-583
  grid restore experiment gifted-seahorse-583-exp0";

/// Bring runs or experiments back from the trash
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES, args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub(crate) struct RestoreArgs {
    #[command(subcommand)]
    what: Option<RestoreWhat>,

    /// Runs: NAME, USER:NAME or an id
    #[arg(required = true, value_name = "RUN_NAMES")]
    runs: Vec<String>,
}

#[derive(Debug, Subcommand)]
enum RestoreWhat {
    /// Bring back runs with all their experiments
    Run {
        /// NAME, USER:NAME or an id
        #[arg(required = true, value_name = "RUN_NAMES")]
        names: Vec<String>,
    },
    /// Bring back experiments
    Experiment {
        /// NAME, USER:NAME or an id
        #[arg(required = true, value_name = "EXPERIMENT_NAMES")]
        names: Vec<String>,
    },
}

/// Brings them back.
pub(crate) fn run(args: RestoreArgs, ctx: &Ctx) -> Result<ExitCode> {
    let (kind, names) = match args.what {
        None => (Kind::Run, args.runs),
        Some(RestoreWhat::Run { names }) => (Kind::Run, names),
        Some(RestoreWhat::Experiment { names }) => (Kind::Experiment, names),
    };
    let paths = kind.paths(&names)?;
    let client = ctx.client()?;
    let mut each = Each::new(ctx, kind);
    ctx.block_on(async {
        for (name, path) in names.iter().zip(&paths) {
            let request = client.request(Method::POST, &format!("{path}/restore"));
            match kind {
                Kind::Run => {
                    let restored = client.json::<RunResponse>(request).await;
                    each.note(name, restored, |answer| {
                        (format!("Run {name} is back"), answer.run)
                    });
                }
                Kind::Experiment => {
                    let restored = client.json::<ExperimentResponse>(request).await;
                    each.note(name, restored, |answer| {
                        (format!("Experiment {name} is back"), answer.experiment)
                    });
                }
            }
        }
    })?;
    each.finish()
}
