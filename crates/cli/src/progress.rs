//! Progress bars, for what takes so long that a person begins to wonder.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use crate::clock;
use crate::printer::Printer;

/// How long something takes before its bar is shown.  Lower: bars flash by.
const DELAY: Duration = Duration::from_millis(300);

/// A bar that appears on a terminal when it is worth it.
#[derive(Clone)]
pub(crate) struct Progress {
    inner: Option<Arc<Mutex<Inner>>>,
}

struct Inner {
    label: String,
    total: u64,
    done: u64,
    started: Instant,
    bar: Option<ProgressBar>,
}

impl Progress {
    /// A bar for `total` bytes.
    pub(crate) fn new(printer: &Printer, label: &str, total: u64) -> Self {
        let is_shown = printer.err_is_tty() && !printer.is_json();
        let inner = Inner {
            label: label.to_owned(),
            total,
            done: 0,
            started: clock::instant(),
            bar: None,
        };
        Self {
            inner: is_shown.then(|| Arc::new(Mutex::new(inner))),
        }
    }

    /// A bar that is never shown.
    #[cfg(test)]
    pub(crate) fn hidden() -> Self {
        Self { inner: None }
    }

    /// So many bytes more are done.
    pub(crate) fn add(&self, bytes: u64) {
        self.with(|inner| {
            inner.done += bytes;
            if inner.bar.is_none() && inner.started.elapsed() > DELAY {
                inner.bar = Some(bar(&inner.label, inner.total));
            }
            if let Some(bar) = &inner.bar {
                bar.set_position(inner.done);
            }
        });
    }

    /// Whether anybody sees it.
    pub(crate) fn is_shown(&self) -> bool {
        self.inner.is_some()
    }

    /// By now it is known how many bytes there are.
    pub(crate) fn set_total(&self, total: u64) {
        self.with(|inner| {
            inner.finish();
            inner.total = total;
        });
    }

    /// Begins again with something else.
    pub(crate) fn restart(&self, label: &str, total: u64) {
        self.with(|inner| {
            inner.finish();
            label.clone_into(&mut inner.label);
            (inner.total, inner.done) = (total, 0);
        });
    }

    /// Takes the bar away; the next step brings it back.
    pub(crate) fn finish(&self) {
        self.with(Inner::finish);
    }

    fn with(&self, change: impl FnOnce(&mut Inner)) {
        if let Some(inner) = &self.inner
            && let Ok(mut inner) = inner.lock()
        {
            change(&mut inner);
        }
    }
}

impl Inner {
    fn finish(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
    }
}

fn bar(label: &str, total: u64) -> ProgressBar {
    let style = ProgressStyle::with_template(template(total));
    let style = style.unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::new(total)
        .with_style(style)
        .with_prefix(label.to_owned())
}

/// Of how many is not always known; a bar would be full from the beginning then.
fn template(total: u64) -> &'static str {
    match total {
        0 => "{prefix} {spinner} {bytes}, {bytes_per_sec}",
        _ => {
            "{prefix} {wide_bar} {percent:>3}% {bytes} of {total_bytes}, {bytes_per_sec}, {eta} left"
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_no_known_end_has_no_bar() {
        for (total, has_bar) in [(0, false), (10, true)] {
            let template = template(total);
            assert_eq!(template.contains("{wide_bar}"), has_bar);
            assert!(ProgressStyle::with_template(template).is_ok(), "{template}");
        }
    }
}
