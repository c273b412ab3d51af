//! SSH keys and credentials over HTTP, by the rules, and what is on disk of them.

use axum::http::Method;
use grid_core::access::{Action, Decision, Relation, may};
use grid_core::team::TeamPolicy;
use serde_json::{Value, json};

use super::matrix::Lab;
use super::place::on_both;
use super::server::{client, of, operator, options};
use super::world::{Person, World};
use crate::serve::Server;
use crate::upkeep::{backup, doctor};

on_both!(
    ssh_keys_are_ones_own,
    a_credential_is_made_listed_changed_and_deleted,
    credentials_obey_the_table,
    limits_of_credentials_are_told,
);

const SECRET: &str = "a/very+secret/access=key";

fn keys(access_key_id: &str) -> Value {
    json!({ "kind": "s3_key", "access_key_id": access_key_id, "secret_access_key": SECRET,
        "endpoint": "http://127.0.0.1:9000", "region": "eu-1" })
}

fn role() -> Value {
    json!({ "kind": "s3_role", "external_id": "6f1d",
        "role_arn": "arn:aws:iam::123456789012:role/grid-s3-access-ada" })
}

async fn make(world: &World, person: &Person, name: &str, team: Option<&str>) -> Value {
    let body = json!({ "name": name, "team": team, "content": keys("AKIA") });
    world.post(person, "/credentials", &body).await.ok()["credential"].take()
}

async fn ssh_keys_are_ones_own(world: World) {
    let bob = world.user("bob").await;
    let body = json!({ "name": "laptop", "public_key": super::graphql::KEY });
    let made = world.post(&bob, "/user/ssh-keys", &body).await.ok();
    let key = &made["ssh_key"];
    let fingerprint = key["fingerprint"].as_str().expect("text");
    assert!(fingerprint.starts_with("SHA256:"), "{fingerprint}");
    world.post(&bob, "/user/ssh-keys", &body).await.refused(409);
    // Another one may have the same key.
    world.post(&world.ada, "/user/ssh-keys", &body).await.ok();
    let bad = json!({ "name": "x", "public_key": "ssh-dss AAAA" });
    let said = world.post(&bob, "/user/ssh-keys", &bad).await.refused(400);
    assert!(said.contains("ssh-dss"), "{said}");
    let bad = json!({ "name": "", "public_key": super::graphql::KEY });
    world.post(&bob, "/user/ssh-keys", &bad).await.refused(400);
    let listed = world.get(&bob, "/user/ssh-keys").await.ok();
    assert_eq!(listed["ssh_keys"], json!([key]));
    let id = key["id"].as_str().expect("an id");
    world
        .delete(&world.ada, &format!("/user/ssh-keys/{id}"))
        .await
        .refused(404);
    world.delete(&bob, "/user/ssh-keys/laptop").await.ok();
    world
        .delete(&bob, &format!("/user/ssh-keys/{id}"))
        .await
        .refused(404);
    let log = world.get(&bob, "/audit").await.ok();
    let actions: Vec<&Value> = log["events"]
        .as_array()
        .expect("events")
        .iter()
        .map(|event| &event["action"])
        .collect();
    assert_eq!(actions[..2], ["ssh_key.remove", "ssh_key.add"]);
}

