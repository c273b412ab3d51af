//! The board: nodes with what is in use, people with what waits for them.

use std::collections::{BTreeMap, HashMap};

use crate::cluster::{Need, Node, Placement};
use crate::id::{NodeId, UserId, WorkloadId};
use crate::time::Timestamp;

/// How long the head of a queue waits for a place that others keep taking in
/// pieces, before a node is kept free for it.  Too low: nodes stand idle for big
/// experiments; too high: big experiments starve behind small ones.
pub const RESERVE_AFTER_MS: i64 = 60_000;

/// How many attempts beyond what fits may be sent to a node ahead of time, so
/// that it need not wait for a new plan between two short ones.  Too low: short
/// experiments wait for the network; too high: they stick to a busy node.
pub const PREFILL_MAX: u32 = 64;

/// What waits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Waiter {
    /// The workload.
    pub id: WorkloadId,
    /// Whose it is; shares are fair among people.
    pub owner: UserId,
    /// Since when it has been known; its rank among the same person's.
    pub since: Timestamp,
    /// What it asks for.
    pub need: Need,
}

/// A decision: this one goes there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Planned {
    /// The workload.
    pub id: WorkloadId,
    /// Its place.
    pub placement: Placement,
}

/// A node and what is left on it.
#[derive(Debug, Clone)]
pub(super) struct Seat {
    pub(super) node: Node,
    pub(super) cpus_used: u32,
    pub(super) memory_used: u64,
    pub(super) gpus_used: Vec<bool>,
    /// How many attempts may be sent beyond what fits.
    prefill: u32,
    /// How many have been.
    ahead: u32,
    /// Not to be used for new attempts.
    closed: bool,
}

impl Seat {
    fn fits_now(&self, need: &Need) -> bool {
        let gpus_free = self.gpus_used.iter().filter(|used| !**used).count();
        !self.closed
            && self.cpus_used.saturating_add(need.cpus) <= self.node.cpus
            && self.memory_used.saturating_add(need.memory_bytes) <= self.node.memory_bytes
            && usize::try_from(need.gpus).is_ok_and(|gpus| gpus <= gpus_free)
    }

    /// A node may be given a little more than fits when attempts are short; the
    /// runner starts one only when its CPUs are free.  Never with GPUs, whose
    /// numbers are handed out here.
    fn fits_ahead(&self, need: &Need) -> bool {
        !self.closed && need.gpus == 0 && self.ahead < self.prefill && self.node.could_fit(need)
    }

    fn cpus_free(&self) -> u32 {
        self.node.cpus.saturating_sub(self.cpus_used)
    }
}

/// The queue order of one person: by age, then id.
type Line = BTreeMap<(Timestamp, WorkloadId), Need>;

/// What the scheduler knows.  Changed one workload at a time.
#[derive(Debug, Clone, Default)]
pub struct Board {
    pub(super) seats: BTreeMap<NodeId, Seat>,
    pub(super) lines: BTreeMap<UserId, Line>,
    pub(super) waiting: HashMap<WorkloadId, Waiter>,
    held: HashMap<WorkloadId, (UserId, Placement, bool)>,
    pub(super) cpus_held: HashMap<UserId, u64>,
}

impl Board {
    /// Adds a node, or says anew what it has.  What is in use stays in use.
    pub fn set_node(&mut self, node: Node) {
        let gpus = usize::try_from(node.gpus).unwrap_or(0);
        let seat = self.seats.entry(node.id.clone()).or_insert_with(|| Seat {
            node: node.clone(),
            cpus_used: 0,
            memory_used: 0,
            gpus_used: vec![],
            prefill: 0,
            ahead: 0,
            closed: false,
        });
        seat.node = node;
        if seat.gpus_used.len() < gpus {
            seat.gpus_used.resize(gpus, false);
        }
        let id = seat.node.id.clone();
        self.recount(&id);
    }

    /// Opens or closes a node for new attempts.
    pub fn set_closed(&mut self, node: &NodeId, closed: bool) {
        if let Some(seat) = self.seats.get_mut(node) {
            seat.closed = closed;
        }
    }

