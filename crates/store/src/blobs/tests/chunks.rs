//! Large blobs share what they have in common.

use std::sync::Arc;

use futures::{StreamExt, TryStreamExt};
use grid_chunk::{Builder, Chunker, PAGE_ENTRIES_MAX, Page};

use super::*;
use crate::blobs::{Announced, BlobError, Health, Recipe, SMALL_BYTES_MAX};

/// What a client makes of a file: the chunks, the pages, the recipe.
pub(super) fn cut(bytes: &[u8]) -> (Vec<(BlobId, Bytes)>, BlobId, Recipe) {
    let mut chunker = Chunker::new();
    chunker.push(bytes);
    let mut builder = Builder::new();
    let mut chunks = Vec::new();
    while let Some(chunk) = chunker.next(true) {
        let page = builder.push(chunk.id, chunk.bytes.len() as u32, 1);
        chunks.extend(page.map(|Page { id, bytes }| (id, bytes)));
        chunks.push((chunk.id, chunk.bytes));
    }
    let (recipe, page) = builder.finish();
    chunks.extend(page.map(|Page { id, bytes }| (id, bytes)));
    (chunks, chunker.whole(), recipe)
}

async fn announce(blobs: &Blobs, id: BlobId, recipe: &Recipe) -> Announced {
    let answer = blobs.announce(vec![(id, recipe.clone())]).await.unwrap();
    let [answer] = &answer[..] else {
        panic!("one answer for one blob")
    };
    answer.clone()
}

#[tokio::test]
async fn only_new_chunks_are_sent_and_stored() {
    let dir = tempfile::tempdir().unwrap();
    let blobs = open(dir.path());
    let bytes = content(1, 5_000_000);
    let (chunks, id, recipe) = cut(&bytes);
    let mut lacking = ids(&chunks);
    lacking.sort_unstable();
    assert_eq!(
        announce(&blobs, id, &recipe).await,
        Announced::Lacks(lacking)
    );
    // A first part arrives, then the connection breaks, and the server restarts.
    blobs.put_small_batch(chunks[..20].to_vec()).await.unwrap();
    drop(blobs);
    let blobs = open(dir.path());
    let mut lacking = ids(&chunks[20..]);
    lacking.sort_unstable();
    assert_eq!(
        announce(&blobs, id, &recipe).await,
        Announced::Lacks(lacking)
    );
    assert_eq!(blobs.missing(vec![id]).await.unwrap(), [id]);
    assert!(blobs.get(id).await.unwrap().is_none());
    blobs.put_small_batch(chunks[20..].to_vec()).await.unwrap();
    assert_eq!(announce(&blobs, id, &recipe).await, Announced::Stored);
    assert_eq!(announce(&blobs, id, &recipe).await, Announced::Stored);
    for blobs in [blobs, open(dir.path())] {
        assert_eq!(read(&blobs, id).await.as_ref(), Some(&bytes));
        assert_eq!(blobs.check(id).await.unwrap(), Health::Ok);
        assert_eq!(blobs.recipe(id).await.unwrap().as_ref(), Some(&recipe));
        // Written in one go it is the same.
        assert_eq!(put_large(&blobs, &bytes).await, id);
        assert_eq!(list(&blobs).await.len(), chunks.len() + 1);
    }
}

#[tokio::test]
async fn whoever_lies_makes_nothing_visible() {
    let dir = tempfile::tempdir().unwrap();
    let blobs = open(dir.path());
    let (chunks, id, recipe) = cut(&content(1, 2_000_000));
    let (others, other, other_recipe) = cut(&content(2, 2_000_000));
    blobs.put_small_batch(chunks.clone()).await.unwrap();
    blobs.put_small_batch(others.clone()).await.unwrap();
    // Good chunks under another name, and in another order.
    assert_eq!(announce(&blobs, other, &recipe).await, Announced::Differs);
    let Recipe::Chunks(mut entries) = recipe.clone() else {
        panic!("it is short")
    };
    entries.swap(0, 1);
    let swapped = Recipe::Chunks(entries.clone());
    assert_eq!(announce(&blobs, id, &swapped).await, Announced::Differs);
    entries.swap(0, 1);
    entries[0].len -= 1;
    let shorter = Recipe::Chunks(entries);
    assert_eq!(announce(&blobs, id, &shorter).await, Announced::Differs);
    assert_eq!(blobs.missing(vec![id, other]).await.unwrap(), [id, other]);

    // Once it is there, its name alone is no proof of having it.
    assert_eq!(announce(&blobs, id, &recipe).await, Announced::Stored);
    assert_eq!(announce(&blobs, id, &swapped).await, Announced::Differs);
    assert_eq!(
        announce(&blobs, id, &other_recipe).await,
        Announced::Differs
    );
    // Another cut of the same bytes is.
    let halves = content(1, 2_000_000);
    let mut builder = Builder::new();
    for part in halves.chunks(200_000) {
        let part = Bytes::copy_from_slice(part);
        builder.push(hash(&part), part.len() as u32, 1);
        blobs
            .put_small_batch(vec![(hash(&part), part)])
            .await
            .unwrap();
    }
    let (recut, _) = builder.finish();
    assert_eq!(announce(&blobs, id, &recut).await, Announced::Stored);
    assert_eq!(blobs.recipe(id).await.unwrap(), Some(recipe));
}

