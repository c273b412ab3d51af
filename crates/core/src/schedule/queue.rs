//! The board: nodes with what is in use, people with what waits for them.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::line::{Head, Line, Shape};
use super::seat::Seat;
use crate::cluster::{Need, Node, Placement};
use crate::id::{NodeId, UserId, WorkloadId};
use crate::time::Timestamp;

/// How long something waits for a place that others keep taking in pieces, before
/// a node is kept free for it.  Too low: nodes stand idle for big experiments; too
/// high: big experiments starve behind small ones.
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

/// What one plan has found out.
struct Tried {
    /// Shapes that fit nowhere in what is left: what is left only shrinks.
    nowhere: BTreeSet<Shape>,
    /// In each respect the smallest that waited.
    smallest: Option<Shape>,
}

/// Who a node is kept free for, and what for.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Reservation {
    id: WorkloadId,
    /// Resolved for the node.
    need: Need,
}

/// What the scheduler knows.  Changed one workload at a time.
///
/// All of it, but for reservations and when somebody was served last, follows from
/// what waits and what is held; a board that is built anew after a restart plans as
/// the old one would have; it only keeps nodes free a little sooner.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Board {
    pub(super) seats: BTreeMap<NodeId, Seat>,
    pub(super) lines: BTreeMap<UserId, Line>,
    pub(super) waiting: HashMap<WorkloadId, Waiter>,
    held: HashMap<WorkloadId, (UserId, Placement)>,
    pub(super) cpus_held: HashMap<UserId, u64>,
    reserved: BTreeMap<NodeId, Reservation>,
}

impl Board {
    /// Adds a node, or says anew what it has.  What is in use stays in use.
    pub fn set_node(&mut self, node: Node) {
        if let Some(seat) = self.seats.get_mut(&node.id) {
            seat.node = node;
            return;
        }
        let mut seat = Seat::new(node);
        for (id, (_, placement)) in &self.held {
            if placement.node == seat.node.id {
                seat.take(*id, placement.clone());
            }
        }
        self.seats.insert(seat.node.id.clone(), seat);
    }

    /// Opens or closes a known node for new attempts.
    pub fn set_closed(&mut self, node: &NodeId, closed: bool) {
        if let Some(seat) = self.seats.get_mut(node) {
            seat.closed = closed;
        }
    }

