//! The core decides; it never does, waits, or asks the world for anything.

use super::Finding;
use super::sources::Sources;

const CORE: &str = "crates/core/src/";

/// What the core does not name, and what it takes instead.
const FORBIDDEN: &[(&str, &str)] = &[
    ("std::fs", "the caller reads files"),
    ("std::io", "the caller reads and writes"),
    ("std::net", "the caller talks to the network"),
    ("std::process", "the caller starts processes"),
    ("std::env", "the caller reads the environment"),
    ("std::thread", "nothing here runs on its own"),
    ("SystemTime", "time is an argument"),
    ("Instant", "time is an argument"),
    ("rand::rng", "entropy is an argument"),
    ("thread_rng", "entropy is an argument"),
    ("async fn", "nothing here waits"),
    (".await", "nothing here waits"),
    ("tokio", "nothing here waits"),
];

pub(super) fn check(sources: &Sources) -> Vec<Finding> {
    let core = sources
        .rust()
        .filter(|(source, _)| source.path.starts_with(CORE));
    let mut findings = Vec::new();
    for (source, rust) in core {
        for (index, line) in rust.code_before_tests().lines().enumerate() {
            for (word, instead) in FORBIDDEN.iter().filter(|(word, _)| names(line, word)) {
                let message = format!("the core names {word}: {instead}");
                findings.push(Finding::new(&source.path, index + 1, message));
            }
        }
    }
    findings
}

/// Whether a line of code names the thing itself, not something whose name contains it.
/// `use std::{fs, net}` names its parts too.
fn names(line: &str, word: &str) -> bool {
    let part = |c: char| c.is_alphanumeric() || c == '_';
    let whole = line.match_indices(word).any(|(at, _)| {
        let starts = word.starts_with('.') || !line[..at].ends_with(part);
        starts && !line[at + word.len()..].starts_with(part)
    });
    let grouped = word
        .strip_prefix("std::")
        .zip(line.split_once("std::{"))
        .is_some_and(|(module, (_, group))| {
            group
                .split(|c: char| !part(c) && c != ':')
                .any(|item| item == module || item.starts_with(&format!("{module}::")))
        });
    whole || grouped
}

#[cfg(test)]
mod tests {
    use super::check;
    use crate::tidy::sources::Sources;

    #[test]
    fn what_the_core_may_not_name_is_found() {
        let bad = [
            "use std::fs;",
            "use std::{collections::BTreeMap, net::TcpStream};",
            "fn f() -> std::time::Instant { g() }",
            "async fn f() {}",
            "fn f() { g().await }",
        ];
        for text in bad {
            assert!(
                !check(&Sources::of(&[("crates/core/src/a.rs", text)])).is_empty(),
                "{text}"
            );
            assert!(check(&Sources::of(&[("crates/engine/src/a.rs", text)])).is_empty());
        }
    }

    #[test]
    fn what_it_may_name_is_not() {
        let good = "use std::fmt;\n// std::fs is not for us\nstruct InstantKind;\nfn f() { g(\"std::net\") }\n#[cfg(test)]\nmod tests { use std::fs; }";
        assert_eq!(check(&Sources::of(&[("crates/core/src/a.rs", good)])), []);
    }
}
