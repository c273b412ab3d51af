//! The questions of the original client over HTTP, as it asks them.

use axum::body::Body;
use axum::http::{Method, Request};
use grid_core::logframe::Source;
use grid_core::team::Role;
use serde_json::{Value, json};

use super::teams::{join, team};
use super::world::{Answer, Person, Runner, World};

/// Every document that the client sends, with variables as it sent them once.
pub(super) const DOCUMENTS: &str = include_str!("graphql/documents.jsonl");

/// How it reads the schema.
pub(super) const INTROSPECTION: &str = include_str!("graphql/introspection.graphql");

/// A public key that was made for this.
pub(super) const KEY: &str =
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIHmYDSXeGl6nvAJpbqiKJIRN/JZjRNxDrfv7MoFgCmq9 root@vm";

fn request(person: &Person, body: impl Into<Body>) -> Request<Body> {
    let request = Request::builder()
        .method(Method::POST)
        .uri("/graphql")
        .header("content-type", "application/json");
    let request = match person {
        Person::User { id, key } => request.header("X-Grid-User", id).header("X-Grid-Key", key),
        Person::Nobody | Person::Token(_) => request,
    };
    request.body(body.into()).expect("a request")
}

async fn post(world: &World, person: &Person, body: impl Into<Body>) -> Answer {
    world.answer(request(person, body)).await
}

/// Asks, and gives the whole answer.
async fn ask(world: &World, person: &Person, query: &str, variables: Value) -> Value {
    let body = json!({ "query": query, "variables": variables }).to_string();
    post(world, person, body).await.ok()
}

/// Asks what is answered.
async fn data(world: &World, person: &Person, query: &str, variables: Value) -> Value {
    let mut answer = ask(world, person, query, variables).await;
    assert!(answer.get("errors").is_none(), "{answer}");
    answer["data"].take()
}

/// Asks what is refused, and gives the words.
async fn refused(world: &World, person: &Person, query: &str, variables: Value) -> String {
    let answer = ask(world, person, query, variables).await;
    let message = answer["errors"][0]["message"].as_str();
    message.unwrap_or_else(|| panic!("{answer}")).to_owned()
}

#[tokio::test]
async fn every_document_of_the_client_is_understood() {
    let world = World::new().await;
    let made = world.run(&world.ada, "my-run", &["--lr", "0.1"]).await;
    let id = made["experiments"][0]["id"].as_str().expect("an id");
    let mut asked = 0;
    for line in DOCUMENTS.lines() {
        let mut document: Value = serde_json::from_str(line).expect("JSON");
        let query = document["query"].as_str().expect("text").to_owned();
        if query.starts_with("subscription") || query.starts_with("mutation") {
            continue;
        }
        let variables = &mut document["variables"];
        if variables.get("experimentId").is_some() {
            variables["experimentId"] = json!(id);
        }
        let variables = variables.take();
        let answer = data(&world, &world.ada, &query, variables).await;
        assert!(answer.is_object(), "{query}");
        asked += 1;
    }
    assert!(asked >= 10, "{asked}");
    let read = data(&world, &world.ada, INTROSPECTION, json!({})).await;
    let types = read["__schema"]["types"].as_array().expect("types");
    let is_there = |name: &str| types.iter().any(|one| one["name"] == name);
    for name in ["DateTime", "Query", "Mutation", "Subscription", "SSHKey"] {
        assert!(is_there(name), "{name}");
    }
}

