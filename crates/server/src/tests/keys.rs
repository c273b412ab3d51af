//! Keys that do less, and accounts for programs.

use grid_core::team::Role;
use serde_json::{Value, json};

use super::place::on_both;
use super::teams::{join, post, team};
use super::world::{Person, World, new_run};

on_both!(
    a_key_does_what_its_scope_says,
    an_account_for_programs_lives_in_its_team,
    guessing_ends_for_who_guesses,
);

async fn key(world: &World, person: &Person, name: &str, scope: &str) -> Person {
    let body = json!({ "name": name, "scope": scope, "expires_in_s": 3_600 });
    let made = world.post(person, "/user/keys", &body).await.ok();
    Person::Token(made["api_key"].as_str().expect("a key").to_owned())
}

async fn a_key_does_what_its_scope_says(world: World) {
    let bob = world.user("bob").await;
    let read = key(&world, &bob, "look", "read").await;
    let run = key(&world, &bob, "ci", "run").await;
    let taken = json!({ "name": "ci" });
    world.post(&bob, "/user/keys", &taken).await.refused(409);
    world.post(&run, "/runs", &new_run("bert", &[])).await.ok();
    world.get(&read, "/runs/bert").await.ok();
    let narrow = world
        .post(&read, "/runs", &new_run("gpt", &[]))
        .await
        .refused(403);
    assert!(narrow.contains("scope 'read'"), "{narrow}");
    for path in ["/runs/bert/stop", "/runs/bert/retry", "/runs/bert/clone"] {
        world.post(&read, path, &json!({})).await.refused(403);
    }
    post(&world, &read, "/runs/bert/shares", &json!({}))
        .await
        .refused(403);
    world.put(&read, "/blobs", "").await.refused(403);
    world.delete(&read, "/runs/bert").await.refused(403);
    for narrow in [&read, &run] {
        world
            .post(narrow, "/user/keys", &json!({ "name": "more" }))
            .await
            .refused(403);
        world
            .post(narrow, "/user/rotate-key", &json!({}))
            .await
            .refused(403);
        world
            .post(narrow, "/teams", &json!({ "name": "lab" }))
            .await
            .refused(403);
        let team = json!({ "team": "bob" }).to_string();
        world.put(narrow, "/user/team", team).await.refused(403);
        world
            .delete(narrow, "/user/keys/default")
            .await
            .refused(403);
    }
    let keys = world.get(&run, "/user/keys").await.ok();
    let told = |name: &str| -> Value {
        let all = keys["keys"].as_array().expect("keys");
        all.iter()
            .find(|key| key["name"] == name)
            .expect("the key")
            .clone()
    };
    assert_eq!(
        (&told("ci")["scope"], &told("ci")["current"]),
        (&json!("run"), &json!(true))
    );
    assert!(told("ci")["expires_at"].is_string() && told("default")["expires_at"].is_null());
    world.delete(&bob, "/user/keys/ci").await.ok();
    assert!(
        world
            .get(&run, "/user")
            .await
            .refused(401)
            .contains("revoked")
    );
    world.delete(&bob, "/user/keys/look").await.ok();
    let only = world.delete(&bob, "/user/keys/default").await.refused(409);
    assert!(only.contains("only key"), "{only}");
    let all = world.get(&bob, "/user/keys?all=true").await.ok();
    assert_eq!(all["keys"].as_array().expect("keys").len(), 3);
}

async fn an_account_for_programs_lives_in_its_team(world: World) {
    let (bob, eve) = (world.user("bob").await, world.user("eve").await);
    team(&world, &bob, "lab").await;
    join(&world, &bob, "lab", "eve", &eve, Role::Member).await;
    let path = "/teams/lab/service-accounts";
    let ci = json!({ "name": "lab-ci" });
    world.post(&eve, path, &ci).await.refused(403);
    for bad in [
        json!({ "name": "lab-ci", "role": "admin" }),
        json!({ "name": "lab-ci", "scope": "all" }),
    ] {
        world.post(&bob, path, &bad).await.refused(400);
    }
    world
        .post(&bob, path, &json!({ "name": "eve" }))
        .await
        .refused(409);
    world
        .post(&bob, path, &json!({ "name": "lab" }))
        .await
        .refused(409);
    let made = world.post(&bob, path, &ci).await.ok();
    let robot = Person::Token(made["api_key"].as_str().expect("a key").to_owned());
    let run = world.run(&robot, "nightly", &[]).await;
    assert_eq!(run["run"]["team"], "lab");
    world.get(&eve, "/runs/lab-ci:nightly").await.ok();
    world
        .post(&robot, "/teams", &json!({ "name": "own" }))
        .await
        .refused(403);
    let log = world.get(&bob, "/teams/lab/audit?user=lab-ci").await.ok();
    assert_eq!(log["events"][0]["actor_kind"], "service");
    let more = json!({ "name": "second", "scope": "read" });
    world
        .post(&bob, &format!("{path}/lab-ci/keys"), &more)
        .await
        .ok();
    let listed = world.get(&eve, path).await.ok();
    assert_eq!(
        listed["service_accounts"][0]["keys"]
            .as_array()
            .expect("keys")
            .len(),
        2
    );
    world.delete(&bob, &format!("{path}/lab-ci")).await.ok();
    world.get(&robot, "/user").await.refused(401);
    assert_eq!(
        world.get(&bob, path).await.ok()["service_accounts"],
        json!([])
    );
    world.get(&eve, "/runs/lab-ci:nightly").await.ok();
}

async fn guessing_ends_for_who_guesses(world: World) {
    let (bob, eve) = (world.user("bob").await, world.user("eve").await);
    let Person::User { id, .. } = &bob else {
        panic!("bob has a key")
    };
    let guess = |n: u32| Person::User {
        id: id.clone(),
        key: format!("00000000-0000-4000-8000-{n:012}"),
    };
    world.get(&bob, "/user").await.ok();
    let mut statuses = Vec::new();
    for n in 0..30 {
        statuses.push(world.get(&guess(n), "/user").await.status.as_u16());
    }
    assert_eq!((statuses[0], statuses[29]), (401, 429));
    world.get(&eve, "/user").await.ok();
    world.get(&bob, "/user").await.ok();
}
