//! Artifacts: fetched, resumed, checked, and kept inside the folder.

use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::Response;
use axum::routing::{get, post};
use axum::{Json, Router};
use serde_json::{Value, json};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::support::{Fake, counts, experiment, files, run};

type Files = Vec<(&'static str, &'static str)>;

/// Serves these files, whatever their paths say.  The first `torn` answers break off.
#[derive(Clone)]
struct Stored {
    files: Arc<Files>,
    torn: Arc<AtomicUsize>,
}

fn view(path: &str, text: &str) -> Value {
    json!({
        "path": path, "size_bytes": text.len(), "blake3": blake3::hash(text.as_bytes()).to_hex().to_string(),
        "mode": 0o755, "modified_ms": 1_700_000_000_000_i64,
    })
}

async fn fetch(
    State(stored): State<Stored>,
    Path((_, path)): Path<(String, String)>,
    headers: HeaderMap,
) -> Response {
    let Some((_, text)) = stored.files.iter().find(|(name, _)| *name == path) else {
        return Response::builder()
            .status(StatusCode::NOT_FOUND)
            .body(Body::empty())
            .expect("built");
    };
    let range = headers
        .get(header::RANGE)
        .and_then(|value| value.to_str().ok());
    let from: usize = range
        .and_then(|range| range.strip_prefix("bytes="))
        .and_then(|range| range.strip_suffix('-'))
        .and_then(|from| from.parse().ok())
        .unwrap_or(0);
    let status = if from > 0 {
        StatusCode::PARTIAL_CONTENT
    } else {
        StatusCode::OK
    };
    let rest = text.as_bytes()[from..].to_vec();
    let tear = stored
        .torn
        .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |torn| {
            torn.checked_sub(1)
        })
        .is_ok();
    let body = if tear {
        let half = rest[..rest.len() / 2].to_vec();
        let broken = std::io::Error::other("torn");
        Body::from_stream(futures::stream::iter([Ok(half), Err(broken)]))
    } else {
        Body::from(rest)
    };
    Response::builder()
        .status(status)
        .body(body)
        .expect("built")
}

fn routes(files: Files, torn: usize) -> Router {
    let stored = Stored {
        files: Arc::new(files),
        torn: Arc::new(AtomicUsize::new(torn)),
    };
    let list = |State(stored): State<Stored>| async move {
        let views: Vec<Value> = stored
            .files
            .iter()
            .map(|(path, text)| view(path, text))
            .collect();
        Json(json!({ "artifacts": views }))
    };
    Router::new()
        .route(
            "/runs/{run}",
            get(|| async { Json(json!({ "run": run("first", &counts(0, 2, 0)) })) }),
        )
        .route(
            "/runs/{run}/experiments",
            get(|| async {
                let all = [
                    experiment("first", 0, "succeeded"),
                    experiment("first", 1, "succeeded"),
                ];
                Json(json!({ "experiments": all }))
            }),
        )
        .route(
            "/experiments/{experiment}",
            get(|| async { Json(json!({ "experiment": experiment("first", 0, "succeeded") })) }),
        )
        .route("/experiments/{experiment}/artifacts", get(list))
        .route("/experiments/{experiment}/artifacts/{*path}", get(fetch))
        .with_state(stored)
}

fn names(found: &[(String, String)]) -> Vec<&str> {
    found.iter().map(|(name, _)| name.as_str()).collect()
}

#[test]
fn files_lie_where_the_original_put_them() {
    let fake = Fake::serve(routes(
        vec![
            ("a.txt", "alpha"),
            ("dir x/100% ünï.ckpt", ""),
            ("b.ckpt", "beta"),
        ],
        0,
    ));
    let said = fake.grid(&["artifacts", "first"]).ok();
    assert!(
        said.stdout
            .starts_with("6 files, 18 B downloaded to ./grid_artifacts"),
        "{said:?}"
    );
    let found = files(&fake.work().join("grid_artifacts"));
    assert_eq!(
        names(&found),
        [
            ".gitignore",
            "first/first-exp0/a.txt",
            "first/first-exp0/b.ckpt",
            "first/first-exp0/dir x/100% ünï.ckpt",
            "first/first-exp1/a.txt",
            "first/first-exp1/b.ckpt",
            "first/first-exp1/dir x/100% ünï.ckpt",
        ]
    );
    fake.grid(&[
        "artifacts",
        "ada:first-exp0",
        "-m",
        r"\.ckpt$",
        "--download_dir",
        "some",
    ])
    .ok();
    assert_eq!(
        names(&files(&fake.work().join("some"))),
        ["first-exp0/b.ckpt", "first-exp0/dir x/100% ünï.ckpt"]
    );
}

#[test]
fn what_is_there_and_right_is_not_fetched_again() {
    let fake = Fake::serve(routes(vec![("a.txt", "alpha"), ("b.txt", "beta")], 0));
    fake.grid(&["artifacts", "first-exp0", "--download_dir", "d"])
        .ok();
    // Of the same size, but not the same.
    std::fs::write(fake.work().join("d/first-exp0/b.txt"), "BETA").expect("written");
    let json = fake
        .grid(&[
            "artifacts",
            "first-exp0",
            "--download_dir",
            "d",
            "-o",
            "json",
        ])
        .json();
    let status: Vec<&Value> = json["artifacts"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|a| &a["status"])
        .collect();
    assert_eq!(status, ["unchanged", "replaced"]);
    assert_eq!(files(&fake.work().join("d"))[1].1, "beta");
}

