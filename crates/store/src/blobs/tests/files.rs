//! What only files of a folder have: full disks, loss of power, how it was before.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt;

use super::*;
use crate::blobs::{BlobError, SMALL_BYTES_MAX};
use crate::logs::tests::full_disk::SmallDisk;

#[tokio::test]
async fn a_full_disk_leaves_nothing_half_made() {
    let Some(disk) = SmallDisk::mount() else {
        return;
    };
    let dir = disk.path().join("blobs");
    let blobs = open(&dir);
    let first = blob(1, 1000);
    blobs.put_small_batch(vec![first.clone()]).await.unwrap();
    put_large(&blobs, &content(2, 300_000)).await;
    disk.fill_but(100_000);
    let before = list(&blobs).await;

    let many: Vec<_> = (10..60).map(|n| blob(n, 8000)).collect();
    let result = blobs.put_small_batch(many.clone()).await;
    assert!(matches!(result, Err(BlobError::Full { .. })), "{result:?}");
    let large = content(3, 500_000);
    let mut writer = blobs.writer();
    writer.write(&large).await.unwrap();
    let result = writer.finish(hash(&large), 500_000).await;
    assert!(matches!(result, Err(BlobError::Full { .. })), "{result:?}");
    assert_eq!(list(&blobs).await, before);
    assert_eq!(blobs.missing(ids(&many)).await.unwrap(), ids(&many));

    disk.make_room();
    blobs.put_small_batch(many.clone()).await.unwrap();
    for blobs in [blobs, open(&dir)] {
        assert_eq!(list(&blobs).await.len(), before.len() + 50);
        assert_eq!(read(&blobs, first.0).await.as_ref(), Some(&first.1));
        assert_eq!(blobs.missing(ids(&many)).await.unwrap(), []);
    }
}

#[tokio::test]
async fn a_recipe_without_its_chunks_does_not_count() {
    let dir = tempfile::tempdir().unwrap();
    let blobs = open(dir.path());
    let bytes = content(1, SMALL_BYTES_MAX * 3);
    let id = put_large(&blobs, &bytes).await;
    let small = blob(5, 1000);
    blobs.put_small_batch(vec![small.clone()]).await.unwrap();
    drop(blobs);
    // A loss of power took bytes, but not what was written behind them.
    let pack = dir.path().join("packs/00000001.pack");
    let file = OpenOptions::new().write(true).open(&pack).unwrap();
    file.write_all_at(&vec![0; 100_000], 10).unwrap();
    fs::remove_file(pack.with_extension("idx")).unwrap();
    let blobs = open(dir.path());
    assert_eq!(blobs.missing(vec![id, small.0]).await.unwrap(), [id]);
    assert_eq!(put_large(&blobs, &bytes).await, id);
    for blobs in [blobs, open(dir.path())] {
        assert_eq!(blobs.missing(vec![id]).await.unwrap(), []);
        assert_eq!(read(&blobs, id).await.as_ref(), Some(&bytes));
    }
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
    collect(&blobs, &ids(&all[60..]), false).await;
    drop(blobs);
    // As if the old pack had not been removed any more, nor its deletions noted.
    for (path, bytes) in old {
        assert!(!path.exists());
        fs::write(path, bytes).unwrap();
    }
    let blobs = open_without_grace(dir.path());
    assert_eq!(list(&blobs).await.len(), 100);
    collect(&blobs, &ids(&all[60..]), false).await;
    for blobs in [blobs.clone(), open_without_grace(dir.path())] {
        assert_eq!(list(&blobs).await.len(), 40);
        for (id, bytes) in &all[60..] {
            assert_eq!(read(&blobs, *id).await.as_ref(), Some(bytes));
        }
    }
}

#[tokio::test]
async fn large_blobs_in_files_of_their_own_go_like_others() {
    let dir = tempfile::tempdir().unwrap();
    let [kept, gone] = [1, 2].map(|n| content(n, 1_000_000));
    for bytes in [&kept, &gone] {
        put_file(dir.path(), bytes);
    }
    let blobs = open_without_grace(dir.path());
    let did = collect(&blobs, &[hash(&kept)], false).await;
    assert_eq!((did.removed, did.kept), (1, 1));
    assert_eq!(read(&blobs, hash(&kept)).await, Some(kept.clone()));
    assert!(blobs.get(hash(&gone)).await.unwrap().is_none());
    // What is there in a file is not stored once more.
    put_large(&blobs, &kept).await;
    assert_eq!(blobs.missing(vec![hash(&kept)]).await.unwrap(), []);
    assert!(list(&blobs).await.iter().all(|info| !info.is_chunked));
}

/// A large blob as it was kept before large blobs were cut into chunks.
pub(in super::super) fn put_file(dir: &Path, bytes: &[u8]) {
    let name = hash(bytes).to_string();
    let folder = dir.join("large").join(&name[..3]);
    fs::create_dir_all(&folder).unwrap();
    fs::write(folder.join(name), bytes).unwrap();
}
