//! Buckets that cannot be used, go away, or are another's; and moving into one.

use std::fs;

use super::super::folder;
use super::super::s3::BUCKET;
use super::*;
use crate::blobs::{BlobError, BucketOptions, Health, Moved};

fn refusal(dir: &Path, options: &BucketOptions) -> String {
    let bucket = match Bucket::new(options) {
        Ok(bucket) => bucket,
        Err(error) => return error.to_string(),
    };
    let settings = Settings {
        bucket: Some(bucket),
        ..settings(GC_GRACE)
    };
    match Blobs::open(dir, settings) {
        Ok(_) => "it was opened".to_owned(),
        Err(error) => error.to_string(),
    }
}

#[tokio::test]
async fn a_bucket_that_cannot_be_used_is_refused_with_its_reason() {
    let root = tempfile::tempdir().unwrap();
    let server = Server::start(root.path());
    let here = tempfile::tempdir().unwrap();
    let good = server.options();

    let keys = root.path().join("wrong-keys");
    let text = "[default]\naws_access_key_id=ada\naws_secret_access_key=byron\n";
    fs::write(&keys, text).unwrap();
    let wrong_keys = BucketOptions {
        credentials: Some(keys),
        ..good.clone()
    };
    let said = refusal(here.path(), &wrong_keys);
    assert!(
        said.contains("s3://things/blobs") && said.contains("credentials"),
        "{said}"
    );
    assert!(!said.contains("byron"), "{said}");

    drop(server);
    let said = refusal(here.path(), &good);
    assert!(said.contains("can be reached"), "{said}");
}

#[tokio::test]
async fn a_bucket_that_goes_away_comes_back() {
    let root = tempfile::tempdir().unwrap();
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(root.path());
    let (address, bucket) = (server.address, server.bucket());
    let settings = Settings {
        bucket: Some(bucket),
        ..settings(GC_GRACE)
    };
    let blobs = Blobs::open(dir.path(), settings).unwrap();
    let (before, during) = (blob(1, 1000), blob(2, 1000));
    blobs.put_small_batch(vec![before.clone()]).await.unwrap();
    drop(server);
    let error = blobs
        .put_small_batch(vec![during.clone()])
        .await
        .unwrap_err();
    let BlobError::Bucket(error) = error else {
        panic!("{error:?}")
    };
    assert!(error.to_string().contains("can be reached"), "{error}");
    // Nobody is told that it is there, and what is here can be read.
    assert_eq!(blobs.missing(vec![during.0]).await.unwrap(), [during.0]);
    assert_eq!(blobs.read(before.0).await.unwrap(), Some(before.1));
    let error = blobs.collection().await.sweep(false).await.unwrap_err();
    assert!(matches!(error, BlobError::Bucket(_)), "{error:?}");

    let _server = Server::start_at(root.path(), address);
    blobs.put_small_batch(vec![during.clone()]).await.unwrap();
    assert_eq!(read(&blobs, during.0).await, Some(during.1));
    blobs.collection().await.sweep(false).await.unwrap();
}

#[tokio::test]
async fn only_the_last_who_opened_it_deletes() {
    let dir = tempfile::tempdir().unwrap();
    let first = open_without_grace(dir.path());
    let small: Vec<_> = (0..20).map(|n| blob(n, 1000)).collect();
    first.put_small_batch(small.clone()).await.unwrap();
    let other = tempfile::tempdir().unwrap();
    let theirs = placed(dir.path(), settings(Duration::ZERO));
    let second = Blobs::open(other.path(), theirs).unwrap();
    let error = first.collection().await.sweep(false).await.unwrap_err();
    let source = std::error::Error::source(&error).unwrap().to_string();
    assert!(source.contains("another server"), "{error}: {source}");
    assert_eq!(list(&second).await.len(), 20);
    // Who only looks takes it from nobody, and deletes nothing.
    let Place::Server(server) = place(dir.path()) else {
        panic!("it is one")
    };
    let looking = BucketOptions {
        is_written: false,
        ..server.options()
    };
    let third = tempfile::tempdir().unwrap();
    let theirs = Settings {
        bucket: Some(Bucket::new(&looking).unwrap()),
        ..settings(Duration::ZERO)
    };
    let looker = Blobs::open(third.path(), theirs).unwrap();
    assert_eq!(list(&looker).await.len(), 20);
    looker.collection().await.sweep(false).await.unwrap_err();
    // It may still look what it would delete.
    assert_eq!(
        first.collection().await.sweep(true).await.unwrap().removed,
        20
    );
    collect(&second, &ids(&small[..3]), false).await;
    assert_eq!(list(&second).await.len(), 3);
}

