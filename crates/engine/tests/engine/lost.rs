//! What was said to be kept and is not there any more: after a loss of power, on a bad disk.

use std::fs;
use std::path::{Path, PathBuf};

use grid_core::blob::BlobId;
use grid_core::datastore::State;
use grid_engine::blob::Files;
use grid_engine::datastore::{self, Offered};
use grid_engine::{Caller, Engine, Error, doctor, trash};
use grid_manifest::{Entry, Node, Offer, write_offers};

use crate::staging::begin;
use crate::world::World;

fn bytes(number: usize) -> Vec<u8> {
    format!("these are the bytes of file {number}").into_bytes()
}

fn entry(number: usize) -> Entry {
    let bytes = bytes(number);
    Entry {
        path: format!("f{number:05}"),
        mode: 0o644,
        modified_ms: 0,
        node: Node::File {
            blob: BlobId::from_bytes(*blake3::hash(&bytes).as_bytes()),
            size_bytes: bytes.len() as u64,
        },
    }
}

/// Sends the bytes of files.
async fn send(engine: &Engine, caller: &Caller, numbers: std::ops::Range<usize>) {
    let mut files = Files::begin(engine, caller).await.expect("its turn");
    for number in numbers {
        let bytes = bytes(number);
        let length = (bytes.len() as u64).to_le_bytes();
        let framed = [&length[..], &bytes].concat();
        files.push(&framed).await.expect("taken");
    }
    files.finish().await.expect("kept");
}

/// Offers them as the only part of a list; says whether it is kept.
async fn offer(
    engine: &Engine,
    caller: &Caller,
    version: &str,
    numbers: std::ops::Range<usize>,
) -> bool {
    let entries = numbers.map(entry).collect();
    let offered = Offered {
        from: 0,
        parts: write_offers(&[Offer::Whole { entries }]).into(),
        sent_bytes: 0,
    };
    let taken = datastore::put_parts(engine, caller, version, offered).await;
    taken
        .expect("an answer")
        .iter()
        .all(|part| part.block.is_some())
}

/// A version of which everything is sent, and that is not ended.
async fn sent(
    engine: &Engine,
    caller: &Caller,
    name: &str,
    numbers: std::ops::Range<usize>,
) -> String {
    let version = begin(engine, caller, name).await;
    send(engine, caller, numbers.clone()).await;
    assert!(offer(engine, caller, &version, numbers).await);
    version
}

async fn is_read(engine: &Engine, caller: &Caller, version: &str, number: usize) -> bool {
    let path = entry(number).path;
    datastore::open(engine, caller, version, &path)
        .await
        .is_ok()
}

fn packs(dir: &Path) -> Vec<PathBuf> {
    let mut packs = Vec::new();
    let mut folders = vec![dir.join("blobs")];
    while let Some(folder) = folders.pop() {
        for found in fs::read_dir(folder).expect("a folder").flatten() {
            match found.path() {
                path if path.is_dir() => folders.push(path),
                path if path.extension().is_some_and(|ending| ending == "pack") => packs.push(path),
                _ => {}
            }
        }
    }
    packs.sort();
    packs
}

