//! Blobs on real disks and in real buckets: round trips, crashes, damage, deletion.
//!
//! Most tests are there twice: once in a folder, once in a bucket of a real S3 server.

#[path = "tests/bucket.rs"]
mod bucket;
mod damage;
#[path = "tests/folder.rs"]
mod folder;
mod s3;

use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use grid_core::blob::BlobId;
use grid_core::time::Timestamp;

use super::{BlobInfo, Blobs, Collected, GC_GRACE, Settings, hash};

/// The time at which all is written here.
const NOW_MS: i64 = 1_795_326_630_123;

fn settings(grace: Duration) -> Settings {
    Settings {
        grace,
        ..Settings::new(|| Timestamp::from_millis(NOW_MS))
    }
}

/// Bytes that differ for each number.
fn content(number: u64, len: usize) -> Bytes {
    let mut bytes = vec![0; len];
    blake3::Hasher::new()
        .update(&number.to_le_bytes())
        .finalize_xof()
        .fill(&mut bytes);
    bytes.into()
}

fn blob(number: u64, len: usize) -> (BlobId, Bytes) {
    let bytes = content(number, len);
    (hash(&bytes), bytes)
}

async fn put_large(blobs: &Blobs, bytes: &[u8]) -> BlobId {
    let id = hash(bytes);
    let mut writer = blobs.writer();
    for piece in bytes.chunks(100_000) {
        writer.write(piece).await.unwrap();
    }
    writer.finish(id, bytes.len() as u64).await.unwrap();
    id
}

async fn read(blobs: &Blobs, id: BlobId) -> Option<Bytes> {
    let reader = blobs.get(id).await.unwrap()?;
    let bytes = reader.read_all(true).await.unwrap();
    assert_eq!(blobs.read(id).await.unwrap().as_ref(), Some(&bytes));
    Some(bytes)
}

async fn list(blobs: &Blobs) -> Vec<BlobInfo> {
    let mut all: Vec<BlobInfo> = blobs.list().map(Result::unwrap).collect().await;
    all.sort_by_key(|info| info.id);
    all
}

fn ids(blobs: &[(BlobId, Bytes)]) -> Vec<BlobId> {
    blobs.iter().map(|(id, _)| *id).collect()
}

/// Deletes everything but these.
async fn collect(blobs: &Blobs, kept: &[BlobId], is_dry: bool) -> Collected {
    let mut collection = blobs.collection().await;
    for some in kept.chunks(100) {
        collection.keep(some.to_vec()).await.unwrap();
    }
    collection.sweep(is_dry).await.unwrap()
}

/// Changes one byte of the content that begins like this.
fn flip_in(pack: &Path, bytes: &[u8]) {
    let at = memchr::memmem::find(&std::fs::read(pack).unwrap(), &bytes[..64]).unwrap();
    let file = std::fs::OpenOptions::new().write(true).open(pack).unwrap();
    let at = at as u64 + 40;
    std::os::unix::fs::FileExt::write_all_at(&file, &[bytes[40] ^ 1], at).unwrap();
}
