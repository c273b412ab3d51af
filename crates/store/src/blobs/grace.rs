//! Which blobs were stored or asked for lately, and so must not be deleted yet.
//!
//! Two sets of short hashes, the older of which is dropped once per grace period: a
//! blob stays for one to two periods.  Time is monotonic, so that a clock that is set
//! deletes nothing.  Nothing of it is on disk: after opening, everything is young for
//! one period.

use std::collections::HashSet;
use std::mem;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use grid_core::blob::BlobId;
use tokio::time::Instant;

/// Blobs that one period remembers, at some 10 to 20 bytes each.
/// Higher: more memory while very many blobs are uploaded.  Lower: a period with more
/// blobs than this keeps every blob, and nothing is deleted.
const TOUCHED_MAX: usize = 2_000_000;

pub(super) struct Grace {
    period: Duration,
    touched: Mutex<Touched>,
}

struct Touched {
    since: Instant,
    now: Generation,
    before: Generation,
}

#[derive(Default)]
struct Generation {
    ids: HashSet<u64>,
    all: bool,
}

impl Generation {
    fn has(&self, key: u64) -> bool {
        self.all || self.ids.contains(&key)
    }
}

impl Grace {
    pub(super) fn new(period: Duration) -> Self {
        Self {
            period,
            touched: Mutex::new(Touched {
                since: Instant::now(),
                now: Generation::default(),
                before: Generation {
                    ids: HashSet::new(),
                    all: true,
                },
            }),
        }
    }

    /// Begins the grace of these blobs anew.
    pub(super) fn touch(&self, ids: &[BlobId]) {
        self.touch_at(ids, Instant::now());
    }

    /// Whether a blob is within its grace.
    pub(super) fn covers(&self, id: BlobId) -> bool {
        self.covers_at(id, Instant::now())
    }

    fn touch_at(&self, ids: &[BlobId], now: Instant) {
        if self.period.is_zero() {
            return;
        }
        let mut touched = self.touched.lock().unwrap_or_else(PoisonError::into_inner);
        touched.turn(now, self.period);
        let generation = &mut touched.now;
        if generation.ids.len() + ids.len() > TOUCHED_MAX {
            generation.all = true;
            generation.ids = HashSet::new();
        }
        if !generation.all {
            generation.ids.extend(ids.iter().map(key));
        }
    }

    fn covers_at(&self, id: BlobId, now: Instant) -> bool {
        if self.period.is_zero() {
            return false;
        }
        let mut touched = self.touched.lock().unwrap_or_else(PoisonError::into_inner);
        touched.turn(now, self.period);
        touched.now.has(key(&id)) || touched.before.has(key(&id))
    }
}

impl Touched {
    fn turn(&mut self, now: Instant, period: Duration) {
        let passed = now.saturating_duration_since(self.since);
        if passed >= period {
            self.since = now;
            let last = mem::take(&mut self.now);
            // What was touched in the last generation is over too if nobody asked for
            // two whole periods.
            self.before = if passed >= period * 2 {
                Generation::default()
            } else {
                last
            };
        }
    }
}

/// Two blobs that share this are kept together: that is harmless.
fn key(id: &BlobId) -> u64 {
    let [a, b, c, d, e, f, g, h, ..] = *id.as_bytes();
    u64::from_le_bytes([a, b, c, d, e, f, g, h])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_blob_is_kept_for_at_least_the_period_and_less_than_two() {
        let period = Duration::from_secs(100);
        let at = |s| Instant::now() + Duration::from_secs(s);
        let [old, young, never] = [1, 2, 3].map(|n| BlobId::from_bytes([n; 32]));
        let grace = Grace::new(period);
        // Everything is young after opening.
        assert!(grace.covers_at(never, at(0)));
        assert!(grace.covers_at(never, at(90)));
        grace.touch_at(&[old], at(95));
        assert!(!grace.covers_at(never, at(101)));
        grace.touch_at(&[young], at(150));
        assert!(grace.covers_at(old, at(194)));
        assert!(grace.covers_at(young, at(249)));
        assert!(!grace.covers_at(old, at(295)));
        assert!(!grace.covers_at(young, at(500)));
    }
}
