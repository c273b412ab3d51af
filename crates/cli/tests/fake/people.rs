//! Signing in, and what goes wrong with it.

use std::os::unix::fs::PermissionsExt as _;

use axum::Json;
use axum::Router;
use axum::http::StatusCode;
use axum::routing::{get, post};
use serde_json::{Value, json};

use super::support::Fake;

fn user() -> Value {
    json!({
        "user_id": "u-2", "username": "ada", "display_name": "Ada Lovelace", "email": null,
        "operator": true, "teams": [{ "team": "vision", "role": "admin" }],
        "created_at": "2026-11-22T05:50:30.000Z",
    })
}

async fn login(Json(body): Json<Value>) -> Result<Json<Value>, (StatusCode, Json<Value>)> {
    if body == json!({ "username": "ada", "api_key": "right" }) {
        return Ok(Json(json!({ "user": user() })));
    }
    let error = json!({ "error": {
        "code": "unauthenticated", "message": "this user name and key do not belong together",
        "hint": "ask whoever runs the server for a new key",
    } });
    Err((StatusCode::UNAUTHORIZED, Json(error)))
}

#[test]
fn login_remembers_who_and_where() {
    let fake = Fake::serve(Router::new().route("/auth/login", post(login)));
    let said = fake.grid(&[
        "login",
        "--url",
        &format!("{}/", fake.url),
        "--username",
        "ada",
        "--key",
        "right",
    ]);
    assert_eq!(said.ok().stdout, "Login successful. Welcome to Grid.\n");
    let path = fake.home.path().join(".grid/credentials.json");
    let kept: Value = serde_json::from_slice(&std::fs::read(&path).expect("kept")).expect("JSON");
    assert_eq!(kept, json!({ "UserID": "u-2", "APIKey": "right" }));
    assert_eq!(
        std::fs::metadata(&path)
            .expect("there")
            .permissions()
            .mode()
            & 0o777,
        0o600
    );
    let settings = std::fs::read(fake.home.path().join(".grid/settings.json")).expect("kept");
    let settings: Value = serde_json::from_slice(&settings).expect("JSON");
    assert_eq!(settings, json!({ "grid_url": fake.url, "theme": "dark" }));
}

#[test]
fn what_is_not_given_to_login_is_asked_for() {
    let fake = Fake::serve(Router::new().route("/auth/login", post(login)));
    let said = fake.grid_answering(&["login"], "ada\nright\n").ok();
    assert!(
        said.stderr.contains("Please provide your Grid API key:"),
        "{said:?}"
    );
    fake.grid(&["login", "--username", "ada"]).fails(2);
}

#[test]
fn a_wrong_key_is_refused_and_nothing_is_kept() {
    let fake = Fake::serve(Router::new().route("/auth/login", post(login)));
    let before = std::fs::read(fake.home.path().join(".grid/credentials.json")).expect("there");
    let said = fake
        .grid(&["login", "--username", "ada", "--key", "wrong"])
        .fails(1);
    assert_eq!(
        said.stderr,
        "error: this user name and key do not belong together\nhint: ask whoever runs the server for a new key\n"
    );
    let said = fake
        .grid(&["-o", "json", "login", "--username", "ada", "--key", "wrong"])
        .fails(1);
    let error: Value = serde_json::from_str(&said.stderr).expect("JSON");
    assert_eq!(error["error"]["code"], "unauthenticated");
    assert_eq!(
        std::fs::read(fake.home.path().join(".grid/credentials.json")).expect("there"),
        before
    );
}

#[test]
fn who_am_i() {
    let fake = Fake::serve(
        Router::new().route("/user", get(|| async { Json(json!({ "user": user() })) })),
    );
    let said = fake.grid(&["user"]).ok().stdout;
    for line in [
        "Display name    : Ada Lovelace",
        "UserID          : u-2",
        "  vision - admin",
    ] {
        assert!(said.contains(line), "{said}");
    }
    // The view as it is; fields that are added later do not matter here.
    let shown = fake.grid(&["user", "-o", "json"]).json();
    assert_eq!(shown["users"][0]["user_id"], "u-2");
    assert_eq!(shown["users"][0]["teams"], user()["teams"]);
    assert_eq!(
        fake.asked()[0].header("authorization"),
        Some("Basic dS0xOnNlY3JldA==")
    );
}

#[test]
fn a_new_key_replaces_the_old_one() {
    let key = json!({ "username": "ada", "user_id": "u-1", "api_key": "fresh" });
    let answer = key.clone();
    let fake =
        Fake::serve(Router::new().route("/user/rotate-key", post(|| async { Json(answer) })));
    assert_eq!(fake.grid(&["user", "rotate-key", "-o", "json"]).json(), key);
    let kept =
        std::fs::read_to_string(fake.home.path().join(".grid/credentials.json")).expect("kept");
    assert!(kept.contains("fresh"), "{kept}");
}

#[test]
fn something_else_that_answers_is_not_believed() {
    let fake = Fake::serve(
        Router::new().route("/user", get(|| async { (StatusCode::NOT_FOUND, "<html>") })),
    );
    let said = fake.grid(&["user"]).fails(1);
    assert!(
        said.stderr
            .contains("answered 404, but not as a Grid server does"),
        "{said:?}"
    );
}
