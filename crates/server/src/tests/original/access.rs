//! The table against every address of the client.

use axum::http::Method;
use grid_core::access::{Decision, Relation, may};
use grid_core::team::{Role, Sharing, TeamPolicy};
use serde_json::{Value, json};

use super::{ask, refused};
use crate::compat::grid::routes::{Route, routes};
use crate::rest::access::Asks;
use crate::tests::teams::{join, team};
use crate::tests::world::{Person, Runner, World, new_run};

#[tokio::test]
async fn nobody_gets_in_without_a_key() {
    let world = World::new().await;
    let wrong = Person::User {
        id: "11111111-1111-4111-8111-111111111111".to_owned(),
        key: "11111111-1111-4111-8111-111111111111".to_owned(),
    };
    let forged = Person::Token(format!(
        "t1.7fffffffffff.11111111-1111-4111-8111-111111111111..{}",
        "0".repeat(64)
    ));
    for route in routes() {
        let path = filled(&route, "local", "x", "x");
        let body = Some(json!({}));
        for person in [&Person::Nobody, &wrong, &forged] {
            let answer = ask(&world, person, route.method.clone(), &path, body.as_ref()).await;
            let status = answer.status.as_u16();
            if route.asks == Asks::Nothing {
                assert!(
                    (400..500).contains(&status),
                    "{}: {status}",
                    route.operation
                );
            } else {
                // Who tries many wrong keys is not even looked at after a while.
                assert!(matches!(status, 401 | 429), "{}: {status}", route.operation);
            }
            refused(&answer, status);
        }
    }
}

fn filled(route: &Route, cluster: &str, run: &str, experiment: &str) -> String {
    // The cluster is a value in some places and what is looked at in others.
    route
        .path
        .replace("{cluster}", cluster)
        .replace("{run}", run)
        .replace("{experiment}", experiment)
        .replace("{*path}", "x")
        .replace("{session}", "x")
        .replace("{credential}", "x")
        .replace("{datastore}", "x")
        .replace("{upload}", "x")
        .replace("{number}", "1")
}

fn body(operation: &str) -> Value {
    match operation {
        "run_update" => json!({ "spec": { "desiredState": "RUN_STATE_CANCELED" } }),
        "experiment_update" => json!({ "spec": { "desiredState": "EXPERIMENT_STATE_CANCELLED" } }),
        _ => json!({}),
    }
}

#[tokio::test]
async fn a_run_obeys_the_table_at_every_address() {
    let world = World::new().await;
    let owner = world.user("owner").await;
    team(&world, &owner, "lab").await;
    let creator = world.user("creator").await;
    join(&world, &owner, "lab", "creator", &creator, Role::Member).await;
    let mut askers = vec![
        ("creator", creator.clone(), Relation::Creator(Role::Member)),
        ("owner", owner.clone(), Relation::Teammate(Role::Owner)),
        ("outsider", world.user("outsider").await, Relation::Outsider),
        ("operator", world.ada.clone(), Relation::Operator),
    ];
    for (name, role) in [("viewer", Role::Viewer), ("member", Role::Member)] {
        let person = world.user(name).await;
        join(&world, &owner, "lab", name, &person, role).await;
        askers.push((name, person, Relation::Teammate(role)));
    }
    let mut tried = 0;
    for run_control in [Sharing::Team, Sharing::Creator] {
        let set = json!({ "run_control": run_control });
        world
            .put(&owner, "/teams/lab/policy", set.to_string())
            .await
            .ok();
        let policy = TeamPolicy {
            run_control,
            ..TeamPolicy::default()
        };
        for (name, person, relation) in &askers {
            for route in routes() {
                let Asks::Run(action) = route.asks else {
                    continue;
                };
                let mut run = new_run(&format!("r{tried}"), &[]);
                tried += 1;
                run["team"] = json!("lab");
                let made = world.post(&creator, "/runs", &run).await.ok();
                let path = filled(
                    &route,
                    "local",
                    made["run"]["id"].as_str().expect("an id"),
                    made["experiments"][0]["id"].as_str().expect("an id"),
                );
                let body = body(route.operation);
                let body = Some(&body).filter(|_| route.method != Method::GET);
                let answer = ask(&world, person, route.method.clone(), &path, body).await;
                // An address that changes things only shows what it would not change.
                let expected = match may(*relation, action, policy) {
                    Decision::Allow | Decision::AllowAudited => 200,
                    Decision::Deny(_) => 403,
                    Decision::Hide => 404,
                };
                let what = format!("{} by {name}, {run_control:?}", route.operation);
                let text = String::from_utf8_lossy(&answer.bytes);
                assert_eq!(answer.status.as_u16(), expected, "{what}: {text}");
                if expected == 403 {
                    assert!(refused(&answer, 403).contains("only"), "{what}: {text}");
                } else if expected == 404 {
                    let text = refused(&answer, 404);
                    assert!(!text.contains("creator"), "{what}: {text}");
                }
                let gone = format!("/runs/{}", made["run"]["id"].as_str().expect("an id"));
                world.delete(&creator, &gone).await;
            }
        }
    }
    assert!(tried > 80, "only {tried} were tried");
}

#[tokio::test]
async fn a_key_for_reading_changes_nothing_here_either() {
    let world = World::new().await;
    world.run(&world.ada, "bert", &[]).await;
    Runner::new(&world).launch(&world).await;
    let key = json!({ "name": "look", "scope": "read" });
    let made = world.post(&world.ada, "/user/keys", &key).await.ok();
    let Person::User { id, .. } = world.ada.clone() else {
        panic!("ada has an id")
    };
    let reader = Person::User {
        id,
        key: made["api_key"].as_str().expect("a key").to_owned(),
    };
    for (method, path, status) in [
        (Method::GET, "/v1/core/local/runs/bert", 200),
        (
            Method::GET,
            "/v1/core/local/experiments/bert-exp0/artifacts",
            200,
        ),
        (Method::PUT, "/v1/core/local/runs/bert", 403),
        (Method::PUT, "/v1/core/local/experiments/bert-exp0", 403),
        (Method::DELETE, "/v1/core/local/runs/bert", 403),
        (Method::POST, "/v1/core/local/runs", 403),
    ] {
        let mut body = super::new_run("new", "train.py");
        body["spec"]["desiredState"] = json!("CANCELED");
        let body = Some(&body).filter(|_| method != Method::GET);
        let answer = ask(&world, &reader, method.clone(), path, body).await;
        let text = String::from_utf8_lossy(&answer.bytes);
        assert_eq!(answer.status.as_u16(), status, "{method} {path}: {text}");
    }
}
