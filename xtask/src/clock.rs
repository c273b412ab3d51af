//! The only place of this tool that reads a clock or waits for one.

use std::time::{Duration, Instant};

/// How often a condition that nobody announces is looked at again.
/// Higher, and every command ends that much later; lower, and waiting costs processor time.
const POLL: Duration = Duration::from_millis(20);

/// Measures how long something takes.
#[derive(Clone, Copy)]
pub(crate) struct Stopwatch(Instant);

impl Stopwatch {
    #[expect(clippy::disallowed_methods, reason = "the clock module of this tool")]
    pub(crate) fn start() -> Self {
        Self(Instant::now())
    }

    pub(crate) fn elapsed(self) -> Duration {
        self.0.elapsed()
    }
}

/// Waits until `done` gives a value, at most for `limit`; `None` when the time is over.
pub(crate) fn wait_for<T>(limit: Duration, mut done: impl FnMut() -> Option<T>) -> Option<T> {
    let started = Stopwatch::start();
    loop {
        if let Some(value) = done() {
            return Some(value);
        }
        if started.elapsed() >= limit {
            return None;
        }
        pause();
    }
}

/// Gives the processor away for one poll interval.
#[expect(
    clippy::disallowed_methods,
    reason = "the one pause between two looks at a condition"
)]
pub(crate) fn pause() {
    std::thread::sleep(POLL);
}

/// A duration as people read it: `0.42 s`, `12.3 s`, `3 m 07 s`.
pub(crate) fn human(duration: Duration) -> String {
    let seconds = duration.as_secs_f64();
    if seconds < 10.0 {
        format!("{seconds:.2} s")
    } else if seconds < 60.0 {
        format!("{seconds:.1} s")
    } else {
        format!(
            "{} m {:02} s",
            duration.as_secs() / 60,
            duration.as_secs() % 60
        )
    }
}

#[cfg(test)]
mod tests {
    use super::{Duration, human, wait_for};

    #[test]
    fn durations_read_like_durations() {
        let cases = [(420, "0.42 s"), (12_340, "12.3 s"), (187_000, "3 m 07 s")];
        for (milliseconds, text) in cases {
            assert_eq!(human(Duration::from_millis(milliseconds)), text);
        }
    }

    #[test]
    fn waiting_ends_with_the_value_or_with_the_time() {
        let mut looks = 0;
        let found = wait_for(Duration::from_secs(60), || {
            looks += 1;
            (looks == 3).then_some(looks)
        });
        assert_eq!(found, Some(3));
        assert_eq!(wait_for(Duration::ZERO, || None::<()>), None);
    }
}
