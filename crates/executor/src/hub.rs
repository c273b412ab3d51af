//! Where runners report to and fetch their orders from.
//!
//! For each node the hub has what its runner said last and a mailbox of orders.
//! Both are memory: after a restart the next sync fills the first, and the next
//! turn the second.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use grid_api::runner::{Launch, Orders, Phase, StopOrder, Sync};
use grid_core::cluster::Node;
use grid_core::id::{AttemptId, NodeId};
use grid_core::workload::Observed;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::Seen;

/// After how long without a word the attempts of a node that is not patient are
/// lost.  Too low: a slow network costs finished work; too high: a dead machine's
/// experiments wait that long.  Runners end their attempts well before.
pub const LOST_AFTER_MS: u64 = 120_000;

/// A node as its runner described it.
#[derive(Debug, Clone)]
pub struct NodeState {
    /// The node and what it has.
    pub node: Node,
    /// What it cannot enforce, in sentences.
    pub warnings: Vec<String>,
    /// Programs that it has.
    pub tools: Vec<String>,
    /// Its attempts.
    pub seen: Vec<Seen>,
    /// What each is doing, for people.
    pub notes: HashMap<AttemptId, String>,
    /// How long ago it last spoke.
    pub silent: Duration,
    /// Whether its silence may be for ever without its attempts being lost.
    pub patient: bool,
}

#[derive(Default)]
struct Mailbox {
    state: Option<Spoken>,
    launch: BTreeMap<AttemptId, Launch>,
    launch_order: Vec<AttemptId>,
    /// Launches handed out, and the number of the sync they answered: not to be
    /// repeated until the runner has spoken knowing of them.
    handed_out: HashMap<AttemptId, u64>,
    stop: BTreeMap<AttemptId, StopOrder>,
    forget: BTreeMap<AttemptId, ()>,
    wake: Arc<Notify>,
}

struct Spoken {
    sync: Sync,
    at: Instant,
    patient: bool,
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

    /// Takes what a runner says.  A sync older than one already taken is not news: false.
    pub fn hear(&self, mut sync: Sync, patient: bool, now: Instant) -> bool {
        // The pieces of logs that rode along have been stored by now.
        for have in &mut sync.have {
            have.logs = Vec::new();
            have.artifacts = Vec::new();
        }
        let mut nodes = self.lock();
        let mailbox = nodes.entry(sync.node.id.clone()).or_default();
        match &mailbox.state {
            Some(last) if last.sync.epoch == sync.epoch && last.sync.seq >= sync.seq => {
                return false;
            }
            Some(last) if last.sync.epoch == sync.epoch => {}
            // A new process knows nothing of what its predecessor was told.
            Some(_) | None => mailbox.handed_out.clear(),
        }
        for have in &sync.have {
            mailbox.launch.remove(&have.attempt);
        }
        let has: std::collections::HashSet<AttemptId> =
            sync.have.iter().map(|have| have.attempt).collect();
        // Two syncs may be under way at once, so only the next but one must know.
        mailbox
            .handed_out
            .retain(|attempt, seq| !has.contains(attempt) && sync.seq <= *seq + 2);
        mailbox.forget.retain(|attempt, ()| has.contains(attempt));
        mailbox.stop.retain(|attempt, _| has.contains(attempt));
        mailbox.state = Some(Spoken {
            sync,
            at: now,
            patient,
        });
        true
    }

    /// Waits for orders for `node`, at most until `deadline`, and hands them out.
    pub async fn orders(&self, node: &NodeId, deadline: Instant) -> Orders {
        loop {
            let wake = {
                let mut nodes = self.lock();
                let mailbox = nodes.entry(node.clone()).or_default();
                let orders = mailbox.take();
                if orders != Orders::default() {
                    return orders;
                }
                mailbox.wake.clone()
            };
            // Registered before the next look, so that no order is missed between.
            let woken = wake.notified();
            tokio::pin!(woken);
            woken.as_mut().enable();
            if self.has_orders(node) {
                continue;
            }
            if tokio::time::timeout_at(deadline, woken).await.is_err() {
                return Orders::default();
            }
        }
    }

    fn has_orders(&self, node: &NodeId) -> bool {
        self.lock().get(node).is_some_and(|mailbox| {
            !(mailbox.launch.is_empty() && mailbox.stop.is_empty() && mailbox.forget.is_empty())
        })
    }

