//! Who is on the server's machine sends files as they are.

use grid_api::upload::machine;
use grid_core::blob::BlobId;
use serde_json::{Value, json};

use super::world::{Person, World};

fn route() -> String {
    let machine = machine().expect("Linux says which machine it is");
    format!("/blobs/near?machine={machine}")
}

fn content(seed: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    let mut hasher = blake3::Hasher::new();
    hasher.update(&seed.to_le_bytes());
    hasher.finalize_xof().fill(&mut bytes);
    bytes
}

fn body(files: &[Vec<u8>]) -> Vec<u8> {
    let framed = |bytes: &Vec<u8>| [&(bytes.len() as u64).to_le_bytes()[..], bytes].concat();
    files.iter().flat_map(framed).collect()
}

fn names(files: &[Vec<u8>]) -> Vec<String> {
    let name = |bytes: &Vec<u8>| blake3::hash(bytes).to_hex().to_string();
    files.iter().map(name).collect()
}

/// Offers a part with these files; says what is missing.
async fn offer(world: &World, person: &Person, store: &str, files: &[Vec<u8>]) -> Value {
    let new = json!({ "name": store, "source": "here", "source_kind": "folder" });
    let made = world.post(person, "/datastores", &new).await.ok();
    let id = made["datastore"]["id"].as_str().expect("an id").to_owned();
    let entry = |(number, (bytes, name)): (usize, (&Vec<u8>, String))| {
        json!({ "path": format!("{number}.bin"), "kind": "file", "mode": 0o644,
            "modified_ms": 1, "size_bytes": bytes.len(), "content": name })
    };
    let entries = files.iter().zip(names(files)).enumerate().map(entry);
    let part = json!({ "entries": entries.collect::<Vec<_>>() }).to_string();
    let path = format!("/datastores/{id}/parts/0");
    let missing = world.put(person, &path, part).await.ok()["missing"].take();
    if missing == json!([]) {
        let path = format!("/datastores/{id}/commit");
        let done = world.post(person, &path, &json!({ "parts": 1 })).await.ok();
        assert_eq!(done["datastore"]["state"], "available", "{done}");
    }
    missing
}

#[tokio::test]
async fn files_are_taken_as_they_are_from_the_same_machine() {
    let world = World::new().await;
    let (ada, bob) = (world.ada.clone(), world.user("bob").await);
    let files = [content(1, 0), content(2, 5_000), content(3, 3_000_000)];
    let size: usize = files.iter().map(Vec::len).sum();
    let asked = world.put(&ada, &route(), Vec::new()).await.ok();
    assert_eq!(asked, json!({ "blobs": [], "new_bytes": 0 }));

    let sent = world.put(&ada, &route(), body(&files)).await.ok();
    assert_eq!(sent, json!({ "blobs": names(&files), "new_bytes": size }));
    let again = world.put(&ada, &route(), body(&files)).await.ok();
    assert_eq!(again, json!({ "blobs": names(&files), "new_bytes": 0 }));
    assert_eq!(offer(&world, &ada, "digits", &files).await, json!([]));
    // The version before shows that they were sent; their hashes give them to nobody else.
    assert_eq!(offer(&world, &ada, "digits", &files[1..]).await, json!([]));
    let missing = offer(&world, &bob, "digits", &files).await;
    assert_eq!(missing.as_array().map(Vec::len), Some(3), "{missing}");
}

#[tokio::test]
async fn files_of_other_machines_and_halves_are_refused() {
    let world = World::new().await;
    let ada = world.ada.clone();
    let files = [content(1, 3_000_000)];
    let whole = body(&files);
    for machine in ["", "0", "x%00"] {
        let path = format!("/blobs/near?machine={machine}");
        let said = world.put(&ada, &path, whole.clone()).await.refused(409);
        assert!(said.contains("machine"), "{said}");
    }
    for cut in [3, 8, 100_000, whole.len() - 1] {
        let half = whole[..cut].to_vec();
        let said = world.put(&ada, &route(), half).await.refused(400);
        assert!(said.contains("middle of a file"), "{said}");
    }
    let huge = u64::MAX.to_le_bytes().to_vec();
    world.put(&ada, &route(), huge).await.refused(413);
    let id: BlobId = names(&files)[0].parse().expect("a hash");
    let ask = json!({ "blobs": [id.to_string()] });
    assert_eq!(world.post(&ada, "/blobs/missing", &ask).await.ok(), ask);
}
