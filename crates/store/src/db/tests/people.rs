//! Users, their keys, their teams.

use grid_core::id::{KeyId, TeamId, UserId};
use grid_core::team::{Role, Sharing, TeamPolicy};

use super::conformance;
use super::place::{a_team, a_user, at, entropy, somebody};
use crate::db::key::{self, Key, SealedSecret};
use crate::db::user::User;
use crate::db::{Db, Error, team, user};

conformance!(
    a_user_is_found_by_id_name_and_address,
    a_user_name_is_unique_whatever_its_case,
    users_are_listed_by_name_in_pages,
    a_user_changes,
    a_key_is_found_with_its_user,
    a_key_is_touched_and_revoked_once,
    keys_that_were_sealed_otherwise_are_counted_while_they_work,
    a_team_is_found_and_changes,
    people_of_a_team_have_roles,
);

async fn a_user_is_found_by_id_name_and_address(db: Db) {
    let mut ada = a_user("Ada");
    ada.operator = true;
    ada.current_team = Some(TeamId::from_parts(at(1), 1));
    ada.disabled_at = Some(at(9));
    let mut same = a_user("bob");
    same.email = "shared@example.org".to_owned();
    let mut address = a_user("cyd");
    address.email = "shared@example.org".to_owned();
    let mut named = a_user("ada@example.org");
    named.email = String::new();
    let mut tx = db.write().await.unwrap();
    user::insert(&mut tx, &ada).await.unwrap();
    assert_eq!(
        user::by_login(&mut tx, " ADA@example.ORG ").await.unwrap(),
        Some(ada.clone())
    );
    for user in [&same, &address, &named] {
        user::insert(&mut tx, user).await.unwrap();
    }
    tx.commit().await.unwrap();

    let mut tx = db.read().await.unwrap();
    assert_eq!(
        user::by_id(&mut tx, ada.id).await.unwrap(),
        Some(ada.clone())
    );
    assert_eq!(
        user::by_id(&mut tx, UserId::from_entropy(u128::MAX))
            .await
            .unwrap(),
        None
    );
    assert_eq!(
        user::by_username(&mut tx, "aDA").await.unwrap(),
        Some(ada.clone())
    );
    assert_eq!(
        user::by_username(&mut tx, "Ada@Example.org").await.unwrap(),
        Some(named.clone())
    );
    assert_eq!(
        user::by_login(&mut tx, "ada").await.unwrap(),
        Some(ada.clone())
    );
    // A name wins over an address; a shared address is nobody's; neither is none.
    assert_eq!(
        user::by_login(&mut tx, "ada@example.org").await.unwrap(),
        Some(named.clone())
    );
    assert_eq!(
        user::by_login(&mut tx, "shared@example.org").await.unwrap(),
        None
    );
    assert_eq!(user::by_login(&mut tx, "").await.unwrap(), None);
    let mut found = user::by_ids(&mut tx, &[ada.id, UserId::from_entropy(9), same.id])
        .await
        .unwrap();
    found.sort_by_key(|user| user.username.to_lowercase());
    assert_eq!(found, [ada, same]);
    assert_eq!(user::by_ids(&mut tx, &[]).await.unwrap(), []);
}

async fn a_user_name_is_unique_whatever_its_case(db: Db) {
    somebody(&db, "Jürgen").await;
    let mut tx = db.write().await.unwrap();
    let taken = user::insert(&mut tx, &a_user("JÜRGEN")).await;
    assert!(
        matches!(
            taken,
            Err(Error::Conflict {
                what: "this user name"
            })
        ),
        "{taken:?}"
    );
    // What failed half way cannot be made durable.
    assert!(tx.commit().await.is_err());
    let mut tx = db.write().await.unwrap();
    let taken = team::insert(&mut tx, &a_team("Jürgen")).await;
    assert!(
        matches!(
            taken,
            Err(Error::Conflict {
                what: "this team name"
            })
        ),
        "{taken:?}"
    );
}

