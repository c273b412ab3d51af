//! Logs: printed, followed, and followed over a connection that breaks.

use axum::extract::{RawQuery, State};
use axum::http::{HeaderMap, header};
use axum::response::IntoResponse;
use axum::routing::get;
use axum::{Json, Router};
use serde_json::{Value, json};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::support::{Fake, experiment};

fn line(text: &str, partial: bool) -> Value {
    let mut line = json!({
        "stream": "experiment", "attempt": 1, "at": "2026-11-22T05:50:31.000Z", "source": "stdout", "text": text,
    });
    if partial {
        line["partial"] = json!(true);
    }
    line
}

fn event(kind: &str, id: &str, data: &Value) -> String {
    format!("event: {kind}\nid: {id}\ndata: {data}\n\n")
}

/// A line that is still written has no place to resume from.
fn partial(data: &Value) -> String {
    format!("event: log\ndata: {data}\n\n")
}

/// The first connection breaks in the middle of a progress bar.
async fn follow(State(calls): State<Arc<AtomicUsize>>, headers: HeaderMap) -> impl IntoResponse {
    let call = calls.fetch_add(1, Ordering::SeqCst);
    let status = json!({ "status": "pending", "message": "installing requirements.txt" });
    let resumed = headers.get("last-event-id").and_then(|id| id.to_str().ok());
    let body = match (call, resumed) {
        (0, None) => format!(
            "event: status\ndata: {status}\n\n{}{}{}",
            event("log", "1", &line("one", false)),
            event("log", "2", &line("two", false)),
            partial(&line(" 10%", true)),
        ),
        (1, Some("2")) => format!(
            ": hello\n\n{}{}{}",
            partial(&line(" 90%", true)),
            event("log", "3", &line("100%", false)),
            event("end", "4", &json!({ "status": "succeeded" })),
        ),
        other => event(
            "log",
            "9",
            &line(&format!("asked wrongly: {other:?}"), false),
        ),
    };
    ([(header::CONTENT_TYPE, "text/event-stream")], body)
}

fn routes() -> Router {
    let pages = |RawQuery(query): RawQuery| async move {
        let query = query.unwrap_or_default();
        Json(match query {
            query if query.contains("stream=build") => json!({ "lines": [] }),
            query if query.contains("cursor=2") => {
                json!({ "lines": [line(" 50%", true)], "next": "2" })
            }
            query if query.contains("cursor=1") => {
                json!({ "lines": [line("two", false), line(" 50%", true)], "next": "2" })
            }
            _ => json!({ "lines": [line("one", false)], "next": "1" }),
        })
    };
    Router::new()
        .route(
            "/experiments/{experiment}",
            get(|| async { Json(json!({ "experiment": experiment("first", 0, "running") })) }),
        )
        .route("/experiments/{experiment}/logs", get(pages))
        .route("/experiments/{experiment}/logs/follow", get(follow))
        .with_state(Arc::new(AtomicUsize::new(0)))
}

#[test]
fn a_log_is_printed_as_far_as_it_goes() {
    let fake = Fake::serve(routes());
    let said = fake.grid(&["logs", "first-exp0"]).ok();
    assert_eq!(
        said.stdout,
        "[experiment] [2026-11-22T05:50:31.000Z] one\n\
         [experiment] [2026-11-22T05:50:31.000Z] two\n\
         [experiment] [2026-11-22T05:50:31.000Z]  50%\n"
    );
    let json = fake
        .grid(&["logs", "first-exp0", "-o", "json", "--show-build-logs"])
        .json();
    let texts: Vec<&Value> = json["lines"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|line| &line["text"])
        .collect();
    assert_eq!(texts, ["one", "two", " 50%"]);
    fake.grid(&["logs", "first-exp0", "-l", "7"]).ok();
    let tailed = fake.lines().into_iter().find(|line| line.contains("tail"));
    assert_eq!(
        tailed.as_deref(),
        Some("GET /experiments/id-first-0/logs?stream=experiment&tail=7&limit=10000")
    );
    // More than the server gives at a time: all is read, and the end of it is shown.
    let begun = fake.lines().len();
    let said = fake.grid(&["logs", "first-exp0", "-l", "20000"]).ok();
    assert!(
        said.stdout
            .ends_with(" two\n[experiment] [2026-11-22T05:50:31.000Z]  50%\n")
    );
    let mut asked = fake.lines().split_off(begun);
    asked.retain(|line| line.contains("/logs?"));
    assert!(
        asked.len() > 1 && !asked.iter().any(|line| line.contains("tail")),
        "{asked:?}"
    );
}

#[test]
fn a_broken_connection_is_made_again_where_it_was() {
    let fake = Fake::serve(routes());
    let said = fake
        .grid(&["logs", "-f", "first-exp0", "--tail_lines", "5"])
        .ok();
    assert_eq!(
        said.stdout,
        "[experiment] [2026-11-22T05:50:31.000Z] one\n\
         [experiment] [2026-11-22T05:50:31.000Z] two\n\
         [experiment] [2026-11-22T05:50:31.000Z] 100%\n",
        "nothing is missing, nothing comes twice, and a pipe gets no half of a line"
    );
    let pending = "Experiment is pending. Logs will be available when experiment starts. (installing requirements.txt)";
    assert!(said.stderr.contains(pending), "{said:?}");
    assert!(
        said.stderr.contains("connection to the server was lost"),
        "{said:?}"
    );
    assert!(
        said.stderr.contains("Experiment first-exp0: succeeded"),
        "{said:?}"
    );
    let asked = fake.asked();
    assert!(
        asked[1].line.ends_with("?stream=experiment&tail=5"),
        "{asked:?}"
    );
    assert!(asked[2].line.ends_with("?stream=experiment"), "{asked:?}");
    assert_eq!(asked[2].header("last-event-id"), Some("2"));
}

#[test]
fn what_is_followed_as_json_is_one_object_a_line() {
    let fake = Fake::serve(routes());
    let said = fake.grid(&["-o", "json", "logs", "-f", "first-exp0"]).ok();
    let texts: Vec<Value> = said
        .stdout
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).expect("JSON")["text"].clone())
        .collect();
    assert_eq!(texts, ["one", "two", "100%"]);
}
