//! The runner's clock for what people read.  Waiting goes by tokio's clock, which
//! never jumps.

use rustix::time::{ClockId, clock_gettime};

/// Milliseconds since 1970.  May jump; never used to decide anything.
pub(crate) fn wall_ms() -> i64 {
    let now = clock_gettime(ClockId::Realtime);
    now.tv_sec * 1_000 + now.tv_nsec / 1_000_000
}
