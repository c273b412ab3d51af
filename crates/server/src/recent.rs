//! What the server has logged lately, for operators who are not at its machine.
//!
//! So many last lines are kept in memory.  Whoever reads too slowly misses some, and is told
//! how many; nobody who logs ever waits.

use std::collections::VecDeque;
use std::fmt::Write as _;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

use grid_core::time::Timestamp;
use grid_engine::{Clock, SystemClock};
use tokio::sync::watch;
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;

/// Lines that are kept.  Higher: more memory, up to 16 MiB; lower: less is known of the past.
const LINES_MAX: usize = 8_192;

/// Longest line, in bytes; what is longer is cut.
const LINE_BYTES_MAX: usize = 2_048;

/// The log of this process.
static RECENT: LazyLock<Recent> = LazyLock::new(Recent::default);

/// The log of this process.
pub(crate) fn recent() -> &'static Recent {
    &RECENT
}

/// A line.
#[derive(Debug)]
pub(crate) struct Line {
    /// When.
    pub(crate) at: Timestamp,
    /// How bad: `info`, `warn`, `error`, `debug`, `trace`.
    pub(crate) level: &'static str,
    /// What.
    pub(crate) text: String,
}

/// The last lines of a log.
pub(crate) struct Recent {
    kept: Mutex<Kept>,
    /// How many lines there have been.
    count: watch::Sender<u64>,
}

#[derive(Default)]
struct Kept {
    lines: VecDeque<Arc<Line>>,
    /// The number of the line behind the last one.
    next: u64,
}

impl Default for Recent {
    fn default() -> Self {
        Self {
            kept: Mutex::default(),
            count: watch::Sender::new(0),
        }
    }
}

impl Recent {
    /// Adds a line.
    pub(crate) fn push(&self, line: Line) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.lines.len() >= LINES_MAX {
            kept.lines.pop_front();
        }
        kept.lines.push_back(Arc::new(line));
        kept.next += 1;
        self.count.send_replace(kept.next);
    }

    /// The lines from a number on, how many before them are not kept any more, and the
    /// number to go on with.
    pub(crate) fn from(&self, number: u64) -> (Vec<Arc<Line>>, u64, u64) {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let first = kept.next - kept.lines.len() as u64;
        let from = number.max(first);
        let skip = usize::try_from(from - first).unwrap_or(usize::MAX);
        let lines = kept.lines.iter().skip(skip).cloned().collect();
        (lines, from - number.min(from), kept.next)
    }

    /// Wakes whenever there is more.
    pub(crate) fn watch(&self) -> watch::Receiver<u64> {
        self.count.subscribe()
    }
}

/// Keeps what is logged.
pub(crate) struct Keeper;

impl<S: Subscriber> Layer<S> for Keeper {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let mut said = Said::default();
        event.record(&mut said);
        let mut text = said.message + &said.fields;
        if text.len() > LINE_BYTES_MAX {
            text.truncate(text.floor_char_boundary(LINE_BYTES_MAX));
        }
        RECENT.push(Line {
            at: SystemClock.now(),
            level: word(*event.metadata().level()),
            text,
        });
    }
}

fn word(level: Level) -> &'static str {
    match level {
        Level::ERROR => "error",
        Level::WARN => "warn",
        Level::INFO => "info",
        Level::DEBUG => "debug",
        Level::TRACE => "trace",
    }
}

/// The message of an event, and its other fields behind it.
#[derive(Default)]
struct Said {
    message: String,
    fields: String,
}

impl Visit for Said {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        // Writing to a string does not fail.
        let _ = if field.name() == "message" {
            write!(self.message, "{value:?}")
        } else {
            write!(self.fields, " {}={value:?}", field.name())
        };
    }

    fn record_error(&mut self, field: &Field, value: &(dyn std::error::Error + 'static)) {
        let _ = write!(self.fields, " {}={value}", field.name());
        let mut cause = value.source();
        while let Some(error) = cause {
            let _ = write!(self.fields, ": {error}");
            cause = error.source();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(n: usize) -> Line {
        Line {
            at: Timestamp::from_millis(0),
            level: "info",
            text: n.to_string(),
        }
    }

    #[test]
    fn the_last_lines_are_kept_and_what_is_missing_is_known() {
        let recent = Recent::default();
        let (none, missing, next) = recent.from(0);
        assert_eq!((none.len(), missing, next), (0, 0, 0));
        (0..LINES_MAX + 10).for_each(|n| recent.push(line(n)));
        let (lines, missing, next) = recent.from(3);
        assert_eq!(lines.len(), LINES_MAX);
        assert_eq!((missing, lines[0].text.as_str()), (7, "10"));
        let (more, missing, same) = recent.from(next);
        assert_eq!((more.len(), missing, same), (0, 0, next));
        recent.push(line(0));
        assert_eq!(recent.from(next).0.len(), 1);
        assert_eq!(*recent.watch().borrow(), next + 1);
    }

    #[test]
    fn what_is_logged_is_kept_with_its_fields() {
        use tracing_subscriber::layer::SubscriberExt;
        let subscriber = tracing_subscriber::registry().with(Keeper);
        let (_, _, before) = recent().from(u64::MAX / 2);
        tracing::subscriber::with_default(subscriber, || {
            tracing::warn!(node = "local", "a kept line of this test");
        });
        let (lines, _, _) = recent().from(before);
        let kept = lines.iter().find(|line| line.text.contains("of this test"));
        let kept = kept.expect("kept");
        assert_eq!(kept.text, "a kept line of this test node=\"local\"");
        assert_eq!(kept.level, "warn");
    }
}
