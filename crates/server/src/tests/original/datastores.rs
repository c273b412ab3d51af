//! Datastores by the client: what it asks, in its order, and what no client should ask.

use axum::body::Body;
use axum::http::{Method, Request, header};
use bytes::Bytes;
use futures::stream;
use grid_core::id::UploadId;
use grid_core::team::Role;
use grid_engine::ticket::{self, Purpose};
use serde_json::{Value, json};

use super::{ask, begin, get, post, put, refused};
use crate::tests::teams::{join, team};
use crate::tests::world::{Answer, HOST, Person, World};

const STORES: &str = "/v1/core/local/datastores";

/// The fields without which the client fails.
#[track_caller]
fn is_datastore(value: &Value) {
    for field in ["id", "name", "createdAt"] {
        assert!(value[field].is_string(), "{field}: {value}");
    }
    for field in ["clusterId", "userId", "source", "sourceType"] {
        assert!(value["spec"][field].is_string(), "{field}: {value}");
    }
    for field in ["version", "sizeMib"] {
        assert!(value["spec"][field].is_u64(), "{field}: {value}");
    }
    assert!(value["status"]["phase"].is_string(), "{value}");
    assert!(value["status"]["message"].is_string(), "{value}");
}

fn new(name: &str, kind: &str, source: &str) -> Value {
    json!({ "name": name, "spec": { "clusterId": "local", "source": source,
        "sourceType": format!("DATASTORE_SOURCE_TYPE_{kind}"), "version": 0 } })
}

async fn create(world: &World, person: &Person, name: &str) -> String {
    let body = new(name, "EXPANDED_FILES", "");
    let made = post(world, person, STORES, &body).await.ok();
    is_datastore(&made);
    let phase = &made["status"]["phase"];
    assert_eq!(phase, "DATASTORE_OPTIMIZATION_STATUS_UNSPECIFIED");
    made["id"].as_str().expect("an id").to_owned()
}

fn below(url: &Value) -> &str {
    let url = url.as_str().expect("an address");
    let server = format!("http://{HOST}");
    url.strip_prefix(&server).expect("of this server")
}

/// The addresses for parts of a file.
async fn addresses(world: &World, person: &Person, id: &str, key: &str, parts: u32) -> Value {
    let body = json!({ "objects": [{ "key": key, "partCount": parts.to_string() }] });
    let path = format!("{STORES}/{id}/presigned-urls");
    post(world, person, &path, &body).await.ok()["objects"][0].take()
}

async fn put_together(world: &World, id: &str, object: &Value, etags: &[(u32, &str)]) -> Answer {
    let part =
        |(number, etag): &(u32, &str)| json!({ "partNumber": number.to_string(), "etag": etag });
    let urls: Vec<Value> = etags.iter().map(part).collect();
    let body = json!({ "objects": [{
        "key": object["key"], "uploadId": object["uploadId"], "urls": urls }] });
    let path = format!("{STORES}/{id}/presigned-urls/completed");
    post(world, &world.ada, &path, &body).await
}

fn etag(answer: &Answer) -> String {
    assert_eq!(answer.status.as_u16(), 200, "{:?}", answer.bytes);
    let tag = answer.header("etag");
    tag.trim_matches('"').to_owned()
}

async fn phase(world: &World, id: &str) -> String {
    let shown = get(world, &world.ada, &format!("{STORES}/{id}")).await;
    is_datastore(&shown);
    let phase = shown["status"]["phase"].as_str().expect("a phase");
    let phase = phase.strip_prefix("DATASTORE_OPTIMIZATION_STATUS_");
    phase.expect("of its kind").to_owned()
}

