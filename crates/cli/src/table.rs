//! Tables for people.
//!
//! On a terminal a table is as wide as the terminal and long cells go on in the
//! next line; in a pipe nothing is cut and nothing is wrapped, so that `grep`
//! and `awk` see whole rows.

use comfy_table::presets::UTF8_FULL_CONDENSED;
use comfy_table::{CellAlignment, Color, ColumnConstraint, ContentArrangement};
use grid_core::workload::Status;

/// What counts as a short value, in characters: numbers, durations, words for a status.
/// Higher: long ones get no room; lower: a duration goes on in the next line.
const SHORT_COLUMNS: usize = 12;

/// What a column takes beside its value: a line and two blanks.
const BORDER_COLUMNS: usize = 3;

/// Rows under a head.
#[derive(Debug, Clone, Default)]
pub(crate) struct Table {
    head: Vec<String>,
    rows: Vec<Vec<Cell>>,
}

/// One value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Cell {
    text: String,
    tone: Tone,
    is_number: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Tone {
    Plain,
    Good,
    Bad,
    Busy,
}

impl Cell {
    /// Text; what would move the cursor or change colours is spelt out.
    pub(crate) fn text(text: impl AsRef<str>) -> Self {
        Self {
            text: printable(text.as_ref()),
            tone: Tone::Plain,
            is_number: false,
        }
    }

    /// A number, or anything else that is read from its right end.
    pub(crate) fn number(number: u64) -> Self {
        Self {
            text: number.to_string(),
            tone: Tone::Plain,
            is_number: true,
        }
    }

    /// The word for a status, coloured on a terminal.
    pub(crate) fn status(status: Status) -> Self {
        let tone = match status {
            Status::Succeeded => Tone::Good,
            Status::Failed => Tone::Bad,
            Status::Running | Status::Stopping => Tone::Busy,
            Status::Queued | Status::Pending | Status::Paused | Status::Stopped => Tone::Plain,
        };
        Self {
            tone,
            ..Self::text(status.to_string())
        }
    }

    /// Text, or `-` for what there is not.
    pub(crate) fn maybe(text: Option<impl AsRef<str>>) -> Self {
        text.map_or_else(|| Self::text("-"), Self::text)
    }
}

impl Table {
    /// A table without rows.
    pub(crate) fn new<S: Into<String>>(head: impl IntoIterator<Item = S>) -> Self {
        Self {
            head: head.into_iter().map(Into::into).collect(),
            rows: Vec::new(),
        }
    }

    /// Adds a row.
    pub(crate) fn row(&mut self, cells: impl IntoIterator<Item = Cell>) {
        self.rows.push(cells.into_iter().collect());
    }

    /// Whether there are rows.
    pub(crate) fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// The text, at most `width` columns wide if given, ending in a line end.
    pub(crate) fn render(&self, width: Option<u16>, color: bool) -> String {
        let mut table = comfy_table::Table::new();
        table.load_style(UTF8_FULL_CONDENSED).force_no_tty();
        match width {
            Some(width) => {
                table
                    .set_content_arrangement(ContentArrangement::Dynamic)
                    .set_width(width);
            }
            None => {
                table.set_content_arrangement(ContentArrangement::Disabled);
            }
        }
        if color {
            table.enforce_styling();
        }
        table.set_header(self.head.iter().map(printable).collect::<Vec<_>>());
        for row in &self.rows {
            table.add_row(row.iter().map(styled).collect::<Vec<_>>());
        }
        for index in width.map(|width| self.unbroken(width)).unwrap_or_default() {
            if let Some(column) = table.column_mut(index) {
                column.set_constraint(ColumnConstraint::ContentWidth);
            }
        }
        let mut text = table.trim_fmt();
        text.push('\n');
        text
    }

    /// Columns that keep their words whole: names and short values, as long as there is
    /// room for the others.
    fn unbroken(&self, width: u16) -> Vec<usize> {
        let widths: Vec<usize> = (0..self.head.len())
            .map(|index| self.width(index))
            .collect();
        let is_kept = |index: usize| index == 0 || widths[index] <= SHORT_COLUMNS;
        let kept: Vec<usize> = (0..widths.len()).filter(|&index| is_kept(index)).collect();
        let needed: usize = (0..widths.len())
            .map(|index| {
                BORDER_COLUMNS
                    + if is_kept(index) {
                        widths[index]
                    } else {
                        SHORT_COLUMNS
                    }
            })
            .sum();
        if needed < usize::from(width) {
            kept
        } else {
            Vec::new()
        }
    }

    /// Characters of the widest value of a column.
    fn width(&self, index: usize) -> usize {
        let values = self
            .rows
            .iter()
            .filter_map(|row| row.get(index))
            .map(|cell| cell.text.as_str());
        let head = self.head.get(index).map(String::as_str);
        values
            .chain(head)
            .map(|text| text.chars().count())
            .max()
            .unwrap_or(0)
    }
}

fn styled(cell: &Cell) -> comfy_table::Cell {
    let styled = comfy_table::Cell::new(&cell.text);
    let styled = if cell.is_number {
        styled.set_alignment(CellAlignment::Right)
    } else {
        styled
    };
    match cell.tone {
        Tone::Plain => styled,
        Tone::Good => styled.fg(Color::Green),
        Tone::Bad => styled.fg(Color::Red),
        Tone::Busy => styled.fg(Color::Cyan),
    }
}

/// What a teammate's parameter may do to a terminal is nothing.
pub(crate) fn printable(text: impl AsRef<str>) -> String {
    let text = text.as_ref();
    if !text.chars().any(char::is_control) {
        return text.to_owned();
    }
    text.chars()
        .flat_map(|c| {
            if c.is_control() {
                c.escape_default().collect()
            } else {
                vec![c]
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Table {
        let mut table = Table::new(["Run", "Command", "Experiments"]);
        let command = "train.py --lr 0.1 --note 'hot dog' --layers 128 --optimizer adamw --seed 7";
        table.row([
            Cell::text("gifted-seahorse-583"),
            Cell::text(command),
            Cell::number(12),
        ]);
        table.row([
            Cell::status(Status::Failed),
            Cell::text("a\nb\u{1b}[31m"),
            Cell::number(7),
        ]);
        table
    }

    #[test]
    fn a_table_in_a_pipe_is_whole() {
        insta::assert_snapshot!(sample().render(None, false));
    }

    #[test]
    fn a_table_on_a_terminal_fits() {
        for width in [30, 50, 80] {
            let text = sample().render(Some(width), false);
            let widest = text
                .lines()
                .map(|line| line.chars().count())
                .max()
                .unwrap_or(0);
            assert!(widest <= usize::from(width), "{width}: {widest}\n{text}");
        }
        insta::assert_snapshot!(sample().render(Some(60), false));
    }

    #[test]
    fn colour_is_for_terminals_and_escapes_of_others_never_are() {
        assert!(sample().render(Some(80), true).contains("\u{1b}[38;5;"));
        assert!(!sample().render(Some(80), false).contains('\u{1b}'));
        assert!(!sample().render(Some(80), true).contains("\u{1b}[31m\n"));
    }
}
