//! Takes Rust source apart: code, strings and comments, without understanding more than that.
//!
//! The rules look for words. A word in a string is data, in a comment it is prose; only in
//! code it means what it says.

/// A Rust file with everything that is not code blanked out.
pub(super) struct Masked {
    /// As long as the file and with the same lines; comments and the contents of literals are spaces.
    pub(super) code: String,
    /// Contents of string literals, with the line they begin on.
    pub(super) strings: Vec<(usize, String)>,
    /// Texts of comments, with their line.
    pub(super) comments: Vec<(usize, String)>,
}

impl Masked {
    pub(super) fn new(text: &str) -> Self {
        let mut scanner = Scanner {
            rest: text,
            line: 1,
            code: String::with_capacity(text.len()),
            strings: vec![],
            comments: vec![],
        };
        while !scanner.rest.is_empty() {
            scanner.step();
        }
        Self {
            code: scanner.code,
            strings: scanner.strings,
            comments: scanner.comments,
        }
    }

    /// The code without the tests at its end: what stands before the first `#[cfg(test)]` module.
    pub(super) fn code_before_tests(&self) -> &str {
        let mut from = 0;
        while let Some(found) = self.code[from..].find("#[cfg(test)]") {
            let at = from + found;
            let after = self.code[at..]
                .trim_start_matches("#[cfg(test)]")
                .trim_start();
            // `mod tests;` is a file of its own, and imports for tests are one line each.
            if after.starts_with("mod ")
                && after
                    .find(['{', ';'])
                    .is_some_and(|at| after[at..].starts_with('{'))
            {
                return &self.code[..at];
            }
            from = at + 1;
        }
        &self.code
    }

    /// Lines of code with their numbers.
    pub(super) fn lines(&self) -> impl Iterator<Item = (usize, &str)> {
        self.code
            .lines()
            .enumerate()
            .map(|(index, line)| (index + 1, line))
    }
}

struct Scanner<'a> {
    rest: &'a str,
    line: usize,
    code: String,
    strings: Vec<(usize, String)>,
    comments: Vec<(usize, String)>,
}

impl<'a> Scanner<'a> {
    fn step(&mut self) {
        let rest = self.rest;
        if rest.starts_with("//") {
            let end = rest.find('\n').unwrap_or(rest.len());
            self.comments.push((self.line, rest[..end].to_owned()));
            self.blank(end);
        } else if rest.starts_with("/*") {
            let end = block_comment_end(rest);
            self.comments.push((self.line, rest[..end].to_owned()));
            self.blank(end);
        } else if let Some(opening) = self.string_start() {
            let inside = &rest[opening.length..];
            let length = opening.content_length(inside);
            self.strings.push((self.line, inside[..length].to_owned()));
            self.keep(opening.length);
            self.blank(length);
            self.keep(opening.close.len().min(self.rest.len()));
        } else if let Some(length) = char_literal(rest) {
            self.keep(1);
            self.blank(length - 2);
            self.keep(1);
        } else {
            self.keep(rest.chars().next().map_or(0, char::len_utf8));
        }
    }

    /// The string literal that begins here, if one does.
    fn string_start(&self) -> Option<Opening> {
        if self.rest.starts_with('"') {
            return Some(Opening {
                length: 1,
                close: "\"".to_owned(),
                escapes: true,
            });
        }
        if self
            .code
            .ends_with(|c: char| c.is_alphanumeric() || c == '_')
        {
            // The last letters of a name.
            return None;
        }
        let prefix = ["br", "cr", "r", "b", "c"]
            .into_iter()
            .find(|prefix| self.rest.starts_with(prefix))?;
        let raw = prefix.ends_with('r');
        let after = &self.rest[prefix.len()..];
        let hashes = after.len() - after.trim_start_matches('#').len();
        if !after[hashes..].starts_with('"') || (hashes > 0 && !raw) {
            return None;
        }
        let close = format!("\"{}", "#".repeat(hashes));
        Some(Opening {
            length: prefix.len() + hashes + 1,
            close,
            escapes: !raw,
        })
    }

    fn keep(&mut self, length: usize) {
        let (taken, rest) = self.rest.split_at(length);
        self.line += taken.matches('\n').count();
        self.code.push_str(taken);
        self.rest = rest;
    }

    fn blank(&mut self, length: usize) {
        let (taken, rest): (&'a str, &'a str) = self.rest.split_at(length);
        for c in taken.chars() {
            if c == '\n' {
                self.line += 1;
                self.code.push('\n');
            } else {
                self.code.extend(std::iter::repeat_n(' ', c.len_utf8()));
            }
        }
        self.rest = rest;
    }
}

