//! Leases, settings, tokens, idempotency keys, the audit log.

use grid_core::id::{NodeId, TeamId, UserId};

use super::conformance;
use super::place::{a_stored_run, at, somebody};
use crate::db::audit::{self, Entry, Filter};
use crate::db::idempotency::{self, Done};
use crate::db::{Db, Error, lease, runner_token, setting};

conformance!(
    a_lease_is_held_by_one,
    of_racing_holders_one_has_the_lease,
    a_setting_is_kept,
    a_runner_token_is_replaced,
    what_was_done_under_a_key_is_known,
    the_audit_log_is_paged_and_filtered,
);

async fn a_lease_is_held_by_one(db: Db) {
    let mut tx = db.write().await.unwrap();
    assert!(
        lease::acquire(&mut tx, "engine", "a", at(0), at(100))
            .await
            .unwrap()
    );
    assert!(
        lease::acquire(&mut tx, "engine", "a", at(50), at(150))
            .await
            .unwrap()
    );
    assert!(
        !lease::acquire(&mut tx, "engine", "b", at(149), at(300))
            .await
            .unwrap()
    );
    assert!(
        lease::acquire(&mut tx, "other", "b", at(149), at(300))
            .await
            .unwrap()
    );
    assert_eq!(
        lease::holder(&mut tx, "engine").await.unwrap(),
        Some(("a".to_owned(), at(150)))
    );
    assert!(
        lease::acquire(&mut tx, "engine", "b", at(150), at(300))
            .await
            .unwrap()
    );
    assert!(!lease::release(&mut tx, "engine", "a").await.unwrap());
    assert!(lease::release(&mut tx, "engine", "b").await.unwrap());
    assert_eq!(lease::holder(&mut tx, "engine").await.unwrap(), None);
    assert!(
        lease::acquire(&mut tx, "engine", "a", at(151), at(300))
            .await
            .unwrap()
    );
}

async fn of_racing_holders_one_has_the_lease(db: Db) {
    let race = |n: u32| {
        let db = db.clone();
        tokio::spawn(async move {
            let mut tx = db.write().await.unwrap();
            let holder = format!("holder-{n}");
            let won = lease::acquire(&mut tx, "engine", &holder, at(0), at(100))
                .await
                .unwrap();
            tx.commit().await.unwrap();
            won
        })
    };
    let racers: Vec<_> = (0..32).map(race).collect();
    let mut winners = 0;
    for racer in racers {
        winners += u32::from(racer.await.unwrap());
    }
    assert_eq!(winners, 1);
}

async fn a_setting_is_kept(db: Db) {
    let mut tx = db.write().await.unwrap();
    assert_eq!(setting::get(&mut tx, "motd").await.unwrap(), None);
    setting::put(&mut tx, "motd", "hello").await.unwrap();
    setting::put(&mut tx, "motd", "grüß 'Gott' \u{1F600}")
        .await
        .unwrap();
    tx.commit().await.unwrap();
    let mut tx = db.write().await.unwrap();
    let value = setting::get(&mut tx, "motd").await.unwrap();
    assert_eq!(value.as_deref(), Some("grüß 'Gott' \u{1F600}"));
    assert!(setting::remove(&mut tx, "motd").await.unwrap());
    assert!(!setting::remove(&mut tx, "motd").await.unwrap());
    drop(tx);
    // What was not committed did not happen.
    let mut tx = db.read().await.unwrap();
    assert!(setting::get(&mut tx, "motd").await.unwrap().is_some());
}

async fn a_runner_token_is_replaced(db: Db) {
    let (local, other): (NodeId, NodeId) = ("local".parse().unwrap(), "n2".parse().unwrap());
    let mut tx = db.write().await.unwrap();
    runner_token::put(&mut tx, &local, "hash-1", at(1))
        .await
        .unwrap();
    runner_token::put(&mut tx, &other, "hash-2", at(1))
        .await
        .unwrap();
    runner_token::put(&mut tx, &local, "hash-3", at(2))
        .await
        .unwrap();
    assert_eq!(
        runner_token::node_by_hash(&mut tx, "hash-1").await.unwrap(),
        None
    );
    assert_eq!(
        runner_token::node_by_hash(&mut tx, "hash-3").await.unwrap(),
        Some(local.clone())
    );
    assert!(runner_token::remove(&mut tx, &local).await.unwrap());
    assert!(!runner_token::remove(&mut tx, &local).await.unwrap());
    let taken = runner_token::put(&mut tx, &local, "hash-2", at(3)).await;
    assert!(matches!(taken, Err(Error::Conflict { .. })), "{taken:?}");
}

