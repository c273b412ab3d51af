//! What is built, and where it lies then.

use std::path::PathBuf;
use std::process::Command;

use crate::paths;
use crate::process::cargo;

/// Tells tests which `grid` to run.
pub(crate) const BINARY_VARIABLE: &str = "GRID_BIN";

/// Builds everything, tests included.
///
/// All targets at once: tests, generated pages and end-to-end runs then share one `grid`,
/// built with one set of features.
pub(crate) fn everything() -> Command {
    let mut build = cargo();
    build.args(["build", "--workspace", "--all-targets"]);
    build
}

/// Builds the product alone.
///
/// In somebody's first minute with the project the tests would only be in the way.
pub(crate) fn grid_only() -> Command {
    let mut build = cargo();
    build.args(["build", "--package", "grid-cli"]);
    build
}

/// A program of everyday builds.
pub(crate) fn program(name: &str) -> PathBuf {
    paths::target().join("debug").join(name)
}

/// The `grid` of everyday builds.
pub(crate) fn grid() -> PathBuf {
    program("grid")
}
