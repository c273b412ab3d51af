//! Lists by state: what the database finds is what `grid_core::run::status` says.

use grid_core::id::{TeamId, UserId};
use grid_core::run::{DECISIVE, ENDED, OPEN, status};
use grid_core::workload::{Event, Outcome, Status, Workload};

use super::conformance;
use super::place::{a_stored_run, a_team, at, failed, happen, placed, somebody, succeeded};
use crate::db::run::{Few, Filter};
use crate::db::{Db, Scope, Trash, purge, run, team, workload};

conformance!(
    runs_are_found_by_their_status,
    a_run_that_lost_its_experiments_has_stopped,
    other_filters_hold_beside_the_status,
);

/// What an experiment goes through until it is in one of eight states.
fn life(state: usize) -> Vec<Event> {
    let (placed, started) = (placed(1), Event::Started { attempt: 1 });
    let stop = Event::StopRequested { by: None };
    let stopped = Event::Finished {
        outcome: Outcome::Stopped { by: None },
    };
    match state {
        0 => vec![],
        1 => vec![placed],
        2 => vec![placed, started],
        3 => vec![placed, started, stop],
        4 => vec![placed, started, succeeded()],
        5 => vec![placed, started, failed()],
        6 => vec![Event::Paused],
        _ => vec![placed, started, stop, stopped],
    }
}

/// Seventy runs of two people in two teams, of up to three experiments in all kinds of
/// states, some of which are in the trash or gone for good.
async fn a_world(db: &Db) -> [(UserId, TeamId); 2] {
    let people = [somebody(db, "ada").await, somebody(db, "bob").await];
    let mut dice = 7_usize;
    let mut roll = |sides: usize| {
        dice = dice.wrapping_mul(1_103_515_245).wrapping_add(12_345) % (1 << 31);
        dice / 65_536 % sides
    };
    for n in 0..70 {
        let name = format!("run-{n:02}");
        let made = 100 + i64::from(n / 3);
        let experiments = u32::try_from(roll(4)).unwrap();
        let (id, mut of_run) = a_stored_run(db, people[roll(2)], &name, made, experiments).await;
        // Half of the runs end in one way, so that every status occurs.
        let usual = (roll(2) == 0).then(|| roll(8));
        let mut gone = Vec::new();
        for workload in &mut of_run {
            let state = usual.unwrap_or_else(|| roll(8));
            let events = life(state);
            if !events.is_empty() {
                happen(db, workload, &mut 1, &events).await;
            }
            if roll(6) == 0 {
                gone.push(workload.id);
            }
        }
        let who = people[0].0;
        let mut tx = db.write().await.unwrap();
        for one in &gone {
            workload::set_deleted(&mut tx, *one, who, at(2_000))
                .await
                .unwrap();
        }
        if roll(2) == 0 {
            purge::single(&mut tx, &gone).await.unwrap();
        }
        if roll(8) == 0 {
            run::set_deleted(&mut tx, id, who, at(2_000)).await.unwrap();
        }
        tx.commit().await.unwrap();
    }
    people
}

/// The runs of a whole list with their statuses, read in pages of `limit`.
async fn listed(db: &Db, filter: Filter<'_>, limit: u32) -> Vec<(String, Status)> {
    listed_where(db, filter, limit, Few::USUAL).await
}

async fn listed_where(db: &Db, filter: Filter<'_>, limit: u32, few: Few) -> Vec<(String, Status)> {
    let mut tx = db.read().await.unwrap();
    let (mut all, mut after) = (Vec::new(), None);
    loop {
        let page = run::list_where(&mut tx, &Filter { after, ..filter }, limit, few)
            .await
            .unwrap();
        let is_full = page.items.len() == limit as usize;
        assert!(is_full || page.next.is_none());
        let one = |one: run::Listed| (one.run.name, status(&one.tally.counts));
        all.extend(page.items.into_iter().map(one));
        after = page.next;
        if after.is_none() {
            return all;
        }
    }
}

async fn names(db: &Db, filter: Filter<'_>) -> Vec<String> {
    let all = listed(db, filter, 2).await;
    all.into_iter().map(|(name, _)| name).collect()
}

