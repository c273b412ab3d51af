//! `grid help-markdown`: the reference of all commands, for the documentation.

use std::process::ExitCode;

use anyhow::Result;
use clap::Command;

use crate::context::Ctx;

/// Prints the reference.
pub(crate) fn run(ctx: &Ctx) -> Result<ExitCode> {
    let mut root = crate::args::plain_command();
    root.build();
    let mut text = String::from(
        "# Commands\n\nPrinted by `grid help-markdown`; do not edit.\n\n\
         Every flag can be written with `-` or `_` between its words.\n",
    );
    add(&mut text, &root, "grid");
    ctx.printer.text(&text)?;
    Ok(ExitCode::SUCCESS)
}

fn add(text: &mut String, command: &Command, path: &str) {
    let mut command = command.clone();
    text.push_str(&format!("\n## `{path}`\n\n"));
    let help = command.render_help().to_string();
    text.push_str(&format!("```text\n{}\n```\n", help.trim_end()));
    let is_shown = |inner: &&Command| !inner.is_hide_set() && inner.get_name() != "help";
    for inner in command.get_subcommands().filter(is_shown) {
        add(text, inner, &format!("{path} {}", inner.get_name()));
    }
}
