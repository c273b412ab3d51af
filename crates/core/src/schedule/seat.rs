//! A node and what is held on it.

use std::collections::BTreeMap;

use crate::cluster::{Need, Node, Placement};
use crate::id::WorkloadId;

/// A node and what is left on it.  Everything follows from what is held, so that
/// it does not matter in which order it came to be held.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Seat {
    pub(super) node: Node,
    /// How many attempts may be sent beyond what fits.
    pub(super) prefill: u32,
    /// Not to be used for new attempts.
    pub(super) closed: bool,
    held: BTreeMap<WorkloadId, Placement>,
    // Wider than what is added, so that no log, however odd, makes them wrong.
    cpus_used: u64,
    memory_used: u128,
    /// By how many each GPU is held; more than one only by an odd log.
    gpu_holders: BTreeMap<u32, u32>,
}

impl Seat {
    pub(super) fn new(node: Node) -> Self {
        Self {
            node,
            prefill: 0,
            closed: false,
            held: BTreeMap::new(),
            cpus_used: 0,
            memory_used: 0,
            gpu_holders: BTreeMap::new(),
        }
    }

    pub(super) fn take(&mut self, id: WorkloadId, placement: Placement) {
        self.cpus_used += u64::from(placement.cpus);
        self.memory_used += u128::from(placement.memory_bytes);
        for gpu in &placement.gpus {
            *self.gpu_holders.entry(*gpu).or_default() += 1;
        }
        self.held.insert(id, placement);
    }

    pub(super) fn give_back(&mut self, id: WorkloadId) {
        let Some(placement) = self.held.remove(&id) else {
            return;
        };
        self.cpus_used -= u64::from(placement.cpus);
        self.memory_used -= u128::from(placement.memory_bytes);
        for gpu in &placement.gpus {
            if let Some(holders) = self.gpu_holders.get_mut(gpu) {
                *holders -= 1;
                if *holders == 0 {
                    self.gpu_holders.remove(gpu);
                }
            }
        }
    }

    pub(super) fn cpus_used(&self) -> u32 {
        u32::try_from(self.cpus_used).unwrap_or(u32::MAX)
    }

    pub(super) fn cpus_free(&self) -> u32 {
        self.node.cpus.saturating_sub(self.cpus_used())
    }

    pub(super) fn gpus_used(&self) -> usize {
        self.gpu_holders.len()
    }

    /// The GPUs that the node has and nobody holds.
    pub(super) fn gpus_free(&self) -> impl Iterator<Item = u32> {
        (0..self.node.gpus).filter(|gpu| !self.gpu_holders.contains_key(gpu))
    }

    /// Whether so many CPUs are free.
    pub(super) fn has_cpus(&self, cpus: u32) -> bool {
        self.cpus_used + u64::from(cpus) <= u64::from(self.node.cpus)
    }

    /// Whether so much memory is free.
    pub(super) fn has_memory(&self, bytes: u64) -> bool {
        self.memory_used + u128::from(bytes) <= u128::from(self.node.memory_bytes)
    }

    /// Whether so many GPUs are free.
    pub(super) fn has_gpus(&self, gpus: u32) -> bool {
        usize::try_from(gpus)
            .is_ok_and(|gpus| gpus == 0 || self.gpus_free().nth(gpus - 1).is_some())
    }

    /// Whether `need` (resolved for this node) fits beside all that is held, and
    /// beside `kept`, for which place is kept free.
    pub(super) fn fits_now(&self, need: &Need, kept: Option<&Need>) -> bool {
        let none = Need::default();
        let kept = kept.unwrap_or(&none);
        !self.closed
            && self.has_cpus(need.cpus.saturating_add(kept.cpus))
            && self.has_memory(need.memory_bytes.saturating_add(kept.memory_bytes))
            && (need.gpus == 0 || self.has_gpus(need.gpus.saturating_add(kept.gpus)))
    }

    /// A node may be given a little more than fits when attempts are short; the
    /// runner starts one only when its CPUs are free.  Never with GPUs, whose
    /// numbers are handed out here.
    pub(super) fn fits_ahead(&self, need: &Need) -> bool {
        !self.closed
            && need.gpus == 0
            && self.prefill > 0
            && self.node.could_fit(need)
            && self.ahead() < self.prefill
    }

    /// How much of `need` is not free here: GPUs, CPUs, memory; less is nearer.
    pub(super) fn missing(&self, need: &Need) -> (usize, u64, u128) {
        let need = self.node.resolve(need);
        let gpus = usize::try_from(need.gpus).unwrap_or(usize::MAX);
        let cpus_wanted = self.cpus_used + u64::from(need.cpus);
        let memory_wanted = self.memory_used + u128::from(need.memory_bytes);
        (
            gpus.saturating_sub(self.gpus_free().count()),
            cpus_wanted.saturating_sub(u64::from(self.node.cpus)),
            memory_wanted.saturating_sub(u128::from(self.node.memory_bytes)),
        )
    }

    /// How many of those held here are more than fits, when the older go first.
    pub(super) fn ahead(&self) -> u32 {
        if self.has_cpus(0) && self.has_memory(0) {
            return 0;
        }
        let (mut cpus, mut memory, mut ahead) = (0, 0, 0);
        for placement in self.held.values() {
            let with_cpus = cpus + u64::from(placement.cpus);
            let with_memory = memory + u128::from(placement.memory_bytes);
            if with_cpus > u64::from(self.node.cpus)
                || with_memory > u128::from(self.node.memory_bytes)
            {
                ahead += 1;
            } else {
                (cpus, memory) = (with_cpus, with_memory);
            }
        }
        ahead
    }

    /// The place for `need` (resolved for this node).
    pub(super) fn placement(&self, need: &Need) -> Placement {
        let gpus = usize::try_from(need.gpus).unwrap_or(usize::MAX);
        Placement {
            node: self.node.id.clone(),
            cpus: need.cpus,
            gpus: self.gpus_free().take(gpus).collect(),
            memory_bytes: need.memory_bytes,
        }
    }
}
