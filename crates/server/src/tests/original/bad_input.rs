//! What no client should send.

use axum::body::Body;
use axum::http::{Method, Request, header};
use bytes::Bytes;
use futures::stream;
use grid_engine::ticket::{self, Purpose};
use serde_json::{Value, json};

use super::{ask, begin, code, get, new_run, post, put, refused, upload_path};
use crate::tests::world::{HOST, Person, Runner, World};

const RUNS: &str = "/v1/core/local/runs";

async fn raw(world: &World, text: impl Into<Body>) -> crate::tests::world::Answer {
    let Person::User { id, key } = &world.ada else {
        panic!("ada has a key")
    };
    let pair = base64::Engine::encode(&base64::prelude::BASE64_STANDARD, format!("{id}:{key}"));
    let request = Request::post(RUNS)
        .header(header::HOST, HOST)
        .header(header::CONTENT_TYPE, "application/json")
        .header(header::AUTHORIZATION, format!("Basic {pair}"));
    world
        .answer(request.body(text.into()).expect("a request"))
        .await
}

#[tokio::test]
async fn what_does_not_read_is_refused_in_the_clients_shape() {
    let world = World::new().await;
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    let nested = format!("{{\"spec\":{{\"extra\":{deep}}}}}");
    for text in ["{", "not json", "[]", "{\"localDir\":\"yes\"}", &nested] {
        refused(&raw(&world, text.to_owned()).await, 400);
    }
    refused(&raw(&world, vec![b' '; 5 << 20]).await, 413);
    for (field, value) in [
        ("runControllerCommand", json!(7)),
        ("runControllerCommand", json!("")),
        ("runControllerCommand", json!("train.py 'open")),
        ("sweepType", json!("guess")),
        ("resources", json!({ "cpu": "many" })),
        ("resources", json!({ "cpu": -1 })),
        ("resources", json!({ "cpu": 1e30 })),
        ("env", json!({ "A": [] })),
        ("env", json!({ "1A": "x" })),
        ("scratch", json!([{}, {}])),
        ("relativeWorkDir", json!("../..")),
        ("instanceType", json!("p9.huge")),
        ("actions", json!("rm")),
    ] {
        let mut body = new_run("odd", "train.py");
        body["spec"][field] = value.clone();
        let answer = post(&world, &world.ada, RUNS, &body).await;
        let text = refused(&answer, 400);
        assert!(!text.contains("panick"), "{field} {value}: {text}");
    }
    for name in ["Loud", "a-exp1", "", "x y", "-a"] {
        let mut body = new_run(name, "train.py");
        body["localDir"] = json!(true);
        let answer = post(&world, &world.ada, RUNS, &body).await;
        if name.is_empty() {
            // It gets one that is made up.
            assert_ne!(answer.ok()["name"], "");
        } else {
            refused(&answer, 400);
        }
    }
    let state = json!({ "spec": { "desiredState": "RUN_STATE_FLYING" } });
    let path = format!("{RUNS}/x");
    let answer = ask(&world, &world.ada, Method::PUT, &path, Some(&state)).await;
    refused(&answer, 400);
}

#[tokio::test]
async fn places_that_are_not_there_are_told_in_the_clients_shape() {
    let world = World::new().await;
    for path in [
        "/v1/core/nowhere/runs",
        "/v1/core/clusters/nowhere",
        "/v1/core/clusters/nowhere/instance-types",
        "/v1/core/sessions?clusterId=nowhere",
        "/v1/core/local/runs/01j9z3ndektsv4rrffq69g5fav",
        "/v1/core/local/experiments/%00",
        "/v1/core/local/nothing",
        "/v1/nothing",
    ] {
        let answer = ask(&world, &world.ada, Method::GET, path, None).await;
        refused(&answer, 404);
    }
    let answer = ask(&world, &world.ada, Method::PATCH, "/v1/core/clusters", None).await;
    refused(&answer, 405);
    let answer = ask(
        &world,
        &world.ada,
        Method::GET,
        &format!("{RUNS}?pageSize=x"),
        None,
    )
    .await;
    refused(&answer, 400);
    let answer = ask(
        &world,
        &world.ada,
        Method::GET,
        &format!("{RUNS}?pageToken=x"),
        None,
    )
    .await;
    refused(&answer, 400);
    let create = json!({ "name": "x", "spec": {} });
    for path in ["/v1/core/sessions", "/v1/core/clusters"] {
        let text = refused(&post(&world, &world.ada, path, &create).await, 501);
        assert!(text.contains("here") || text.contains("yet"), "{text}");
    }
}

#[tokio::test]
async fn an_upload_that_breaks_leaves_nothing_half_made() {
    let world = World::new().await;
    let begun = begin(&world, &world.ada, "torn", "train.py").await;
    let path = upload_path(&begun);
    let whole = code();
    let half = Bytes::copy_from_slice(&whole[..whole.len() / 2]);
    let cut = stream::iter([Ok(half), Err(std::io::Error::other("the line is dead"))]);
    let text = refused(&put(&world, &path, Body::from_stream(cut)).await, 400);
    assert!(text.contains("cut off"), "{text}");
    let truncated = put(&world, &path, whole[..whole.len() - 1].to_vec()).await;
    assert!(
        truncated.headers.get("etag").is_none(),
        "the client takes it for success"
    );
    refused(&truncated, 400);
    let id = begun["id"].as_str().expect("an id");
    let shown = get(&world, &world.ada, &format!("{RUNS}/{id}")).await;
    assert_eq!(shown["status"]["phase"], "RUN_STATE_FAILED");
    let torn = world.get(&world.ada, "/runs/torn").await.ok();
    assert_eq!(torn["run"]["upload"]["waiting"], false, "{torn}");
    let left = std::fs::read_dir(world.app.folder.tmp())
        .expect("a folder")
        .count();
    assert_eq!(left, 0, "nothing is left behind");
    put(&world, &path, whole).await.ok();
    let whole = world.get(&world.ada, "/runs/torn").await.ok();
    assert!(whole["run"].get("upload").is_none(), "{whole}");
}

