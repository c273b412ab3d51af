//! Files on a disk, and a door that keeps what it is given.

use std::collections::HashMap;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use grid_chunk::{Recipe, id_of};
use grid_core::blob::BlobId;

use super::{Door, FileError, FileToSend, send};
use crate::blob::{BlobRecipe, BlobRecipesAnswer};

#[derive(Default)]
struct Kept {
    blobs: Mutex<HashMap<BlobId, Bytes>>,
    recipes: Mutex<HashMap<BlobId, Recipe>>,
    sent_bytes: AtomicU64,
    /// After so many requests the line is cut.
    requests_left: Mutex<Option<u32>>,
}

impl Kept {
    fn request(&self) -> Result<(), &'static str> {
        if let Some(left) = &mut *self.requests_left.lock().unwrap() {
            *left = left.checked_sub(1).ok_or("the line is cut")?;
        }
        Ok(())
    }

    fn read(&self, id: BlobId) -> Option<Vec<u8>> {
        let blobs = self.blobs.lock().unwrap();
        match self.recipes.lock().unwrap().get(&id) {
            None => blobs.get(&id).map(|bytes| bytes.to_vec()),
            Some(Recipe::Chunks(entries)) => {
                let of = |entry: &grid_chunk::Entry| blobs[&entry.id].repeat(entry.times as usize);
                Some(entries.iter().flat_map(of).collect())
            }
            Some(Recipe::Pages(_)) => panic!("tests have no very large files"),
        }
    }
}

impl Door for Kept {
    type Error = &'static str;

    async fn missing(&self, ids: Vec<BlobId>) -> Result<Vec<BlobId>, &'static str> {
        self.request()?;
        let (blobs, recipes) = (self.blobs.lock().unwrap(), self.recipes.lock().unwrap());
        let is_missing = |id: &BlobId| !blobs.contains_key(id) && !recipes.contains_key(id);
        Ok(ids.into_iter().filter(is_missing).collect())
    }

    async fn put(&self, records: Vec<(BlobId, Bytes)>) -> Result<(), &'static str> {
        self.request()?;
        for (id, bytes) in records {
            assert_eq!(id_of(&bytes), id);
            self.sent_bytes
                .fetch_add(bytes.len() as u64, Ordering::SeqCst);
            self.blobs.lock().unwrap().insert(id, bytes);
        }
        Ok(())
    }

    async fn announce(&self, recipes: Vec<BlobRecipe>) -> Result<BlobRecipesAnswer, &'static str> {
        self.request()?;
        let mut answer = BlobRecipesAnswer::default();
        for recipe in recipes {
            let (id, recipe) = recipe.parse().unwrap();
            let Recipe::Chunks(entries) = &recipe else {
                panic!("tests have no very large files")
            };
            let blobs = self.blobs.lock().unwrap();
            if entries.iter().all(|entry| blobs.contains_key(&entry.id)) {
                answer.stored.push(id.to_string());
                self.recipes.lock().unwrap().insert(id, recipe);
            }
        }
        Ok(answer)
    }
}

fn noise(seed: u64, len: usize) -> Vec<u8> {
    // As unlike each other as hashes are.
    let block = |n: u64| *id_of(&[seed.to_le_bytes(), n.to_le_bytes()].concat()).as_bytes();
    let mut bytes: Vec<u8> = (0..len as u64 / 32 + 1).flat_map(block).collect();
    bytes.truncate(len);
    bytes
}

fn write(dir: &Path, name: &str, bytes: &[u8]) -> FileToSend {
    let path = dir.join(name);
    fs::write(&path, bytes).unwrap();
    FileToSend { path, known: None }
}

/// Files of all kinds, and their bytes.
fn files(dir: &Path) -> (Vec<FileToSend>, Vec<Vec<u8>>) {
    let mut contents: Vec<Vec<u8>> = [0, 1, 5_000, 262_144, 262_145, 3_000_000, 20_000_000]
        .map(|len| noise(len as u64, len))
        .to_vec();
    // The same once more, and something moved within.
    contents.push(contents[5].clone());
    contents.push([b"moved by this", &contents[6][..]].concat());
    contents.extend((0..5_000).map(|n| noise(n, 100)));
    let files = contents.iter().enumerate();
    let files = files.map(|(number, bytes)| write(dir, &number.to_string(), bytes));
    (files.collect(), contents)
}

