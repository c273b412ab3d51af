//! Every route: who was refused is in the audit log.

use axum::http::Method;
use grid_core::access::{Decision, Relation, may};
use grid_core::team::Sharing;
use serde_json::{Value, json};

use super::matrix::{Lab, body, operations};
use super::place::on_both;
use super::world::{LIMIT, Person, World, new_run};
use crate::rest::access::{Asks, ROUTES};

on_both!(every_refusal_on_every_route_is_written_down,);

/// The newest event of somebody, as the operator reads it.
pub(super) async fn newest(world: &World, user: &str, action: &str) -> Value {
    let path = format!("/audit?all=true&limit=1&user={user}&action={action}");
    world.get(&world.ada, &path).await.ok()["events"][0].clone()
}

/// Waits for an event of somebody that is not `before`.
async fn next(world: &World, user: &str, action: &str, before: &Value, what: &str) -> Value {
    let waited = async {
        loop {
            let event = newest(world, user, action).await;
            if event["id"] != before["id"] {
                return event;
            }
            tokio::task::yield_now().await;
        }
    };
    let event = tokio::time::timeout(LIMIT, waited).await;
    event.unwrap_or_else(|_| panic!("{what} left no event {action} of {user}"))
}

async fn every_refusal_on_every_route_is_written_down(world: World) {
    let lab = Lab::new(world).await;
    let policy = lab.policy(Sharing::Creator).await;
    let mut tried = 0;
    for asker in &lab.askers {
        // The operator is not called so.
        let user = if asker.name == "operator" {
            "ada"
        } else {
            asker.name
        };
        let made = lab.make(asker, &format!("of-{}", asker.name)).await;
        let run = made["run"]["id"].as_str().expect("an id");
        let experiment = made["experiments"][0]["id"].as_str().expect("an id");
        for (id, method, path) in operations() {
            let row = ROUTES.iter().find(|(known, _)| *known == id);
            let about_team = match asker.relation {
                Relation::Creator(role) => Relation::Teammate(role),
                other => other,
            };
            let (action, decision) = match row.expect("a row").1 {
                Asks::Run(action) => (action, may(asker.relation, action, policy)),
                Asks::Team(action) => (action, may(about_team, action, policy)),
                _ => continue,
            };
            // Of a team that is not theirs people say only its name, and that may be nobody's.
            let hidden = decision == Decision::Hide;
            let is_run = path.contains("{run}") || path.contains("{experiment}");
            if !(matches!(decision, Decision::Deny(_)) || (hidden && is_run)) {
                continue;
            }
            tried += 1;
            let path = path
                .replace("{run}", run)
                .replace("{experiment}", experiment)
                .replace("{path}", "model.pt")
                .replace("{team}", "lab")
                .replace("{user}", "nobody")
                .replace("{invitation}", "none")
                .replace("{account}", "none");
            let word = if hidden { "run.see" } else { action.word() };
            let before = newest(&lab.world, user, word).await;
            let (status, text) = lab.ask(&asker.person, &method, &path, body(&id)).await;
            let what = format!("{id} by {}: {status} {text}", asker.name);
            assert_eq!(status, if hidden { 404 } else { 403 }, "{what}");
            let event = next(&lab.world, user, word, &before, &what).await;
            assert_eq!(event["result"], "refused", "{what}");
            assert_eq!(event["team"], "lab", "{what}");
            if is_run {
                assert_eq!(event["thing_id"], run, "{what}");
            }
        }
    }
    assert!(tried > 90, "only {tried} were refused");
    refused_beside_the_table(&lab).await;
}

/// Refusals that are not about a run or a team in the path.
async fn refused_beside_the_table(lab: &Lab) {
    let world = &lab.world;
    let viewer = lab.askers.iter().find(|asker| asker.name == "viewer");
    let viewer = &viewer.expect("a viewer").person;
    let mut run = new_run("x", &[]);
    run["team"] = json!("lab");
    let key = json!({ "name": "look", "scope": "read" });
    let key = world.post(viewer, "/user/keys", &key).await.ok();
    let narrow = Person::Token(key["api_key"].as_str().expect("a key").to_owned());
    let none = || json!({});
    for (person, method, path, body, word) in [
        (viewer, Method::POST, "/runs", run.clone(), "team.create_in"),
        (
            viewer,
            Method::POST,
            "/snapshots",
            json!({ "entries": [] }),
            "team.create_in",
        ),
        (
            viewer,
            Method::POST,
            "/users",
            json!({ "username": "x" }),
            "server.operate",
        ),
        (
            viewer,
            Method::GET,
            "/audit?all=true",
            none(),
            "server.operate",
        ),
        (
            viewer,
            Method::GET,
            "/audit?user=owner",
            none(),
            "server.operate",
        ),
        (
            viewer,
            Method::GET,
            "/teams?all=true",
            none(),
            "server.operate",
        ),
        (
            &narrow,
            Method::POST,
            "/user/keys",
            json!({ "name": "y" }),
            "key.use",
        ),
        (
            &narrow,
            Method::DELETE,
            "/user/keys/look",
            none(),
            "key.use",
        ),
        (&narrow, Method::POST, "/user/rotate-key", none(), "key.use"),
        (
            &narrow,
            Method::PUT,
            "/user/team",
            json!({ "team": "lab" }),
            "key.use",
        ),
        (
            &narrow,
            Method::POST,
            "/teams",
            json!({ "name": "y" }),
            "key.use",
        ),
        (&narrow, Method::POST, "/teams/lab/leave", none(), "key.use"),
        (&narrow, Method::PUT, "/blobs", none(), "key.use"),
        (
            &narrow,
            Method::POST,
            "/invitations/accept",
            json!({ "team": "x" }),
            "key.use",
        ),
        (
            &narrow,
            Method::POST,
            "/invitations/decline",
            json!({ "team": "x" }),
            "key.use",
        ),
        (
            &narrow,
            Method::POST,
            "/runs/creator:of-viewer/shares",
            none(),
            "run.share",
        ),
    ] {
        let before = newest(world, "viewer", word).await;
        let (status, text) = lab.ask(person, &method, path, body).await;
        let what = format!("{method} {path}: {status} {text}");
        assert_eq!(status, 403, "{what}");
        let event = next(world, "viewer", word, &before, &what).await;
        assert_eq!(event["result"], "refused", "{what}");
    }
    // Nobody in particular: a key that is none.
    let before = &world
        .get(&world.ada, "/audit?all=true&action=login&limit=1")
        .await;
    let before = before.json()["events"][0]["id"].clone();
    let wrong = Person::Token("11111111-1111-4111-8111-111111111111".to_owned());
    world.get(&wrong, "/user").await.refused(401);
    let waited = async {
        loop {
            let log = world.get(&world.ada, "/audit?all=true&action=login&limit=1");
            let event = log.await.ok()["events"][0].clone();
            if event["id"] != before {
                return event;
            }
        }
    };
    let event = tokio::time::timeout(LIMIT, waited).await.expect("an event");
    assert_eq!(
        (&event["result"], &event["actor_kind"]),
        (&json!("refused"), &json!("nobody"))
    );
}
