//! What holds for a board over any history.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::{at, id, need, node, node_id, user, wait};
use crate::cluster::{Need, Node, Placement};
use crate::id::{NodeId, UserId, WorkloadId};
use crate::schedule::{Board, Planned, RESERVE_AFTER_MS, Waiter};

/// A thing that happens to a board.
#[derive(Debug, Clone)]
enum Op {
    Wait {
        n: u32,
        owner: u8,
        since: i64,
        need: Need,
    },
    Hold {
        n: u32,
        owner: u8,
        placement: Placement,
    },
    Forget {
        n: u32,
    },
    Node(Node),
    Prefill {
        node: u8,
        prefill: u32,
    },
    Closed {
        node: u8,
        closed: bool,
    },
    Plan {
        max: usize,
    },
}

fn needs() -> impl Strategy<Value = Need> {
    (
        0..5_u32,
        prop_oneof![3 => Just(0_u32), 1 => 1..3_u32],
        0..5_u64,
    )
        .prop_map(|(cpus, gpus, memory)| need(cpus, gpus, memory))
}

fn ops() -> impl Strategy<Value = Op> {
    let n = 0..24_u32;
    let placement = (
        0..3_u8,
        0..5_u32,
        prop::collection::vec(0..6_u32, 0..3),
        0..5_u64,
    )
        .prop_map(|(node, cpus, gpus, memory_bytes)| Placement {
            node: node_id(node),
            cpus,
            gpus,
            memory_bytes,
        });
    prop_oneof![
        5 => (n.clone(), 0..3_u8, 0..9_i64, needs())
            .prop_map(|(n, owner, since, need)| Op::Wait { n, owner, since, need }),
        3 => (n.clone(), 0..3_u8, placement)
            .prop_map(|(n, owner, placement)| Op::Hold { n, owner, placement }),
        3 => n.prop_map(|n| Op::Forget { n }),
        2 => (0..3_u8, 0..6_u32, 0..4_u32, 0..9_u64)
            .prop_map(|(n, cpus, gpus, memory)| Op::Node(node(n, cpus, gpus, memory))),
        1 => (0..3_u8, 0..4_u32).prop_map(|(node, prefill)| Op::Prefill { node, prefill }),
        1 => (0..3_u8, any::<bool>()).prop_map(|(node, closed)| Op::Closed { node, closed }),
        2 => (1..6_usize).prop_map(|max| Op::Plan { max }),
    ]
}

/// What the log says, kept the simplest way.
#[derive(Default)]
struct Model {
    waiting: BTreeMap<WorkloadId, Waiter>,
    held: BTreeMap<WorkloadId, (UserId, Placement)>,
    nodes: BTreeMap<NodeId, (Node, u32, bool)>,
}

impl Model {
    fn fresh(&self) -> Board {
        let mut board = Board::default();
        // The other way round than in the history, on purpose.
        for waiter in self.waiting.values().rev() {
            board.wait(waiter.clone());
        }
        for (id, (owner, placement)) in self.held.iter().rev() {
            board.hold(*id, *owner, placement.clone());
        }
        for (node, prefill, closed) in self.nodes.values() {
            board.set_node(node.clone());
            board.set_prefill(&node.id, *prefill);
            board.set_closed(&node.id, *closed);
        }
        board
    }

    fn did(&mut self, op: &Op, planned: &[Planned]) {
        match op {
            Op::Wait {
                n,
                owner,
                since,
                need,
            } => {
                self.held.remove(&id(*n));
                let waiter = Waiter {
                    id: id(*n),
                    owner: user(*owner),
                    since: at(*since),
                    need: need.clone(),
                };
                self.waiting.insert(id(*n), waiter);
            }
            Op::Hold {
                n,
                owner,
                placement,
            } => {
                self.waiting.remove(&id(*n));
                self.held.insert(id(*n), (user(*owner), placement.clone()));
            }
            Op::Forget { n } => {
                self.waiting.remove(&id(*n));
                self.held.remove(&id(*n));
            }
            Op::Node(node) => {
                self.nodes
                    .entry(node.id.clone())
                    .or_insert((node.clone(), 0, false))
                    .0 = node.clone();
            }
            Op::Prefill { node, prefill } => {
                if let Some(known) = self.nodes.get_mut(&node_id(*node)) {
                    known.1 = *prefill;
                }
            }
            Op::Closed { node, closed } => {
                if let Some(known) = self.nodes.get_mut(&node_id(*node)) {
                    known.2 = *closed;
                }
            }
            Op::Plan { .. } => {
                for place in planned {
                    let waiter = self
                        .waiting
                        .remove(&place.id)
                        .expect("only what waits is placed");
                    self.held
                        .insert(place.id, (waiter.owner, place.placement.clone()));
                }
            }
        }
    }

    /// What is handed out on `node`: CPUs, memory, GPUs.
    fn used(&self, node: &NodeId) -> (u32, u64, Vec<u32>) {
        let here = self
            .held
            .values()
            .filter(|(_, placement)| placement.node == *node);
        here.fold(
            (0, 0, vec![]),
            |(cpus, memory, mut gpus), (_, placement)| {
                gpus.extend(&placement.gpus);
                (cpus + placement.cpus, memory + placement.memory_bytes, gpus)
            },
        )
    }
}

