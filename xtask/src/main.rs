//! The developer's one tool: `cargo xtask <command>`.
//!
//! Everything that a person or a machine does to this repository besides editing it
//! is a command here: no shell scripts, no makefiles. Each command is one module.

mod check;
mod ui;

use std::process::ExitCode;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let done = match args.first().map(String::as_str) {
        Some("check") => check::run(),
        _ => {
            ui::say("usage: cargo xtask check");
            return ExitCode::from(2);
        }
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            ui::warn(&format!("error: {error:#}"));
            ExitCode::FAILURE
        }
    }
}
