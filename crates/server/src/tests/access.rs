//! Who gets in, and who may do what: every route.

use axum::body::Body;
use axum::http::Method;
use serde_json::{Value, json};

use super::world::{Person, World};
use crate::rest::openapi::OPEN;

/// What only a runner uses, and what only the owner of the folder uses.
const INTERNAL: [(&str, &str); 13] = [
    ("POST", "/runner/sync"),
    ("PUT", "/runner/attempts/x/logs/experiment?offset=0"),
    ("GET", "/runner/attempts/x/logs/experiment"),
    ("PUT", "/runner/attempts/x/artifacts"),
    ("GET", "/runner/attempts/x/artifacts"),
    ("PUT", "/runner/blobs"),
    ("PUT", "/runner/blobs/whole?size_bytes=1"),
    ("POST", "/runner/blobs/missing"),
    ("POST", "/runner/blobs/recipes"),
    ("POST", "/runner/blobs/fetch"),
    ("GET", "/runner/snapshots/x"),
    ("GET", "/doctor?deep=false"),
    ("GET", "/collect?dry_run=true"),
];

/// Every described operation: method, path with `name` for its parameters, id.
fn operations(name: &str) -> Vec<(Method, String, String)> {
    let api: Value = serde_json::from_str(&crate::openapi()).expect("JSON");
    let mut operations = Vec::new();
    for (path, item) in api["paths"].as_object().expect("paths") {
        let path = path
            .split('/')
            .map(|part| if part.starts_with('{') { name } else { part });
        let path = path.collect::<Vec<_>>().join("/");
        for (method, operation) in item.as_object().expect("operations") {
            let Ok(method) = method.to_uppercase().parse() else {
                continue;
            };
            let id = operation["operationId"].as_str().expect("an id").to_owned();
            operations.push((method, path.clone(), id));
        }
    }
    assert!(operations.len() > 25, "{operations:?}");
    operations
}

async fn status(world: &World, person: &Person, method: &Method, path: &str) -> u16 {
    let request = person
        .request(method.clone(), path)
        .body(Body::empty())
        .expect("a request");
    world.answer(request).await.status.as_u16()
}

#[tokio::test]
async fn nobody_gets_in_without_credentials() {
    let world = World::new().await;
    let wrong = Person::Token("11111111-1111-4111-8111-111111111111".to_owned());
    let Person::User { id, key } = world.ada.clone() else {
        panic!("ada has a key")
    };
    let swapped = Person::User { id: key, key: id };
    let people = [Person::Nobody, wrong, swapped, world.runner.clone()];
    for (method, path, id) in operations("x") {
        let open = OPEN.contains(&id.as_str());
        for person in &people {
            let status = status(&world, person, &method, &path).await;
            // Who tries many wrong keys is not even looked at after a while.
            let tries = !matches!(person, Person::Nobody);
            let kept_out = status == 401 || (tries && status == 429);
            assert_eq!(kept_out, !open, "{method} {path} ({id}): {status}");
        }
    }
    for (method, path) in INTERNAL {
        let method = method.parse().expect("a method");
        for person in [&Person::Nobody, &world.ada, &people[1]] {
            assert_eq!(
                status(&world, person, &method, path).await,
                401,
                "{method} {path}"
            );
        }
    }
}

