//! The whole table against the real routes: every action, role, relation and policy, by
//! request, by stream and by link.

use axum::body::Body;
use axum::http::Method;
use grid_core::access::{Action, Decision, Relation, may};
use grid_core::team::{Role, Sharing, TeamPolicy};
use serde_json::{Value, json};

use super::place::on_both;
use super::teams::{join, team};
use super::world::{Person, Runner, World, new_run};
use crate::rest::access::{Asks, ROUTES};

on_both!(
    a_run_obeys_the_table_on_every_route,
    a_team_obeys_the_table_on_every_route,
    links_obey_the_table,
);

/// Who asks, and how they stand to the run that a member has made.
pub(super) struct Asker {
    pub(super) name: &'static str,
    pub(super) person: Person,
    pub(super) relation: Relation,
}

/// A team with everybody in it, and everybody who is not.
pub(super) struct Lab {
    pub(super) world: World,
    pub(super) creator: Person,
    pub(super) owner: Person,
    pub(super) askers: Vec<Asker>,
}

impl Lab {
    pub(super) async fn new(world: World) -> Self {
        let owner = world.user("owner").await;
        team(&world, &owner, "lab").await;
        let mut askers = Vec::new();
        for (name, role) in [
            ("viewer", Role::Viewer),
            ("member", Role::Member),
            ("admin", Role::Admin),
        ] {
            let person = world.user(name).await;
            join(&world, &owner, "lab", name, &person, role).await;
            let relation = Relation::Teammate(role);
            askers.push(Asker {
                name,
                person,
                relation,
            });
        }
        let creator = world.user("creator").await;
        join(&world, &owner, "lab", "creator", &creator, Role::Member).await;
        // Made runs as a member, and is a viewer since: see `make`.
        let demoted = world.user("demoted").await;
        join(&world, &owner, "lab", "demoted", &demoted, Role::Viewer).await;
        let removed = world.user("removed").await;
        join(&world, &owner, "lab", "removed", &removed, Role::Member).await;
        world
            .delete(&owner, "/teams/lab/members/removed")
            .await
            .ok();
        let outsider = world.user("outsider").await;
        let more = [
            ("creator", creator.clone(), Relation::Creator(Role::Member)),
            ("demoted", demoted, Relation::Creator(Role::Viewer)),
            ("owner", owner.clone(), Relation::Teammate(Role::Owner)),
            ("removed", removed, Relation::Outsider),
            ("outsider", outsider, Relation::Outsider),
            ("operator", world.ada.clone(), Relation::Operator),
        ];
        askers.extend(more.map(|(name, person, relation)| Asker {
            name,
            person,
            relation,
        }));
        Self {
            world,
            creator,
            owner,
            askers,
        }
    }

    /// Sets the policy; answers with it.
    pub(super) async fn policy(&self, run_control: Sharing) -> TeamPolicy {
        let body = json!({ "run_control": run_control });
        let path = "/teams/lab/policy";
        self.world
            .put(&self.owner, path, body.to_string())
            .await
            .ok();
        TeamPolicy {
            run_control,
            ..TeamPolicy::default()
        }
    }

    /// Makes the run that `asker` is going to ask about.
    pub(super) async fn make(&self, asker: &Asker, name: &str) -> Value {
        let mut run = new_run(name, &[]);
        run["team"] = json!("lab");
        let make = async |maker: &Person| self.world.post(maker, "/runs", &run).await.ok();
        self.made_for(asker, make).await
    }

    /// Makes what `asker` is going to ask about: as the creator, or as they themselves from
    /// when they were more than a viewer.
    pub(super) async fn made_for(
        &self,
        asker: &Asker,
        make: impl AsyncFnOnce(&Person) -> Value,
    ) -> Value {
        if asker.relation != Relation::Creator(Role::Viewer) {
            return make(&self.creator).await;
        }
        let path = format!("/teams/lab/members/{}", asker.name);
        let role = async |role: Role| {
            let body = json!({ "role": role }).to_string();
            self.world.put(&self.owner, &path, body).await.ok();
        };
        role(Role::Member).await;
        let made = make(&asker.person).await;
        role(Role::Viewer).await;
        made
    }

