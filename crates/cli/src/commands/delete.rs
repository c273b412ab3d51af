//! `grid delete`: moves runs and experiments to the trash.

use std::io::{self, BufRead as _, IsTerminal as _};
use std::process::ExitCode;

use anyhow::{Context as _, Result};
use clap::{Args, Subcommand};
use grid_api::client::{self, Client};
use grid_api::experiment::ExperimentResponse;
use grid_api::run::RunResponse;
use serde_json::Value;

use crate::context::Ctx;
use crate::each::{Each, Kind};
use crate::error::Problem;
use crate::words::counted;

const EXAMPLES: &str = "\
What is deleted lies in the trash for 7 days: `grid history --deleted` lists it and
`grid restore` brings it back.  Then it is gone, with its logs and artifacts.

Examples:
  grid delete run gifted-seahorse-583
  grid delete experiment gifted-seahorse-583-exp0 gifted-seahorse-583-exp2
  grid delete run --yes gifted-seahorse-583       does not ask";

/// Move runs or experiments to the trash
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct DeleteArgs {
    #[command(subcommand)]
    what: DeleteWhat,
}

#[derive(Debug, Subcommand)]
enum DeleteWhat {
    /// Delete runs with all their experiments
    Run(Names),
    /// Delete experiments
    Experiment(Names),
}

#[derive(Debug, Args)]
struct Names {
    /// NAME, USER:NAME or an id
    #[arg(required = true, value_name = "NAMES")]
    names: Vec<String>,

    /// Do not ask
    #[arg(short, long)]
    yes: bool,
}

/// Deletes them.
pub(crate) fn run(args: DeleteArgs, ctx: &Ctx) -> Result<ExitCode> {
    let (kind, Names { names, yes }) = match args.what {
        DeleteWhat::Run(names) => (Kind::Run, names),
        DeleteWhat::Experiment(names) => (Kind::Experiment, names),
    };
    let paths = kind.paths(&names)?;
    let client = ctx.client()?;
    let mut each = Each::new(ctx, kind);
    for (name, path) in names.iter().zip(&paths) {
        if !yes && !ctx.settings.ignore_warnings {
            let asked = ctx.block_on(question(&client, kind, name, path))?;
            match asked.and_then(|question| confirmed(ctx, &question)) {
                Ok(true) => {}
                Ok(false) => {
                    ctx.printer.note(&format!("{name} was not deleted"));
                    continue;
                }
                Err(error) => {
                    each.fail(name, &error);
                    continue;
                }
            }
        }
        let deleted: Result<Value, client::Error> = ctx.block_on(client.delete(path))?;
        each.note(name, deleted, |answer| {
            let word = kind.word();
            let deleted = answer.get(word).cloned().unwrap_or(answer);
            let line = if deleted.get("upload").is_some() {
                format!("Run {name}, whose code had not come, has been deleted for good")
            } else {
                format!(
                    "{} {name} has been deleted successfully; `grid restore {word} {name}` brings it back within 7 days",
                    capitalized(word)
                )
            };
            (line, deleted)
        });
    }
    each.finish()
}

/// What is about to be lost, and whose it is.
async fn question(client: &Client, kind: Kind, name: &str, path: &str) -> Result<String> {
    let (what, creator) = match kind {
        Kind::Run => {
            let RunResponse { run } = client.get(path, &()).await?;
            (
                format!("its {} and", counted(run.counts.total(), "experiment")),
                run.created_by,
            )
        }
        Kind::Experiment => {
            let ExperimentResponse { experiment } = client.get(path, &()).await?;
            (String::new(), experiment.created_by)
        }
    };
    let what = format!("{what} all the associated artifacts, logs, and metadata");
    Ok(format!(
        "WARNING!\n    \
         You are about to delete the {} ({name}), created by {creator}.\n    \
         This will move {} to the trash, from where\n    \
         `grid restore {} {name}` brings it back for 7 days. Then it is gone.\n    \
         Are you sure you want to do this?\n    [y/N]: ",
        capitalized(kind.word()),
        what.trim_start(),
        kind.word(),
    ))
}

pub(super) fn confirmed(ctx: &Ctx, question: &str) -> Result<bool> {
    ctx.printer.ask(question);
    let mut answer = String::new();
    let length = io::stdin()
        .lock()
        .read_line(&mut answer)
        .context("reading the answer")?;
    if !io::stdin().is_terminal() {
        // What is typed ends the line; what comes from elsewhere is not seen.
        ctx.printer.ask("\n");
    }
    if length == 0 {
        return Err(Problem::new("nobody is there to answer")
            .hint("add --yes to delete without asking")
            .into());
    }
    Ok(matches!(
        answer.trim().to_ascii_lowercase().as_str(),
        "y" | "yes"
    ))
}

fn capitalized(word: &str) -> String {
    let (first, rest) = word.split_at(word.len().min(1));
    format!("{}{rest}", first.to_uppercase())
}
