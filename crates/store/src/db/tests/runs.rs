//! Adding runs and finding them.

use grid_core::id::{RunId, UserId};
use grid_core::run::Counts;
use grid_core::workload::{Actor, Event, Status};

use super::conformance;
use super::place::{
    a_run, a_stored_run, a_workload, at, experiments, failed, finish, happen, placed, somebody,
    succeeded,
};
use crate::db::run::{NewExperiment, Run, Span};
use crate::db::workload::Stored;
use crate::db::{Db, Error, Trash, event, run, workload};

conformance!(
    a_run_is_added_with_its_experiments,
    a_run_name_is_unique_for_its_creator,
    what_fails_leaves_nothing,
    experiments_are_counted_by_status,
    it_is_known_when_a_run_ran,
    names_are_found_taken,
    runs_of_every_size_are_added,
);

async fn a_run_is_added_with_its_experiments(db: Db) {
    let who = somebody(&db, "ada").await;
    let original = a_run(who, "original", 40);
    let mut run = Run {
        experiments: 3,
        ..a_run(who, "swift-heron-7", 50)
    };
    run.cloned_from = Some(original.id);
    run.project = None;
    let new = experiments(3, 50);
    let mut tx = db.write().await.unwrap();
    run::insert(&mut tx, &original, vec![], Actor::Engine)
        .await
        .unwrap();
    run::insert(&mut tx, &run, new.clone(), Actor::User(who.0))
        .await
        .unwrap();
    tx.commit().await.unwrap();

    let mut tx = db.read().await.unwrap();
    assert_eq!(
        run::by_id(&mut tx, run.id).await.unwrap(),
        Some(run.clone())
    );
    assert_eq!(
        run::by_id(&mut tx, RunId::from_parts(at(1), 0))
            .await
            .unwrap(),
        None
    );
    assert_eq!(
        run::by_name(&mut tx, who.0, "swift-heron-7", Trash::Without)
            .await
            .unwrap(),
        Some(run.clone())
    );
    assert_eq!(
        run::by_name(&mut tx, who.0, "swift-heron", Trash::With)
            .await
            .unwrap(),
        None
    );
    let mut both = run::by_ids(&mut tx, &[run.id, original.id]).await.unwrap();
    both.sort_by_key(|run| run.created_at);
    assert_eq!(both, [original, run.clone()]);
    assert!(
        workload::by_run_and_idx(&mut tx, run.id, 3)
            .await
            .unwrap()
            .is_none()
    );
    assert!(
        workload::get(&mut tx, a_workload(1).id)
            .await
            .unwrap()
            .is_none()
    );
    for (idx, new) in (0..).zip(&new) {
        let stored = workload::by_run_and_idx(&mut tx, run.id, idx).await;
        let stored = stored.unwrap().unwrap();
        check_stored(&stored, &run, idx, new);
        let again = workload::get(&mut tx, new.workload.id).await.unwrap();
        assert_eq!(again, Some(stored));
        let log = event::of_workload(&mut tx, new.workload.id).await.unwrap();
        assert_eq!((log.len(), log[0].seq, log[0].at), (1, 1, at(50)));
        assert_eq!(log[0].actor, Actor::User(who.0));
        assert!(matches!(log[0].event, Event::Created { .. }));
    }
}

fn check_stored(stored: &Stored, run: &Run, idx: u32, new: &NewExperiment) {
    assert_eq!(stored.workload, new.workload);
    assert_eq!(
        (stored.version, stored.run, stored.idx),
        (1, Some(run.id), idx)
    );
    assert_eq!((&stored.params, &stored.args), (&new.params, &new.args));
    assert_eq!(
        (stored.owner, stored.team, stored.deleted),
        (run.creator, run.team, None)
    );
}

async fn a_run_name_is_unique_for_its_creator(db: Db) {
    let (ada, bob) = (somebody(&db, "ada").await, somebody(&db, "bob").await);
    a_stored_run(&db, ada, "same", 50, 1).await;
    a_stored_run(&db, bob, "same", 51, 1).await;
    let mut tx = db.write().await.unwrap();
    let taken = run::insert(&mut tx, &a_run(ada, "same", 52), vec![], Actor::Engine).await;
    assert!(
        matches!(
            taken,
            Err(Error::Conflict {
                what: "this run name"
            })
        ),
        "{taken:?}"
    );
}

async fn what_fails_leaves_nothing(db: Db) {
    let who = somebody(&db, "ada").await;
    let mut new = experiments(70, 50);
    // The last one of the second statement is there twice.
    new[69].workload = new[0].workload.clone();
    let run = a_run(who, "half", 50);
    let mut tx = db.write().await.unwrap();
    let taken = run::insert(&mut tx, &run, new, Actor::Engine).await;
    assert!(
        matches!(
            taken,
            Err(Error::Conflict {
                what: "this experiment"
            })
        ),
        "{taken:?}"
    );
    drop(tx);
    let mut tx = db.read().await.unwrap();
    assert_eq!(run::by_id(&mut tx, run.id).await.unwrap(), None);
    assert_eq!(
        workload::all_ids(&mut tx, None, 100).await.unwrap().items,
        []
    );
}

