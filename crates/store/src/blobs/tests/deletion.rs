//! What nobody refers to goes, and nothing else does.

use super::*;
use crate::blobs::SMALL_BYTES_MAX;

/// Length of a record's header on disk.
const HEAD: u64 = 48;

#[tokio::test]
async fn deleted_blobs_are_gone_and_can_come_back() {
    let dir = tempfile::tempdir().unwrap();
    let blobs = open_without_grace(dir.path());
    let small: Vec<_> = (0..100).map(|n| blob(n, 100)).collect();
    blobs.put_small_batch(small.clone()).await.unwrap();
    let large = content(7, SMALL_BYTES_MAX + 1);
    let large_id = put_large(&blobs, &large).await;
    let all = list(&blobs).await.len() as u64;

    let mut gone = ids(&small[..10]);
    gone.push(large_id);
    let would = collect(&blobs, &ids(&small[10..]), true).await;
    let did = collect(&blobs, &ids(&small[10..]), false).await;
    assert_eq!(would, did);
    // The recipe and its chunks, too.
    assert_eq!((did.removed, did.kept), (all - 90, 90));
    for blobs in [blobs.clone(), open_without_grace(dir.path())] {
        assert_eq!(blobs.missing(gone.clone()).await.unwrap(), gone);
        assert_eq!(list(&blobs).await.len(), 90);
        assert!(read(&blobs, large_id).await.is_none());
    }
    blobs.put_small_batch(small[..10].to_vec()).await.unwrap();
    put_large(&blobs, &large).await;
    for blobs in [blobs.clone(), open_without_grace(dir.path())] {
        assert_eq!(list(&blobs).await.len() as u64, all);
        for (id, bytes) in &small {
            assert_eq!(read(&blobs, *id).await.as_ref(), Some(bytes));
        }
        assert_eq!(read(&blobs, large_id).await, Some(large.clone()));
    }
}

#[tokio::test]
async fn what_was_just_stored_or_asked_for_stays() {
    let dir = tempfile::tempdir().unwrap();
    let (id, bytes) = blob(1, 100);
    let large = content(2, 400_000);
    for is_first in [true, false] {
        // A restart neither forgets nor begins anew.
        let blobs = open(dir.path());
        if is_first {
            // The first period of a new store keeps everything.
            blobs
                .put_small_batch(vec![(id, bytes.clone())])
                .await
                .unwrap();
            put_large(&blobs, &large).await;
        }
        let all = list(&blobs).await.len() as u64;
        let collected = collect(&blobs, &[], false).await;
        assert_eq!((collected.removed, collected.kept), (0, all));
        assert_eq!(list(&blobs).await.len() as u64, all);
        assert_eq!(read(&blobs, hash(&large)).await.as_ref(), Some(&large));
    }
}

#[tokio::test]
async fn what_large_blobs_share_goes_with_the_last_of_them() {
    let dir = tempfile::tempdir().unwrap();
    let blobs = open_without_grace(dir.path());
    let first = content(1, 3_000_000);
    let mut second = first.to_vec();
    second[1_500_000] ^= 1;
    put_large(&blobs, &first).await;
    let one = list(&blobs).await.len();
    put_large(&blobs, &second).await;
    let both = list(&blobs).await.len();
    assert!(both <= one + 3, "{one} and {both}");

    collect(&blobs, &[hash(&second)], false).await;
    assert_eq!(list(&blobs).await.len(), one);
    for blobs in [blobs.clone(), open_without_grace(dir.path())] {
        assert!(read(&blobs, hash(&first)).await.is_none());
        assert_eq!(read(&blobs, hash(&second)).await.unwrap(), second);
    }
    let blobs = open_without_grace(dir.path());
    collect(&blobs, &[], false).await;
    assert_eq!(list(&blobs).await, []);
}

