//! Invitations, links, and what teams are changed by.

use grid_core::id::{RunId, UserId};
use grid_core::team::Role;

use super::conformance;
use super::place::{a_stored_run, a_team, a_user, at, entropy, somebody};
use crate::db::audit::{self, Entry, Filter as AuditFilter};
use crate::db::draft;
use crate::db::invitation::{self, Invitation, Outcome};
use crate::db::share::{self, Filter, Share};
use crate::db::{Db, Error, Scope, team, user};

conformance!(
    an_invitation_is_open_until_it_ends,
    a_newer_invitation_replaces_the_former,
    links_are_listed_and_end,
    a_link_goes_with_its_run,
    a_team_is_renamed_and_counted,
    accounts_for_programs_belong_to_a_team,
    the_audit_log_is_shortened,
    a_draft_waits_until_it_ends,
);

fn an_invitation(team: grid_core::id::TeamId, by: UserId, to: &str) -> Invitation {
    Invitation {
        id: format!("i{:05}", entropy()),
        team,
        invitee: to.to_owned(),
        user: None,
        role: Role::Member,
        invited_by: by,
        created_at: at(10),
        expires_at: at(100),
    }
}

async fn an_invitation_is_open_until_it_ends(db: Db) {
    let (ada, lab) = somebody(&db, "ada").await;
    let (bob, _) = somebody(&db, "bob").await;
    let mut named = an_invitation(lab, ada, "Bob");
    named.user = Some(bob);
    let mailed = an_invitation(lab, ada, "bob@Example.org");
    let mut tx = db.write().await.unwrap();
    invitation::insert(&mut tx, &named, None).await.unwrap();
    invitation::insert(&mut tx, &mailed, Some("hash"))
        .await
        .unwrap();
    tx.commit().await.unwrap();

    let mut tx = db.write().await.unwrap();
    let both = vec![named.clone(), mailed.clone()];
    assert_eq!(
        invitation::of_team(&mut tx, lab, at(99)).await.unwrap(),
        both
    );
    let mine = invitation::to_user(&mut tx, bob, "BOB@example.org", at(99));
    assert_eq!(mine.await.unwrap(), both);
    let other = invitation::to_user(&mut tx, ada, "", at(99)).await.unwrap();
    assert_eq!(other, vec![]);
    let over = invitation::to_user(&mut tx, bob, "bob@example.org", at(100));
    assert_eq!(over.await.unwrap(), vec![]);
    let found = invitation::by_hash(&mut tx, "hash").await.unwrap();
    assert_eq!(found, Some(mailed.clone()));
    let end = Outcome::Accepted;
    assert!(
        invitation::end(&mut tx, &mailed.id, end, at(50))
            .await
            .unwrap()
    );
    let again = invitation::end(&mut tx, &mailed.id, Outcome::Revoked, at(51));
    assert!(!again.await.unwrap(), "once");
    assert_eq!(invitation::by_hash(&mut tx, "hash").await.unwrap(), None);
    assert_eq!(
        invitation::of_team(&mut tx, lab, at(99)).await.unwrap(),
        [named]
    );
}

async fn a_newer_invitation_replaces_the_former(db: Db) {
    let (ada, lab) = somebody(&db, "ada").await;
    let (first, mut second) = (
        an_invitation(lab, ada, "eve@x.org"),
        an_invitation(lab, ada, "EVE@x.org"),
    );
    second.role = Role::Viewer;
    let mut tx = db.write().await.unwrap();
    invitation::insert(&mut tx, &first, Some("one"))
        .await
        .unwrap();
    invitation::insert(&mut tx, &second, Some("two"))
        .await
        .unwrap();
    assert_eq!(invitation::by_hash(&mut tx, "one").await.unwrap(), None);
    assert_eq!(
        invitation::of_team(&mut tx, lab, at(99)).await.unwrap(),
        [second]
    );
}

fn a_share(who: (UserId, grid_core::id::TeamId), run: RunId, made: i64) -> Share {
    Share {
        id: format!("s{:05}", entropy()),
        team: who.1,
        creator: who.0,
        run,
        artifact: None,
        created_at: at(made),
        expires_at: Some(at(100)),
        revoked_at: None,
        last_used_at: None,
    }
}

