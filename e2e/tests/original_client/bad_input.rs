//! What a client must not send, and what comes of it: an answer in words, and a server that
//! goes on.

use std::collections::HashSet;

use grid_e2e::original::{NEWEST, Person, raw};
use grid_e2e::{Server, wait_for};
use raw::{Socket, Wire, ask, experiment_id};
use serde_json::{Value, json};

use crate::{settled, two_teams};

/// Most subscriptions that are opened on one socket here.
const MANY: usize = 10_000;

/// As the client asks for a run whose code it will send.
fn run_request(name: &str) -> Value {
    json!({ "localDir": true, "name": name, "spec": {
        "actions": {}, "autoResume": false, "clusterId": "local",
        "desiredState": "RUN_STATE_SUCCEEDED", "dryRun": false, "env": {},
        "image": { "framework": "lightning" }, "instanceType": "m5a.large",
        "resources": { "cpu": 0, "extra": {}, "gpu": 0, "storageGb": 100 },
        "runControllerCommand": "hello.sh ",
        "scratch": [{ "mountPath": "/tmp/scratch", "sizeGb": 100 }],
        "sweepOptions": {}, "sweepType": "grid_search", "useSpot": false } })
}

/// Asks for a run; answers with its id and where its code goes, below the server's address.
fn ask_for_run(person: &Person<'_>, server: &Server, name: &str) -> (String, String) {
    let answer = ask(person, "POST", "/v1/core/local/runs", &run_request(name));
    let json = answer.json();
    assert_eq!(answer.status, 200, "{json}");
    let url = json["status"]["uploadUrl"].as_str().expect("an address");
    let path = url.strip_prefix(&server.url).expect("of this server");
    (
        json["id"].as_str().expect("an id").to_owned(),
        path.to_owned(),
    )
}

/// A folder with `hello.sh`, packed as the client packs it.
fn packed(server: &Server) -> Vec<u8> {
    let folder = server.folder.path().join("packed");
    std::fs::create_dir_all(&folder).expect("a folder");
    std::fs::write(folder.join("hello.sh"), "#!/bin/bash\necho hello\n").expect("written");
    let output = std::process::Command::new("tar")
        .args(["-czf", "-", "-C"])
        .arg(&folder)
        .arg(".")
        .output()
        .expect("tar starts");
    assert!(output.status.success());
    output.stdout
}

fn put(server: &Server, path: &str, body: &[u8]) -> raw::Answer {
    let mut wire = Wire::open(&server.url).expect("a connection");
    wire.ask("PUT", path, &[], body).expect("an answer")
}

/// A refusal says what happened in the words that the client shows.
#[track_caller]
fn refused(answer: &raw::Answer, status: u16) -> String {
    let json = answer.json();
    assert_eq!(
        answer.status,
        status,
        "{}",
        String::from_utf8_lossy(&answer.body)
    );
    let details = json["details"].as_array().expect("details");
    let shown = details
        .first()
        .map_or(&json["message"], |one| &one["message"]);
    let shown = shown.as_str().expect("words").to_owned();
    assert!(!shown.is_empty(), "{json}");
    shown
}

#[test]
fn code_that_does_not_arrive_whole_is_not_run() {
    let server = two_teams();
    let ada = Person::new(&server, "ada", NEWEST);
    let code = packed(&server);
    let (id, path) = ask_for_run(&ada, &server, "torn");
    {
        let mut wire = Wire::open(&server.url).expect("a connection");
        let half = &code[..code.len() / 2];
        wire.send("PUT", &path, &[], code.len(), half)
            .expect("sent");
    }
    let shown = || {
        ask(
            &ada,
            "GET",
            &format!("/v1/core/local/runs/{id}"),
            &Value::Null,
        )
        .json()
    };
    // The reason is shown, and the code may be sent again.
    let torn = wait_for("the server to see that no more comes", || {
        let run = shown();
        (run["status"]["phase"] == "RUN_STATE_FAILED").then_some(run)
    });
    let why = torn["status"]["message"].as_str().expect("a reason");
    assert!(why.contains("cut off"), "{why}");
    assert_eq!(torn["status"]["experimentIds"], json!([]), "{torn}");
    // What is no archive is said to be none, and the right one may still come.
    let garbage = put(&server, &path, b"this is no archive");
    assert!(!refused(&garbage, 400).is_empty());
    let answer = put(&server, &path, &code);
    assert_eq!(
        answer.status,
        200,
        "{}",
        String::from_utf8_lossy(&answer.body)
    );
    assert!(answer.header("etag").is_some_and(|etag| !etag.is_empty()));
    settled(&server, "torn");
    assert_eq!(shown()["status"]["phase"], "RUN_STATE_SUCCEEDED");
    assert_eq!(server.log_text("torn-exp0"), "hello");
    server.doctor();
}

