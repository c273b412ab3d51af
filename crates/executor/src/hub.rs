//! Where runners report to and fetch their orders from.
//!
//! For each node the hub has what its runner said last and a mailbox of orders.
//! Both are memory: after a restart the next sync fills the first, and the next
//! turn the second.
//!
//! What it promises: a launch that may have reached the runner, or still may, is
//! seen as alive until the runner has spoken knowing of it.  So nothing is taken for
//! ended, or given a second time, while it is on its way.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use grid_api::runner::{Launch, Orders, Phase, StopOrder, Sync};
use grid_core::cluster::Node;
use grid_core::id::{AttemptId, NodeId};
use grid_core::workload::Observed;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::{Seen, Stopped};

/// After how long without a word the attempts of a node that is not patient are
/// lost.  Too low: a slow network costs finished work; too high: a dead machine's
/// experiments wait that long.  Runners end their attempts well before.
pub const LOST_AFTER_MS: u64 = 120_000;

/// How long an order that was handed out is not repeated.  Higher: one that was lost
/// is obeyed later; lower: a runner that is obeying it is told again and again.
const REPEAT_AFTER: Duration = Duration::from_secs(1);

/// Runner processes of a node that are remembered after another took their place.
/// Higher: nothing gained; lower: a very late word of an old one is taken for news.
const PAST_MAX: usize = 16;

/// After how many words a process whose place another has taken has it again, when that
/// one has been silent meanwhile.  Higher: after a very late word of a dead process its
/// successor is ignored longer; lower: two of a dead process undo it.
const TAKE_BACK_AFTER: u32 = 3;

/// Launches in one answer.  Higher: an answer with large specs is too large for the
/// runner; lower: more answers.  What is left goes with the next.
const LAUNCHES_MAX: usize = 256;

/// One call of a runner: which process, and which of its syncs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Call {
    /// Of the process.
    pub epoch: u64,
    /// Of the sync.
    pub seq: u64,
}

impl Call {
    /// The call that carries `sync`.
    pub fn of(sync: &Sync) -> Self {
        Self {
            epoch: sync.epoch,
            seq: sync.seq,
        }
    }
}

/// A node as its runner described it.
#[derive(Debug, Clone)]
pub struct NodeState {
    /// The node and what it has.
    pub node: Node,
    /// What it cannot enforce, in sentences.
    pub warnings: Vec<String>,
    /// Programs that it has.
    pub tools: Vec<String>,
    /// Its attempts, and those on their way to it.
    pub seen: Vec<Seen>,
    /// How long ago it last spoke.
    pub silent: Duration,
    /// Whether its silence may be for ever without its attempts being lost.
    pub patient: bool,
}

/// What is kept of what a runner said last.
struct Said {
    call: Call,
    awaiting: Vec<u64>,
    node: Node,
    warnings: Vec<String>,
    tools: Vec<String>,
    have: HashMap<AttemptId, (Observed, Option<String>)>,
    at: Instant,
}

#[derive(Default)]
struct Mailbox {
    patient: bool,
    said: Option<Said>,
    /// Processes whose place another has taken, the latest last, and how often each has
    /// spoken since that one did.
    past: VecDeque<(u64, u32)>,
    /// Launches to hand out, by the number of their order.
    launch: BTreeMap<u64, Launch>,
    launch_number: HashMap<AttemptId, u64>,
    launches: u64,
    /// Launches that were handed out, and the call that was answered with them: until
    /// the runner has spoken after that answer reached it or was lost.
    on_the_way: HashMap<AttemptId, u64>,
    stop: BTreeMap<AttemptId, StopOrder>,
    forget: BTreeSet<AttemptId>,
    /// When stops (and whether they keep what is left) and forgets were handed out.
    stopped: HashMap<AttemptId, (bool, Instant)>,
    forgotten: HashMap<AttemptId, Instant>,
    wake: Arc<Notify>,
}

