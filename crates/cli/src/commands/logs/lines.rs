//! Printing lines of logs.
//!
//! A line that may still be rewritten (a progress bar) is rewritten on a terminal;
//! elsewhere only what it came to is printed.

use std::collections::BTreeMap;

use anyhow::Result;
use grid_api::log::LogLine;
use serde_json::Value;

use crate::printer::Printer;

/// Columns of a terminal whose width is not known.
const COLUMNS_DEFAULT: usize = 80;

/// Prints lines as they come.
pub(super) struct Lines<'p> {
    printer: &'p Printer,
    with_name: bool,
    is_live: bool,
    /// Whether the cursor stands behind a line that may be rewritten.
    is_open: bool,
    n_written: usize,
    /// Lines that may be rewritten, by experiment and log.
    partial: BTreeMap<(String, &'static str), LogLine>,
}

impl<'p> Lines<'p> {
    /// `with_name`: lines of several experiments are mixed; `is_live`: they come as they are written.
    pub(super) fn new(printer: &'p Printer, with_name: bool, is_live: bool) -> Self {
        Self {
            printer,
            with_name,
            is_live,
            is_open: false,
            n_written: 0,
            partial: BTreeMap::new(),
        }
    }

    /// Before the first line.
    pub(super) fn begin(&self) -> Result<()> {
        if self.printer.is_json() && !self.is_live {
            self.printer.text("{\"lines\":[")
        } else {
            Ok(())
        }
    }

    /// Prints a line.
    pub(super) fn write(&mut self, experiment: &str, line: &LogLine) -> Result<()> {
        let key = (experiment.to_owned(), line.stream.as_str());
        if line.partial {
            let is_shown = self.is_live && self.printer.out_is_tty() && !self.printer.is_json();
            if is_shown {
                self.rewrite(experiment, line)?;
            }
            self.partial.insert(key, line.clone());
            return Ok(());
        }
        self.partial.remove(&key);
        self.whole(experiment, line)
    }

    /// Prints what will not be rewritten any more.
    pub(super) fn settle(&mut self) -> Result<()> {
        for ((experiment, _), line) in std::mem::take(&mut self.partial) {
            self.whole(&experiment, &line)?;
        }
        Ok(())
    }

    /// The same, for one experiment.
    pub(super) fn settle_one(&mut self, experiment: &str) -> Result<()> {
        let keys: Vec<_> = self
            .partial
            .keys()
            .filter(|(name, _)| name == experiment)
            .cloned()
            .collect();
        for key in keys {
            if let Some(line) = self.partial.remove(&key) {
                self.whole(experiment, &line)?;
            }
        }
        Ok(())
    }

    /// After the last line.
    pub(super) fn end(mut self) -> Result<()> {
        self.settle()?;
        if self.printer.is_json() && !self.is_live {
            self.printer.text("\n]}\n")
        } else {
            Ok(())
        }
    }

    /// Takes a line off the screen that may be rewritten, before something else is said.
    pub(super) fn clear(&mut self) -> Result<()> {
        if std::mem::take(&mut self.is_open) {
            self.printer.text("\r\x1b[K")
        } else {
            Ok(())
        }
    }

    fn whole(&mut self, experiment: &str, line: &LogLine) -> Result<()> {
        self.clear()?;
        self.n_written += 1;
        if !self.printer.is_json() {
            return self.printer.line(&self.text(experiment, line));
        }
        let mut named = serde_json::to_value(line)?;
        if let Value::Object(fields) = &mut named {
            fields.insert(
                "experiment".to_owned(),
                Value::String(experiment.to_owned()),
            );
        }
        if self.is_live {
            return self.printer.json_line(&named);
        }
        self.printer
            .text(if self.n_written == 1 { "\n" } else { ",\n" })?;
        self.printer.text(&named.to_string())
    }

    fn rewrite(&mut self, experiment: &str, line: &LogLine) -> Result<()> {
        // A line that wraps cannot be rewritten by going back to its beginning.
        let columns = self
            .printer
            .screen()
            .map_or(COLUMNS_DEFAULT, |(columns, _)| usize::from(columns));
        let text: String = self
            .text(experiment, line)
            .chars()
            .take(columns.saturating_sub(1))
            .collect();
        self.is_open = true;
        self.printer.text(&format!("\r{text}\x1b[K"))
    }

    fn text(&self, experiment: &str, line: &LogLine) -> String {
        let name = if self.with_name {
            format!("{experiment} ")
        } else {
            String::new()
        };
        format!(
            "{name}[{}] [{}] {}",
            line.stream.as_str(),
            line.at,
            line.text
        )
    }
}
