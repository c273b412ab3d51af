//! `cargo xtask tidy`: the rules of this repository that no other tool knows.
//!
//! Each rule is a module with one function from the files to what it found, its reasoned
//! exceptions, and a test on a bad sample. The whole runs as a step of `check` and as a test.

mod dead;
mod edges;
mod length;
mod links;
mod manifest;
mod paths;
mod purity;
mod rust;
mod sources;
mod sql;
mod waiting;
mod words;

use anyhow::Result;

use crate::args::Args;
use crate::ui;
use sources::Sources;

/// Something that a rule does not allow.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Finding {
    path: String,
    line: usize,
    message: String,
}

impl Finding {
    fn new(path: &str, line: usize, message: impl Into<String>) -> Self {
        Self {
            path: path.to_owned(),
            line,
            message: message.into(),
        }
    }
}

/// A place where a rule does not hold, and why it need not.
struct Exception {
    path: &'static str,
    reason: &'static str,
}

/// Looks at the repository as it is now.
pub(crate) fn command(args: Args<'_>) -> Result<bool> {
    args.end()?;
    check()
}

/// Prints what the rules find and says whether they found nothing.
pub(crate) fn check() -> Result<bool> {
    let findings = findings()?;
    for finding in &findings {
        ui::warn(&format!(
            "{}:{}: {}",
            finding.path, finding.line, finding.message
        ));
    }
    Ok(findings.is_empty())
}

fn findings() -> Result<Vec<Finding>> {
    let sources = Sources::read(&crate::paths::root())?;
    let workspace = edges::Workspace::read()?;
    let rules = [
        edges::check(&workspace),
        dead::check(&sources, &workspace),
        length::check(&sources),
        links::check(&sources),
        manifest::check(&sources),
        paths::check(&sources, &crate::paths::root()),
        purity::check(&sources),
        sql::check(&sources),
        waiting::check(&sources),
        words::check(&sources),
    ];
    let mut findings: Vec<Finding> = rules.into_iter().flatten().collect();
    findings.sort();
    findings.dedup();
    Ok(findings)
}

/// Exceptions that nothing needs any more. A sample says nothing about files it does not have.
fn stale(sources: &Sources, exceptions: &[Exception], used: &[&str], rule: &str) -> Vec<Finding> {
    let judged = |path: &str| sources.whole || sources.get(path).is_some();
    let unused = exceptions
        .iter()
        .filter(|it| judged(it.path) && !used.contains(&it.path));
    let describe = |it: &Exception| {
        let message = format!("is excepted from {rule} without need ({})", it.reason);
        Finding::new(it.path, 1, message)
    };
    unused.map(describe).collect()
}

#[cfg(test)]
mod tests {
    use super::{Exception, Sources, findings, stale};

    #[test]
    fn the_repository_is_tidy() {
        let found = findings().unwrap();
        let lines: Vec<_> = found
            .iter()
            .map(|f| format!("{}:{}: {}", f.path, f.line, f.message))
            .collect();
        assert!(lines.is_empty(), "\n{}", lines.join("\n"));
    }

    #[test]
    fn an_exception_that_nothing_needs_is_found() {
        let exceptions = ["a.rs", "b.rs", "c.rs"].map(|path| Exception {
            path,
            reason: "long",
        });
        let sources = Sources::of(&[("a.rs", ""), ("b.rs", "")]);
        let found = stale(&sources, &exceptions, &["a.rs"], "the length");
        assert_eq!(
            found.iter().map(|it| it.path.as_str()).collect::<Vec<_>>(),
            ["b.rs"]
        );
    }
}