async fn listed(world: &World, person: &Person, query: &str) -> Vec<(String, u64)> {
    let body = get(world, person, &format!("{STORES}?{query}")).await;
    assert_eq!(body["nextPageToken"], "");
    let all = body["datastores"].as_array().expect("a list").clone();
    let one = |store: &Value| {
        is_datastore(store);
        let name = store["name"].as_str().expect("a name").to_owned();
        (name, store["spec"]["version"].as_u64().expect("a number"))
    };
    all.iter().map(one).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn files_in_parts_become_a_version() {
    let world = World::new().await;
    let ada = &world.ada;
    let id = create(&world, ada, "cats").await;
    let body = json!({ "objects": [
        { "key": "empty.txt", "partCount": "1" },
        { "key": "big.bin", "partCount": 3 },
        { "key": "sub/größe.txt" },
    ] });
    let path = format!("{STORES}/{id}/presigned-urls");
    let given = post(&world, ada, &path, &body).await.ok();
    let given = given["objects"].as_array().expect("objects").clone();
    let keys: Vec<_> = given.iter().map(|one| one["key"].clone()).collect();
    assert_eq!(keys, ["empty.txt", "big.bin", "sub/größe.txt"]);
    let mut completed = Vec::new();
    for (object, count) in given.iter().zip([1, 3, 1]) {
        assert_eq!(object["partCount"], count.to_string());
        let expires: i64 = object["expiryTime"]
            .as_str()
            .and_then(|text| text.parse().ok())
            .expect("seconds");
        assert!(expires > 1_700_000_000);
        let urls = object["urls"].as_array().expect("addresses");
        assert_eq!(urls.len(), count);
        let mut parts = Vec::new();
        for (url, number) in urls.iter().zip(1..) {
            let number: usize = number;
            assert_eq!(url["partNumber"], number.to_string());
            let bytes = match object["key"].as_str() {
                Some("empty.txt") => vec![],
                _ => vec![b'0' + u8::try_from(number).expect("small"); 300_000],
            };
            let answer = put(&world, below(&url["url"]), bytes).await;
            parts.push(json!({ "partNumber": url["partNumber"], "etag": etag(&answer) }));
        }
        completed.push(json!({
            "key": object["key"], "uploadId": object["uploadId"], "urls": parts }));
    }
    let body = json!({ "objects": completed });
    let path = format!("{STORES}/{id}/presigned-urls/completed");
    for _ in 0..2 {
        assert_eq!(post(&world, ada, &path, &body).await.ok(), json!({}));
    }
    assert_eq!(listed(&world, ada, "available=True").await, []);
    assert_eq!(listed(&world, ada, "").await, [("cats".to_owned(), 1)]);
    for _ in 0..2 {
        let path = format!("{STORES}/{id}/completed");
        assert_eq!(post(&world, ada, &path, &json!({})).await.ok(), json!({}));
    }
    assert_eq!(phase(&world, &id).await, "SUCCEEDED");
    let shown = get(&world, ada, &format!("{STORES}/{id}")).await;
    assert_eq!(shown["spec"]["sizeMib"], 2, "1.2 million bytes");
    assert_eq!(
        shown["spec"]["sourceType"],
        "DATASTORE_SOURCE_TYPE_EXPANDED_FILES"
    );
    let path = "/datastores/cats/files/big.bin";
    let file = world.get(ada, path).await;
    let expected = [b'1', b'2', b'3']
        .map(|digit| vec![digit; 300_000])
        .concat();
    assert!(file.bytes == expected, "{} bytes", file.bytes.len());
    let listed = listed(&world, ada, "available=true").await;
    assert_eq!(listed, [("cats".to_owned(), 1)]);
    // Who mounts it names it as it was shown.
    let mut run = super::new_run("uses", "train.py");
    run["spec"]["datastores"] = json!([{ "id": id, "mountPath": "/datastores/pets" }]);
    let begun = post(&world, ada, "/v1/core/local/runs", &run).await.ok();
    put(&world, &super::upload_path(&begun), super::code())
        .await
        .ok();
    let run = get(&world, ada, "/v1/core/local/runs/uses").await;
    let mounts = json!([{ "id": id, "mountPath": "/datastores/pets" }]);
    assert_eq!(run["spec"]["datastores"], mounts);
    let path = format!("{STORES}/{id}");
    let text = refused(&ask(&world, ada, Method::DELETE, &path, None).await, 409);
    assert!(text.contains("mounted by ada:uses"), "{text}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_sent_wrongly_is_refused_and_kept_by_nobody() {
    let world = World::new().await;
    let id = create(&world, &world.ada, "cats").await;
    let object = addresses(&world, &world.ada, &id, "a.bin", 2).await;
    let first = below(&object["urls"][0]["url"]);
    let half = Bytes::from_static(b"half");
    let cut = stream::iter([Ok(half), Err(std::io::Error::other("the line is dead"))]);
    let torn = put(&world, first, Body::from_stream(cut)).await;
    refused(&torn, 400);
    let sized = |bytes: &'static [u8], said: u64| {
        let request = Request::put(first)
            .header(header::HOST, HOST)
            .header(header::CONTENT_LENGTH, said);
        let body = Body::from_stream(stream::iter([Ok::<_, std::io::Error>(bytes)]));
        request.body(body).expect("a request")
    };
    let short = world.answer(sized(b"half", 8)).await;
    let text = refused(&short, 400);
    assert!(text.contains("8 bytes were announced and 4 came"), "{text}");
    let never = stream::poll_fn(|_| -> std::task::Poll<Option<std::io::Result<Bytes>>> {
        panic!("nothing of it is read")
    });
    let request = Request::put(first)
        .header(header::HOST, HOST)
        .header(header::CONTENT_LENGTH, 3_000_000_000_u64);
    let request = request.body(Body::from_stream(never)).expect("a request");
    let huge = world.answer(request).await;
    let text = refused(&huge, 413);
    assert!(text.contains("2048 MiB"), "{text}");
    for answer in [&torn, &short, &huge] {
        assert!(
            answer.headers.get(header::ETAG).is_none(),
            "the client takes that for success"
        );
    }
    let none = put_together(
        &world,
        &id,
        &object,
        &[(1, "00000000000000000000000000000000")],
    )
    .await;
    let text = refused(&none, 400);
    assert!(text.contains("part 1 of 'a.bin' did not come"), "{text}");
    let one = etag(&put(&world, first, "one").await);
    let wrong = put_together(
        &world,
        &id,
        &object,
        &[(1, "00000000000000000000000000000000")],
    )
    .await;
    let text = refused(&wrong, 400);
    assert!(text.contains("has the etag f97c5d29"), "{text}");
    for parts in [
        vec![],
        vec![(2, &*one)],
        vec![(0, &*one)],
        vec![(1, &*one), (1, &*one)],
    ] {
        refused(&put_together(&world, &id, &object, &parts).await, 400);
    }
    let mut other = object.clone();
    other["uploadId"] = json!("up-1");
    refused(&put_together(&world, &id, &other, &[(1, &*one)]).await, 400);
    other["uploadId"] = json!("01h00000000000000000000000");
    refused(&put_together(&world, &id, &other, &[(1, &*one)]).await, 404);
    assert_eq!(phase(&world, &id).await, "UNSPECIFIED");
    put_together(&world, &id, &object, &[(1, &*one)]).await.ok();
    let path = format!("{STORES}/{id}/presigned-urls");
    for objects in [
        json!([{ "key": "../x", "partCount": "1" }]),
        json!([{ "key": "/etc/passwd", "partCount": "1" }]),
        json!([{ "key": "", "partCount": "1" }]),
        json!([{ "key": "x", "partCount": "10001" }]),
        json!([{ "key": "x", "partCount": "-1" }]),
        json!([{ "key": "x", "partCount": "many" }]),
        json!([{ "key": "x", "partCount": "10000" }, { "key": "y", "partCount": "10000" },
            { "key": "z", "partCount": "1" }]),
        json!("x"),
    ] {
        let body = json!({ "objects": objects });
        refused(&post(&world, &world.ada, &path, &body).await, 400);
    }
    for (kind, source) in [
        ("FSX", "s3://bucket/x/"),
        ("UNSPECIFIED", ""),
        ("COMPRESSED_FILE", ""),
        ("HTTP_URL", "http://127.0.0.1:9/x.zip"),
        ("HTTP_URL", "ftp://example.org/x"),
    ] {
        let body = new("odd", kind, source);
        let answer = post(&world, &world.ada, STORES, &body).await;
        refused(&answer, 400);
    }
    let body = new("Loud Name", "EXPANDED_FILES", "");
    refused(&post(&world, &world.ada, STORES, &body).await, 400);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_address_is_good_for_its_part_and_for_a_while() {
    let world = World::new().await;
    let id = create(&world, &world.ada, "cats").await;
    let object = addresses(&world, &world.ada, &id, "a.bin", 2).await;
    let again = addresses(&world, &world.ada, &id, "a.bin", 1).await;
    let first = below(&object["urls"][0]["url"]).to_owned();
    let upload = object["uploadId"].as_str().expect("an id").to_owned();
    let other = again["uploadId"].as_str().expect("an id");
    let (head, last) = first.split_at(first.len() - 1);
    let changed = format!("{head}{}", if last == "0" { "1" } else { "0" });
    let bare = first.split('?').next().expect("a path");
    let next = first.replace("/1?", "/2?");
    for path in [&changed, head, bare, &next, &first.replace(&upload, other)] {
        let text = refused(&put(&world, path, "x").await, 403);
        assert!(text.contains("not one that this server gave out"), "{text}");
    }
    // An upload belongs to its version.
    let elsewhere = create(&world, &world.ada, "dogs").await;
    refused(
        &put(&world, &first.replace(&id, &elsewhere), "x").await,
        404,
    );
    let Person::User { id: ada, key } = &world.ada else {
        panic!("ada has a key")
    };
    let engine = &world.app.engine;
    let caller = grid_engine::user::authenticate(engine, Some(ada), key).await;
    let upload: UploadId = upload.parse().expect("an id");
    let purpose = Purpose::SendPart(upload, 1);
    let old = ticket::issue(engine, &caller.expect("ada"), &purpose, -1);
    let expired = format!("{bare}?ticket={}", old.text);
    let text = refused(&put(&world, &expired, "x").await, 403);
    assert!(text.contains("expired"), "{text}");
    // Asked for again with what it was given, it goes on where it was.
    etag(&put(&world, &first, "one").await);
    let path = format!("{STORES}/{id}/presigned-urls");
    let body = json!({ "objects": [object] });
    let resumed = post(&world, &world.ada, &path, &body).await.ok();
    assert_eq!(resumed["objects"][0]["uploadId"], object["uploadId"]);
    let path = format!("{STORES}/{id}");
    ask(&world, &world.ada, Method::DELETE, &path, None)
        .await
        .ok();
    refused(&put(&world, &first, "x").await, 409);
    let rotate = json!({});
    world
        .post(&world.ada, "/user/rotate-key", &rotate)
        .await
        .ok();
    let text = refused(&put(&world, &first, "x").await, 403);
    assert!(text.contains("revoked"), "{text}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn teammates_see_and_mount_and_nobody_else_knows() {
    let world = World::new().await;
    let (ada, bob) = (&world.ada, world.user("bob").await);
    let eve = world.user("eve").await;
    team(&world, ada, "vision").await;
    join(&world, ada, "vision", "bob", &bob, Role::Member).await;
    let own = json!({ "team": "vision" });
    world.put(ada, "/user/team", own.to_string()).await.ok();
    let id = create(&world, ada, "cats").await;
    let path = format!("{STORES}/{id}");
    post(&world, ada, &format!("{path}/completed"), &json!({}))
        .await
        .ok();
    let (Person::User { id: ada_id, .. }, Person::User { id: bob_id, .. }) = (ada, &bob) else {
        panic!("they have ids")
    };
    let both = format!("userIds={ada_id}&userIds={bob_id}&available=True");
    assert_eq!(listed(&world, &bob, &both).await.len(), 1);
    assert_eq!(listed(&world, &bob, "available=True").await, []);
    let his = format!("userIds={bob_id}");
    assert_eq!(listed(&world, ada, &his).await, []);
    assert_eq!(listed(&world, &eve, &both).await, []);
    is_datastore(&get(&world, &bob, &path).await);
    let text = refused(&ask(&world, &bob, Method::DELETE, &path, None).await, 403);
    assert!(text.contains("only"), "{text}");
    let begun = begin(&world, &bob, "plain", "train.py").await;
    assert_eq!(begun["spec"]["datastores"], json!([]));
    let mut run = super::new_run("uses", "train.py");
    run["spec"]["datastores"] = json!([{ "id": id, "mountPath": "/datastores/cats" }]);
    let begun = post(&world, &bob, "/v1/core/local/runs", &run).await.ok();
    assert_eq!(begun["spec"]["datastores"], run["spec"]["datastores"]);
    refused(&post(&world, &eve, "/v1/core/local/runs", &run).await, 404);
    let none = "01H00000000000000000000000";
    for who in [&eve, &bob, ada] {
        // What is not there, and what nobody may know of, is told in the same words.
        let there = ask(&world, who, Method::GET, &path, None).await;
        let not_there = ask(&world, who, Method::GET, &format!("{STORES}/{none}"), None).await;
        assert_eq!(not_there.json()["details"], json!([]));
        let text = refused(&not_there, 404);
        if there.status.as_u16() == 404 {
            let text_of_there =
                refused(&there, 404).replace(&id.to_lowercase(), &none.to_lowercase());
            assert_eq!(text_of_there, text);
        }
    }
    let body = json!({ "objects": [{ "key": "x", "partCount": "1" }] });
    for (who, status) in [(&eve, 404), (&bob, 403)] {
        let answer = post(&world, who, &format!("{path}/presigned-urls"), &body).await;
        refused(&answer, status);
    }
    ask(&world, ada, Method::DELETE, &path, None).await.ok();
    assert_eq!(listed(&world, &bob, &both).await, []);
}
