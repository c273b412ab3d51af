//! `cargo xtask e2e [NAME]`: the end-to-end tests, with real processes.

use anyhow::Result;

use crate::args::Args;
use crate::process::{cargo, must, run};
use crate::{build, setup};

/// Runs the tests whose name contains NAME, or all.
pub(crate) fn command(mut args: Args<'_>) -> Result<bool> {
    let name = args.word();
    args.end()?;
    setup::ensure()?;
    must(&mut build::everything())?;
    let mut tests = cargo();
    // The whole workspace is named so that its features, and with them the builds, are the same.
    tests.args([
        "nextest",
        "run",
        "--workspace",
        "--no-capture",
        "--filterset",
        "package(grid-e2e)",
    ]);
    tests.args(name);
    run(setup::with_tools(&mut tests).env(build::BINARY_VARIABLE, build::grid()))
}