async fn runs_are_found_by_their_status(db: Db) {
    let [ada, bob] = a_world(&db).await;
    let mut many: Vec<TeamId> = vec![ada.1, bob.1];
    let mut tx = db.write().await.unwrap();
    for n in 0..10 {
        let team = a_team(&format!("empty-{n}"));
        team::insert(&mut tx, &team).await.unwrap();
        many.push(team.id);
    }
    tx.commit().await.unwrap();
    let both = [ada.1, bob.1];
    let scope = |owner, teams| Scope { owner, teams };
    let scopes = [
        scope(None, None),
        scope(None, Some(&both[..])),
        scope(None, Some(&both[..1])),
        scope(None, Some(&many)),
        scope(Some(bob.0), Some(&both)),
        scope(Some(ada.0), Some(&many)),
        scope(None, Some(&[])),
    ];
    let mut wanted: Vec<Vec<Status>> = Status::ALL.map(|one| vec![one]).to_vec();
    wanted.push(OPEN.to_vec());
    wanted.push(ENDED.to_vec());
    wanted.push(DECISIVE.to_vec());
    wanted.push(vec![Status::Stopped, Status::Running, Status::Failed]);
    wanted.push(vec![Status::Queued, Status::Succeeded]);
    for scope in scopes {
        for trash in [Trash::Without, Trash::Only, Trash::With] {
            let all = Filter {
                scope,
                trash,
                ..Filter::default()
            };
            let everything = listed(&db, all, 1_000).await;
            for statuses in &wanted {
                let mut expected = everything.clone();
                expected.retain(|(_, status)| statuses.contains(status));
                let none = Few { open: 1, own: 1 };
                for (limit, few) in [(2, Few::USUAL), (1_000, none), (2, none)] {
                    let filter = Filter { statuses, ..all };
                    let found = listed_where(&db, filter, limit, few).await;
                    assert_eq!(found, expected, "{statuses:?} of {scope:?}, {trash:?}");
                }
            }
        }
    }
    // The world has what is looked for.
    let everything = listed(&db, Filter::default(), 1_000).await;
    for status in DECISIVE {
        assert!(everything.iter().any(|(_, of)| *of == status), "{status:?}");
    }
}

async fn a_run_that_lost_its_experiments_has_stopped(db: Db) {
    let ada = somebody(&db, "ada").await;
    let teams = [ada.1];
    let stopped = Filter {
        scope: Scope {
            owner: None,
            teams: Some(&teams),
        },
        statuses: &[Status::Stopped],
        ..Filter::default()
    };
    let (_, mut of_run) = a_stored_run(&db, ada, "run", 100, 2).await;
    for workload in &mut of_run {
        happen(&db, workload, &mut 1, &life(4)).await;
    }
    let ids: Vec<_> = of_run
        .iter()
        .map(|workload: &Workload| workload.id)
        .collect();
    assert!(names(&db, stopped).await.is_empty());
    let mut tx = db.write().await.unwrap();
    for id in &ids {
        workload::set_deleted(&mut tx, *id, ada.0, at(200))
            .await
            .unwrap();
    }
    tx.commit().await.unwrap();
    assert_eq!(names(&db, stopped).await, ["run"]);
    let mut tx = db.write().await.unwrap();
    workload::restore(&mut tx, ids[0]).await.unwrap();
    tx.commit().await.unwrap();
    assert!(names(&db, stopped).await.is_empty());
    let mut tx = db.write().await.unwrap();
    workload::set_deleted(&mut tx, ids[0], ada.0, at(300))
        .await
        .unwrap();
    purge::single(&mut tx, &ids).await.unwrap();
    tx.commit().await.unwrap();
    assert_eq!(names(&db, stopped).await, ["run"]);
}

async fn other_filters_hold_beside_the_status(db: Db) {
    let ada = somebody(&db, "ada").await;
    for n in 0..12_usize {
        let made = 100 + i64::try_from(n).unwrap();
        let word = if n % 4 == 3 { "tune" } else { "train" };
        let name = format!("{word}-{n:02}");
        let (_, mut of_run) = a_stored_run(&db, ada, &name, made, 1).await;
        let state = if n % 2 == 0 { 4 } else { 5 };
        happen(&db, &mut of_run[0], &mut 1, &life(state)).await;
    }
    let teams = [ada.1];
    let failed = Filter {
        scope: Scope {
            owner: None,
            teams: Some(&teams),
        },
        statuses: &[Status::Failed],
        ..Filter::default()
    };
    let expected = [
        "tune-11", "train-09", "tune-07", "train-05", "tune-03", "train-01",
    ];
    assert_eq!(names(&db, failed).await, expected);
    // Fewer than were looked at in one step.
    let tune = Filter {
        name_contains: Some("tune"),
        ..failed
    };
    assert_eq!(names(&db, tune).await, ["tune-11", "tune-07", "tune-03"]);
    let between = Filter {
        created_from: Some(at(103)),
        created_until: Some(at(109)),
        ..failed
    };
    assert_eq!(
        names(&db, between).await,
        ["tune-07", "train-05", "tune-03"]
    );
}
