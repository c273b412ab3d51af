//! The clock of this program: the only place that asks what time it is.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

use grid_core::time::Timestamp;

/// Now, as people write it.
#[expect(
    clippy::disallowed_methods,
    reason = "this is the program's clock module"
)]
pub(crate) fn now() -> Timestamp {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    Timestamp::from_millis(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}

/// Now, for measuring how long something takes.
#[expect(
    clippy::disallowed_methods,
    reason = "this is the program's clock module"
)]
pub(crate) fn instant() -> Instant {
    Instant::now()
}
