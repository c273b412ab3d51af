//! The developer's one tool: `cargo xtask <command>`.
//!
//! Everything that a person or a machine does to this repository besides editing it
//! is a command here: no shell scripts, no makefiles. Each command is one module.

mod args;
mod bench;
mod build;
mod check;
mod clock;
mod demo;
mod dev;
mod e2e;
mod fuzz;
mod generate;
mod hooks;
mod interrupt;
mod leftover;
mod local;
mod paths;
mod postgres;
mod process;
mod setup;
mod sim;
mod tidy;
mod ui;

use std::process::ExitCode;

use anyhow::Result;

use args::Args;

/// What can be typed after `cargo xtask`.
struct Command {
    name: &'static str,
    usage: &'static str,
    about: &'static str,
    /// `false` when the command ran and what it looked at did not pass.
    run: fn(Args<'_>) -> Result<bool>,
}

const COMMANDS: &[Command] = &[
    Command {
        name: "check",
        usage: "[--quick]",
        about: "everything that has to hold before a change goes in",
        run: check::command,
    },
    Command {
        name: "gen",
        usage: "[--check]",
        about: "write the pages that are printed by programs",
        run: generate::command,
    },
    Command {
        name: "tidy",
        usage: "",
        about: "the rules of this repository that no other tool knows",
        run: tidy::command,
    },
    Command {
        name: "demo",
        usage: "[--exit]",
        about: "the main job, shown: a sweep of a real training on this machine",
        run: demo::command,
    },
    Command {
        name: "dev",
        usage: "[--port N]",
        about: "a server to develop against, with people in it",
        run: dev::command,
    },
    Command {
        name: "bench",
        usage: "[NAME…] [--save FILE]",
        about: "how fast the product is, in a release build",
        run: bench::command,
    },
    Command {
        name: "sim",
        usage: "[--seed N | --seeds N | --mutants]",
        about: "the simulator of the control loop",
        run: sim::command,
    },
    Command {
        name: "e2e",
        usage: "[NAME]",
        about: "the end-to-end tests, with real processes",
        run: e2e::command,
    },
    Command {
        name: "fuzz",
        usage: "[--seed N] [--examples N]",
        about: "the API, fuzzed from its own description as four users",
        run: fuzz::command,
    },
    Command {
        name: "hooks",
        usage: "",
        about: "run the quick check before every commit",
        run: hooks::command,
    },
];

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let Some((name, rest)) = words.split_first().filter(|(name, _)| !is_help(name)) else {
        ui::say(&usage());
        return ExitCode::SUCCESS;
    };
    let Some(command) = COMMANDS.iter().find(|command| command.name == name) else {
        ui::warn(&format!(
            "error: there is no command '{name}'\n\n{}",
            usage()
        ));
        return ExitCode::from(2);
    };
    if rest.iter().any(|word| is_help(word)) {
        ui::say(&line(command));
        return ExitCode::SUCCESS;
    }
    match interrupt::install().and_then(|()| (command.run)(Args::new(rest))) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            ui::warn(&format!("error: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn is_help(word: &str) -> bool {
    matches!(word, "help" | "--help" | "-h")
}

fn usage() -> String {
    let lines: Vec<String> = COMMANDS.iter().map(line).collect();
    format!(
        "The developer's tool: cargo xtask <command>\n\n{}",
        lines.join("\n")
    )
}

fn line(command: &Command) -> String {
    let typed = format!("{} {}", command.name, command.usage);
    format!("  {typed:<40} {}", command.about)
}