fn act(board: &mut Board, op: &Op) -> Vec<Planned> {
    match op {
        Op::Wait {
            n,
            owner,
            since,
            need,
        } => wait(board, *n, *owner, *since, need.clone()),
        Op::Hold {
            n,
            owner,
            placement,
        } => board.hold(id(*n), user(*owner), placement.clone()),
        Op::Forget { n } => board.forget(id(*n)),
        Op::Node(node) => board.set_node(node.clone()),
        Op::Prefill { node, prefill } => board.set_prefill(&node_id(*node), *prefill),
        Op::Closed { node, closed } => board.set_closed(&node_id(*node), *closed),
        // Too early for reservations, which are all that a board remembers by itself.
        Op::Plan { max } => return board.plan(at(10), *max),
    }
    vec![]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    /// However a board came about, it is the one that would be built anew.
    #[test]
    fn a_board_never_drifts(history in prop::collection::vec(ops(), 1..60)) {
        let mut board = Board::default();
        let mut model = Model::default();
        for op in &history {
            let planned = act(&mut board, op);
            model.did(op, &planned);
            prop_assert_eq!(&board.without_memories(), &model.fresh(), "after {:?}", op);
            for (node, _, _) in model.nodes.values() {
                prop_assert_eq!(board.cpus_used(&node.id), model.used(&node.id).0);
            }
        }
    }

    /// Two boards that hold the same plan the same: chance has no part in it.
    #[test]
    fn a_plan_follows_from_what_is_known(history in prop::collection::vec(ops(), 1..60)) {
        let mut board = Board::default();
        let mut model = Model::default();
        for op in &history {
            let planned = act(&mut board, op);
            model.did(op, &planned);
        }
        prop_assert_eq!(model.fresh().plan(at(10), 100), board.plan(at(10), 100));
    }

    /// A plan hands out what there is, once, and at most `prefill` attempts more.
    #[test]
    fn nothing_is_handed_out_twice(
        nodes in prop::collection::vec((1..6_u32, 0..4_u32, 1..9_u64, 0..4_u32), 1..4),
        waiting in prop::collection::vec((0..3_u8, needs()), 1..40),
        ending in prop::collection::vec(any::<prop::sample::Index>(), 0..40),
    ) {
        let mut board = Board::default();
        let mut model = Model::default();
        for (n, (cpus, gpus, memory, prefill)) in (0..).zip(&nodes) {
            let op = Op::Node(node(n, *cpus, *gpus, *memory));
            act(&mut board, &op);
            board.set_prefill(&node_id(n), *prefill);
            model.did(&op, &[]);
        }
        for (n, (owner, need)) in (0..).zip(&waiting) {
            let op = Op::Wait { n, owner: *owner, since: 0, need: need.clone() };
            act(&mut board, &op);
            model.did(&op, &[]);
        }
        for (round, end) in (0..).zip(&ending) {
            // The clock passes the time after which nodes are kept free.
            let planned = board.plan(at(round * RESERVE_AFTER_MS / 4), 8);
            model.did(&Op::Plan { max: 8 }, &planned);
            for (n, (cpus, gpus, memory, prefill)) in (0..).zip(&nodes) {
                let (cpus_used, memory_used, gpus_used) = model.used(&node_id(n));
                let distinct: BTreeSet<u32> = gpus_used.iter().copied().collect();
                prop_assert_eq!(distinct.len(), gpus_used.len(), "a GPU is held twice");
                prop_assert!(distinct.iter().all(|gpu| gpu < gpus), "a GPU that is not there");
                let here: Vec<&Placement> =
                    model.held.values().map(|(_, placement)| placement).filter(|p| p.node == node_id(n)).collect();
                prop_assert!(here.iter().all(|p| p.cpus <= *cpus && p.memory_bytes <= *memory));
                if *prefill == 0 {
                    prop_assert!(cpus_used <= *cpus && memory_used <= *memory, "more than there is");
                }
                // Without the `prefill` largest, the rest must fit.
                let mut cpus_each: Vec<u32> = here.iter().map(|p| p.cpus).collect();
                cpus_each.sort_unstable();
                let beyond = usize::try_from(*prefill).expect("small");
                let kept = cpus_each.len().saturating_sub(beyond);
                prop_assert!(cpus_each[..kept].iter().sum::<u32>() <= *cpus);
            }
            if !model.held.is_empty() {
                let done = *end.get(&model.held.keys().copied().collect::<Vec<_>>());
                board.forget(done);
                model.held.remove(&done);
            }
        }
    }

    /// Whoever can fit is placed, at the latest when all others have ended.
    #[test]
    fn whoever_can_fit_is_placed(
        nodes in prop::collection::vec((1..6_u32, 0..4_u32, 1..9_u64, 0..4_u32), 1..4),
        waiting in prop::collection::vec((0..3_u8, needs()), 1..40),
    ) {
        let mut board = Board::default();
        let mut fitting = BTreeSet::new();
        let nodes: Vec<(Node, u32)> = (0..)
            .zip(&nodes)
            .map(|(n, (cpus, gpus, memory, prefill))| (node(n, *cpus, *gpus, *memory), *prefill))
            .collect();
        for (node, prefill) in &nodes {
            board.set_node(node.clone());
            board.set_prefill(&node.id, *prefill);
        }
        for (n, (owner, need)) in (0..).zip(&waiting) {
            wait(&mut board, n, *owner, 0, need.clone());
            if nodes.iter().any(|(node, _)| node.could_fit(need)) {
                fitting.insert(id(n));
            }
        }
        let mut placed = BTreeSet::new();
        for round in 0..100 {
            let planned = board.plan(at(round * 1_000), 100);
            if planned.is_empty() {
                break;
            }
            for place in planned {
                placed.insert(place.id);
                board.forget(place.id);
            }
        }
        prop_assert_eq!(placed, fitting);
    }
}