#[tokio::test]
async fn a_terabyte_of_zeros_is_proven_read_and_checked_without_its_zeros() {
    let dir = tempfile::tempdir().unwrap();
    let blobs = open_without_grace(dir.path());
    let file = tempfile::tempfile().unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, b"in the middle", 600 << 30).unwrap();
    file.set_len(1 << 40).unwrap();
    let mut source = grid_chunk::Source::new(file, 1 << 40).unwrap();
    let (mut builder, mut chunks) = (Builder::new(), Vec::new());
    while let Some(piece) = source.next().unwrap() {
        builder.push(piece.id, piece.bytes.len() as u32, piece.times);
        chunks.push((piece.id, piece.bytes));
    }
    chunks.dedup();
    let (id, (recipe, _)) = (source.whole(), builder.finish());
    blobs.put_small_batch(chunks.clone()).await.unwrap();
    // One byte less is another blob.
    let Recipe::Chunks(mut entries) = recipe.clone() else {
        panic!("it is short")
    };
    entries[0].times -= 1;
    let shorter = Recipe::Chunks(entries);
    assert_eq!(announce(&blobs, id, &shorter).await, Announced::Differs);
    assert_eq!(announce(&blobs, id, &recipe).await, Announced::Stored);
    assert_eq!(blobs.check(id).await.unwrap(), Health::Ok);
    let reader = blobs.get(id).await.unwrap().unwrap();
    assert!(reader.is_sparse());
    let mut frames: Vec<Bytes> = reader
        .clone()
        .stream_sparse(1..1 << 40)
        .try_collect()
        .await
        .unwrap();
    assert!(frames.len() < 40, "{} frames", frames.len());
    frames.push(Bytes::from_static(&[0; 3]));
    let (mut taken, mut whole) = (
        grid_chunk::sparse::Frames::default(),
        grid_chunk::Whole::new(),
    );
    whole.zeros(1);
    for frame in &frames {
        let mut frame = &frame[..];
        while let Some(part) = taken.next(&mut frame) {
            match part {
                grid_chunk::sparse::Part::Bytes(bytes) => whole.update(bytes),
                grid_chunk::sparse::Part::Zeros(len) => whole.zeros(len),
            }
        }
    }
    assert!(!taken.is_between(), "what was added is no frame");
    assert_eq!(whole.finish(), id);
    let read = reader.read_at((600 << 30) - 2, 17).await.unwrap();
    assert_eq!(&read[..], b"\0\0in the middle\0\0");
    collect(&blobs, &[id], false).await;
    assert_eq!(blobs.check(id).await.unwrap(), Health::Ok);
    drop(reader);
    collect(&blobs, &[], false).await;
    assert!(list(&blobs).await.is_empty());
}

#[tokio::test]
async fn a_blob_with_very_many_chunks_has_pages() {
    let dir = tempfile::tempdir().unwrap();
    let blobs = open_without_grace(dir.path());
    // Short chunks, as somebody else may cut.
    let count = 2 * PAGE_ENTRIES_MAX + 10;
    let bytes = content(1, count * 100);
    let mut builder = Builder::new();
    let mut small = Vec::new();
    for part in bytes.chunks(100) {
        let id = hash(part);
        let page = builder.push(id, 100, 1);
        small.push((id, Bytes::copy_from_slice(part)));
        small.extend(page.map(|Page { id, bytes }| (id, bytes)));
    }
    let (recipe, page) = builder.finish();
    let id = hash(&bytes);
    assert!(recipe.is_paged());
    // First the pages are asked for, then what they name.
    let Announced::Lacks(pages) = announce(&blobs, id, &recipe).await else {
        panic!("nothing is there")
    };
    assert_eq!(pages.len(), 3);
    small.extend(page.map(|Page { id, bytes }| (id, bytes)));
    let (named, rest): (Vec<_>, Vec<_>) = small.into_iter().partition(|(id, _)| pages.contains(id));
    blobs.put_small_batch(named).await.unwrap();
    let Announced::Lacks(chunks) = announce(&blobs, id, &recipe).await else {
        panic!("no chunk is there")
    };
    assert_eq!(chunks.len(), count);
    blobs.put_small_batch(rest).await.unwrap();
    assert_eq!(announce(&blobs, id, &recipe).await, Announced::Stored);
    collect(&blobs, &[id], false).await;
    let blobs = open_without_grace(dir.path());
    assert_eq!(read(&blobs, id).await.as_ref(), Some(&bytes));
    let reader = blobs.get(id).await.unwrap().unwrap();
    for at in [0, 99, 600_000, 1_200_001, count * 100 - 1] {
        let read = reader.read_at(at as u64, 250).await.unwrap();
        assert_eq!(read, bytes[at..(at + 250).min(bytes.len())]);
    }
    let range: Vec<Bytes> = reader
        .stream_range(599_950..600_150)
        .try_collect()
        .await
        .unwrap();
    assert_eq!(range.concat(), bytes[599_950..600_150]);
    assert_eq!(list(&blobs).await.len(), count + 3 + 1);
}

