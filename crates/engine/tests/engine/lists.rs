//! Lists of runs: whose, in which state, since when.

use grid_core::workload::{End, Status};
use grid_engine::run::{self, Filter};
use grid_engine::{Caller, Clock};

use crate::world::{World, ended, failed, until};

/// The names of a whole list, read one by one.
async fn names(world: &World, caller: &Caller, filter: Filter) -> Vec<String> {
    let mut names = Vec::new();
    let mut filter = Filter { limit: 1, ..filter };
    loop {
        let page = run::list(&world.engine, caller, &filter)
            .await
            .expect("a list");
        names.extend(page.items.into_iter().map(|run| run.row.name));
        filter.after = page.next;
        if filter.after.is_none() {
            return names;
        }
    }
}

fn in_state(statuses: &[Status]) -> Filter {
    Filter {
        statuses: statuses.to_vec(),
        ..Filter::default()
    }
}

/// A run that went well, one that did not, one that was stopped, and one that runs.
async fn all_kinds(dir: &std::path::Path) -> World {
    let mut world = World::new(dir).await;
    for name in ["good", "bad"] {
        world
            .submit(name, &["--n", "range(2)"])
            .await
            .expect("a run");
        let launched = world.launches(2).await;
        let ends = [
            ended(End::Succeeded),
            match name {
                "bad" => failed(),
                _ => ended(End::Succeeded),
            },
        ];
        let have: Vec<_> = launched
            .iter()
            .map(|launch| launch.attempt)
            .zip(ends)
            .collect();
        world.sync(&have).await;
    }
    until("the ends are recorded", async || {
        world.status("good").await == Status::Succeeded
            && world.status("bad").await == Status::Failed
    })
    .await;
    world
        .submit("busy", &["--n", "range(2)"])
        .await
        .expect("a run");
    world.launches(2).await;
    world.submit("halted", &[]).await.expect("a run");
    run::stop(&world.engine, &world.ada, "halted")
        .await
        .expect("it is stopped");
    world
}

#[tokio::test]
async fn runs_are_listed_by_state() {
    let dir = tempfile::tempdir().expect("a folder");
    let world = all_kinds(dir.path()).await;
    let ada = &world.ada;
    for (statuses, expected) in [
        (&[][..], &["halted", "busy", "bad", "good"][..]),
        (&[Status::Succeeded], &["good"]),
        (&[Status::Failed], &["bad"]),
        (&[Status::Stopped], &["halted"]),
        (&[Status::Pending], &["busy"]),
        (&[Status::Running, Status::Queued, Status::Paused], &[]),
        (&[Status::Failed, Status::Pending], &["busy", "bad"]),
    ] {
        let found = names(&world, ada, in_state(statuses)).await;
        assert_eq!(found, expected, "{statuses:?}");
        for name in &found {
            let status = world.status(name).await;
            assert!(statuses.is_empty() || statuses.contains(&status));
        }
    }
    let going = |active, statuses: &[Status]| Filter {
        active: Some(active),
        ..in_state(statuses)
    };
    let both = [Status::Failed, Status::Pending];
    assert_eq!(names(&world, ada, going(true, &[])).await, ["busy"]);
    assert_eq!(
        names(&world, ada, going(false, &[])).await,
        ["halted", "bad", "good"]
    );
    assert_eq!(names(&world, ada, going(true, &both)).await, ["busy"]);
    assert_eq!(names(&world, ada, going(false, &both)).await, ["bad"]);
    let contradiction = going(true, &[Status::Failed]);
    assert!(names(&world, ada, contradiction).await.is_empty());
}

#[tokio::test]
async fn runs_are_listed_by_age_and_creator() {
    let dir = tempfile::tempdir().expect("a folder");
    let world = all_kinds(dir.path()).await;
    let (bob, key) = world.user("bob").await;
    let team = [
        (&world.ada, grid_core::team::Role::Owner),
        (&bob, grid_core::team::Role::Member),
    ];
    world.team(dir.path(), "vision", &team).await;
    let bob = world.sign_in(&key).await;
    let good = run::get(&world.engine, &world.ada, "good")
        .await
        .expect("a run");
    let since = |ms| Filter {
        since: Some(good.row.created_at.plus_millis(ms)),
        ..Filter::default()
    };
    assert_eq!(names(&world, &world.ada, since(0)).await.len(), 4);
    let later = names(&world, &world.ada, since(1)).await;
    assert!(!later.contains(&"good".to_owned()), "{later:?}");
    let tomorrow = Filter {
        since: Some(world.clock.now().plus_millis(86_400_000)),
        ..in_state(&[Status::Failed, Status::Succeeded])
    };
    assert!(names(&world, &world.ada, tomorrow).await.is_empty());
    // What ada made is in her own team, where bob is nobody.
    let failed_of_all = Filter {
        global: true,
        ..in_state(&[Status::Failed])
    };
    assert!(names(&world, &bob, failed_of_all.clone()).await.is_empty());
    assert_eq!(
        names(&world, &world.ada, failed_of_all.clone()).await,
        ["bad"]
    );
    let of_bob = Filter {
        created_by: Some("bob".to_owned()),
        ..failed_of_all
    };
    assert!(names(&world, &world.ada, of_bob).await.is_empty());
}
