//! Deleting, restoring, emptying.

use grid_api::runner::Phase;
use grid_core::workload::{End, Status};
use grid_engine::run::Filter;
use grid_engine::{Error, experiment, run, trash};

use crate::world::{World, ended};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stopping_deleting_restoring_and_emptying() {
    let dir = tempfile::tempdir().expect("a folder");
    let mut world = World::new(dir.path()).await;
    world
        .submit("doomed", &["--n", "[1,2,3,4]"])
        .await
        .expect("a run");
    let launched = world.launches(2).await;
    let have: Vec<_> = launched
        .iter()
        .map(|launch| (launch.attempt, Phase::Running))
        .collect();
    world.sync(&have).await;
    let (run, changed) = run::stop(&world.engine, &world.ada, "doomed")
        .await
        .expect("a stop");
    assert_eq!(
        (changed, run.counts.stopped, run.counts.stopping),
        (4, 2, 2)
    );
    let stops = world.sync(&have).await.stop;
    assert_eq!(stops.len(), 2);
    assert!(stops.iter().all(|stop| stop.keep && stop.grace_ms > 0));
    let over: Vec<_> = have
        .iter()
        .map(|(attempt, _)| (*attempt, ended(End::Stopped)))
        .collect();
    world.sync(&over).await;
    assert_eq!(world.status("doomed").await, Status::Stopped);

    run::delete(&world.engine, &world.ada, "doomed")
        .await
        .expect("into the trash");
    let shown = run::list(
        &world.engine,
        &world.ada,
        &Filter {
            limit: 10,
            ..Filter::default()
        },
    )
    .await
    .expect("a list");
    assert!(shown.items.is_empty());
    let trash_list = Filter {
        limit: 10,
        deleted: true,
        ..Filter::default()
    };
    let shown = run::list(&world.engine, &world.ada, &trash_list)
        .await
        .expect("the trash");
    assert_eq!(shown.items.len(), 1);
    run::restore(&world.engine, &world.ada, "doomed")
        .await
        .expect("out of it");
    assert_eq!(world.status("doomed").await, Status::Stopped);

    run::delete(&world.engine, &world.ada, "doomed")
        .await
        .expect("into the trash again");
    let emptied = trash::empty(&world.engine, -1_000).await.expect("emptied");
    assert_eq!(emptied.things, 1);
    assert!(matches!(
        run::get(&world.engine, &world.ada, "doomed").await,
        Err(Error::NotFound { .. })
    ));
    world.assert_consistent().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_due_to_go_is_not_brought_back_in_pieces() {
    const DAY_MS: i64 = 24 * 60 * 60 * 1_000;
    let dir = tempfile::tempdir().expect("a folder");
    let world = World::new(dir.path()).await;
    world
        .submit("gone", &["--n", "[1,2]"])
        .await
        .expect("a run");
    experiment::delete(&world.engine, &world.ada, "gone-exp0")
        .await
        .expect("into the trash");
    run::delete(&world.engine, &world.ada, "gone")
        .await
        .expect("into the trash");
    world.clock.set_wrong_by(6 * DAY_MS);
    run::restore(&world.engine, &world.ada, "gone")
        .await
        .expect("out of it");
    run::delete(&world.engine, &world.ada, "gone")
        .await
        .expect("into the trash again");
    world.clock.set_wrong_by(14 * DAY_MS);
    let late = run::restore(&world.engine, &world.ada, "gone").await;
    assert!(matches!(late, Err(Error::Conflict { .. })), "{late:?}");
    trash::empty(&world.engine, trash::TRASH_LIFE_MS)
        .await
        .expect("emptied");
    let gone = run::get(&world.engine, &world.ada, "gone").await;
    assert!(matches!(gone, Err(Error::NotFound { .. })), "{gone:?}");
    world.assert_consistent().await;
}
