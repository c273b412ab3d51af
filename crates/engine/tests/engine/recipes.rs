//! Large files that are made of chunks: what is refused, and whose turn it is.

use std::time::Duration;

use bytes::Bytes;
use grid_api::blob::{BlobRecipe, header};
use grid_chunk::{CHUNK_BYTES_MAX, Entry, Recipe, id_of};
use grid_core::blob::BlobId;
use grid_engine::blob::{self, Upload};
use grid_engine::{ALONE_MAX, Caller, Engine};

use crate::world::World;

/// How long somebody is seen to wait who would be done at once if it were their turn.
const WHILE: Duration = Duration::from_millis(300);

/// Half of what a small blob may have.
fn half() -> Bytes {
    Bytes::from(vec![7; CHUNK_BYTES_MAX / 2])
}

/// A file that is a repeat of a chunk.
fn repeat(chunk: &Bytes, times: u32) -> (BlobId, BlobRecipe) {
    let blob = id_of(&chunk.repeat(times as usize));
    let len = chunk.len() as u32;
    let id = id_of(chunk);
    let recipe = Recipe::Chunks(vec![Entry { id, len, times }]);
    (blob, BlobRecipe::new(blob, &recipe))
}

async fn send(engine: &Engine, caller: &Caller, chunk: &Bytes) {
    let mut upload = Upload::by(engine, caller).await.expect("a place");
    let head = header(id_of(chunk).as_bytes(), chunk.len() as u64);
    let head = Bytes::copy_from_slice(&head);
    for piece in [head, chunk.clone()] {
        upload.push(piece).await.expect("it is taken");
    }
    assert_eq!(upload.finish(false).await.expect("it is stored"), 1);
}

#[tokio::test]
async fn a_file_that_is_no_larger_than_a_chunk_has_no_recipe() {
    let dir = tempfile::tempdir().expect("a folder");
    let world = World::new(dir.path()).await;
    let (engine, ada) = (&world.engine, &world.ada);
    send(engine, ada, &half()).await;
    let (_, small) = repeat(&half(), 2);
    let refused = blob::announce(engine, ada, &[small]).await;
    let said = refused.expect_err("it is small").to_string();
    assert!(said.contains("is sent as it is"), "{said}");
    let short = Bytes::from_static(b"short");
    send(engine, ada, &short).await;
    let (_, repeated) = repeat(&short, 100_000);
    let refused = blob::announce(engine, ada, &[repeated]).await;
    let said = refused.expect_err("it is short").to_string();
    assert!(said.contains("cut it into longer ones"), "{said}");
}

#[tokio::test]
async fn who_announces_waits_for_a_place_of_theirs() {
    let dir = tempfile::tempdir().expect("a folder");
    let world = World::new(dir.path()).await;
    let (engine, ada) = (&world.engine, &world.ada);
    send(engine, ada, &half()).await;
    let (id, recipe) = repeat(&half(), 3);
    let recipes = [recipe];
    let mut held = Vec::new();
    for _ in 0..ALONE_MAX {
        held.push(Upload::by(engine, ada).await.expect("a place"));
    }
    let asked = blob::announce(engine, ada, &recipes);
    let told = tokio::time::timeout(WHILE, asked).await;
    assert!(told.is_err(), "{told:?}");
    held.pop();
    let answer = blob::announce(engine, ada, &recipes).await;
    assert_eq!(answer.expect("an answer").stored, [id.to_string()]);
}