#[test]
fn an_address_is_good_for_what_it_was_made_for() {
    let server = two_teams();
    let ada = Person::new(&server, "ada", NEWEST);
    let code = packed(&server);
    let (_, path) = ask_for_run(&ada, &server, "first");
    let (_, other) = ask_for_run(&ada, &server, "second");
    // Any change of it makes it nobody's.
    let (head, last) = path.split_at(path.len() - 1);
    let changed = format!("{head}{}", if last == "0" { "1" } else { "0" });
    let ticket = |path: &str| path.split_once('?').expect("a ticket").1.to_owned();
    let place = |path: &str| path.split_once('?').expect("a ticket").0.to_owned();
    let foreign = format!("{}?{}", place(&other), ticket(&path));
    let later = path.replacen("=t1.", "=t1.f", 1);
    assert_ne!(later, path);
    for path in [changed.as_str(), head, &foreign, &later, &place(&path)] {
        let answer = put(&server, path, &code);
        let text = String::from_utf8_lossy(&answer.body);
        assert!(
            (400..500).contains(&answer.status),
            "{path}: {} {text}",
            answer.status
        );
        assert!(
            answer.header("etag").is_none(),
            "the client takes it for success"
        );
    }
    // Three gigabytes are refused before they are sent.
    let mut wire = Wire::open(&server.url).expect("a connection");
    wire.send("PUT", &path, &[], 3_000_000_000, b"")
        .expect("sent");
    let answer = wire.answer().expect("an answer");
    assert_eq!(
        answer.status,
        413,
        "{}",
        String::from_utf8_lossy(&answer.body)
    );
    assert_eq!(put(&server, &path, &code).status, 200);
    // Once used it brings no second code into a run that has begun.
    settled(&server, "first");
    let again = put(&server, &path, &code);
    assert!((200..500).contains(&again.status));
    assert_eq!(server.experiments("first").len(), 1);
    assert_eq!(put(&server, &other, &code).status, 200);
    settled(&server, "second");
    server.doctor();
}

#[test]
fn requests_that_make_no_sense_are_told_so() {
    let server = two_teams();
    let ada = Person::new(&server, "ada", NEWEST);
    let runs = "/v1/core/local/runs";
    for (what, spec) in [
        (
            "a number as a command",
            json!({ "runControllerCommand": 7 }),
        ),
        ("no command", json!({ "runControllerCommand": "" })),
        (
            "an unknown strategy",
            json!({ "runControllerCommand": "a.sh", "sweepType": "guess" }),
        ),
        (
            "a sweep without end",
            json!({
            "runControllerCommand": "a.sh --a [1,2,3,4,5,6,7,8,9] --b range(0,1000000,1)",
            "sweepType": "grid_search" }),
        ),
    ] {
        let body = json!({ "localDir": true, "name": "odd", "spec": spec });
        let answer = ask(&ada, "POST", runs, &body);
        assert!(!refused(&answer, 400).contains("panick"), "{what}");
    }
    for path in [
        "/v1/core/nowhere/runs",
        "/v1/core/local/runs/01J9Z3NDEKTSV4RRFFQ69G5FAV",
        "/v1/core/local/experiments/01J9Z3NDEKTSV4RRFFQ69G5FAV",
        "/v1/core/local/experiments/%00",
        "/v1/core/local/runs/../../../etc/passwd",
        "/v1/core/clusters/nowhere",
    ] {
        let answer = ask(&ada, "GET", path, &Value::Null);
        assert_eq!(
            answer.status,
            404,
            "{path}: {}",
            String::from_utf8_lossy(&answer.body)
        );
    }
    for query in [
        "{ getUser",
        "{ noSuchField }",
        &format!(
            "{{ __schema {{ types {{ {} name {} }} }} }}",
            "fields { type { ".repeat(12),
            "} }".repeat(12)
        ),
        &format!("{{ {} }}", "getUserTeams { success } ".repeat(5000)),
        &"{ a ".repeat(20_000),
    ] {
        let answer = ask(&ada, "POST", "/graphql", &json!({ "query": query }));
        let json = answer.json();
        assert!(
            json["errors"][0]["message"].is_string(),
            "{query:.40}: {json}"
        );
    }
    let mut wire = Wire::open(&server.url).expect("a connection");
    let answer = wire
        .ask("POST", "/graphql", &[], b"{ not json")
        .expect("an answer");
    assert!(answer.status < 500, "{}", answer.status);
    assert!(ada.login().ok().contains("successful"), "it goes on");
}

