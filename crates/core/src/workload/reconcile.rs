//! Desired against observed, for one attempt.

use super::machine::{End, State};

/// What an executor sees of an attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Observed {
    /// Not seen, by an executor that can see.
    Nothing,
    /// Being prepared or running.
    Alive,
    /// Over, and how.
    Ended(End),
}

/// What to do about an attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reconcile {
    /// All is as it should be.
    Leave,
    /// Start it (again: the last order may have been lost).
    Launch,
    /// Record that it has ended.
    Report(End),
    /// Ask it to end.
    Stop,
    /// It has been recorded as over: the executor may forget it.
    Forget,
}

/// Compares what the log wants of an attempt with what the executor sees of it.
///
/// `wanted` is the state of the workload if this attempt is its present one, else
/// `None`.  Start, retry, crash recovery and the collection of orphans are all
/// this one table.
pub fn reconcile(wanted: Option<&State>, observed: &Observed) -> Reconcile {
    match (wanted, observed) {
        (Some(State::Starting { .. }), Observed::Nothing) => Reconcile::Launch,
        (Some(State::Running { .. }), Observed::Nothing) => Reconcile::Report(End::Lost {
            message: "its runner no longer has it".to_owned(),
        }),
        (Some(State::Starting { .. } | State::Running { .. }), Observed::Alive) => Reconcile::Leave,
        (Some(State::Stopping { .. }), Observed::Nothing) => Reconcile::Report(End::Stopped),
        (Some(State::Stopping { .. }), Observed::Alive) => Reconcile::Stop,
        (
            Some(State::Starting { .. } | State::Running { .. } | State::Stopping { .. }),
            Observed::Ended(end),
        ) => Reconcile::Report(end.clone()),
        (None | Some(State::Queued | State::Paused | State::Finished { .. }), observed) => {
            match observed {
                Observed::Nothing => Reconcile::Leave,
                Observed::Alive => Reconcile::Stop,
                Observed::Ended(_) => Reconcile::Forget,
            }
        }
    }
}
