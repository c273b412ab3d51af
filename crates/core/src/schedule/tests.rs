//! What a board promises.

mod properties;

use super::{Board, Planned, RESERVE_AFTER_MS, Waiter};
use crate::cluster::{Need, Node, Placement};
use crate::id::{NodeId, UserId, WorkloadId};
use crate::time::Timestamp;

fn id(n: u32) -> WorkloadId {
    WorkloadId::from_parts(Timestamp::from_millis(i64::from(n)), u128::from(n))
}

fn user(n: u8) -> UserId {
    UserId::from_entropy(u128::from(n))
}

fn node_id(n: u8) -> NodeId {
    format!("node{n}").parse().expect("a valid name")
}

fn node(n: u8, cpus: u32, gpus: u32, memory_bytes: u64) -> Node {
    Node {
        id: node_id(n),
        cpus,
        gpus,
        memory_bytes,
    }
}

fn need(cpus: u32, gpus: u32, memory_bytes: u64) -> Need {
    Need {
        cpus,
        gpus,
        memory_bytes,
    }
}

fn at(ms: i64) -> Timestamp {
    Timestamp::from_millis(ms)
}

fn board(nodes: &[Node]) -> Board {
    let mut board = Board::default();
    for node in nodes {
        board.set_node(node.clone());
    }
    board
}

fn wait(board: &mut Board, n: u32, owner: u8, since: i64, need: Need) {
    board.wait(Waiter {
        id: id(n),
        owner: user(owner),
        since: at(since),
        need,
    });
}

fn ids(planned: &[Planned]) -> Vec<WorkloadId> {
    planned.iter().map(|place| place.id).collect()
}

#[test]
fn two_people_take_turns() {
    let mut board = board(&[node(0, 4, 0, 100)]);
    for n in 0..20 {
        wait(&mut board, n, 1, 0, need(1, 0, 1));
        wait(&mut board, 100 + n, 2, 5, need(1, 0, 1));
    }
    let planned = board.plan(at(10), 10);
    assert_eq!(ids(&planned), [id(0), id(100), id(1), id(101)]);
    // One after another ends; also when all have waited long, both get their turns.
    let mut running: Vec<WorkloadId> = ids(&planned);
    for round in 0..20 {
        let done = running.remove(0);
        board.forget(done);
        let planned = board.plan(at(2 * RESERVE_AFTER_MS + round), 10);
        assert_eq!(planned.len(), 1, "one place, one experiment");
        running.extend(ids(&planned));
        let of_first = running.iter().filter(|running| **running < id(100)).count();
        assert_eq!(of_first, 2, "round {round}");
    }
}

#[test]
fn a_big_need_is_not_starved_by_small_ones() {
    // Whoever else waits: the same person, people before and after in any order, older and newer.
    for (big_owner, big_since) in [(1, 0), (1, 10), (3, 0), (3, 10), (2, 0), (2, 10)] {
        let mut board = board(&[node(0, 2, 0, 100)]);
        wait(&mut board, 9_999, big_owner, big_since, need(2, 0, 2));
        for n in 0..500 {
            wait(&mut board, n, 2, 5, need(1, 0, 1));
        }
        // What runs now began before.
        board.hold(
            id(5_000),
            user(2),
            Placement {
                node: node_id(0),
                cpus: 1,
                gpus: vec![],
                memory_bytes: 1,
            },
        );
        let mut running = vec![id(5_000)];
        let mut placed = None;
        for round in 0..200_i64 {
            let now = at(1_000 * round);
            let planned = ids(&board.plan(now, 10));
            if planned.contains(&id(9_999)) {
                placed = Some(now);
                break;
            }
            running.extend(planned);
            if !running.is_empty() {
                board.forget(running.remove(0));
            }
        }
        let placed = placed.expect("the big one is placed");
        let limit = RESERVE_AFTER_MS + big_since + 5_000;
        assert!(
            placed <= at(limit),
            "owner {big_owner}, since {big_since}: placed at {placed}"
        );
    }
}