/// All nodes.  Cheap to clone.
#[derive(Clone, Default)]
pub struct Hub {
    nodes: Arc<Mutex<HashMap<NodeId, Mailbox>>>,
}

impl Hub {
    /// A hub without nodes.
    pub fn new() -> Self {
        Self::default()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<NodeId, Mailbox>> {
        // Nothing under the lock panics half way; what is there is whole.
        self.nodes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Says how a node is to be judged: one that is `patient` may be silent for ever
    /// without its attempts being lost, because nobody else could run them.  A node that
    /// nobody has registered is not patient.
    pub fn register(&self, node: &NodeId, patient: bool) {
        self.lock().entry(node.clone()).or_default().patient = patient;
    }

    /// Takes what a runner says.  A sync older than one already taken is not news: false.
    pub fn hear(&self, sync: Sync, now: Instant) -> bool {
        let mut nodes = self.lock();
        nodes
            .entry(sync.node.id.clone())
            .or_default()
            .hear(sync, now)
    }

    /// Waits for orders for `node`, at most until `deadline`, and hands them out as the
    /// answer to `call`.  A call that its runner no longer waits for gets none.
    pub async fn orders(&self, node: &NodeId, call: Call, deadline: Instant) -> Orders {
        loop {
            let wake = {
                let mut nodes = self.lock();
                let mailbox = nodes.entry(node.clone()).or_default();
                if mailbox.is_past(call) {
                    // Not answered at once, or it would ask again at once.
                    break;
                }
                if !mailbox.is_awaited(call) {
                    return Orders::default();
                }
                let orders = mailbox.take(call, Instant::now());
                if orders != Orders::default() {
                    return orders;
                }
                mailbox.wake.clone()
            };
            // Registered before the next look, so that no order is missed between.
            let woken = wake.notified();
            tokio::pin!(woken);
            woken.as_mut().enable();
            if self.has_orders(node, call) {
                continue;
            }
            if tokio::time::timeout_at(deadline, woken).await.is_err() {
                return Orders::default();
            }
        }
        tokio::time::sleep_until(deadline).await;
        Orders::default()
    }

    /// Whether there is an answer to `call` by now.
    fn has_orders(&self, node: &NodeId, call: Call) -> bool {
        self.lock()
            .get(node)
            .is_some_and(|mailbox| mailbox.has_orders() || !mailbox.is_awaited(call))
    }

    /// Orders launches on their nodes, all of them before anybody is woken.
    pub fn launch(&self, launches: Vec<Launch>) {
        let mut nodes = self.lock();
        let mut woken: Vec<Arc<Notify>> = Vec::new();
        for launch in launches {
            let mailbox = nodes.entry(launch.placement.node.clone()).or_default();
            if !mailbox.launch(launch) {
                continue;
            }
            if woken.iter().all(|wake| !Arc::ptr_eq(wake, &mailbox.wake)) {
                woken.push(Arc::clone(&mailbox.wake));
            }
        }
        drop(nodes);
        for wake in woken {
            wake.notify_waiters();
        }
    }

    /// Orders a stop, unless the attempt has not been handed out and now never will be.
    pub fn stop(&self, stop: StopOrder, node: &NodeId, now: Instant) -> Stopped {
        let mut nodes = self.lock();
        let mailbox = nodes.entry(node.clone()).or_default();
        mailbox.withdraw(stop.attempt);
        let is_there = mailbox.has(stop.attempt) || mailbox.on_the_way.contains_key(&stop.attempt);
        if mailbox.said.is_some() && !is_there {
            return Stopped::NotThere;
        }
        let is_lately = |(keep, at): &(bool, Instant)| {
            *keep == stop.keep && now.saturating_duration_since(*at) < REPEAT_AFTER
        };
        if !mailbox.stopped.get(&stop.attempt).is_some_and(is_lately)
            && mailbox.stop.insert(stop.attempt, stop).is_none()
        {
            mailbox.wake.notify_waiters();
        }
        Stopped::Ordered
    }

    /// Lets a runner forget an attempt.
    pub fn forget(&self, attempt: AttemptId, node: &NodeId, now: Instant) {
        let mut nodes = self.lock();
        let mailbox = nodes.entry(node.clone()).or_default();
        mailbox.withdraw(attempt);
        mailbox.stop.remove(&attempt);
        let is_lately = |at: &Instant| now.saturating_duration_since(*at) < REPEAT_AFTER;
        if mailbox.has(attempt)
            && !mailbox.forgotten.get(&attempt).is_some_and(is_lately)
            && mailbox.forget.insert(attempt)
        {
            mailbox.wake.notify_waiters();
        }
    }

    /// What every node said last.
    pub fn observe(&self, now: Instant) -> Vec<NodeState> {
        self.lock()
            .values()
            .filter_map(|mailbox| mailbox.describe(now))
            .collect()
    }

    /// Whether a runner of `node` has spoken since this hub was made.
    pub fn knows(&self, node: &NodeId) -> bool {
        self.lock()
            .get(node)
            .is_some_and(|mailbox| mailbox.said.is_some())
    }

    /// What is being done for `attempt`, for people.
    pub fn note(&self, attempt: AttemptId, node: &NodeId) -> Option<String> {
        let nodes = self.lock();
        let (_, note) = nodes.get(node)?.said.as_ref()?.have.get(&attempt)?;
        note.clone()
    }
}

impl Mailbox {
    fn hear(&mut self, sync: Sync, now: Instant) -> bool {
        let call = Call::of(&sync);
        if let Some(index) = self.past.iter().position(|(epoch, _)| *epoch == call.epoch) {
            let (_, spoken) = &mut self.past[index];
            *spoken += 1;
            if *spoken < TAKE_BACK_AFTER {
                return false;
            }
            self.past.remove(index);
        }
        match &self.said {
            Some(last) if last.call.epoch == call.epoch && last.call.seq >= call.seq => {
                return false;
            }
            Some(last) if last.call.epoch == call.epoch => {}
            // A new process knows nothing of what its predecessor was told.
            Some(last) => {
                self.past.push_back((last.call.epoch, 0));
                if self.past.len() > PAST_MAX {
                    self.past.pop_front();
                }
                self.on_the_way.clear();
                self.stopped.clear();
                self.forgotten.clear();
            }
            None => {}
        }
        for (_, spoken) in &mut self.past {
            *spoken = 0;
        }
        let have: HashMap<AttemptId, (Observed, Option<String>)> = sync
            .have
            .into_iter()
            .map(|have| (have.attempt, (observed(have.phase), have.note)))
            .collect();
        for attempt in have.keys() {
            self.withdraw(*attempt);
        }
        // An answer that its runner neither waits for nor has heeded was lost.
        self.on_the_way.retain(|attempt, answered| {
            !have.contains_key(attempt) && sync.awaiting.contains(answered)
        });
        let on_the_way = &self.on_the_way;
        self.stop
            .retain(|attempt, _| have.contains_key(attempt) || on_the_way.contains_key(attempt));
        self.forget.retain(|attempt| have.contains_key(attempt));
        self.stopped.retain(|attempt, _| have.contains_key(attempt));
        self.forgotten
            .retain(|attempt, _| have.contains_key(attempt));
        if let Some(said) = &self.said {
            // Amounts differ from report to report: a warning of the same kind is no news.
            let is_known = sync.warnings.len() <= said.warnings.len();
            if let Some(warning) = sync.warnings.last().filter(|_| !is_known) {
                tracing::warn!(warning, "a node has something to say");
            }
        }
        self.said = Some(Said {
            call,
            awaiting: sync.awaiting,
            node: sync.node,
            warnings: sync.warnings,
            tools: sync.tools,
            have,
            at: now,
        });
        // Calls that nobody waits for any more find that out.
        self.wake.notify_waiters();
        true
    }

    /// Whether the process that made this call has been replaced by another.
    fn is_past(&self, call: Call) -> bool {
        self.past.iter().any(|(epoch, _)| *epoch == call.epoch)
    }

    /// Whether its runner still waits for the answer to `call`, as far as is known.
    fn is_awaited(&self, call: Call) -> bool {
        self.said.as_ref().is_some_and(|said| {
            said.call.epoch == call.epoch
                && (call.seq >= said.call.seq || said.awaiting.contains(&call.seq))
        })
    }

    fn has(&self, attempt: AttemptId) -> bool {
        self.said
            .as_ref()
            .is_some_and(|said| said.have.contains_key(&attempt))
    }

    fn launch(&mut self, launch: Launch) -> bool {
        let attempt = launch.attempt;
        if self.has(attempt)
            || self.on_the_way.contains_key(&attempt)
            || self.launch_number.contains_key(&attempt)
        {
            return false;
        }
        self.launches += 1;
        self.launch_number.insert(attempt, self.launches);
        self.launch.insert(self.launches, launch);
        true
    }

    /// Takes back a launch that has not been handed out.
    fn withdraw(&mut self, attempt: AttemptId) {
        if let Some(number) = self.launch_number.remove(&attempt) {
            self.launch.remove(&number);
        }
    }

    /// What is still on its way is not told to stop before it has arrived.
    fn may_stop(&self, attempt: AttemptId) -> bool {
        !self.on_the_way.contains_key(&attempt)
    }

    fn has_orders(&self) -> bool {
        !(self.launch.is_empty() && self.forget.is_empty())
            || self.stop.keys().any(|attempt| self.may_stop(*attempt))
    }

    fn take(&mut self, call: Call, now: Instant) -> Orders {
        let later: BTreeMap<AttemptId, StopOrder> = self
            .stop
            .iter()
            .filter(|(attempt, _)| !self.may_stop(**attempt))
            .map(|(attempt, stop)| (*attempt, stop.clone()))
            .collect();
        let mut stop = std::mem::replace(&mut self.stop, later);
        stop.retain(|attempt, _| !self.stop.contains_key(attempt));
        let forget = std::mem::take(&mut self.forget);
        let mut launch = Vec::with_capacity(self.launch.len().min(LAUNCHES_MAX));
        while launch.len() < LAUNCHES_MAX
            && let Some((_, next)) = self.launch.pop_first()
        {
            self.launch_number.remove(&next.attempt);
            self.on_the_way.insert(next.attempt, call.seq);
            launch.push(next);
        }
        self.stopped
            .extend(stop.values().map(|stop| (stop.attempt, (stop.keep, now))));
        self.forgotten
            .extend(forget.iter().map(|attempt| (*attempt, now)));
        Orders {
            launch,
            stop: stop.into_values().collect(),
            forget: forget.into_iter().collect(),
            retire: false,
        }
    }

    fn describe(&self, now: Instant) -> Option<NodeState> {
        let said = self.said.as_ref()?;
        let there = said.have.iter().map(|(attempt, (observed, _))| Seen {
            attempt: *attempt,
            observed: observed.clone(),
        });
        let coming = self.launch_number.keys().chain(self.on_the_way.keys());
        let coming = coming.map(|attempt| Seen {
            attempt: *attempt,
            observed: Observed::Alive,
        });
        Some(NodeState {
            node: said.node.clone(),
            warnings: said.warnings.clone(),
            tools: said.tools.clone(),
            seen: there.chain(coming).collect(),
            silent: now.saturating_duration_since(said.at),
            patient: self.patient,
        })
    }
}

fn observed(phase: Phase) -> Observed {
    match phase {
        Phase::Waiting | Phase::Preparing | Phase::Running => Observed::Alive,
        Phase::Ended { end, .. } => Observed::Ended(end),
    }
}

#[cfg(test)]
mod tests;
