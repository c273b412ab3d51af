use grid_api::runner::Have;
use grid_core::cluster::Placement;
use grid_core::id::WorkloadId;
use grid_core::spec::{RunSpec, Source};
use grid_core::time::Timestamp;

use super::*;

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
        awaiting: vec![],
    }
}

fn call(seq: u64) -> Call {
    Call { epoch: 1, seq }
}

fn stop(attempt: AttemptId) -> StopOrder {
    StopOrder {
        attempt,
        grace_ms: 1,
        keep: true,
    }
}

fn launch(attempt: AttemptId) -> Launch {
    Launch {
        attempt,
        placement: Placement {
            node: node(),
            cpus: 1,
            gpus: vec![],
            memory_bytes: 0,
        },
        run: "run".to_owned(),
        experiment: "run-exp0".to_owned(),
        index: 0,
        username: "ada".to_owned(),
        user_id: String::new(),
        cluster: "local".to_owned(),
        spec: RunSpec {
            command: vec!["true".to_owned()],
            params: vec![],
            sweep: grid_core::sweep::SweepSpec::default(),
            source: Source::Nothing,
            workdir: String::new(),
            environment: grid_core::spec::EnvironmentSpec::default(),
            resources: grid_core::spec::Resources::default(),
            datastores: vec![],
            actions: grid_core::spec::Actions::default(),
            auto_resume: false,
            retries: 0,
            max_duration_ms: None,
            description: String::new(),
        },
        program: vec![],
        args: vec![],
        parameters: BTreeMap::new(),
        resume: false,
        workload: attempt.workload,
    }
}

async fn at_once(hub: &Hub, seq: u64) -> Orders {
    hub.orders(&node(), call(seq), Instant::now()).await
}

#[test]
fn a_late_sync_is_not_news() {
    let hub = Hub::new();
    let now = Instant::now();
    assert!(hub.hear(sync(2, &[attempt(1)]), now));
    assert!(!hub.hear(sync(1, &[]), now));
    assert_eq!(hub.observe(now)[0].seen.len(), 1);
    let mut newer = sync(1, &[]);
    newer.epoch = 2;
    assert!(hub.hear(newer, now), "a new runner process begins anew");
    assert!(hub.observe(now)[0].seen.is_empty());
    assert!(
        !hub.hear(sync(3, &[attempt(1)]), now),
        "what its predecessor said is not news any more"
    );
    assert!(hub.observe(now)[0].seen.is_empty());
}

#[tokio::test]
async fn an_order_wakes_the_one_who_waits() {
    let hub = Hub::new();
    let now = Instant::now();
    hub.hear(sync(1, &[attempt(1)]), now);
    let waiting = tokio::spawn({
        let hub = hub.clone();
        async move {
            let deadline = Instant::now() + Duration::from_secs(30);
            hub.orders(&node(), call(1), deadline).await
        }
    });
    tokio::task::yield_now().await;
    assert_eq!(hub.stop(stop(attempt(1)), &node(), now), Stopped::Ordered);
    let orders = waiting.await.expect("no panic");
    assert_eq!(orders.stop.len(), 1);
    hub.stop(stop(attempt(1)), &node(), now);
    let none = at_once(&hub, 1).await;
    assert_eq!(none, Orders::default(), "an order is not repeated at once");
    hub.stop(stop(attempt(1)), &node(), now + REPEAT_AFTER * 2);
    assert_eq!(
        at_once(&hub, 1).await.stop.len(),
        1,
        "but when it was not heeded for a while"
    );
}

#[tokio::test]
async fn what_is_on_its_way_may_live() {
    let hub = Hub::new();
    let now = Instant::now();
    let alive = |hub: &Hub| hub.observe(now)[0].seen.len();
    hub.hear(sync(1, &[]), now);
    hub.launch(vec![launch(attempt(1))]);
    assert_eq!(alive(&hub), 1, "ordered");
    assert_eq!(at_once(&hub, 1).await.launch.len(), 1);
    assert_eq!(alive(&hub), 1, "handed out");
    // Composed before that answer came.
    let beside = |seq| Sync {
        awaiting: vec![1],
        ..sync(seq, &[])
    };
    for seq in 2..6 {
        hub.hear(beside(seq), now);
        assert_eq!(alive(&hub), 1);
        hub.launch(vec![launch(attempt(1))]);
        assert_eq!(hub.stop(stop(attempt(1)), &node(), now), Stopped::Ordered);
        let orders = at_once(&hub, seq).await;
        assert_eq!(orders, Orders::default(), "neither again nor to be stopped");
    }
    hub.hear(sync(6, &[attempt(1)]), now);
    let stops = at_once(&hub, 6).await.stop;
    assert_eq!(stops.len(), 1, "the stop waited for it");
}