#[tokio::test]
async fn a_user_and_their_teams_are_told() {
    let world = World::new().await;
    let bob = world.user("bob").await;
    team(&world, &world.ada, "lab").await;
    join(&world, &world.ada, "lab", "bob", &bob, Role::Member).await;
    let user = data(
        &world,
        &bob,
        "{ getUser { username isVerified completedSignup isBlocked } }",
        json!({}),
    )
    .await;
    assert_eq!(
        user["getUser"],
        json!({ "username": "bob", "isVerified": true, "completedSignup": true, "isBlocked": false })
    );
    let teams = data(
        &world,
        &bob,
        "{ getUserTeams { success teams { name role createdAt members { username } } } }",
        json!({}),
    )
    .await;
    let teams = teams["getUserTeams"]["teams"].as_array().expect("teams");
    let lab = teams.iter().find(|team| team["name"] == "lab");
    let lab = lab.expect("her team");
    assert_eq!(lab["role"], "member");
    assert_eq!(
        lab["members"],
        json!([{ "username": "ada" }, { "username": "bob" }])
    );
    let created = lab["createdAt"].as_str().expect("text");
    assert!(created.ends_with("000+00:00"), "{created}");
}

#[tokio::test]
async fn an_experiment_is_found_described_and_read() {
    let world = World::new().await;
    let bob = world.user("bob").await;
    team(&world, &world.ada, "lab").await;
    join(&world, &world.ada, "lab", "bob", &bob, Role::Member).await;
    let eve = world.user("eve").await;
    let mut run = super::world::new_run("talk", &["--name", "it's"]);
    run["team"] = json!("lab");
    world.post(&world.ada, "/runs", &run).await.ok();
    let find = "query ($experimentName: String!, $username: String) { getExperimentId(experimentName: $experimentName, username: $username) { success message experimentId } }";
    let found = data(
        &world,
        &bob,
        find,
        json!({ "experimentName": "talk-exp0", "username": "ada" }),
    )
    .await;
    let id = found["getExperimentId"]["experimentId"].clone();
    for (person, name) in [(&eve, "talk-exp0"), (&bob, "talk-exp7")] {
        let none = data(
            &world,
            person,
            find,
            json!({ "experimentName": name, "username": "ada" }),
        )
        .await;
        assert_eq!(none["getExperimentId"]["success"], false);
        let words = none["getExperimentId"]["message"].as_str().expect("text");
        assert!(words.contains("Cannot find experiment"), "{words}");
    }
    let details = "query ($experimentId: ID!) { getExperimentDetails(experimentId: $experimentId) { name status desiredState entrypoint invocationCommands startedRunningAt finishedAt run { name } parameters { name value } } }";
    let of = json!({ "experimentId": id });
    let told = data(&world, &bob, details, of.clone()).await;
    assert_eq!(
        told["getExperimentDetails"],
        json!({
            "name": "talk-exp0", "status": "queued", "desiredState": "succeeded",
            "entrypoint": "true", "invocationCommands": "true --name 'it'\"'\"'s'",
            "startedRunningAt": null, "finishedAt": null, "run": { "name": "talk" },
            "parameters": [{ "name": "name", "value": "it's" }],
        })
    );
    let hidden = refused(&world, &eve, details, of.clone()).await;
    assert!(hidden.starts_with("no experiment"), "{hidden}");
    let mut runner = Runner::new(&world);
    let attempt = runner.launch(&world).await;
    runner
        .write_to(&world, &attempt, "build", Source::Platform, "made\n")
        .await;
    runner
        .write(&world, &attempt, Source::Stdout, "one\ntwo\n")
        .await;
    runner.end(&world, &attempt).await;
    let logs = "query ($experimentId: ID!, $start: DateTime, $stop: DateTime) { getExperimentLogs(experimentId: $experimentId, start: $start, stop: $stop) { success lines { message timestamp } } getBuildLogs(experimentId: $experimentId) { message } }";
    let read = data(&world, &bob, logs, of).await;
    let line =
        |text: &str| json!({ "message": text, "timestamp": "2023-11-14T22:13:20.000000+00:00" });
    assert_eq!(
        read["getExperimentLogs"]["lines"],
        json!([line("one\n"), line("two\n")])
    );
    assert_eq!(read["getBuildLogs"], json!([{ "message": "made\n" }]));
    let before = json!({ "experimentId": id, "stop": "2022-01-01T00:00:00Z" });
    let none = data(&world, &bob, logs, before).await;
    assert_eq!(none["getExperimentLogs"]["lines"], json!([]));
    let nonsense = json!({ "experimentId": id, "stop": "yesterday" });
    let said = refused(&world, &bob, logs, nonsense).await;
    assert!(said.contains("RFC 3339"), "{said}");
}