    /// Asks for `method path` as somebody; gives the status and the words.
    pub(super) async fn ask(
        &self,
        person: &Person,
        method: &Method,
        path: &str,
        body: Value,
    ) -> (u16, String) {
        let request = person
            .request(method.clone(), path)
            .header("content-type", "application/json");
        let request = request
            .body(Body::from(body.to_string()))
            .expect("a request");
        let response = self.world.send(request).await;
        let status = response.status().as_u16();
        if status < 400 {
            // A stream does not end by itself.
            return (status, String::new());
        }
        let bytes = axum::body::to_bytes(response.into_body(), 1 << 20).await;
        (
            status,
            String::from_utf8_lossy(&bytes.expect("a body")).into_owned(),
        )
    }
}

/// Every described operation: id, method, path.
pub(super) fn operations() -> Vec<(String, Method, String)> {
    let api: Value = serde_json::from_str(&crate::openapi()).expect("JSON");
    let mut operations = Vec::new();
    for (path, item) in api["paths"].as_object().expect("paths") {
        for (method, operation) in item.as_object().expect("operations") {
            let Ok(method) = method.to_uppercase().parse() else {
                continue;
            };
            let id = operation["operationId"].as_str().expect("an id");
            operations.push((id.to_owned(), method, path.clone()));
        }
    }
    operations
}

#[test]
fn every_route_says_what_it_asks() {
    let mut described: Vec<String> = operations().into_iter().map(|(id, _, _)| id).collect();
    described.sort();
    let rows: Vec<&str> = ROUTES.iter().map(|(id, _)| *id).collect();
    assert_eq!(
        described, rows,
        "give each new route a row in rest/access.rs, in order"
    );
}

/// A body with which an operation can be done.
pub(super) fn body(operation: &str) -> Value {
    match operation {
        "link_create" => json!({ "paths": ["model.pt"] }),
        "run_clone" => json!({ "dry_run": true }),
        "team_rename" => json!({ "name": "lab" }),
        "invitation_create" => json!({ "to": "guest@example.org" }),
        "service_account_create" => json!({ "name": "nobody-knows", "role": "owner" }),
        "service_account_key_create" => json!({ "name": "x" }),
        "member_update" => json!({ "role": "member" }),
        "credential_update" => json!({ "content": {
            "kind": "s3_key", "access_key_id": "AKIB", "secret_access_key": "other" } }),
        "datastore_commit" => json!({ "parts": 1 }),
        "datastore_file_fetch" => json!({ "paths": ["a.txt"] }),
        "datastore_part_put" => json!({ "entries": [] }),
        "datastore_update" => json!({ "description": "x" }),
        _ => json!({}),
    }
}

async fn a_run_obeys_the_table_on_every_route(world: World) {
    let lab = Lab::new(world).await;
    let mut tried = 0;
    for run_control in [Sharing::Team, Sharing::Creator] {
        let policy = lab.policy(run_control).await;
        for asker in &lab.askers {
            for (id, method, path) in operations() {
                let row = ROUTES
                    .iter()
                    .find(|(known, _)| *known == id)
                    .expect("a row");
                let Asks::Run(action) = row.1 else { continue };
                let name = format!("r{tried}");
                tried += 1;
                let made = lab.make(asker, &name).await;
                let run = format!("/runs/{}", made["run"]["id"].as_str().expect("an id"));
                let path = path
                    .replace("/runs/{run}", &run)
                    .replace(
                        "{experiment}",
                        made["experiments"][0]["id"].as_str().expect("an id"),
                    )
                    .replace("{path}", "model.pt");
                let (status, text) = lab.ask(&asker.person, &method, &path, body(&id)).await;
                let decision = may(asker.relation, action, policy);
                let what = format!(
                    "{id} by {} with run_control {run_control:?}: {decision:?}, answered {status} {text}",
                    asker.name
                );
                match decision {
                    // What is allowed may still find nothing: no artifact, nothing failed.
                    Decision::Allow | Decision::AllowAudited => {
                        assert!(!matches!(status, 401 | 403) && status < 500, "{what}");
                        if status == 404 {
                            assert!(text.contains("has no artifact"), "{what}");
                        }
                    }
                    Decision::Deny(_) => {
                        assert_eq!(status, 403, "{what}");
                        let whose = ["belongs to creator", "is yours, but you are a viewer"];
                        let told = whose.iter().any(|whose| text.contains(whose));
                        assert!(told && text.contains("only"), "{what}");
                        let now = lab.world.get(&lab.owner, &run).await.ok();
                        let untouched = ["queued", "pending"]
                            .contains(&now["run"]["status"].as_str().unwrap_or_default());
                        assert!(untouched && now["run"]["deleted_at"].is_null(), "{what}");
                    }
                    Decision::Hide => {
                        assert_eq!(status, 404, "{what}");
                        let none = path.replace('0', "1");
                        let (other, _) = lab.ask(&asker.person, &method, &none, body(&id)).await;
                        assert_eq!(other, 404, "{what}");
                    }
                }
                // It may be in the trash by now: that is what some of them are for.
                lab.world.delete(&lab.owner, &run).await;
            }
        }
    }
    assert!(tried > 200, "only {tried} were tried");
}

