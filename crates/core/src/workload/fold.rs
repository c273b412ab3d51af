//! Folding events in: the only way a workload changes.

use super::machine::{Event, Goal, Kind, Outcome, State, Why, Workload};
use crate::id::WorkloadId;
use crate::time::Timestamp;

impl Workload {
    /// The workload that a log begins with.
    ///
    /// # Panics
    /// When `first` is not `Created`: a log which does not replay is corrupt,
    /// and continuing would spread it.
    pub fn created(id: WorkloadId, first: &Event, at: Timestamp) -> Self {
        let Event::Created { workload, policy } = first else {
            panic!("the log of {id} is corrupt: it begins with {first:?}");
        };
        Self {
            id,
            kind: *workload,
            policy: policy.clone(),
            state: State::Queued,
            attempts: 0,
            losses: 0,
            failures: 0,
            created_at: at,
            started_at: None,
            again: None,
        }
    }

    /// Folds one event in.
    ///
    /// # Panics
    /// On an event that [`Workload::decide`] cannot have produced in this state.
    pub fn apply(&mut self, event: &Event, at: Timestamp) {
        let Some(state) = self.next(event, at) else {
            let state = &self.state;
            panic!("the log of {} is corrupt: {event:?} in {state:?}", self.id);
        };
        self.count(event, at);
        self.state = state;
    }

    /// The state after `event`; `None` when it cannot happen in this one.
    fn next(&self, event: &Event, at: Timestamp) -> Option<State> {
        let present = self.state.attempt();
        let is_present = |number: &u32| {
            present
                .as_ref()
                .is_some_and(|attempt| attempt.number == *number)
        };
        match (&self.state, event) {
            (State::Queued, Event::Placed { attempt }) if attempt.number == self.attempts + 1 => {
                Some(State::Starting {
                    attempt: attempt.clone(),
                })
            }
            (State::Starting { attempt }, Event::Started { attempt: number })
                if is_present(number) =>
            {
                Some(State::Running {
                    attempt: attempt.clone(),
                    since: at,
                })
            }
            (
                State::Starting { .. } | State::Running { .. },
                Event::Requeued {
                    attempt: number, ..
                },
            ) if is_present(number) => Some(State::Queued),
            (
                State::Starting { attempt }
                | State::Running { attempt, .. }
                | State::Stopping {
                    attempt,
                    goal: Goal::Pause,
                },
                Event::StopRequested { by },
            ) => Some(State::Stopping {
                attempt: attempt.clone(),
                goal: Goal::Finish { by: *by },
            }),
            (
                State::Starting { attempt } | State::Running { attempt, .. },
                Event::PauseRequested,
            ) => Some(State::Stopping {
                attempt: attempt.clone(),
                goal: Goal::Pause,
            }),
            (
                State::Queued
                | State::Stopping {
                    goal: Goal::Pause, ..
                },
                Event::Paused,
            ) => Some(State::Paused),
            (State::Paused, Event::Resumed) => Some(State::Queued),
            (state, Event::Finished { outcome }) if may_finish(state, outcome) => {
                Some(State::Finished {
                    outcome: outcome.clone(),
                    at,
                })
            }
            (
                State::Finished {
                    outcome: Outcome::Failed { .. } | Outcome::Stopped { .. },
                    ..
                },
                Event::Retried,
            ) if self.kind == Kind::Experiment => Some(State::Queued),
            _ => None,
        }
    }

    /// Counts what the decisions to come depend on.
    fn count(&mut self, event: &Event, at: Timestamp) {
        match event {
            Event::Placed { attempt } => self.attempts = attempt.number,
            Event::Started { .. } => {
                self.started_at.get_or_insert(at);
            }
            Event::Requeued { why, .. } => {
                match why {
                    Why::Lost { .. } => self.losses += 1,
                    Why::Failed { .. } => self.failures += 1,
                    Why::Interrupted | Why::Returned => {}
                }
                self.again = Some(why.clone());
            }
            Event::Retried => {
                // A person starts afresh: the patience of the first try is given again.
                self.losses = 0;
                self.failures = 0;
                self.again = None;
            }
            Event::Created { .. }
            | Event::StopRequested { .. }
            | Event::PauseRequested
            | Event::Paused
            | Event::Resumed
            | Event::Finished { .. } => {}
        }
    }

    /// The workload that a whole log comes to.
    ///
    /// # Panics
    /// When the log is empty or does not replay.
    pub fn fold<'a>(id: WorkloadId, log: impl IntoIterator<Item = (&'a Event, Timestamp)>) -> Self {
        let mut log = log.into_iter();
        let Some((first, at)) = log.next() else {
            panic!("the log of {id} is corrupt: it is empty");
        };
        let mut workload = Self::created(id, first, at);
        for (event, at) in log {
            workload.apply(event, at);
        }
        workload
    }
}

/// What waits can only be stopped; what is being stopped can only have stopped.
fn may_finish(state: &State, outcome: &Outcome) -> bool {
    let stopped = matches!(outcome, Outcome::Stopped { .. });
    match state {
        State::Queued
        | State::Paused
        | State::Stopping {
            goal: Goal::Finish { .. },
            ..
        } => stopped,
        State::Starting { .. } | State::Running { .. } => true,
        State::Stopping {
            goal: Goal::Pause, ..
        }
        | State::Finished { .. } => false,
    }
}
