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
    let order = [
        (counts.running, Status::Running),
        (counts.pending, Status::Pending),
        (counts.queued, Status::Queued),
        (counts.stopping, Status::Stopping),
        (counts.failed, Status::Failed),
        (counts.stopped, Status::Stopped),
        (counts.succeeded, Status::Succeeded),
    ];
    order
        .into_iter()
        .find(|(n, _)| *n > 0)
        .map_or(Status::Stopped, |(_, status)| status)
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
    }
}
