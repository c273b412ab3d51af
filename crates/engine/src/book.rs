//! What is open, in memory: every workload that has not ended, and the board.
//!
//! The database is the truth; this is a cache that only the recorder writes
//! after it has committed, so that a turn reads nothing that is finished and
//! nothing that has not changed.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use grid_core::cluster::Need;
use grid_core::id::{AttemptId, NodeId, TeamId, UserId, WorkloadId};
use grid_core::schedule::{Board, Waiter};
use grid_core::spec::RunSpec;
use grid_core::time::Timestamp;
use grid_core::workload::{State, Workload};

use crate::access::Caller;

/// How far ahead a node is fed, in milliseconds of work.  Higher: short
/// experiments stick to a busy node; lower: the node waits for a turn between two.
const PREFILL_HORIZON_MS: f64 = 60.0;

/// How much one more duration moves the average.
const DURATION_WEIGHT: f64 = 0.2;

/// An open workload.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub(crate) workload: Workload,
    /// Number of events in its log.
    pub(crate) version: u64,
    pub(crate) run: Arc<RunInfo>,
    /// What a launch needs to know; read from the database when it is needed, unless
    /// this server made the run.
    pub(crate) details: Option<Arc<Details>>,
    /// When it began to wait; its rank in the queue.
    pub(crate) since: Timestamp,
}

impl Entry {
    /// The attempt under way and its node.
    pub(crate) fn attempt(&self) -> Option<(AttemptId, &NodeId)> {
        let attempt = self.workload.state.attempt()?;
        let id = AttemptId {
            workload: self.workload.id,
            number: attempt.number,
        };
        Some((id, &attempt.placement.node))
    }
}

/// What sets an experiment apart from others of its run.
#[derive(Debug)]
pub(crate) struct Details {
    pub(crate) index: u32,
    pub(crate) params: Vec<(String, String)>,
    pub(crate) args: Vec<String>,
}

/// What the experiments of a run have in common.
#[derive(Debug)]
pub(crate) struct RunInfo {
    pub(crate) name: String,
    pub(crate) owner: UserId,
    pub(crate) team: TeamId,
    pub(crate) username: String,
    pub(crate) spec: RunSpec,
    pub(crate) program: Vec<String>,
    pub(crate) need: Need,
}

/// Everything that is open.
#[derive(Default)]
pub(crate) struct Book {
    pub(crate) board: Board,
    entries: HashMap<WorkloadId, Arc<Entry>>,
    /// Those with an attempt under way.
    placed: BTreeSet<WorkloadId>,
    /// How long attempts lately took, per node, in milliseconds.
    durations: HashMap<NodeId, f64>,
    /// User names of those who had something open since the server began, and in which teams.
    names: HashMap<UserId, (String, BTreeSet<TeamId>)>,
    /// Rises with every change; those who watch compare it.
    pub(crate) changes: u64,
}

impl Book {
    pub(crate) fn get(&self, id: WorkloadId) -> Option<&Arc<Entry>> {
        self.entries.get(&id)
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(crate) fn placed(&self) -> impl Iterator<Item = &Arc<Entry>> {
        self.placed.iter().filter_map(|id| self.entries.get(id))
    }

    /// Takes an entry as it now stands, and the board with it.
    pub(crate) fn set(&mut self, entry: Entry) {
        self.changes += 1;
        let id = entry.workload.id;
        match &entry.workload.state {
            State::Queued => {
                self.placed.remove(&id);
                self.board.wait(Waiter {
                    id,
                    owner: entry.run.owner,
                    since: entry.since,
                    need: entry.run.need.clone(),
                });
            }
            State::Starting { attempt }
            | State::Running { attempt, .. }
            | State::Stopping { attempt, .. } => {
                self.placed.insert(id);
                self.board
                    .hold(id, entry.run.owner, attempt.placement.clone());
            }
            State::Paused => {
                self.placed.remove(&id);
                self.board.forget(id);
            }
            State::Finished { .. } => {
                self.placed.remove(&id);
                self.board.forget(id);
                self.entries.remove(&id);
                return;
            }
        }
        self.names
            .entry(entry.run.owner)
            .or_insert_with(|| (entry.run.username.clone(), BTreeSet::new()))
            .1
            .insert(entry.run.team);
        self.entries.insert(id, Arc::new(entry));
    }

    /// Puts the board right again after a plan that was not recorded.
    pub(crate) fn unplan(&mut self, id: WorkloadId) {
        match self.entries.get(&id) {
            Some(entry) => {
                let entry = Entry::clone(entry);
                self.set(entry);
            }
            None => self.board.forget(id),
        }
    }

    /// Drops what is not there any more.
    pub(crate) fn remove(&mut self, id: WorkloadId) {
        self.changes += 1;
        self.placed.remove(&id);
        self.board.forget(id);
        self.entries.remove(&id);
    }

    /// The name of somebody who has something open, for those who are in every team that
    /// it is in: beside a name stands a number, which must not count what others own.
    pub(crate) fn name_of(&self, owner: UserId, caller: &Caller) -> Option<String> {
        let (name, teams) = self.names.get(&owner)?;
        let is_mine = |team: &TeamId| caller.teams.iter().any(|(mine, _)| mine.id == *team);
        (owner == caller.id() || teams.iter().all(is_mine)).then(|| name.clone())
    }

    /// Learns how long an attempt took; feeds its node further ahead when they are short.
    pub(crate) fn learn(&mut self, node: &NodeId, took_ms: i64, cpus: u32) {
        #[expect(clippy::cast_precision_loss, reason = "an average of durations")]
        let took = took_ms.max(0) as f64;
        let average = self
            .durations
            .entry(node.clone())
            .or_insert(PREFILL_HORIZON_MS);
        *average += (took - *average) * DURATION_WEIGHT;
        let each = (PREFILL_HORIZON_MS / average.max(1.0)).floor();
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "between 0 and 60"
        )]
        let each = each as u32;
        let ahead = if each <= 1 {
            0
        } else {
            each.saturating_mul(cpus.max(1))
        };
        self.board.set_prefill(node, ahead);
    }
}