#[tokio::test]
async fn ssh_keys_are_added_listed_and_removed() {
    let world = World::new().await;
    let add = "mutation ($publicKey: String!, $name: String!) { addSSHPublicKey(name: $name, publicKey: $publicKey) { message success id } }";
    let list = "query ($limit: Int!) { getPublicSSHKeys(limit: $limit) { id publicKey name } }";
    let remove = "mutation ($id: ID!) { deleteSSHPublicKey(id: $id) { message success } }";
    let variables = json!({ "publicKey": KEY, "name": "mykey" });
    let added = data(&world, &world.ada, add, variables.clone()).await;
    let id = added["addSSHPublicKey"]["id"].clone();
    let twice = refused(&world, &world.ada, add, variables.clone()).await;
    assert!(twice.contains("already, as 'mykey'"), "{twice}");
    let listed = data(&world, &world.ada, list, json!({ "limit": 100 })).await;
    assert_eq!(
        listed["getPublicSSHKeys"],
        json!([{ "id": id, "publicKey": KEY, "name": "mykey" }])
    );
    let bob = world.user("bob").await;
    let others = refused(&world, &bob, remove, json!({ "id": id })).await;
    assert!(others.contains("no SSH key"), "{others}");
    data(&world, &world.ada, remove, json!({ "id": id })).await;
    // A key for reading adds nothing that opens doors.
    let body = json!({ "name": "look", "scope": "read" });
    let narrow = world.post(&world.ada, "/user/keys", &body).await.ok();
    let text = |value: &Value| value.as_str().expect("text").to_owned();
    let reader = Person::User {
        id: text(&narrow["user_id"]),
        key: text(&narrow["api_key"]),
    };
    let said = refused(&world, &reader, add, variables).await;
    assert!(said.contains("scope 'read'"), "{said}");
    data(&world, &reader, list, json!({ "limit": 1 })).await;
}

#[tokio::test]
async fn older_clients_add_and_list_credentials() {
    let world = World::new().await;
    let add = "mutation ($provider: String! $credentials: JSONString! $alias: String $description: String) { createCloudCredential (properties: { provider: $provider credentials: $credentials alias: $alias description: $description }) { success message } }";
    let list = "query { getUserCredentials { credentialId provider alias createdAt lastUsedAt defaultCredential } }";
    let file = json!({ "AccessKeyId": "AKIA", "SecretAccessKey": "a-secret" }).to_string();
    let variables = json!({ "provider": "aws", "credentials": file, "alias": "Lab" });
    let added = data(&world, &world.ada, add, variables).await;
    assert_eq!(added["createCloudCredential"]["success"], true);
    let listed = data(&world, &world.ada, list, json!({})).await;
    assert_eq!(listed["getUserCredentials"][0]["alias"], "lab");
    for file in ["nonsense a-secret", "{}"] {
        let variables = json!({ "provider": "aws", "credentials": file });
        let said = refused(&world, &world.ada, add, variables).await;
        assert!(!said.contains("a-secret"), "{said}");
    }
    let choose = "mutation ($credentialId: ID! $isDefault: Boolean) { updateCloudCredential (credentialId: $credentialId isDefault: $isDefault) { success message } }";
    let variables = json!({ "credentialId": "x", "isDefault": true });
    refused(&world, &world.ada, choose, variables).await;
}

#[tokio::test]
async fn who_is_not_signed_in_is_told_in_the_clients_words() {
    let world = World::new().await;
    let Person::User { id, .. } = &world.ada else {
        panic!("a user")
    };
    let wrong = Person::User {
        id: id.clone(),
        key: "00000000-0000-4000-8000-000000000000".to_owned(),
    };
    for person in [Person::Nobody, wrong] {
        // Without `data` and `errors`: the client then says that one is not signed in.
        let answer = ask(&world, &person, "{ getUser { username } }", json!({})).await;
        assert!(answer["error"].is_string(), "{answer}");
        assert_eq!(answer.as_object().map(serde_json::Map::len), Some(1));
    }
}