#[tokio::test]
async fn what_belongs_to_others_is_not_there() {
    let world = World::new().await;
    let bob = world.user("bob").await;
    let made = world.run(&world.ada, "secret-plan", &[]).await;
    let run = made["run"]["id"].as_str().expect("an id");
    let experiment = made["experiments"][0]["id"].as_str().expect("an id");
    let mut seen = 0;
    for (method, path, id) in operations("THING") {
        let noun = if path.contains("/runs/THING") {
            [run, "ada:secret-plan", "secret-plan"]
        } else if path.contains("/experiments/THING") {
            [experiment, "ada:secret-plan-exp0", "secret-plan-exp0"]
        } else {
            continue;
        };
        seen += 1;
        for name in noun {
            let path = path.replacen("THING", name, 1);
            let mut request = bob.request(method.clone(), &path);
            let mut body = Body::empty();
            if id == "link_create" {
                request = request.header("content-type", "application/json");
                body = Body::from(json!({ "paths": ["x"] }).to_string());
            }
            let answer = world.answer(request.body(body).expect("a request")).await;
            let text = answer.refused(404);
            assert!(!text.contains("belongs"), "{method} {path}: {text}");
        }
    }
    assert!(
        seen >= 17,
        "only {seen} operations have a run or an experiment"
    );
    assert!(
        world.get(&bob, "/runs?global=true").await.ok()["runs"]
            .as_array()
            .expect("a list")
            .is_empty()
    );
    let run = &world.get(&world.ada, "/runs/secret-plan").await.ok()["run"];
    let untouched = ["queued", "pending"].contains(&run["status"].as_str().expect("a status"));
    assert!(untouched && run.get("deleted_at").is_none(), "{run}");
}

#[tokio::test]
async fn only_operators_create_users() {
    let world = World::new().await;
    let bob = world.user("bob").await;
    let answer = world
        .post(&bob, "/users", &json!({ "username": "eve" }))
        .await;
    assert!(answer.refused(403).contains("operator"));
    let taken = world
        .post(&world.ada, "/users", &json!({ "username": "Bob" }))
        .await;
    assert!(
        taken.refused(409).contains("bob"),
        "whatever the case of its letters"
    );
    let users = world.get(&bob, "/users").await.ok();
    assert_eq!(
        users["users"].as_array().expect("a list").len(),
        1,
        "who shares no team sees nobody"
    );
    assert_eq!(
        world.get(&world.ada, "/users").await.ok()["users"]
            .as_array()
            .expect("a list")
            .len(),
        2
    );
}

#[tokio::test]
async fn a_rotated_key_replaces_the_former() {
    let world = World::new().await;
    let bob = world.user("bob").await;
    let login = |key: &str| json!({ "username": "bob", "api_key": key });
    let Person::User { key, id } = &bob else {
        panic!("bob has a key")
    };
    let found = world
        .post(&Person::Nobody, "/auth/login", &login(key))
        .await
        .ok();
    assert_eq!(found["user"]["user_id"], **id);
    let renewed = world.post(&bob, "/user/rotate-key", &json!({})).await.ok();
    let renewed = renewed["api_key"].as_str().expect("a key");
    assert!(
        world
            .get(&bob, "/user")
            .await
            .refused(401)
            .contains("revoked")
    );
    world
        .post(&Person::Nobody, "/auth/login", &login(key))
        .await
        .refused(401);
    let bearer = Person::Token(renewed.to_owned());
    assert_eq!(
        world.get(&bearer, "/user").await.ok()["user"]["username"],
        "bob"
    );
    let answer = world.get(&Person::Nobody, "/user").await;
    assert!(
        !answer.header("www-authenticate").contains("Basic"),
        "browsers must not ask"
    );
}

#[tokio::test]
async fn the_runner_has_its_own_node_only() {
    let world = World::new().await;
    let sync = json!({
        "node": { "id": "other", "cpus": 1, "gpus": 0, "memory_bytes": 1 },
        "have": [], "wait_ms": 0, "seq": 1, "epoch": 1,
    });
    assert!(
        world
            .post(&world.runner, "/runner/sync", &sync)
            .await
            .refused(403)
            .contains("local")
    );
    let attempt = "01arz3ndektsv4rrffq69g5fav.1";
    let path = format!("/runner/attempts/{attempt}/logs/experiment");
    world.get(&world.runner, &path).await.refused(409);
    world
        .put(&world.runner, &format!("{path}?offset=0"), "x")
        .await
        .refused(409);
    world
        .get(
            &world.runner,
            "/runner/snapshots/01arz3ndektsv4rrffq69g5fav",
        )
        .await
        .refused(404);
}