#[test]
fn a_big_need_is_not_starved_by_someone_who_holds_less() {
    let mut board = board(&[node(0, 2, 0, 100), node(1, 3, 1, 100)]);
    // The first person always holds three CPUs on the other node.
    let elsewhere = |n: u32| {
        (
            id(n),
            Placement {
                node: node_id(1),
                cpus: 3,
                gpus: vec![0],
                memory_bytes: 1,
            },
        )
    };
    let (held, placement) = elsewhere(8_000);
    board.hold(held, user(1), placement);
    wait(&mut board, 9_999, 1, 0, need(2, 0, 2));
    for n in 0..500 {
        wait(&mut board, n, 2, 0, need(1, 0, 1));
    }
    let mut running = Vec::new();
    let mut placed = false;
    for round in 0..100 {
        let planned = ids(&board.plan(at(1_000 * round), 10));
        placed |= planned.contains(&id(9_999));
        running.extend(planned);
        if !running.is_empty() {
            board.forget(running.remove(0));
        }
    }
    assert!(placed);
}

#[test]
fn neither_big_nor_small_needs_crowd_out_the_others() {
    for seconds in [1, 50, 500] {
        let mut board = board(&[node(0, 4, 0, 100)]);
        for n in 0..1_000 {
            wait(&mut board, n, 1, 0, need(2, 0, 1));
            wait(&mut board, 10_000 + n, 2, 0, need(1, 0, 1));
        }
        // Every experiment takes as long; one after another ends.
        let mut running = Vec::new();
        let (mut big, mut small) = (0_u32, 0_u32);
        for round in 0..600_i64 {
            for place in board.plan(at(1_000 * seconds * round), 10) {
                if place.id < id(10_000) {
                    big += 2;
                } else {
                    small += 1;
                }
                running.push(place.id);
            }
            board.forget(running.remove(0));
        }
        let share = f64::from(big) / f64::from(big + small);
        assert!(
            (0.3..0.7).contains(&share),
            "{seconds} s each: the big ones got {share:.2} of the CPUs"
        );
    }
}

#[test]
fn a_node_is_kept_free_only_as_far_as_needed() {
    let mut board = board(&[node(0, 8, 1, 100)]);
    board.hold(
        id(1),
        user(1),
        Placement {
            node: node_id(0),
            cpus: 1,
            gpus: vec![0],
            memory_bytes: 1,
        },
    );
    wait(&mut board, 2, 2, 0, need(2, 1, 1));
    assert!(board.plan(at(RESERVE_AFTER_MS), 10).is_empty());
    for n in 10..20 {
        wait(&mut board, n, 3, 100, need(1, 0, 1));
    }
    // Eight CPUs, less the one in use and the two that are kept.
    assert_eq!(board.plan(at(RESERVE_AFTER_MS), 10).len(), 5);
    board.forget(id(1));
    assert_eq!(board.plan(at(RESERVE_AFTER_MS), 1)[0].id, id(2));
}

#[test]
fn what_can_never_fit_stops_nothing_else() {
    let mut board = board(&[node(0, 2, 0, 100)]);
    wait(&mut board, 1, 1, 0, need(64, 0, 1));
    wait(&mut board, 2, 1, 0, need(1, 4, 1));
    wait(&mut board, 3, 1, 1, need(1, 0, 1));
    assert_eq!(ids(&board.plan(at(2 * RESERVE_AFTER_MS), 10)), [id(3)]);
}

#[test]
fn memory_counts_for_what_is_sent_ahead() {
    let mut board = board(&[node(0, 100, 0, 10)]);
    board.set_prefill(&node_id(0), 2);
    for n in 0..20 {
        wait(&mut board, n, 1, 0, need(1, 0, 10));
    }
    // One fits, two are sent ahead.
    assert_eq!(board.plan(at(10), 100).len(), 3);
}

#[test]
fn gpus_that_are_gone_are_not_handed_out() {
    let mut board = board(&[node(0, 8, 4, 100)]);
    board.set_node(node(0, 8, 2, 100));
    // An attempt that began when there were more still holds one that is gone.
    board.hold(
        id(1),
        user(1),
        Placement {
            node: node_id(0),
            cpus: 1,
            gpus: vec![3],
            memory_bytes: 1,
        },
    );
    wait(&mut board, 2, 1, 0, need(1, 3, 1));
    assert!(board.plan(at(10), 10).is_empty());
    wait(&mut board, 3, 2, 0, need(1, 2, 1));
    assert_eq!(board.plan(at(10), 10)[0].placement.gpus, [0, 1]);
}