    /// Orders launches on their nodes, all of them before anybody is woken.
    pub fn launch(&self, launches: Vec<Launch>) {
        let mut nodes = self.lock();
        let mut woken: Vec<Arc<Notify>> = Vec::new();
        for launch in launches {
            let mailbox = nodes.entry(launch.placement.node.clone()).or_default();
            let attempt = launch.attempt;
            if mailbox.has(attempt) || mailbox.handed_out.contains_key(&attempt) {
                continue;
            }
            if mailbox.launch.insert(attempt, launch).is_none() {
                mailbox.launch_order.push(attempt);
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

    /// Orders a stop.
    pub fn stop(&self, stop: StopOrder, node: &NodeId) {
        let mut nodes = self.lock();
        let mailbox = nodes.entry(node.clone()).or_default();
        mailbox.launch.remove(&stop.attempt);
        if mailbox.stop.insert(stop.attempt, stop).is_none() {
            mailbox.wake.notify_waiters();
        }
    }

    /// Lets a runner forget an attempt.
    pub fn forget(&self, attempt: AttemptId, node: &NodeId) {
        let mut nodes = self.lock();
        let mailbox = nodes.entry(node.clone()).or_default();
        mailbox.launch.remove(&attempt);
        mailbox.stop.remove(&attempt);
        if mailbox.forget.insert(attempt, ()).is_none() {
            mailbox.wake.notify_waiters();
        }
    }

    /// What every node said last.
    pub fn observe(&self, now: Instant) -> Vec<NodeState> {
        self.lock()
            .values()
            .filter_map(|mailbox| mailbox.state.as_ref())
            .map(|spoken| spoken.describe(now))
            .collect()
    }

    /// Whether a runner of `node` has spoken since this hub was made.
    pub fn knows(&self, node: &NodeId) -> bool {
        self.lock()
            .get(node)
            .is_some_and(|mailbox| mailbox.state.is_some())
    }

    /// What is being done for `attempt`, for people.
    pub fn note(&self, attempt: AttemptId, node: &NodeId) -> Option<String> {
        let nodes = self.lock();
        let spoken = nodes.get(node)?.state.as_ref()?;
        let have = spoken
            .sync
            .have
            .iter()
            .find(|have| have.attempt == attempt)?;
        have.note.clone()
    }
}

impl Mailbox {
    fn has(&self, attempt: AttemptId) -> bool {
        self.state
            .as_ref()
            .is_some_and(|spoken| spoken.sync.have.iter().any(|have| have.attempt == attempt))
    }

    fn take(&mut self) -> Orders {
        let order = std::mem::take(&mut self.launch_order);
        let mut launch = std::mem::take(&mut self.launch);
        let seq = self.state.as_ref().map_or(0, |spoken| spoken.sync.seq);
        self.handed_out
            .extend(launch.keys().map(|attempt| (*attempt, seq)));
        Orders {
            launch: order
                .iter()
                .filter_map(|attempt| launch.remove(attempt))
                .collect(),
            stop: std::mem::take(&mut self.stop).into_values().collect(),
            forget: std::mem::take(&mut self.forget).into_keys().collect(),
            retire: false,
        }
    }
}

impl Spoken {
    fn describe(&self, now: Instant) -> NodeState {
        let seen = self.sync.have.iter().map(|have| Seen {
            attempt: have.attempt,
            observed: match &have.phase {
                Phase::Waiting | Phase::Preparing | Phase::Running => Observed::Alive,
                Phase::Ended { end } => Observed::Ended(end.clone()),
            },
        });
        NodeState {
            node: self.sync.node.clone(),
            warnings: self.sync.warnings.clone(),
            tools: self.sync.tools.clone(),
            seen: seen.collect(),
            notes: self
                .sync
                .have
                .iter()
                .filter_map(|have| Some((have.attempt, have.note.clone()?)))
                .collect(),
            silent: now.saturating_duration_since(self.at),
            patient: self.patient,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use grid_api::runner::Have;
    use grid_core::id::WorkloadId;
    use grid_core::time::Timestamp;

    fn attempt(n: u128) -> AttemptId {
        AttemptId {
            workload: WorkloadId::from_parts(Timestamp::from_millis(1), n),
            number: 1,
        }
    }

    fn node() -> NodeId {
        "local".parse().expect("a name")
    }

    fn sync(seq: u64, have: &[AttemptId]) -> Sync {
        Sync {
            node: Node {
                id: node(),
                cpus: 2,
                gpus: 0,
                memory_bytes: 1 << 30,
            },
            warnings: vec![],
            tools: vec![],
            have: have
                .iter()
                .map(|attempt| Have {
                    attempt: *attempt,
                    phase: Phase::Running,
                    note: None,
                    logs: vec![],
                    artifacts: vec![],
                })
                .collect(),
            wait_ms: 0,
            seq,
            epoch: 1,
        }
    }

    #[test]
    fn a_late_sync_is_not_news() {
        let hub = Hub::new();
        let now = Instant::now();
        assert!(hub.hear(sync(2, &[attempt(1)]), true, now));
        assert!(!hub.hear(sync(1, &[]), true, now));
        assert_eq!(hub.observe(now)[0].seen.len(), 1);
        let mut newer = sync(1, &[]);
        newer.epoch = 2;
        assert!(
            hub.hear(newer, true, now),
            "a new runner process begins anew"
        );
        assert!(hub.observe(now)[0].seen.is_empty());
    }

    #[tokio::test]
    async fn an_order_wakes_the_one_who_waits() {
        let hub = Hub::new();
        let now = Instant::now();
        hub.hear(sync(1, &[attempt(1)]), true, now);
        let waiting = tokio::spawn({
            let hub = hub.clone();
            async move {
                hub.orders(&node(), Instant::now() + Duration::from_secs(30))
                    .await
            }
        });
        tokio::task::yield_now().await;
        hub.stop(
            StopOrder {
                attempt: attempt(1),
                grace_ms: 1,
                keep: true,
            },
            &node(),
        );
        let orders = waiting.await.expect("no panic");
        assert_eq!(orders.stop.len(), 1);
        let none = hub.orders(&node(), Instant::now()).await;
        assert_eq!(
            none,
            Orders::default(),
            "an order is handed out once, until it is given again"
        );
    }
}
