//! Who runs next, and where: the queue, what is in use, and the plan.
//!
//! Everything is kept so that a plan costs what it places and how many people
//! wait, not how much waits: with 10,000 experiments of a sweep waiting for two
//! CPUs a plan looks at two of them.

mod explain;
mod line;
mod queue;
mod seat;
#[cfg(test)]
mod tests;

pub use explain::{Ahead, Waiting, never_fits};
pub use queue::{Board, PREFILL_MAX, Planned, RESERVE_AFTER_MS, Waiter};
