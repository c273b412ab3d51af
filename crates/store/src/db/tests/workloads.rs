//! Recording what happens to workloads.

use std::collections::BTreeSet;

use grid_core::workload::{Actor, Event, State, Why, Workload};

use super::conformance;
use super::place::{
    a_stored_run, a_workload, at, failed, finish, happen, placed, somebody, succeeded,
};
use crate::db::event::{self, Record};
use crate::db::workload::New;
use crate::db::{Db, workload};

conformance!(
    what_is_recorded_reads_back_and_folds,
    an_older_version_records_nothing,
    of_racing_writers_one_wins,
    many_records_in_one_call_each_have_their_answer,
    records_of_one_workload_are_taken_in_order,
    what_is_finished_can_be_tried_again,
    what_is_open_is_read_in_pages,
    a_log_is_read_from_any_place,
);

async fn what_is_recorded_reads_back_and_folds(db: Db) {
    let who = somebody(&db, "ada").await;
    let (_, mut workloads) = a_stored_run(&db, who, "run", 50, 2).await;
    let workload = &mut workloads[1];
    let mut version = 1;
    let lost = Why::Lost {
        message: "the machine 'größe' is gone".to_owned(),
    };
    happen(&db, workload, &mut version, &[placed(1)]).await;
    happen(
        &db,
        workload,
        &mut version,
        &[Event::Requeued {
            attempt: 1,
            why: lost,
        }],
    )
    .await;
    happen(
        &db,
        workload,
        &mut version,
        &[placed(2), Event::Started { attempt: 2 }],
    )
    .await;
    happen(&db, workload, &mut version, &[failed()]).await;

    let mut tx = db.read().await.unwrap();
    let stored = workload::get(&mut tx, workload.id).await.unwrap().unwrap();
    assert_eq!((&stored.workload, stored.version), (&*workload, 6));
    let log = event::of_workload(&mut tx, workload.id).await.unwrap();
    assert_eq!(
        log.iter().map(|logged| logged.seq).collect::<Vec<_>>(),
        [1, 2, 3, 4, 5, 6]
    );
    let events = log.iter().map(|logged| (&logged.event, logged.at));
    assert_eq!(Workload::fold(workload.id, events), *workload);
    // The other one is as it was.
    let other = workload::get(&mut tx, workloads[0].id)
        .await
        .unwrap()
        .unwrap();
    assert_eq!((other.workload, other.version), (workloads[0].clone(), 1));
}

async fn an_older_version_records_nothing(db: Db) {
    let who = somebody(&db, "ada").await;
    let (_, mut workloads) = a_stored_run(&db, who, "run", 50, 1).await;
    let old = workloads[0].clone();
    happen(&db, &mut workloads[0], &mut 1, &[placed(1)]).await;
    let unknown = a_workload(50);
    let mut tx = db.write().await.unwrap();
    let record = |workload, expected_version| Record {
        workload,
        expected_version,
        events: &[Event::Retried],
        actor: Actor::Engine,
        at: at(99),
    };
    let records = [
        record(&old, 1),
        record(&unknown, 1),
        record(&old, 3),
        record(&old, 0),
    ];
    assert_eq!(
        event::record_many(&mut tx, &records).await.unwrap(),
        [false; 4]
    );
    assert!(event::record_many(&mut tx, &[]).await.unwrap().is_empty());
    tx.commit().await.unwrap();
    let mut tx = db.read().await.unwrap();
    let stored = workload::get(&mut tx, old.id).await.unwrap().unwrap();
    assert_eq!((stored.workload, stored.version), (workloads[0].clone(), 2));
    assert_eq!(event::of_workload(&mut tx, old.id).await.unwrap().len(), 2);
    assert_eq!(event::of_workload(&mut tx, unknown.id).await.unwrap(), []);
}

