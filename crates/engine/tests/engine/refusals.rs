//! What cannot be is refused, and what is asked twice is done once.

use grid_engine::run::{Filter, NewRun};
use grid_engine::{Error, run};

use crate::world::{World, new};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_is_refused_before_anything_is_made() {
    let dir = tempfile::tempdir().expect("a folder");
    let world = World::new(dir.path()).await;
    world.submit("taken", &[]).await.expect("a run");
    let refused = [
        world.submit("taken", &[]).await,
        world.submit("Not A Name", &[]).await,
        world.submit("x-exp1", &[]).await,
        world.submit("empty", &["--n", "[]"]).await,
        world.submit("endless", &["--n", "range(0,100001)"]).await,
        {
            let mut big = new("big", &[]);
            big.spec.resources.cpus = Some(64);
            run::create(&world.engine, &world.ada, big).await
        },
        {
            let mut lost = new("climbs", &[]);
            lost.spec.workdir = "../..".to_owned();
            run::create(&world.engine, &world.ada, lost).await
        },
    ];
    for (index, result) in refused.into_iter().enumerate() {
        let error = result
            .err()
            .unwrap_or_else(|| panic!("number {index} was not refused"));
        assert!(
            !matches!(error, Error::Internal(_)),
            "number {index}: {error:?}"
        );
    }
    let all = run::list(
        &world.engine,
        &world.ada,
        &Filter {
            limit: 10,
            ..Filter::default()
        },
    )
    .await
    .expect("a list");
    assert_eq!(all.items.len(), 1, "nothing half made");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn asking_twice_with_one_key_makes_one_run() {
    let dir = tempfile::tempdir().expect("a folder");
    let world = World::new(dir.path()).await;
    let keyed = |name: &str| NewRun {
        idempotency_key: Some("k".to_owned()),
        ..new(name, &[])
    };
    let first = run::create(&world.engine, &world.ada, keyed("a"))
        .await
        .expect("a run");
    let again = run::create(&world.engine, &world.ada, keyed("a"))
        .await
        .expect("the same");
    assert_eq!(first.run.row.id, again.run.row.id);
    assert!(matches!(
        run::create(&world.engine, &world.ada, keyed("b")).await,
        Err(Error::Conflict { .. })
    ));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn asking_at_the_same_time_with_one_key_makes_one_run() {
    let dir = tempfile::tempdir().expect("a folder");
    let world = World::new(dir.path()).await;
    for n in 0..10 {
        for name in [Some(format!("twice-{n}")), None] {
            let ask = || {
                let wanted = NewRun {
                    name: name.clone(),
                    idempotency_key: Some(format!("{name:?} {n}")),
                    ..new("x", &[])
                };
                run::create(&world.engine, &world.ada, wanted)
            };
            let (a, b) = tokio::join!(ask(), ask());
            let (a, b) = (a.expect("a run"), b.expect("the same run"));
            assert_eq!(a.run.row.id, b.run.row.id);
        }
    }
}
