//! The words of the machine: states, commands, events, refusals.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::cluster::Placement;
use crate::id::{UserId, WorkloadId};
use crate::time::Timestamp;

/// What kind of workload; says what an ended attempt means.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Runs a script to its end.
    Experiment,
    /// An interactive machine that can be paused and resumed.
    Session,
}

/// How patient a workload is with its attempts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Policy {
    /// How many attempts may be lost (machine or runner died) before it has failed.
    pub losses_max: u32,
    /// How many attempts may fail on their own before it has failed (`--retries`).
    pub retries: u32,
    /// Whether an interrupted attempt is started again (`--auto_resume`).
    pub auto_resume: bool,
}

/// A workload: its state and what the decision about it depends on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Workload {
    /// Its id.
    pub id: WorkloadId,
    /// Experiment or session.
    pub kind: Kind,
    /// How patient it is.
    pub policy: Policy,
    /// Where it stands.
    pub state: State,
    /// The highest attempt number given so far; the next attempt is one more.
    pub attempts: u32,
    /// Attempts that were lost.
    pub losses: u32,
    /// Attempts that failed on their own and were tried again.
    pub failures: u32,
    /// When it was created.
    pub created_at: Timestamp,
    /// When its first attempt started to run.
    pub started_at: Option<Timestamp>,
    /// Why it waits again, after an attempt that did not count as its end.
    pub again: Option<Why>,
}

/// The precise state; each variant holds exactly what is true then.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum State {
    /// Waits for a place.
    Queued,
    /// Has a place; its code and environment are being prepared there.
    Starting { attempt: Attempt },
    /// The user's process runs.
    Running { attempt: Attempt, since: Timestamp },
    /// Was asked to end and has not ended yet.
    Stopping { attempt: Attempt, goal: Goal },
    /// A session that holds nothing and can be resumed.
    Paused,
    /// Over; only a person's wish to try it again changes that, and never after a success.
    Finished { outcome: Outcome, at: Timestamp },
}

/// The attempt under way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attempt {
    /// Its number, from 1.
    pub number: u32,
    /// Where it is.
    pub placement: Placement,
}

/// What a stop is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Goal {
    /// To be over.
    Finish { by: Option<UserId> },
    /// To be paused (sessions).
    Pause,
}

/// How a workload ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "outcome", rename_all = "snake_case")]
pub enum Outcome {
    /// Exit code 0, and everything it left is stored.
    Succeeded,
    /// It failed, and why.
    Failed { reason: Reason },
    /// Somebody stopped it.
    Stopped { by: Option<UserId> },
}

/// Why something failed: a code for programs, a sentence for people.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reason {
    /// For programs.
    pub code: ReasonCode,
    /// For people; says what happened, and to what.
    pub message: String,
    /// The exit code of the process, where it had one.
    pub exit_code: Option<i32>,
}

/// The kinds of failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReasonCode {
    /// The script ended with an exit code other than 0.
    ExitCode,
    /// The script was killed by a signal that we did not send.
    Signal,
    /// The kernel killed it because it used more memory than it had been given.
    OutOfMemory,
    /// It ran longer than `--max-duration`.
    MaxDuration,
    /// Its environment could not be built.
    Build,
    /// One of its actions failed.
    Action,
    /// It could not be started: code missing, no such program, no right to.
    Start,
    /// Too many of its attempts were lost.
    Lost,
    /// It was interrupted, and does not resume.
    Interrupted,
}

/// Why an attempt ended and the workload goes on waiting.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "why", rename_all = "snake_case")]
pub enum Why {
    /// The attempt was lost with its runner or its machine.
    Lost { message: String },
    /// The machine was needed or went down for a known reason; the script saved and ended.
    Interrupted,
    /// The runner gave it back before it started.
    Returned,
    /// It failed, and retries are left.
    Failed { reason: Reason },
}

/// How an attempt ended, as reported.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "end", rename_all = "snake_case")]
pub enum End {
    /// The process ended by itself with exit code 0 and everything is stored.
    Succeeded,
    /// It failed.
    Failed { reason: Reason },
    /// It is gone and nobody saw how.
    Lost { message: String },
    /// It was asked to end because its machine goes away, and did.
    Interrupted,
    /// It never started here and may start elsewhere.
    Returned,
    /// It ended because it was asked to.
    Stopped,
}