#[test]
fn a_gpu_that_two_hold_is_free_when_both_have_ended() {
    let mut board = board(&[node(0, 8, 1, 100)]);
    let placement = || Placement {
        node: node_id(0),
        cpus: 1,
        gpus: vec![0],
        memory_bytes: 1,
    };
    board.hold(id(1), user(1), placement());
    board.hold(id(2), user(1), placement());
    board.forget(id(1));
    assert_eq!(board.gpus_used(&node_id(0)), 1);
    board.forget(id(2));
    assert_eq!(board.gpus_used(&node_id(0)), 0);
}

#[test]
fn a_plan_looks_at_what_it_places_not_at_what_waits() {
    let mut board = board(&[node(0, 2, 0, 100)]);
    for n in 0..100_000 {
        wait(
            &mut board,
            n,
            u8::try_from(n % 2).expect("0 or 1"),
            0,
            need(1, 0, 1),
        );
    }
    // However many wait, each person has one head.
    assert!(board.lines.values().all(|line| line.heads().len() == 1));
    let mut running = Vec::new();
    for _ in 0..2_000 {
        running.extend(ids(&board.plan(at(2 * RESERVE_AFTER_MS), 100)));
        assert_eq!(running.len(), 2);
        board.forget(running.remove(0));
    }
    assert_eq!(board.waiting_len(), 100_000 - 2_001);
}

#[test]
fn the_wait_is_explained() {
    let mut board = Board::default();
    wait(&mut board, 1, 1, 0, need(2, 0, 1));
    let lacks = |board: &Board, n: u32| board.explain(id(n)).expect("it waits").lacks;
    assert_eq!(lacks(&board, 1), "a machine: none has reported yet");
    board.set_node(node(0, 2, 1, 4 << 20));
    assert_eq!(lacks(&board, 1), "", "it is about to be placed");
    board.hold(
        id(9),
        user(3),
        Placement {
            node: node_id(0),
            cpus: 1,
            gpus: vec![0],
            memory_bytes: 3 << 20,
        },
    );
    assert_eq!(lacks(&board, 1), "2 CPUs");
    wait(&mut board, 2, 1, 1, need(1, 1, 1));
    assert_eq!(lacks(&board, 2), "1 GPU");
    wait(&mut board, 3, 1, 2, need(1, 0, 2 << 20));
    assert_eq!(lacks(&board, 3), "2 MiB of memory");
    wait(&mut board, 4, 1, 3, need(8, 2, 0));
    assert_eq!(
        lacks(&board, 4),
        "a machine with 8 CPUs, 2 GPUs: none of those here is that large"
    );
    board.set_closed(&node_id(0), true);
    assert_eq!(
        lacks(&board, 1),
        "a machine: the one that could take it is out of reach or closed"
    );
    assert_eq!(board.explain(id(9)), None, "it does not wait");
}

#[test]
fn who_comes_before_is_counted() {
    let mut board = board(&[node(0, 1, 0, 100)]);
    let ahead = |board: &Board, n: u32| -> Vec<(UserId, u64)> {
        let waiting = board.explain(id(n)).expect("it waits");
        waiting
            .ahead
            .iter()
            .map(|ahead| (ahead.owner, ahead.experiments))
            .collect()
    };
    board.hold(
        id(9),
        user(3),
        Placement {
            node: node_id(0),
            cpus: 1,
            gpus: vec![],
            memory_bytes: 1,
        },
    );
    for n in 0..4 {
        wait(&mut board, n, 1, i64::from(n), need(1, 0, 1));
    }
    assert_eq!(ahead(&board, 0), []);
    assert_eq!(ahead(&board, 3), [(user(1), 3)]);
    // Somebody else takes turns; somebody who holds more than this person does not come first.
    for n in 10..20 {
        wait(&mut board, n, 2, 100, need(1, 0, 1));
        wait(&mut board, 100 + n, 3, 0, need(1, 0, 1));
    }
    assert_eq!(ahead(&board, 1), [(user(1), 1), (user(2), 2)]);
}
