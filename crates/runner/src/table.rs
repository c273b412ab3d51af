//! The attempts of this node, and who holds which CPUs and GPUs.

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use grid_api::runner::ATTEMPTS_MAX;
use grid_core::cluster::Node;
use grid_core::id::AttemptId;
use serde::{Deserialize, Serialize};

use crate::attempt::Attempt;

/// How many forgotten attempts are remembered, so that an order to launch one that
/// was long on its way is not obeyed.  Higher: more memory; lower: a very late order
/// starts something a second time, which the server then stops.
const PAST_MAX: usize = 20_000;

/// What an attempt holds, by number on this node.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(crate) struct Grant {
    pub(crate) cpus: Vec<u32>,
    pub(crate) gpus: Vec<u32>,
}

/// Everything that this runner knows.
pub(crate) struct Table(Mutex<Inner>);

struct Inner {
    attempts: BTreeMap<AttemptId, Arc<Attempt>>,
    /// In the order of their launch.
    waiting: VecDeque<Arc<Attempt>>,
    held: BTreeMap<AttemptId, Grant>,
    cpus_free: Vec<bool>,
    gpus_held: HashSet<u32>,
    past: VecDeque<AttemptId>,
    past_set: HashSet<AttemptId>,
}

impl Table {
    pub(crate) fn new(node: &Node) -> Self {
        Self(Mutex::new(Inner {
            attempts: BTreeMap::new(),
            waiting: VecDeque::new(),
            held: BTreeMap::new(),
            cpus_free: vec![true; node.cpus as usize],
            gpus_held: HashSet::new(),
            past: VecDeque::new(),
            past_set: HashSet::new(),
        }))
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Nothing under the lock can panic half way.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn get(&self, attempt: AttemptId) -> Option<Arc<Attempt>> {
        self.lock().attempts.get(&attempt).cloned()
    }

    pub(crate) fn all(&self) -> Vec<Arc<Attempt>> {
        self.lock().attempts.values().cloned().collect()
    }

    /// Whether an attempt is here or was.
    pub(crate) fn knows(&self, attempt: AttemptId) -> bool {
        let inner = self.lock();
        inner.attempts.contains_key(&attempt) || inner.past_set.contains(&attempt)
    }

    /// Adds an attempt that waits for its CPUs.  False when there are too many.
    pub(crate) fn add(&self, attempt: Arc<Attempt>) -> bool {
        let mut inner = self.lock();
        if inner.attempts.len() >= ATTEMPTS_MAX {
            return false;
        }
        inner.attempts.insert(attempt.id, Arc::clone(&attempt));
        inner.waiting.push_back(attempt);
        true
    }

    /// Adds an attempt of a former runner process with what it held; if that is taken
    /// (there are fewer CPUs now), it goes on all the same.
    pub(crate) fn adopt(&self, attempt: Arc<Attempt>, grant: &Grant) {
        let mut inner = self.lock();
        inner.take(attempt.id, grant);
        inner.attempts.insert(attempt.id, attempt);
    }

    /// Takes the next attempts whose CPUs and GPUs are free, in order: one that does
    /// not fit yet is not overtaken, or a large one would wait for ever.
    pub(crate) fn start_next(&self) -> Vec<(Arc<Attempt>, Grant)> {
        let mut inner = self.lock();
        let mut started = Vec::new();
        while let Some(attempt) = inner.waiting.front().cloned() {
            let Some(grant) = inner.grant(&attempt) else {
                break;
            };
            inner.waiting.pop_front();
            inner.take(attempt.id, &grant);
            started.push((attempt, grant));
        }
        started
    }

    /// Takes an attempt out of the queue; false when it is not in it.
    pub(crate) fn stop_waiting(&self, attempt: AttemptId) -> bool {
        let mut inner = self.lock();
        let before = inner.waiting.len();
        inner.waiting.retain(|waiting| waiting.id != attempt);
        inner.waiting.len() < before
    }

    /// Gives back what an attempt holds.
    pub(crate) fn release(&self, attempt: AttemptId) {
        let mut inner = self.lock();
        let Some(grant) = inner.held.remove(&attempt) else {
            return;
        };
        for cpu in grant.cpus {
            let held_by_another = inner.held.values().any(|other| other.cpus.contains(&cpu));
            if let Some(free) = inner.cpus_free.get_mut(cpu as usize) {
                *free = !held_by_another;
            }
        }
        for gpu in grant.gpus {
            inner.gpus_held.remove(&gpu);
        }
    }

    /// Forgets an attempt; a late order to launch it is not obeyed.
    pub(crate) fn forget(&self, attempt: AttemptId) -> Option<Arc<Attempt>> {
        self.release(attempt);
        let mut inner = self.lock();
        let found = inner.attempts.remove(&attempt)?;
        if inner.past_set.insert(attempt) {
            inner.past.push_back(attempt);
        }
        if inner.past.len() > PAST_MAX
            && let Some(oldest) = inner.past.pop_front()
        {
            inner.past_set.remove(&oldest);
        }
        Some(found)
    }
}

impl Inner {
    fn take(&mut self, attempt: AttemptId, grant: &Grant) {
        for cpu in &grant.cpus {
            if let Some(free) = self.cpus_free.get_mut(*cpu as usize) {
                *free = false;
            }
        }
        self.gpus_held.extend(&grant.gpus);
        self.held.insert(attempt, grant.clone());
    }

    fn grant(&self, attempt: &Attempt) -> Option<Grant> {
        let placement = &attempt.launch.placement;
        // More than there is now (CPUs were taken offline): all there is must do.
        let wanted = (placement.cpus as usize).min(self.cpus_free.len());
        let free = self.cpus_free.iter().enumerate().filter(|(_, free)| **free);
        let cpus: Vec<u32> = free
            .take(wanted)
            .filter_map(|(cpu, _)| u32::try_from(cpu).ok())
            .collect();
        let gpus_are_free = placement
            .gpus
            .iter()
            .all(|gpu| !self.gpus_held.contains(gpu));
        (cpus.len() == wanted && gpus_are_free).then(|| Grant {
            cpus,
            gpus: placement.gpus.clone(),
        })
    }
}
