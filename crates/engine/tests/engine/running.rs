//! Experiments run to their end, also when words are lost and servers die.

use grid_api::runner::{Orders, Phase};
use grid_core::id::AttemptId;
use grid_core::workload::{End, Status};
use grid_engine::{experiment, run};

use crate::world::{World, ended, failed, new, until};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sweep_runs_to_its_end() {
    let dir = tempfile::tempdir().expect("a folder");
    let mut world = World::new(dir.path()).await;
    let created = world
        .submit("sweep", &["--lr", "[1,2,3]"])
        .await
        .expect("a run");
    assert_eq!(created.experiments.len(), 3);
    let first = world.launches(2).await;
    assert_eq!(
        first.len(),
        2,
        "two CPUs run two experiments of one CPU each"
    );
    assert_eq!(first[0].args, ["--lr", "1"]);
    let third = experiment::get(&world.engine, &world.ada, "sweep-exp2")
        .await
        .expect("it waits");
    assert_eq!(third.message.as_deref(), Some("waiting for 1 CPU"));

    let (a, b) = (first[0].attempt, first[1].attempt);
    let orders = world
        .sync(&[(a, ended(End::Succeeded)), (b, Phase::Running)])
        .await;
    let mut orders = vec![orders];
    while orders.iter().all(|o| o.launch.is_empty()) || orders.iter().all(|o| o.forget.is_empty()) {
        orders.push(
            world
                .sync(&[(a, ended(End::Succeeded)), (b, Phase::Running)])
                .await,
        );
    }
    let c = orders
        .iter()
        .flat_map(|o| &o.launch)
        .next()
        .expect("the third")
        .attempt;
    let short = experiment::get(&world.engine, &world.ada, "sweep-exp0")
        .await
        .expect("the one that was over before it was said to run");
    assert!(short.row.workload.started_at.is_some());
    assert_eq!(world.status("sweep").await, Status::Running);
    world
        .sync(&[(b, failed()), (c, ended(End::Succeeded))])
        .await;
    assert_eq!(world.status("sweep").await, Status::Failed);
    let b = experiment::get(&world.engine, &world.ada, "sweep-exp1")
        .await
        .expect("the failed one");
    assert_eq!(b.message.as_deref(), Some("exit code 3"));

    let (_, changed) = run::retry(&world.engine, &world.ada, "sweep", true)
        .await
        .expect("a retry");
    assert_eq!(changed, 1);
    let again = world.launches(1).await;
    assert_eq!(
        (again.len(), again[0].attempt.number),
        (1, 2),
        "the failed one, as its second attempt"
    );
    world
        .sync(&[(again[0].attempt, ended(End::Succeeded))])
        .await;
    assert_eq!(world.status("sweep").await, Status::Succeeded);
    assert!(
        run::retry(&world.engine, &world.ada, "sweep", false)
            .await
            .is_err(),
        "nothing is left to retry"
    );
    world.assert_consistent().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restarted_server_finds_what_runs() {
    let dir = tempfile::tempdir().expect("a folder");
    let mut world = World::new(dir.path()).await;
    world
        .submit("long", &["--n", "[1,2]"])
        .await
        .expect("a run");
    let launched = world.launches(2).await;
    let have: Vec<_> = launched
        .iter()
        .map(|launch| (launch.attempt, Phase::Running))
        .collect();
    world.sync(&have).await;
    let mut world = world.restart(dir.path()).await;
    let orders = world.sync(&have).await;
    assert_eq!(
        orders,
        Orders::default(),
        "nothing is started again or stopped"
    );
    assert_eq!(world.status("long").await, Status::Running);
    // One is gone with its runner: it is lost, and tried again.
    let orders = world.sync(&have[..1]).await;
    let orders = if orders.launch.is_empty() {
        world.sync(&have[..1]).await
    } else {
        orders
    };
    assert_eq!(orders.launch.len(), 1);
    assert_eq!(
        orders.launch[0].attempt,
        AttemptId {
            number: 2,
            ..have[1].0
        }
    );
    world.assert_consistent().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_ordered_and_lost_is_ordered_again() {
    let dir = tempfile::tempdir().expect("a folder");
    let mut world = World::new(dir.path()).await;
    world.submit("once", &[]).await.expect("a run");
    let first = world.launches(1).await;
    assert_eq!(first.len(), 1);
    // The answer was lost: the runner goes on speaking without the attempt.
    for _ in 0..20 {
        let again = world.sync(&[]).await.launch;
        if !again.is_empty() {
            assert_eq!(again, first);
            return;
        }
    }
    panic!("the launch was never repeated");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_stopped_before_it_was_fetched_is_never_started() {
    let dir = tempfile::tempdir().expect("a folder");
    let mut world = World::new(dir.path()).await;
    world.submit("early", &[]).await.expect("a run");
    until("it has a place", async || {
        world.status("early").await == Status::Pending
    })
    .await;
    run::stop(&world.engine, &world.ada, "early")
        .await
        .expect("a stop");
    until("it has ended", async || {
        world.status("early").await == Status::Stopped
    })
    .await;
    for _ in 0..3 {
        assert_eq!(world.sync(&[]).await, Orders::default());
    }
    world.assert_consistent().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_clock_that_is_set_back_turns_nothing_around() {
    let dir = tempfile::tempdir().expect("a folder");
    let mut world = World::new(dir.path()).await;
    world.submit("late", &[]).await.expect("a run");
    let attempt = world.launches(1).await[0].attempt;
    world.sync(&[(attempt, Phase::Running)]).await;
    world.clock.set_wrong_by(-3_600_000);
    world.sync(&[(attempt, ended(End::Succeeded))]).await;
    let log = experiment::events(&world.engine, &world.ada, "late-exp0")
        .await
        .expect("its history");
    assert_eq!(log.len(), 4);
    assert!(log.is_sorted_by_key(|event| event.at), "{log:?}");
    let run = run::get(&world.engine, &world.ada, "late")
        .await
        .expect("the run");
    assert!(run.span.started_at <= run.span.finished_at);
    world.assert_consistent().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_made_by_a_request_that_was_cut_off_is_scheduled() {
    let dir = tempfile::tempdir().expect("a folder");
    let world = World::new(dir.path()).await;
    for n in 0..40 {
        let (engine, ada) = (world.engine.clone(), world.ada.clone());
        let wanted = new(&format!("cut-{n}"), &["--n", "range(50)"]);
        let request = tokio::spawn(async move { run::create(&engine, &ada, wanted).await });
        for _ in 0..n * 4 {
            tokio::task::yield_now().await;
        }
        request.abort();
    }
    world.submit("last", &[]).await.expect("a run");
    until("all that is stored is known", async || {
        let filter = run::Filter {
            limit: 100,
            ..run::Filter::default()
        };
        let runs = run::list(&world.engine, &world.ada, &filter).await;
        let stored: u64 = runs
            .expect("a list")
            .items
            .iter()
            .map(|run| run.counts.open())
            .sum();
        stored == world.engine.open_count()
    })
    .await;
}
