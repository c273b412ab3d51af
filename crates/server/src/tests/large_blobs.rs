//! Large files travel as chunks: only what is new, and nobody gets bytes by a hash.

use bytes::Bytes;
use grid_api::blob::{BlobRecipe, header};
use grid_chunk::{Builder, Chunker};
use grid_core::blob::BlobId;
use serde_json::{Value, json};

use super::world::{Person, World};

/// A file, cut.
struct Cut {
    id: BlobId,
    chunks: Vec<(BlobId, Bytes)>,
    recipe: BlobRecipe,
}

fn content(seed: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    let mut hasher = blake3::Hasher::new();
    hasher.update(&seed.to_le_bytes());
    hasher.finalize_xof().fill(&mut bytes);
    bytes
}

fn cut(bytes: &[u8]) -> Cut {
    let (mut chunker, mut builder) = (Chunker::new(), Builder::new());
    let mut chunks = Vec::new();
    chunker.push(bytes);
    while let Some(chunk) = chunker.next(true) {
        builder.push(chunk.id, chunk.bytes.len() as u32, 1);
        chunks.push((chunk.id, chunk.bytes));
    }
    let id = chunker.whole();
    let recipe = BlobRecipe::new(id, &builder.finish().0);
    Cut { id, chunks, recipe }
}

async fn announce(world: &World, person: &Person, cut: &Cut) -> Value {
    let body = json!({ "recipes": [cut.recipe] });
    world.post(person, "/blobs/recipes", &body).await.ok()
}

fn missing_of(answer: &Value) -> Vec<String> {
    let missing = answer["missing"].as_array().cloned().unwrap_or_default();
    missing
        .iter()
        .map(|id| id.as_str().unwrap_or_default().to_owned())
        .collect()
}

/// Sends those chunks that are missing; says how many.
async fn send(world: &World, person: &Person, cut: &Cut, missing: &[String]) -> usize {
    let mut body = Vec::new();
    let mut sent = 0;
    for (id, bytes) in &cut.chunks {
        if missing.contains(&id.to_string()) {
            body.extend_from_slice(&header(id.as_bytes(), bytes.len() as u64));
            body.extend_from_slice(bytes);
            sent += 1;
        }
    }
    world.put(person, "/blobs", body).await.ok();
    sent
}

/// Whether a tree with this file can be captured.
async fn can_name(world: &World, person: &Person, cut: &Cut) -> bool {
    let tree = json!({ "entries": [
        { "path": "model.bin", "kind": "file", "mode": 0o644,
          "size_bytes": cut.recipe.size_bytes, "content": cut.id.to_string() },
    ] });
    let answer = world.post(person, "/snapshots", &tree).await.ok();
    !answer["snapshot"].is_null()
}

#[tokio::test]
async fn only_what_is_new_of_a_large_file_travels() {
    let world = World::new().await;
    let ada = world.ada.clone();
    let mut bytes = content(1, 3_000_000);
    let first = cut(&bytes);
    let missing = missing_of(&announce(&world, &ada, &first).await);
    assert_eq!(missing.len(), first.chunks.len());
    assert!(!can_name(&world, &ada, &first).await);
    // A part of it arrives; then it is said what is missing still.
    send(&world, &ada, &first, &missing[..5]).await;
    let missing = missing_of(&announce(&world, &ada, &first).await);
    assert_eq!(missing.len(), first.chunks.len() - 5);
    send(&world, &ada, &first, &missing).await;
    let answer = announce(&world, &ada, &first).await;
    assert_eq!(answer, json!({ "stored": [first.id.to_string()] }));
    assert!(can_name(&world, &ada, &first).await);

    bytes.splice(1_000_000..1_000_000, *b"a few bytes more");
    let second = cut(&bytes);
    let ask: Vec<String> = second.chunks.iter().map(|(id, _)| id.to_string()).collect();
    let asked = json!({ "blobs": ask });
    let missing = world.post(&ada, "/blobs/missing", &asked);
    let missing = missing.await.ok()["blobs"].clone();
    let missing: Vec<String> = serde_json::from_value(missing).expect("hashes");
    assert!(send(&world, &ada, &second, &missing).await <= 3);
    assert!(!announce(&world, &ada, &second).await["stored"].is_null());
    assert!(can_name(&world, &ada, &second).await);
}

