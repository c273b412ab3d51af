//! Files that can be read in one sitting, functions that fit a screen.

use super::sources::Sources;
use super::{Exception, Finding, stale};

/// Lines of a file. More, and nobody reads it whole before changing it.
const FILE_LINES_MAX: usize = 600;

/// Lines of a function. More, and its beginning is off the screen at its end.
const FUNCTION_LINES_MAX: usize = 70;

/// Lines of a test. It is read as a story, from its beginning to its end, and has no branches;
/// more than this, and it is two stories.
const TEST_LINES_MAX: usize = 100;

const LONG_FILES: &[Exception] = &[];

const LONG_FUNCTIONS: &[Exception] = &[
    Exception {
        path: "crates/server/src/tests/audited_changes.rs",
        reason: "one row for each change there is, in the order in which they can be made",
    },
    Exception {
        path: "crates/server/src/tests/audited_routes.rs",
        reason: "one row for each refusal that is not about a thing in the path",
    },
    Exception {
        path: "crates/server/src/tests/outsider.rs",
        reason: "one row for each request that names a thing in its body or query",
    },
];

pub(super) fn check(sources: &Sources) -> Vec<Finding> {
    let mut findings = Vec::new();
    let (mut files_used, mut functions_used) = (Vec::new(), Vec::new());
    for (source, rust) in sources.rust() {
        let lines = source.text.lines().count();
        if lines > FILE_LINES_MAX {
            if is_in(LONG_FILES, &source.path) {
                files_used.push(source.path.as_str());
            } else {
                let message = format!(
                    "has {lines} lines, over {FILE_LINES_MAX}: find what it does twice, or divide it"
                );
                findings.push(Finding::new(&source.path, 1, message));
            }
        }
        for function in functions(&rust.code) {
            let is_test = function.at >= source.tests_from();
            let max = if is_test {
                TEST_LINES_MAX
            } else {
                FUNCTION_LINES_MAX
            };
            if function.lines <= max {
                continue;
            }
            if is_in(LONG_FUNCTIONS, &source.path) {
                functions_used.push(source.path.as_str());
            } else {
                let Function { name, lines, .. } = function;
                let message = format!("function {name} has {lines} lines, over {max}: divide it");
                findings.push(Finding::new(&source.path, function.line, message));
            }
        }
    }
    findings.extend(stale(
        sources,
        LONG_FILES,
        &files_used,
        "the length of files",
    ));
    findings.extend(stale(
        sources,
        LONG_FUNCTIONS,
        &functions_used,
        "the length of functions",
    ));
    findings
}

fn is_in(exceptions: &[Exception], path: &str) -> bool {
    exceptions.iter().any(|exception| exception.path == path)
}

struct Function<'a> {
    name: &'a str,
    /// Where it stands in the code.
    at: usize,
    line: usize,
    lines: usize,
}

/// The functions with a body, by their braces.
fn functions(code: &str) -> impl Iterator<Item = Function<'_>> {
    code.match_indices("fn ").filter_map(|(at, _)| {
        let is_word = !code[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_');
        let after = &code[at + "fn ".len()..];
        let name_end = after.find(|c: char| !(c.is_alphanumeric() || c == '_'))?;
        if !is_word || name_end == 0 {
            return None;
        }
        let body_end = body_end(&after[name_end..])?;
        let lines = after[..name_end + body_end].matches('\n').count() + 1;
        let line = code[..at].matches('\n').count() + 1;
        Some(Function {
            name: &after[..name_end],
            at,
            line,
            lines,
        })
    })
}

/// Where the body ends that belongs to a signature; a declaration has none.
fn body_end(signature: &str) -> Option<usize> {
    let mut open = 0_usize;
    // Brackets of the signature: an array type holds a semicolon that ends nothing.
    let mut brackets = 0_usize;
    for (at, c) in signature.char_indices() {
        match c {
            '[' | '(' if open == 0 => brackets += 1,
            ']' | ')' if open == 0 => brackets = brackets.saturating_sub(1),
            ';' if open == 0 && brackets == 0 => return None,
            '{' => open += 1,
            '}' => {
                open = open.checked_sub(1)?;
                if open == 0 {
                    return Some(at);
                }
            }
            _ => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::{FILE_LINES_MAX, FUNCTION_LINES_MAX, TEST_LINES_MAX, check, functions};
    use crate::tidy::sources::Sources;

    #[test]
    fn a_long_file_is_found() {
        let text = "// line\n".repeat(FILE_LINES_MAX + 1);
        let found = check(&Sources::of(&[("a.rs", &text), ("b.rs", "// short\n")]));
        assert_eq!(found.len(), 1);
        assert!(found[0].message.contains("601 lines"));
    }

    #[test]
    fn a_long_function_is_found() {
        let body = "    step();\n".repeat(FUNCTION_LINES_MAX - 1);
        let text = format!("fn short() {{}}\n\nfn long() {{\n{body}}}\n");
        let found = check(&Sources::of(&[("a.rs", &text)]));
        assert_eq!(found.len(), 1);
        assert_eq!(
            (
                found[0].line,
                found[0].message.contains("long has 71 lines")
            ),
            (3, true)
        );
    }

    #[test]
    fn a_test_may_be_a_little_longer() {
        let text = |lines| format!("fn story() {{\n{}}}\n", "    step();\n".repeat(lines - 2));
        let found = |path: &str, lines: usize| check(&Sources::of(&[(path, &text(lines))])).len();
        assert_eq!(found("crates/a/tests/b.rs", TEST_LINES_MAX), 0);
        assert_eq!(found("crates/a/tests/b.rs", TEST_LINES_MAX + 1), 1);
        assert_eq!(found("crates/a/src/b.rs", TEST_LINES_MAX), 1);
    }

    #[test]
    fn functions_are_told_by_their_braces() {
        let code = "trait T { fn declared(&self) -> [u8; 4]; fn given(&self) { a(); } }\nfn last(x: [u8; 2]) -> u8\n{\n x[0]\n}";
        let found: Vec<_> = functions(code)
            .map(|function| (function.name, function.lines))
            .collect();
        assert_eq!(found, [("given", 1), ("last", 4)]);
    }
}
