//! `grid completion`: lets a shell complete commands and flags.

use std::process::ExitCode;

use anyhow::Result;
use clap::Args;
use clap_complete::Shell;

use crate::context::Ctx;

const EXAMPLES: &str = "\
Examples:
  grid completion bash > ~/.local/share/bash-completion/completions/grid
  grid completion zsh > ~/.zfunc/_grid
  grid completion fish > ~/.config/fish/completions/grid.fish";

/// Print the completion script of a shell
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct CompletionArgs {
    /// Which shell
    shell: Shell,
}

/// Prints the script.
pub(crate) fn run(args: &CompletionArgs, ctx: &Ctx) -> Result<ExitCode> {
    let mut script = Vec::new();
    clap_complete::generate(
        args.shell,
        &mut crate::args::plain_command(),
        "grid",
        &mut script,
    );
    ctx.printer.text(&String::from_utf8_lossy(&script))?;
    Ok(ExitCode::SUCCESS)
}