#[tokio::test]
async fn zeros_take_no_room() {
    let dir = tempfile::tempdir().unwrap();
    let blobs = open(dir.path());
    let zeros = vec![0; 50_000_000];
    let id = put_large(&blobs, &zeros).await;
    assert!(list(&blobs).await.len() < 5);
    let reader = blobs.get(id).await.unwrap().unwrap();
    assert_eq!(reader.len(), 50_000_000);
    let read = reader.read_at(33_333_333, 1_000_000).await.unwrap();
    assert_eq!(read, zeros[..1_000_000]);
    assert_eq!(blobs.check(id).await.unwrap(), Health::Ok);
}

#[tokio::test]
async fn a_flipped_chunk_is_named_and_never_served_and_can_be_put_right() {
    let dir = tempfile::tempdir().unwrap();
    let blobs = open(dir.path());
    let bytes = content(1, 2_000_000);
    let (chunks, id, recipe) = cut(&bytes);
    put_large(&blobs, &bytes).await;
    let (bad, bad_bytes) = chunks[3].clone();
    flip(dir.path(), &bad_bytes);
    let begin: usize = chunks[..3].iter().map(|(_, bytes)| bytes.len()).sum();

    let reader = blobs.get(id).await.unwrap().unwrap();
    let read = reader.read_at(begin as u64 + 5_000, 10).await;
    let Err(BlobError::Damaged { id: of, chunk, at }) = read else {
        panic!("{read:?}")
    };
    assert_eq!((of, chunk, at), (id, bad, begin as u64));
    // What is before it and behind it is well.
    let end = begin + bad_bytes.len();
    for range in [0..begin, end..bytes.len()] {
        let (from, len) = (range.start as u64, range.len());
        assert_eq!(reader.read_at(from, len).await.unwrap(), bytes[range]);
    }
    let mut good = 0;
    let mut stream = Box::pin(reader.stream());
    while let Some(Ok(piece)) = stream.next().await {
        assert_eq!(piece, bytes[good..good + piece.len()]);
        good += piece.len();
    }
    assert!(good <= begin, "{good}");
    assert_eq!(blobs.check(id).await.unwrap(), Health::Corrupt);
    // Who has the bytes can send them again.
    assert_eq!(blobs.missing(vec![id, bad]).await.unwrap(), [id, bad]);
    assert_eq!(
        announce(&blobs, id, &recipe).await,
        Announced::Lacks(vec![bad])
    );
    blobs.put_small_batch(vec![(bad, bad_bytes)]).await.unwrap();
    for blobs in [blobs, open(dir.path())] {
        assert_eq!(announce(&blobs, id, &recipe).await, Announced::Stored);
        assert_eq!(blobs.check(id).await.unwrap(), Health::Ok);
        assert_eq!(super::read(&blobs, id).await.as_ref(), Some(&bytes));
    }
}

#[tokio::test]
async fn a_damaged_chunk_does_not_become_part_of_anything() {
    let dir = tempfile::tempdir().unwrap();
    let blobs = open(dir.path());
    let bytes = content(1, 2_000_000);
    let (chunks, id, recipe) = cut(&bytes);
    blobs.put_small_batch(chunks.clone()).await.unwrap();
    flip(dir.path(), &chunks[3].1);
    let lacking = Announced::Lacks(vec![chunks[3].0]);
    assert_eq!(announce(&blobs, id, &recipe).await, lacking);
    blobs.put_small_batch(chunks).await.unwrap();
    assert_eq!(announce(&blobs, id, &recipe).await, Announced::Stored);
    assert_eq!(read(&blobs, id).await.as_ref(), Some(&bytes));
}

/// A blob that is a repeat of one chunk.
fn repeat(chunk: &Bytes, times: u32) -> Recipe {
    Recipe::Chunks(vec![grid_chunk::Entry {
        id: hash(chunk),
        len: chunk.len() as u32,
        times,
    }])
}