async fn of_racing_writers_one_wins(db: Db) {
    const WRITERS: u32 = 32;
    let who = somebody(&db, "ada").await;
    let (_, workloads) = a_stored_run(&db, who, "run", 50, 3).await;
    let race = |number: u32| {
        let (db, mut workloads) = (db.clone(), workloads.clone());
        tokio::spawn(async move {
            let events = [placed(1)];
            workloads
                .iter_mut()
                .for_each(|workload| workload.apply(&events[0], at(60)));
            let record = |workload| Record {
                workload,
                expected_version: 1,
                events: &events,
                actor: Actor::Runner(number),
                at: at(60),
            };
            let records: Vec<_> = workloads.iter().map(record).collect();
            let mut tx = db.write().await.unwrap();
            let won = event::record_many(&mut tx, &records).await.unwrap();
            tx.commit().await.unwrap();
            (number, won)
        })
    };
    let racers: Vec<_> = (1..=WRITERS).map(race).collect();
    let mut winners = Vec::new();
    for racer in racers {
        let (number, won) = racer.await.unwrap();
        winners.extend(
            won.iter()
                .zip(&workloads)
                .filter(|(won, _)| **won)
                .map(|(_, w)| (w.id, number)),
        );
    }
    assert_eq!(winners.len(), workloads.len());
    let mut tx = db.read().await.unwrap();
    for (id, winner) in winners {
        let stored = workload::get(&mut tx, id).await.unwrap().unwrap();
        assert_eq!((stored.version, stored.workload.attempts), (2, 1));
        let log = event::of_workload(&mut tx, id).await.unwrap();
        assert_eq!((log.len(), log[1].actor), (2, Actor::Runner(winner)));
    }
}

async fn many_records_in_one_call_each_have_their_answer(db: Db) {
    let who = somebody(&db, "ada").await;
    let (_, mut workloads) = a_stored_run(&db, who, "run", 50, 300).await;
    let events = [placed(1), Event::Started { attempt: 1 }];
    for workload in &mut workloads {
        events
            .iter()
            .for_each(|event| workload.apply(event, at(60)));
    }
    // Every seventh expects what is not.
    let expected = |n: usize| if n.is_multiple_of(7) { 2 } else { 1 };
    let record = |(n, workload)| Record {
        workload,
        expected_version: expected(n),
        events: &events,
        actor: Actor::Engine,
        at: at(60),
    };
    let records: Vec<_> = workloads.iter().enumerate().map(record).collect();
    let mut tx = db.write().await.unwrap();
    let done = event::record_many(&mut tx, &records).await.unwrap();
    tx.commit().await.unwrap();
    let mut tx = db.read().await.unwrap();
    for (n, (workload, done)) in workloads.iter().zip(done).enumerate() {
        assert_eq!(done, !n.is_multiple_of(7), "{n}");
        let stored = workload::get(&mut tx, workload.id).await.unwrap().unwrap();
        assert_eq!(stored.version, if done { 3 } else { 1 });
        assert_eq!(stored.workload == *workload, done);
        let log = event::of_workload(&mut tx, workload.id).await.unwrap();
        assert_eq!(log.len() as u64, stored.version);
    }
}

async fn records_of_one_workload_are_taken_in_order(db: Db) {
    let who = somebody(&db, "ada").await;
    let (_, workloads) = a_stored_run(&db, who, "run", 50, 2).await;
    let events = [[placed(1)], [Event::Started { attempt: 1 }], [succeeded()]];
    let mut states = vec![workloads[0].clone()];
    for event in events.iter().flatten() {
        let mut next = states[states.len() - 1].clone();
        next.apply(event, at(60));
        states.push(next);
    }
    let record = |workload, expected_version, events| Record {
        workload,
        expected_version,
        events,
        actor: Actor::Engine,
        at: at(60),
    };
    let mut other = workloads[1].clone();
    other.apply(&events[0][0], at(60));
    let records = [
        record(&states[1], 1, &events[0]),
        record(&other, 1, &events[0]),
        record(&states[2], 2, &events[1]),
        record(&states[2], 2, &events[1]),
        record(&states[3], 3, &events[2]),
    ];
    let mut tx = db.write().await.unwrap();
    let done = event::record_many(&mut tx, &records).await.unwrap();
    assert_eq!(done, [true, true, true, false, true]);
    let stored = workload::get(&mut tx, states[0].id).await.unwrap().unwrap();
    assert_eq!((stored.version, &stored.workload), (4, &states[3]));
    assert_eq!(
        event::of_workload(&mut tx, states[0].id)
            .await
            .unwrap()
            .len(),
        4
    );
}

