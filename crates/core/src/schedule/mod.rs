//! Who runs next, and where: the queue, what is in use, and the plan.
//!
//! Everything is kept so that a plan costs what it places, not what waits: with
//! 10,000 experiments waiting for two CPUs a plan looks at two of them.

mod explain;
mod queue;

pub use explain::{Ahead, Waiting, never_fits};
pub use queue::{Board, PREFILL_MAX, Planned, RESERVE_AFTER_MS, Waiter};