    /// Allows `prefill` attempts beyond what fits on a node (at most [`PREFILL_MAX`]).
    pub fn set_prefill(&mut self, node: &NodeId, prefill: u32) {
        if let Some(seat) = self.seats.get_mut(node) {
            seat.prefill = prefill.min(PREFILL_MAX);
        }
    }

    /// The nodes.
    pub fn nodes(&self) -> impl Iterator<Item = &Node> {
        self.seats.values().map(|seat| &seat.node)
    }

    /// CPUs of `node` that are in use; 0 for an unknown node.
    pub fn cpus_used(&self, node: &NodeId) -> u32 {
        self.seats.get(node).map_or(0, |seat| seat.cpus_used)
    }

    /// GPUs of `node` that are in use; 0 for an unknown node.
    pub fn gpus_used(&self, node: &NodeId) -> usize {
        self.seats.get(node).map_or(0, |seat| seat.gpus_used.iter().filter(|used| **used).count())
    }

    /// How many wait.
    pub fn waiting_len(&self) -> usize {
        self.waiting.len()
    }

    /// Lets `waiter` wait.  It must hold nothing.
    pub fn wait(&mut self, waiter: Waiter) {
        self.forget(waiter.id);
        self.lines
            .entry(waiter.owner)
            .or_default()
            .insert((waiter.since, waiter.id), waiter.need.clone());
        self.waiting.insert(waiter.id, waiter);
    }

    /// Records that `id` of `owner` holds `placement`, whether or not it fits:
    /// what the log says is held is held.
    pub fn hold(&mut self, id: WorkloadId, owner: UserId, placement: Placement) {
        self.forget(id);
        let Some(seat) = self.seats.get_mut(&placement.node) else {
            // A node that has not reported yet: counted when it does.
            self.held.insert(id, (owner, placement, false));
            return;
        };
        let ahead = seat.cpus_used.saturating_add(placement.cpus) > seat.node.cpus;
        take(seat, &placement, ahead);
        *self.cpus_held.entry(owner).or_default() += u64::from(placement.cpus);
        self.held.insert(id, (owner, placement, true));
    }

    /// Forgets `id`: it neither waits nor holds anything.
    pub fn forget(&mut self, id: WorkloadId) {
        if let Some(waiter) = self.waiting.remove(&id)
            && let Some(line) = self.lines.get_mut(&waiter.owner)
        {
            line.remove(&(waiter.since, id));
            if line.is_empty() {
                self.lines.remove(&waiter.owner);
            }
        }
        if let Some((owner, placement, counted)) = self.held.remove(&id)
            && counted
        {
            if let Some(held) = self.cpus_held.get_mut(&owner) {
                *held = held.saturating_sub(u64::from(placement.cpus));
            }
            self.recount_without(&placement);
        }
    }

    /// Gives back what `placement` held on its node.
    fn recount_without(&mut self, placement: &Placement) {
        let Some(seat) = self.seats.get_mut(&placement.node) else { return };
        seat.cpus_used = seat.cpus_used.saturating_sub(placement.cpus);
        seat.memory_used = seat.memory_used.saturating_sub(placement.memory_bytes);
        for gpu in &placement.gpus {
            if let Some(used) = usize::try_from(*gpu).ok().and_then(|i| seat.gpus_used.get_mut(i)) {
                *used = false;
            }
        }
        if seat.cpus_used <= seat.node.cpus {
            seat.ahead = 0;
        } else {
            seat.ahead = seat.ahead.saturating_sub(1);
        }
    }