    /// Allows `prefill` attempts beyond what fits on a known node (at most [`PREFILL_MAX`]).
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
        self.seats.get(node).map_or(0, Seat::cpus_used)
    }

    /// GPUs of `node` that are in use; 0 for an unknown node.
    pub fn gpus_used(&self, node: &NodeId) -> usize {
        self.seats.get(node).map_or(0, Seat::gpus_used)
    }

    /// How many wait.
    pub fn waiting_len(&self) -> usize {
        self.waiting.len()
    }

    /// Lets `waiter` wait.  What it held, it holds no longer.
    pub fn wait(&mut self, waiter: Waiter) {
        self.forget(waiter.id);
        self.lines
            .entry(waiter.owner)
            .or_default()
            .insert(&waiter.need, waiter.since, waiter.id);
        self.waiting.insert(waiter.id, waiter);
    }

    /// Records that `id` of `owner` holds `placement`, whether or not it fits:
    /// what the log says is held is held.
    pub fn hold(&mut self, id: WorkloadId, owner: UserId, placement: Placement) {
        self.forget(id);
        if placement.cpus > 0 {
            *self.cpus_held.entry(owner).or_default() += u64::from(placement.cpus);
        }
        // A node that has not reported yet is given it when it does.
        if let Some(seat) = self.seats.get_mut(&placement.node) {
            seat.take(id, placement.clone());
        }
        self.held.insert(id, (owner, placement));
    }

    /// Forgets `id`: it neither waits nor holds anything.
    pub fn forget(&mut self, id: WorkloadId) {
        if let Some(waiter) = self.waiting.remove(&id) {
            if let Some(line) = self.lines.get_mut(&waiter.owner) {
                line.remove(&waiter.need, waiter.since, id);
                if line.is_empty() {
                    self.lines.remove(&waiter.owner);
                }
            }
            self.reserved.retain(|_, reservation| reservation.id != id);
        }
        if let Some((owner, placement)) = self.held.remove(&id) {
            if let Some(cpus) = self.cpus_held.get_mut(&owner) {
                *cpus -= u64::from(placement.cpus);
                if *cpus == 0 {
                    self.cpus_held.remove(&owner);
                }
            }
            if let Some(seat) = self.seats.get_mut(&placement.node) {
                seat.give_back(id);
            }
        }
    }

    /// Decides who gets a place now, at most `max` of them, and holds it for them.
    ///
    /// First those for whom a node is kept free.  Then, among people, the one who
    /// holds the fewest CPUs is next (of two, the one who waits longer); among one
    /// person's, the oldest that fits.  What fits nowhere, while smaller needs wait
    /// that could take each piece that comes free, gets the node that is nearest to
    /// fitting kept free, as far as it needs it: after [`RESERVE_AFTER_MS`] in which
    /// nothing like it of the same person was placed.
    pub fn plan(&mut self, now: Timestamp, max: usize) -> Vec<Planned> {
        let mut planned = Vec::new();
        self.plan_reserved(now, max, &mut planned);
        // By CPUs held; then by the age of what waits, so that nobody's place in
        // the alphabet decides.
        let mut order: BTreeSet<(u64, Timestamp, UserId)> = self
            .lines
            .keys()
            .filter_map(|owner| self.rank(*owner))
            .collect();
        let shapes = self.lines.values().flat_map(Line::shapes);
        let mut tried = Tried {
            nowhere: BTreeSet::new(),
            smallest: shapes.reduce(Shape::smallest),
        };
        while planned.len() < max {
            let Some((_, _, owner)) = order.pop_first() else {
                break;
            };
            if let Some((id, placement)) = self.plan_next_of(owner, now, &mut tried) {
                planned.push(self.give(id, placement, now));
                order.extend(self.rank(owner));
            }
        }
        planned
    }

    /// Places those for whom a node is kept free, or keeps the one free that is
    /// nearest to fitting by now.
    ///
    /// On the node that is kept, what is missing only shrinks; so it comes to nothing
    /// in the end, unless what runs there never ends.
    fn plan_reserved(&mut self, now: Timestamp, max: usize, planned: &mut Vec<Planned>) {
        for (node, Reservation { id, .. }) in self.reserved.clone() {
            let Some(need) = self.waiting.get(&id).map(|waiter| waiter.need.clone()) else {
                continue;
            };
            if planned.len() < max
                && let Some(placement) = self.place(id, &need)
            {
                // This also ends its reservation.
                planned.push(self.give(id, placement, now));
            } else {
                self.reserved.remove(&node);
                self.keep_nearest(id, &need, Some(&node));
            }
        }
    }

    /// Gives something that waits its place.
    fn give(&mut self, id: WorkloadId, placement: Placement, now: Timestamp) -> Planned {
        if let Some(Waiter { owner, need, .. }) = self.waiting.get(&id).cloned() {
            if let Some(line) = self.lines.get_mut(&owner) {
                line.serve(&need, now);
            }
            self.hold(id, owner, placement.clone());
        }
        Planned { id, placement }
    }

    /// Where `owner` stands among those who wait; lowest is next.
    fn rank(&self, owner: UserId) -> Option<(u64, Timestamp, UserId)> {
        let (since, _) = self.lines.get(&owner)?.oldest()?;
        Some((
            self.cpus_held.get(&owner).copied().unwrap_or(0),
            since,
            owner,
        ))
    }

    /// The oldest of `owner`'s that fits.
    fn plan_next_of(
        &mut self,
        owner: UserId,
        now: Timestamp,
        tried: &mut Tried,
    ) -> Option<(WorkloadId, Placement)> {
        let heads = self.lines.get(&owner)?.heads();
        for head in heads {
            let Head { id, shape, .. } = head;
            if !tried.nowhere.contains(&shape) {
                if let Some(placement) = self.place(id, &shape.need()) {
                    return Some((id, placement));
                }
                tried.nowhere.insert(shape);
            }
            let starved = head.starved_ms(now) >= RESERVE_AFTER_MS;
            if starved
                && tried
                    .smallest
                    .is_some_and(|other| shape.can_be_robbed_by(other))
            {
                self.reserve(id, shape);
            }
        }
        None
    }

    /// The fullest node on which `need` fits now, else one that may be sent it ahead.
    fn place(&self, id: WorkloadId, need: &Need) -> Option<Placement> {
        let kept_for_others = |seat: &Seat| {
            self.reserved
                .get(&seat.node.id)
                .filter(|kept| kept.id != id)
        };
        let fits = self
            .seats
            .values()
            .filter(|seat| {
                let kept = kept_for_others(seat).map(|kept| &kept.need);
                seat.fits_now(&seat.node.resolve(need), kept)
            })
            .min_by_key(|seat| (seat.cpus_free(), &seat.node.id));
        let seat = fits.or_else(|| {
            self.seats
                .values()
                .filter(|seat| {
                    kept_for_others(seat).is_none() && seat.fits_ahead(&seat.node.resolve(need))
                })
                .min_by_key(|seat| (seat.ahead(), &seat.node.id))
        })?;
        Some(seat.placement(&seat.node.resolve(need)))
    }

    /// Keeps a node free for `id`, unless one is already.
    fn reserve(&mut self, id: WorkloadId, shape: Shape) {
        if self.reserved.len() == self.seats.len()
            || self.reserved.values().any(|kept| kept.id == id)
        {
            return;
        }
        self.keep_nearest(id, &shape.need(), None);
    }

    /// Keeps the node free on which the least of `need` is missing; of two such, `before`.
    fn keep_nearest(&mut self, id: WorkloadId, need: &Need, before: Option<&NodeId>) {
        let nearest = self
            .seats
            .values()
            .filter(|seat| !seat.closed && seat.node.could_fit(need))
            .filter(|seat| !self.reserved.contains_key(&seat.node.id))
            .min_by_key(|seat| {
                (
                    seat.missing(need),
                    before != Some(&seat.node.id),
                    &seat.node.id,
                )
            });
        if let Some(seat) = nearest {
            let reservation = Reservation {
                id,
                need: seat.node.resolve(need),
            };
            self.reserved.insert(seat.node.id.clone(), reservation);
        }
    }

    /// The board without what does not follow from what waits and is held.
    #[cfg(test)]
    pub(super) fn without_memories(&self) -> Self {
        let mut board = self.clone();
        board.reserved.clear();
        board.lines.values_mut().for_each(Line::forget_served);
        board
    }
}