async fn a_credential_is_made_listed_changed_and_deleted(world: World) {
    let ada = &world.ada;
    let made = make(&world, ada, "lab", None).await;
    assert_eq!(made["access_key_id"], "AKIA");
    assert_eq!(made["created_by"], "ada");
    let unnamed = json!({ "content": role() });
    let role = world.post(ada, "/credentials", &unnamed).await.ok();
    assert_eq!(role["credential"]["name"], "s3");
    assert_eq!(role["credential"]["external_id"], "6f1d");
    let taken = json!({ "name": "lab", "content": keys("AKIA") });
    world.post(ada, "/credentials", &taken).await.refused(409);
    for content in [
        json!({ "kind": "s3_role", "role_arn": "x", "external_id": "y" }),
        json!({ "kind": "s3_key", "access_key_id": "", "secret_access_key": "y" }),
        json!({ "kind": "gcs" }),
    ] {
        let body = json!({ "content": content });
        world.post(ada, "/credentials", &body).await.refused(400);
    }
    let update = json!({ "content": keys("AKIB") }).to_string();
    world.put(ada, "/credentials/lab", update).await.ok();
    let id = made["id"].as_str().expect("an id");
    let shown = world.get(ada, &format!("/credentials/{id}")).await.ok();
    assert_eq!(shown["credential"]["access_key_id"], "AKIB");
    assert_ne!(shown["credential"]["updated_at"], made["updated_at"]);
    let listed = world.get(ada, "/credentials").await.ok();
    let text = listed.to_string();
    assert!(!text.contains(SECRET), "{text}");
    assert_eq!(listed["credentials"].as_array().map(Vec::len), Some(2));
    let Person::User { id: user, key } = ada else {
        panic!("a user")
    };
    // What this server works with: all of it, once and written down.
    let caller = grid_engine::user::authenticate(&world.app.engine, Some(user), key).await;
    let caller = caller.expect("let in");
    let opened = grid_engine::credential::open(&world.app.engine, &caller, "lab").await;
    let opened = opened.expect("opened");
    let grid_core::credential::S3::Key {
        secret_access_key, ..
    } = &opened.content
    else {
        panic!("keys")
    };
    assert_eq!(secret_access_key, SECRET);
    assert!(!format!("{opened:?}").contains(SECRET));
    world.delete(ada, "/credentials/lab").await.ok();
    world.get(ada, "/credentials/lab").await.refused(404);
    let gone = grid_engine::credential::open(&world.app.engine, &caller, "lab").await;
    gone.expect_err("it is gone");
    let log = world.get(ada, "/audit").await.ok();
    let events = log["events"].as_array().expect("events").iter();
    let about: Vec<&str> = events
        .filter(|event| event["thing"] == "ada:lab")
        .map(|event| event["action"].as_str().expect("text"))
        .collect();
    assert_eq!(
        about,
        [
            "credential.delete",
            "credential.use",
            "credential.change",
            "credential.create"
        ]
    );
    assert!(!log.to_string().contains(SECRET));
}

async fn credentials_obey_the_table(world: World) {
    let lab = Lab::new(world).await;
    let policy = TeamPolicy::default();
    for asker in &lab.askers {
        if matches!(asker.relation, Relation::Creator(_)) {
            // What they made is their own; see below.
            continue;
        }
        let name = format!("for-{}", asker.name);
        make(&lab.world, &lab.creator, &name, Some("lab")).await;
        let path = format!("/credentials/creator:{name}");
        let update = json!({ "content": keys("AKIC") });
        for (method, body, action) in [
            (Method::GET, json!({}), Action::UseCredential),
            (Method::PUT, update, Action::ChangeCredential),
            (Method::DELETE, json!({}), Action::DeleteCredential),
        ] {
            let known = may(asker.relation, Action::DeleteCredential, policy);
            let (status, said) = lab.ask(&asker.person, &method, &path, body).await;
            let expected = match may(asker.relation, action, policy) {
                Decision::Allow | Decision::AllowAudited => 200,
                // Who may delete one sees that it is there.
                Decision::Deny(_) if method == Method::GET && known == Decision::AllowAudited => {
                    200
                }
                Decision::Deny(_) => 403,
                Decision::Hide => 404,
            };
            assert_eq!(status, expected, "{} {action:?}: {said}", asker.name);
        }
    }
    // An operator sees that it is there, and not what is in it.
    make(&lab.world, &lab.creator, "seen", Some("lab")).await;
    let seen = lab
        .world
        .get(&lab.world.ada, "/credentials/creator:seen")
        .await
        .ok();
    assert!(seen["credential"].get("access_key_id").is_none(), "{seen}");
    let member = &lab.askers.iter().find(|one| one.name == "member");
    let member = &member.expect("a member").person;
    let own = lab.world.get(member, "/credentials").await.ok();
    assert_eq!(own["credentials"], json!([]));
    let all = lab.world.get(member, "/credentials?global=true").await.ok();
    assert!(all.to_string().contains("\"seen\""), "{all}");
    let viewer = &lab.askers.iter().find(|one| one.name == "viewer");
    let viewer = &viewer.expect("a viewer").person;
    let none = lab.world.get(viewer, "/credentials?global=true").await.ok();
    assert_eq!(none["credentials"], json!([]));
}

