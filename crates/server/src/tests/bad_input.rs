//! What is not understood is refused in one envelope, with a clear line.

use axum::Router;
use axum::body::Body;
use axum::http::{Method, Request, header};
use axum::routing::get;
use serde_json::json;
use tower::ServiceExt;
use tower_http::catch_panic::CatchPanicLayer;

use super::world::{World, new_run};
use crate::extract::BODY_BYTES_MAX;

/// Method, path, body; the status and what the answer says.
const REFUSED: &[(&str, &str, &str, u16, &str)] = &[
    ("GET", "/nothing", "", 404, "nothing at /api/v1/nothing"),
    ("GET", "/runs/none-such", "", 404, "no run 'none-such'"),
    ("GET", "/runs/%FF", "", 400, "/runs/%FF"),
    ("PATCH", "/runs", "", 405, "does not take PATCH"),
    ("DELETE", "/runs/here/stop", "", 405, "does not take DELETE"),
    (
        "GET",
        "/runs?colour=red",
        "",
        400,
        "no query parameter 'colour'",
    ),
    ("GET", "/runs?limit=0", "", 400, "1 to 1000"),
    ("GET", "/runs?limit=1001", "", 400, "1 to 1000"),
    ("GET", "/runs?limit=x", "", 400, "limit"),
    ("GET", "/runs?active=maybe", "", 400, "active"),
    ("GET", "/runs?cursor=abc", "", 400, "cursor"),
    (
        "GET",
        "/runs?state=sad",
        "",
        400,
        "'sad' is none of: queued",
    ),
    ("GET", "/runs?state=failed,", "", 400, "state"),
    ("GET", "/runs?state=", "", 400, "state"),
    ("GET", "/runs?since=yesterday", "", 400, "since"),
    ("GET", "/runs/here?x=1", "", 400, "no query parameter 'x'"),
    (
        "POST",
        "/runs/here/stop?force=1",
        "",
        400,
        "no query parameter 'force'",
    ),
    ("GET", "/runs/here/experiments?status=sad", "", 400, "sad"),
    (
        "GET",
        "/runs/here/experiments?cursor=cjE",
        "",
        400,
        "cursor",
    ),
    ("GET", "/experiments/here-exp9", "", 404, "here-exp9"),
    (
        "GET",
        "/datastores/cats:1/files/..%2fa",
        "",
        400,
        "'../a' is not the path of a file in a version",
    ),
    (
        "GET",
        "/experiments/here-exp0/logs?tail=1&cursor=1:0",
        "",
        400,
        "not for both",
    ),
    (
        "GET",
        "/experiments/here-exp0/logs?cursor=zero",
        "",
        400,
        "'zero' is not a place",
    ),
    (
        "GET",
        "/experiments/here-exp0/logs?stream=other",
        "",
        400,
        "other",
    ),
    (
        "GET",
        "/experiments/here-exp0/logs?tail=10001",
        "",
        400,
        "10000",
    ),
    (
        "GET",
        "/experiments/here-exp0/artifacts/a/../b",
        "",
        400,
        "a/../b",
    ),
    (
        "GET",
        "/experiments/here-exp0/artifacts/..%2F..%2Fsecret",
        "",
        400,
        "../../secret",
    ),
    (
        "GET",
        "/experiments/here-exp0/artifacts//etc/passwd",
        "",
        400,
        "/etc/passwd",
    ),
    ("POST", "/users", "{", 400, "EOF"),
    ("POST", "/users", "{\"username\": 5}", 400, "string"),
    (
        "POST",
        "/users",
        "{\"username\": \"bob\", \"age\": 5}",
        400,
        "unknown field `age`",
    ),
    ("POST", "/users", "", 400, "missing field `username`"),
    ("POST", "/users", "{\"username\": \"Böb!\"}", 400, "name"),
    (
        "POST",
        "/runs",
        "{\"invocation\": \"x\"}",
        400,
        "missing field `spec`",
    ),
    (
        "POST",
        "/runs/here/clone",
        "{\"sett\": []}",
        400,
        "unknown field `sett`",
    ),
    ("POST", "/runs/here/restore", "", 409, "not in the trash"),
    ("POST", "/runs/here/retry", "", 409, "no experiment"),
    (
        "POST",
        "/experiments/here-exp0/artifact-links",
        "{\"paths\": [\"none\"]}",
        404,
        "no artifact 'none'",
    ),
    (
        "GET",
        "/links/x.1.y/model.pt",
        "",
        404,
        "link does not work",
    ),
    (
        "POST",
        "/auth/login",
        "{\"username\": \"ada\", \"api_key\": \"wrong\"}",
        401,
        "wrong",
    ),
];