async fn experiments_are_counted_by_status(db: Db) {
    let who = somebody(&db, "ada").await;
    let (first, mut of_first) = a_stored_run(&db, who, "first", 50, 5).await;
    let (second, mut of_second) = a_stored_run(&db, who, "second", 51, 2).await;
    let mut empty = db.write().await.unwrap();
    let third = a_run(who, "third", 52);
    run::insert(&mut empty, &third, vec![], Actor::Engine)
        .await
        .unwrap();
    empty.commit().await.unwrap();
    finish(&db, &mut of_first[0], succeeded()).await;
    finish(&db, &mut of_first[1], failed()).await;
    happen(&db, &mut of_first[2], &mut 1, &[placed(1)]).await;
    finish(&db, &mut of_second[0], succeeded()).await;
    let stopping = [placed(1), Event::StopRequested { by: Some(who.0) }];
    happen(&db, &mut of_second[1], &mut 1, &stopping).await;
    let mut tx = db.write().await.unwrap();
    workload::set_deleted(&mut tx, of_first[3].id, who.0, at(60))
        .await
        .unwrap();
    tx.commit().await.unwrap();

    let mut tx = db.read().await.unwrap();
    let tallies = run::tallies(&mut tx, &[first, second, third.id])
        .await
        .unwrap();
    let expected = Counts {
        queued: 1,
        pending: 1,
        succeeded: 1,
        failed: 1,
        ..Counts::default()
    };
    assert_eq!(tallies[&first].counts, expected);
    assert_eq!(
        tallies[&second].counts,
        Counts {
            succeeded: 1,
            stopping: 1,
            ..Counts::default()
        }
    );
    assert!(!tallies.contains_key(&third.id));
    let page = run::list(&mut tx, &run::Filter::default(), 10)
        .await
        .unwrap();
    let told: Vec<_> = page
        .items
        .iter()
        .map(|l| (l.run.name.as_str(), l.tally.counts.total()))
        .collect();
    assert_eq!(told, [("third", 0), ("second", 2), ("first", 4)]);
    let failed = workload::list_of_run(&mut tx, first, &[Status::Failed], Trash::Without, None, 10);
    assert_eq!(failed.await.unwrap().items.len(), 1);
}

async fn it_is_known_when_a_run_ran(db: Db) {
    let who = somebody(&db, "ada").await;
    let (ran, mut of_ran) = a_stored_run(&db, who, "ran", 50, 3).await;
    let (waits, _) = a_stored_run(&db, who, "waits", 51, 1).await;
    let (empty, _) = a_stored_run(&db, who, "empty", 52, 0).await;
    finish(&db, &mut of_ran[0], succeeded()).await;
    happen(&db, &mut of_ran[1], &mut 1, &[placed(1)]).await;
    happen(
        &db,
        &mut of_ran[1],
        &mut 2,
        &[Event::Started { attempt: 1 }],
    )
    .await;
    happen(&db, &mut of_ran[1], &mut 3, &[failed()]).await;
    let mut tx = db.read().await.unwrap();
    let tallies = run::tallies(&mut tx, &[ran, waits, empty]).await.unwrap();
    let expected = Span {
        started_at: Some(at(1001)),
        finished_at: Some(at(1003)),
    };
    assert_eq!(tallies[&ran].span, expected);
    assert_eq!(tallies[&waits].span, Span::default());
    assert!(!tallies.contains_key(&empty));
}

async fn names_are_found_taken(db: Db) {
    let who = somebody(&db, "ada").await;
    let (gone, _) = a_stored_run(&db, who, "gone", 50, 0).await;
    a_stored_run(&db, who, "there", 51, 0).await;
    let mut tx = db.write().await.unwrap();
    run::set_deleted(&mut tx, gone, who.0, at(60))
        .await
        .unwrap();
    let taken = run::names_taken(&mut tx, who.0, &["gone", "new", "there"])
        .await
        .unwrap();
    assert_eq!(taken, ["there"]);
    assert_eq!(
        run::names_taken(&mut tx, who.0, &[]).await.unwrap(),
        Vec::<String>::new()
    );
    let nobody = UserId::from_entropy(u128::MAX);
    assert_eq!(
        run::names_taken(&mut tx, nobody, &["there"]).await.unwrap(),
        Vec::<String>::new()
    );
}

async fn runs_of_every_size_are_added(db: Db) {
    let who = somebody(&db, "ada").await;
    // Around the sizes of statements that write many rows.
    for (made, n) in (0..).zip([0, 1, 3, 4, 5, 15, 16, 17, 63, 64, 65, 128, 341, 1000]) {
        let (run, workloads) = a_stored_run(&db, who, &format!("of-{n}"), made, n).await;
        let mut tx = db.read().await.unwrap();
        let (mut seen, mut after) = (Vec::new(), None);
        loop {
            let page = workload::list_of_run(&mut tx, run, &[], Trash::Without, after, 100);
            let page = page.await.unwrap();
            seen.extend(page.items.into_iter().map(|stored| stored.workload));
            after = page.next;
            if after.is_none() {
                break;
            }
        }
        assert_eq!(seen, workloads, "{n}");
        for workload in &workloads {
            assert_eq!(
                event::of_workload(&mut tx, workload.id)
                    .await
                    .unwrap()
                    .len(),
                1
            );
        }
    }
}
