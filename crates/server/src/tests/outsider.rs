//! Who is not in a team cannot tell its things from things that are not there: every route
//! answers the same bytes, but for what was typed, after the same number of statements.

use axum::body::Body;
use axum::http::Method;
use grid_core::team::Role;
use serde_json::json;

use super::matrix::{body, operations};
use super::place::on_both;
use super::teams::{join, post, team};
use super::world::{Person, Runner, World, new_run};
use crate::rest::Statements;
use crate::rest::access::{Asks, ROUTES};

on_both!(
    a_run_of_others_is_like_none_on_every_route,
    a_team_of_others_is_like_none_on_every_route,
    what_else_others_made_is_like_none_on_every_route,
    what_a_request_names_tells_no_more,
);

/// Id that nothing has, of the same length as those that something has.
const NO_ID: &str = "01arz3ndektsv4rrffq69g5fav";

/// All that somebody can see of an answer, and what it cost.
#[derive(Debug, PartialEq, Eq)]
struct Shape {
    status: u16,
    headers: Vec<(String, String)>,
    body: String,
    statements: u64,
}

/// Asks, and forgets what was typed.
async fn shape(
    world: &World,
    person: &Person,
    (method, path, sent): (&Method, &str, &str),
    typed: &str,
) -> Shape {
    let request = person.request(method.clone(), path);
    let request = request.header("content-type", "application/json");
    let request = request.body(Body::from(sent.to_owned()));
    let response = world.send(request.expect("a request")).await;
    let Some(Statements(statements)) = response.extensions().get().copied() else {
        panic!("{method} {path}: nobody counted")
    };
    let (parts, body) = response.into_parts();
    let bytes = axum::body::to_bytes(body, 1 << 20).await.expect("a body");
    let mut headers: Vec<_> = parts
        .headers
        .iter()
        .filter(|(name, _)| *name != "content-length")
        .map(|(name, value)| (name.to_string(), format!("{value:?}")))
        .collect();
    headers.sort();
    Shape {
        status: parts.status.as_u16(),
        headers,
        body: String::from_utf8_lossy(&bytes).replace(typed, "TYPED"),
        statements,
    }
}

/// What is there, what is not, and in what they differ.
struct Pair {
    there: String,
    none: String,
    differ: (String, String),
}

fn pair(there: &str, none: &str, differ: (&str, &str)) -> Pair {
    Pair {
        there: there.to_owned(),
        none: none.to_owned(),
        differ: (differ.0.to_owned(), differ.1.to_owned()),
    }
}

/// A team in which much has happened, and the names of it.
struct Lab {
    world: World,
    olga: Person,
    run: String,
    experiment: String,
}

impl Lab {
    async fn new(world: World) -> Self {
        let olga = world.user("olga").await;
        team(&world, &olga, "lab").await;
        let make = async |name: &str| {
            let mut run = new_run(name, &[]);
            run["team"] = json!("lab");
            world.post(&olga, "/runs", &run).await.ok()
        };
        let made = make("kept").await;
        let mut runner = Runner::new(&world);
        let attempt = runner.launch(&world).await;
        runner.leave(&world, &attempt, &[("model.pt", b"0")]).await;
        runner.end(&world, &attempt).await;
        make("gone").await;
        world.delete(&olga, "/runs/gone").await.ok();
        let id = |value: &serde_json::Value| value["id"].as_str().expect("an id").to_owned();
        Self {
            run: id(&made["run"]),
            experiment: id(&made["experiments"][0]),
            olga,
            world,
        }
    }

    /// Names of what is there and what is not, by the kind of the thing in a path.
    fn runs(&self) -> Vec<Pair> {
        vec![
            pair(&self.run, NO_ID, (&self.run, NO_ID)),
            pair("kept", "kepd", ("kept", "kepd")),
            pair("olga:kept", "olga:kepd", ("kept", "kepd")),
            pair("olga:kept", "olgi:kept", ("olga", "olgi")),
            pair("olga:gone", "olga:gonf", ("gone", "gonf")),
        ]
    }

    fn experiments(&self) -> Vec<Pair> {
        vec![
            pair(&self.experiment, NO_ID, (&self.experiment, NO_ID)),
            pair("kept-exp0", "kepd-exp0", ("kept", "kepd")),
            pair("olga:kept-exp0", "olga:kepd-exp0", ("kept", "kepd")),
            pair("olga:kept-exp0", "olga:kept-exp7", ("exp0", "exp7")),
            pair("olga:kept-exp0", "olgi:kept-exp0", ("olga", "olgi")),
            pair("olga:gone-exp0", "olga:gonf-exp0", ("gone", "gonf")),
        ]
    }

    /// People who are not in the team: a stranger, one who was removed, and one who is in
    /// another team with somebody who is in this one.
    async fn outsiders(&self) -> Vec<(&'static str, Person)> {
        let world = &self.world;
        let stranger = world.user("stranger").await;
        let removed = world.user("removed").await;
        join(world, &self.olga, "lab", "removed", &removed, Role::Admin).await;
        world
            .delete(&self.olga, "/teams/lab/members/removed")
            .await
            .ok();
        let beside = world.user("beside").await;
        let common = world.user("common").await;
        team(world, &beside, "choir").await;
        join(world, &beside, "choir", "common", &common, Role::Admin).await;
        join(world, &self.olga, "lab", "common", &common, Role::Admin).await;
        vec![
            ("stranger", stranger),
            ("removed", removed),
            ("beside", beside),
        ]
    }

