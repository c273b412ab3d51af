//! The rows of the table that are about datastores, against the real routes: every action,
//! role, relation and policy, by id and by name; and mounting one.

use axum::http::Method;
use grid_core::access::{Action, Decision, Relation, may};
use grid_core::team::{Role, Sharing};
use serde_json::{Value, json};

use super::matrix::{Asker, Lab, body, operations};
use super::place::on_both;
use super::world::{Person, World};
use crate::rest::access::{Asks, ROUTES};

on_both!(
    a_datastore_obeys_the_table_on_every_route,
    mounting_and_making_datastores_obeys_the_table,
);

/// What is in each version.
const BYTES: &[u8] = b"0123";

/// A version that `maker` has begun in the team, with one file in its list.
async fn begun(world: &World, maker: &Person, name: &str, kind: &str) -> Value {
    let new = json!({ "name": name, "team": "lab", "source": "here", "source_kind": kind });
    let made = world.post(maker, "/datastores", &new).await.ok()["datastore"].take();
    if kind != "folder" {
        return made;
    }
    let hash = blake3::hash(BYTES);
    let mut record = grid_api::blob::header(hash.as_bytes(), BYTES.len() as u64).to_vec();
    record.extend_from_slice(BYTES);
    world.put(maker, "/blobs", record).await.ok();
    let file = json!({ "path": "a.txt", "kind": "file", "mode": 0o644, "modified_ms": 1,
        "size_bytes": BYTES.len(), "content": hash.to_hex().to_string() });
    let part = json!({ "entries": [file] }).to_string();
    let path = format!("/datastores/{}/parts/0", id(&made));
    let kept = world.put(maker, &path, part).await.ok();
    assert_eq!(kept["missing"], json!([]));
    made
}

/// One that can be read.
pub(super) async fn ready(world: &World, maker: &Person, name: &str) -> Value {
    let made = begun(world, maker, name, "folder").await;
    let path = format!("/datastores/{}/commit", id(&made));
    let parts = json!({ "parts": 1 });
    let ready = world.post(maker, &path, &parts).await.ok()["datastore"].take();
    assert_eq!(ready["state"], "available", "{ready}");
    ready
}

/// The version about which `asker` is going to ask this, so that it could be done.
pub(super) async fn version(lab: &Lab, asker: &Asker, name: &str, operation: &str) -> Value {
    let world = &lab.world;
    let make = async |maker: &Person| match operation {
        "datastore_archive_put" => begun(world, maker, name, "stream").await,
        "datastore_commit"
        | "datastore_part_list"
        | "datastore_part_put"
        | "datastore_parts_put" => begun(world, maker, name, "folder").await,
        "datastore_restore" => {
            let made = ready(world, maker, name).await;
            let path = format!("/datastores/{}", id(&made));
            world.delete(maker, &path).await.ok()["datastore"].take()
        }
        _ => ready(world, maker, name).await,
    };
    lab.made_for(asker, make).await
}

pub(super) fn id(made: &Value) -> &str {
    made["id"].as_str().expect("an id")
}

/// Where an operation is asked for, about this version.
pub(super) fn place(path: &str, which: &str) -> String {
    let path = path
        .replace("{datastore}", which)
        .replace("{path}", "a.txt")
        .replace("{number}", "0");
    if path.ends_with("/diff") {
        format!("{path}?with={which}")
    } else {
        path
    }
}

