//! Submitting: what is sent, what is not sent twice, and what makes one run only.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use axum::body::Bytes;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::{post, put};
use axum::{Json, Router};
use grid_api::blob::{HEADER_BYTES, parse_header};
use serde_json::{Value, json};

use super::support::{Fake, counts, experiment, run};

/// What the server has, and what it was told.
#[derive(Default)]
struct Store {
    blobs: BTreeSet<String>,
    snapshots: Vec<Value>,
    runs: Vec<Value>,
    /// How many submits get no proper answer.
    busy: usize,
}

type Shared = Arc<Mutex<Store>>;

async fn snapshot(State(store): State<Shared>, Json(tree): Json<Value>) -> Json<Value> {
    let mut store = store.lock().expect("not poisoned");
    let files = tree["entries"]
        .as_array()
        .into_iter()
        .flatten()
        .filter(|entry| entry["kind"] == "file");
    let missing: Vec<Value> = files
        .map(|entry| entry["content"].clone())
        .filter(|content| !store.blobs.contains(content.as_str().unwrap_or_default()))
        .collect();
    let id = missing.is_empty().then_some("01g40mbzw89j19p20000000000");
    store.snapshots.push(tree);
    Json(json!({ "snapshot": id, "missing": missing }))
}

async fn blobs(State(store): State<Shared>, body: Bytes) -> Json<Value> {
    let mut rest = &body[..];
    let mut stored = 0;
    while let Some((head, after)) = rest.split_at_checked(HEADER_BYTES) {
        let (hash, length) = parse_header(head.try_into().expect("as long as a header"));
        let (bytes, after) = after.split_at(usize::try_from(length).expect("small"));
        assert_eq!(
            blake3::hash(bytes).as_bytes(),
            &hash,
            "the record is what it says"
        );
        let name = blake3::Hash::from_bytes(hash).to_hex().to_string();
        store.lock().expect("not poisoned").blobs.insert(name);
        stored += 1;
        rest = after;
    }
    assert!(rest.is_empty(), "no half record");
    Json(json!({ "stored": stored }))
}

async fn create(
    State(store): State<Shared>,
    Json(body): Json<Value>,
) -> Result<Json<Value>, StatusCode> {
    let mut store = store.lock().expect("not poisoned");
    if store.busy > 0 {
        store.busy -= 1;
        return Err(StatusCode::SERVICE_UNAVAILABLE);
    }
    let mut made = run(
        body["name"].as_str().unwrap_or("made-up-1"),
        &counts(2, 0, 0),
    );
    made["spec"] = body["spec"].clone();
    store.runs.push(body);
    let experiments = [
        experiment("made-up-1", 0, "queued"),
        experiment("made-up-1", 1, "queued"),
    ];
    Ok(Json(
        json!({ "run": made, "experiments": experiments, "warnings": ["use_spot has no effect here"] }),
    ))
}

fn serve() -> (Fake, Shared) {
    let store = Shared::default();
    let routes = Router::new()
        .route("/snapshots", post(snapshot))
        .route("/blobs", put(blobs))
        .route("/runs", post(create))
        .with_state(Arc::clone(&store));
    (Fake::serve(routes), store)
}

#[test]
fn code_is_sent_once_and_runs_say_where_it_is() {
    let (fake, store) = serve();
    std::fs::write(fake.work().join("train.py"), "print(1)").expect("written");
    std::fs::write(fake.work().join("copy.py"), "print(1)").expect("written");
    std::fs::create_dir(fake.work().join("empty")).expect("made");
    let said = fake
        .grid(&[
            "run",
            "-l",
            "--name",
            "bert-1",
            "train.py",
            "--lr",
            "[0.1, 0.2]",
        ])
        .ok();
    insta::assert_snapshot!(said.stdout);
    assert_eq!(said.stderr, "warning: use_spot has no effect here\n");
    assert_eq!(
        fake.lines(),
        [
            "POST /snapshots",
            "PUT /blobs",
            "POST /snapshots",
            "POST /runs"
        ]
    );
    fake.grid(&["run", "-l", "train.py"]).ok();
    assert_eq!(
        fake.lines()[4..],
        ["POST /snapshots", "POST /runs"],
        "the same tree is not sent again"
    );

    let store = store.lock().expect("not poisoned");
    let paths: Vec<&Value> = store.snapshots[0]["entries"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|entry| &entry["path"])
        .collect();
    assert_eq!(paths, ["copy.py", "empty", "train.py"]);
    let sent = &store.runs[0];
    assert_eq!(sent["invocation"], "grid run train.py --lr '[0.1, 0.2]'");
    assert_eq!(
        sent["spec"]["command"],
        json!(["train.py", "--lr", "[0.1, 0.2]"])
    );
    assert_eq!(
        sent["spec"]["source"],
        json!({ "kind": "snapshot", "id": "01g40mbzw89j19p20000000000", "git": null })
    );
    assert_eq!(sent["project"], "work");
}

