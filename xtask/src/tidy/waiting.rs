//! Tests wait for a condition, never for a time.

use super::sources::Sources;
use super::{Exception, Finding, stale};

/// The helpers that wait: each looks at a condition until a deadline.
const WAITING_HELPERS: &[Exception] = &[
    Exception {
        path: "crates/runner/tests/keeper/support.rs",
        reason: "waits for what a keeper does, with a deadline",
    },
    Exception {
        path: "crates/runner/tests/runner/support.rs",
        reason: "waits for what a runner does, with a deadline",
    },
    Exception {
        path: "crates/engine/tests/engine/world.rs",
        reason: "waits for what the engine does, with a deadline",
    },
    Exception {
        path: "crates/engine/tests/engine/storm.rs",
        reason: "delays messages on purpose: the delays are the weather, and nothing waits for them",
    },
    Exception {
        path: "e2e/src/lib.rs",
        reason: "the harness: waits for what a person would see, with a deadline",
    },
    Exception {
        path: "crates/runner/tests/keeper/sandboxed.rs",
        reason: "sends a signal at different moments of a start, and waits for none of them",
    },
];

pub(super) fn check(sources: &Sources) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut used = Vec::new();
    for (source, rust) in sources.rust() {
        let from = source.tests_from();
        let before = rust.code[..from].matches('\n').count();
        for (index, line) in rust.code[from..]
            .lines()
            .enumerate()
            .filter(|(_, line)| sleeps(line))
        {
            if WAITING_HELPERS
                .iter()
                .any(|helper| helper.path == source.path)
            {
                used.push(source.path.as_str());
                continue;
            }
            let message = format!(
                "a test sleeps ({}): wait for a condition with a deadline",
                line.trim()
            );
            findings.push(Finding::new(&source.path, before + index + 1, message));
        }
    }
    findings.extend(stale(
        sources,
        WAITING_HELPERS,
        &used,
        "the ban on sleeping",
    ));
    findings
}

fn sleeps(line: &str) -> bool {
    line.match_indices("sleep").any(|(at, word)| {
        let whole = !line[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_');
        whole && line[at + word.len()..].starts_with(['(', '_'])
    })
}

#[cfg(test)]
mod tests {
    use super::check;
    use crate::tidy::sources::Sources;

    #[test]
    fn sleeping_tests_are_found() {
        let bad = [
            ("e2e/tests/a.rs", "fn f() { std::thread::sleep(d); }"),
            (
                "crates/a/src/b/tests.rs",
                "async fn f() { tokio::time::sleep(d).await; }",
            ),
            (
                "crates/a/src/lib.rs",
                "fn a() {}\n#[cfg(test)]\nmod tests { fn f() { sleep_until(t); } }",
            ),
        ];
        for (path, text) in bad {
            assert_eq!(check(&Sources::of(&[(path, text)])).len(), 1, "{path}");
        }
    }

    #[test]
    fn sleeping_programs_and_user_scripts_are_not_tests() {
        let good = [
            (
                "crates/a/src/lib.rs",
                "fn a() { sleep(backoff); }\n#[cfg(test)]\nmod tests {}",
            ),
            ("e2e/tests/a.rs", "fn f() { run(\"sleep 10\"); asleep(); }"),
        ];
        assert_eq!(check(&Sources::of(&good)), []);
    }
}
