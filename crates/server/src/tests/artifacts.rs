//! Code in, artifacts out.

use axum::body::Body;
use axum::http::Method;
use serde_json::{Value, json};

use super::world::{Person, Runner, World};

/// A world in which an experiment has left files.
async fn left() -> World {
    let world = World::new().await;
    world.run(&world.ada, "make", &[]).await;
    let mut runner = Runner::new(&world);
    let attempt = runner.launch(&world).await;
    let large = vec![5_u8; 700_000];
    let files: [(&str, &[u8]); 4] = [
        ("a b/100%.txt", b"hundred"),
        ("empty", b""),
        ("large.bin", &large),
        ("model.pt", b"0123456789"),
    ];
    runner.leave(&world, &attempt, &files).await;
    runner.end(&world, &attempt).await;
    world
}

#[tokio::test]
async fn artifacts_are_listed_and_downloaded() {
    let world = left().await;
    let path = "/experiments/make-exp0/artifacts";
    let first = world.get(&world.ada, &format!("{path}?limit=3")).await.ok();
    let paths = |page: &Value| -> Vec<String> {
        let all = page["artifacts"].as_array().expect("a list").iter();
        all.map(|one| one["path"].as_str().expect("a path").to_owned())
            .collect()
    };
    assert_eq!(paths(&first), ["a b/100%.txt", "empty", "large.bin"]);
    let rest = world
        .get(&world.ada, &format!("{path}?after=large.bin"))
        .await
        .ok();
    assert_eq!(paths(&rest), ["model.pt"]);
    let file = world
        .get(&world.ada, &format!("{path}/a%20b/100%25.txt"))
        .await;
    assert_eq!(&file.bytes[..], b"hundred");
    assert_eq!(file.header("content-length"), "7");
    assert_eq!(file.header("x-content-type-options"), "nosniff");
    assert_eq!(
        file.header("content-disposition"),
        "attachment; filename=\"100%.txt\"; filename*=UTF-8''100%25.txt"
    );
    assert!(
        world
            .get(&world.ada, &format!("{path}/empty"))
            .await
            .bytes
            .is_empty()
    );
    let large = world.get(&world.ada, &format!("{path}/large.bin")).await;
    assert_eq!(
        blake3::hash(&large.bytes).to_hex().as_str(),
        first["artifacts"][2]["blake3"]
    );
    let one = world.get(&world.ada, "/experiments/make-exp0").await.ok();
    assert_eq!(one["experiment"]["artifacts"], 4);
    assert_eq!(one["experiment"]["artifact_bytes"], 700_017);
}