async fn links_are_listed_and_end(db: Db) {
    let ada = somebody(&db, "ada").await;
    let bob = somebody(&db, "bob").await;
    let (run, workloads) = a_stored_run(&db, ada, "bert", 1, 2).await;
    let (theirs, _) = a_stored_run(&db, bob, "gpt", 1, 1).await;
    let mut file = a_share(ada, run, 2);
    file.artifact = Some((workloads[0].id, "out/größe.txt".to_owned()));
    let plain = a_share(ada, run, 3);
    let other = a_share(bob, theirs, 4);
    let mut for_ever = a_share(ada, run, 5);
    for_ever.expires_at = None;
    let all = [&file, &plain, &other, &for_ever];
    let rows: Vec<(Share, String)> = all
        .iter()
        .map(|share| (Share::clone(share), format!("hash of {}", share.id)))
        .collect();
    let mut tx = db.write().await.unwrap();
    share::insert_many(&mut tx, &rows).await.unwrap();
    tx.commit().await.unwrap();

    let mut tx = db.write().await.unwrap();
    let hash = format!("hash of {}", file.id);
    assert_eq!(
        share::by_hash(&mut tx, &hash).await.unwrap(),
        Some(file.clone())
    );
    assert_eq!(
        share::by_id(&mut tx, &plain.id).await.unwrap(),
        Some(plain.clone())
    );
    let teams = [ada.1];
    let mut filter = Filter {
        scope: Scope {
            owner: None,
            teams: Some(&teams),
        },
        open_at: Some(at(50)),
        ..Filter::default()
    };
    let page = share::list(&mut tx, &filter, 2).await.unwrap();
    assert_eq!(page.items, [for_ever.clone(), plain.clone()]);
    filter.after = page.next;
    let page = share::list(&mut tx, &filter, 2).await.unwrap();
    assert_eq!((page.items, page.next), (vec![file.clone()], None));
    filter.after = None;
    assert!(share::revoke(&mut tx, &for_ever.id, at(40)).await.unwrap());
    assert!(!share::revoke(&mut tx, &for_ever.id, at(41)).await.unwrap());
    share::touch(&mut tx, &plain.id, at(45)).await.unwrap();
    share::touch(&mut tx, &plain.id, at(44)).await.unwrap();
    let page = share::list(&mut tx, &filter, 9).await.unwrap();
    let used: Vec<_> = page.items.iter().map(|one| one.last_used_at).collect();
    assert_eq!(used, [Some(at(45)), None], "the revoked one is not shown");
    filter.open_at = Some(at(100));
    assert_eq!(share::list(&mut tx, &filter, 9).await.unwrap().items, []);
    let mine = Filter {
        scope: Scope {
            owner: Some(bob.0),
            teams: None,
        },
        run: Some(theirs),
        ..Filter::default()
    };
    assert_eq!(share::list(&mut tx, &mine, 9).await.unwrap().items, [other]);
    assert_eq!(share::remove_before(&mut tx, at(41)).await.unwrap(), 1);
    assert_eq!(share::remove_before(&mut tx, at(101)).await.unwrap(), 3);
}

async fn a_link_goes_with_its_run(db: Db) {
    let ada = somebody(&db, "ada").await;
    let (run, workloads) = a_stored_run(&db, ada, "bert", 1, 1).await;
    let mut file = a_share(ada, run, 2);
    file.artifact = Some((workloads[0].id, "a".to_owned()));
    let rows = [
        (a_share(ada, run, 2), "one".to_owned()),
        (file, "two".to_owned()),
    ];
    let mut tx = db.write().await.unwrap();
    share::insert_many(&mut tx, &rows).await.unwrap();
    crate::db::run::set_deleted(&mut tx, run, ada.0, at(9))
        .await
        .unwrap();
    while !crate::db::purge::run(&mut tx, run).await.unwrap().done {}
    for hash in ["one", "two"] {
        assert_eq!(share::by_hash(&mut tx, hash).await.unwrap(), None);
    }
}

async fn a_team_is_renamed_and_counted(db: Db) {
    let (ada, lab) = somebody(&db, "lab").await;
    let (bob, other) = somebody(&db, "other").await;
    let mut personal = a_team("personal");
    personal.personal = true;
    let mut tx = db.write().await.unwrap();
    team::insert(&mut tx, &personal).await.unwrap();
    team::set_role(&mut tx, lab, bob, Role::Member, at(9))
        .await
        .unwrap();
    assert!(team::lock(&mut tx, lab).await.unwrap());
    assert_eq!(team::owners(&mut tx, lab).await.unwrap(), 1);
    team::set_role(&mut tx, lab, bob, Role::Owner, at(10))
        .await
        .unwrap();
    assert_eq!(team::owners(&mut tx, lab).await.unwrap(), 2);
    let sizes = team::sizes(&mut tx, &[lab, other, personal.id])
        .await
        .unwrap();
    assert_eq!((sizes.get(&lab), sizes.get(&other)), (Some(&2), Some(&1)));
    assert_eq!(sizes.get(&personal.id), None);
    assert!(team::rename(&mut tx, lab, "zoo").await.unwrap());
    let first = team::list(&mut tx, None, 1).await.unwrap();
    let rest = team::list(&mut tx, first.next.as_deref(), 1).await.unwrap();
    let names = [&first, &rest].map(|page| page.items[0].name.clone());
    assert_eq!(
        (names, rest.next),
        (["other".to_owned(), "zoo".to_owned()], None)
    );
    assert_eq!(
        team::role_of(&mut tx, ada, lab).await.unwrap(),
        Some(Role::Owner)
    );
    tx.commit().await.unwrap();
    let mut tx = db.write().await.unwrap();
    let taken = team::rename(&mut tx, lab, "other").await;
    assert!(matches!(taken, Err(Error::Conflict { .. })), "{taken:?}");
}

