//! Tables of runs and experiments, and what is done to them.

use std::convert::Infallible;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::body::Body;
use axum::extract::{Path, RawQuery};
use axum::http::StatusCode;
use axum::routing::{delete, get, post};
use axum::{Json, Router};
use serde_json::{Value, json};

use super::support::{Fake, Ran, counts, experiment, run};

/// Two pages of runs, and a run of three experiments.
fn routes() -> Router {
    Router::new()
        .route(
            "/runs",
            get(|RawQuery(query): RawQuery| async move {
                let is_second = query.unwrap_or_default().contains("cursor=more");
                let runs = if is_second {
                    json!({ "runs": [run("second", &counts(0, 3, 1))] })
                } else {
                    json!({ "runs": [run("first", &counts(2, 1, 0))], "next": "more" })
                };
                Json(runs)
            }),
        )
        .route("/runs/{run}", get(|| async { Json(json!({ "run": run("first", &counts(1, 1, 1)) })) }))
        .route(
            "/runs/{run}/experiments",
            get(|| async {
                let mut failed = experiment("first", 1, "failed");
                failed["message"] = json!("killed by signal 9 (SIGKILL)");
                failed["parameters"] = json!([["lr", "0.1"], ["note", "hot dog"]]);
                Json(json!({ "experiments":
                    [experiment("first", 0, "succeeded"), failed, experiment("first", 2, "running")] }))
            }),
        )
}

#[test]
fn runs_of_all_pages_are_shown() {
    let fake = Fake::serve(routes());
    insta::assert_snapshot!(fake.grid(&["status"]).ok().stdout);
    assert_eq!(
        fake.lines(),
        [
            "GET /runs?active=true&limit=1000",
            "GET /runs?active=true&limit=1000&cursor=more"
        ]
    );
    let json = fake.grid(&["status", "-o", "json"]).json();
    let names: Vec<&Value> = json["runs"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|run| &run["name"])
        .collect();
    assert_eq!(names, ["first", "second"]);
    assert_eq!(json["runs"][0]["counts"], counts(2, 1, 0));
}

#[test]
fn a_list_for_the_team_names_the_creators() {
    let fake = Fake::serve(routes());
    let said = fake.grid(&["status", "--global"]).ok().stdout;
    assert!(said.contains("Created by"), "{said}");
    fake.grid(&["history", "--global", "bob", "--limit", "1"])
        .ok();
    let lines = fake.lines();
    assert_eq!(lines[0], "GET /runs?active=true&global=true&limit=1000");
    assert_eq!(
        lines[2],
        "GET /runs?active=false&global=true&created_by=bob&limit=1"
    );
}

#[test]
fn history_and_trash() {
    let fake = Fake::serve(routes());
    insta::assert_snapshot!(fake.grid(&["history"]).ok().stdout);
    let said = fake.grid(&["history", "--limit", "1"]).ok();
    assert!(said.stderr.contains("--limit N shows more"), "{said:?}");
    fake.grid(&["history", "--deleted"]).ok();
    assert_eq!(fake.lines()[3], "GET /runs?deleted=true&limit=100");
}

#[test]
fn experiments_have_a_column_for_each_parameter() {
    let fake = Fake::serve(routes());
    // The one that runs has no fixed duration.
    let said = fake.grid(&["status", "first"]).ok().stdout;
    let fixed: Vec<&str> = said
        .lines()
        .filter(|line| !line.contains("running "))
        .collect();
    insta::assert_snapshot!(fixed.join("\n"));
    let json = fake.grid(&["-o", "json", "status", "ada:first"]).json();
    let names: Vec<&Value> = json["experiments"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|e| &e["name"])
        .collect();
    assert_eq!(
        names,
        ["first-exp2", "first-exp1", "first-exp0"],
        "newest first"
    );
    assert_eq!(json["runs"][0]["name"], "first");
}

#[test]
fn a_reader_that_leaves_is_no_failure() {
    let fake = Fake::serve(routes());
    let mut command = fake.command(&["status"]);
    let mut child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("started");
    drop(child.stdout.take());
    let output = child.wait_with_output().expect("it ends");
    assert_eq!(
        (output.status.code(), output.stderr.as_slice()),
        (Some(0), &b""[..])
    );
}

