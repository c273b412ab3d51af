//! What a table looks like where there is not room for all of it.

use super::Table;

/// What counts as a short value, in columns: numbers, durations, words for a status.
/// Higher: long ones get no room; lower: a duration goes on in the next line.
const SHORT_COLUMNS: usize = 12;

/// What a value that goes on in the next line gets at least, in columns.
/// Higher: tables become paragraphs early; lower: sentences of one word a line.
const WRAPPED_COLUMNS: usize = 16;

/// The same for the first column, which names the row and is often a path.
const FIRST_COLUMNS: usize = 24;

/// What a column takes beside its value: a line and two blanks.
const BORDER_COLUMNS: usize = 3;

/// What a value in a paragraph gets at least, however narrow the terminal is.
const PARAGRAPH_COLUMNS: usize = 8;

/// What is shown of a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Layout {
    pub(super) columns: Vec<usize>,
    /// Those that do not go on in the next line.
    pub(super) whole: Vec<usize>,
    pub(super) is_short: bool,
}

impl Layout {
    pub(super) fn all(columns: usize) -> Self {
        Self {
            columns: (0..columns).collect(),
            whole: Vec::new(),
            is_short: false,
        }
    }
}

impl Table {
    /// How it is shown on so many columns.  Not as a table at all: none.
    pub(super) fn layout(&self, width: usize) -> Option<Layout> {
        let every: Vec<usize> = (0..self.head.len()).collect();
        let mut spared: Vec<usize> = every.clone();
        spared.retain(|&index| self.head[index].spared.is_some());
        spared.sort_by_key(|&index| self.head[index].spared);
        let without = |gone: usize| -> Vec<usize> {
            let left = |index: &usize| !spared[..gone].contains(index);
            every.iter().copied().filter(left).collect()
        };
        let long = self.fitted(every.clone(), false, true, width);
        let short = || {
            let fitted = |gone| self.fitted(without(gone), true, true, width);
            (0..=spared.len()).find_map(fitted)
        };
        // At last the name goes on in the next line, too.
        let broken = || self.fitted(without(spared.len()), true, false, width);
        long.or_else(short).or_else(broken)
    }

    /// The layout, if these columns fit: names and short values whole, the others with
    /// as much as a few words need.
    fn fitted(
        &self,
        columns: Vec<usize>,
        is_short: bool,
        names_stay: bool,
        width: usize,
    ) -> Option<Layout> {
        let mut whole = Vec::new();
        let mut needed = 1;
        for &index in &columns {
            let natural = self.width(index, is_short);
            let is_first = index == 0;
            let least = match is_first {
                true => FIRST_COLUMNS,
                false => WRAPPED_COLUMNS,
            };
            needed += BORDER_COLUMNS;
            if natural <= SHORT_COLUMNS
                || self.is_of_times(index)
                || is_first && (names_stay || natural <= least)
            {
                whole.push(index);
                needed += natural;
            } else {
                needed += natural.min(least);
            }
        }
        (needed <= width).then_some(Layout {
            columns,
            whole,
            is_short,
        })
    }

    /// Whether its values have a short form: that is better than two lines.
    fn is_of_times(&self, index: usize) -> bool {
        let mut values = self.rows.iter().filter_map(|row| row.get(index));
        values.any(|cell| cell.short.is_some())
    }

    /// Columns of the widest value.
    fn width(&self, index: usize, is_short: bool) -> usize {
        let values = self.rows.iter().filter_map(|row| row.get(index));
        let values = values.map(|cell| columns(cell.shown(is_short)));
        let head = self.head.get(index);
        let head = head.map(|column| columns(column.shown(is_short)));
        values.chain(head).max().unwrap_or(0)
    }