async fn accounts_for_programs_belong_to_a_team(db: Db) {
    let (_, lab) = somebody(&db, "lab").await;
    let (_, other) = somebody(&db, "other").await;
    let mut ci = a_user("ci");
    ci.service_team = Some(lab);
    ci.current_team = Some(lab);
    let mut tx = db.write().await.unwrap();
    user::insert(&mut tx, &ci).await.unwrap();
    team::set_role(&mut tx, lab, ci.id, Role::Member, at(9))
        .await
        .unwrap();
    assert_eq!(user::by_id(&mut tx, ci.id).await.unwrap(), Some(ci.clone()));
    assert_eq!(user::of_service_team(&mut tx, lab).await.unwrap(), [ci]);
    assert_eq!(user::of_service_team(&mut tx, other).await.unwrap(), []);
}

async fn the_audit_log_is_shortened(db: Db) {
    let entry = |n: i64, result: &str| Entry {
        id: format!("{n:03}"),
        at: at(n),
        team: None,
        user: None,
        actor_kind: "link".to_owned(),
        actor: "x".to_owned(),
        action: "share.open".to_owned(),
        thing_kind: "run".to_owned(),
        thing_id: "id".to_owned(),
        thing_name: "ada:bert".to_owned(),
        result: result.to_owned(),
        detail: String::new(),
        address: String::new(),
        client: String::new(),
    };
    let all: Vec<Entry> = (0..40)
        .map(|n| entry(n, if n % 2 == 0 { "done" } else { "refused" }))
        .collect();
    let mut tx = db.write().await.unwrap();
    audit::insert_many(&mut tx, &all).await.unwrap();
    assert_eq!(audit::remove_before(&mut tx, at(30), 20).await.unwrap(), 20);
    assert_eq!(audit::remove_before(&mut tx, at(30), 20).await.unwrap(), 10);
    let refused = AuditFilter {
        result: Some("refused"),
        thing: Some("ada:bert"),
        ..AuditFilter::default()
    };
    let left = audit::list(&mut tx, &refused, 99).await.unwrap().items;
    assert_eq!(left.len(), 5);
    assert_eq!(left[0], all[39]);
}

fn a_draft(who: (UserId, grid_core::id::TeamId), name: &str, made: i64) -> draft::Draft {
    draft::Draft {
        id: RunId::from_parts(at(made), entropy()),
        team: who.1,
        creator: who.0,
        name: name.to_owned(),
        created_at: at(made),
        expires_at: at(made + 100),
        request: "{}".to_owned(),
        experiments: 2,
        ended: None,
    }
}

async fn a_draft_waits_until_it_ends(db: Db) {
    let (ada, bob) = (somebody(&db, "ada").await, somebody(&db, "bob").await);
    let (first, other) = (a_draft(ada, "bert", 10), a_draft(bob, "bert", 11));
    let second = a_draft(ada, "gpt", 12);
    let mut tx = db.write().await.unwrap();
    for draft in [&first, &other, &second] {
        draft::insert(&mut tx, draft).await.unwrap();
    }
    let mine = draft::of_creator(&mut tx, ada.0).await.unwrap();
    assert_eq!(mine, [second.clone(), first.clone()]);
    let named = draft::by_name(&mut tx, ada.0, "bert").await.unwrap();
    assert_eq!(named, Some(first.clone()));
    // It has its name while it waits, and no longer than that.
    assert!(
        !draft::remove_over(&mut tx, ada.0, "bert", at(109))
            .await
            .unwrap()
    );
    let mut ended = draft::Ended {
        at: at(20),
        outcome: draft::Outcome::Failed,
        reason: "torn".to_owned(),
    };
    assert!(draft::end(&mut tx, first.id, &ended).await.unwrap());
    let shown = draft::by_id(&mut tx, first.id).await.unwrap().unwrap();
    assert_eq!(shown.ended.as_ref(), Some(&ended));
    ended.outcome = draft::Outcome::Stopped;
    assert!(draft::end(&mut tx, first.id, &ended).await.unwrap());
    // What was stopped neither fails nor becomes a run.
    ended.outcome = draft::Outcome::Failed;
    assert!(!draft::end(&mut tx, first.id, &ended).await.unwrap());
    assert!(!draft::take(&mut tx, first.id).await.unwrap());
    assert!(
        draft::remove_over(&mut tx, ada.0, "bert", at(21))
            .await
            .unwrap()
    );
    assert!(draft::take(&mut tx, second.id).await.unwrap());
    assert!(!draft::take(&mut tx, second.id).await.unwrap(), "once");
    assert_eq!(draft::remove_before(&mut tx, at(12)).await.unwrap(), 1);
    assert_eq!(draft::of_creator(&mut tx, bob.0).await.unwrap(), []);
    tx.commit().await.unwrap();
    let mut tx = db.write().await.unwrap();
    draft::insert(&mut tx, &a_draft(ada, "same", 1))
        .await
        .unwrap();
    let taken = draft::insert(&mut tx, &a_draft(ada, "same", 2)).await;
    assert!(matches!(taken, Err(Error::Conflict { .. })), "{taken:?}");
}
