//! `grid runner`: how this program is started beside the users' processes.
//!
//! Not for people: the server starts a runner, the runner a keeper.  Both begin
//! here before anything else does, because a keeper must be there within a
//! millisecond and must own no thread and no open file when it begins.

use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context as _, Result};
use tracing_subscriber::EnvFilter;

use crate::error::{EXIT_FAILED, EXIT_USAGE, Problem, Report};
use crate::printer::{Format, Printer};

/// Does what the words after `grid runner` say.
pub fn main(words: &[OsString]) -> ExitCode {
    let words: Vec<Option<&str>> = words.iter().map(|word| word.to_str()).collect();
    match (words.as_slice(), words.len()) {
        ([Some("keeper"), Some("--dir"), Some(dir)], 3) => {
            grid_runner::keeper::main(Path::new(dir))
        }
        ([Some("--config"), Some(file)], 2) => match run(Path::new(file)) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                Printer::new(Format::Console, false).error(&Report::of(&error));
                ExitCode::from(EXIT_FAILED)
            }
        },
        _ => {
            let problem = Problem::usage("`grid runner` is started by the server, not by people");
            Printer::new(Format::Console, false).error(&Report::of(&problem.into()));
            ExitCode::from(EXIT_USAGE)
        }
    }
}

fn run(file: &Path) -> Result<()> {
    let filter = EnvFilter::try_from_env("GRID_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .init();
    let settings = grid_runner::settings::Settings::load(file)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("starting the runtime")?;
    runtime.block_on(grid_runner::run(settings))
}