/// Nothing that was uploaded is young any more.
fn age(dir: &Path) {
    let grace = dir.join("blobs/grace");
    for found in fs::read_dir(&grace).expect("a folder").flatten() {
        fs::remove_file(found.path()).expect("removed");
    }
    fs::write(grace.join("clock"), "9 0 false false\n").expect("written");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_loss_of_power_took_away_is_asked_for_again() {
    let dir = tempfile::tempdir().expect("a folder");
    let world = World::new(dir.path()).await;
    let ada = world.ada.clone();
    let before: Vec<_> = packs(dir.path());
    assert!(before.is_empty(), "{before:?}");
    let version = sent(&world.engine, &ada, "data", 0..20).await;
    // The database has it that all is kept; the disk has the first half of it.
    for pack in packs(dir.path()) {
        let file = fs::File::options().write(true).open(&pack).expect("a pack");
        let length = file.metadata().expect("its length").len();
        file.set_len(length / 2).expect("cut");
    }
    let world = world.restart(dir.path()).await;
    let engine = &world.engine;
    let kept = datastore::parts(engine, &ada, &version, None, 10).await;
    assert_eq!(kept.expect("a list").items.len(), 1);
    let ended = datastore::commit(engine, &ada, &version, 1)
        .await
        .expect("an answer");
    assert_eq!(ended.row.state, State::Uploading, "it is not whole");
    let kept = datastore::parts(engine, &ada, &version, None, 10).await;
    assert!(kept.expect("a list").items.is_empty());
    assert!(
        !offer(engine, &ada, &version, 0..20).await,
        "files are missing"
    );
    send(engine, &ada, 0..20).await;
    assert!(offer(engine, &ada, &version, 0..20).await);
    let ended = datastore::commit(engine, &ada, &version, 1)
        .await
        .expect("an answer");
    assert_eq!(ended.row.state, State::Available);
    for number in 0..20 {
        assert!(is_read(engine, &ada, &version, number).await, "{number}");
    }
    world.assert_consistent().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_version_that_ends_beside_a_collection_keeps_its_files() {
    const VERSIONS: usize = 30;
    let dir = tempfile::tempdir().expect("a folder");
    let world = World::new(dir.path()).await;
    let ada = world.ada.clone();
    let mut versions = Vec::new();
    for number in 0..VERSIONS {
        let files = number * 10..number * 10 + 10;
        versions.push(sent(&world.engine, &ada, &format!("data-{number}"), files).await);
    }
    age(dir.path());
    let world = world.restart(dir.path()).await;
    let engine = &world.engine;
    let ends = async {
        for version in &versions {
            let ended = datastore::commit(engine, &ada, version, 1).await;
            assert_eq!(ended.expect("ended").row.state, State::Available);
        }
    };
    let collects = async {
        for _ in 0..5 {
            trash::collect(engine, false).await.expect("collected");
        }
    };
    tokio::join!(ends, collects);
    for (number, version) in versions.iter().enumerate() {
        assert!(
            is_read(engine, &ada, version, number * 10).await,
            "{number}"
        );
    }
    world.assert_consistent().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_list_that_is_lost_is_named_and_nothing_is_deleted() {
    let dir = tempfile::tempdir().expect("a folder");
    let world = World::new(dir.path()).await;
    let ada = world.ada.clone();
    for name in ["one", "two"] {
        let version = sent(&world.engine, &ada, name, 0..20).await;
        let ended = datastore::commit(&world.engine, &ada, &version, 1).await;
        assert_eq!(ended.expect("ended").row.state, State::Available);
    }
    // What was written last are the lists.
    let list = {
        let entries: Vec<Entry> = (0..20).map(entry).collect();
        grid_manifest::encode(&entries)
    };
    let mut found = 0;
    for pack in packs(dir.path()) {
        let mut bytes = fs::read(&pack).expect("a pack");
        let at = bytes.windows(list.len()).position(|part| part == list);
        if let Some(at) = at {
            bytes[at + list.len() / 2] ^= 1;
            fs::write(&pack, bytes).expect("written");
            found += 1;
        }
    }
    assert_eq!(found, 1);
    let world = world.restart(dir.path()).await;
    let report = doctor::examine(&world.engine, true)
        .await
        .expect("a report");
    let findings = report.findings.join("\n");
    for name in ["'ada:one:1'", "'ada:two:1'"] {
        let named = format!("the list of files of datastore {name} is damaged");
        assert!(findings.contains(&named), "{findings}");
    }
    let refused = trash::collect(&world.engine, false).await;
    let Err(Error::Conflict { message, hint }) = refused else {
        panic!("{refused:?}");
    };
    assert!(message.contains("datastore 'ada:one:1'"), "{message}");
    assert!(hint.is_some_and(|hint| hint.contains("backup")));
}
