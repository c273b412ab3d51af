//! What goes in comes out.

use bytes::BytesMut;
use futures::{StreamExt, TryStreamExt};
use grid_core::blob::BlobId;

use super::*;
use crate::blobs::{BlobError, Health, SMALL_BYTES_MAX};

#[tokio::test]
async fn blobs_of_any_length_come_back() {
    let dir = tempfile::tempdir().unwrap();
    let blobs = open(dir.path());
    let lengths = [
        0,
        1,
        4096,
        SMALL_BYTES_MAX - 1,
        SMALL_BYTES_MAX,
        SMALL_BYTES_MAX + 1,
        1 << 20,
        (1 << 20) + 1,
        5_000_000,
    ];
    let mut stored = Vec::new();
    for len in lengths {
        let bytes = content(len as u64, len);
        stored.push((put_large(&blobs, &bytes).await, bytes));
    }
    let small: Vec<_> = (100..200).map(|n| blob(n, n as usize)).collect();
    blobs.put_small_batch(small.clone()).await.unwrap();
    // Again is the same, also twice in one batch.
    let twice = [small.clone(), small.clone()].concat();
    blobs.put_small_batch(twice).await.unwrap();
    stored.extend(small);

    for blobs in [blobs, open(dir.path())] {
        for (id, bytes) in &stored {
            assert_eq!(read(&blobs, *id).await.as_ref(), Some(bytes));
            assert_eq!(blobs.check(*id).await.unwrap(), Health::Ok);
            let reader = blobs.get(*id).await.unwrap().unwrap();
            assert_eq!(reader.len(), bytes.len() as u64);
            let (from, to) = (bytes.len() / 3, bytes.len() / 2);
            let piece = reader.read_at(from as u64, to - from).await.unwrap();
            assert_eq!(piece, bytes[from..to]);
            let range = reader
                .clone()
                .stream_range(from as u64..to as u64 + 9_999_999);
            let streamed: BytesMut = range.try_collect().await.unwrap();
            assert_eq!(streamed, bytes[from..]);
            let streamed: BytesMut = reader.stream().try_collect().await.unwrap();
            assert_eq!(streamed, bytes);
        }
        let absent = BlobId::from_bytes([7; 32]);
        let mut asked = ids(&stored);
        asked.insert(50, absent);
        assert_eq!(blobs.missing(asked).await.unwrap(), [absent]);
        assert!(blobs.get(absent).await.unwrap().is_none());
        assert_eq!(blobs.check(absent).await.unwrap(), Health::Missing);

        let mut expected: Vec<BlobInfo> = stored
            .iter()
            .map(|(id, bytes)| BlobInfo {
                id: *id,
                len: bytes.len() as u64,
                written_at: Timestamp::from_millis(NOW_MS),
                is_chunked: bytes.len() > SMALL_BYTES_MAX,
            })
            .collect();
        expected.sort_by_key(|info| info.id);
        // Chunks are blobs, too.
        let mut listed = list(&blobs).await;
        listed.retain(|info| stored.iter().any(|(id, _)| *id == info.id));
        assert_eq!(listed, expected);
    }
}

#[tokio::test]
async fn what_is_not_what_it_says_is_refused_whole() {
    let dir = tempfile::tempdir().unwrap();
    let blobs = open(dir.path());
    let (good, (other, _)) = (blob(1, 100), blob(2, 100));

    let wrong = (other, good.1.clone());
    let result = blobs.put_small_batch(vec![good.clone(), wrong]).await;
    assert!(
        matches!(result, Err(BlobError::WrongHash { .. })),
        "{result:?}"
    );
    let big = blob(3, SMALL_BYTES_MAX + 1);
    let result = blobs.put_small_batch(vec![big]).await;
    assert!(
        matches!(result, Err(BlobError::TooLarge { .. })),
        "{result:?}"
    );

    for len in [100, 3_000_000] {
        let bytes = content(9, len);
        let mut writer = blobs.writer();
        writer.write(&bytes).await.unwrap();
        let result = writer.finish(other, len as u64).await;
        assert!(
            matches!(result, Err(BlobError::WrongHash { .. })),
            "{result:?}"
        );
        let mut writer = blobs.writer();
        writer.write(&bytes).await.unwrap();
        let result = writer.finish(hash(&bytes), len as u64 + 1).await;
        assert!(
            matches!(result, Err(BlobError::WrongLength { .. })),
            "{result:?}"
        );
        // And one that was never finished.
        let mut writer = blobs.writer();
        writer.write(&bytes).await.unwrap();
        drop(writer);
    }
    // What is left are chunks, for the next attempt.
    let left = list(&blobs).await;
    assert!(
        left.iter()
            .all(|info| !info.is_chunked && info.len < 300_000)
    );
    let bytes: u64 = left.iter().map(|info| info.len).sum();
    assert!(bytes <= 3_000_000, "{bytes}");
}

#[tokio::test]
async fn a_blob_without_a_name_gets_its_own() {
    let dir = tempfile::tempdir().unwrap();
    let blobs = open(dir.path());
    for len in [10, 400_000] {
        let (id, bytes) = blob(1, len);
        let mut writer = blobs.writer();
        writer.write(&bytes).await.unwrap();
        assert_eq!(writer.finish_unnamed().await.unwrap(), id);
        assert_eq!(read(&blobs, id).await, Some(bytes));
    }
}

#[tokio::test]
async fn many_at_once_store_the_same_blob_once() {
    let dir = tempfile::tempdir().unwrap();
    let blobs = open(dir.path());
    let large = content(1, 2_000_000);
    let small = blob(2, 1000);
    let tasks: Vec<_> = (0..16)
        .map(|_| {
            let (blobs, large, small) = (blobs.clone(), large.clone(), small.clone());
            tokio::spawn(async move {
                put_large(&blobs, &large).await;
                blobs.put_small_batch(vec![small]).await.unwrap();
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    let listed = list(&blobs).await;
    assert_eq!(listed.iter().filter(|info| info.is_chunked).count(), 1);
    let bytes: u64 = stored(dir.path()).iter().map(|(_, size)| size).sum();
    assert!(bytes < 2_010_000, "{bytes}");
    assert_eq!(read(&blobs, hash(&large)).await, Some(large));
}

#[tokio::test]
async fn a_listing_that_nobody_reads_to_its_end_ends() {
    let dir = tempfile::tempdir().unwrap();
    let blobs = open(dir.path());
    let small: Vec<_> = (0..5000).map(|n| blob(n, 10)).collect();
    blobs.put_small_batch(small).await.unwrap();
    let mut listing = blobs.list();
    assert!(listing.next().await.is_some());
    drop(listing);
    assert_eq!(list(&blobs).await.len(), 5000);
}
