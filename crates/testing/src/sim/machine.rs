//! A machine: what is on it, what is in its memory, and what is on its disk.

use std::collections::{BTreeMap, BTreeSet};

use grid_core::cluster::{Node, Placement};
use grid_core::id::AttemptId;
use grid_core::workload::End;

use super::script::{Exit, Script};

/// One node of the cluster.
pub(super) struct Machine {
    pub(super) node: Node,
    /// What it has when nothing is broken.
    pub(super) whole: Node,
    /// Its silence costs nothing; only its runner's word counts (this machine, in a small set-up).
    pub(super) patient: bool,
    /// Attempts that may be sent beyond what fits.
    pub(super) prefill: u32,
    pub(super) up: bool,
    pub(super) partitioned: bool,
    pub(super) runner: Option<Runner>,
    pub(super) keeper: Keeper,
    pub(super) disk: Disk,
}

/// The memory of a runner; gone when it crashes.
#[derive(Default)]
pub(super) struct Runner {
    /// Syncs sent by this process of the runner.
    pub(super) seq: u64,
    /// When the call under way was sent; `None` when none is.
    pub(super) calling_since: Option<u64>,
    /// When the last call that was answered had been sent.
    pub(super) contact: Option<u64>,
    /// Whether a sync is about to be sent.
    pub(super) sync_planned: bool,
    /// Attempts that the server wants ended.
    pub(super) stopping: BTreeSet<AttemptId>,
    /// The machine goes away: everything is being given back.
    pub(super) leaving: bool,
}

/// Parent of the user processes; survives the runner, not the machine.
#[derive(Default)]
pub(super) struct Keeper {
    pub(super) processes: Vec<Process>,
    /// When it kills everything unless it hears from the runner.
    pub(super) fence_at: Option<u64>,
}

/// A user process.
pub(super) struct Process {
    pub(super) pid: u64,
    pub(super) attempt: AttemptId,
    pub(super) placement: Placement,
    pub(super) script: Script,
    pub(super) termed: bool,
}

/// What survives everything.
#[derive(Default)]
pub(super) struct Disk {
    /// Raised when the disk is replaced.
    pub(super) number: u64,
    /// Raised at each start of a runner.
    pub(super) epoch: u64,
    /// Arrivals so far; the order in which attempts wait.
    pub(super) arrivals: u64,
    pub(super) spool: BTreeMap<AttemptId, Spooled>,
}

/// An attempt on a runner's disk, from its launch until it may be forgotten.
pub(super) struct Spooled {
    pub(super) arrival: u64,
    pub(super) placement: Placement,
    pub(super) script: Script,
    pub(super) stage: Stage,
}

/// How far an attempt is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Stage {
    /// Waits for CPUs.
    Waiting,
    /// Its environment is being made; its CPUs are taken.
    Preparing,
    /// Its process lives.
    Running,
    /// Its process has ended; what it left is being stored.
    Collecting(Exit),
    /// Over; kept until the server has recorded it.
    Ended(End),
}

impl Machine {
    /// CPUs that prepared attempts and live processes hold.
    pub(super) fn cpus_used(&self) -> u32 {
        let preparing = self
            .disk
            .spool
            .values()
            .filter(|spooled| spooled.stage == Stage::Preparing);
        let preparing: u32 = preparing.map(|spooled| spooled.placement.cpus).sum();
        let living: u32 = self
            .keeper
            .processes
            .iter()
            .map(|process| process.placement.cpus)
            .sum();
        preparing + living
    }

    /// Memory that prepared attempts and live processes hold.
    pub(super) fn memory_used(&self) -> u64 {
        let preparing = self
            .disk
            .spool
            .values()
            .filter(|spooled| spooled.stage == Stage::Preparing);
        let preparing: u64 = preparing
            .map(|spooled| spooled.placement.memory_bytes)
            .sum();
        let living: u64 = self
            .keeper
            .processes
            .iter()
            .map(|process| process.placement.memory_bytes)
            .sum();
        preparing + living
    }

    /// Whether a placement could be had here, if nothing else ran.
    pub(super) fn could_take(&self, placement: &Placement) -> bool {
        placement.cpus <= self.node.cpus
            && placement.memory_bytes <= self.node.memory_bytes
            && placement.gpus.iter().all(|gpu| *gpu < self.node.gpus)
    }

    /// Whether the process of `attempt` lives here.
    pub(super) fn runs(&self, attempt: AttemptId) -> bool {
        self.keeper
            .processes
            .iter()
            .any(|process| process.attempt == attempt)
    }
}
