//! Every route: who was refused is in the audit log.

use std::collections::BTreeMap;

use axum::http::Method;
use grid_core::access::{Action, Decision, Relation, may};
use grid_core::team::{Sharing, TeamPolicy};
use serde_json::{Value, json};

use super::matrix::{Asker, Lab, body, operations};
use super::matrix_data;
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

/// What a route is about when somebody is refused: the action, the decision, and the word
/// under which it is written down that it was hidden.
fn refusal(asks: Asks, asker: &Asker, policy: TeamPolicy) -> Option<(Action, Decision, Action)> {
    let about_team = match asker.relation {
        Relation::Creator(role) => Relation::Teammate(role),
        other => other,
    };
    let (relation, action, see) = match asks {
        Asks::Run(action) => (asker.relation, action, Action::SeeRun),
        Asks::Datastore(action) => (asker.relation, action, Action::SeeDatastore),
        Asks::Credential(action) => (asker.relation, action, Action::UseCredential),
        Asks::Team(action) => (about_team, action, Action::SeeTeam),
        Asks::Nothing | Asks::SignedIn | Asks::Operator | Asks::Named(_) => return None,
    };
    let decision = may(relation, action, policy);
    match decision {
        Decision::Deny(_) => {}
        // Of a team that is not theirs people say only its name, and that may be nobody's.
        Decision::Hide if see != Action::SeeTeam => {}
        _ => return None,
    }
    // Who may delete a credential sees that it is there.
    let known = may(relation, Action::DeleteCredential, policy);
    let is_seen = matches!(known, Decision::Allow | Decision::AllowAudited);
    (action != Action::UseCredential || !is_seen).then_some((action, decision, see))
}

async fn every_refusal_on_every_route_is_written_down(world: World) {
    let lab = Lab::new(world).await;
    let policy = lab.policy(Sharing::Creator).await;
    let mut tried = BTreeMap::new();
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
        let credential = credential(&lab, asker).await;
        for (id, method, path) in operations() {
            let row = ROUTES.iter().find(|(known, _)| *known == id);
            let asks = row.expect("a row").1;
            let Some((action, decision, see)) = refusal(asks, asker, policy) else {
                continue;
            };
            let hidden = decision == Decision::Hide;
            let (thing, path) = match asks {
                Asks::Datastore(_) => {
                    let name = format!("{id}-{}", asker.name).replace('_', "-");
                    let made = matrix_data::version(&lab, asker, &name, &id).await;
                    (name, matrix_data::place(&path, matrix_data::id(&made)))
                }
                Asks::Credential(_) => (
                    credential.clone(),
                    path.replace("{credential}", &credential),
                ),
                Asks::Run(_) => (run.to_owned(), path),
                _ => ("lab".to_owned(), path),
            };
            let path = path
                .replace("{run}", run)
                .replace("{experiment}", experiment)
                .replace("{path}", "model.pt")
                .replace("{team}", "lab")
                .replace("{user}", "nobody")
                .replace("{invitation}", "none")
                .replace("{account}", "none");
            let word = if hidden { see.word() } else { action.word() };
            *tried.entry(see.word()).or_insert(0) += 1;
            let before = newest(&lab.world, user, word).await;
            let (status, text) = lab.ask(&asker.person, &method, &path, body(&id)).await;
            let what = format!("{id} by {}: {status} {text}", asker.name);
            assert_eq!(status, if hidden { 404 } else { 403 }, "{what}");
            let event = next(&lab.world, user, word, &before, &what).await;
            assert_eq!(event["result"], "refused", "{what}");
            assert_eq!(event["team"], "lab", "{what}");
            // By its id, or by a name that only it has.
            let called = format!("{} {}", event["thing_id"], event["thing"]);
            assert!(called.contains(&thing), "{what}: {event}");
        }
    }
    // At least so many of each kind, or the test has lost what it is for.
    for (kind, least) in [
        ("run.see", 50),
        ("team.see", 35),
        ("datastore.see", 55),
        ("credential.use", 10),
    ] {
        assert!(tried[kind] >= least, "only {tried:?} were refused");
    }
    refused_beside_the_table(&lab).await;
}

/// The credential that `asker` is going to ask about.
async fn credential(lab: &Lab, asker: &Asker) -> String {
    let content =
        json!({ "kind": "s3_key", "access_key_id": "AKIA", "secret_access_key": "secret" });
    let name = format!("of-{}", asker.name);
    let new = json!({ "name": name, "team": "lab", "content": content });
    let make = async |maker: &Person| {
        let made = lab.world.post(maker, "/credentials", &new).await.ok();
        made["credential"]["id"].clone()
    };
    let id = lab.made_for(asker, make).await;
    id.as_str().expect("an id").to_owned()
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
