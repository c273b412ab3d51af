//! Lists: filters, and paging without loss.

use std::collections::BTreeSet;

use grid_core::id::{RunId, TeamId, UserId};
use grid_core::run::OPEN;
use grid_core::workload::{Actor, Kind, Status};

use super::conformance;
use super::place::{a_stored_run, a_team, a_workload, at, finish, somebody, succeeded};
use crate::db::run::Filter;
use crate::db::workload::New;
use crate::db::{Db, Scope, Trash, run, team, workload};

conformance!(
    runs_are_paged_without_loss,
    rows_that_come_and_go_do_not_disturb_paging,
    runs_are_filtered,
    active_runs_are_found,
    workloads_are_listed_by_owner_and_team,
    a_limit_is_kept,
);

fn of(owner: Option<UserId>, teams: Option<&[TeamId]>) -> Filter<'_> {
    Filter {
        scope: Scope { owner, teams },
        ..Filter::default()
    }
}

/// The names of a whole list, read in pages of `limit`.
async fn names(db: &Db, filter: Filter<'_>, limit: u32) -> Vec<String> {
    let mut tx = db.read().await.unwrap();
    let (mut names, mut after) = (Vec::new(), None);
    loop {
        let page = run::list(&mut tx, &Filter { after, ..filter }, limit)
            .await
            .unwrap();
        assert!(page.items.len() <= limit as usize);
        assert!(page.next.is_none() || page.items.len() == limit as usize);
        names.extend(page.items.into_iter().map(|listed| listed.run.name));
        after = page.next;
        if after.is_none() {
            return names;
        }
    }
}

async fn runs_are_paged_without_loss(db: Db) {
    let (ada, bob) = (somebody(&db, "ada").await, somebody(&db, "bob").await);
    // Seven of each millisecond, so that pages end among equals.
    for n in 0..60 {
        let who = if n % 3 == 0 { bob } else { ada };
        a_stored_run(&db, who, &format!("run-{n:02}"), 100 + n / 7, 1).await;
    }
    // More teams than are read one by one.
    let mut many: Vec<TeamId> = Vec::new();
    let mut tx = db.write().await.unwrap();
    for n in 0..20 {
        let team = a_team(&format!("empty-{n}"));
        team::insert(&mut tx, &team).await.unwrap();
        many.push(team.id);
    }
    tx.commit().await.unwrap();
    many.extend([ada.1, bob.1]);
    let two = [ada.1, bob.1, ada.1];
    let all = names(&db, Filter::default(), 1000).await;
    assert_eq!(all.iter().collect::<BTreeSet<_>>().len(), 60);
    for limit in [1, 7, 20, 59, 60] {
        assert_eq!(names(&db, Filter::default(), limit).await, all, "{limit}");
        assert_eq!(
            names(&db, of(None, Some(&two)), limit).await,
            all,
            "{limit}"
        );
        assert_eq!(
            names(&db, of(None, Some(&many)), limit).await,
            all,
            "{limit}"
        );
        let of_bob = names(&db, of(Some(bob.0), None), limit).await;
        assert_eq!(of_bob.len(), 20);
        assert_eq!(names(&db, of(None, Some(&[bob.1])), limit).await, of_bob);
        assert_eq!(
            names(&db, of(Some(bob.0), Some(&many)), limit).await,
            of_bob
        );
    }
    assert!(
        names(&db, of(Some(bob.0), Some(&[ada.1])), 10)
            .await
            .is_empty()
    );
    assert!(names(&db, of(None, Some(&[])), 10).await.is_empty());
    assert!(
        names(&db, of(Some(UserId::from_entropy(u128::MAX)), None), 10)
            .await
            .is_empty()
    );
}

