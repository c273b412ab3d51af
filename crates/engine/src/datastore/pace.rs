//! How fast a source has to be that the server fetches.
//!
//! One that sends a byte now and then is never silent, and would hold a turn, a connection and
//! a version that is never ready for as long as it likes.  So what comes is counted against
//! the time for which it was waited.  What the server itself takes its time for does not
//! count: then nobody waits for the source.

use std::pin::pin;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// Bytes that come of a source in each [`PACE_TIME`] for which it is waited for: 16 KiB a
/// second.  Higher: honest sources at the end of slow lines (256 kbit/s and a pause now and
/// then) are given up; lower: those that trickle keep a turn for longer.
const PACE_BYTES_MIN: u64 = 300 * (16 << 10);

/// See [`PACE_BYTES_MIN`].  Higher: those that trickle keep a turn for longer; lower: sources
/// that stop for a while, to pack what comes next, are given up.
pub(super) const PACE_TIME: Duration = Duration::from_secs(300);

/// Bytes that an object of a bucket counts for beside its own: it takes a question and an
/// answer.  Higher: a bucket may trickle small objects; lower: buckets of very small ones are
/// given up.
pub(super) const OBJECT_BYTES: u64 = 16 << 10;

/// What came, and for how long it was waited.
#[derive(Debug, Default)]
pub(super) struct Pace(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// How many wait for something of the source.
    waiting: usize,
    /// Since when one does, or since it was counted.
    since: Option<Instant>,
    waited: Duration,
    came: u64,
    is_too_slow: bool,
}

/// A source is slower than is waited for.
#[derive(Debug, Clone, Copy, thiserror::Error)]
#[error(
    "it sends less than {} KiB in a second, over {} minutes; it is tried again when others had \
     their turn: if it stays so slow, download it by other means, and create the datastore \
     from the files",
    (PACE_BYTES_MIN / PACE_TIME.as_secs()) >> 10,
    PACE_TIME.as_secs() / 60
)]
pub(super) struct TooSlow;

/// That somebody waits, until it is dropped.
struct Waiting<'a>(&'a Pace);

impl Pace {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for something of the source.
    pub(super) async fn wait<T>(&self, something: impl Future<Output = T>) -> T {
        let something = pin!(something);
        {
            let mut state = self.lock();
            state.waiting += 1;
            state.since.get_or_insert_with(Instant::now);
        }
        let _waiting = Waiting(self);
        something.await
    }

    /// Counts what came.
    pub(super) fn came(&self, bytes: u64) -> Result<(), TooSlow> {
        let mut state = self.lock();
        state.came = state.came.saturating_add(bytes);
        state.count();
        if state.waited >= PACE_TIME {
            state.is_too_slow |= state.came < PACE_BYTES_MIN;
            (state.waited, state.came) = (Duration::ZERO, 0);
        }
        match state.is_too_slow {
            true => Err(TooSlow),
            false => Ok(()),
        }
    }

    /// Whether it was, once.
    pub(super) fn is_too_slow(&self) -> bool {
        self.lock().is_too_slow
    }
}

impl State {
    /// Adds what was waited until now.
    fn count(&mut self) {
        let now = Instant::now();
        if let Some(since) = self.since {
            self.waited += now - since;
            self.since = (self.waiting > 0).then_some(now);
        }
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.waiting -= 1;
        state.count();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A pause in which nobody has anything to do: the clock of these tests moves then.
    async fn moment(time: Duration) {
        let over = tokio::time::timeout(time, std::future::pending::<()>()).await;
        assert!(over.is_err());
    }

    /// Whether a source that sends so much, after such a pause each, is too slow within an hour.
    async fn is_slow(bytes: u64, pause: Duration, at_once: usize) -> bool {
        let pace = Pace::default();
        let began = Instant::now();
        while began.elapsed() < Duration::from_secs(3_600) {
            let waits = (0..at_once).map(|_| pace.wait(moment(pause)));
            futures::future::join_all(waits).await;
            if pace.came(bytes).is_err() {
                assert!(pace.is_too_slow());
                return true;
            }
        }
        assert!(!pace.is_too_slow());
        false
    }

    #[tokio::test(start_paused = true)]
    async fn who_trickles_is_too_slow_and_who_is_slow_is_not() {
        let second = Duration::from_secs(1);
        for (bytes, pause, at_once, expected) in [
            (1, 5 * second, 1, true),
            (1, 5 * second, 16, true),
            (15 << 10, second, 1, true),
            (17 << 10, second, 1, false),
            // However many wait at a time, it is one time.
            (17 << 10, second, 16, false),
            // What packs for two minutes and sends then.
            (4 << 20, 120 * second, 1, false),
            (OBJECT_BYTES + 10, second / 2, 16, false),
        ] {
            let found = is_slow(bytes, pause, at_once).await;
            assert_eq!(found, expected, "{bytes} {pause:?} {at_once}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_we_take_our_time_for_does_not_count() {
        let pace = Pace::default();
        for _ in 0..100 {
            pace.wait(moment(Duration::from_secs(1))).await;
            assert!(pace.came(64 << 10).is_ok());
            moment(Duration::from_secs(600)).await;
        }
        // Who gives up waiting leaves nothing behind.
        let wait = pace.wait(std::future::pending::<()>());
        let over = tokio::time::timeout(Duration::from_secs(1), wait).await;
        assert!(over.is_err());
        assert_eq!(pace.lock().waiting, 0);
        assert!(pace.lock().since.is_none());
    }
}
