//! What the client was seen to send, sent again: every answer has the status and the fields
//! without which the client fails.

use axum::http::Method;
use serde_json::{Value, json};

use super::{ask, begin, code, get, post, put, upload_path};
use crate::tests::world::{Answer, Person, World};

/// Requests of the client, each once; ids and keys are written `{run}`, `{key}` and so on.
const RECORDED: &str = include_str!("recorded.jsonl");

const RUN: &str = "id name createdAt spec.sourceCode spec.datastores spec.scratch \
     spec.desiredState spec.image spec.resources spec.clusterId spec.userId status.phase \
     status.experimentIds status.experimentCounts.pending";
const EXPERIMENT: &str = "id name createdAt spec.command spec.desiredState spec.image status.phase";
const DATASTORE: &str = "id name createdAt spec.clusterId spec.version spec.sizeMib spec.userId \
     spec.sourceType status.phase";
const CLUSTER: &str = "id name createdAt spec.desiredState status.phase \
     spec.driver.kubernetes.aws.instanceTypes";

/// What must be in the answer to a request: fields, and in which list; the status is 200.
fn expected(method: &str, path: &str) -> Option<(&'static str, &'static str)> {
    let parts: Vec<&str> = path.trim_start_matches('/').split('/').collect();
    Some(match (method, parts.as_slice()) {
        ("POST", ["v1", "auth", "login"]) => ("", "token"),
        ("GET", ["v1", "auth", "user"]) => ("", "id username"),
        ("GET", ["v1", "core", "clusters"]) => ("clusters", CLUSTER),
        ("GET", ["v1", "core", "clusters", _]) => ("", CLUSTER),
        ("GET", [.., "instance-types"]) => ("instanceTypes", "name cpu gpu memory hourlyCost spot"),
        ("GET", ["v1", "core", "sessions"]) => ("sessions", ""),
        ("GET", ["v1", "core", _, "runs"]) => ("runs", RUN),
        ("POST", ["v1", "core", _, "runs"]) | ("GET" | "PUT", ["v1", "core", _, "runs", _]) => {
            ("", RUN)
        }
        ("GET", ["v1", "core", _, "experiments"]) => ("experiments", EXPERIMENT),
        ("GET" | "PUT", ["v1", "core", _, "experiments", _]) => ("", EXPERIMENT),
        ("GET", [.., "artifacts"]) => ("artifacts", "filename url sizeBytes lastModified"),
        ("GET", ["v1", "core", _, "credentials"]) => (
            "credentials",
            "id type credential creationTimestamp clusterId userId",
        ),
        ("POST", ["v1", "core", _, "credentials"]) => ("", "id credential"),
        ("GET", ["v1", "core", _, "datastores"]) => ("datastores", DATASTORE),
        ("GET", ["v1", "core", _, "datastores", _]) => ("", DATASTORE),
        ("POST", [.., "presigned-urls"]) => ("objects", "key uploadId partCount expiryTime urls"),
        ("POST", ["v1", "core", _, "datastores", _, "completed"]) => ("", ""),
        (
            "DELETE",
            [
                "v1",
                "core",
                _,
                "runs" | "experiments" | "credentials" | "datastores",
                _,
            ],
        ) => ("", ""),
        _ => return None,
    })
}

/// Checks that the fields are there and not null.
#[track_caller]
fn has_fields(value: &Value, fields: &str, what: &str) {
    for field in fields.split_whitespace() {
        let found = field.split('.').fold(value, |value, part| &value[part]);
        assert!(!found.is_null(), "{what}: no {field} in {value}");
    }
}

#[track_caller]
fn check(method: &str, path: &str, answer: &Answer, what: &str) {
    let Some((list, fields)) = expected(method, path) else {
        // What is not there yet, or is not done by a client, is refused in its shape.
        let status = answer.status.as_u16();
        assert!(matches!(status, 400 | 404 | 501), "{what}: {status}");
        super::refused(answer, status);
        return;
    };
    let text = String::from_utf8_lossy(&answer.bytes);
    assert_eq!(answer.status.as_u16(), 200, "{what}: {text}");
    let body = answer.json();
    if list.is_empty() {
        has_fields(&body, fields, what);
        return;
    }
    let items = body[list]
        .as_array()
        .unwrap_or_else(|| panic!("{what}: {body}"));
    for item in items {
        has_fields(item, fields, what);
    }
    match list {
        "clusters" => assert_eq!(body["defaultCluster"], "local", "{what}"),
        "instanceTypes" | "objects" => {}
        _ => assert_eq!(body["nextPageToken"], "", "{what}"),
    }
}

/// What the placeholders stand for.
struct Known {
    user: String,
    key: String,
    run: String,
    experiment: String,
    datastore: String,
}