async fn what_is_finished_can_be_tried_again(db: Db) {
    let who = somebody(&db, "ada").await;
    let (_, mut workloads) = a_stored_run(&db, who, "run", 50, 1).await;
    finish(&db, &mut workloads[0], failed()).await;
    let mut tx = db.read().await.unwrap();
    assert_eq!(workload::open(&mut tx, None, 10).await.unwrap().items, []);
    drop(tx);
    happen(&db, &mut workloads[0], &mut 4, &[Event::Retried]).await;
    let mut tx = db.read().await.unwrap();
    let open = workload::open(&mut tx, None, 10).await.unwrap().items;
    assert_eq!(
        (open.len(), &open[0].workload, open[0].version),
        (1, &workloads[0], 5)
    );
    assert_eq!(open[0].workload.state, State::Queued);
}

async fn what_is_open_is_read_in_pages(db: Db) {
    let who = somebody(&db, "ada").await;
    let (run, mut workloads) = a_stored_run(&db, who, "run", 50, 25).await;
    let session = New {
        workload: a_workload(51),
        run: None,
        idx: 0,
        params: vec![],
        args: vec![],
        owner: who.0,
        team: who.1,
    };
    let mut tx = db.write().await.unwrap();
    workload::insert(&mut tx, std::slice::from_ref(&session), Actor::Engine)
        .await
        .unwrap();
    tx.commit().await.unwrap();
    for workload in workloads.iter_mut().step_by(5) {
        finish(&db, workload, succeeded()).await;
    }
    let mut tx = db.read().await.unwrap();
    let (mut seen, mut after, mut pages) = (BTreeSet::new(), None, 0);
    loop {
        let page = workload::open(&mut tx, after, 7).await.unwrap();
        pages += 1;
        for open in page.items {
            assert_eq!(
                open.run,
                (open.workload.id != session.workload.id).then_some(run)
            );
            assert_eq!((open.owner, open.team, open.version), (who.0, who.1, 1));
            assert!(seen.insert(open.workload.id));
        }
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    let open = workloads
        .iter()
        .enumerate()
        .filter(|(n, _)| n % 5 != 0)
        .map(|(_, w)| w.id);
    let expected: BTreeSet<_> = open.chain([session.workload.id]).collect();
    assert_eq!((seen, pages), (expected, 3));
    let all = workload::all_ids(&mut tx, None, 26).await.unwrap();
    assert_eq!((all.items.len(), all.next), (26, None));
    let first = workload::all_ids(&mut tx, None, 20).await.unwrap();
    let rest = workload::all_ids(&mut tx, first.next, 20).await.unwrap();
    assert_eq!([first.items, rest.items].concat(), all.items);
}

async fn a_log_is_read_from_any_place(db: Db) {
    let who = somebody(&db, "ada").await;
    let (_, mut workloads) = a_stored_run(&db, who, "run", 50, 1).await;
    finish(&db, &mut workloads[0], succeeded()).await;
    let id = workloads[0].id;
    let mut tx = db.read().await.unwrap();
    let all = event::of_workload(&mut tx, id).await.unwrap();
    assert_eq!(all.len(), 4);
    assert_eq!(event::since(&mut tx, id, 0, 100).await.unwrap(), all);
    assert_eq!(event::since(&mut tx, id, 2, 100).await.unwrap(), all[2..]);
    assert_eq!(event::since(&mut tx, id, 1, 2).await.unwrap(), all[1..3]);
    assert_eq!(event::since(&mut tx, id, 4, 100).await.unwrap(), []);
}
