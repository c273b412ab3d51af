//! `cargo xtask check`: everything that has to hold before a change goes in.

use std::process::Command;

use anyhow::{Context, Result};

use crate::ui;

const STEPS: &[(&str, &[&str])] = &[
    ("fmt", &["fmt", "--all", "--check"]),
    (
        "clippy",
        &[
            "clippy",
            "--workspace",
            "--all-targets",
            "--",
            "-D",
            "warnings",
        ],
    ),
    ("build", &["build", "--workspace", "--all-targets"]),
    ("test", &["nextest", "run", "--workspace"]),
];

/// Runs every step and says whether all of them passed.
pub(crate) fn run() -> Result<bool> {
    let mut passed = true;
    for (name, args) in STEPS {
        ui::say(&format!("── {name}: cargo {}", args.join(" ")));
        let status = Command::new(env!("CARGO"))
            .args(*args)
            .env_remove("PYTHONDONTWRITEBYTECODE")
            .env_remove("AWS_CA_BUNDLE")
            .status()
            .with_context(|| format!("starting step {name}"))?;
        passed &= status.success();
    }
    Ok(passed)
}

#[cfg(test)]
mod tests {
    use super::STEPS;

    #[test]
    fn the_tests_come_last_so_that_their_summary_is_the_last_output() {
        assert_eq!(STEPS.last().map(|step| step.0), Some("test"));
    }
}