#[tokio::test]
async fn a_small_blob_is_not_made_of_chunks() {
    let dir = tempfile::tempdir().unwrap();
    let blobs = open(dir.path());
    let half = content(1, SMALL_BYTES_MAX / 2);
    let put = vec![(hash(&half), half.clone())];
    blobs.put_small_batch(put).await.unwrap();
    let small: Bytes = [&half[..], &half].concat().into();
    let told = blobs.announce(vec![(hash(&small), repeat(&half, 2))]).await;
    assert!(matches!(told, Err(BlobError::BadRecipe { .. })), "{told:?}");
    assert_eq!(
        blobs.missing(vec![hash(&small)]).await.unwrap(),
        [hash(&small)]
    );
    let id = hash(&[&half[..], &half, &half].concat());
    assert_eq!(
        announce(&blobs, id, &repeat(&half, 3)).await,
        Announced::Stored
    );
}

/// As it was possible once: a small blob that is a recipe, and a chunk of another.
#[tokio::test]
async fn bytes_take_the_place_of_a_recipe() {
    let dir = tempfile::tempdir().unwrap();
    let blobs = open_without_grace(dir.path());
    let half = content(1, SMALL_BYTES_MAX / 2);
    let put = vec![(hash(&half), half.clone())];
    blobs.put_small_batch(put).await.unwrap();
    let small: Bytes = [&half[..], &half].concat().into();
    let recipes = [(hash(&small), repeat(&half, 2))];
    blobs.inner.put_recipes(recipes.iter()).unwrap();
    assert_eq!(read(&blobs, hash(&small)).await.as_ref(), Some(&small));

    let end = content(2, 1000);
    let (whole, mut builder) = ([&small[..], &end].concat(), Builder::new());
    builder.push(hash(&small), small.len() as u32, 1);
    builder.push(hash(&end), end.len() as u32, 1);
    let (id, (recipe, _)) = (hash(&whole), builder.finish());
    blobs
        .put_small_batch(vec![(hash(&end), end)])
        .await
        .unwrap();
    let lacking = Announced::Lacks(vec![hash(&small)]);
    assert_eq!(announce(&blobs, id, &recipe).await, lacking);
    let sent = vec![(hash(&small), small.clone())];
    blobs.put_small_batch(sent).await.unwrap();
    assert_eq!(announce(&blobs, id, &recipe).await, Announced::Stored);
    collect(&blobs, &[id], false).await;
    for blobs in [blobs, open_without_grace(dir.path())] {
        assert_eq!(read(&blobs, id).await.as_deref(), Some(&whole[..]));
        assert_eq!(read(&blobs, hash(&small)).await.as_ref(), Some(&small));
        assert_eq!(list(&blobs).await.len(), 3, "the half and the recipe went");
    }
}

#[tokio::test]
async fn who_does_not_wait_any_more_has_nothing_hashed() {
    let dir = tempfile::tempdir().unwrap();
    let blobs = open(dir.path());
    let chunk = content(1, SMALL_BYTES_MAX);
    let put = vec![(hash(&chunk), chunk.clone())];
    blobs.put_small_batch(put).await.unwrap();
    // Two tebibytes take half an hour at least.
    let endless = vec![(hash(b"it is not this"), repeat(&chunk, 1 << 23))];
    let asked = blobs.announce(endless);
    let told = tokio::time::timeout(Duration::from_millis(50), asked).await;
    assert!(told.is_err(), "{told:?}");
    let deadline = tokio::time::Instant::now() + Duration::from_secs(60);
    while Arc::strong_count(&blobs.inner) > 1 {
        assert!(tokio::time::Instant::now() < deadline, "it goes on");
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn repeats_of_short_chunks_are_refused_and_zeros_are_counted_however_cut() {
    let dir = tempfile::tempdir().unwrap();
    let blobs = open(dir.path());
    let (short, zeros) = (content(1, 1000), Bytes::from(vec![0; 1 << 17]));
    let put = [&short, &zeros].map(|bytes| (hash(bytes), bytes.clone()));
    blobs.put_small_batch(put.to_vec()).await.unwrap();
    let id = hash(&short.repeat(1000));
    let told = blobs.announce(vec![(id, repeat(&short, 1000))]).await;
    assert!(matches!(told, Err(BlobError::BadRecipe { .. })), "{told:?}");
    // A tebibyte in halves of what we make of zeros.
    let mut whole = grid_chunk::Whole::new();
    whole.zeros(1 << 40);
    let halves = repeat(&zeros, 1 << 23);
    assert_eq!(
        announce(&blobs, whole.finish(), &halves).await,
        Announced::Stored
    );
}