#[tokio::test]
async fn a_folder_belongs_to_one_bucket_or_none() {
    let dir = tempfile::tempdir().unwrap();
    let blobs = folder::open(dir.path());
    blobs.put_small_batch(vec![blob(1, 100)]).await.unwrap();
    drop(blobs);
    let bucketed = || placed(dir.path(), settings(GC_GRACE));
    let Err(error) = Blobs::open(dir.path(), bucketed()) else {
        panic!("there are blobs in the folder")
    };
    assert!(matches!(error, BlobError::Unmoved { .. }), "{error:?}");
    fs::remove_dir_all(dir.path().join("packs")).unwrap();
    drop(Blobs::open(dir.path(), bucketed()).unwrap());
    let Err(error) = Blobs::open(dir.path(), settings(GC_GRACE)) else {
        panic!("they are in the bucket")
    };
    assert!(error.to_string().contains(BUCKET), "{error}");
    assert!(matches!(error, BlobError::Elsewhere { .. }), "{error:?}");
}

#[tokio::test]
async fn a_folder_can_be_moved_into_a_bucket() {
    let dir = tempfile::tempdir().unwrap();
    let old_large = content(5, 1_000_000);
    folder::files::put_file(dir.path(), &old_large);
    let blobs = folder::open(dir.path());
    let small: Vec<_> = (0..500).map(|n| blob(n, 700)).collect();
    blobs.put_small_batch(small.clone()).await.unwrap();
    let large = content(7, 30_000_000);
    let id = put_large(&blobs, &large).await;
    let before = list(&blobs).await.len();
    drop(blobs);
    let settings = || placed(dir.path(), settings(GC_GRACE));
    // The first time the bucket goes away in the middle.
    let left = Arc::new(std::sync::atomic::AtomicI64::new(4));
    let dying = Settings {
        steps_left: Some(left),
        ..settings()
    };
    Blobs::move_in(dir.path(), dying, |_| {}).await.unwrap_err();
    assert!(dir.path().join("packs").exists());
    let moved = Blobs::move_in(dir.path(), settings(), |_| {})
        .await
        .unwrap();
    assert_eq!(moved.blobs, before as u64, "{moved:?}");
    assert_eq!(moved.damaged, 0);
    assert!(dir.path().join("packs.moved").exists());
    change_machine(dir.path());
    let blobs = Blobs::open(dir.path(), settings()).unwrap();
    for (id, bytes) in small.iter().chain([&(hash(&old_large), old_large)]) {
        assert!(read(&blobs, *id).await.as_ref() == Some(bytes), "{id}");
    }
    assert_eq!(blobs.check(id).await.unwrap(), Health::Ok);
    drop(blobs);
    // Again it has nothing to do.
    let again = Blobs::move_in(dir.path(), settings(), |_| {})
        .await
        .unwrap();
    assert_eq!(again, Moved::default());
}

#[tokio::test]
async fn damage_in_a_folder_costs_what_is_damaged_when_it_is_moved() {
    let dir = tempfile::tempdir().unwrap();
    let blobs = folder::open(dir.path());
    let all: Vec<_> = (0..50).map(|n| blob(n, 4000)).collect();
    blobs.put_small_batch(all.clone()).await.unwrap();
    drop(blobs);
    // The length of one passes others, the length of the other passes the end.
    let pack = dir.path().join("packs/00000001.pack");
    for (bad, bit) in [(10, 13), (48, 17)] {
        damage::flip_length(&pack, &all[bad].1, bit);
    }
    let settings = || placed(dir.path(), settings(GC_GRACE));
    let moved = Blobs::move_in(dir.path(), settings(), |_| {})
        .await
        .unwrap();
    assert_eq!((moved.blobs, moved.damaged), (48, 2), "{moved:?}");
    let blobs = Blobs::open(dir.path(), settings()).unwrap();
    let bad = [all[10].0, all[48].0];
    assert_eq!(blobs.missing(ids(&all)).await.unwrap(), bad);
}