#[tokio::test]
async fn who_reads_a_large_blob_reads_it_to_its_end() {
    let dir = tempfile::tempdir().unwrap();
    let blobs = open_without_grace(dir.path());
    let large = content(1, 3_000_000);
    let id = put_large(&blobs, &large).await;
    let reader = blobs.get(id).await.unwrap().unwrap();
    collect(&blobs, &[], false).await;
    assert!(blobs.get(id).await.unwrap().is_none());
    assert_eq!(reader.read_all(true).await.unwrap(), large);
    drop(reader);
    collect(&blobs, &[], false).await;
    assert_eq!(list(&blobs).await, []);
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
    let used = || stored(dir.path()).iter().map(|(_, size)| size).sum::<u64>();
    let before = used();
    // A third: not worth a rewrite.
    let expected = Collected {
        removed: 600,
        removed_bytes: 600 * (1000 + HEAD),
        young: 0,
        kept: 1400,
    };
    let did = collect(&blobs, &ids(&all[600..]), false).await;
    assert_eq!(did, expected);
    assert!(used() > before || IS_MERGED);
    // Two thirds.
    collect(&blobs, &ids(&all[1400..]), false).await;
    assert!(used() < before / 2, "{} of {before}", used());
    // Who has a blob open reads on.
    assert_eq!(held.read_all(true).await.unwrap(), all[0].1);
    let again = blob(1, 1000);
    blobs.put_small_batch(vec![again.clone()]).await.unwrap();
    for blobs in [blobs.clone(), open_without_grace(dir.path())] {
        assert_eq!(list(&blobs).await.len(), 601);
        for (id, bytes) in all[1400..].iter().chain([&again]) {
            assert_eq!(read(&blobs, *id).await.as_ref(), Some(bytes));
        }
    }
    // All of it.
    let blobs = open_without_grace(dir.path());
    collect(&blobs, &[], false).await;
    assert_eq!(used(), 0);
    blobs.put_small_batch(all.clone()).await.unwrap();
    assert_eq!(list(&open(dir.path())).await.len(), 2000);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn collecting_beside_uploads_takes_nothing_from_them() {
    let dir = tempfile::tempdir().unwrap();
    // What is stored now is young; what was there before a period ago is not.
    drop(open(dir.path()));
    std::fs::write(dir.path().join("grace/clock"), "1 0 false false\n").unwrap();
    let blobs = open_without_grace(dir.path());
    let doomed: Vec<_> = (0..3000).map(|n| blob(n, 500)).collect();
    blobs.put_small_batch(doomed.clone()).await.unwrap();
    drop(blobs);
    let blobs = open(dir.path());
    let uploads: Vec<_> = (0..4)
        .map(|task| {
            let blobs = blobs.clone();
            tokio::spawn(async move {
                let mut mine = Vec::new();
                for number in 0..20 {
                    let number = 10_000 * (task + 1) + number * 100;
                    let batch: Vec<_> = (number..number + 20).map(|n| blob(n, 700)).collect();
                    blobs.put_small_batch(batch.clone()).await.unwrap();
                    mine.extend(batch);
                    let large = content(number, 600_000);
                    mine.push((put_large(&blobs, &large).await, large));
                    // Some that are doomed are wanted all the same, just now.
                    let wanted = doomed_of(number);
                    let missing = blobs.missing(vec![wanted.0]).await.unwrap();
                    if missing.is_empty() {
                        mine.push(wanted);
                    }
                }
                mine
            })
        })
        .collect();
    let mut removed = 0;
    while !uploads.iter().all(tokio::task::JoinHandle::is_finished) {
        removed += collect(&blobs, &[], false).await.removed;
    }
    removed += collect(&blobs, &[], false).await.removed;
    for upload in uploads {
        for (id, bytes) in upload.await.unwrap() {
            assert_eq!(read(&blobs, id).await.as_ref(), Some(&bytes));
        }
    }
    assert!(removed > 2_000, "{removed}");
    let kept = list(&blobs).await;
    assert_eq!(list(&open(dir.path())).await, kept);
}

fn doomed_of(number: u64) -> (BlobId, Bytes) {
    blob(number / 100 % 3000, 500)
}
