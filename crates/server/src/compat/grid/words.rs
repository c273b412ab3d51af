//! Command lines as one text, as the client sends them and shows them.

/// Splits a command line into words, as a shell does.
///
/// What stands in brackets stays together, with its quotes: the client adds the parameters
/// of a configuration file as Python writes them, `--lr [0.1, 0.2]`.  What it takes from
/// the command line is quoted, so that brackets are never seen there.
pub(super) fn split(text: &str) -> Result<Vec<String>, &'static str> {
    match split_as(text, true) {
        // A bracket that is never closed is a letter like others.
        Err("a bracket") => split_as(text, false),
        other => other,
    }
}

fn split_as(text: &str, brackets: bool) -> Result<Vec<String>, &'static str> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut depth: u32 = 0;
    let mut letters = text.chars();
    while let Some(letter) = letters.next() {
        match letter {
            '\'' | '"' => {
                let inside = word.get_or_insert_default();
                if depth > 0 {
                    inside.push(letter);
                }
                quoted(letter, &mut letters, inside)?;
                if depth > 0 {
                    inside.push(letter);
                }
            }
            '\\' => {
                let next = letters.next().ok_or("a backslash at its end")?;
                word.get_or_insert_default().push(next);
            }
            ' ' | '\t' | '\r' | '\n' if depth == 0 => words.extend(word.take()),
            _ => {
                if brackets {
                    match letter {
                        '[' | '(' | '{' => depth += 1,
                        ']' | ')' | '}' => depth = depth.saturating_sub(1),
                        _ => {}
                    }
                }
                word.get_or_insert_default().push(letter);
            }
        }
    }
    words.extend(word);
    if depth > 0 {
        Err("a bracket")
    } else {
        Ok(words)
    }
}

/// Takes what is quoted, and the quote that ends it.
fn quoted(
    quote: char,
    letters: &mut std::str::Chars<'_>,
    word: &mut String,
) -> Result<(), &'static str> {
    while let Some(letter) = letters.next() {
        match letter {
            _ if letter == quote => return Ok(()),
            '\\' if quote == '"' => match letters.next() {
                Some(next @ ('"' | '\\' | '$' | '`')) => word.push(next),
                Some(next) => word.extend(['\\', next]),
                None => break,
            },
            _ => word.push(letter),
        }
    }
    Err("a quote that does not end")
}

/// Words as one command line, from which [`split`] makes the same words.
pub(super) fn join(words: &[String]) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "@%+=:,./-_".contains(c);
    let quoted = words.iter().map(|word| {
        if !word.is_empty() && word.chars().all(plain) {
            word.clone()
        } else {
            format!("'{}'", word.replace('\'', "'\"'\"'"))
        }
    });
    quoted.collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: &[&str]) {
        let words = split(text).unwrap_or_else(|why| panic!("{text}: {why}"));
        assert_eq!(words, expected, "{text}");
        assert_eq!(split(&join(&words)).as_ref(), Ok(&words), "{text}");
    }

    #[test]
    fn command_lines_split_as_in_a_shell() {
        check("", &[]);
        check("train.py ", &["train.py"]);
        check(
            "train.py  --lr '[0.1,0.2]' --flag",
            &["train.py", "--lr", "[0.1,0.2]", "--flag"],
        );
        check(
            "a 'it'\"'\"'s' \"x \\\" y\" \\ z ''",
            &["a", "it's", "x \" y", " z", ""],
        );
        check("a \"\\n\"", &["a", "\\n"]);
    }

    #[test]
    fn parameters_of_a_file_stay_together() {
        check(
            "train.py  --lr [0.1, 0.2] --name ['a b', \"c\"] --n uniform(0, 1) 3",
            &[
                "train.py",
                "--lr",
                "[0.1, 0.2]",
                "--name",
                "['a b', \"c\"]",
                "--n",
                "uniform(0, 1)",
                "3",
            ],
        );
        check("a [b c", &["a", "[b", "c"]);
        check("a ]b c", &["a", "]b", "c"]);
    }

    #[test]
    fn what_does_not_end_is_refused() {
        for text in ["a 'b", "a \"b", "a \\", "a \"b\\"] {
            assert!(split(text).is_err(), "{text}");
        }
    }
}
