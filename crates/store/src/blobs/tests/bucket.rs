//! What is tried of both, in a bucket; and what only a bucket has.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock, Mutex};

use futures::FutureExt;
use object_store::ObjectStore;
use object_store::memory::InMemory;
use object_store::path::Path as ObjectPath;

use super::s3::Server;
use super::*;
use crate::blobs::Bucket;
use crate::logs::tests::sizes;

#[expect(clippy::duplicate_mod, reason = "the same tests, over something else")]
#[path = "chunks.rs"]
mod chunks;
#[expect(clippy::duplicate_mod, reason = "the same tests, over something else")]
#[path = "crashes.rs"]
mod crashes;
#[expect(clippy::duplicate_mod, reason = "the same tests, over something else")]
#[path = "deletion.rs"]
mod deletion;
#[path = "objects.rs"]
mod objects;
#[expect(clippy::duplicate_mod, reason = "the same tests, over something else")]
#[path = "round_trip.rs"]
mod round_trip;
#[path = "trouble.rs"]
mod trouble;

/// Whether small packs are merged.
const IS_MERGED: bool = true;

/// How many steps a life of a store has at least.
const STEPS_MIN: i64 = 25;

/// Whether what is sent last arrives, with nobody left to hear of it.
const LAST_ARRIVES: &[bool] = &[false, true];

/// Where the bucket of a folder is.
#[derive(Clone)]
enum Place {
    Server(Arc<Server>),
    Memory(Arc<InMemory>),
}

static PLACES: LazyLock<Mutex<HashMap<PathBuf, Place>>> = LazyLock::new(Mutex::default);

fn place(dir: &Path) -> Place {
    let mut places = PLACES.lock().unwrap();
    let place = places.entry(dir.to_owned()).or_insert_with(|| {
        let server = Server::start(&dir.join(".s3"));
        Place::Server(Arc::new(server))
    });
    place.clone()
}

/// From now on this is done many thousand times.
fn make_quick(dir: &Path) {
    let memory = Place::Memory(Arc::default());
    PLACES.lock().unwrap().insert(dir.to_owned(), memory);
}

fn bucket(dir: &Path) -> Bucket {
    match place(dir) {
        Place::Server(server) => server.bucket(),
        Place::Memory(memory) => {
            let name = "memory://".to_owned();
            Bucket::over(memory, ObjectPath::from("blobs"), name, (1 << 30, true)).unwrap()
        }
    }
}

/// Settings for what is kept here.
fn placed(dir: &Path, settings: Settings) -> Settings {
    Settings {
        bucket: Some(bucket(dir)),
        ..settings
    }
}

pub(super) fn open(dir: &Path) -> Blobs {
    open_with(dir, settings(GC_GRACE))
}

/// A store in which nothing is young.
pub(super) fn open_without_grace(dir: &Path) -> Blobs {
    open_with(dir, settings(Duration::ZERO))
}

fn open_with(dir: &Path, settings: Settings) -> Blobs {
    Blobs::open(dir, placed(dir, settings)).unwrap()
}

/// What is kept of the bucket on this machine.
fn local(dir: &Path) -> PathBuf {
    dir.join("bucket")
}

/// Another machine goes on with what is sure to be there.
fn change_machine(dir: &Path) {
    match std::fs::remove_dir_all(local(dir)) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => panic!("{error}"),
        _ => {}
    }
}

fn change_machine_sometimes(dir: &Path, time: i64) {
    if time % 3 == 0 {
        change_machine(dir);
    }
}

/// What is stored takes so many bytes, and is here.
fn stored(dir: &Path) -> Vec<(PathBuf, u64)> {
    match place(dir) {
        Place::Server(server) => ["packs", "dead"]
            .iter()
            .map(|folder| server.objects().join(folder))
            .filter(|folder| folder.exists())
            .flat_map(|folder| sizes(&folder))
            .collect(),
        Place::Memory(memory) => {
            let all = memory.list(None).collect::<Vec<_>>().now_or_never();
            let all = all.unwrap().into_iter().map(Result::unwrap);
            all.map(|meta| (meta.location.to_string().into(), meta.size))
                .collect()
        }
    }
}

/// The object of the only pack of bytes.
fn pack(dir: &Path) -> PathBuf {
    let mut packs = stored(dir);
    packs.retain(|(path, _)| path.to_string_lossy().contains("-b-"));
    assert_eq!(packs.len(), 1, "{packs:?}");
    packs.remove(0).0
}

/// Changes one byte of the content that begins like this, where it is kept and here.
fn flip(dir: &Path, bytes: &[u8]) {
    let pack = pack(dir);
    flip_in(&pack, bytes);
    let name = pack.file_name().unwrap();
    flip_in(&local(dir).join("cache").join(name), bytes);
}
