//! What nobody refers to goes, and nothing else does.

use std::fs;

use super::super::{Deleted, SMALL_BYTES_MAX};
use super::*;
use crate::logs::tests::sizes;

#[tokio::test]
async fn deleted_blobs_are_gone_and_can_come_back() {
    let dir = tempfile::tempdir().unwrap();
    let blobs = open_without_grace(dir.path());
    let small: Vec<_> = (0..100).map(|n| blob(n, 100)).collect();
    blobs.put_small_batch(small.clone()).await.unwrap();
    let large = content(7, SMALL_BYTES_MAX + 1);
    let large_id = put_large(&blobs, &large).await;

    let mut gone = ids(&small[..10]);
    gone.push(large_id);
    gone.push(BlobId::from_bytes([9; 32]));
    gone.push(small[0].0);
    let expected = Deleted {
        removed: 11,
        kept: 0,
        missing: 1,
    };
    assert_eq!(blobs.delete(gone.clone()).await.unwrap(), expected);
    gone.pop();
    for blobs in [blobs.clone(), open_without_grace(dir.path())] {
        assert_eq!(blobs.missing(gone.clone()).await.unwrap(), gone);
        assert_eq!(list(&blobs).await.len(), 90);
        assert!(read(&blobs, large_id).await.is_none());
    }
    blobs.put_small_batch(small[..10].to_vec()).await.unwrap();
    put_large(&blobs, &large).await;
    for blobs in [blobs.clone(), open_without_grace(dir.path())] {
        assert_eq!(list(&blobs).await.len(), 101);
        for (id, bytes) in &small {
            assert_eq!(read(&blobs, *id).await.as_ref(), Some(bytes));
        }
    }
}

#[tokio::test]
async fn what_was_just_stored_or_asked_for_stays() {
    let dir = tempfile::tempdir().unwrap();
    let (id, bytes) = blob(1, 100);
    let large = content(2, 400_000);
    {
        let blobs = open(dir.path());
        blobs.put_small_batch(vec![(id, bytes)]).await.unwrap();
        let large_id = put_large(&blobs, &large).await;
        let kept = Deleted {
            removed: 0,
            kept: 2,
            missing: 0,
        };
        assert_eq!(blobs.delete(vec![id, large_id]).await.unwrap(), kept);
    }
    // A restart begins the grace anew.
    let blobs = open(dir.path());
    let kept = Deleted {
        removed: 0,
        kept: 2,
        missing: 0,
    };
    assert_eq!(blobs.delete(vec![id, hash(&large)]).await.unwrap(), kept);
    assert_eq!(list(&blobs).await.len(), 2);
}

#[tokio::test]
async fn the_room_of_dead_blobs_is_free_again() {
    let dir = tempfile::tempdir().unwrap();
    let blobs = open_without_grace(dir.path());
    let all: Vec<_> = (0..2000).map(|n| blob(n, 1000)).collect();
    for batch in all.chunks(100) {
        blobs.put_small_batch(batch.to_vec()).await.unwrap();
    }
    let held = blobs.get(all[0].0).await.unwrap().unwrap();
    let used = || sizes(dir.path()).iter().map(|(_, size)| size).sum::<u64>();
    let before = used();
    // A third: not worth a rewrite.
    blobs.delete(ids(&all[..600])).await.unwrap();
    assert!(used() > before);
    // Two thirds.
    blobs.delete(ids(&all[600..1300])).await.unwrap();
    assert!(used() < before / 2, "{} of {before}", used());
    // Who has a blob open reads on.
    assert_eq!(held.read_all(true).await.unwrap(), all[0].1);
    let again = blob(1, 1000);
    blobs.put_small_batch(vec![again.clone()]).await.unwrap();
    for blobs in [blobs.clone(), open_without_grace(dir.path())] {
        assert_eq!(list(&blobs).await.len(), 701);
        for (id, bytes) in all[1300..].iter().chain([&again]) {
            assert_eq!(read(&blobs, *id).await.as_ref(), Some(bytes));
        }
    }
    // All of it.
    let rest = list(&blobs).await.iter().map(|info| info.id).collect();
    blobs.delete(rest).await.unwrap();
    assert_eq!(used(), 0);
    blobs.put_small_batch(all.clone()).await.unwrap();
    assert_eq!(list(&open(dir.path())).await.len(), 2000);
}

#[tokio::test]
async fn a_rewrite_that_was_cut_short_doubles_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let blobs = open_without_grace(dir.path());
    let all: Vec<_> = (0..100).map(|n| blob(n, 1000)).collect();
    blobs.put_small_batch(all.clone()).await.unwrap();
    drop(blobs);
    let old = ["pack", "idx"].map(|extension| {
        let path = dir.path().join(format!("packs/00000001.{extension}"));
        let bytes = fs::read(&path).unwrap();
        (path, bytes)
    });
    let blobs = open_without_grace(dir.path());
    blobs.delete(ids(&all[..60])).await.unwrap();
    drop(blobs);
    // As if the old pack had not been removed any more, nor its deletions noted.
    for (path, bytes) in old {
        assert!(!path.exists());
        fs::write(path, bytes).unwrap();
    }
    let blobs = open_without_grace(dir.path());
    assert_eq!(list(&blobs).await.len(), 100);
    blobs.delete(ids(&all[..60])).await.unwrap();
    for blobs in [blobs.clone(), open_without_grace(dir.path())] {
        assert_eq!(list(&blobs).await.len(), 40);
        for (id, bytes) in &all[60..] {
            assert_eq!(read(&blobs, *id).await.as_ref(), Some(bytes));
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn collecting_beside_uploads_takes_nothing_from_them() {
    let dir = tempfile::tempdir().unwrap();
    let blobs = open_without_grace(dir.path());
    let doomed: Vec<_> = (0..3000).map(|n| blob(n, 500)).collect();
    blobs.put_small_batch(doomed.clone()).await.unwrap();
    let uploads: Vec<_> = (0..4)
        .map(|task| {
            let blobs = blobs.clone();
            tokio::spawn(async move {
                let mine: Vec<_> = (0..500)
                    .map(|n| blob(10_000 * (task + 1) + n, 700))
                    .collect();
                for batch in mine.chunks(20) {
                    blobs.put_small_batch(batch.to_vec()).await.unwrap();
                    for (id, bytes) in batch {
                        assert_eq!(read(&blobs, *id).await.as_ref(), Some(bytes));
                    }
                }
                mine
            })
        })
        .collect();
    for some in ids(&doomed).chunks(300) {
        assert_eq!(blobs.delete(some.to_vec()).await.unwrap().removed, 300);
    }
    for upload in uploads {
        for (id, bytes) in upload.await.unwrap() {
            assert_eq!(read(&blobs, id).await.as_ref(), Some(&bytes));
        }
    }
    assert_eq!(list(&blobs).await.len(), 2000);
    assert_eq!(list(&open(dir.path())).await.len(), 2000);
}