#[tokio::test]
async fn malformed_and_greedy_questions_are_refused() {
    let world = World::new().await;
    let ada = &world.ada;
    for (body, status) in [
        ("", 400),
        ("nonsense", 400),
        ("[]", 400),
        ("{\"query\": 1}", 400),
    ] {
        let answer = post(&world, ada, body).await;
        assert_eq!(answer.status, status, "{body}");
        assert!(answer.json()["errors"][0]["message"].is_string(), "{body}");
    }
    let long = json!({ "query": format!("{{ getUser {{ username }} }} #{}", "x".repeat(70_000)) });
    let answer = post(&world, ada, long.to_string()).await;
    assert_eq!(answer.status, 413);
    assert!(answer.json()["errors"].is_array());
    for (query, expected) in [
        ("{ getUser { username }", "expected"),
        ("{ getNothing }", "getNothing"),
        ("", "expected"),
        ("{ getExperimentDetails { name } }", "experimentId"),
    ] {
        let said = refused(&world, ada, query, json!({})).await;
        assert!(said.contains(expected), "{said}");
    }
    let deep = format!(
        "{{ __schema {{ types {}{{ name }}{} }} }}",
        "{ ofType ".repeat(20),
        " }".repeat(20)
    );
    let said = refused(&world, ada, &deep, json!({})).await;
    assert!(said.contains("too deep"), "{said}");
    let page = "getExperimentLogs(experimentId: \"x\") { lines { message } }";
    let many: String = (0..20).map(|n| format!("a{n}: {page} ")).collect();
    let said = refused(&world, ada, &format!("{{ {many} }}"), json!({})).await;
    assert!(said.contains("too complex"), "{said}");
    let circle = "{ getUser { ...A } } fragment A on User { ...B } fragment B on User { ...A }";
    refused(&world, ada, circle, json!({})).await;
}

#[tokio::test]
async fn reading_obeys_the_table() {
    use grid_core::access::{Action, Decision, may};
    use grid_core::team::{Sharing, TeamPolicy};
    let lab = super::matrix::Lab::new(World::new().await).await;
    lab.policy(Sharing::Creator).await;
    for asker in &lab.askers {
        let made = lab.make(asker, &format!("of-{}", asker.name)).await;
        let id = made["experiments"][0]["id"].as_str().expect("an id");
        for (field, action) in [
            ("getExperimentDetails", Action::SeeRun),
            ("getExperimentLogs", Action::ReadLogs),
            ("getBuildLogs", Action::ReadLogs),
        ] {
            let query = format!("{{ {field}(experimentId: \"{id}\") {{ __typename }} }}");
            let answer = ask(&lab.world, &asker.person, &query, json!({})).await;
            let decision = may(asker.relation, action, TeamPolicy::default());
            let may_read = matches!(decision, Decision::Allow | Decision::AllowAudited);
            let failed = answer.get("errors").is_some();
            assert_eq!(failed, !may_read, "{} {field}: {answer}", asker.name);
        }
    }
}

#[tokio::test]
async fn an_operator_who_looks_is_written_down() {
    let world = World::new().await;
    let bob = world.user("bob").await;
    team(&world, &bob, "lab").await;
    let mut run = super::world::new_run("talk", &[]);
    run["team"] = json!("lab");
    let made = world.post(&bob, "/runs", &run).await.ok();
    let id = made["experiments"][0]["id"].clone();
    let logs =
        "query ($experimentId: ID!) { getExperimentLogs(experimentId: $experimentId) { success } }";
    data(&world, &world.ada, logs, json!({ "experimentId": id })).await;
    let log = world.get(&bob, "/teams/lab/audit").await.ok();
    assert_eq!(log["events"][0]["action"], "run.logs");
    assert_eq!(log["events"][0]["actor"], "ada");
}
