//! What is left on the screen of what a program printed.
//!
//! The client draws spinners with carriage returns and colours even where nobody looks, so its
//! raw output differs each time.  What a person would see at the end does not.

use regex::{Captures, Regex};

/// The lines that are left, without colours and without blanks at their ends.
pub fn shown(printed: &str) -> String {
    let mut lines: Vec<String> = Vec::new();
    for raw in printed.split('\n') {
        let mut line: Vec<char> = Vec::new();
        let mut column = 0;
        let mut rest = raw.chars().peekable();
        while let Some(next) = rest.next() {
            match next {
                '\r' => column = 0,
                '\x1b' => match rest.next() {
                    Some('[') => {
                        let erases = control(&mut rest) == Some('K');
                        line.truncate(if erases { column } else { line.len() });
                    }
                    // A link, or the title of the window.
                    Some(']') => while rest.next().is_some_and(|c| c != '\x07' && c != '\\') {},
                    _ => {}
                },
                next => {
                    if column < line.len() {
                        line[column] = next;
                    } else {
                        line.resize(column, ' ');
                        line.push(next);
                    }
                    column += 1;
                }
            }
        }
        let line: String = line.into_iter().collect();
        lines.push(line.trim_end().to_owned());
    }
    lines.join("\n")
}

/// Reads up to the letter that ends a control sequence, and answers with it.
fn control(rest: &mut impl Iterator<Item = char>) -> Option<char> {
    rest.find(|c| ('\x40'..='\x7e').contains(c))
}

/// What differs each time, by what it is called instead; in this order.
const DIFFERENT: [(&str, &str); 15] = [
    (
        r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(\.\d+)?(Z|\+00:?00)?",
        "TIME",
    ),
    (r"\w{3}, \d\d \w{3} \d{4} \d\d:\d\d:\d\d UTC", "TIME"),
    (r"\b\d{4}-\d\d-\d\d \d\d:\d\d\b", "TIME"),
    (r"\b\d{4}-\d\d-\d\d\b", "DATE"),
    (r"\b\d+d-\d\d:\d\d:\d\d", "DURATION"),
    (
        r"\b(now|just now|an? (second|minute|hour|moment) ago|\d+ (second|minute|hour)s? ago)\b",
        "AGE",
    ),
    (r"\b[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\b", "ID"),
    (r"\b[0-9a-hA-HJjKkMmNnP-Tp-tV-Zv-z]{26}\b", "ID"),
    (r"\b[0-9a-f]{32,64}\b", "HASH"),
    (r"http://127\.0\.0\.1:\d+", "URL"),
    // What a bar shows, and how many lines of it there are, depends on the moment.
    (r"(?m)^.*(/s\]|B/s|━ *\d+\.\d%).*(\n|$)", ""),
    // A spinner is drawn when its thread gets its turn, or not at all.
    (r"[⠀-⣿] [^\n]*?\.\.\.", ""),
    // The lines of tables are as long as what happens to be in them.
    (r"(?m)^[┏┡┌├└╞].*\n", ""),
    (r"-{4,}", "----"),
    (r"[ \t]+", " "),
];

/// The same text for the same outcome: what differs each time is replaced by what it is.
pub fn plain(text: &str) -> String {
    let mut text = text.to_owned();
    for (pattern, name) in DIFFERENT {
        let pattern = Regex::new(pattern).expect("a pattern");
        let replaced = pattern.replace_all(&text, |found: &Captures<'_>| {
            // Twenty-six letters are only an identifier where digits are among them.
            let whole = &found[0];
            let is_word = name == "ID" && !whole.contains(|c: char| c.is_ascii_digit());
            if is_word {
                whole.to_owned()
            } else {
                name.to_owned()
            }
        });
        text = replaced.into_owned();
    }
    let mut lines: Vec<&str> = text.lines().map(str::trim_end).collect();
    lines.dedup_by(|next, line| next.is_empty() && line.is_empty());
    let first = lines.iter().position(|line| !line.is_empty());
    let last = lines.iter().rposition(|line| !line.is_empty());
    match (first, last) {
        (Some(first), Some(last)) => lines[first..=last].join("\n"),
        _ => String::new(),
    }
}

/// The cells of the tables in a text, row by row, heads included.
pub fn rows(shown: &str) -> Vec<Vec<String>> {
    let border = |c: char| matches!(c, '│' | '┃');
    let is_row = |line: &&str| line.trim_start().starts_with(border);
    let cells = |line: &str| {
        let inner = line.trim().trim_matches(border).to_owned();
        inner
            .split(border)
            .map(|cell| cell.trim().to_owned())
            .collect()
    };
    shown.lines().filter(is_row).map(cells).collect()
}

#[cfg(test)]
mod tests {
    use super::{plain, rows, shown};

    #[test]
    fn what_was_drawn_over_is_gone() {
        assert_eq!(shown("\r⠋ Loading\x1b[K\r\x1b[Kready\n"), "ready\n");
        assert_eq!(shown("\x1b[33mred\x1b[0m  \nlong\rab"), "red\nabng");
        assert_eq!(
            shown("\x1b]8;id=1;http://x\x1b\\text\x1b]8;;\x1b\\"),
            "text"
        );
    }

    #[test]
    fn what_differs_each_time_is_called_by_its_kind() {
        let text = "a  01J9Z3NDEKTSV4RRFFQ69G5FAV  0d-00:00:07 3 seconds ago\n\n\n\nb\n";
        assert_eq!(plain(text), "a ID DURATION AGE\n\nb");
        assert_eq!(
            plain("abcdefghkmnpqrstvwxyzabcde"),
            "abcdefghkmnpqrstvwxyzabcde"
        );
    }

    #[test]
    fn tables_are_read_cell_by_cell() {
        let table = "x\n┏━━━┳━━━┓\n┃ A ┃ B ┃\n┡━━━╇━━━┩\n│ 1 │   │\n└───┴───┘\n";
        assert_eq!(rows(table), [vec!["A", "B"], vec!["1", ""]]);
    }
}
