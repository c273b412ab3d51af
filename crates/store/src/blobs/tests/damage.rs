//! Crashes at every byte, and bytes that change.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use super::folder::files::put_file;
use super::folder::{open, open_without_grace};
use super::*;
use crate::blobs::{BlobError, Health};
use crate::logs::tests::sizes;

fn pack(dir: &Path) -> PathBuf {
    dir.join("packs/00000001.pack")
}

fn index(dir: &Path) -> PathBuf {
    dir.join("packs/00000001.idx")
}

async fn small_store(dir: &Path) -> Vec<(BlobId, Bytes)> {
    let blobs = open(dir);
    let all: Vec<_> = (0..5).map(|n| blob(n, 20 + n as usize)).collect();
    blobs.put_small_batch(all[..2].to_vec()).await.unwrap();
    blobs.put_small_batch(all[2..].to_vec()).await.unwrap();
    all
}

/// Opens what is left, sees that it is a whole beginning, and that it can go on.
async fn check_goes_on(dir: &Path, all: &[(BlobId, Bytes)], left: usize, what: &str) {
    let blobs = open(dir);
    assert_eq!(list(&blobs).await.len(), left, "{what}");
    for (id, bytes) in &all[..left] {
        assert_eq!(read(&blobs, *id).await.as_ref(), Some(bytes), "{what}");
    }
    assert_eq!(
        blobs.missing(ids(all)).await.unwrap(),
        ids(&all[left..]),
        "{what}"
    );
    blobs.put_small_batch(all.to_vec()).await.unwrap();
    for blobs in [blobs, open(dir)] {
        for (id, bytes) in all {
            assert_eq!(read(&blobs, *id).await.as_ref(), Some(bytes), "{what}");
        }
        assert_eq!(list(&blobs).await.len(), all.len(), "{what}");
    }
}

#[tokio::test]
async fn a_pack_cut_at_any_byte_keeps_its_whole_records() {
    let whole = tempfile::tempdir().unwrap();
    let all = small_store(whole.path()).await;
    let bytes = fs::read(pack(whole.path())).unwrap();
    let entries = fs::read(index(whole.path())).unwrap();
    for cut in 0..=bytes.len() {
        // A killed process leaves an index behind the pack, a loss of power any.
        for entries in [&entries[..], &entries[..48], &entries[..30], &[]] {
            let dir = tempfile::tempdir().unwrap();
            fs::create_dir_all(dir.path().join("packs")).unwrap();
            fs::write(pack(dir.path()), &bytes[..cut]).unwrap();
            fs::write(index(dir.path()), entries).unwrap();
            let mut end = 0;
            let ends = all.iter().map(|(_, bytes)| {
                end += 48 + bytes.len();
                end
            });
            let left = ends.filter(|end| *end <= cut).count();
            let what = format!("cut at {cut}, index {}", entries.len());
            check_goes_on(dir.path(), &all, left, &what).await;
        }
    }
}

#[tokio::test]
async fn an_index_with_any_byte_changed_is_made_anew() {
    let whole = tempfile::tempdir().unwrap();
    let all = small_store(whole.path()).await;
    let entries = fs::read(index(whole.path())).unwrap();
    for at in 0..entries.len() {
        let mut wrong = entries.clone();
        wrong[at] ^= 0x10;
        fs::write(index(whole.path()), wrong).unwrap();
        check_goes_on(whole.path(), &all, all.len(), &format!("byte {at}")).await;
        assert_eq!(fs::read(index(whole.path())).unwrap(), entries);
    }
}