async fn users_are_listed_by_name_in_pages(db: Db) {
    let mut tx = db.write().await.unwrap();
    for n in 0..25 {
        let case = if n % 2 == 0 { "User" } else { "user" };
        user::insert(&mut tx, &a_user(&format!("{case}{n:02}")))
            .await
            .unwrap();
    }
    tx.commit().await.unwrap();
    let mut tx = db.read().await.unwrap();
    let (mut names, mut after) = (Vec::new(), None);
    loop {
        let page = user::list(&mut tx, after.as_deref(), 10).await.unwrap();
        assert!(page.items.len() <= 10);
        names.extend(
            page.items
                .into_iter()
                .map(|user| user.username.to_lowercase()),
        );
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    assert_eq!(
        names,
        (0..25).map(|n| format!("user{n:02}")).collect::<Vec<_>>()
    );
}

async fn a_user_changes(db: Db) {
    let (id, team) = somebody(&db, "ada").await;
    let nobody = UserId::from_entropy(u128::MAX);
    let mut tx = db.write().await.unwrap();
    assert!(user::set_current_team(&mut tx, id, team).await.unwrap());
    assert!(!user::set_current_team(&mut tx, nobody, team).await.unwrap());
    assert!(user::set_disabled(&mut tx, id, Some(at(77))).await.unwrap());
    assert!(!user::set_disabled(&mut tx, nobody, None).await.unwrap());
    let ada = user::by_id(&mut tx, id).await.unwrap().unwrap();
    assert_eq!(
        (ada.current_team, ada.disabled_at),
        (Some(team), Some(at(77)))
    );
    assert!(user::set_disabled(&mut tx, id, None).await.unwrap());
    assert_eq!(
        user::by_id(&mut tx, id).await.unwrap().unwrap().disabled_at,
        None
    );
}

fn a_key(user: UserId, name: &str) -> Key {
    Key {
        id: KeyId::from_parts(at(3), entropy()),
        user,
        name: name.to_owned(),
        scope: "all".to_owned(),
        created_at: at(3),
        expires_at: Some(at(99)),
        last_used_at: None,
        revoked_at: None,
        access_key: None,
    }
}

async fn a_key_is_found_with_its_user(db: Db) {
    let (id, _) = somebody(&db, "ada").await;
    let (first, second) = (a_key(id, "laptop"), a_key(id, "CI"));
    let mut tx = db.write().await.unwrap();
    key::insert(&mut tx, &first, "hash-1").await.unwrap();
    key::insert(&mut tx, &second, "hash-2").await.unwrap();
    tx.commit().await.unwrap();
    let mut tx = db.read().await.unwrap();
    let (key, User { username, .. }) = key::by_hash(&mut tx, "hash-2").await.unwrap().unwrap();
    assert_eq!((key, username.as_str()), (second.clone(), "ada"));
    assert_eq!(key::by_hash(&mut tx, "hash-3").await.unwrap(), None);
    assert_eq!(key::of_user(&mut tx, id).await.unwrap(), [first, second]);
    drop(tx);
    let mut tx = db.write().await.unwrap();
    let taken = key::insert(&mut tx, &a_key(id, "copy"), "hash-1").await;
    assert!(
        matches!(taken, Err(Error::Conflict { what: "this key" })),
        "{taken:?}"
    );
    drop(tx);
    let mut tx = db.write().await.unwrap();
    let nobody = UserId::from_entropy(u128::MAX);
    let missing = key::insert(&mut tx, &a_key(nobody, "x"), "hash-4").await;
    assert!(matches!(missing, Err(Error::Missing { .. })), "{missing:?}");
}

async fn keys_that_were_sealed_otherwise_are_counted_while_they_work(db: Db) {
    let (id, _) = somebody(&db, "ada").await;
    let mut tx = db.write().await.unwrap();
    let plain = a_key(id, "laptop");
    key::insert(&mut tx, &plain, "hash-1").await.unwrap();
    let mut signing = Vec::new();
    for (name, with) in [("one", "this"), ("two", "other"), ("three", "other")] {
        let key = Key {
            access_key: Some(format!("GRID{name}")),
            ..a_key(id, name)
        };
        let sealed = SealedSecret {
            text: "x".to_owned(),
            with: with.to_owned(),
        };
        key::insert_signing(&mut tx, &key, &sealed).await.unwrap();
        signing.push(key.id);
    }
    for (with, now, expected) in [("this", 50, 2), ("other", 50, 1), ("this", 100, 0)] {
        let counted = key::sealed_otherwise(&mut tx, with, at(now)).await;
        assert_eq!(counted.unwrap(), expected, "{with} at {now}");
    }
    key::revoke(&mut tx, signing[1], at(40)).await.unwrap();
    let counted = key::sealed_otherwise(&mut tx, "this", at(50)).await;
    assert_eq!(counted.unwrap(), 1);
}

async fn a_key_is_touched_and_revoked_once(db: Db) {
    let (id, _) = somebody(&db, "ada").await;
    let key = a_key(id, "laptop");
    let mut tx = db.write().await.unwrap();
    key::insert(&mut tx, &key, "hash").await.unwrap();
    assert!(key::touch(&mut tx, key.id, at(50)).await.unwrap());
    assert!(!key::touch(&mut tx, key.id, at(40)).await.unwrap());
    assert!(key::revoke(&mut tx, key.id, at(60)).await.unwrap());
    assert!(!key::revoke(&mut tx, key.id, at(61)).await.unwrap());
    assert!(
        !key::revoke(&mut tx, KeyId::from_parts(at(1), 0), at(61))
            .await
            .unwrap()
    );
    let (key, _) = key::by_hash(&mut tx, "hash").await.unwrap().unwrap();
    assert_eq!(
        (key.last_used_at, key.revoked_at),
        (Some(at(50)), Some(at(60)))
    );
}

async fn a_team_is_found_and_changes(db: Db) {
    let mut team = a_team("vision");
    team.personal = true;
    let nothing = TeamId::from_parts(at(1), 0);
    let mut tx = db.write().await.unwrap();
    team::insert(&mut tx, &team).await.unwrap();
    assert_eq!(
        team::by_id(&mut tx, team.id).await.unwrap(),
        Some(team.clone())
    );
    assert_eq!(
        team::by_name(&mut tx, "vision").await.unwrap(),
        Some(team.clone())
    );
    assert_eq!(team::by_name(&mut tx, "Vision").await.unwrap(), None);
    assert_eq!(team::by_id(&mut tx, nothing).await.unwrap(), None);
    let policy = TeamPolicy {
        run_control: Sharing::Creator,
        jupyter_access: Sharing::Team,
    };
    assert!(team::set_policy(&mut tx, team.id, policy).await.unwrap());
    assert!(!team::set_policy(&mut tx, nothing, policy).await.unwrap());
    team.policy = policy;
    assert_eq!(
        team::by_ids(&mut tx, &[nothing, team.id]).await.unwrap(),
        [team]
    );
}

async fn people_of_a_team_have_roles(db: Db) {
    let (ada, team) = somebody(&db, "ada").await;
    let (bob, other) = somebody(&db, "Bob").await;
    let mut tx = db.write().await.unwrap();
    team::set_role(&mut tx, team, bob, Role::Viewer, at(20))
        .await
        .unwrap();
    team::set_role(&mut tx, team, bob, Role::Admin, at(30))
        .await
        .unwrap();
    let members = team::members(&mut tx, team).await.unwrap();
    let told: Vec<_> = members
        .iter()
        .map(|m| (m.user.username.as_str(), m.role, m.since))
        .collect();
    assert_eq!(
        told,
        [("ada", Role::Owner, at(8)), ("Bob", Role::Admin, at(20))]
    );
    assert_eq!(
        team::role_of(&mut tx, bob, team).await.unwrap(),
        Some(Role::Admin)
    );
    assert_eq!(team::role_of(&mut tx, ada, other).await.unwrap(), None);
    let teams = team::teams_of(&mut tx, bob).await.unwrap();
    let told: Vec<_> = teams
        .iter()
        .map(|(team, role)| (team.name.as_str(), *role))
        .collect();
    assert_eq!(told, [("Bob", Role::Owner), ("ada", Role::Admin)]);
    let mut visible = [team, other];
    visible.sort_unstable();
    assert_eq!(team::visible_teams(&mut tx, bob).await.unwrap(), visible);
    assert!(team::remove_member(&mut tx, team, bob).await.unwrap());
    assert!(!team::remove_member(&mut tx, team, bob).await.unwrap());
    assert_eq!(team::visible_teams(&mut tx, bob).await.unwrap(), [other]);
    let missing = team::set_role(
        &mut tx,
        TeamId::from_parts(at(1), 0),
        bob,
        Role::Owner,
        at(1),
    )
    .await;
    assert!(matches!(missing, Err(Error::Missing { .. })), "{missing:?}");
}
