//! `grid docs`: where to read on.

use std::process::ExitCode;

use anyhow::Result;
use clap::Args;

use crate::context::Ctx;

/// Show where to read on
#[derive(Debug, Args)]
pub(crate) struct DocsArgs {}

/// Says where to read on.
pub(crate) fn run(ctx: &Ctx) -> Result<ExitCode> {
    let api = format!("{}{}/openapi.json", ctx.settings.url, grid_api::PREFIX);
    if ctx.printer.is_json() {
        ctx.printer.json(&serde_json::json!({ "openapi": api }))?;
    } else {
        ctx.printer.text(&format!(
            "Guide          docs/guide/ beside the source code\n\
             Commands       grid help, grid COMMAND --help\n\
             API            {api}\n"
        ))?;
    }
    Ok(ExitCode::SUCCESS)
}