#[tokio::test]
async fn damage_in_a_pack_costs_one_blob_and_is_said() {
    let whole = tempfile::tempdir().unwrap();
    let all = small_store(whole.path()).await;
    let good = fs::read(pack(whole.path())).unwrap();
    let second = 48 + all[0].1.len();
    let entries = fs::read(index(whole.path())).unwrap();
    for at in second..second + 48 + all[1].1.len() {
        let mut bytes = good.clone();
        bytes[at] ^= 0x10;
        fs::write(pack(whole.path()), &bytes).unwrap();
        fs::write(index(whole.path()), &entries).unwrap();
        let blobs = open(whole.path());
        for (number, (id, _)) in all.iter().enumerate() {
            // Bytes 8 to 15 are the time, which no hash covers.
            let hurt = number == 1 && !(second + 8..second + 16).contains(&at);
            let expected = if hurt { Health::Corrupt } else { Health::Ok };
            assert_eq!(blobs.check(*id).await.unwrap(), expected, "byte {at}");
        }
        // Also when the index has to be made anew from the damaged pack.
        drop(blobs);
        fs::write(index(whole.path()), []).unwrap();
        let blobs = open(whole.path());
        for (id, _) in all.iter().skip(2) {
            assert_eq!(blobs.check(*id).await.unwrap(), Health::Ok, "byte {at}");
        }
    }
}

/// Flips a bit of the length that stands before these bytes, by which another record seems
/// to follow them.
pub(super) fn flip_length(pack: &Path, bytes: &[u8], bit: usize) {
    let all = fs::read(pack).unwrap();
    let at = memchr::memmem::find(&all, &bytes[..64]).unwrap() - 48 + 4 + bit / 8;
    let file = OpenOptions::new().write(true).open(pack).unwrap();
    let flipped = all[at] ^ 1 << (bit % 8);
    file.write_all_at(&[flipped], at as u64).unwrap();
}

#[tokio::test]
async fn a_flipped_length_of_a_dead_record_costs_no_other_when_its_pack_is_rewritten() {
    let dir = tempfile::tempdir().unwrap();
    let blobs = open_without_grace(dir.path());
    let dead: Vec<_> = (0..200).map(|n| blob(n, 4096)).collect();
    let live: Vec<_> = (1000..1060).map(|n| blob(n, 4096)).collect();
    blobs.put_small_batch(dead.clone()).await.unwrap();
    blobs.put_small_batch(live.clone()).await.unwrap();
    for bit in [17, 12] {
        flip_length(&pack(dir.path()), &dead[199].1, bit);
        assert_eq!(
            list(&blobs).await.len(),
            260,
            "a list goes by what is known"
        );
        flip_length(&pack(dir.path()), &dead[199].1, bit);
    }
    flip_length(&pack(dir.path()), &dead[199].1, 17);
    collect(&blobs, &ids(&live), false).await;
    assert!(!pack(dir.path()).exists(), "it was rewritten");
    for blobs in [blobs, open_without_grace(dir.path())] {
        assert_eq!(blobs.missing(ids(&live)).await.unwrap(), []);
        for (id, bytes) in &live {
            assert_eq!(read(&blobs, *id).await.as_ref(), Some(bytes));
        }
    }
}

#[tokio::test]
async fn a_flipped_length_of_a_live_record_costs_that_one_when_its_pack_is_rewritten() {
    // Behind the end of the pack; over the next records; too short; more than any has.
    for bit in [17, 12, 11, 24] {
        let dir = tempfile::tempdir().unwrap();
        let blobs = open_without_grace(dir.path());
        let dead: Vec<_> = (0..200).map(|n| blob(n, 4000)).collect();
        let live: Vec<_> = (1000..1010).map(|n| blob(n, 4000)).collect();
        blobs.put_small_batch(dead).await.unwrap();
        blobs.put_small_batch(live.clone()).await.unwrap();
        let (bad, bad_bytes) = live[5].clone();
        flip_length(&pack(dir.path()), &bad_bytes, bit);
        for _ in 0..2 {
            collect(&blobs, &ids(&live), false).await;
        }
        assert!(!pack(dir.path()).exists(), "it was rewritten");
        assert_eq!(blobs.missing(ids(&live)).await.unwrap(), [bad], "bit {bit}");
        blobs.put_small_batch(vec![(bad, bad_bytes)]).await.unwrap();
        for blobs in [blobs, open_without_grace(dir.path())] {
            assert_eq!(blobs.missing(ids(&live)).await.unwrap(), [], "bit {bit}");
            for (id, bytes) in &live {
                assert_eq!(read(&blobs, *id).await.as_ref(), Some(bytes));
            }
        }
    }
}

