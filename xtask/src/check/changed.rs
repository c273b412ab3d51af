//! Clippy on what has changed, for the quick check.

use std::collections::BTreeSet;

use anyhow::Result;

use crate::process::{cargo, command, output_of, run, shown};
use crate::{paths, ui};

/// Which packages an uncommitted change touches.
#[derive(Debug, PartialEq, Eq)]
enum Touched {
    Packages(BTreeSet<String>),
    /// A file that every package is built with.
    Everything,
}

/// Runs clippy where something has changed since the last commit.
pub(super) fn clippy() -> Result<bool> {
    let mut git = command("git");
    git.args([
        "status",
        "--porcelain",
        "--untracked-files=all",
        "--no-renames",
    ])
    .current_dir(paths::root());
    let status = output_of(&mut git)?;
    let mut clippy = cargo();
    clippy.arg("clippy");
    match touched(&status) {
        Touched::Everything => {
            clippy.arg("--workspace");
        }
        Touched::Packages(packages) if packages.is_empty() => {
            ui::say("no package has changed");
            return Ok(true);
        }
        Touched::Packages(packages) => {
            clippy.args(
                packages
                    .iter()
                    .flat_map(|name| ["--package", name.as_str()]),
            );
        }
    }
    clippy.args(["--all-targets", "--", "-D", "warnings"]);
    ui::say(&shown(&clippy));
    run(&mut clippy)
}

fn touched(status: &str) -> Touched {
    let mut packages = BTreeSet::new();
    for line in status.lines() {
        let path = line.get(3..).unwrap_or_default();
        let mut parts = path.split('/');
        match (parts.next(), parts.next()) {
            (Some("crates"), Some(name)) => {
                packages.insert(format!("grid-{name}"));
            }
            (Some("e2e"), Some(_)) => {
                packages.insert("grid-e2e".to_owned());
            }
            (Some("xtask"), Some(_)) => {
                packages.insert("xtask".to_owned());
            }
            (Some("Cargo.toml" | "Cargo.lock" | "clippy.toml"), None) => {
                return Touched::Everything;
            }
            _ => {}
        }
    }
    Touched::Packages(packages)
}

#[cfg(test)]
mod tests {
    use super::{BTreeSet, Touched, touched};

    #[test]
    fn files_belong_to_packages() {
        let status = " M crates/core/src/lib.rs\n?? crates/core/src/new.rs\n M README.md\nA  xtask/src/main.rs\n";
        let expected = ["grid-core", "xtask"].map(str::to_owned);
        assert_eq!(touched(status), Touched::Packages(BTreeSet::from(expected)));
    }

    #[test]
    fn a_shared_file_touches_everything() {
        assert_eq!(
            touched(" M Cargo.lock\n M e2e/src/lib.rs\n"),
            Touched::Everything
        );
    }
}
