//! `grid version`.

use std::process::ExitCode;

use anyhow::Result;
use clap::Args;

use crate::context::Ctx;

const LOGO: &str = r"
   ____ ____  ___ ____
  / ___|  _ \|_ _|  _ \
 | |  _| |_) || || | | |
 | |_| |  _ < | || |_| |
  \____|_| \_\___|____/
";

/// Show the version of this program
#[derive(Debug, Args)]
pub(crate) struct VersionArgs {}

/// Shows the version.
pub(crate) fn run(ctx: &Ctx) -> Result<ExitCode> {
    if ctx.printer.is_json() {
        ctx.printer
            .json(&serde_json::json!({ "version": grid_api::VERSION }))?;
    } else {
        ctx.printer.text(&format!(
            "{LOGO}\nGrid CLI (v{})\n`grid docs` says where to read on\n",
            grid_api::VERSION
        ))?;
    }
    Ok(ExitCode::SUCCESS)
}
