//! All output of the program.
//!
//! Data goes to standard output and everything else to standard error, so that a
//! pipe gets only what was asked for.  Colour is used on a terminal only, never
//! when `NO_COLOR` is set, and never says anything that the words do not.

use std::cell::RefCell;
use std::io::{self, BufWriter, IsTerminal as _, Write as _};

use anyhow::{Context as _, Result};
use serde::Serialize;

use crate::error::{PipeClosed, Report};
use crate::table::Table;

/// How data is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub(crate) enum Format {
    /// Tables and sentences, for people.
    #[default]
    Console,
    /// One JSON object, for programs.
    Json,
}

/// An error as programs read it.
#[derive(Serialize)]
struct ErrorBody<'r> {
    error: &'r Report,
}

/// Bytes of output that are gathered before they are written.  Higher: memory for
/// nothing; lower: a log of gigabytes is a system call for every few lines.
const BUFFER_BYTES: usize = 64 << 10;

/// Where output goes.
pub(crate) struct Printer {
    format: Format,
    out: RefCell<BufWriter<io::Stdout>>,
    out_is_tty: bool,
    err_is_tty: bool,
    color: bool,
    debug: bool,
}

impl Printer {
    /// A printer for this process.
    pub(crate) fn new(format: Format, debug: bool) -> Self {
        let no_color = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty())
            || std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        let out_is_tty = io::stdout().is_terminal();
        Self {
            format,
            out: RefCell::new(BufWriter::with_capacity(BUFFER_BYTES, io::stdout())),
            out_is_tty,
            err_is_tty: io::stderr().is_terminal(),
            color: !no_color,
            debug,
        }
    }

    /// Whether data is wanted as JSON.
    pub(crate) fn is_json(&self) -> bool {
        self.format == Format::Json
    }

    /// Whether a person sees the data as it comes.
    pub(crate) fn out_is_tty(&self) -> bool {
        self.out_is_tty
    }

    /// Whether a person sees progress and questions.
    pub(crate) fn err_is_tty(&self) -> bool {
        self.err_is_tty
    }

    /// Columns and lines of the terminal that the data goes to.  Not a terminal: none.
    pub(crate) fn screen(&self) -> Option<(u16, u16)> {
        if !self.out_is_tty {
            return None;
        }
        let size = rustix::termios::tcgetwinsize(io::stdout()).ok();
        let (columns, lines) = size.map_or((80, 24), |size| (size.ws_col, size.ws_row));
        let columns = std::env::var("COLUMNS")
            .ok()
            .and_then(|c| c.parse().ok())
            .unwrap_or(columns);
        Some((
            if columns == 0 { 80 } else { columns },
            if lines == 0 { 24 } else { lines },
        ))
    }

    /// Prints data as it is.
    pub(crate) fn text(&self, text: &str) -> Result<()> {
        let written = self.out.borrow_mut().write_all(text.as_bytes());
        checked(written)
    }

    /// Prints one line of data.
    pub(crate) fn line(&self, line: &str) -> Result<()> {
        self.text(line)?;
        self.text("\n")
    }

    /// Makes everything printed so far visible.
    pub(crate) fn flush(&self) -> Result<()> {
        checked(self.out.borrow_mut().flush())
    }

    /// Prints a table, as wide as the terminal; whole when it is not one.
    pub(crate) fn table(&self, table: &Table) -> Result<()> {
        self.text(&self.render(table))
    }

    /// The text of a table as [`Self::table`] prints it.
    pub(crate) fn render(&self, table: &Table) -> String {
        table.render(
            self.screen().map(|(columns, _)| columns),
            self.color && self.out_is_tty,
        )
    }

    /// Prints one JSON object on lines of its own.
    pub(crate) fn json<T: Serialize + ?Sized>(&self, value: &T) -> Result<()> {
        let mut text = serde_json::to_string_pretty(value).context("writing JSON")?;
        text.push('\n');
        self.text(&text)
    }

    /// Prints one JSON object as one line, for streams of them.
    pub(crate) fn json_line<T: Serialize + ?Sized>(&self, value: &T) -> Result<()> {
        let mut text = serde_json::to_string(value).context("writing JSON")?;
        text.push('\n');
        self.text(&text)
    }

    /// Says something to the person at the terminal.
    pub(crate) fn note(&self, text: &str) {
        if !self.is_json() {
            self.talk(&format!("{text}\n"));
        }
    }

    /// Says that something may not be what the person thinks.
    pub(crate) fn warn(&self, text: &str) {
        let word = self.painted("warning:", "33");
        self.talk(&format!("{word} {text}\n"));
    }

    /// Says what the program does, for `--debug`.
    pub(crate) fn debug(&self, text: &str) {
        if self.debug {
            self.talk(&format!("debug: {text}\n"));
        }
    }

    /// Asks; the answer is read by whoever asked.
    pub(crate) fn ask(&self, text: &str) {
        self.talk(text);
    }

    /// Prints why the program ends without having done what it was asked to.
    pub(crate) fn error(&self, report: &Report) {
        if self.is_json() {
            let body = serde_json::to_string(&ErrorBody { error: report }).unwrap_or_default();
            self.talk(&format!("{body}\n"));
            return;
        }
        let word = match report.is_refusal() {
            true => self.painted("warning:", "33"),
            false => self.painted("error:", "31;1"),
        };
        let mut text = format!("{word} {}\n", report.message);
        for cause in &report.causes {
            text.push_str(&format!("  caused by: {cause}\n"));
        }
        if let Some(hint) = &report.hint {
            text.push_str(&format!("{} {hint}\n", self.painted("hint:", "36")));
        }
        self.talk(&text);
    }

    fn painted(&self, word: &str, code: &str) -> String {
        if self.color && self.err_is_tty {
            format!("\x1b[{code}m{word}\x1b[0m")
        } else {
            word.to_owned()
        }
    }

    /// Data printed before comes first on the screen.
    fn talk(&self, text: &str) {
        let _ = self.out.borrow_mut().flush();
        // Nowhere is left to complain about a standard error that cannot be written.
        let _ = io::stderr().write_all(text.as_bytes());
    }
}

fn checked(written: io::Result<()>) -> Result<()> {
    match written {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Err(PipeClosed.into()),
        written => written.context("writing to standard output"),
    }
}