    /// Asks for both of a pair, and finds no difference.
    async fn same(
        &self,
        who: &(&str, Person),
        method: &Method,
        path: &str,
        pair: &Pair,
        sent: &str,
    ) {
        let to = |name: &str| (path.replace("THING", name), sent.replace("THING", name));
        let ((one, sent_one), (other, sent_other)) = (to(&pair.there), to(&pair.none));
        let world = &self.world;
        let there = shape(world, &who.1, (method, &one, &sent_one), &pair.differ.0).await;
        let none = shape(world, &who.1, (method, &other, &sent_other), &pair.differ.1).await;
        assert_eq!(there, none, "{} can tell {method} {one} {sent_one}", who.0);
        // Unless the request makes no sense at all, nothing is there.
        let plain = path.ends_with("THING") && sent != "?";
        assert!(!plain || there.status >= 400, "{method} {one}: {there:?}");
    }
}

/// Bodies that are right, empty, of another shape, and no JSON.
fn bodies(operation: &str) -> [String; 4] {
    let right = body(operation).to_string();
    [right, String::new(), "[1]".to_owned(), "{".to_owned()]
}

async fn a_run_of_others_is_like_none_on_every_route(world: World) {
    let lab = Lab::new(world).await;
    let mut tried = 0;
    for who in lab.outsiders().await {
        for (id, method, path) in operations() {
            let row = ROUTES.iter().find(|(known, _)| *known == id);
            let Some((_, Asks::Run(_))) = row else {
                continue;
            };
            let (path, pairs) = if path.contains("{run}") {
                (path.replace("{run}", "THING"), lab.runs())
            } else {
                (path.replace("{experiment}", "THING"), lab.experiments())
            };
            for file in ["model.pt", "no.pt"] {
                let path = path.replace("{path}", file);
                for pair in &pairs {
                    for sent in bodies(&id) {
                        tried += 1;
                        lab.same(&who, &method, &path, pair, &sent).await;
                        let query = format!("{path}?limit=1&nonsense=1");
                        lab.same(&who, &method, &query, pair, &sent).await;
                    }
                }
                if !path.contains(file) {
                    break;
                }
            }
        }
    }
    assert!(tried > 500, "only {tried} were tried");
    let kept = lab.world.get(&lab.olga, "/runs/kept").await.ok();
    assert_eq!(kept["run"]["status"], "succeeded", "nothing was changed");
}

async fn a_team_of_others_is_like_none_on_every_route(world: World) {
    let lab = Lab::new(world).await;
    let team = lab.world.get(&lab.olga, "/teams/lab").await.ok();
    let team = team["team"]["id"].as_str().unwrap_or("lab").to_owned();
    let pairs = [
        pair("lab", "lob", ("lab", "lob")),
        pair(
            &team,
            &"0".repeat(team.len()),
            (&team, &"0".repeat(team.len())),
        ),
    ];
    for who in lab.outsiders().await {
        for (id, method, path) in operations() {
            let row = ROUTES.iter().find(|(known, _)| *known == id);
            let Some((_, Asks::Team(_))) = row else {
                continue;
            };
            for member in ["olga", "nobody"] {
                let path = path
                    .replace("{team}", "THING")
                    .replace("{user}", member)
                    .replace("{invitation}", member)
                    .replace("{account}", member);
                for pair in &pairs {
                    for sent in bodies(&id) {
                        lab.same(&who, &method, &path, pair, &sent).await;
                    }
                }
            }
        }
    }
}

async fn what_else_others_made_is_like_none_on_every_route(world: World) {
    let lab = Lab::new(world).await;
    let world = &lab.world;
    let content =
        json!({ "kind": "s3_key", "access_key_id": "AKIA", "secret_access_key": "secret" });
    let new = json!({ "name": "kept", "team": "lab", "content": content });
    let made = world.post(&lab.olga, "/credentials", &new).await.ok();
    let credential = made["credential"]["id"].as_str().expect("an id").to_owned();
    let new = json!({ "name": "kept", "team": "lab", "source": "here", "source_kind": "folder" });
    let made = world.post(&lab.olga, "/datastores", &new).await.ok();
    let datastore = made["datastore"]["id"].as_str().expect("an id").to_owned();
    let by_name = |version: &str| {
        let (there, none) = (format!("olga:kept{version}"), format!("olga:kepd{version}"));
        let nobodys = format!("olgi:kept{version}");
        [
            pair(&there, &none, ("kept", "kepd")),
            pair(&there, &nobodys, ("olga", "olgi")),
        ]
    };
    let of = |id: &str, version: &str| {
        let mut pairs = vec![pair(id, NO_ID, (id, NO_ID))];
        pairs.extend(by_name(version));
        pairs
    };
    for who in lab.outsiders().await {
        for (id, method, path) in operations() {
            let row = ROUTES.iter().find(|(known, _)| *known == id);
            let (path, pairs) = match row.expect("a row").1 {
                Asks::Credential(_) => (path.replace("{credential}", "THING"), of(&credential, "")),
                Asks::Datastore(_) => (path.replace("{datastore}", "THING"), of(&datastore, ":1")),
                _ => continue,
            };
            let path = path.replace("{number}", "0").replace("{path}", "a");
            for pair in &pairs {
                for sent in bodies(&id) {
                    lab.same(&who, &method, &path, pair, &sent).await;
                }
            }
        }
    }
}

