//! Wrong keys: so many a minute for one user from one address, and no more are tried.
//!
//! It takes a fixed amount of memory whoever tries how often.  One who tries does not lock
//! another out: what counts is the pair of user and address, and a key that was right a
//! while ago is let in whatever others try from the same address.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// Wrong keys in one window.  Higher: more guesses; lower: a program with an old key keeps
/// its user from signing in.
const FAILURES_MAX: u32 = 20;

/// How long failures count.
const WINDOW: Duration = Duration::from_secs(60);

/// How long a key that was right is let in unasked.
const KNOWN: Duration = Duration::from_secs(15 * 60);

/// Pairs and keys that are remembered (24 bytes each).  Higher: more memory; lower: under
/// an attack from many addresses failures are forgotten sooner.
const SLOTS: usize = 1 << 14;

#[derive(Clone, Copy)]
struct Slot {
    tag: u64,
    since: Instant,
    count: u32,
}

/// Remembers failures, and keys that were right.
pub(crate) struct Guard {
    /// Makes places that nobody can choose.
    secret: [u8; 32],
    failures: Mutex<Vec<Option<Slot>>>,
    known: Mutex<Vec<Option<Slot>>>,
}

impl Guard {
    pub(crate) fn new(secret: [u8; 32]) -> Self {
        Self {
            secret,
            failures: Mutex::new(vec![None; SLOTS]),
            known: Mutex::new(vec![None; SLOTS]),
        }
    }

    /// Whether no more keys are tried of `user` from `address`.
    pub(crate) fn is_closed(&self, user: &str, address: &str, now: Instant) -> bool {
        let (place, tag) = self.place(&[user, address]);
        let slots = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        slots[place].is_some_and(|slot| {
            slot.tag == tag && is_within(now, slot.since, WINDOW) && slot.count >= FAILURES_MAX
        })
    }

    /// A wrong key was tried.
    pub(crate) fn failed(&self, user: &str, address: &str, now: Instant) {
        let (place, tag) = self.place(&[user, address]);
        let mut slots = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        let count = match slots[place] {
            Some(slot) if slot.tag == tag && is_within(now, slot.since, WINDOW) => {
                slots[place] = Some(Slot {
                    count: slot.count.saturating_add(1),
                    ..slot
                });
                return;
            }
            _ => 1,
        };
        slots[place] = Some(Slot {
            tag,
            since: now,
            count,
        });
    }

    /// A key was right.
    pub(crate) fn succeeded(&self, key_hash: &str, now: Instant) {
        let (place, tag) = self.place(&[key_hash]);
        let mut slots = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        slots[place] = Some(Slot {
            tag,
            since: now,
            count: 0,
        });
    }

    /// Whether a key was right lately.
    pub(crate) fn knows(&self, key_hash: &str, now: Instant) -> bool {
        let (place, tag) = self.place(&[key_hash]);
        let slots = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        slots[place].is_some_and(|slot| slot.tag == tag && is_within(now, slot.since, KNOWN))
    }

    /// Where something is remembered, and what tells it from others of the same place.
    fn place(&self, parts: &[&str]) -> (usize, u64) {
        let mut hasher = blake3::Hasher::new_keyed(&self.secret);
        for part in parts {
            hasher.update(&(part.len() as u64).to_le_bytes());
            hasher.update(part.as_bytes());
        }
        let hash = hasher.finalize();
        let number = |from: usize| {
            let mut bytes = [0; 8];
            bytes.copy_from_slice(&hash.as_bytes()[from..from + 8]);
            u64::from_le_bytes(bytes)
        };
        #[expect(
            clippy::cast_possible_truncation,
            reason = "the remainder is less than the number of slots"
        )]
        let place = (number(0) % SLOTS as u64) as usize;
        (place, number(8))
    }
}

fn is_within(now: Instant, since: Instant, limit: Duration) -> bool {
    now.saturating_duration_since(since) < limit
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_who_tries_locks_nobody_else_out() {
        let (guard, now) = (Guard::new([1; 32]), Instant::now());
        for _ in 0..FAILURES_MAX {
            assert!(!guard.is_closed("ada", "10.0.0.1", now));
            guard.failed("ada", "10.0.0.1", now);
        }
        assert!(guard.is_closed("ada", "10.0.0.1", now));
        assert!(!guard.is_closed("ada", "10.0.0.2", now), "another address");
        assert!(!guard.is_closed("bob", "10.0.0.1", now), "another user");
        assert!(!guard.knows("hash", now));
        guard.succeeded("hash", now);
        assert!(guard.knows("hash", now), "whatever others try");
        let later = now + WINDOW;
        assert!(!guard.is_closed("ada", "10.0.0.1", later), "for a while");
        assert!(!guard.knows("hash", now + KNOWN));
    }

    #[test]
    fn memory_is_bounded_whoever_tries() {
        let guard = Guard::new([1; 32]);
        for n in 0..SLOTS * 2 {
            guard.failed("ada", &n.to_string(), Instant::now());
        }
        assert_eq!(
            guard.failures.lock().map(|slots| slots.len()).ok(),
            Some(SLOTS)
        );
    }
}
