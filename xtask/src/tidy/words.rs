//! Words that say "not finished": what is not finished is not committed.

use super::Finding;
use super::sources::{Source, Sources};

/// Words in comments, anywhere. Written in halves, so that this file does not find itself.
const IN_COMMENTS: &[&str] = &[
    concat!("TO", "DO"),
    concat!("FIX", "ME"),
    concat!("XX", "X"),
];

/// Words in Rust code, with what to do instead.
const IN_CODE: &[(&str, &str)] = &[
    (
        concat!("#[", "ignore"),
        "a test that does not run proves nothing: mend or remove it",
    ),
    (
        concat!("#[", "should_panic"),
        "say what goes wrong with a result, or test the message",
    ),
    (concat!("todo", "!("), "finish it, or leave it out"),
    (concat!("unimplemented", "!("), "finish it, or leave it out"),
    (concat!("dbg", "!("), "remove it"),
];

pub(super) fn check(sources: &Sources) -> Vec<Finding> {
    let mut findings = Vec::new();
    for source in sources.all() {
        for (line, text) in comments(source) {
            for word in IN_COMMENTS.iter().filter(|word| has_word(&text, word)) {
                let message = format!("says {word}: do it, or file it where work is planned");
                findings.push(Finding::new(&source.path, line, message));
            }
        }
        let Some(rust) = &source.rust else { continue };
        for (line, text) in rust.lines() {
            for (word, instead) in IN_CODE.iter().filter(|(word, _)| text.contains(word)) {
                let word = word.trim_end_matches('(');
                findings.push(Finding::new(
                    &source.path,
                    line,
                    format!("has {word}: {instead}"),
                ));
            }
        }
    }
    findings
}

/// The comments of a file. Prose is not searched: it may speak about the words.
fn comments(source: &Source) -> Vec<(usize, String)> {
    if let Some(rust) = &source.rust {
        return rust.comments.clone();
    }
    let sign = match source.path.rsplit_once('.').map(|(_, ending)| ending) {
        Some("py" | "sh" | "toml" | "yml" | "yaml") => "#",
        Some("sql") => "--",
        Some("ts" | "tsx") => "//",
        _ => return Vec::new(),
    };
    let comment =
        |(index, line): (usize, &str)| Some((index + 1, line.split_once(sign)?.1.to_owned()));
    source
        .text
        .lines()
        .enumerate()
        .filter_map(comment)
        .collect()
}

fn has_word(text: &str, word: &str) -> bool {
    text.split(|c: char| !c.is_alphanumeric())
        .any(|part| part == word)
}

#[cfg(test)]
mod tests {
    use super::check;
    use crate::tidy::sources::Sources;

    #[test]
    fn unfinished_things_are_found() {
        let bad = [
            ("a.rs", concat!("// TO", "DO: later")),
            ("a.rs", concat!("/* FIX", "ME */")),
            ("a.rs", concat!("#[", "ignore = \"slow\"]\nfn f() {}")),
            ("a.rs", concat!("fn f() { todo", "!() }")),
            ("a.toml", concat!("a = 1 # XX", "X")),
            ("a.sql", concat!("-- TO", "DO")),
        ];
        for (path, text) in bad {
            assert_eq!(check(&Sources::of(&[(path, text)])).len(), 1, "{text}");
        }
    }

    #[test]
    fn speaking_about_them_is_allowed() {
        let good = [
            ("a.md", concat!("No TO", "DO comments.")),
            ("a.rs", concat!("const A: &str = \"grid-XX", "XXXX\";")),
        ];
        assert_eq!(check(&Sources::of(&good)), []);
    }
}