#[test]
fn one_that_is_refused_does_not_keep_the_others() {
    let stop = |Path(name): Path<String>| async move {
        if name == "good" {
            return Ok(Json(
                json!({ "run": run("good", &counts(0, 1, 0)), "changed": 2 }),
            ));
        }
        let error = json!({ "error": { "code": "not_found", "message": format!("no run '{name}' of yours") } });
        Err((StatusCode::NOT_FOUND, Json(error)))
    };
    let fake = Fake::serve(Router::new().route("/runs/{run}/stop", post(stop)));
    let said = fake.grid(&["stop", "run", "bad", "good"]).fails(1);
    assert_eq!(said.stdout, "Stopping 2 experiments of run good\n");
    assert_eq!(said.stderr, "error: no run 'bad' of yours\n");
}

fn deletable() -> Fake {
    let gone = || async { Json(json!({ "run": run("first", &counts(0, 1, 0)) })) };
    Fake::serve(routes().route("/runs/{run}", delete(gone)))
}

#[test]
fn deleting_asks_and_names_the_creator() {
    let deleted = |fake: &Fake| fake.lines().iter().any(|line| line.starts_with("DELETE"));
    let check = |ran: Ran, fake: &Fake, expected: bool| {
        assert!(
            ran.stderr.contains("Run (first), created by ada"),
            "{ran:?}"
        );
        assert_eq!(deleted(fake), expected, "{ran:?}");
    };
    let fake = deletable();
    check(
        fake.grid_answering(&["delete", "run", "first"], "n\n").ok(),
        &fake,
        false,
    );
    check(
        fake.grid(&["delete", "run", "first"]).fails(1),
        &fake,
        false,
    );
    check(
        fake.grid_answering(&["delete", "run", "first"], "y\n").ok(),
        &fake,
        true,
    );

    let fake = deletable();
    let said = fake.grid(&["delete", "run", "first", "-y"]).ok();
    assert!(
        said.stdout
            .contains("Run first has been deleted successfully"),
        "{said:?}"
    );
    assert_eq!(fake.lines(), ["DELETE /runs/first"]);
}

#[test]
fn a_clone_is_told_what_changes() {
    let clone = |Json(body): Json<Value>| async move {
        let name = body["set"].as_array().map_or(0, Vec::len).to_string();
        Json(json!({ "run": run(&format!("clone-{name}"), &counts(1, 0, 0)), "experiments": [] }))
    };
    let fake = Fake::serve(Router::new().route("/runs/{run}/clone", post(clone)));
    let said = fake
        .grid(&[
            "clone", "first", "--name", "x", "--set", "--lr", "-1", "--set", "--flag",
        ])
        .ok();
    assert!(said.stdout.contains("clone-3"), "{said:?}");
}

#[test]
fn watching_reads_again_when_something_changes_and_ends_with_the_run() {
    let looks = Arc::new(AtomicUsize::new(0));
    let experiments = move || async move {
        let status = if looks.fetch_add(1, Ordering::SeqCst) < 2 {
            "running"
        } else {
            "succeeded"
        };
        Json(json!({ "experiments": [experiment("first", 0, status)] }))
    };
    let changes = || async {
        let events = futures::stream::iter(std::iter::repeat_n(
            Ok::<_, Infallible>("event: changed\ndata: {}\n\n"),
            3,
        ));
        Body::from_stream(futures::StreamExt::chain(
            events,
            futures::stream::pending(),
        ))
    };
    let routes = Router::new()
        .route(
            "/runs/{run}",
            get(|| async { Json(json!({ "run": run("first", &counts(1, 0, 0)) })) }),
        )
        .route("/runs/{run}/experiments", get(experiments))
        .route("/changes", get(changes));
    let fake = Fake::serve(routes);
    let said = fake
        .grid(&["-o", "json", "status", "first", "--watch"])
        .ok();
    let statuses: Vec<Value> = said
        .stdout
        .lines()
        .map(|line| {
            serde_json::from_str::<Value>(line).expect("JSON")["experiments"][0]["status"].clone()
        })
        .collect();
    assert_eq!(
        statuses,
        ["running", "succeeded"],
        "what did not change is not printed again"
    );
    assert_eq!(
        fake.lines()[0],
        "GET /changes",
        "it listens before it looks"
    );
}
