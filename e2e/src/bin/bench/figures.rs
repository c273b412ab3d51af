//! What was measured, as lines for whoever makes the table.

use std::io::Write;
use std::time::Duration;

use serde_json::json;

/// Where figures go.
pub(crate) struct Figures {
    out: std::io::Stdout,
}

/// What a figure should be.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Goal {
    /// At least this.
    AtLeast(f64),
    /// At most this.
    AtMost(f64),
    /// Only told.
    None,
}

impl Figures {
    pub(crate) fn new() -> Self {
        Self {
            out: std::io::stdout(),
        }
    }

    /// Tells a figure.
    pub(crate) fn add(&mut self, name: &str, value: f64, unit: &str, goal: Goal) {
        let mut line = json!({ "name": name, "value": value, "unit": unit });
        let (goal, better) = match goal {
            Goal::AtLeast(goal) => (Some(goal), "higher"),
            Goal::AtMost(goal) => (Some(goal), "lower"),
            Goal::None => (None, ""),
        };
        if let Some(goal) = goal {
            line["goal"] = json!(goal);
            line["better"] = json!(better);
        }
        // Nobody reads it any more: then it is not missed.
        let _ = writeln!(self.out, "{line}").and_then(|()| self.out.flush());
    }

    /// Tells what another program has measured, in the same lines.
    pub(crate) fn pass_on(&mut self, lines: &str) {
        let lines = lines.trim_end();
        let _ = writeln!(self.out, "{lines}").and_then(|()| self.out.flush());
    }

    /// Tells how long something took, in milliseconds.
    pub(crate) fn time(&mut self, name: &str, took: Duration, goal: Goal) {
        self.add(name, millis(took), "ms", goal);
    }
}

pub(crate) fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

/// The value that `percent` of all are not above.
pub(crate) fn percentile<T: Copy + PartialOrd>(values: &[T], percent: usize) -> Option<T> {
    let mut sorted = values.to_vec();
    sorted.sort_by(|a, b| a.partial_cmp(b).unwrap_or(std::cmp::Ordering::Equal));
    let rank = (sorted.len() * percent).div_ceil(100).max(1);
    sorted.get(rank - 1).copied()
}

/// The middle value.
pub(crate) fn median<T: Copy + PartialOrd>(values: &[T]) -> Option<T> {
    percentile(values, 50)
}

#[cfg(test)]
mod tests {
    use super::{median, percentile};

    #[test]
    fn percentiles_are_values_that_were_measured() {
        let values = [5, 1, 4, 2, 3];
        assert_eq!(median(&values), Some(3));
        assert_eq!(percentile(&values, 99), Some(5));
        assert_eq!(percentile(&values, 20), Some(1));
        assert_eq!(median::<u8>(&[]), None);
    }
}