    /// What single letters mean, and which columns there was no room for.
    pub(super) fn legend(&self, layout: &Layout, width: usize) -> String {
        let letters = self.head.iter().enumerate().filter_map(|(index, column)| {
            let letter = column.short.filter(|short| short.len() == 1)?;
            let is_shown = layout.is_short && layout.columns.contains(&index);
            is_shown.then(|| format!("{letter} {}", column.head.to_lowercase()))
        });
        let mut parts: Vec<String> = letters.collect();
        let gone = self.head.iter().enumerate();
        let gone: Vec<&str> = gone
            .filter(|(index, _)| !layout.columns.contains(index))
            .map(|(_, column)| column.head.as_str())
            .collect();
        if !gone.is_empty() {
            parts.push(format!("left out: {}", gone.join(", ")));
        }
        let mut text = String::new();
        let mut line = String::new();
        for part in &parts {
            if !line.is_empty() && columns(&line) + columns(part) + 3 > width {
                text.push_str(&format!("{line},\n"));
                line.clear();
            }
            line.push_str(if line.is_empty() { "" } else { ", " });
            line.push_str(part);
        }
        if !line.is_empty() {
            for piece in pieces(&line, width) {
                text.push_str(&format!("{piece}\n"));
            }
        }
        text
    }

    /// Each row as lines of head and value, for terminals that are narrower than any table.
    pub(super) fn paragraphs(&self, width: usize) -> String {
        let head = self.head.iter().map(|column| columns(&column.head)).max();
        let head = head
            .unwrap_or(0)
            .min(width.saturating_sub(PARAGRAPH_COLUMNS + 2));
        let room = width.saturating_sub(head + 2).max(PARAGRAPH_COLUMNS);
        let mut text = String::new();
        for (number, row) in self.rows.iter().enumerate() {
            if number > 0 {
                text.push('\n');
            }
            for (column, cell) in self.head.iter().zip(row) {
                let label: String = column.head.chars().take(head).collect();
                let mut label = format!("{label}{}", " ".repeat(head - columns(&label).min(head)));
                for piece in pieces(&cell.text, room) {
                    text.push_str(format!("{label}  {piece}").trim_end());
                    text.push('\n');
                    label = " ".repeat(head);
                }
            }
        }
        text
    }
}

/// Text in pieces of at most so many columns; at blanks where there are any.
fn pieces(text: &str, room: usize) -> Vec<String> {
    let mut pieces = Vec::new();
    let mut piece = String::new();
    for word in text.split_inclusive(' ') {
        if columns(&piece) + columns(word.trim_end()) > room && !piece.is_empty() {
            pieces.push(std::mem::take(&mut piece).trim_end().to_owned());
        }
        for c in word.chars() {
            if columns(&piece) + columns(c.encode_utf8(&mut [0; 4])) > room {
                pieces.push(std::mem::take(&mut piece).trim_end().to_owned());
            }
            piece.push(c);
        }
    }
    if !piece.is_empty() || pieces.is_empty() {
        pieces.push(piece.trim_end().to_owned());
    }
    pieces
}

/// Columns that a text takes on a screen; never fewer than it does.
pub(super) fn columns(text: &str) -> usize {
    text.chars().map(|c| if is_wide(c) { 2 } else { 1 }).sum()
}

/// Whether a terminal gives two columns to it: the scripts of East Asia, and pictures.
fn is_wide(c: char) -> bool {
    matches!(u32::from(c),
        0x1100..=0x115F | 0x2E80..=0xA4CF | 0xAC00..=0xD7A3 | 0xF900..=0xFAFF
        | 0xFE30..=0xFE6F | 0xFF00..=0xFF60 | 0xFFE0..=0xFFE6
        | 0x1F300..=0x1FAFF | 0x20000..=0x3FFFD)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_end_at_blanks_and_hold_everything() {
        assert_eq!(
            pieces("the quick brown fox", 10),
            ["the quick", "brown fox"]
        );
        assert_eq!(pieces("abcdefghijkl", 5), ["abcde", "fghij", "kl"]);
        assert_eq!(pieces("", 5), [""]);
        assert_eq!(pieces("日本語", 4), ["日本", "語"]);
    }
}
