//! Tables for people.
//!
//! On a terminal a table is no wider than the terminal, and words stay whole as long as
//! they can: first long values go on in the next line, then heads and times get short,
//! then columns that can be spared go, and at last each row becomes a paragraph.
//! In a pipe nothing is cut and nothing is wrapped, so that `grep` and `awk` see whole rows.

use comfy_table::presets::UTF8_FULL_CONDENSED;
use comfy_table::{CellAlignment, Color, ColumnConstraint, ContentArrangement};
use grid_core::workload::Status;

mod fit;

/// Rows under a head.
#[derive(Debug, Clone, Default)]
pub(crate) struct Table {
    head: Vec<Column>,
    rows: Vec<Vec<Cell>>,
}

/// What stands above values, and what may become of it where there is no room.
#[derive(Debug, Clone, Default)]
struct Column {
    head: String,
    short: Option<&'static str>,
    /// What goes first has the lowest number.
    spared: Option<usize>,
}

/// One value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Cell {
    text: String,
    short: Option<String>,
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
            short: None,
            tone: Tone::Plain,
            is_number: false,
        }
    }

    /// A number, or anything else that is read from its right end.
    pub(crate) fn number(number: u64) -> Self {
        Self {
            is_number: true,
            ..Self::text(number.to_string())
        }
    }

    /// A point in time, as the API writes it; to the minute where there is no room.
    pub(crate) fn time(at: &str) -> Self {
        Self {
            short: Some(printable(crate::time::brief(at))),
            ..Self::text(crate::time::civil(at))
        }
    }

    /// A point in time, or `-`.
    pub(crate) fn maybe_time(at: Option<&str>) -> Self {
        at.map_or_else(|| Self::text("-"), Self::time)
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

    fn shown(&self, is_short: bool) -> &str {
        match &self.short {
            Some(short) if is_short => short,
            _ => &self.text,
        }
    }
}

impl Table {
    /// A table without rows.
    pub(crate) fn new<S: Into<String>>(head: impl IntoIterator<Item = S>) -> Self {
        let column = |head: S| Column {
            head: printable(head.into()),
            ..Column::default()
        };
        Self {
            head: head.into_iter().map(column).collect(),
            rows: Vec::new(),
        }
    }

    /// Heads for a narrow terminal.  A single letter is explained below the table.
    pub(crate) fn short(mut self, heads: &[(&str, &'static str)]) -> Self {
        for (head, short) in heads {
            if let Some(column) = self.head.iter_mut().find(|column| column.head == *head) {
                column.short = Some(short);
            }
        }
        self
    }

    /// Columns that a narrow terminal may do without; the first goes first.
    pub(crate) fn spare(mut self, heads: &[&str]) -> Self {
        for (order, head) in heads.iter().enumerate() {
            if let Some(column) = self.head.iter_mut().find(|column| column.head == *head) {
                column.spared = Some(order);
            }
        }
        self
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
        let Some(width) = width else {
            return self.boxed(&fit::Layout::all(self.head.len()), None, color);
        };
        match self.layout(usize::from(width)) {
            Some(layout) => {
                let mut text = self.boxed(&layout, Some(width), color);
                text.push_str(&self.legend(&layout, usize::from(width)));
                text
            }
            None => self.paragraphs(usize::from(width)),
        }
    }

    fn boxed(&self, layout: &fit::Layout, width: Option<u16>, color: bool) -> String {
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
        let heads = layout.columns.iter();
        table.set_header(
            heads
                .filter_map(|&index| self.head.get(index))
                .map(|column| column.shown(layout.is_short))
                .collect::<Vec<_>>(),
        );
        for row in &self.rows {
            let cells = layout.columns.iter().filter_map(|&index| row.get(index));
            table.add_row(
                cells
                    .map(|cell| styled(cell, layout.is_short))
                    .collect::<Vec<_>>(),
            );
        }
        for (place, index) in layout.columns.iter().enumerate() {
            let column = table.column_mut(place);
            if let Some(column) = column.filter(|_| layout.whole.contains(index)) {
                column.set_constraint(ColumnConstraint::ContentWidth);
            }
        }
        let mut text = table.trim_fmt();
        text.push('\n');
        text
    }
}

impl Column {
    fn shown(&self, is_short: bool) -> &str {
        match self.short {
            Some(short) if is_short => short,
            _ => &self.head,
        }
    }
}

fn styled(cell: &Cell, is_short: bool) -> comfy_table::Cell {
    let styled = comfy_table::Cell::new(cell.shown(is_short));
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

    fn widest(text: &str) -> usize {
        text.lines().map(fit::columns).max().unwrap_or(0)
    }

    #[test]
    fn a_table_on_a_terminal_fits() {
        for width in [20, 30, 50, 80] {
            let text = sample().render(Some(width), false);
            assert!(widest(&text) <= usize::from(width), "{width}\n{text}");
        }
        insta::assert_snapshot!(sample().render(Some(60), false));
    }

    /// As `grid status` prints them.
    fn runs() -> Table {
        let head = [
            "Run",
            "Project",
            "Status",
            "Created At",
            "Running",
            "Queued",
        ];
        let mut table = Table::new(head)
            .short(&[("Running", "R"), ("Queued", "Q")])
            .spare(&["Project"]);
        for name in ["gifted-seahorse-583", "bert-1"] {
            table.row([
                Cell::text(name),
                Cell::text("a/project-of-theirs"),
                Cell::status(Status::Succeeded),
                Cell::time("2026-11-22T15:26:05.123Z"),
                Cell::number(3),
                Cell::number(12),
            ]);
        }
        table
    }

    #[test]
    fn words_stay_whole_at_any_width() {
        for width in 40..130 {
            let text = runs().render(Some(width), false);
            assert!(widest(&text) <= usize::from(width), "{width}\n{text}");
            for word in ["gifted-seahorse-583", "bert-1", "succeeded"] {
                assert!(text.contains(word), "{width}: {word}\n{text}");
            }
        }
        let wide = runs().render(Some(120), false);
        assert!(wide.ends_with("┘\n"), "{wide}");
        assert!(
            wide.contains("Running") && wide.contains("15:26:05"),
            "{wide}"
        );
        let eighty = runs().render(Some(80), false);
        assert!(eighty.contains("R running, Q queued"), "{eighty}");
        let narrow = runs().render(Some(72), false);
        assert!(narrow.contains("left out: Project"), "{narrow}");
        insta::assert_snapshot!(runs().render(Some(40), false));
    }

    #[test]
    fn colour_is_for_terminals_and_escapes_of_others_never_are() {
        assert!(sample().render(Some(80), true).contains("\u{1b}[38;5;"));
        assert!(!sample().render(Some(80), false).contains('\u{1b}'));
        assert!(!sample().render(Some(80), true).contains("\u{1b}[31m\n"));
    }
}