/// How a string literal begins, and what ends it.
struct Opening {
    length: usize,
    close: String,
    escapes: bool,
}

impl Opening {
    fn content_length(&self, inside: &str) -> usize {
        if !self.escapes {
            return inside.find(&self.close).unwrap_or(inside.len());
        }
        let mut escaped = false;
        for (at, c) in inside.char_indices() {
            match c {
                _ if escaped => escaped = false,
                '\\' => escaped = true,
                '"' => return at,
                _ => {}
            }
        }
        inside.len()
    }
}

/// The length of the block comment that begins here; they nest.
fn block_comment_end(rest: &str) -> usize {
    let (mut depth, mut at) = (0_usize, 0);
    while at < rest.len() {
        if rest[at..].starts_with("/*") {
            depth += 1;
            at += 2;
        } else if rest[at..].starts_with("*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return at;
            }
        } else {
            at += rest[at..].chars().next().map_or(1, char::len_utf8);
        }
    }
    rest.len()
}

/// The length of the character literal that begins here; a lifetime is none.
fn char_literal(rest: &str) -> Option<usize> {
    let inside = rest.strip_prefix('\'')?;
    let mut chars = inside.char_indices();
    let (_, first) = chars.next()?;
    let (second_at, second) = chars.next()?;
    if first == '\\' {
        let after = second_at + second.len_utf8();
        return inside[after..]
            .find('\'')
            .map(|close| 1 + after + close + 1);
    }
    (second == '\'').then_some(1 + second_at + 1)
}

#[cfg(test)]
mod tests {
    use super::Masked;

    /// What is left of the code, its strings and its comments.
    fn parts(text: &str) -> (String, Vec<String>, usize) {
        let masked = Masked::new(text);
        assert_eq!(masked.code.len(), text.len());
        assert_eq!(masked.code.lines().count(), text.lines().count());
        (
            masked.code,
            masked.strings.into_iter().map(|(_, s)| s).collect(),
            masked.comments.len(),
        )
    }

    #[test]
    fn strings_and_comments_are_not_code() {
        let (code, strings, comments) =
            parts("let a = \"fn b() {\"; // fn c() {\n/* fn d() { /* } */ */ let e;");
        assert!(!code.contains("fn") && !code.contains('{') && code.contains("let e;"));
        assert_eq!((strings, comments), (vec!["fn b() {".to_owned()], 2));
    }

    #[test]
    fn every_kind_of_string_ends_where_it_ends() {
        let cases = [
            (r#"f("a\"b") + 1"#, r#"a\"b"#),
            (r##"f(r"a\") + 1"##, r"a\"),
            (r###"f(r#"a"b"#) + 1"###, r#"a"b"#),
            (r##"f(b"ab") + 1"##, "ab"),
            (r##"f(br"a\") + 1"##, r"a\"),
            ("f(\"two\nlines\") + 1", "two\nlines"),
        ];
        for (text, expected) in cases {
            let (code, strings, _) = parts(text);
            assert_eq!(strings, [expected], "{text}");
            assert!(code.ends_with(") + 1"), "{code}");
        }
    }

    #[test]
    fn characters_are_literals_and_lifetimes_are_not() {
        let (code, strings, _) =
            parts("fn f<'a>(x: &'a str) { x.find('\"'); x.find('\\''); x.find('{') }");
        assert!(strings.is_empty());
        assert_eq!(
            (code.matches('{').count(), code.matches('}').count()),
            (1, 1)
        );
        assert!(code.contains("&'a str"));
    }

    #[test]
    fn names_that_end_like_a_prefix_are_names() {
        let (_, strings, _) = parts("macro_for!(\"x\"); let number = br; f(\"y\")");
        assert_eq!(strings, ["x", "y"]);
    }

    #[test]
    fn code_ends_where_the_tests_begin() {
        let masked = Masked::new(
            "fn a() {}\n#[cfg(test)]\nuse b;\nfn c() {}\n#[cfg(test)]\nmod tests { fn d() {} }\n",
        );
        assert!(masked.code_before_tests().contains("fn c()"));
        assert!(!masked.code_before_tests().contains("fn d()"));
        let other_file = Masked::new("#[cfg(test)]\nmod tests;\nfn after() {}");
        assert!(other_file.code_before_tests().contains("fn after()"));
    }
}