async fn a_team_obeys_the_table_on_every_route(world: World) {
    let lab = Lab::new(world).await;
    let policy = TeamPolicy::default();
    for asker in &lab.askers {
        let relation = match asker.relation {
            Relation::Creator(role) => Relation::Teammate(role),
            other => other,
        };
        for (id, method, path) in operations() {
            let row = ROUTES
                .iter()
                .find(|(known, _)| *known == id)
                .expect("a row");
            let Asks::Team(action) = row.1 else { continue };
            if id == "team_leave" {
                // It would change who asks; it has tests of its own.
                continue;
            }
            let path = path
                .replace("{team}", "lab")
                .replace("{user}", "nobody-here")
                .replace("{invitation}", "none")
                .replace("{account}", "none");
            let (status, text) = lab.ask(&asker.person, &method, &path, body(&id)).await;
            let decision = may(relation, action, policy);
            let what = format!(
                "{id} by {}: {decision:?}, answered {status} {text}",
                asker.name
            );
            match decision {
                Decision::Allow | Decision::AllowAudited => {
                    assert!(!matches!(status, 401 | 403) && status < 500, "{what}");
                    assert!(!text.contains("no team"), "{what}");
                }
                Decision::Deny(_) => assert_eq!(status, 403, "{what}"),
                Decision::Hide => {
                    assert_eq!(status, 404, "{what}");
                    let none = path.replace("/teams/lab", "/teams/lob");
                    let (other, words) = lab.ask(&asker.person, &method, &none, body(&id)).await;
                    assert_eq!(
                        (other, words.replace("lob", "lab")),
                        (status, text),
                        "{what}"
                    );
                }
            }
        }
    }
}

async fn links_obey_the_table(world: World) {
    let lab = Lab::new(world).await;
    let world = &lab.world;
    let mut run = new_run("kept", &[]);
    run["team"] = json!("lab");
    world.post(&lab.creator, "/runs", &run).await.ok();
    let mut runner = Runner::new(world);
    let attempt = runner.launch(world).await;
    runner
        .leave(world, &attempt, &[("model.pt", b"0123")])
        .await;
    runner.end(world, &attempt).await;
    let policy = lab.policy(Sharing::Creator).await;
    let path = "/runs/creator:kept/shares";
    for asker in &lab.askers {
        let (status, text) = lab.ask(&asker.person, &Method::POST, path, json!({})).await;
        let expected = match may(asker.relation, Action::ShareRun, policy) {
            Decision::Allow | Decision::AllowAudited => 201,
            Decision::Deny(_) => 403,
            Decision::Hide => 404,
        };
        assert_eq!(status, expected, "{}: {text}", asker.name);
    }
    let request = lab.creator.request(Method::POST, "/runs/kept/shares");
    let request = request.header("content-type", "application/json");
    let made = world
        .answer(request.body(Body::from("{}")).expect("a request"))
        .await
        .ok();
    let token = made["token"].as_str().expect("a token");
    assert_eq!(made["url"], format!("http://grid.example:8080/s/{token}"));
    for asker in &lab.askers {
        let found = world.get(&asker.person, &format!("/shared/{token}")).await;
        let expected = if asker.relation == Relation::Outsider {
            404
        } else {
            200
        };
        assert_eq!(found.status.as_u16(), expected, "{}", asker.name);
    }
    assert_eq!(
        world
            .get(&Person::Nobody, &format!("/shared/{token}"))
            .await
            .status,
        401
    );
}