#[test]
fn sockets_have_limits() {
    let server = two_teams();
    let ada = Person::signed_in(&server, "ada");
    ada.file(
        "wait.sh",
        "#!/bin/bash\nwhile true; do echo here; sleep 0.1; done\n",
    );
    ada.types("run -l --name busy wait.sh");
    server.reaches("busy-exp0", "running");
    let id = experiment_id(&ada, "busy-exp0");
    for protocol in ["graphql-transport-ws", "graphql-ws"] {
        // One that never says who it is, and one that lies about it.
        let mut silent = Socket::open(&server.url, protocol).expect("a socket");
        let mut liar = Socket::open(&server.url, protocol).expect("a socket");
        let payload = json!({ "X-Grid-User": "ada", "X-Grid-Key": "wrong" });
        liar.send(&json!({ "type": "connection_init", "payload": payload }))
            .expect("sent");
        while let Some(said) = liar.hear().expect("it is closed") {
            assert_ne!(said["type"], "connection_ack");
        }
        let before = Socket::open(&server.url, protocol).map(|mut early| {
            early.follow("1", &id).expect("sent");
            while let Some(said) = early.hear().expect("it is closed") {
                assert_ne!(said["type"], "next", "nobody said who it is");
                assert_ne!(said["type"], "data", "nobody said who it is");
            }
        });
        before.expect("a socket");
        while let Some(said) = silent.hear().expect("it is closed in time") {
            assert_ne!(said["type"], "connection_ack");
        }
    }
    // Far more than anybody needs: what is too much is refused, or the socket is closed.
    let mut greedy = Socket::of(&ada, "graphql-transport-ws").expect("acknowledged");
    let sent = (0..MANY)
        .take_while(|n| greedy.follow(&n.to_string(), &id).is_ok())
        .count();
    // It has not read a word so far, which is nobody else's concern.
    let answer = ask(&ada, "GET", "/v1/core/local/runs", &Value::Null);
    assert_eq!(answer.status, 200, "{}", answer.json());
    let (mut served, mut refused) = (HashSet::new(), HashSet::new());
    while served.len() + refused.len() < sent {
        let Ok(Some(said)) = greedy.hear() else { break };
        let id = said["id"].to_string();
        let errors = &said["payload"]["errors"];
        if errors.is_array() || said["type"] == "error" {
            assert!(
                said.to_string().contains("questions on this socket"),
                "{said}"
            );
            refused.insert(id);
        } else if said["type"] == "next" {
            served.insert(id);
        }
    }
    assert!(served.len() < 100, "{} of {sent} were served", served.len());
    assert!(
        refused.len() > MANY / 2 || sent < MANY,
        "{} were refused",
        refused.len()
    );
    drop(greedy);
    // Whoever behaves is still served.
    let mut decent = Socket::of(&ada, "graphql-transport-ws").expect("acknowledged");
    decent.follow("1", &id).expect("sent");
    let said = decent.hear().expect("a line").expect("a line");
    assert_eq!(said["type"], "next", "{said}");
    ada.types("stop run busy");
    wait_for("the end of the stream", || {
        let said = decent.hear().ok()?;
        said.is_none_or(|said| said["type"] == "complete")
            .then_some(())
    });
    server.doctor();
}