#[tokio::test]
async fn who_knows_hashes_does_not_get_a_large_file() {
    let world = World::new().await;
    let (ada, bob) = (world.ada.clone(), world.user("bob").await);
    let file = cut(&content(1, 2_000_000));
    let missing = missing_of(&announce(&world, &ada, &file).await);
    send(&world, &ada, &file, &missing).await;
    announce(&world, &ada, &file).await;
    // Bob has to send everything, although it is there.
    let missing = missing_of(&announce(&world, &bob, &file).await);
    assert_eq!(missing.len(), file.chunks.len());
    assert!(!can_name(&world, &bob, &file).await);
    // Other chunks under its name do not help.
    let other = cut(&content(2, 2_000_000));
    let lie = BlobRecipe {
        blob: file.id.to_string(),
        ..other.recipe.clone()
    };
    let missing = missing_of(&announce(&world, &bob, &other).await);
    send(&world, &bob, &other, &missing).await;
    let body = json!({ "recipes": [lie] });
    let answer = world.post(&bob, "/blobs/recipes", &body).await.ok();
    assert_eq!(answer["wrong"], json!([file.id.to_string()]));
    assert!(!can_name(&world, &bob, &file).await);
    let all: Vec<String> = file.chunks.iter().map(|(id, _)| id.to_string()).collect();
    send(&world, &bob, &file, &all).await;
    announce(&world, &bob, &file).await;
    assert!(can_name(&world, &bob, &file).await);
}

#[tokio::test]
async fn recipes_that_are_none_are_refused() {
    let world = World::new().await;
    let file = cut(&content(1, 600_000));
    let changes = [
        ("blob", json!("nonsense"), "not a blob id"),
        ("size_bytes", json!(7), "make no blob"),
        ("chunks", json!("AAAA"), "make no blob"),
        ("chunks", json!("?"), "base64"),
    ];
    for (field, value, why) in changes {
        let mut recipe = serde_json::to_value(&file.recipe).expect("JSON");
        recipe[field] = value;
        let body = json!({ "recipes": [recipe] });
        let answer = world.post(&world.ada, "/blobs/recipes", &body).await;
        let said = answer.refused(400);
        assert!(said.contains(why), "{said}");
    }
}

/// What one user announces cannot keep another's file from being whole.
#[tokio::test]
async fn a_recipe_of_a_small_file_blocks_nobody() {
    let world = World::new().await;
    let (ada, bob) = (world.ada.clone(), world.user("bob").await);
    let zeros = |len: usize| Bytes::from(vec![0; len]);
    let named = |bytes: &Bytes| (grid_chunk::id_of(bytes), bytes.clone());
    let (half, small) = (zeros(128 << 10), zeros(256 << 10));
    let repeat = |chunk: &Bytes, times: u32| {
        let mut builder = Builder::new();
        builder.push(grid_chunk::id_of(chunk), chunk.len() as u32, times);
        let id = grid_chunk::id_of(&chunk.repeat(times as usize));
        Cut {
            id,
            chunks: vec![named(chunk)],
            recipe: BlobRecipe::new(id, &builder.finish().0),
        }
    };
    let trap = repeat(&half, 2);
    assert_eq!(trap.id, grid_chunk::id_of(&small));
    send(&world, &bob, &trap, &[named(&half).0.to_string()]).await;
    let body = json!({ "recipes": [trap.recipe] });
    let refused = world.post(&bob, "/blobs/recipes", &body).await;
    let said = refused.refused(400);
    assert!(said.contains("sent as it is"), "{said}");
    let file = repeat(&small, 3);
    let missing = missing_of(&announce(&world, &ada, &file).await);
    assert_eq!(send(&world, &ada, &file, &missing).await, 1);
    let answer = announce(&world, &ada, &file).await;
    assert_eq!(answer, json!({ "stored": [file.id.to_string()] }));
}

#[tokio::test]
async fn a_runner_may_send_a_file_of_which_it_knows_the_length_only() {
    let world = World::new().await;
    let (ada, runner) = (world.ada.clone(), world.runner.clone());
    let bytes = content(9, 3_000_000);
    let file = cut(&bytes);
    let send = async |size: usize, body: Vec<u8>| {
        let path = format!("/runner/blobs/whole?size_bytes={size}");
        world.put(&runner, &path, body).await
    };
    for (size, body) in [(2_999_999, &bytes[..]), (3_000_001, &bytes), (10, &[])] {
        let refused = send(size, body.to_vec()).await;
        assert_eq!(refused.status.as_u16(), 400, "{size}");
    }
    assert_eq!(send(usize::MAX, vec![1]).await.status.as_u16(), 413);
    let missing = json!({ "blobs": [file.id.to_string()] });
    let ask = || world.post(&runner, "/runner/blobs/missing", &missing);
    assert_eq!(ask().await.ok(), missing);
    let answer = send(bytes.len(), bytes.clone()).await.ok();
    assert_eq!(answer["blake3"], file.id.to_string());
    assert_eq!(ask().await.ok()["blobs"], json!([]));
    // Its hash gives the file to nobody who has not sent it.
    assert!(!can_name(&world, &ada, &file).await);
}
