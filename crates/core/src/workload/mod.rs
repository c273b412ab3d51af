//! What the scheduler schedules: one state machine for experiments and sessions.
//!
//! [`Workload::decide`] says what a command means in the present state, as
//! events, without doing it; [`Workload::apply`] folds one event in.  Recovery is
//! replay through the same function, so `state = fold(events)` holds always.

mod decide;
mod fold;
mod machine;
mod reconcile;
mod table;

pub use machine::{
    Actor, Attempt, Command, End, Event, Goal, Kind, Outcome, Policy, Reason, ReasonCode, Refusal,
    State, Status, Why, Workload,
};
pub use reconcile::{Observed, Reconcile, reconcile};
pub use table::transition_table;