async fn rows_that_come_and_go_do_not_disturb_paging(db: Db) {
    let who = somebody(&db, "ada").await;
    let mut ids: Vec<RunId> = Vec::new();
    for n in 0..10 {
        ids.push(
            a_stored_run(&db, who, &format!("run-{n}"), 100 + n, 0)
                .await
                .0,
        );
    }
    let mut tx = db.read().await.unwrap();
    let first = run::list(&mut tx, &Filter::default(), 4).await.unwrap();
    drop(tx);
    // One that was shown goes, as does the one that the page ended with; a new one comes.
    let mut tx = db.write().await.unwrap();
    run::set_deleted(&mut tx, ids[8], who.0, at(200))
        .await
        .unwrap();
    run::set_deleted(&mut tx, ids[6], who.0, at(200))
        .await
        .unwrap();
    tx.commit().await.unwrap();
    a_stored_run(&db, who, "new", 300, 0).await;
    let mut tx = db.read().await.unwrap();
    let filter = Filter {
        after: first.next,
        ..Filter::default()
    };
    let second = run::list(&mut tx, &filter, 100).await.unwrap();
    let names: Vec<_> = second
        .items
        .iter()
        .map(|listed| listed.run.name.as_str())
        .collect();
    assert_eq!(
        names,
        ["run-5", "run-4", "run-3", "run-2", "run-1", "run-0"]
    );
}

async fn runs_are_filtered(db: Db) {
    let who = somebody(&db, "ada").await;
    let made = [
        ("tune-lr", 100),
        ("Tune_it", 200),
        ("100%-sure", 300),
        ("back\\slash", 400),
        ("größe", 500),
    ];
    for (name, made) in made {
        a_stored_run(&db, who, name, made, 1).await;
    }
    let (gone, _) = a_stored_run(&db, who, "tune-gone", 600, 1).await;
    let mut tx = db.write().await.unwrap();
    run::set_deleted(&mut tx, gone, who.0, at(700))
        .await
        .unwrap();
    tx.commit().await.unwrap();
    let containing = |text| Filter {
        name_contains: Some(text),
        ..Filter::default()
    };
    assert_eq!(
        names(&db, containing("TUNE"), 10).await,
        ["Tune_it", "tune-lr"]
    );
    assert_eq!(names(&db, containing("e_i"), 10).await, ["Tune_it"]);
    assert_eq!(names(&db, containing("0%"), 10).await, ["100%-sure"]);
    assert_eq!(names(&db, containing("k\\s"), 10).await, ["back\\slash"]);
    assert_eq!(names(&db, containing("röß"), 10).await, ["größe"]);
    assert_eq!(names(&db, containing("%"), 10).await.len(), 1);
    assert_eq!(names(&db, containing(""), 10).await.len(), 5);
    let between = Filter {
        created_from: Some(at(200)),
        created_until: Some(at(400)),
        ..Filter::default()
    };
    assert_eq!(names(&db, between, 10).await, ["100%-sure", "Tune_it"]);
    let trash = |trash| Filter {
        trash,
        ..containing("tune-")
    };
    assert_eq!(names(&db, trash(Trash::Only), 10).await, ["tune-gone"]);
    assert_eq!(
        names(&db, trash(Trash::With), 10).await,
        ["tune-gone", "tune-lr"]
    );
}

async fn active_runs_are_found(db: Db) {
    let (ada, bob) = (somebody(&db, "ada").await, somebody(&db, "bob").await);
    let (_, mut done) = a_stored_run(&db, ada, "done", 100, 2).await;
    let (_, mut half) = a_stored_run(&db, ada, "half", 200, 2).await;
    let (_, alone) = a_stored_run(&db, ada, "alone-in-trash", 300, 1).await;
    a_stored_run(&db, bob, "of-bob", 400, 3).await;
    let (gone, _) = a_stored_run(&db, ada, "in-trash", 500, 1).await;
    for workload in &mut done {
        finish(&db, workload, succeeded()).await;
    }
    finish(&db, &mut half[0], succeeded()).await;
    let mut tx = db.write().await.unwrap();
    workload::set_deleted(&mut tx, alone[0].id, ada.0, at(600))
        .await
        .unwrap();
    run::set_deleted(&mut tx, gone, ada.0, at(600))
        .await
        .unwrap();
    tx.commit().await.unwrap();
    let active = Filter {
        statuses: &OPEN,
        ..Filter::default()
    };
    for limit in [1, 10] {
        assert_eq!(names(&db, active, limit).await, ["of-bob", "half"]);
    }
    fn of(owner: Option<UserId>, teams: Option<&[TeamId]>) -> Filter<'_> {
        Filter {
            statuses: &OPEN,
            ..super::lists::of(owner, teams)
        }
    }
    assert_eq!(names(&db, of(Some(ada.0), None), 10).await, ["half"]);
    assert_eq!(names(&db, of(None, Some(&[bob.1])), 10).await, ["of-bob"]);
    assert_eq!(
        names(&db, of(None, Some(&[ada.1, bob.1])), 10).await,
        ["of-bob", "half"]
    );
    assert!(names(&db, of(None, Some(&[])), 10).await.is_empty());
}

