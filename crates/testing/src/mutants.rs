//! Planted bugs: a simulator that finds nothing proves nothing.
//!
//! Each is switched on at run time, through a hook in the simulator's glue; the
//! decisions of `grid-core` stay as they are.

use crate::sim;

/// A bug that somebody could write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mutant {
    /// What is being stopped counts as holding nothing.
    StoppingHoldsNothing,
    /// A report about any attempt is taken as one about the present attempt.
    NoFenceOnReports,
    /// A repeated launch is obeyed again.
    LaunchNotIdempotent,
    /// The stop of something queued is recorded as if it ran.
    WrongEventForStopOfQueued,
    /// The runner does not pass a stop on to the process.
    KillNeverSent,
    /// The runner is told to forget before the end is in the log.
    AcknowledgedBeforeCommitted,
    /// A runner that crashes loses its list of attempts.
    SpoolForgotten,
    /// A short silence counts as a loss, also of a patient node.
    SilenceIsLoss,
    /// What was sent ahead starts without free CPUs.
    PrefilledRunUnchecked,
    /// What is queued again still holds its place.
    BoardNotGivenBack,
    /// Any sync is taken as the latest.
    OldSyncIsNews,
    /// A sync of an earlier start of the runner is taken as the latest.
    EpochsNotOrdered,
    /// The runner obeys answers to calls that it has given up.
    OldAnswerObeyed,
    /// An attempt is missed before the order to launch it can have arrived.
    AbsenceBelievedAtOnce,
    /// What was seen before the state changed is compared with the state after.
    ObservedTooEarly,
    /// Launches that nobody fetched are kept after their attempt is over.
    OrdersNotWithdrawn,
    /// The runner counts silence from when an answer arrived.
    FenceFromArrival,
    /// Nobody counts silence while the runner is dead.
    FenceOnlyInRunner,
    /// A restarted runner starts what it has without asking.
    StartsWithoutContact,
    /// A restarted server takes all nodes to have been silent for long.
    SilenceCountedOverRestart,
    /// Ended attempts are never released.
    NeverForget,
    /// A killed process counts as one that succeeded.
    KilledCountsAsSuccess,
}

impl Mutant {
    /// All of them.
    pub const ALL: [Self; 22] = [
        Self::StoppingHoldsNothing,
        Self::NoFenceOnReports,
        Self::LaunchNotIdempotent,
        Self::WrongEventForStopOfQueued,
        Self::KillNeverSent,
        Self::AcknowledgedBeforeCommitted,
        Self::SpoolForgotten,
        Self::SilenceIsLoss,
        Self::PrefilledRunUnchecked,
        Self::BoardNotGivenBack,
        Self::OldSyncIsNews,
        Self::EpochsNotOrdered,
        Self::OldAnswerObeyed,
        Self::AbsenceBelievedAtOnce,
        Self::ObservedTooEarly,
        Self::OrdersNotWithdrawn,
        Self::FenceFromArrival,
        Self::FenceOnlyInRunner,
        Self::StartsWithoutContact,
        Self::SilenceCountedOverRestart,
        Self::NeverForget,
        Self::KilledCountsAsSuccess,
    ];

    /// What was planted, in words.
    pub const fn words(self) -> &'static str {
        match self {
            Self::StoppingHoldsNothing => "`Stopping` not counted as occupying its place",
            Self::NoFenceOnReports => "no attempt fence on reports",
            Self::LaunchNotIdempotent => "launch not idempotent at the runner",
            Self::WrongEventForStopOfQueued => "stop of a queued experiment emits the wrong event",
            Self::KillNeverSent => "kill never sent",
            Self::AcknowledgedBeforeCommitted => "acknowledged before committed",
            Self::SpoolForgotten => "runner forgets its spool on a crash",
            Self::SilenceIsLoss => "a short silence taken as a loss at once",
            Self::PrefilledRunUnchecked => "prefilled attempts run without free CPUs",
            Self::BoardNotGivenBack => "board not given back after a requeue",
            Self::OldSyncIsNews => "a late sync taken as the latest",
            Self::EpochsNotOrdered => "a late sync of an earlier runner taken as the latest",
            Self::OldAnswerObeyed => "an answer obeyed after its call was given up",
            Self::AbsenceBelievedAtOnce => "an attempt missed before its launch can have arrived",
            Self::ObservedTooEarly => "an old sync compared with a newer state",
            Self::OrdersNotWithdrawn => "a launch order kept after its attempt is over",
            Self::FenceFromArrival => "silence counted from the arrival of an answer",
            Self::FenceOnlyInRunner => "nobody counts silence while the runner is dead",
            Self::StartsWithoutContact => "a restarted runner starts attempts without asking",
            Self::SilenceCountedOverRestart => "silence counted over a restart of the server",
            Self::NeverForget => "ended attempts never released",
            Self::KilledCountsAsSuccess => "a killed process counted as a success",
        }
    }

    /// The name for the command line: `no-fence-on-reports`.
    pub fn name(self) -> String {
        let mut name = String::new();
        for letter in format!("{self:?}").chars() {
            if letter.is_ascii_uppercase() && !name.is_empty() {
                name.push('-');
            }
            name.push(letter.to_ascii_lowercase());
        }
        name
    }

    /// Reads the name.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|mutant| mutant.name() == name)
    }
}

/// How a planted bug was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// The first seed whose story shows it.
    pub seed: u64,
    /// As which broken promise.
    pub what: &'static str,
}

/// Looks for `mutant` in the stories of the seeds `from..from + seeds`.
pub fn hunt(mutant: Mutant, from: u64, seeds: u64) -> Option<Found> {
    (from..from.saturating_add(seeds)).find_map(|seed| {
        let broken = sim::tell(seed, Some(mutant), false).broken?;
        Some(Found {
            seed,
            what: broken.what,
        })
    })
}