#[test]
fn a_torn_download_goes_on_where_it_was() {
    // So large that its first half is on its way before the connection breaks.
    let text: &str = "0123456789".repeat(200_000).leak();
    let fake = Fake::serve(routes(vec![("a.txt", text)], 1));
    fake.grid(&["artifacts", "first-exp0", "--download_dir", "d"])
        .ok();
    let found = files(&fake.work().join("d"));
    assert_eq!(names(&found), ["first-exp0/a.txt"]);
    assert!(found[0].1 == text, "whole and right");
    let ranges: Vec<Option<String>> = fake
        .asked()
        .iter()
        .filter(|asked| asked.line.ends_with("a.txt"))
        .map(|asked| asked.header("range").map(str::to_owned))
        .collect();
    assert_eq!(ranges.first(), Some(&None));
    assert!(
        ranges.len() == 2
            && ranges[1]
                .as_deref()
                .is_some_and(|range| range.starts_with("bytes=")),
        "{ranges:?}"
    );
}

#[test]
fn a_wrong_beginning_is_not_gone_on_with() {
    let fake = Fake::serve(routes(vec![("a.txt", "0123456789")], 6));
    // Every try breaks off, so a beginning is left; then it is damaged.
    fake.grid(&["artifacts", "first-exp0", "--download_dir", "d"])
        .fails(1);
    let left = files(&fake.work().join("d"));
    assert!(left.len() == 1 && left[0].0.ends_with(".part"), "{left:?}");
    std::fs::write(fake.work().join("d").join(&left[0].0), "XX").expect("written");
    let said = fake.grid(&["artifacts", "first-exp0", "--download_dir", "d"]);
    let said = if said.code == Some(1) {
        said
    } else {
        panic!("{said:?}")
    };
    assert!(
        said.stderr.contains("what came is not the file"),
        "{said:?}"
    );
    fake.grid(&["artifacts", "first-exp0", "--download_dir", "d"])
        .ok();
    assert_eq!(
        files(&fake.work().join("d")),
        [("first-exp0/a.txt".to_owned(), "0123456789".to_owned())]
    );
}

#[test]
fn nothing_is_written_outside_the_folder() {
    let bad = vec![
        ("../up.txt", "x"),
        ("/abs.txt", "x"),
        ("a/../../up2.txt", "x"),
        ("good.txt", "fine"),
    ];
    let fake = Fake::serve(routes(bad, 0));
    let outside = tempfile::tempdir().expect("a folder");
    let said = fake
        .grid(&["artifacts", "first-exp0", "--download_dir", "d"])
        .fails(1);
    assert_eq!(
        said.stderr.matches("would leave the folder").count(),
        3,
        "{said:?}"
    );
    assert_eq!(
        names(&files(&fake.work())),
        ["d/first-exp0/good.txt"],
        "the good one is there"
    );

    std::fs::create_dir(fake.work().join("e")).expect("made");
    std::os::unix::fs::symlink(outside.path(), fake.work().join("e/first-exp0")).expect("linked");
    let said = fake
        .grid(&[
            "artifacts",
            "first-exp0",
            "--download_dir",
            "e",
            "-m",
            "good",
        ])
        .fails(1);
    assert!(said.stderr.contains("a link is in the way"), "{said:?}");
    assert!(files(outside.path()).is_empty());
}

#[test]
fn links_for_others() {
    let make = |Json(body): Json<Value>| async move {
        let links: Vec<Value> = body["paths"]
            .as_array()
            .into_iter()
            .flatten()
            .map(|path| json!({ "path": path, "url": "http://h/signed", "expires_at": "2026-11-23T05:50:30.000Z" }))
            .collect();
        Json(json!({ "links": links }))
    };
    let routes = routes(vec![("a.txt", "alpha"), ("b.txt", "beta")], 0)
        .route("/experiments/{experiment}/artifact-links", post(make));
    let fake = Fake::serve(routes);
    let json = fake
        .grid(&[
            "artifacts",
            "first-exp0",
            "--link",
            "-m",
            "^b",
            "-o",
            "json",
        ])
        .json();
    assert_eq!(
        json,
        json!({ "links": [{
            "experiment": "first-exp0", "path": "b.txt", "url": "http://h/signed",
            "expires_at": "2026-11-23T05:50:30.000Z",
        }] })
    );
    assert!(files(&fake.work()).is_empty());
}

#[test]
fn ctrl_c_leaves_no_file_half() {
    let (begun, beginning) = std::sync::mpsc::channel();
    let begun = Arc::new(std::sync::Mutex::new(begun));
    let never = move || async move {
        // The first half comes, the second never does.
        let text = futures::stream::iter([Ok::<_, std::io::Error>("0123456789".repeat(50_000))]);
        begun
            .lock()
            .expect("not poisoned")
            .send(())
            .expect("the test waits");
        Body::from_stream(futures::StreamExt::chain(text, futures::stream::pending()))
    };
    let list = json!({ "artifacts": [view("a.txt", &"0123456789".repeat(100_000))] });
    let routes = Router::new()
        .route(
            "/experiments/{experiment}",
            get(|| async { Json(json!({ "experiment": experiment("first", 0, "succeeded") })) }),
        )
        .route(
            "/experiments/{experiment}/artifacts",
            get(|| async { Json(list) }),
        )
        .route("/experiments/{experiment}/artifacts/{*path}", get(never));
    let fake = Fake::serve(routes);
    let mut command = fake.command(&["artifacts", "first-exp0", "--download_dir", "d"]);
    let child = command
        .stderr(std::process::Stdio::piped())
        .spawn()
        .expect("started");
    beginning.recv().expect("the download began");
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).expect("sent");
    let output = child.wait_with_output().expect("it ends");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(
        said.contains("interrupted: what was fetched so far is there"),
        "{said}"
    );
    let left = files(&fake.work().join("d"));
    assert!(
        left.iter().all(|(name, _)| name.ends_with(".part")),
        "{:?}",
        names(&left)
    );
}