#[test]
fn a_submit_without_an_answer_is_sent_again_under_the_same_key() {
    let (fake, store) = serve();
    store.lock().expect("not poisoned").busy = 2;
    fake.grid(&["run", "-l", "--", "true"]).ok();
    let keys: Vec<String> = fake
        .asked()
        .iter()
        .filter(|asked| asked.line.ends_with("/runs"))
        .filter_map(|asked| asked.header("idempotency-key").map(str::to_owned))
        .collect();
    assert_eq!(keys.len(), 3);
    assert!(
        keys.iter().all(|key| *key == keys[0] && key.len() == 32),
        "{keys:?}"
    );
    fake.grid(&["run", "-l", "--", "true"]).ok();
    let last = fake
        .asked()
        .last()
        .and_then(|asked| asked.header("idempotency-key").map(str::to_owned));
    assert_ne!(
        last.as_deref(),
        Some(keys[0].as_str()),
        "another submit is another run"
    );
}

#[test]
fn a_dry_run_sends_no_code() {
    let (fake, store) = serve();
    std::fs::write(fake.work().join("train.py"), "print(1)").expect("written");
    let said = fake
        .grid(&["run", "--dry-run", "-l", "train.py", "--lr", "[0.1, 0.2]"])
        .ok();
    insta::assert_snapshot!(said.stdout);
    assert_eq!(fake.lines(), ["POST /runs"]);
    assert_eq!(store.lock().expect("not poisoned").runs[0]["dry_run"], true);
}

#[test]
fn the_server_clones_what_it_is_told_to() {
    let (fake, store) = serve();
    fake.grid(&[
        "run",
        "--git",
        "https://git.example.org/ada/bert#v1",
        "train.py",
    ])
    .ok();
    assert_eq!(fake.lines(), ["POST /runs"]);
    let store = store.lock().expect("not poisoned");
    assert_eq!(
        store.runs[0]["spec"]["source"],
        json!({ "kind": "git", "url": "https://git.example.org/ada/bert", "reference": "v1" })
    );
    assert_eq!(store.runs[0]["project"], "ada/bert");
}

#[test]
fn json_has_the_run_and_its_experiments() {
    let (fake, _) = serve();
    let json = fake.grid(&["-o", "json", "run", "-l", "--", "true"]).json();
    assert_eq!(json["runs"][0]["name"], "made-up-1");
    assert_eq!(json["experiments"].as_array().map(Vec::len), Some(2));
    assert_eq!(json["warnings"], json!(["use_spot has no effect here"]));
}

#[test]
fn old_spellings_are_warned_about() {
    let (fake, _) = serve();
    let said = fake
        .grid(&[
            "run",
            "-l",
            "--grid_name",
            "x",
            "--",
            "true",
            "--grid_cpus",
            "1",
        ])
        .ok();
    assert!(
        said.stderr
            .contains("warning: --grid_name is called --name now\n"),
        "{said:?}"
    );
    assert!(
        !said.stderr.contains("grid_cpus"),
        "what follows the script is the script's: {said:?}"
    );
}

#[test]
fn arguments_that_are_not_utf8_are_refused() {
    use std::os::unix::ffi::OsStrExt as _;
    let (fake, _) = serve();
    let mut command = fake.command(&["run", "-l"]);
    let output = command
        .arg(std::ffi::OsStr::from_bytes(b"caf\xe9.py"))
        .output()
        .expect("started");
    assert_eq!(output.status.code(), Some(2));
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        said.starts_with("error: the argument 'caf\u{fffd}.py' is not UTF-8"),
        "{said}"
    );
}
