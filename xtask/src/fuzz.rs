//! `cargo xtask fuzz`: the API, fuzzed from its own description as four users.
//!
//! What is asked and what must hold of every answer stands in `e2e/fuzz`, in Python, because
//! schemathesis is; this module gives it an environment and a server of its own, and looks at the
//! server afterwards: it runs, `grid server doctor` finds nothing, and its log tells of no fault.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result};

use crate::args::Args;
use crate::local::Server;
use crate::postgres::free_port;
use crate::process::{command as program, must, output_of, run};
use crate::{build, paths, setup, ui};

/// The seed of `check`. Always the same, so that a change that has nothing to do with it does
/// not fail by chance; other seeds are for `cargo xtask fuzz --seed N`.
const SEED: u64 = 1;

/// Random requests for each operation and user, on top of the boundary values.
/// Fewer, and only what schemathesis knows to be awkward is tried; more, and `check` gets slow.
const EXAMPLES: u64 = 10;

/// After how many seconds a user leaves out the rest. Only much slower machines come near;
/// lower, and they try less; higher, and `check` takes longer there.
const SECONDS: u64 = 90;

/// Keeps what looks like a package, a repository or an address by chance from being asked for.
const OFFLINE: &[(&str, &str)] = &[
    ("UV_OFFLINE", "1"),
    ("GIT_ALLOW_PROTOCOL", "file"),
    ("HTTP_PROXY", NOWHERE),
    ("HTTPS_PROXY", NOWHERE),
    ("ALL_PROXY", NOWHERE),
    ("NO_PROXY", "127.0.0.1,localhost"),
];

/// A port of this machine on which nothing listens.
const NOWHERE: &str = "http://127.0.0.1:9";

/// What the server's log says when something went wrong in it.
const FAULTS: &[&str] = &["panicked", "a request failed", " ERROR "];

/// Fuzzes with the seed and the number of requests that were given.
pub(crate) fn command(mut args: Args<'_>) -> Result<bool> {
    let seed = args.number("--seed")?.unwrap_or(SEED);
    let asked = args.number("--examples")?;
    let examples = asked.unwrap_or(EXAMPLES);
    args.end()?;
    setup::ensure()?;
    ui::say("building grid");
    must(&mut build::grid_only())?;
    // Who asks for more gets the time for it.
    fuzz(seed, examples, SECONDS * (examples / EXAMPLES).max(1))
}

/// The fuzzing as a step of `check`, with the `grid` that is built already.
pub(crate) fn check() -> Result<bool> {
    fuzz(SEED, EXAMPLES, SECONDS)
}

fn fuzz(seed: u64, examples: u64, seconds: u64) -> Result<bool> {
    let python = environment()?;
    let folder = tempfile::Builder::new()
        .prefix("grid-fuzz-")
        .tempdir()
        .context("making a folder to fuzz in")?;
    // One CPU, which one long run then holds: of what is submitted later nothing is executed.
    let mut server = Server::start_with(folder.path(), free_port()?, &["--cpus", "1"], OFFLINE)?;
    ui::say(&format!(
        "seed {seed}, {examples} random requests for each operation and user; to repeat it:\n\
         cargo xtask fuzz --seed {seed} --examples {examples}"
    ));
    let mut driver = program(python);
    driver
        .arg("-B")
        .arg(paths::root().join("e2e/fuzz/fuzz.py"))
        .args(["--url", &server.url])
        .arg("--operator")
        .arg(server.operator_file())
        .arg("--grid")
        .arg(build::grid())
        .arg("--folder")
        .arg(folder.path().join("worlds"))
        .args(["--seed", &seed.to_string()])
        .args(["--examples", &examples.to_string()])
        .args(["--seconds", &seconds.to_string()])
        .env("PYTHONHASHSEED", "0");
    let answered_well = run(setup::with_tools(&mut driver))?;
    Ok(is_well(&mut server)? & answered_well)
}

/// Whether the server has come through it.
fn is_well(server: &mut Server) -> Result<bool> {
    if !server.is_up() {
        ui::warn(&format!("the server has ended:\n{}", server.log()?));
        return Ok(false);
    }
    let data = server.data();
    let mut doctor = server
        .operator()?
        .grid(&["server", "doctor", "--deep", "--data"]);
    let healthy = run(doctor.arg(&data))?;
    let log = server.log()?;
    let faults = faults(&log);
    for line in &faults {
        ui::warn(&format!("the server's log: {line}"));
    }
    Ok(healthy && faults.is_empty())
}

fn faults(log: &str) -> Vec<&str> {
    let is_fault = |line: &&str| FAULTS.iter().any(|sign| line.contains(sign));
    log.lines().filter(is_fault).collect()
}

/// The Python that the driver runs on, made anew when what it needs has changed.
fn environment() -> Result<PathBuf> {
    let folder = paths::tools().join("fuzz");
    let python = folder.join("bin").join("python");
    let needed = std::fs::read_to_string(requirements()).context("reading the requirements")?;
    let made_of = folder.join("requirements.txt");
    if std::fs::read_to_string(&made_of).is_ok_and(|text| text == needed) {
        return Ok(python);
    }
    ui::say(&format!(
        "installing what the fuzzing needs into {}",
        folder.display()
    ));
    must(
        uv().args(["venv", "--quiet", "--clear", "--python", "3"])
            .arg(&folder),
    )?;
    must(
        uv().args([
            "pip",
            "install",
            "--quiet",
            "--compile-bytecode",
            "--no-deps",
            "--python",
        ])
        .arg(&python)
        .arg("--requirement")
        .arg(requirements()),
    )?;
    output_of(program(&python).args(["-c", "import schemathesis"]))?;
    std::fs::write(&made_of, needed).context("noting what the environment is made of")?;
    Ok(python)
}

fn requirements() -> PathBuf {
    paths::root().join("e2e/fuzz/requirements.txt")
}

fn uv() -> Command {
    let mut uv = program("uv");
    setup::with_tools(&mut uv);
    uv
}

#[cfg(test)]
mod tests {
    use super::faults;

    #[test]
    fn a_fault_in_the_log_is_found() {
        let log = "INFO started\nthread 'main' panicked at a.rs:1\n\
                   2026 ERROR a request failed fault=\"1-1\"\nINFO done";
        assert_eq!(faults(log).len(), 2);
        assert!(faults("INFO started the runner").is_empty());
    }
}
