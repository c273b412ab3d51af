//! `grid view`: the page of a run or an experiment.

use std::process::{Command, ExitCode, Stdio};

use anyhow::Result;
use clap::Args;
use grid_api::experiment::ExperimentResponse;
use grid_api::run::RunResponse;

use crate::commands::status::is_not_found;
use crate::context::Ctx;
use crate::target::{self, Target};

/// Show the address of a run's or an experiment's page, and open it
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  grid view gifted-seahorse-583\n  grid view ada:bert-1-exp0")]
pub(crate) struct ViewArgs {
    /// A run or an experiment: NAME, USER:NAME or an id
    #[arg(value_name = "RUN_OR_EXPERIMENT")]
    name: String,
}

/// Shows and opens the page.
pub(crate) fn run(args: &ViewArgs, ctx: &Ctx) -> Result<ExitCode> {
    let kind = Target::parse(&args.name)?;
    let client = ctx.client()?;
    let page = ctx.block_on(async {
        if !matches!(kind, Target::Run(_)) {
            let path = target::experiment_path(&args.name)?;
            match client.get::<_, ExperimentResponse>(&path, &()).await {
                Ok(found) => return Ok(format!("/experiments/{}", found.experiment.id)),
                Err(error) => {
                    let error = anyhow::Error::from(error);
                    if !(is_not_found(&error) && matches!(kind, Target::Id(_))) {
                        return Err(error);
                    }
                }
            }
        }
        let found: RunResponse = client.get(&target::run_path(&args.name)?, &()).await?;
        anyhow::Ok(format!("/runs/{}", found.run.id))
    })??;
    let url = format!("{}{page}", client.url());
    if ctx.printer.is_json() {
        ctx.printer.json(&serde_json::json!({ "url": url }))?;
    } else {
        ctx.printer.line(&url)?;
        if ctx.printer.out_is_tty() {
            open(&url);
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Opens a page where there is a screen; the address has been printed, so failing is no failure.
fn open(url: &str) {
    let has_screen = ["DISPLAY", "WAYLAND_DISPLAY"]
        .iter()
        .any(|name| std::env::var_os(name).is_some());
    let program = if cfg!(target_os = "macos") {
        "open"
    } else {
        "xdg-open"
    };
    if has_screen || cfg!(target_os = "macos") {
        let mut opener = Command::new(program);
        opener
            .arg(url)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        // Whoever opens the page may live as long as it likes.
        let _ = opener.spawn();
    }
}