#[tokio::test]
async fn three_gigabytes_are_refused_before_they_are_sent() {
    let world = World::new().await;
    let begun = begin(&world, &world.ada, "huge", "train.py").await;
    let never = stream::poll_fn(|_| -> std::task::Poll<Option<std::io::Result<Bytes>>> {
        panic!("nothing of it is read")
    });
    let request = Request::put(upload_path(&begun))
        .header(header::HOST, HOST)
        .header(header::CONTENT_LENGTH, 3_000_000_000_u64);
    let request = request.body(Body::from_stream(never)).expect("a request");
    let text = refused(&world.answer(request).await, 413);
    assert!(text.contains("2 GB"), "{text}");
}

#[tokio::test]
async fn three_gigabytes_that_nobody_announced_are_taken_and_dropped() {
    let world = World::new().await;
    let begun = begin(&world, &world.ada, "huge", "train.py").await;
    let piece = Bytes::from(vec![0; 1 << 20]);
    let pieces = (0..3_000).map(move |_| Ok::<_, std::io::Error>(piece.clone()));
    let body = Body::from_stream(stream::iter(pieces));
    let text = refused(&put(&world, &upload_path(&begun), body).await, 413);
    assert!(text.contains("2 GB"), "{text}");
    let left = std::fs::read_dir(world.app.folder.tmp());
    assert_eq!(left.expect("a folder").count(), 0, "nothing is left behind");
}

#[tokio::test]
async fn an_address_of_an_artifact_is_good_for_that_and_for_a_while() {
    let world = World::new().await;
    let made = world.run(&world.ada, "bert", &[]).await;
    let mut runner = Runner::new(&world);
    let attempt = runner.launch(&world).await;
    let files: [(&str, &[u8]); 2] = [("a.txt", b"a"), ("b.txt", b"b")];
    runner.leave(&world, &attempt, &files).await;
    let id = made["experiments"][0]["id"].as_str().expect("an id");
    let listed = format!("/v1/core/local/experiments/{id}/artifacts");
    let listed = get(&world, &world.ada, &listed).await;
    let url = listed["artifacts"][0]["url"].as_str().expect("an address");
    let path = url
        .strip_prefix(&format!("http://{HOST}"))
        .expect("of ours");
    let fetch = async |path: &str| ask(&world, &Person::Nobody, Method::GET, path, None).await;
    assert_eq!(&fetch(path).await.bytes[..], b"a");
    let (head, last) = path.split_at(path.len() - 1);
    let changed = format!("{head}{}", if last == "0" { "1" } else { "0" });
    for other in [changed, path.replace("/a.txt", "/b.txt"), head.to_owned()] {
        let text = refused(&fetch(&other).await, 403);
        assert!(text.contains("not one that this server gave out"), "{text}");
    }
    let Person::User { id: ada, key } = &world.ada else {
        panic!("ada has a key")
    };
    let engine = &world.app.engine;
    let caller = grid_engine::user::authenticate(engine, Some(ada), key).await;
    let purpose = Purpose::FetchArtifact(id.parse().expect("an id"), "a.txt".to_owned());
    let old = ticket::issue(engine, &caller.expect("ada"), &purpose, -1);
    let bare = path.split('?').next().expect("a path");
    let text = refused(&fetch(&format!("{bare}?ticket={}", old.text)).await, 403);
    assert!(text.contains("expired"), "{text}");
}

#[tokio::test]
async fn an_address_is_good_for_one_thing_and_for_a_while() {
    let world = World::new().await;
    let first = begin(&world, &world.ada, "first", "train.py").await;
    let second = begin(&world, &world.ada, "second", "train.py").await;
    let path = upload_path(&first);
    let id = |run: &Value| run["id"].as_str().expect("an id").to_owned();
    let elsewhere = path.replace(&id(&first), &id(&second));
    let (head, last) = path.split_at(path.len() - 1);
    let changed = format!("{head}{}", if last == "0" { "1" } else { "0" });
    let bare = path.split('?').next().expect("a path");
    for path in [elsewhere.as_str(), &changed, head, bare] {
        let text = refused(&put(&world, path, code()).await, 403);
        assert!(text.contains("not one that this server gave out"), "{text}");
    }
    let engine = &world.app.engine;
    let Person::User { id: ada, key } = &world.ada else {
        panic!("ada has a key")
    };
    let caller = grid_engine::user::authenticate(engine, Some(ada), key).await;
    let run = id(&first).parse().expect("an id");
    let old = ticket::issue(engine, &caller.expect("ada"), &Purpose::SendCode(run), -1);
    let expired = format!("{bare}?ticket={}", old.text);
    let text = refused(&put(&world, &expired, code()).await, 403);
    assert!(text.contains("expired"), "{text}");
    let sign_in = Person::Token(old.text);
    let answer = ask(&world, &sign_in, Method::GET, "/v1/auth/user", None).await;
    refused(&answer, 401);
    // With the key goes what was made with it.
    world
        .post(&world.ada, "/user/rotate-key", &json!({}))
        .await
        .ok();
    let text = refused(&put(&world, &path, code()).await, 403);
    assert!(text.contains("revoked"), "{text}");
}