#[tokio::test]
async fn a_download_goes_on_where_it_broke_off() {
    let world = left().await;
    let path = "/experiments/make-exp0/artifacts/model.pt";
    let whole = world.get(&world.ada, path).await;
    let tag = whole.header("etag").to_owned();
    let ask = async |method: Method, headers: &[(&str, &str)]| {
        let mut request = world.ada.request(method, path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        world
            .answer(request.body(Body::empty()).expect("a request"))
            .await
    };
    let part = ask(Method::GET, &[("range", "bytes=4-")]).await;
    assert_eq!(
        (part.status.as_u16(), &part.bytes[..]),
        (206, &b"456789"[..])
    );
    assert_eq!(part.header("content-range"), "bytes 4-9/10");
    let part = ask(Method::GET, &[("range", "bytes=4-5"), ("if-range", &tag)]).await;
    assert_eq!(&part.bytes[..], b"45");
    let other = ask(
        Method::GET,
        &[("range", "bytes=4-5"), ("if-range", "\"other\"")],
    )
    .await;
    assert_eq!((other.status.as_u16(), other.bytes.len()), (200, 10));
    let beyond = ask(Method::GET, &[("range", "bytes=10-")]).await;
    assert_eq!(beyond.header("content-range"), "bytes */10");
    assert!(beyond.refused(416).contains("10 bytes"));
    let known = ask(Method::GET, &[("if-none-match", &tag)]).await;
    assert_eq!((known.status.as_u16(), known.bytes.len()), (304, 0));
    let head = ask(Method::HEAD, &[]).await;
    assert_eq!((head.header("content-length"), head.bytes.len()), ("10", 0));
}

#[tokio::test]
async fn a_link_works_without_an_account_and_for_its_file_only() {
    let world = left().await;
    let path = "/experiments/make-exp0/artifact-links";
    let body = json!({ "paths": ["a b/100%.txt", "model.pt"] });
    let mut request = world.ada.request(Method::POST, path);
    request = request.header("content-type", "application/json");
    let links = world
        .answer(
            request
                .body(Body::from(body.to_string()))
                .expect("a request"),
        )
        .await
        .ok();
    let url = links["links"][0]["url"].as_str().expect("a URL");
    let link = url
        .strip_prefix("http://grid.example:8080/api/v1")
        .expect("the address that was asked");
    assert!(link.ends_with("/a%20b/100%25.txt"), "{link}");
    assert_eq!(
        &world.get(&Person::Nobody, link).await.bytes[..],
        b"hundred"
    );
    let other = link.replace("a%20b/100%25.txt", "model.pt");
    world.get(&Person::Nobody, &other).await.refused(404);
    world
        .get(&Person::Nobody, &link.replace("/links/", "/links/x"))
        .await
        .refused(404);
    world.delete(&world.ada, "/runs/make").await.ok();
    world.get(&Person::Nobody, link).await.refused(404);
}

#[tokio::test]
async fn code_is_captured_once() {
    let world = World::new().await;
    let bytes = b"print('hello')\n";
    let hash = blake3::hash(bytes);
    let tree = json!({ "entries": [
        { "path": "train.py", "kind": "file", "mode": 0o644, "size_bytes": bytes.len(), "content": hash.to_hex().to_string() },
    ] });
    let missing = world.post(&world.ada, "/snapshots", &tree).await.ok();
    assert_eq!(missing["missing"], json!([hash.to_hex().to_string()]));
    let mut record = grid_api::blob::header(hash.as_bytes(), bytes.len() as u64).to_vec();
    record.extend_from_slice(bytes);
    // The second record breaks off: the first is kept, and the sender is told.
    let mut cut = record.clone();
    cut.extend_from_slice(&record[..50]);
    world.put(&world.ada, "/blobs", cut).await.refused(400);
    let taken = world.post(&world.ada, "/snapshots", &tree).await.ok();
    assert_eq!(taken["missing"], json!([]));
    assert_eq!(
        world.put(&world.ada, "/blobs", record.clone()).await.ok()["stored"],
        1
    );
    assert_eq!(
        world.post(&world.ada, "/snapshots", &tree).await.ok()["snapshot"],
        taken["snapshot"]
    );
    record[45] ^= 1;
    let damaged = world.put(&world.ada, "/blobs", record).await;
    assert!(damaged.refused(400).contains("send them again"));
    let climbing = json!({ "entries": [{ "path": "../x", "kind": "folder" }] });
    assert!(
        world
            .post(&world.ada, "/snapshots", &climbing)
            .await
            .refused(400)
            .contains("../x")
    );
}

#[tokio::test]
async fn a_runner_asks_for_blobs_and_gets_them() {
    let world = left().await;
    let known = blake3::hash(b"hundred").to_hex().to_string();
    let unknown = blake3::hash(b"never seen").to_hex().to_string();
    let ask = json!({ "blobs": [known, unknown] });
    let missing = world
        .post(&world.runner, "/runner/blobs/missing", &ask)
        .await
        .ok();
    assert_eq!(missing["blobs"], json!([unknown]));
    let fetched = world
        .post(
            &world.runner,
            "/runner/blobs/fetch",
            &json!({ "blobs": [known] }),
        )
        .await;
    assert_eq!(&fetched.bytes[grid_api::blob::HEADER_BYTES..], b"hundred");
    world
        .post(
            &world.runner,
            "/runner/blobs/fetch",
            &json!({ "blobs": ["x"] }),
        )
        .await
        .refused(400);
}