async fn a_datastore_obeys_the_table_on_every_route(world: World) {
    let lab = Lab::new(world).await;
    let mut tried = 0;
    for sharing in [Sharing::Team, Sharing::Creator] {
        let policy = lab.policy(sharing).await;
        for asker in &lab.askers {
            for (operation, method, path) in operations() {
                let row = ROUTES.iter().find(|(known, _)| *known == operation);
                let Asks::Datastore(action) = row.expect("a row").1 else {
                    continue;
                };
                tried += 1;
                let made = version(&lab, asker, &format!("d{tried}"), &operation).await;
                let owner = made["created_by"].as_str().expect("a name");
                let named = format!("{owner}:d{tried}:1");
                // One of the two changes it, where that is allowed.
                let which = if tried % 2 == 0 { id(&made) } else { &named };
                let path = place(&path, which);
                let answer = lab.ask(&asker.person, &method, &path, body(&operation));
                let (status, text) = answer.await;
                let decision = may(asker.relation, action, policy);
                let what = format!(
                    "{operation} of {which} by {}, {sharing:?}: {decision:?}, answered {status} {text}",
                    asker.name
                );
                match decision {
                    Decision::Allow | Decision::AllowAudited => {
                        // What was sent is no archive, and no parts.
                        let expected =
                            ["datastore_archive_put", "datastore_parts_put"].contains(&&*operation);
                        assert_eq!(status >= 300, expected, "{what}");
                        assert!(!matches!(status, 401 | 403 | 404) && status < 500, "{what}");
                    }
                    Decision::Deny(_) => {
                        assert_eq!(status, 403, "{what}");
                        let whose = ["belongs to creator", "is yours, but you are a viewer"];
                        let told = whose.iter().any(|whose| text.contains(whose));
                        assert!(told && text.contains("only"), "{what}");
                        untouched(&lab, &made, &what).await;
                    }
                    Decision::Hide => {
                        assert_eq!(status, 404, "{what}");
                        assert!(!text.contains("belongs"), "{what}");
                        untouched(&lab, &made, &what).await;
                    }
                }
            }
        }
    }
    assert!(tried > 200, "only {tried} were tried");
}

/// What was refused has changed nothing.
async fn untouched(lab: &Lab, made: &Value, what: &str) {
    let path = format!("/datastores/{}", id(made));
    let now = lab.world.get(&lab.owner, &path).await.ok();
    for field in ["state", "name", "description", "deleted_at"] {
        assert_eq!(now["datastore"][field], made[field], "{field}: {what}");
    }
}

async fn mounting_and_making_datastores_obeys_the_table(world: World) {
    let lab = Lab::new(world).await;
    for sharing in [Sharing::Team, Sharing::Creator] {
        let policy = lab.policy(sharing).await;
        for asker in &lab.askers {
            let name = format!("of-{}-{sharing:?}", asker.name).to_lowercase();
            let made = version(&lab, asker, &name, "any").await;
            let owner = made["created_by"].as_str().expect("a name").to_owned();
            let user = if asker.name == "operator" {
                "ada"
            } else {
                asker.name
            };
            for which in [format!("{owner}:{name}"), id(&made).to_owned()] {
                // In a team where they may make runs: only the datastore is asked about.
                let run = json!({ "team": user, "invocation": "x", "dry_run": true,
                    "spec": { "command": ["true"], "source": { "kind": "nothing" },
                        "datastores": [{ "datastore": which }] } });
                let (status, text) = lab.ask(&asker.person, &Method::POST, "/runs", run).await;
                let decision = may(asker.relation, Action::UseDatastore, policy);
                let expected = match decision {
                    Decision::Allow | Decision::AllowAudited => 200..300,
                    Decision::Deny(_) => 403..404,
                    Decision::Hide => 404..405,
                };
                assert!(
                    expected.contains(&status),
                    "{which} by {}: {decision:?}, answered {status} {text}",
                    asker.name
                );
            }
            let about_team = match asker.relation {
                Relation::Creator(role) => Relation::Teammate(role),
                other => other,
            };
            let new = json!({ "name": format!("new-{sharing:?}").to_lowercase(), "team": "lab",
                "source": "here", "source_kind": "folder" });
            let (status, text) = lab
                .ask(&asker.person, &Method::POST, "/datastores", new)
                .await;
            let expected = match may(about_team, Action::Create, policy) {
                Decision::Allow | Decision::AllowAudited => 201,
                Decision::Deny(_) => 403,
                Decision::Hide => 404,
            };
            assert_eq!(status, expected, "by {}: {text}", asker.name);
        }
    }
    // A creator who is a viewer now finds their own, and may only give it up.
    let demoted = lab.askers.iter().find(|asker| asker.name == "demoted");
    let demoted = demoted.expect("somebody");
    assert_eq!(demoted.relation, Relation::Creator(Role::Viewer));
    let made = version(&lab, demoted, "given-up", "any").await;
    let path = format!("/datastores/{}", id(&made));
    lab.world.get(&demoted.person, &path).await.ok();
    lab.world.delete(&demoted.person, &path).await.ok();
}
