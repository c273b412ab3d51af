//! What is in the bucket, and what of it is on the local disk.

use std::fs;

use super::*;
use crate::blobs::{Announced, BlobError, Health, SMALL_BYTES_MAX};

#[tokio::test]
async fn a_new_machine_reads_what_is_in_the_packs_and_not_the_packs() {
    let dir = tempfile::tempdir().unwrap();
    let blobs = open_without_grace(dir.path());
    let small: Vec<_> = (0..3000).map(|n| blob(n, 200)).collect();
    blobs.put_small_batch(small.clone()).await.unwrap();
    let large = content(7, 3_000_000);
    let large_id = put_large(&blobs, &large).await;
    collect(&blobs, &ids(&small[1000..]), false).await;
    let before = list(&blobs).await;
    drop(blobs);
    change_machine(dir.path());
    let blobs = open(dir.path());
    // More lines than are read at first, and what is deleted.
    assert_eq!(list(&blobs).await, before);
    assert_eq!(
        blobs.missing(ids(&small[..1000])).await.unwrap().len(),
        1000
    );
    assert_eq!(blobs.missing(vec![large_id]).await.unwrap(), [large_id]);
    let cached = sizes(&local(dir.path()).join("cache"));
    assert_eq!(cached, [], "only the ends were read");
    assert_eq!(
        read(&blobs, small[2999].0).await,
        Some(small[2999].1.clone())
    );
    assert!(!sizes(&local(dir.path()).join("cache")).is_empty());
    assert_eq!(put_large(&blobs, &large).await, large_id);
    assert_eq!(read(&blobs, large_id).await, Some(large));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_comes_together_is_one_object() {
    let dir = tempfile::tempdir().unwrap();
    let blobs = open(dir.path());
    let tasks: Vec<_> = (0..200)
        .map(|n| {
            let blobs = blobs.clone();
            // Everybody also stores something that all have.
            let batch = vec![blob(n, 500), blob(1_000_000, 500)];
            tokio::spawn(async move { blobs.put_small_batch(batch).await })
        })
        .collect();
    for task in tasks {
        task.await.unwrap().unwrap();
    }
    let objects = stored(dir.path());
    assert!(objects.len() < 100, "{}", objects.len());
    assert_eq!(list(&blobs).await.len(), 201);
    let bytes: u64 = objects.iter().map(|(_, bytes)| bytes).sum();
    assert!(
        bytes < 201 * 620 + 100 * 50,
        "{bytes}: nothing is there twice"
    );
}

#[tokio::test]
async fn small_packs_are_merged() {
    let dir = tempfile::tempdir().unwrap();
    let blobs = open_without_grace(dir.path());
    let all: Vec<_> = (0..50).map(|n| blob(n, 20_000)).collect();
    for one in &all {
        blobs.put_small_batch(vec![one.clone()]).await.unwrap();
    }
    let mut larges = Vec::new();
    for n in 100..112 {
        larges.push(put_large(&blobs, &content(n, SMALL_BYTES_MAX + 1000)).await);
    }
    assert!(stored(dir.path()).len() >= 74);
    let reader = blobs.get(larges[3]).await.unwrap().unwrap();
    let kept: Vec<BlobId> = ids(&all).into_iter().chain(larges.clone()).collect();
    collect(&blobs, &kept, false).await;
    // One of bytes and one of recipes.
    assert_eq!(stored(dir.path()).len(), 2, "{:?}", stored(dir.path()));
    let expected = content(103, SMALL_BYTES_MAX + 1000);
    assert_eq!(reader.read_all(true).await.unwrap(), expected);
    drop(blobs);
    change_machine(dir.path());
    let blobs = open_without_grace(dir.path());
    for (id, bytes) in &all {
        assert_eq!(read(&blobs, *id).await.as_ref(), Some(bytes));
    }
    for id in larges {
        assert_eq!(blobs.check(id).await.unwrap(), Health::Ok);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn very_many_small_packs_are_merged_by_themselves() {
    let dir = tempfile::tempdir().unwrap();
    make_quick(dir.path());
    let blobs = open(dir.path());
    let all: Vec<_> = (0..2000).map(|n| blob(n, 300)).collect();
    let mut most = 0;
    for one in &all {
        blobs.put_small_batch(vec![one.clone()]).await.unwrap();
        // Whoever reads meanwhile reads on.
        let early = &all[17];
        if one.0 != early.0 && blobs.missing(vec![early.0]).await.unwrap().is_empty() {
            assert_eq!(read(&blobs, early.0).await.as_ref(), Some(&early.1));
        }
        most = most.max(stored(dir.path()).len());
    }
    assert!(most < 1500, "{most}");
    drop(blobs);
    change_machine(dir.path());
    let blobs = open(dir.path());
    for (id, bytes) in &all {
        assert_eq!(read(&blobs, *id).await.as_ref(), Some(bytes));
    }
    assert_eq!(list(&blobs).await.len(), all.len());
}

#[tokio::test]
async fn what_is_kept_here_is_bounded_and_nothing_hangs_on_it() {
    let dir = tempfile::tempdir().unwrap();
    let Place::Server(server) = place(dir.path()) else {
        panic!("it is one")
    };
    for cache_bytes in [0, 3_000_000] {
        let options = crate::blobs::BucketOptions {
            cache_bytes,
            ..server.options()
        };
        let settings = Settings {
            bucket: Some(Bucket::new(&options).unwrap()),
            ..settings(GC_GRACE)
        };
        let blobs = Blobs::open(dir.path(), settings).unwrap();
        let mut all = Vec::new();
        for n in 0..6 {
            let bytes = content(cache_bytes + n, 2_000_000);
            all.push((put_large(&blobs, &bytes).await, bytes));
        }
        for (id, bytes) in &all {
            assert_eq!(read(&blobs, *id).await.as_ref(), Some(bytes));
        }
        let kept = sizes(&local(dir.path()).join("cache"));
        let kept: u64 = kept.iter().map(|(_, bytes)| bytes).sum();
        assert!(kept <= cache_bytes + 2_000_000, "{kept} of {cache_bytes}");
    }
}

#[tokio::test]
async fn a_damaged_copy_on_the_local_disk_is_fetched_anew() {
    let dir = tempfile::tempdir().unwrap();
    let blobs = open(dir.path());
    let bytes = content(1, 2_000_000);
    let id = put_large(&blobs, &bytes).await;
    for (path, _) in sizes(&local(dir.path()).join("cache")) {
        let len = fs::metadata(&path).unwrap().len();
        fs::write(path, vec![7; len as usize]).unwrap();
    }
    assert_eq!(read(&blobs, id).await, Some(bytes));
    assert_eq!(blobs.check(id).await.unwrap(), Health::Ok);
    for (path, _) in sizes(&local(dir.path()).join("heads")) {
        fs::write(path, b"nothing").unwrap();
    }
    for blobs in [blobs, open(dir.path())] {
        assert_eq!(blobs.check(id).await.unwrap(), Health::Ok);
    }
}

#[tokio::test]
async fn all_of_a_bucket_can_be_read_anew() {
    let dir = tempfile::tempdir().unwrap();
    let blobs = open(dir.path());
    let (large, other) = (content(1, 1_000_000), content(2, 500_000));
    let chunks = [put_large(&blobs, &large).await];
    let small: Vec<_> = (0..10).map(|n| blob(n, 300)).collect();
    blobs.put_small_batch(small.clone()).await.unwrap();
    let well = put_large(&blobs, &other).await;
    assert!(blobs.reread().await.unwrap());
    for id in ids(&small).into_iter().chain(chunks).chain([well]) {
        assert_eq!(blobs.known_health(id).await.unwrap(), Health::Ok);
    }
    // What is here is still good, and is not what is looked at.
    for (path, _) in stored(dir.path()) {
        if let Some(at) = memchr::memmem::find(&fs::read(&path).unwrap(), &large[500_000..500_064])
        {
            let mut wrong = fs::read(&path).unwrap();
            wrong[at] ^= 1;
            fs::write(&path, wrong).unwrap();
        }
    }
    assert!(blobs.reread().await.unwrap());
    let health = blobs.known_health(chunks[0]).await.unwrap();
    assert_eq!(health, Health::Corrupt);
    assert_eq!(blobs.known_health(well).await.unwrap(), Health::Ok);
    let absent = blob(77, 100).0;
    assert_eq!(blobs.known_health(absent).await.unwrap(), Health::Missing);
    // Sent again, it is well again; and the damaged pack is left alone by a collection.
    put_large(&blobs, &large).await;
    assert_eq!(blobs.known_health(chunks[0]).await.unwrap(), Health::Ok);
    assert_eq!(blobs.check(chunks[0]).await.unwrap(), Health::Ok);
}

#[tokio::test]
async fn a_pack_that_is_gone_is_said_and_can_be_sent_again() {
    let dir = tempfile::tempdir().unwrap();
    let blobs = open(dir.path());
    let bytes = content(1, 1_000_000);
    let (chunks, id, recipe) = chunks::cut(&bytes);
    put_large(&blobs, &bytes).await;
    let kept = blob(9, 100);
    fs::remove_file(pack(dir.path())).unwrap();
    blobs.put_small_batch(vec![kept.clone()]).await.unwrap();
    drop(blobs);
    fs::remove_dir_all(local(dir.path()).join("cache")).unwrap();
    let blobs = open(dir.path());
    assert_eq!(blobs.missing(vec![id, kept.0]).await.unwrap(), [id]);
    let announced = blobs.announce(vec![(id, recipe)]).await.unwrap();
    let Announced::Lacks(lacking) = &announced[0] else {
        panic!("{announced:?}")
    };
    assert_eq!(lacking.len(), chunks.len());
    put_large(&blobs, &bytes).await;
    assert_eq!(read(&blobs, id).await, Some(bytes));

    // Also when it goes while it is in use.
    let other = blob(10, 5000);
    blobs.put_small_batch(vec![other.clone()]).await.unwrap();
    for (path, _) in stored(dir.path()) {
        if memchr::memmem::find(&fs::read(&path).unwrap(), &other.1).is_some() {
            fs::remove_file(path).unwrap();
        }
    }
    for (path, _) in sizes(&local(dir.path()).join("cache")) {
        fs::write(path, b"").unwrap();
    }
    assert!(blobs.read(other.0).await.unwrap().is_none());
    assert_eq!(blobs.missing(vec![other.0]).await.unwrap(), [other.0]);
    blobs.put_small_batch(vec![other.clone()]).await.unwrap();
    assert_eq!(read(&blobs, other.0).await, Some(other.1));
}

#[tokio::test]
async fn a_pack_whose_end_is_damaged_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let blobs = open_without_grace(dir.path());
    let small = blob(1, 1000);
    blobs.put_small_batch(vec![small.clone()]).await.unwrap();
    drop(blobs);
    let path = pack(dir.path());
    let good = fs::read(&path).unwrap();
    let mut bad = good.clone();
    *bad.last_mut().unwrap() ^= 1;
    fs::write(&path, bad).unwrap();
    change_machine(dir.path());
    let blobs = open_without_grace(dir.path());
    assert_eq!(blobs.missing(vec![small.0]).await.unwrap(), [small.0]);
    let read: Result<_, BlobError> = blobs.read(small.0).await;
    assert!(read.unwrap().is_none());
    collect(&blobs, &[], false).await;
    drop(blobs);
    fs::write(&path, good).unwrap();
    let blobs = open_without_grace(dir.path());
    assert_eq!(super::super::read(&blobs, small.0).await, Some(small.1));
}
