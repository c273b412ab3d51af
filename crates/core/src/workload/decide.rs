//! What a command means in a state.

use super::machine::{
    Attempt, Command, End, Event, Goal, Kind, Outcome, Reason, ReasonCode, Refusal, State, Why,
    Workload,
};

impl Workload {
    /// Decides what a command means here, without doing it.
    ///
    /// An empty list means obeyed, nothing to do: a repeated command is no error.
    /// A report about an attempt other than the present one is refused first.
    pub fn decide(&self, command: &Command) -> Result<Vec<Event>, Refusal> {
        match command {
            Command::Place(placement) => match &self.state {
                State::Queued => {
                    let attempt = Attempt {
                        number: self.attempts + 1,
                        placement: placement.clone(),
                    };
                    Ok(vec![Event::Placed { attempt }])
                }
                State::Starting { .. }
                | State::Running { .. }
                | State::Stopping { .. }
                | State::Paused
                | State::Finished { .. } => Err(self.not_now()),
            },
            Command::Started { attempt } => self.started(*attempt),
            Command::Ended { attempt, end } => self.ended(*attempt, end),
            Command::Stop { by } => Ok(self.stop(*by)),
            Command::Pause => self.pause(),
            Command::Resume => self.resume(),
            Command::Retry => self.retry(),
        }
    }

    fn started(&self, attempt: u32) -> Result<Vec<Event>, Refusal> {
        self.fence(attempt)?;
        match &self.state {
            State::Starting { .. } => Ok(vec![Event::Started { attempt }]),
            State::Running { .. } | State::Stopping { .. } => Ok(vec![]),
            State::Queued | State::Paused | State::Finished { .. } => Err(Refusal::Stale(attempt)),
        }
    }

    fn ended(&self, attempt: u32, end: &End) -> Result<Vec<Event>, Refusal> {
        self.fence(attempt)?;
        match &self.state {
            State::Starting { .. } | State::Running { .. } => Ok(vec![self.end(attempt, end)]),
            // However it ended, it ended because it was asked to.
            State::Stopping {
                goal: Goal::Finish { by },
                ..
            } => Ok(vec![Event::Finished {
                outcome: Outcome::Stopped { by: *by },
            }]),
            State::Stopping {
                goal: Goal::Pause, ..
            } => Ok(vec![Event::Paused]),
            State::Queued | State::Paused | State::Finished { .. } => Err(Refusal::Stale(attempt)),
        }
    }

    /// The one event that the end of a running attempt comes to.
    fn end(&self, attempt: u32, end: &End) -> Event {
        let requeued = |why| Event::Requeued { attempt, why };
        let failed = |reason| Event::Finished {
            outcome: Outcome::Failed { reason },
        };
        match end {
            End::Succeeded => Event::Finished {
                outcome: Outcome::Succeeded,
            },
            End::Failed { reason } if self.failures < self.policy.retries => {
                requeued(Why::Failed {
                    reason: reason.clone(),
                })
            }
            End::Failed { reason } => failed(reason.clone()),
            End::Lost { message } if self.losses < self.policy.losses_max => requeued(Why::Lost {
                message: message.clone(),
            }),
            End::Lost { message } => failed(Reason {
                code: ReasonCode::Lost,
                message: format!("{message} (lost {} times)", self.losses + 1),
                exit_code: None,
            }),
            End::Interrupted if self.policy.auto_resume || self.kind == Kind::Session => {
                requeued(Why::Interrupted)
            }
            End::Interrupted => failed(Reason {
                code: ReasonCode::Interrupted,
                message: "its machine went away; run it with --auto_resume to have it go on"
                    .to_owned(),
                exit_code: None,
            }),
            End::Returned => requeued(Why::Returned),
            End::Stopped => Event::Finished {
                outcome: Outcome::Stopped { by: None },
            },
        }
    }

    fn stop(&self, by: Option<crate::id::UserId>) -> Vec<Event> {
        match &self.state {
            State::Queued | State::Paused => {
                vec![Event::Finished {
                    outcome: Outcome::Stopped { by },
                }]
            }
            State::Starting { .. } | State::Running { .. } => vec![Event::StopRequested { by }],
            // A pause under way becomes a stop.
            State::Stopping {
                goal: Goal::Pause, ..
            } => vec![Event::StopRequested { by }],
            State::Stopping {
                goal: Goal::Finish { .. },
                ..
            }
            | State::Finished { .. } => vec![],
        }
    }

    fn pause(&self) -> Result<Vec<Event>, Refusal> {
        if self.kind != Kind::Session {
            return Err(Refusal::NotASession);
        }
        match &self.state {
            State::Queued => Ok(vec![Event::Paused]),
            State::Starting { .. } | State::Running { .. } => Ok(vec![Event::PauseRequested]),
            State::Stopping { .. } | State::Paused => Ok(vec![]),
            State::Finished { .. } => Err(self.not_now()),
        }
    }

    fn resume(&self) -> Result<Vec<Event>, Refusal> {
        if self.kind != Kind::Session {
            return Err(Refusal::NotASession);
        }
        match &self.state {
            State::Paused => Ok(vec![Event::Resumed]),
            // It is on its way already: a wish that is repeated is no error.
            State::Queued | State::Starting { .. } | State::Running { .. } => Ok(vec![]),
            State::Stopping { .. } | State::Finished { .. } => Err(self.not_now()),
        }
    }

    fn retry(&self) -> Result<Vec<Event>, Refusal> {
        if self.kind != Kind::Experiment {
            // A session that is over is over; what it held is gone.
            return Err(self.not_now());
        }
        match &self.state {
            // Its parameters have their success: another one would be a duplicate.
            State::Finished {
                outcome: Outcome::Succeeded,
                ..
            } => Err(self.not_now()),
            State::Finished {
                outcome: Outcome::Failed { .. } | Outcome::Stopped { .. },
                ..
            } => Ok(vec![Event::Retried]),
            // It is being tried already.
            State::Queued | State::Starting { .. } | State::Running { .. } => Ok(vec![]),
            State::Stopping { .. } | State::Paused => Err(self.not_now()),
        }
    }

    fn fence(&self, attempt: u32) -> Result<(), Refusal> {
        match self.state.attempt() {
            Some(present) if present.number == attempt => Ok(()),
            _ => Err(Refusal::Stale(attempt)),
        }
    }

    fn not_now(&self) -> Refusal {
        Refusal::NotNow(self.state.status())
    }
}