#[tokio::test]
async fn a_flipped_length_costs_no_other_when_a_pack_is_opened() {
    let whole = tempfile::tempdir().unwrap();
    let blobs = open(whole.path());
    let all: Vec<_> = (0..20).map(|n| blob(n, 1000)).collect();
    blobs.put_small_batch(all.clone()).await.unwrap();
    drop(blobs);
    let good = fs::read(pack(whole.path())).unwrap();
    let entries = fs::read(index(whole.path())).unwrap();
    // The index may lack any number of records, as a killed process leaves it.
    for (known, bad) in [(20, 5), (20, 19), (6, 5), (7, 5), (1, 0), (0, 5)] {
        for bit in [5, 8, 10, 12, 13, 17, 24] {
            fs::write(pack(whole.path()), &good).unwrap();
            fs::write(index(whole.path()), &entries[..known * 24]).unwrap();
            flip_length(&pack(whole.path()), &all[bad].1, bit);
            for _ in 0..2 {
                let blobs = open(whole.path());
                for (number, (id, bytes)) in all.iter().enumerate() {
                    let what = format!("{number} with {bad} bad, {known} known, bit {bit}");
                    let health = blobs.check(*id).await.unwrap();
                    assert_eq!(health == Health::Ok, number != bad, "{what}: {health:?}");
                    if number != bad {
                        assert_eq!(read(&blobs, *id).await.as_ref(), Some(bytes), "{what}");
                    }
                }
            }
        }
    }
}

#[tokio::test]
async fn damage_in_a_file_is_found_by_reads_that_verify() {
    let dir = tempfile::tempdir().unwrap();
    let bytes = content(1, 2_000_000);
    let id = hash(&bytes);
    put_file(dir.path(), &bytes);
    let blobs = open(dir.path());
    let (path, _) = sizes(&dir.path().join("large")).remove(0);
    let file = OpenOptions::new().write(true).open(&path).unwrap();
    file.write_all_at(b"!", 1_999_999).unwrap();

    assert_eq!(blobs.check(id).await.unwrap(), Health::Corrupt);
    let reader = blobs.get(id).await.unwrap().unwrap();
    let read = reader.read_all(true).await;
    assert!(matches!(read, Err(BlobError::Corrupt { .. })), "{read:?}");
    assert_eq!(
        reader.read_all(false).await.unwrap()[..1_999_999],
        bytes[..1_999_999]
    );
    // A stream does not give its last piece.
    let mut good = 0;
    let mut stream = Box::pin(reader.stream());
    let error = loop {
        match stream.next().await.unwrap() {
            Ok(piece) => good += piece.len(),
            Err(error) => break error,
        }
    };
    assert!(matches!(error, BlobError::Corrupt { .. }), "{error:?}");
    assert!(good < bytes.len());

    file.set_len(1000).unwrap();
    assert_eq!(blobs.check(id).await.unwrap(), Health::Corrupt);
}

#[tokio::test]
async fn a_pack_that_cannot_be_opened_spoils_nothing_later() {
    let dir = tempfile::tempdir().unwrap();
    let blobs = open(dir.path());
    let all: Vec<_> = (0..5).map(|n| blob(n, 100)).collect();
    fs::create_dir(pack(dir.path())).unwrap();
    let result = blobs.put_small_batch(all.clone()).await;
    assert!(matches!(result, Err(BlobError::Io { .. })), "{result:?}");
    fs::remove_dir(pack(dir.path())).unwrap();
    blobs.put_small_batch(all[3..].to_vec()).await.unwrap();
    let dir = dir.path();
    let left: Vec<_> = [&all[3..], &all[..3]].concat();
    check_goes_on(dir, &left, 2, "after the folder").await;
}

#[tokio::test]
async fn uploads_of_a_killed_process_are_removed() {
    let dir = tempfile::tempdir().unwrap();
    // As it was before large blobs were cut into chunks.
    fs::create_dir(dir.path().join("uploads")).unwrap();
    fs::write(dir.path().join("uploads/.tmpabc"), b"half").unwrap();
    drop(open(dir.path()));
    assert!(!dir.path().join("uploads").exists());
}
