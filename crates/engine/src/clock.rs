//! The one place that reads the clock and draws entropy.

use grid_core::time::Timestamp;

/// Where time and entropy come from.
pub trait Clock: Send + Sync {
    /// The time of day, for people.
    fn now(&self) -> Timestamp;
    /// 128 bits that nobody can guess.
    fn entropy(&self) -> u128;
}

/// The machine's.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        #[expect(
            clippy::disallowed_methods,
            reason = "this is the clock that everybody else is given"
        )]
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        let millis = since.map_or(0, |since| {
            i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
        });
        Timestamp::from_millis(millis)
    }

    #[expect(
        clippy::disallowed_methods,
        reason = "this is where entropy comes from"
    )]
    fn entropy(&self) -> u128 {
        rand::random()
    }
}