impl Known {
    /// A run that is there, whole, for whatever is done to it next.
    async fn new(world: &World, name: &str) -> Self {
        let Person::User { id, key } = world.ada.clone() else {
            panic!("ada has a key")
        };
        let begun = begin(world, &world.ada, name, "train.py --lr '[1,2]'").await;
        put(world, &upload_path(&begun), code()).await.ok();
        let run = begun["id"].as_str().expect("an id").to_owned();
        let shown = get(world, &world.ada, &format!("/v1/core/local/runs/{run}")).await;
        let experiment = shown["status"]["experimentIds"][0].as_str();
        let new = json!({ "name": name,
            "spec": { "sourceType": "DATASTORE_SOURCE_TYPE_EXPANDED_FILES" } });
        let path = "/v1/core/local/datastores";
        let store = post(world, &world.ada, path, &new).await.ok();
        Self {
            datastore: store["id"].as_str().expect("an id").to_owned(),
            user: id,
            key,
            experiment: experiment.expect("an id").to_owned(),
            run,
        }
    }

    fn fill(&self, text: &str) -> String {
        let none = "01h00000000000000000000000";
        text.replace("{user}", &self.user)
            .replace("{key}", &self.key)
            .replace("{run}", &self.run)
            .replace("{experiment}", &self.experiment)
            .replace("{session}", none)
            .replace(
                "datastores/{datastore}",
                &format!("datastores/{}", self.datastore),
            )
            .replace("{datastore}", none)
            // Nobody is asked for what is fetched.
            .replace("//example.com/", "//data.invalid/")
            .replace("s3://bucket/dir/", "s3://")
    }
}

#[tokio::test]
async fn what_the_client_was_seen_to_send_is_answered_as_it_reads() {
    // As the server does at its start: some of it begins to fetch.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let world = World::new().await;
    let mut credential = String::new();
    let mut answered = 0;
    for (n, line) in RECORDED.lines().enumerate() {
        // What stops or deletes must not spoil the next one.
        let known = Known::new(&world, &format!("known-{n}")).await;
        let line = known.fill(line).replace("{credential}", &credential);
        let row: Value = serde_json::from_str(&line).expect("JSON");
        let (method, path) = (
            row["method"].as_str().expect("a method"),
            row["path"].as_str().expect("a path"),
        );
        let query = row["query"]
            .as_array()
            .expect("a query")
            .iter()
            .map(|pair| {
                let value = pair[1].as_str().expect("a value");
                let value = grid_api::client::segment(value);
                format!("{}={value}", pair[0].as_str().expect("a name"))
            });
        let address = format!("{path}?{}", query.collect::<Vec<_>>().join("&"));
        let body = Some(&row["body"]).filter(|body| !body.is_null());
        let method_of: Method = method.parse().expect("a method");
        let answer = ask(&world, &world.ada, method_of, &address, body).await;
        let what = format!("row {n}: {method} {address}");
        if row["body"]["apiKey"] == "wrong" {
            super::refused(&answer, 401);
            continue;
        }
        // There is no such repository, nor such data, nor such a machine.
        let is_elsewhere = row["body"]["spec"]["sourceCode"]
            .as_str()
            .is_some_and(|code| method == "POST" && code.starts_with("https:"));
        if is_elsewhere {
            let status = answer.status.as_u16();
            assert!(matches!(status, 400 | 404), "{what}: {status}");
            super::refused(&answer, status);
            continue;
        }
        if method == "POST" && path.ends_with("/datastores") && answer.status.is_success() {
            // Other sources are not there, or are none.
            has_fields(&answer.json(), DATASTORE, &what);
        } else {
            check(method, path, &answer, &what);
        }
        answered += 1;
        if method == "POST" && path.ends_with("/credentials") {
            answer.json()["id"]
                .as_str()
                .unwrap_or_default()
                .clone_into(&mut credential);
        }
    }
    assert!(answered > 70, "only {answered} rows");
}

#[tokio::test]
async fn every_list_is_a_list_and_ends() {
    let world = World::new().await;
    for (path, list) in [
        ("/v1/core/prod-2/runs", "runs"),
        ("/v1/core/local/experiments", "experiments"),
        ("/v1/core/sessions?clusterId=local", "sessions"),
        ("/v1/core/local/datastores?available=True", "datastores"),
        ("/v1/core/local/credentials", "credentials"),
    ] {
        let body = get(&world, &world.ada, path).await;
        assert_eq!(body[list], json!([]), "{path}");
        assert_eq!(body["nextPageToken"], "", "{path}");
    }
}

#[tokio::test]
async fn runs_come_in_pages_for_those_who_ask() {
    let world = World::new().await;
    for n in 0..5 {
        world.run(&world.ada, &format!("r{n}"), &[]).await;
    }
    let (mut token, mut found) = (String::new(), Vec::new());
    for _ in 0..5 {
        let path = format!("/v1/core/local/runs?pageSize=2&pageToken={token}");
        let page = get(&world, &world.ada, &path).await;
        let runs = page["runs"].as_array().expect("runs").iter();
        found.extend(runs.map(|run| run["name"].as_str().expect("a name").to_owned()));
        page["nextPageToken"]
            .as_str()
            .expect("a token")
            .clone_into(&mut token);
        if token.is_empty() {
            break;
        }
    }
    assert_eq!(found, ["r4", "r3", "r2", "r1", "r0"]);
    let all = get(&world, &world.ada, "/v1/core/local/runs").await;
    assert_eq!(all["runs"].as_array().map(Vec::len), Some(5));
}
