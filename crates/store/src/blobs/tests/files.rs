//! What only files of a folder have: full disks, loss of power, how it was before.

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

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

/// A store that counts its steps on the file system.
fn open_counting(dir: &Path) -> (Blobs, Arc<AtomicI64>) {
    let left = Arc::new(AtomicI64::new(1 << 40));
    let settings = Settings {
        steps_left: Some(Arc::clone(&left)),
        ..settings(Duration::ZERO)
    };
    (Blobs::open(dir, settings).unwrap(), left)
}

/// How many steps it takes to force what is there to the disk.
async fn steps_of_sync(blobs: &Blobs, left: &AtomicI64) -> i64 {
    let before = left.load(Ordering::SeqCst);
    blobs.sync().await.unwrap();
    before - left.load(Ordering::SeqCst)
}

#[tokio::test]
async fn what_was_stored_is_forced_to_the_disk_once() {
    let dir = tempfile::tempdir().unwrap();
    let (blobs, left) = open_counting(dir.path());
    assert_eq!(steps_of_sync(&blobs, &left).await, 0, "there is nothing");
    for n in 0..20 {
        blobs.put_small_batch(vec![blob(n, 500)]).await.unwrap();
    }
    // The pack, and the folder that it is new in.
    assert_eq!(steps_of_sync(&blobs, &left).await, 2);
    assert_eq!(steps_of_sync(&blobs, &left).await, 0, "nothing is new");
    // What is there already is not written again.
    blobs.put_small_batch(vec![blob(3, 500)]).await.unwrap();
    assert_eq!(steps_of_sync(&blobs, &left).await, 0, "nothing is new");
    blobs.put_small_batch(vec![blob(20, 500)]).await.unwrap();
    let before = left.load(Ordering::SeqCst);
    let all = (0..8).map(|_| blobs.sync());
    for done in futures::future::join_all(all).await {
        done.unwrap();
    }
    assert_eq!(before - left.load(Ordering::SeqCst), 1, "they share one");
    // A recipe is forced when it is stored, with all before it.
    put_large(&blobs, &content(7, 300_000)).await;
    assert_eq!(steps_of_sync(&blobs, &left).await, 0, "nothing is new");
}

#[tokio::test]
async fn a_failed_sync_is_said_and_done_again() {
    let dir = tempfile::tempdir().unwrap();
    let (blobs, left) = open_counting(dir.path());
    blobs.put_small_batch(vec![blob(1, 500)]).await.unwrap();
    left.store(0, Ordering::SeqCst);
    let failed = blobs.sync().await;
    assert!(matches!(failed, Err(BlobError::Io { .. })), "{failed:?}");
    left.store(1 << 40, Ordering::SeqCst);
    assert_eq!(steps_of_sync(&blobs, &left).await, 2);
}

#[tokio::test]
async fn what_a_killed_process_stored_is_forced_to_the_disk_by_the_next() {
    let dir = tempfile::tempdir().unwrap();
    let (blobs, _) = open_counting(dir.path());
    let small = blob(1, 500);
    blobs.put_small_batch(vec![small.clone()]).await.unwrap();
    drop(blobs);
    let (blobs, left) = open_counting(dir.path());
    // Whoever is told that it is there sends it no more.
    assert_eq!(blobs.missing(vec![small.0]).await.unwrap(), []);
    assert_eq!(steps_of_sync(&blobs, &left).await, 2);
    drop(blobs);
    // What is old is on the disk.
    let pack = File::open(dir.path().join("packs/00000001.pack")).unwrap();
    let long_ago = Duration::from_millis(NOW_MS as u64) - Duration::from_secs(2 * 60 * 60);
    pack.set_modified(std::time::UNIX_EPOCH + long_ago).unwrap();
    let (blobs, left) = open_counting(dir.path());
    assert_eq!(steps_of_sync(&blobs, &left).await, 0);
}

/// A damaged record that was deleted, then sent again, is there at once.
#[tokio::test]
async fn what_was_damaged_and_deleted_is_there_when_it_is_sent_once() {
    let dir = tempfile::tempdir().unwrap();
    let blobs = open_without_grace(dir.path());
    let (bad, good) = (blob(1, 5000), blob(2, 5000));
    let both = vec![bad.clone(), good.clone()];
    blobs.put_small_batch(both).await.unwrap();
    flip(dir.path(), &bad.1);
    blobs.read(bad.0).await.unwrap_err();
    assert_eq!(blobs.missing(vec![bad.0]).await.unwrap(), [bad.0]);
    assert_eq!(collect(&blobs, &[good.0], false).await.removed, 1);
    blobs.put_small_batch(vec![bad.clone()]).await.unwrap();
    assert_eq!(blobs.missing(vec![bad.0]).await.unwrap(), []);
    assert_eq!(read(&blobs, bad.0).await, Some(bad.1));
}
