//! The last step: all tests, with a database of their own, ending in the runner's summary.

use std::io::{BufRead, BufReader, IsTerminal, Read};
use std::process::{Command, Stdio};

use anyhow::{Context, Result};

use crate::postgres::Postgres;
use crate::process::{cargo, shown, wait};
use crate::setup::{Tools, with_tools};
use crate::{build, ui};

/// What the test runner found.
pub(super) struct TestResult {
    pub(super) passed: bool,
    /// Its last words; the very last line counts the tests.
    pub(super) summary: Vec<String>,
}

/// Runs the tests of these packages, or all when none is named.
pub(super) fn run(tools: &Tools, packages: &[&str]) -> Result<TestResult> {
    let database = if packages.is_empty() {
        Postgres::start()?
    } else {
        None
    };
    let mut command = if tools.nextest {
        nextest(packages)
    } else {
        cargo_test(packages)
    };
    with_tools(&mut command).env(build::BINARY_VARIABLE, build::grid());
    match &database {
        Some(database) => {
            command.env("GRID_TEST_POSTGRES", database.url());
        }
        None if packages.is_empty() => {
            ui::warn("note: no PostgreSQL here, so its tests do not run");
        }
        None => {}
    }
    ui::say(&shown(&command));
    let (passed, lines) = watched(&mut command, tools.nextest)?;
    let summary = if tools.nextest {
        nextest_summary(&lines)
    } else {
        cargo_summary(&lines)
    };
    Ok(TestResult { passed, summary })
}

fn nextest(packages: &[&str]) -> Command {
    let mut command = cargo();
    command.args(["nextest", "run"]).args(selected(packages));
    if std::io::stderr().is_terminal() {
        // Its output passes through this tool, which must not take the colours away.
        command.args(["--color", "always"]);
    }
    command
}

fn cargo_test(packages: &[&str]) -> Command {
    let mut command = cargo();
    command
        .args(["test", "--no-fail-fast"])
        .args(selected(packages))
        .args(["--lib", "--bins", "--tests"]);
    command
}

fn selected<'a>(packages: &[&'a str]) -> Vec<&'a str> {
    if packages.is_empty() {
        return vec!["--workspace"];
    }
    packages
        .iter()
        .flat_map(|name| ["--package", name])
        .collect()
}

/// Runs the command, shows what it says, and keeps it.
fn watched(command: &mut Command, on_stderr: bool) -> Result<(bool, Vec<String>)> {
    if on_stderr {
        command.stderr(Stdio::piped());
    } else {
        command.stdout(Stdio::piped());
    }
    let mut child = command
        .stdin(Stdio::null())
        .spawn()
        .context("starting the tests")?;
    let pipe: Option<Box<dyn Read + Send>> = if on_stderr {
        child.stderr.take().map(|pipe| Box::new(pipe) as _)
    } else {
        child.stdout.take().map(|pipe| Box::new(pipe) as _)
    };
    let reader = std::thread::spawn(move || pipe.map(shown_lines).unwrap_or_default());
    let status = wait(child)?;
    let lines = reader.join().unwrap_or_default();
    Ok((status.success(), lines))
}

fn shown_lines(pipe: Box<dyn Read + Send>) -> Vec<String> {
    let mut kept = Vec::new();
    for line in BufReader::new(pipe).split(b'\n').map_while(Result::ok) {
        let line = String::from_utf8_lossy(&line).into_owned();
        ui::warn(&line);
        kept.push(line);
    }
    kept
}

/// The failures that nextest lists after its summary, then the summary itself.
fn nextest_summary(lines: &[String]) -> Vec<String> {
    let is_summary = |line: &String| plain(line).trim_start().starts_with("Summary [");
    let Some(at) = lines.iter().rposition(is_summary) else {
        return Vec::new();
    };
    let failures = lines[at + 1..]
        .iter()
        .filter(|line| plain(line).contains(']'));
    failures.chain([&lines[at]]).cloned().collect()
}

/// One line for all the `test result:` lines of `cargo test`.
fn cargo_summary(lines: &[String]) -> Vec<String> {
    let (mut passed, mut failed) = (0_u64, 0_u64);
    for line in lines.iter().map(|line| plain(line)) {
        let Some((_, counts)) = line.split_once("test result: ") else {
            continue;
        };
        let number_before = |word: &str| {
            let (before, _) = counts.split_once(word)?;
            before.split_whitespace().last()?.parse::<u64>().ok()
        };
        passed += number_before(" passed").unwrap_or(0);
        failed += number_before(" failed").unwrap_or(0);
    }
    vec![format!("{passed} passed, {failed} failed")]
}

/// The text without colours.
fn plain(line: &str) -> String {
    let mut text = String::with_capacity(line.len());
    let mut coloured = false;
    for c in line.chars() {
        match c {
            '\u{1b}' => coloured = true,
            'm' if coloured => coloured = false,
            _ if coloured => {}
            _ => text.push(c),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::{cargo_summary, nextest_summary};

    fn lines(text: &str) -> Vec<String> {
        text.lines().map(str::to_owned).collect()
    }

    #[test]
    fn the_count_of_nextest_is_the_last_line() {
        let text = "  PASS [ 0.1s] one\n------\n\u{1b}[1m     Summary\u{1b}[0m [   0.01s] 3 tests run: 2 passed, 1 failed\n        FAIL [   0.005s] core two\nerror: test run failed";
        let summary = nextest_summary(&lines(text));
        assert_eq!(summary.len(), 2);
        assert!(summary[0].contains("core two"));
        assert!(summary[1].contains("3 tests run: 2 passed"));
    }

    #[test]
    fn without_a_summary_nothing_is_made_up() {
        assert!(nextest_summary(&lines("error: could not compile")).is_empty());
    }

    #[test]
    fn the_results_of_cargo_test_are_added_up() {
        let text = "test result: ok. 3 passed; 0 failed; 0 ignored\nnoise\ntest result: FAILED. 1 passed; 2 failed; 0 ignored";
        assert_eq!(cargo_summary(&lines(text)), ["4 passed, 2 failed"]);
    }
}