#[tokio::test]
async fn a_lost_answer_is_given_again_at_once() {
    let hub = Hub::new();
    let now = Instant::now();
    hub.hear(sync(1, &[]), now);
    hub.launch(vec![launch(attempt(1))]);
    assert_eq!(at_once(&hub, 1).await.launch.len(), 1);
    // The runner has given the call up.
    hub.hear(sync(2, &[]), now);
    assert!(hub.observe(now)[0].seen.is_empty());
    hub.launch(vec![launch(attempt(1))]);
    let given_up = at_once(&hub, 1).await;
    assert_eq!(given_up, Orders::default(), "nobody would hear this");
    assert_eq!(at_once(&hub, 2).await.launch.len(), 1);
}

#[tokio::test]
async fn a_launch_that_was_not_handed_out_is_taken_back() {
    let hub = Hub::new();
    let now = Instant::now();
    hub.hear(sync(1, &[]), now);
    hub.launch(vec![launch(attempt(1))]);
    assert_eq!(hub.stop(stop(attempt(1)), &node(), now), Stopped::NotThere);
    assert_eq!(at_once(&hub, 1).await, Orders::default());
}

#[tokio::test]
async fn a_call_that_was_given_up_ends_and_leaves_the_orders() {
    let hub = Hub::new();
    hub.hear(sync(1, &[]), Instant::now());
    let waiting = tokio::spawn({
        let hub = hub.clone();
        async move {
            let deadline = Instant::now() + Duration::from_secs(30);
            hub.orders(&node(), call(1), deadline).await
        }
    });
    tokio::task::yield_now().await;
    let beside = Sync {
        awaiting: vec![1],
        ..sync(2, &[])
    };
    hub.hear(beside, Instant::now());
    hub.hear(sync(3, &[]), Instant::now());
    assert_eq!(waiting.await.expect("no panic"), Orders::default());
}

#[tokio::test]
async fn a_process_whose_place_was_taken_gets_no_orders() {
    let hub = Hub::new();
    let now = Instant::now();
    let mine = Call { epoch: 2, seq: 1 };
    hub.hear(sync(1, &[]), now);
    let newer = Sync {
        epoch: 2,
        ..sync(1, &[])
    };
    hub.hear(newer, now);
    hub.launch(vec![launch(attempt(1))]);
    assert_eq!(at_once(&hub, 2).await, Orders::default());
    let orders = hub.orders(&node(), mine, now).await;
    assert_eq!(orders.launch.len(), 1);
}

#[test]
fn a_very_late_word_of_a_dead_process_is_got_over() {
    let hub = Hub::new();
    let now = Instant::now();
    let living = |seq| Sync {
        epoch: 2,
        ..sync(seq, &[attempt(1)])
    };
    assert!(hub.hear(living(1), now));
    assert!(hub.hear(sync(9, &[]), now), "nobody knows that it is dead");
    assert!(!hub.hear(living(2), now) && !hub.hear(living(3), now));
    assert!(hub.hear(living(4), now), "it goes on speaking alone");
    assert_eq!(hub.observe(now)[0].seen.len(), 1);
    assert!(!hub.hear(sync(10, &[]), now));
    assert!(hub.hear(living(5), now));
}

#[test]
fn patience_is_a_property_of_the_node() {
    let hub = Hub::new();
    hub.hear(sync(1, &[]), Instant::now());
    assert!(!hub.observe(Instant::now())[0].patient);
    hub.register(&node(), true);
    hub.hear(sync(2, &[]), Instant::now());
    assert!(hub.observe(Instant::now())[0].patient);
}
