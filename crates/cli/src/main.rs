//! The `grid` program.

use std::ffi::OsString;
use std::process::ExitCode;

fn main() -> ExitCode {
    let words: Vec<OsString> = std::env::args_os().collect();
    #[cfg(feature = "server")]
    if words.get(1).is_some_and(|word| word == "runner") {
        return grid_cli::runner::main(words.get(2..).unwrap_or_default());
    }
    grid_cli::main(words)
}
