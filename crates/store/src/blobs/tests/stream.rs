//! Blobs that come one after the other, without their names.

use super::*;
use crate::blobs::stream::STREAM_BLOBS_MAX;
use crate::blobs::{BlobError, Health, SMALL_BYTES_MAX};

/// Lengths around everything that something depends on.
const LENGTHS: [usize; 12] = [
    0,
    1,
    4_096,
    SMALL_BYTES_MAX - 1,
    SMALL_BYTES_MAX,
    SMALL_BYTES_MAX + 1,
    (1 << 20) - 8,
    1 << 20,
    (1 << 20) + SMALL_BYTES_MAX,
    5_000_000,
    0,
    77,
];

fn contents() -> Vec<Bytes> {
    let lengths = LENGTHS.into_iter().chain((0..3_000).map(|n| n % 900));
    let mut contents: Vec<Bytes> = lengths
        .enumerate()
        .map(|(number, len)| content(number as u64, len))
        .collect();
    // The same twice, and a large one that shares its end with another.
    contents.push(contents[9].clone());
    contents.push([b"moved by this", &contents[9][..]].concat().into());
    contents
}

fn framed(contents: &[Bytes]) -> Vec<u8> {
    let frame = |bytes: &Bytes| [&(bytes.len() as u64).to_le_bytes()[..], bytes].concat();
    contents.iter().flat_map(frame).collect()
}

#[tokio::test]
async fn blobs_that_come_one_after_the_other_are_named_and_stored() {
    let dir = tempfile::tempdir().unwrap();
    let contents = contents();
    let body = framed(&contents);
    let names: Vec<BlobId> = contents.iter().map(|bytes| hash(bytes)).collect();
    let all: u64 = contents.iter().map(|bytes| bytes.len() as u64).sum();
    let mut new = Vec::new();
    // However the bytes come.
    for step in [body.len(), 1 << 20, 65_536, 999] {
        let blobs = open(dir.path());
        let mut writer = blobs.stream_writer(1 << 30);
        for piece in body.chunks(step) {
            writer.write(piece).await.unwrap();
        }
        let named = writer.finish().await.unwrap().expect("it is whole");
        assert_eq!(named.blobs, names);
        new.push(named.new_bytes);
    }
    // What is there twice is counted once.
    assert!(new[0] < all - 9_000_000 && new[0] > 8_000_000, "{new:?}");
    assert_eq!(new[1..], [0, 0, 0]);
    let blobs = open(dir.path());
    for (id, bytes) in names.iter().zip(&contents) {
        assert_eq!(read(&blobs, *id).await.as_ref(), Some(bytes));
        assert_eq!(blobs.check(*id).await.unwrap(), Health::Ok);
    }
}

#[tokio::test]
async fn of_a_stream_that_is_cut_no_large_blob_is_there() {
    let dir = tempfile::tempdir().unwrap();
    let blobs = open(dir.path());
    let large = [content(1, 3_000_000), content(2, 3_000_000)];
    let body = framed(&large);
    for cut in [1, 7, 9, 100_000, 3_000_008, 3_000_009, body.len() - 1] {
        let mut writer = blobs.stream_writer(1 << 30);
        writer.write(&body[..cut]).await.unwrap();
        let named = writer.finish().await.unwrap();
        assert_eq!(named.is_some(), cut == 3_000_008, "{cut}");
        if cut < 3_000_008 {
            assert!(read(&blobs, hash(&large[0])).await.is_none(), "{cut}");
        }
    }
    assert!(read(&blobs, hash(&large[1])).await.is_none());
    let mut writer = blobs.stream_writer(1_000_000);
    writer.write(&u64::MAX.to_le_bytes()).await.unwrap();
    let refused = writer.finish().await;
    assert!(matches!(refused, Err(BlobError::TooLong { .. })));
}

#[tokio::test]
async fn files_that_are_handed_over_are_read_named_and_stored() {
    let dir = tempfile::tempdir().unwrap();
    let blobs = open(&dir.path().join("blobs"));
    let path = dir.path().join("file");
    let contents = &contents()[..40];
    let mut writer = blobs.stream_writer(1 << 30);
    for bytes in contents {
        std::fs::write(&path, [bytes.as_ref(), b"and what came later"].concat()).unwrap();
        let file = std::fs::File::open(&path).unwrap();
        let taken = writer.take(file, bytes.len() as u64, |_| true).await;
        assert!(taken.unwrap());
    }
    let named = writer.finish().await.unwrap().expect("it is whole");
    let names: Vec<BlobId> = contents.iter().map(|bytes| hash(bytes)).collect();
    assert_eq!(named.blobs, names);
    for (id, bytes) in names.iter().zip(contents) {
        assert_eq!(read(&blobs, *id).await.as_ref(), Some(bytes));
    }
}

#[tokio::test]
async fn of_a_file_that_is_shorter_or_not_waited_for_nothing_is_there() {
    let dir = tempfile::tempdir().unwrap();
    let blobs = open(&dir.path().join("blobs"));
    let path = dir.path().join("file");
    let bytes = content(1, 3_000_000);
    std::fs::write(&path, &bytes).unwrap();
    let file = || std::fs::File::open(&path).unwrap();
    let mut writer = blobs.stream_writer(1 << 30);
    assert!(!writer.take(file(), 3_000_001, |_| true).await.unwrap());
    assert!(writer.finish().await.is_err());
    let mut writer = blobs.stream_writer(1 << 30);
    assert!(!writer.take(file(), 3_000_000, |_| false).await.unwrap());
    assert!(writer.take(file(), 1, |_| true).await.is_err());
    assert!(read(&blobs, hash(&bytes)).await.is_none());
    // Nor in the middle of one that comes otherwise.
    let mut writer = blobs.stream_writer(1 << 30);
    writer.write(&1_u64.to_le_bytes()).await.unwrap();
    assert!(writer.take(file(), 1, |_| true).await.is_err());
}

#[tokio::test]
async fn so_many_blobs_of_no_bytes_do_not_fill_the_memory() {
    let dir = tempfile::tempdir().unwrap();
    let blobs = open(dir.path());
    let empty = 0_u64.to_le_bytes();
    for (more, is_taken) in [(0, true), (1, false)] {
        let mut writer = blobs.stream_writer(1_000);
        let body = empty.repeat(STREAM_BLOBS_MAX + more);
        writer.write(&body).await.unwrap();
        let named = writer.finish().await;
        let is_refused = matches!(named, Err(BlobError::TooMany { .. }));
        assert_eq!((named.is_ok(), is_refused), (is_taken, !is_taken));
    }
}
