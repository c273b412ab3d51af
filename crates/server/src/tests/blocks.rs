//! Lists that are sent as what is new to the version before.

use grid_core::blob::BlobId;
use grid_manifest::{Builder, Entry, Node, Offer, digest, write_offers};
use serde_json::{Value, json};

use super::world::{Person, World};

fn bytes(number: usize) -> Vec<u8> {
    format!("content {number}").into_bytes()
}

fn entry(path: String, content: &[u8]) -> Entry {
    Entry {
        path,
        mode: 0o644,
        modified_ms: 1,
        node: Node::File {
            blob: BlobId::from_bytes(*blake3::hash(content).as_bytes()),
            size_bytes: content.len() as u64,
        },
    }
}

fn many(count: usize) -> Vec<Entry> {
    let one = |number| entry(format!("data/{number:05}"), &bytes(number));
    (0..count).map(one).collect()
}

/// Cuts a list as it is cut by whoever sends it.
fn cut(entries: &[Entry]) -> Vec<Vec<Entry>> {
    let (mut builder, mut blocks) = (Builder::default(), vec![Vec::new()]);
    for entry in entries {
        if builder.push(entry.clone()).expect("good").is_some() {
            blocks.push(Vec::new());
        }
        blocks.last_mut().expect("one").push(entry.clone());
    }
    blocks
}

async fn send(world: &World, person: &Person, contents: impl Iterator<Item = Vec<u8>>) {
    let mut body = Vec::new();
    for content in contents {
        let hash = blake3::hash(&content);
        body.extend(grid_api::blob::header(
            hash.as_bytes(),
            content.len() as u64,
        ));
        body.extend(content);
    }
    world.put(person, "/blobs", body).await.ok();
}

async fn begin(world: &World, person: &Person, name: &str) -> String {
    let new = json!({ "name": name, "source": "here", "source_kind": "folder" });
    let made = world.post(person, "/datastores", &new).await.ok();
    made["datastore"]["id"].as_str().expect("an id").to_owned()
}

async fn offer(world: &World, person: &Person, id: &str, from: usize, offers: &[Offer]) -> Value {
    let path = format!("/datastores/{id}/parts?from={from}");
    let answer = world.put(person, &path, write_offers(offers)).await;
    answer.ok()["parts"].take()
}

async fn end(world: &World, person: &Person, id: &str, parts: usize) -> Value {
    let path = format!("/datastores/{id}/commit");
    let answer = world.post(person, &path, &json!({ "parts": parts })).await;
    let made = answer.ok()["datastore"].take();
    assert_eq!(made["state"], "available", "{made}");
    made
}

fn whole(entries: &[Entry]) -> Offer {
    Offer::Whole {
        entries: entries.to_vec(),
    }
}

/// The blocks that a version was kept as.
fn names(parts: &Value) -> Vec<BlobId> {
    let name = |part: &Value| part["block"].as_str().expect("a block").parse();
    let parts = parts.as_array().expect("parts").iter();
    parts.map(|part| name(part).expect("a name")).collect()
}

async fn files(world: &World, person: &Person, id: &str) -> Vec<(String, String)> {
    let path = format!("/datastores/{id}/files?recursive=true&limit=10000");
    let files = world.get(person, &path).await.ok()["files"].take();
    let text = |file: &Value, field: &str| file[field].as_str().unwrap_or_default().to_owned();
    let files = files.as_array().expect("files").iter();
    files
        .map(|file| (text(file, "path"), text(file, "content")))
        .collect()
}

fn listed(entries: &[Entry]) -> Vec<(String, String)> {
    let name = |entry: &Entry| {
        entry
            .blob()
            .map(|blob| blob.to_string())
            .unwrap_or_default()
    };
    entries
        .iter()
        .map(|entry| (entry.path.clone(), name(entry)))
        .collect()
}

#[tokio::test]
async fn a_version_is_what_is_new_to_the_one_before() {
    let world = World::new().await;
    let ada = world.ada.clone();
    let entries = many(5_000);
    send(&world, &ada, (0..5_000).map(bytes)).await;
    let first = begin(&world, &ada, "digits").await;
    let blocks = cut(&entries);
    let offers: Vec<Offer> = blocks.iter().map(|block| whole(block)).collect();
    let names = names(&offer(&world, &ada, &first, 0, &offers).await);
    end(&world, &ada, &first, blocks.len()).await;
    assert_eq!(files(&world, &ada, &first).await, listed(&entries));

    // One block with another content and without a file, all others as they were.
    let second = begin(&world, &ada, "digits").await;
    let mut after = blocks[1].clone();
    let gone = after.remove(3);
    after[7] = entry(after[7].path.clone(), b"new");
    let edited = Offer::Edited {
        block: names[1],
        digest: digest(&after),
        removed: vec![gone.path],
        put: vec![after[7].clone()],
    };
    let mut offers: Vec<Offer> = names.iter().map(|&block| Offer::Same { block }).collect();
    offers[1] = edited.clone();
    let answer = offer(&world, &ada, &second, 0, &offers).await;
    let new = blake3::hash(b"new").to_hex().to_string();
    assert_eq!(answer[1], json!({ "missing": [new] }));
    assert!(answer[0]["block"].is_string() && answer[2]["block"].is_string());
    send(&world, &ada, [b"new".to_vec()].into_iter()).await;
    let answer = offer(&world, &ada, &second, 1, &offers[1..2]).await;
    assert!(answer[0]["block"].is_string(), "{answer}");
    let made = end(&world, &ada, &second, blocks.len()).await;
    let mut expected = blocks.clone();
    expected[1] = after;
    assert_eq!(
        files(&world, &ada, &second).await,
        listed(&expected.concat())
    );
    assert_eq!(
        (&made["files"], &made["new_bytes"]),
        (&json!(4_999), &json!(3))
    );
}