#[tokio::test]
async fn a_request_that_makes_no_sense_is_told_so() {
    let world = World::new().await;
    world.run(&world.ada, "here", &[]).await;
    let longest = "x".repeat(300);
    for (method, path, body, status, says) in REFUSED {
        let request = world.ada.request(method.parse().expect("a method"), path);
        let request = request
            .header(header::CONTENT_TYPE, "application/json")
            .header("idempotency-key", "k");
        let answer = world
            .answer(request.body(Body::from(*body)).expect("a request"))
            .await;
        let text = answer.refused(*status);
        assert!(text.contains(says), "{method} {path}: {text}");
    }
    let request = world
        .ada
        .request(Method::POST, "/runs")
        .header("idempotency-key", longest);
    let request = request.header(header::CONTENT_TYPE, "application/json");
    let body = Body::from(new_run("named", &[]).to_string());
    assert!(
        world
            .answer(request.body(body).expect("a request"))
            .await
            .refused(400)
            .contains("255")
    );
}

#[tokio::test]
async fn only_json_that_says_so_is_read() {
    let world = World::new().await;
    for kind in [
        None,
        Some("text/plain"),
        Some("application/x-www-form-urlencoded"),
    ] {
        let mut request = world.ada.request(Method::POST, "/users");
        if let Some(kind) = kind {
            request = request.header(header::CONTENT_TYPE, kind);
        }
        let body = Body::from(json!({ "username": "eve" }).to_string());
        let answer = world.answer(request.body(body).expect("a request")).await;
        assert!(
            answer
                .refused(400)
                .contains("Content-Type: application/json"),
            "{kind:?}"
        );
    }
}

#[tokio::test]
async fn a_body_that_is_too_large_is_refused_with_the_limit() {
    let world = World::new().await;
    let large = json!({ "username": "x".repeat(BODY_BYTES_MAX) }).to_string();
    let said = world
        .ada
        .request(Method::POST, "/users")
        .header(header::CONTENT_LENGTH, large.len());
    let pieces = large
        .as_bytes()
        .chunks(1 << 16)
        .map(|piece| Ok::<_, std::io::Error>(piece.to_vec()));
    let pieces: Vec<_> = pieces.collect();
    let unsaid = world.ada.request(Method::POST, "/users");
    for request in [
        said.body(Body::from(large)).expect("a request"),
        unsaid
            .body(Body::from_stream(futures::stream::iter(pieces)))
            .expect("a request"),
    ] {
        let answer = world.answer(request).await;
        assert!(answer.refused(413).contains("1 MiB"));
    }
}

#[tokio::test]
async fn an_endless_sweep_is_refused_with_its_size() {
    let world = World::new().await;
    let answer = world
        .post(
            &world.ada,
            "/runs",
            &new_run("big", &["--a", "range(1000)", "--b", "range(1000)"]),
        )
        .await;
    let status = answer.status.as_u16();
    let text = answer.refused(status);
    assert!(
        matches!(status, 400 | 413) && text.contains("1,000,000"),
        "{status} {text}"
    );
    assert!(
        world.get(&world.ada, "/runs").await.ok()["runs"]
            .as_array()
            .expect("a list")
            .is_empty()
    );
}

#[tokio::test]
async fn a_bug_in_a_handler_is_one_answer() {
    async fn buggy() {
        let text = "a secret detail";
        assert!(text.is_empty(), "{text}");
    }
    let router: Router = Router::new()
        .route("/buggy", get(buggy))
        .layer(CatchPanicLayer::custom(crate::rest::panicked));
    let request = Request::builder()
        .uri("/buggy")
        .body(Body::empty())
        .expect("a request");
    let response = router.oneshot(request).await.expect("an answer");
    assert_eq!(response.status(), 500);
    let bytes = axum::body::to_bytes(response.into_body(), usize::MAX)
        .await
        .expect("a body");
    let text = String::from_utf8_lossy(&bytes);
    assert!(
        text.contains("\"internal\"") && !text.contains("secret detail"),
        "{text}"
    );
}