async fn what_was_done_under_a_key_is_known(db: Db) {
    let (ada, bob) = (somebody(&db, "ada").await, somebody(&db, "bob").await);
    let (run, _) = a_stored_run(&db, ada, "run", 50, 0).await;
    let done = Done {
        run,
        body_hash: "abc".to_owned(),
        created_at: at(50),
    };
    let mut tx = db.write().await.unwrap();
    idempotency::put(&mut tx, ada.0, "key", &done)
        .await
        .unwrap();
    idempotency::put(
        &mut tx,
        bob.0,
        "key",
        &Done {
            created_at: at(90),
            ..done.clone()
        },
    )
    .await
    .unwrap();
    assert_eq!(
        idempotency::get(&mut tx, ada.0, "key").await.unwrap(),
        Some(done.clone())
    );
    assert_eq!(
        idempotency::get(&mut tx, ada.0, "other").await.unwrap(),
        None
    );
    assert_eq!(
        idempotency::remove_before(&mut tx, at(90)).await.unwrap(),
        1
    );
    assert_eq!(idempotency::get(&mut tx, ada.0, "key").await.unwrap(), None);
    let taken = idempotency::put(&mut tx, bob.0, "key", &done).await;
    assert!(
        matches!(
            taken,
            Err(Error::Conflict {
                what: "this idempotency key"
            })
        ),
        "{taken:?}"
    );
}

fn teams() -> [TeamId; 2] {
    [TeamId::from_parts(at(1), 1), TeamId::from_parts(at(1), 2)]
}

fn users() -> [UserId; 2] {
    [UserId::from_entropy(1), UserId::from_entropy(2)]
}

/// Four of each millisecond; one of no team.
fn entry(n: usize) -> Entry {
    Entry {
        id: format!("{n:03}"),
        at: at(i64::try_from(n / 4).unwrap()),
        team: (n != 29).then(|| teams()[n % 2]),
        user: (n != 29).then(|| users()[n % 3 / 2]),
        actor: "ada".to_owned(),
        action: if n.is_multiple_of(5) {
            "run_delete"
        } else {
            "run_create"
        }
        .to_owned(),
        thing_kind: "run".to_owned(),
        thing_id: format!("thing-{}", n % 10),
        thing_name: "größe".to_owned(),
        result: "done".to_owned(),
        detail: "{}".to_owned(),
        address: "127.0.0.1".to_owned(),
        client: "grid 0.1".to_owned(),
        actor_kind: "user".to_owned(),
    }
}

/// A whole list, read in pages.
async fn lines(db: &Db, filter: &Filter<'_>, limit: u32) -> Vec<Entry> {
    let mut tx = db.read().await.unwrap();
    let mut filter = filter.clone();
    let mut lines = Vec::new();
    loop {
        let page = audit::list(&mut tx, &filter, limit).await.unwrap();
        lines.extend(page.items);
        filter.after = page.next;
        if filter.after.is_none() {
            return lines;
        }
    }
}

async fn the_audit_log_is_paged_and_filtered(db: Db) {
    let (teams, users) = (teams(), users());
    let all: Vec<Entry> = (0..30).map(entry).rev().collect();
    let mut tx = db.write().await.unwrap();
    for entry in &all {
        audit::insert(&mut tx, entry).await.unwrap();
    }
    tx.commit().await.unwrap();
    for limit in [1, 7, 30, 100] {
        assert_eq!(lines(&db, &Filter::default(), limit).await, all);
    }
    let only =
        |keep: &dyn Fn(&Entry) -> bool| all.iter().filter(|e| keep(e)).cloned().collect::<Vec<_>>();
    let of_team = Filter {
        team: Some(teams[1]),
        ..Filter::default()
    };
    assert_eq!(
        lines(&db, &of_team, 3).await,
        only(&|e| e.team == Some(teams[1]))
    );
    let of_user = Filter {
        user: Some(users[1]),
        ..of_team
    };
    assert_eq!(
        lines(&db, &of_user, 3).await,
        only(&|e| e.team == Some(teams[1]) && e.user == Some(users[1]))
    );
    let deletes = Filter {
        action: Some("run_delete"),
        ..Filter::default()
    };
    assert_eq!(
        lines(&db, &deletes, 3).await,
        only(&|e| e.action == "run_delete")
    );
    let thing = Filter {
        thing: Some("thing-3"),
        ..Filter::default()
    };
    assert_eq!(
        lines(&db, &thing, 3).await,
        only(&|e| e.thing_id == "thing-3")
    );
    let between = Filter {
        from: Some(at(2)),
        until: Some(at(4)),
        ..Filter::default()
    };
    assert_eq!(
        lines(&db, &between, 3).await,
        only(&|e| (2..4).contains(&e.at.as_millis()))
    );
}