async fn limits_of_credentials_are_told(world: World) {
    let max = grid_engine::credential::CREDENTIALS_MAX;
    for _ in 0..max {
        let body = json!({ "content": role() });
        world.post(&world.ada, "/credentials", &body).await.ok();
    }
    let body = json!({ "content": role() });
    let said = world
        .post(&world.ada, "/credentials", &body)
        .await
        .refused(409);
    assert!(said.contains("limit"), "{said}");
    // A key that is good for runs makes none.
    let narrow = json!({ "name": "ci", "scope": "run" });
    let narrow = world.post(&world.ada, "/user/keys", &narrow).await.ok();
    let text = |value: &Value| value.as_str().expect("text").to_owned();
    let ci = Person::User {
        id: text(&narrow["user_id"]),
        key: text(&narrow["api_key"]),
    };
    world.post(&ci, "/credentials", &body).await.refused(403);
    world.get(&ci, "/credentials").await.ok();
}

#[tokio::test]
async fn no_secret_is_on_disk_in_clear() {
    let world = World::new().await;
    make(&world, &world.ada, "lab", None).await;
    let body = json!({ "content": { "kind": "s3_role", "external_id": "an-id-of-ours",
        "role_arn": "arn:aws:iam::123456789012:role/of-ours" } });
    world.post(&world.ada, "/credentials", &body).await.ok();
    let mut looked = 0;
    for entry in std::fs::read_dir(world.app.folder.path()).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_file() {
            let bytes = std::fs::read(&path).expect("read");
            for secret in [SECRET, "AKIA", "an-id-of-ours", "role/of-ours"] {
                let found = bytes
                    .windows(secret.len())
                    .any(|part| part == secret.as_bytes());
                assert!(!found, "{secret} is in {}", path.display());
            }
            looked += usize::from(bytes.windows(4).any(|part| part == b"s3_r"));
        }
    }
    assert!(looked > 0, "the row itself is there");
}

#[tokio::test]
async fn another_key_file_opens_nothing_and_says_so() {
    let dir = tempfile::tempdir().expect("a folder");
    let options = options(dir.path());
    let start = || Server::start_without_runner(of(options.clone()));
    let mut server = start().await.expect("started");
    let body = json!({ "name": "lab", "content": keys("AKIA") });
    let ask = |operator: Value| client(&operator, None);
    let made: Value = ask(operator(dir.path()))
        .post("/credentials", &body)
        .await
        .expect("made");
    assert_eq!(made["credential"]["access_key_id"], "AKIA");
    let key = json!({ "name": "notebook", "s3": true });
    let made: Value = ask(operator(dir.path()))
        .post("/user/keys", &key)
        .await
        .expect("made");
    assert!(made["s3"]["access_key_id"].is_string(), "{made}");
    let mut said = Vec::new();
    let copy = dir.path().join("copy.db");
    backup(options.clone(), &copy, &mut said)
        .await
        .expect("copied");
    let text = String::from_utf8_lossy(&said);
    assert!(text.contains("another place"), "{text}");
    server.end().await;
    drop(server);
    let file = dir.path().join("data/credential.key");
    let right = std::fs::read(&file).expect("the key");
    std::fs::write(&file, format!("{}\n", "0".repeat(64))).expect("another one");
    let mut server = start().await.expect("what needs no credentials works");
    let listed: Value = ask(operator(dir.path()))
        .get("/credentials", &())
        .await
        .expect("listed");
    let problem = listed["credentials"][0]["problem"].as_str();
    assert!(
        problem.is_some_and(|why| why.contains("another key")),
        "{listed}"
    );
    server.end().await;
    drop(server);
    let mut said = Vec::new();
    let well = doctor(options.clone(), false, &mut said).await;
    assert!(!well.expect("examined"), "one credential is closed");
    let text = String::from_utf8_lossy(&said);
    assert!(
        text.contains("1 credential(s) and 1 key(s) for S3"),
        "{text}"
    );
    std::fs::write(&file, right).expect("put back");
    let well = doctor(options.clone(), false, &mut said).await;
    assert!(well.expect("examined"));
    std::fs::write(&file, "nonsense").expect("damaged");
    let refused = start().await.err().expect("it is no key");
    let refused = format!("{refused:#}");
    assert!(refused.contains("put the right file back"), "{refused}");
}