async fn workloads_are_listed_by_owner_and_team(db: Db) {
    let (ada, bob) = (somebody(&db, "ada").await, somebody(&db, "bob").await);
    let (gone, _) = a_stored_run(&db, ada, "gone", 100, 2).await;
    let (_, mut of_bob) = a_stored_run(&db, bob, "run", 200, 5).await;
    let mut session = a_workload(300);
    session.kind = Kind::Session;
    let new = New {
        workload: session.clone(),
        run: None,
        idx: 0,
        params: vec![],
        args: vec![],
        owner: ada.0,
        team: bob.1,
    };
    let mut tx = db.write().await.unwrap();
    workload::insert(&mut tx, &[new], Actor::Engine)
        .await
        .unwrap();
    run::set_deleted(&mut tx, gone, ada.0, at(400))
        .await
        .unwrap();
    tx.commit().await.unwrap();
    finish(&db, &mut of_bob[2], succeeded()).await;

    let list = async |filter: workload::Filter<'_>| {
        let mut tx = db.read().await.unwrap();
        let (mut ids, mut after) = (Vec::new(), None);
        loop {
            let page = workload::list(&mut tx, &workload::Filter { after, ..filter }, 2)
                .await
                .unwrap();
            ids.extend(page.items.into_iter().map(|stored| stored.workload.id));
            after = page.next;
            if after.is_none() {
                return ids;
            }
        }
    };
    fn of(owner: Option<UserId>, teams: Option<&[TeamId]>) -> workload::Filter<'_> {
        workload::Filter {
            scope: Scope { owner, teams },
            ..Default::default()
        }
    }
    let mut newest_first: Vec<_> = of_bob.iter().map(|w| w.id).collect();
    newest_first.sort_unstable_by_key(|id| std::cmp::Reverse(*id));
    newest_first.insert(0, session.id);
    assert_eq!(list(of(None, None)).await, newest_first);
    assert_eq!(list(of(None, Some(&[ada.1, bob.1]))).await, newest_first);
    assert_eq!(list(of(Some(ada.0), None)).await, [session.id]);
    assert_eq!(list(of(Some(ada.0), Some(&[ada.1]))).await, []);
    let trash = workload::Filter {
        trash: Trash::Only,
        ..of(Some(ada.0), None)
    };
    assert_eq!(list(trash).await.len(), 2);
    let sessions = workload::Filter {
        kind: Some(Kind::Session),
        ..of(None, None)
    };
    assert_eq!(list(sessions).await, [session.id]);
    let statuses = [Status::Succeeded, Status::Failed, Status::Running];
    let teams = [bob.1];
    let ended = workload::Filter {
        statuses: &statuses,
        ..of(None, Some(&teams))
    };
    assert_eq!(list(ended).await, [of_bob[2].id]);
}

async fn a_limit_is_kept(db: Db) {
    let who = somebody(&db, "ada").await;
    a_stored_run(&db, who, "run", 100, 3).await;
    let mut tx = db.read().await.unwrap();
    // Nothing at all would be a page that leads nowhere.
    let page = workload::open(&mut tx, None, 0).await.unwrap();
    assert_eq!((page.items.len(), page.next.is_some()), (1, true));
    let page = workload::open(&mut tx, None, u32::MAX).await.unwrap();
    assert_eq!((page.items.len(), page.next), (3, None));
}
