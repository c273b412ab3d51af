//! What waits of one person.

use std::collections::{BTreeMap, BTreeSet};

use crate::cluster::Need;
use crate::id::WorkloadId;
use crate::time::Timestamp;

/// A need, as a key: whatever has the same one fits at the same places.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Shape {
    cpus: u32,
    gpus: u32,
    memory_bytes: u64,
}

impl Shape {
    pub(super) fn of(need: &Need) -> Self {
        let Need {
            cpus,
            gpus,
            memory_bytes,
        } = *need;
        Self {
            cpus,
            gpus,
            memory_bytes,
        }
    }

    /// In each respect the smaller of the two.
    pub(super) fn smallest(self, other: Self) -> Self {
        let cpus = if self.cpus == 0 || other.cpus == 0 {
            self.cpus.max(other.cpus)
        } else {
            self.cpus.min(other.cpus)
        };
        Self {
            cpus,
            gpus: self.gpus.min(other.gpus),
            memory_bytes: self.memory_bytes.min(other.memory_bytes),
        }
    }

    /// Whether places that are too small for this one could be taken by the other.
    pub(super) fn can_be_robbed_by(self, other: Self) -> bool {
        // No CPUs means all of a node's.
        let cpus = |shape: Self| {
            if shape.cpus == 0 {
                u32::MAX
            } else {
                shape.cpus
            }
        };
        cpus(other) < cpus(self) || other.gpus < self.gpus || other.memory_bytes < self.memory_bytes
    }

    pub(super) fn need(self) -> Need {
        let Self {
            cpus,
            gpus,
            memory_bytes,
        } = self;
        Need {
            cpus,
            gpus,
            memory_bytes,
        }
    }
}

/// The oldest of one shape.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Head {
    pub(super) since: Timestamp,
    pub(super) id: WorkloadId,
    pub(super) shape: Shape,
    /// When one of the same shape was placed last.
    pub(super) served: Option<Timestamp>,
}

impl Head {
    /// For how long this person has waited for a place of this shape.
    pub(super) fn starved_ms(&self, now: Timestamp) -> i64 {
        // What was served after now was served before a clock jumped.
        let served = self
            .served
            .filter(|served| *served <= now)
            .unwrap_or(self.since);
        now.millis_since(self.since.max(served))
    }
}

/// What waits of one shape.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Queue {
    waiting: BTreeSet<(Timestamp, WorkloadId)>,
    served: Option<Timestamp>,
}

/// The queue of one person: for each shape, by age, then id.
///
/// A sweep is one shape however many experiments it has, so that a plan looks at
/// its oldest only; and what waits for a GPU does not stop what needs none.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Line {
    shapes: BTreeMap<Shape, Queue>,
    len: u64,
}

impl Line {
    pub(super) fn insert(&mut self, need: &Need, since: Timestamp, id: WorkloadId) {
        if self
            .shapes
            .entry(Shape::of(need))
            .or_default()
            .waiting
            .insert((since, id))
        {
            self.len += 1;
        }
    }

    pub(super) fn remove(&mut self, need: &Need, since: Timestamp, id: WorkloadId) {
        let shape = Shape::of(need);
        let Some(queue) = self.shapes.get_mut(&shape) else {
            return;
        };
        if queue.waiting.remove(&(since, id)) {
            self.len -= 1;
        }
        if queue.waiting.is_empty() {
            self.shapes.remove(&shape);
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// How many wait.
    pub(super) fn len(&self) -> u64 {
        self.len
    }

    /// How many are older than this one.
    pub(super) fn before(&self, since: Timestamp, id: WorkloadId) -> u64 {
        self.shapes
            .values()
            .map(|queue| queue.waiting.range(..(since, id)).count() as u64)
            .sum()
    }

    /// The oldest of each shape, oldest first.
    pub(super) fn heads(&self) -> Vec<Head> {
        let oldest = |(shape, queue): (&Shape, &Queue)| {
            let &(since, id) = queue.waiting.first()?;
            Some(Head {
                since,
                id,
                shape: *shape,
                served: queue.served,
            })
        };
        let mut heads: Vec<Head> = self.shapes.iter().filter_map(oldest).collect();
        heads.sort();
        heads
    }

    /// The shapes that wait.
    pub(super) fn shapes(&self) -> impl Iterator<Item = Shape> {
        self.shapes.keys().copied()
    }

    /// Notes that one of this shape has been placed.
    pub(super) fn serve(&mut self, need: &Need, now: Timestamp) {
        if let Some(queue) = self.shapes.get_mut(&Shape::of(need)) {
            queue.served = Some(now);
        }
    }

    /// The oldest of all.
    pub(super) fn oldest(&self) -> Option<(Timestamp, WorkloadId)> {
        self.shapes
            .values()
            .filter_map(|queue| queue.waiting.first().copied())
            .min()
    }

    #[cfg(test)]
    pub(super) fn forget_served(&mut self) {
        self.shapes
            .values_mut()
            .for_each(|queue| queue.served = None);
    }
}