/// A wish or a report: the input of [`Workload::decide`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// The scheduler found a place.
    Place(Placement),
    /// The runner reports that the user's process runs.
    Started { attempt: u32 },
    /// The runner (or the engine, for a lost one) reports the end of an attempt.
    Ended { attempt: u32, end: End },
    /// Somebody wants it to be over.
    Stop { by: Option<UserId> },
    /// Somebody wants a session paused.
    Pause,
    /// Somebody wants a session resumed.
    Resume,
    /// Somebody wants a failed or stopped experiment tried once more, in place.
    Retry,
}

/// A fact of the log.  Variants are only ever added.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Event {
    /// It exists.
    Created { workload: Kind, policy: Policy },
    /// It has a place, and with it an attempt.
    Placed { attempt: Attempt },
    /// The user's process runs.
    Started { attempt: u32 },
    /// The attempt is over; it waits for the next.
    Requeued { attempt: u32, why: Why },
    /// Somebody asked for its end; what runs is being stopped.
    StopRequested { by: Option<UserId> },
    /// Somebody asked for a pause; what runs is being stopped.
    PauseRequested,
    /// It is paused.
    Paused,
    /// It waits for a place again.
    Resumed,
    /// It is over.
    Finished { outcome: Outcome },
    /// Somebody asked for one more try after it had failed or been stopped.
    Retried,
}

/// Why a command was not obeyed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The report is about an attempt that is not the present one.
    #[error("attempt {0} is not the present one")]
    Stale(u32),
    /// The command makes no sense in this state.
    #[error("not possible while it is {0}")]
    NotNow(Status),
    /// The command is not for this kind of workload.
    #[error("an experiment cannot be paused or resumed")]
    NotASession,
}

/// The word for a state that people see and databases index.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub enum Status {
    /// Waits for a place.
    Queued,
    /// Has a place and is being prepared.
    Pending,
    /// The process runs.
    Running,
    /// Was asked to end.
    Stopping,
    /// A paused session.
    Paused,
    /// Ended well.
    Succeeded,
    /// Ended badly.
    Failed,
    /// Was stopped.
    Stopped,
}

impl Status {
    /// All of them, in the order in which a workload can reach them.
    pub const ALL: [Self; 8] = [
        Self::Queued,
        Self::Pending,
        Self::Running,
        Self::Stopping,
        Self::Paused,
        Self::Succeeded,
        Self::Failed,
        Self::Stopped,
    ];

    /// The word.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Pending => "pending",
            Self::Running => "running",
            Self::Stopping => "stopping",
            Self::Paused => "paused",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Stopped => "stopped",
        }
    }

    /// Whether nothing can change any more.
    pub const fn is_final(self) -> bool {
        matches!(self, Self::Succeeded | Self::Failed | Self::Stopped)
    }

    /// Reads the word.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|status| status.as_str() == text)
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl State {
    /// The word for this state.
    pub const fn status(&self) -> Status {
        match self {
            Self::Queued => Status::Queued,
            Self::Starting { .. } => Status::Pending,
            Self::Running { .. } => Status::Running,
            Self::Stopping { .. } => Status::Stopping,
            Self::Paused => Status::Paused,
            Self::Finished { outcome, .. } => match outcome {
                Outcome::Succeeded => Status::Succeeded,
                Outcome::Failed { .. } => Status::Failed,
                Outcome::Stopped { .. } => Status::Stopped,
            },
        }
    }

    /// The attempt under way, if there is one.
    pub const fn attempt(&self) -> Option<&Attempt> {
        match self {
            Self::Starting { attempt }
            | Self::Running { attempt, .. }
            | Self::Stopping { attempt, .. } => Some(attempt),
            Self::Queued | Self::Paused | Self::Finished { .. } => None,
        }
    }

    /// When it ended, if it did.
    pub const fn finished_at(&self) -> Option<Timestamp> {
        match self {
            Self::Finished { at, .. } => Some(*at),
            _ => None,
        }
    }
}

/// Who caused an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Actor {
    /// A person, by API.
    User(UserId),
    /// The control loop.
    Engine,
    /// The runner that has the given attempt.
    Runner(u32),
}