/// A tree of one file that nobody has sent.
fn tree() -> serde_json::Value {
    json!({ "entries": [] })
}

async fn what_a_request_names_tells_no_more(world: World) {
    let lab = Lab::new(world).await;
    let world = &lab.world;
    let snapshot = world.post(&lab.olga, "/snapshots", &tree()).await.ok();
    let snapshot = snapshot["snapshot"].as_str().expect("an id").to_owned();
    let shared = post(world, &lab.olga, "/runs/kept/shares", &json!({}))
        .await
        .ok();
    let token = shared["token"].as_str().expect("a token").to_owned();
    let share = shared["share"]["id"].as_str().expect("an id").to_owned();
    let links = json!({ "paths": ["model.pt"] });
    let made = post(
        world,
        &lab.olga,
        "/experiments/kept-exp0/artifact-links",
        &links,
    )
    .await;
    let link = made.ok()["links"][0]["url"]
        .as_str()
        .expect("a link")
        .to_owned();
    let link = link.split("/links/").nth(1).expect("a token");
    let link = link.split('/').next().expect("a token").to_owned();
    let no_token = "0".repeat(token.len());
    let run = json!({ "name": "mine", "team": "THING", "invocation": "x",
        "spec": { "command": ["true"], "source": { "kind": "nothing" } } });
    let code = json!({ "name": "mine", "invocation": "x",
        "spec": { "command": ["true"], "source": { "kind": "snapshot", "id": "THING" } } });
    let (lab_pair, olga) = (
        pair("lab", "lob", ("lab", "lob")),
        pair("olga", "olgi", ("olga", "olgi")),
    );
    let rows = [
        (Method::POST, "/runs", &lab_pair, run.to_string()),
        (
            Method::POST,
            "/runs",
            &pair(&snapshot, NO_ID, (&snapshot, NO_ID)),
            code.to_string(),
        ),
        (
            Method::POST,
            "/invitations/accept",
            &lab_pair,
            json!({ "team": "THING" }).to_string(),
        ),
        (
            Method::POST,
            "/invitations/decline",
            &lab_pair,
            json!({ "team": "THING" }).to_string(),
        ),
        (
            Method::PUT,
            "/user/team",
            &lab_pair,
            json!({ "team": "THING" }).to_string(),
        ),
        (
            Method::GET,
            "/runs?global=true&created_by=THING",
            &olga,
            "?".to_owned(),
        ),
        (
            Method::GET,
            "/runs?deleted=true&global=true&created_by=THING",
            &olga,
            "?".to_owned(),
        ),
        (
            Method::GET,
            "/shares?run=THING",
            &pair("olga:kept", "olga:kepd", ("kept", "kepd")),
            String::new(),
        ),
        (Method::GET, "/audit?user=THING", &olga, String::new()),
        (
            Method::DELETE,
            "/shares/THING",
            &pair(&share, NO_ID, (&share, NO_ID)),
            String::new(),
        ),
        (Method::DELETE, "/user/keys/THING", &olga, String::new()),
    ];
    for who in lab.outsiders().await {
        for (method, path, pair, sent) in &rows {
            lab.same(&who, method, path, pair, sent).await;
        }
        // A token says nothing to those who may not use it; who has one was given it.
        for (method, path, pair) in [
            (
                Method::GET,
                "/shared/THING",
                pair(&token, &no_token, (&token, &no_token)),
            ),
            (
                Method::GET,
                "/links/THING/other.pt",
                pair(&link, &no_token, (&link, &no_token)),
            ),
        ] {
            let to = |name: &str| path.replace("THING", name);
            let there = to(&pair.there);
            let none = to(&pair.none);
            let there = shape(world, &who.1, (&method, &there, ""), &pair.differ.0).await;
            let none = shape(world, &who.1, (&method, &none, ""), &pair.differ.1).await;
            assert_eq!(
                (there.status, &there.headers, &there.body),
                (none.status, &none.headers, &none.body),
                "{path}"
            );
        }
    }
    // Nor does the door: a wrong key for somebody who is there, and for nobody.
    let login = |name: &str| json!({ "username": name, "api_key": "x" }).to_string();
    let (method, path) = (Method::POST, "/auth/login");
    let one = shape(
        world,
        &Person::Nobody,
        (&method, path, &login("olga")),
        "olga",
    )
    .await;
    let other = shape(
        world,
        &Person::Nobody,
        (&method, path, &login("olgi")),
        "olgi",
    )
    .await;
    assert_eq!(one, other);
}
