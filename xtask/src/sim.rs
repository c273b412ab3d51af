//! `cargo xtask sim`: the simulator of the whole control loop, by seed.
//!
//! The simulator itself is the program `sim` of the crate `grid-testing`; this module decides
//! how much of it is enough.

use std::process::Command;

use anyhow::Result;

use crate::args::Args;
use crate::process::{cargo, command as program, run, shown};
use crate::{build, ui};

/// Stories that `check` tells. Fewer, and a rare interleaving is met only by users;
/// more, and the check gets slow without finding more in a day's work.
const SEEDS: u64 = 2_000;

/// Runs the simulator with the flags that were given, or over the seeds that `check` takes.
pub(crate) fn command(args: Args<'_>) -> Result<bool> {
    let words = args.rest();
    let mut simulator = cargo();
    simulator.args([
        "run",
        "--quiet",
        "--package",
        "grid-testing",
        "--bin",
        "sim",
        "--",
    ]);
    if words.is_empty() {
        simulator.args(["--seeds", &SEEDS.to_string()]);
    }
    run(simulator.args(words))
}

/// The simulator's part of `check`: enough seeds, and every planted bug is found.
pub(crate) fn check() -> Result<bool> {
    let seeds = SEEDS.to_string();
    Ok(simulate(&["--seeds", &seeds])? & simulate(&["--seeds", &seeds, "--mutants"])?)
}

/// Runs the simulator that the build step has built.
fn simulate(args: &[&str]) -> Result<bool> {
    let mut simulator: Command = program(build::program("sim"));
    simulator.args(args);
    ui::say(&shown(&simulator));
    run(&mut simulator)
}
