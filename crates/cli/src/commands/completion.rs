//! `grid completion`: lets a shell complete commands, flags, and names that the server knows.

use std::process::ExitCode;

use anyhow::Result;
use clap::Args;
use clap_complete::Shell;

use crate::complete;
use crate::context::Ctx;

const EXAMPLES: &str = "\
In bash, zsh and fish names of runs, experiments, datastores, their versions and files, people
and teams are completed, too, when the server answers at once.

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
    if let Some(script) = complete::script(&args.shell.to_string()) {
        ctx.printer.text(script)?;
        return Ok(ExitCode::SUCCESS);
    }
    // These complete what does not change.
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