#[tokio::test]
async fn what_the_version_before_has_not_or_otherwise_is_to_be_sent_whole() {
    let world = World::new().await;
    let (ada, bob) = (world.ada.clone(), world.user("bob").await);
    let entries = many(10);
    send(&world, &ada, (0..10).map(bytes)).await;
    let first = begin(&world, &ada, "digits").await;
    let names = names(&offer(&world, &ada, &first, 0, &[whole(&entries)]).await);
    end(&world, &ada, &first, 1).await;

    let same = Offer::Same { block: names[0] };
    let wrong = Offer::Edited {
        block: names[0],
        digest: digest(&[]),
        removed: vec![],
        put: vec![],
    };
    let second = begin(&world, &ada, "digits").await;
    let answer = offer(&world, &ada, &second, 0, &[wrong]).await;
    assert_eq!(answer, json!([{ "unknown": true }]));
    // Not of another datastore, and not by somebody else who only knows the name.
    let other = begin(&world, &ada, "letters").await;
    let answer = offer(&world, &ada, &other, 0, std::slice::from_ref(&same)).await;
    assert_eq!(answer, json!([{ "unknown": true }]));
    let theirs = begin(&world, &bob, "digits").await;
    let answer = offer(&world, &bob, &theirs, 0, std::slice::from_ref(&same)).await;
    assert_eq!(answer, json!([{ "unknown": true }]));
    let answer = offer(&world, &bob, &theirs, 0, &[whole(&entries)]).await;
    assert_eq!(answer[0]["missing"].as_array().map(Vec::len), Some(10));
    let path = format!("/datastores/{theirs}/commit");
    let early = world.post(&bob, &path, &json!({ "parts": 1 })).await;
    assert_eq!(early.status, 409, "{early:?}");
}

#[tokio::test]
async fn blocks_and_parts_that_are_cut_otherwise_make_one_list() {
    let world = World::new().await;
    let ada = world.ada.clone();
    let entries = many(5_000);
    send(&world, &ada, (0..5_000).map(bytes)).await;
    let blocks = cut(&entries);
    let first = begin(&world, &ada, "digits").await;
    let offers: Vec<Offer> = blocks.iter().map(|block| whole(block)).collect();
    offer(&world, &ada, &first, 0, &offers).await;
    let listed_parts = format!("/datastores/{first}/parts");
    let parts = world.get(&ada, &listed_parts).await.ok();
    assert_eq!(parts["parts"][1]["digest"], digest(&blocks[1]).to_string());
    assert!(parts["parts"][1]["block"].is_string(), "{parts}");
    end(&world, &ada, &first, blocks.len()).await;

    // The same list in parts that end anywhere.
    let second = begin(&world, &ada, "digits").await;
    let parts = [&entries[..700], &entries[700..701], &entries[701..]];
    for (number, part) in parts.iter().enumerate() {
        offer(&world, &ada, &second, number, &[whole(part)]).await;
    }
    end(&world, &ada, &second, 3).await;
    assert_eq!(files(&world, &ada, &second).await, listed(&entries));
    let path = format!("/datastores/{first}/diff?with={second}");
    let diff = world.get(&ada, &path).await.ok();
    assert_eq!(diff["changes"], json!([]), "{diff}");

    for (offers, expected) in [
        (
            vec![whole(&[entries[5].clone(), entries[4].clone()])],
            "not sorted",
        ),
        (vec![whole(&[entry("../x".to_owned(), b"x")])], "not a path"),
        (vec![whole(&[]); 100], "too many parts"),
    ] {
        let id = begin(&world, &ada, "digits").await;
        let path = format!("/datastores/{id}/parts");
        let answer = world.put(&ada, &path, write_offers(&offers)).await;
        assert_eq!(answer.status, 400, "{answer:?}");
        let text = format!("{answer:?}");
        assert!(text.contains(expected), "{text}");
    }
}

#[tokio::test]
async fn what_only_the_server_may_say_is_refused() {
    let world = World::new().await;
    let ada = world.ada.clone();
    let id = begin(&world, &ada, "digits").await;
    let path = format!("/datastores/{id}/parts?from=0");
    let node = Node::Elsewhere {
        size_bytes: 1 << 40,
        tag: "x".to_owned(),
    };
    let elsewhere = Entry {
        node,
        ..entry("data/1".to_owned(), b"")
    };
    let special = Entry {
        mode: 0o4_755,
        ..entry("data/1".to_owned(), b"")
    };
    for (strange, why) in [(elsewhere, "elsewhere"), (special, "mode")] {
        let body = write_offers(&[whole(&[strange])]);
        let said = world.put(&ada, &path, body).await.refused(400);
        assert!(said.contains("data/1") && said.contains(why), "{said}");
    }
    // Few bytes that would become very many.
    let long = |number| entry(format!("{}{number:05}", "a/".repeat(2_100)), b"");
    let entries: Vec<Entry> = (0..10_000).map(long).collect();
    let body = write_offers(&[whole(&entries)]);
    assert!(body.len() < 1 << 20, "{}", body.len());
    let said = world.put(&ada, &path, body).await.refused(400);
    assert!(said.contains("too long"), "{said}");
}
