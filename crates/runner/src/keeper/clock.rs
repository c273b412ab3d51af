//! The keeper's clocks: one to stamp what people read, one to wait by.

use rustix::time::{ClockId, clock_gettime};

/// Milliseconds since 1970.  May jump; never used to decide anything.
pub(crate) fn wall_ms() -> i64 {
    millis(ClockId::Realtime)
}

/// Milliseconds of a clock that never jumps.
pub(crate) fn steady_ms() -> i64 {
    millis(ClockId::Monotonic)
}

fn millis(clock: ClockId) -> i64 {
    let now = clock_gettime(clock);
    now.tv_sec * 1_000 + now.tv_nsec / 1_000_000
}

/// Rests.  Only before the loop runs: nobody is served meanwhile.
pub(crate) fn rest_ms(millis: i64) {
    let time = rustix::time::Timespec {
        tv_sec: millis / 1_000,
        tv_nsec: millis % 1_000 * 1_000_000,
    };
    let _ = rustix::event::poll(&mut [], Some(&time));
}
