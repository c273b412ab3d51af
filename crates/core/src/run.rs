//! A run: one spec, one or more experiments, and a status that is derived from them.

use serde::{Deserialize, Serialize};

use crate::workload::Status;

/// How many experiments of a run are in each status.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Counts {
    /// Waiting for a place.
    pub queued: u64,
    /// Being prepared.
    pub pending: u64,
    /// Running.
    pub running: u64,
    /// Being stopped.
    pub stopping: u64,
    /// Ended well.
    pub succeeded: u64,
    /// Ended badly.
    pub failed: u64,
    /// Stopped.
    pub stopped: u64,
}

/// The statuses that a run can have, in the order in which they decide: what is liveliest
/// comes first, and once nothing is lively, the worst.
pub const DECISIVE: [Status; 7] = [
    Status::Running,
    Status::Pending,
    Status::Queued,
    Status::Stopping,
    Status::Failed,
    Status::Stopped,
    Status::Succeeded,
];

/// Those of [`DECISIVE`] in which a run goes on.
pub const OPEN: [Status; 4] = [
    Status::Running,
    Status::Pending,
    Status::Queued,
    Status::Stopping,
];

/// Those of [`DECISIVE`] in which a run is over.
pub const ENDED: [Status; 3] = [Status::Failed, Status::Stopped, Status::Succeeded];

/// The status of a run none of whose experiments is left.
pub const WHEN_EMPTY: Status = Status::Stopped;

/// What an experiment in `status` counts as in its run: one of [`DECISIVE`].
pub const fn counted_as(status: Status) -> Status {
    match status {
        Status::Paused => Status::Queued,
        other => other,
    }
}

impl Counts {
    /// Adds `n` experiments in `status`.
    pub fn add(&mut self, status: Status, n: u64) {
        let slot = match status {
            Status::Queued | Status::Paused => &mut self.queued,
            Status::Pending => &mut self.pending,
            Status::Running => &mut self.running,
            Status::Stopping => &mut self.stopping,
            Status::Succeeded => &mut self.succeeded,
            Status::Failed => &mut self.failed,
            Status::Stopped => &mut self.stopped,
        };
        *slot += n;
    }

    /// How many count as `status`.
    pub const fn of(&self, status: Status) -> u64 {
        match counted_as(status) {
            Status::Queued | Status::Paused => self.queued,
            Status::Pending => self.pending,
            Status::Running => self.running,
            Status::Stopping => self.stopping,
            Status::Succeeded => self.succeeded,
            Status::Failed => self.failed,
            Status::Stopped => self.stopped,
        }
    }

    /// All experiments.
    pub fn total(&self) -> u64 {
        self.open() + self.succeeded + self.failed + self.stopped
    }

    /// Experiments that have not ended.
    pub fn open(&self) -> u64 {
        self.queued + self.pending + self.running + self.stopping
    }
}

/// The status of a run, from its experiments: what is liveliest in it, and once
/// nothing is, the worst that happened.  An empty run (all deleted) has stopped.
pub fn status(counts: &Counts) -> Status {
    DECISIVE
        .into_iter()
        .find(|status| counts.of(*status) > 0)
        .unwrap_or(WHEN_EMPTY)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(statuses: &[Status], expected: Status) {
        let mut counts = Counts::default();
        for s in statuses {
            counts.add(*s, 1);
        }
        assert_eq!(status(&counts), expected, "{statuses:?}");
        assert_eq!(counts.total(), statuses.len() as u64);
    }

    #[test]
    fn a_run_is_what_is_liveliest_in_it_then_the_worst() {
        use Status::{Failed, Pending, Queued, Running, Stopped, Stopping, Succeeded};
        check(&[Queued, Running, Failed], Running);
        check(&[Queued, Pending, Succeeded], Pending);
        check(&[Queued, Succeeded], Queued);
        check(&[Stopping, Failed], Stopping);
        check(&[Succeeded, Failed, Stopped], Failed);
        check(&[Succeeded, Stopped], Stopped);
        check(&[Succeeded], Succeeded);
        check(&[], Stopped);
        check(&[Status::Paused, Succeeded], Queued);
    }

    #[test]
    fn every_status_counts_as_one_that_decides() {
        assert!(OPEN.iter().chain(&ENDED).eq(&DECISIVE));
        assert!(OPEN.iter().all(|status| !status.is_final()));
        assert!(ENDED.iter().all(|status| status.is_final()));
        for status in Status::ALL {
            let mut counts = Counts::default();
            counts.add(status, 3);
            assert!(DECISIVE.contains(&counted_as(status)));
            assert_eq!(counts.of(status), 3, "{status:?}");
            assert_eq!(super::status(&counts), counted_as(status));
        }
    }
}