#[tokio::test]
async fn all_files_arrive_and_nothing_travels_twice() {
    let dir = tempfile::tempdir().unwrap();
    let (files, contents) = files(dir.path());
    let door = Kept::default();
    let read = Arc::new(AtomicU64::new(0));
    let progress = {
        let read = Arc::clone(&read);
        move |bytes| {
            read.fetch_add(bytes, Ordering::SeqCst);
        }
    };
    let sent = send(&door, files.clone(), progress).await.unwrap();
    for (sent, bytes) in sent.iter().zip(&contents) {
        let sent = sent.as_ref().unwrap();
        assert_eq!(sent.blob, id_of(bytes));
        assert_eq!(sent.metadata.as_ref().unwrap().len(), bytes.len() as u64);
        assert_eq!(door.read(sent.blob).as_ref(), Some(bytes));
    }
    let all: usize = contents.iter().map(Vec::len).sum();
    assert_eq!(read.load(Ordering::SeqCst), all as u64);
    // Two threads may send the same chunk at the same time, but not much of it.
    let travelled = door.sent_bytes.swap(0, Ordering::SeqCst);
    assert!(travelled < 44_000_000, "{travelled}");

    send(&door, files.clone(), |_| {}).await.unwrap();
    assert_eq!(door.sent_bytes.load(Ordering::SeqCst), 0);
    // Whose hashes are known are not even read.
    let known = files
        .into_iter()
        .zip(&contents)
        .map(|(file, bytes)| FileToSend {
            path: file.path.with_extension("gone"),
            known: Some(id_of(bytes)),
        });
    let sent = send(&door, known.collect(), |_| panic!("read"))
        .await
        .unwrap();
    assert!(sent.iter().all(Result::is_ok));
}

#[tokio::test]
async fn after_any_interruption_it_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let (files, contents) = files(dir.path());
    let door = Kept::default();
    let mut cuts = 0;
    loop {
        *door.requests_left.lock().unwrap() = Some(3);
        match send(&door, files.clone(), |_| {}).await {
            Err(error) => assert_eq!(error, "the line is cut"),
            Ok(sent) => {
                assert!(sent.iter().all(Result::is_ok));
                break;
            }
        }
        cuts += 1;
        if cuts > 10 {
            *door.requests_left.lock().unwrap() = None;
            send(&door, files.clone(), |_| {}).await.unwrap();
            break;
        }
    }
    assert!(cuts > 1, "{cuts}");
    for bytes in &contents {
        assert_eq!(door.read(id_of(bytes)).as_ref(), Some(bytes));
    }
}

#[tokio::test]
async fn what_cannot_be_read_is_said_and_the_rest_is_sent() {
    let dir = tempfile::tempdir().unwrap();
    let good = write(dir.path(), "good", b"good");
    std::os::unix::fs::symlink("good", dir.path().join("link")).unwrap();
    let named = |name| FileToSend {
        path: dir.path().join(name),
        known: None,
    };
    let files = vec![named("gone"), good, named("link"), named(".")];
    let sent = send(&Kept::default(), files, |_| {}).await.unwrap();
    let [gone, good, link, folder] = &sent[..] else {
        panic!("four answers")
    };
    assert!(matches!(gone, Err(FileError::Read(_))), "{gone:?}");
    assert_eq!(good.as_ref().unwrap().blob, id_of(b"good"));
    assert!(matches!(link, Err(FileError::Read(_))), "{link:?}");
    assert!(matches!(folder, Err(FileError::Changed)), "{folder:?}");
}

#[tokio::test]
async fn a_large_hole_is_not_sent() {
    let dir = tempfile::tempdir().unwrap();
    let file = write(dir.path(), "sparse", b"head");
    let opened = File::options().write(true).open(&file.path).unwrap();
    opened.write_all_at(b"tail", 300_000_000).unwrap();
    let door = Kept::default();
    let sent = send(&door, vec![file.clone()], |_| {}).await.unwrap();
    let whole = fs::read(&file.path).unwrap();
    assert_eq!(sent[0].as_ref().unwrap().blob, id_of(&whole));
    assert_eq!(door.read(id_of(&whole)), Some(whole));
    assert!(door.sent_bytes.load(Ordering::SeqCst) < 1_500_000);
}
