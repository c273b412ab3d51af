//! `grid stop`: ends runs and experiments; what they have made stays.

use std::process::ExitCode;

use anyhow::Result;
use clap::{Args, Subcommand};
use grid_api::experiment::ExperimentResponse;
use grid_api::run::RunChanged;
use reqwest::Method;

use crate::context::Ctx;
use crate::each::{Each, Kind};
use crate::words::counted;

const EXAMPLES: &str = "\
Logs and artifacts written so far are kept.

Examples:
  grid stop run gifted-seahorse-583
  grid stop experiment gifted-seahorse-583-exp0 gifted-seahorse-583-exp2";

/// End runs or experiments
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct StopArgs {
    #[command(subcommand)]
    what: StopWhat,
}

#[derive(Debug, Subcommand)]
enum StopWhat {
    /// End all experiments of runs
    Run {
        /// NAME, USER:NAME or an id
        #[arg(required = true, value_name = "RUN_NAMES")]
        names: Vec<String>,
    },
    /// End experiments
    Experiment {
        /// NAME, USER:NAME or an id
        #[arg(required = true, value_name = "EXPERIMENT_NAMES")]
        names: Vec<String>,
    },
}

/// Ends them.
pub(crate) fn run(args: StopArgs, ctx: &Ctx) -> Result<ExitCode> {
    let (kind, names) = match args.what {
        StopWhat::Run { names } => (Kind::Run, names),
        StopWhat::Experiment { names } => (Kind::Experiment, names),
    };
    let paths = kind.paths(&names)?;
    let client = ctx.client()?;
    let mut each = Each::new(ctx, kind);
    ctx.block_on(async {
        for (name, path) in names.iter().zip(&paths) {
            let request = client.request(Method::POST, &format!("{path}/stop"));
            match kind {
                Kind::Run => {
                    let stopped = client.json::<RunChanged>(request).await;
                    each.note(name, stopped, |answer| match answer.changed {
                        0 => (format!("Run {name} was over already"), answer.run),
                        n => (
                            format!("Stopping {} of run {name}", counted(n, "experiment")),
                            answer.run,
                        ),
                    });
                }
                Kind::Experiment => {
                    let stopped = client.json::<ExperimentResponse>(request).await;
                    each.note(name, stopped, |answer| {
                        let status = answer.experiment.status;
                        (format!("Experiment {name}: {status}"), answer.experiment)
                    });
                }
            }
        }
    })?;
    each.finish()
}
