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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::Placement;
    use crate::time::Timestamp;
    use crate::workload::{Attempt, Goal, Outcome};

    fn wanted(word: &str) -> Option<State> {
        let node = "local".parse().expect("a valid name");
        let placement = Placement {
            node,
            cpus: 1,
            gpus: vec![],
            memory_bytes: 0,
        };
        let attempt = Attempt {
            number: 1,
            placement,
        };
        let at = Timestamp::from_millis(0);
        Some(match word {
            "starting" => State::Starting { attempt },
            "running" => State::Running { attempt, since: at },
            "stopping" => State::Stopping {
                attempt,
                goal: Goal::Finish { by: None },
            },
            "pausing" => State::Stopping {
                attempt,
                goal: Goal::Pause,
            },
            "queued" => State::Queued,
            "paused" => State::Paused,
            "finished" => State::Finished {
                outcome: Outcome::Succeeded,
                at,
            },
            "another attempt" => return None,
            _ => unreachable!("{word}"),
        })
    }

    #[test]
    fn each_cell_is_as_agreed() {
        let lost = Reconcile::Report(End::Lost {
            message: "its runner no longer has it".to_owned(),
        });
        let stopped = Reconcile::Report(End::Stopped);
        let report = Reconcile::Report(End::Succeeded);
        let gone = [Reconcile::Leave, Reconcile::Stop, Reconcile::Forget];
        // wanted | nothing | alive | ended
        let table = [
            (
                "starting",
                [Reconcile::Launch, Reconcile::Leave, report.clone()],
            ),
            ("running", [lost, Reconcile::Leave, report.clone()]),
            (
                "stopping",
                [stopped.clone(), Reconcile::Stop, report.clone()],
            ),
            ("pausing", [stopped, Reconcile::Stop, report]),
            ("queued", gone.clone()),
            ("paused", gone.clone()),
            ("finished", gone.clone()),
            ("another attempt", gone),
        ];
        for (word, cells) in table {
            let state = wanted(word);
            let observed = [
                Observed::Nothing,
                Observed::Alive,
                Observed::Ended(End::Succeeded),
            ];
            for (observed, expected) in observed.iter().zip(cells) {
                assert_eq!(
                    reconcile(state.as_ref(), observed),
                    expected,
                    "{word}, {observed:?}"
                );
            }
        }
    }
}