    /// Counts a node's use afresh, from what is held on it.
    fn recount(&mut self, node: &NodeId) {
        let Some(seat) = self.seats.get_mut(node) else { return };
        seat.cpus_used = 0;
        seat.memory_used = 0;
        seat.ahead = 0;
        seat.gpus_used.iter_mut().for_each(|used| *used = false);
        let mut newly_counted = Vec::new();
        for (id, (owner, placement, counted)) in &mut self.held {
            if placement.node != *node {
                continue;
            }
            let ahead = seat.cpus_used.saturating_add(placement.cpus) > seat.node.cpus;
            take(seat, placement, ahead);
            if !*counted {
                *counted = true;
                newly_counted.push((*id, *owner, placement.cpus));
            }
        }
        for (_, owner, cpus) in newly_counted {
            *self.cpus_held.entry(owner).or_default() += u64::from(cpus);
        }
    }

    /// Decides who gets a place now, at most `max` of them, and holds it for them.
    ///
    /// Among people the one who holds the fewest CPUs is next; among one
    /// person's, the oldest.  A head that fits nowhere now does not stop other
    /// people; one that has waited [`RESERVE_AFTER_MS`] gets the roomiest node
    /// that could take it kept free.
    pub fn plan(&mut self, now: Timestamp, max: usize) -> Vec<Planned> {
        let mut planned = Vec::new();
        let mut blocked: Vec<UserId> = Vec::new();
        let mut reserved: Vec<NodeId> = Vec::new();
        while planned.len() < max {
            let next = self
                .lines
                .keys()
                .filter(|owner| !blocked.contains(owner))
                .min_by_key(|owner| (self.cpus_held.get(owner).copied().unwrap_or(0), **owner));
            let Some(owner) = next.copied() else { break };
            let head = self.lines.get(&owner).and_then(|line| line.first_key_value());
            let Some((&(since, id), need)) = head else { break };
            match self.place(need, &reserved) {
                Some(placement) => {
                    self.hold(id, owner, placement.clone());
                    planned.push(Planned { id, placement });
                }
                None => {
                    if now.millis_since(since) >= RESERVE_AFTER_MS
                        && let Some(node) = self.roomiest_for(need, &reserved)
                    {
                        reserved.push(node);
                    }
                    blocked.push(owner);
                }
            }
        }
        planned
    }

    /// The fullest node on which `need` fits now, else one that may be sent it ahead.
    fn place(&self, need: &Need, reserved: &[NodeId]) -> Option<Placement> {
        let open = || self.seats.values().filter(|seat| !reserved.contains(&seat.node.id));
        let fits = open()
            .filter(|seat| seat.fits_now(&seat.node.resolve(need)))
            .min_by_key(|seat| (seat.cpus_free(), seat.node.id.clone()));
        let seat = fits.or_else(|| {
            open()
                .filter(|seat| seat.fits_ahead(&seat.node.resolve(need)))
                .min_by_key(|seat| (seat.ahead, seat.node.id.clone()))
        })?;
        let need = seat.node.resolve(need);
        let free = seat.gpus_used.iter().zip(0_u32..).filter(|(used, _)| !**used).map(|(_, i)| i);
        let gpus = free.take(usize::try_from(need.gpus).unwrap_or(usize::MAX)).collect();
        Some(Placement { node: seat.node.id.clone(), cpus: need.cpus, gpus, memory_bytes: need.memory_bytes })
    }

    fn roomiest_for(&self, need: &Need, reserved: &[NodeId]) -> Option<NodeId> {
        self.seats
            .values()
            .filter(|seat| !seat.closed && !reserved.contains(&seat.node.id) && seat.node.could_fit(need))
            .max_by_key(|seat| (seat.cpus_free(), seat.node.id.clone()))
            .map(|seat| seat.node.id.clone())
    }
}

fn take(seat: &mut Seat, placement: &Placement, ahead: bool) {
    seat.cpus_used = seat.cpus_used.saturating_add(placement.cpus);
    seat.memory_used = seat.memory_used.saturating_add(placement.memory_bytes);
    for gpu in &placement.gpus {
        let Ok(index) = usize::try_from(*gpu) else { continue };
        if index >= seat.gpus_used.len() {
            seat.gpus_used.resize(index + 1, false);
        }
        seat.gpus_used[index] = true;
    }
    seat.ahead += u32::from(ahead);
}
