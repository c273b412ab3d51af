//! The cache of code on this machine.
//!
//! Files are kept by the hash of their content, so that of a tree that changed only
//! what changed is fetched; trees are kept as lists.  What was not used for longest
//! goes when the cache is full.  What was not on the disk yet when the machine went down
//! is fetched again ([`Shelf`]).

use std::collections::{HashMap, HashSet};
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use futures::StreamExt;
use grid_api::blob::{HEADER_BYTES, framed_len, parse_header};
use grid_api::client;
use grid_api::runner::BlobsFetch;
use grid_api::snapshot::{SnapshotTree, TreeKind};
use grid_chunk::sparse::{Frames, Part};
use grid_chunk::{Holes, Whole};
use grid_core::blob::BlobId;
use grid_core::id::SnapshotId;
use reqwest::Method;
use tokio::sync::watch;

use super::shelf::Shelf;
use super::tree::{self, Origin, Tree, blob_path, has_blob};
use crate::attempt::Attempt;
use crate::context::Context;

/// Size of the cache at which the oldest trees go.  Higher: more disk; lower: code
/// is fetched again more often.
const CACHE_BYTES_MAX: u64 = 10 << 30;

/// What is left of it then, in percent.
const CACHE_KEPT_PERCENT: u64 = 80;

/// Most blobs of one request; what the server allows.
const FETCH_BLOBS_MAX: usize = 10_000;

/// How often a tree is fetched again when something of it was missing or broken.
const TRIES_MAX: u32 = 3;

/// The pause before it is tried again to throw away what is in doubt.  Higher: code is waited
/// for longer; lower: a disk that refuses fills the log.
const PAUSE: Duration = Duration::from_secs(10);

/// Why the code is not there.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("the code could not be fetched from the server")]
    Fetch(#[source] client::Error),
    #[error("a file could not be written to the cache of this machine")]
    Write(#[source] io::Error),
    #[error("the server sent something else than was asked for")]
    Wrong,
    #[error("the code could not be laid out")]
    LayOut(#[source] tree::Error),
}

impl Error {
    /// The message with its causes, in one line.
    pub(crate) fn in_full(&self) -> String {
        let mut text = self.to_string();
        let mut cause = std::error::Error::source(self);
        while let Some(error) = cause {
            text.push_str(": ");
            text.push_str(&error.to_string());
            cause = error.source();
        }
        text
    }
}

type Flights = HashMap<SnapshotId, Arc<tokio::sync::Mutex<Option<Arc<Tree>>>>>;

/// The cache.
pub(crate) struct Trees {
    blobs: PathBuf,
    /// The lists.
    shelf: Arc<Shelf>,
    /// Whether nothing in doubt is left of another boot: nothing is fetched before.
    is_settled: watch::Sender<bool>,
    /// One fetch per tree at a time; the others wait for it.
    flights: Mutex<Flights>,
    /// Held for reading while a tree is used, for writing while old ones go.
    use_or_clean: tokio::sync::RwLock<()>,
    bytes: Mutex<Option<u64>>,
}

impl Trees {
    pub(crate) fn new(blobs: PathBuf, lists: &Path) -> io::Result<Self> {
        let (shelf, doubtful) = Shelf::open(lists, is_list)?;
        let is_settled = watch::Sender::new(doubtful.is_none());
        for name in doubtful.into_iter().flatten() {
            fs::remove_file(lists.join(name))?;
        }
        Ok(Self {
            blobs,
            shelf: Arc::new(shelf),
            is_settled,
            flights: Mutex::new(HashMap::new()),
            use_or_clean: tokio::sync::RwLock::new(()),
            bytes: Mutex::new(None),
        })
    }

    /// Looks after the cache, for ever: what is here comes to be on the disk.
    pub(crate) async fn keep(&self) {
        while !*self.is_settled.borrow() {
            if let Err(error) = self.settle().await {
                tracing::error!(%error, "the cache of code cannot be used; trying again");
                tokio::time::sleep(PAUSE).await;
            }
        }
        Arc::clone(&self.shelf).keep().await;
    }

    /// Removes what is in doubt since the machine was restarted; nothing is fetched before.
    async fn settle(&self) -> io::Result<()> {
        let (blobs, shelf) = (self.blobs.clone(), Arc::clone(&self.shelf));
        let settled = tokio::task::spawn_blocking(move || {
            // What the lists name that are on the disk is on the disk.
            let trees = read_lists(&blobs, &shelf)?;
            let kept = trees.iter().flat_map(|(_, _, tree)| contents(tree));
            remove_others(&blobs, &kept.map(str::to_owned).collect())?;
            shelf.settled()
        });
        settled.await.map_err(io::Error::other)??;
        self.is_settled.send_replace(true);
        Ok(())
    }

    /// Fetches what is missing of a snapshot and lays it out for an attempt.
    pub(crate) async fn provide(
        &self,
        context: &Context,
        attempt: &Attempt,
        id: SnapshotId,
    ) -> Result<Arc<Tree>, Error> {
        let mut tries = 0;
        let tree = loop {
            let _used = self.use_or_clean.read().await;
            let tree = self.fetch(context, id).await?;
            let (own, work) = (attempt.folder.clone(), attempt.work());
            let copied = Arc::clone(&tree);
            let laid_out = tokio::task::spawn_blocking(move || copied.lay_out(&work, &own)).await;
            match laid_out.map_err(|error| Error::Write(io::Error::other(error)))? {
                Ok(()) => break tree,
                Err(tree::Error::Missing { .. }) if tries < TRIES_MAX => {
                    // Somebody cleaned the cache by hand.
                    tries += 1;
                    self.drop_list(id);
                }
                Err(error) => return Err(Error::LayOut(error)),
            }
        };
        self.clean_if_full().await;
        Ok(tree)
    }

    fn list_path(&self, id: SnapshotId) -> PathBuf {
        self.shelf.things().join(list_name(id))
    }

    fn flight(&self, id: SnapshotId) -> Arc<tokio::sync::Mutex<Option<Arc<Tree>>>> {
        let mut flights = self.flights.lock().unwrap_or_else(PoisonError::into_inner);
        // What nobody uses is read from disk again when it is wanted.
        flights.retain(|known, flight| {
            *known == id || Arc::strong_count(flight) > 1 || is_used(flight)
        });
        Arc::clone(flights.entry(id).or_default())
    }

    fn drop_list(&self, id: SnapshotId) {
        let _ = self.shelf.forget(&list_name(id));
        let _ = fs::remove_file(self.list_path(id));
        self.flights
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&id);
    }

    async fn fetch(&self, context: &Context, id: SnapshotId) -> Result<Arc<Tree>, Error> {
        let flight = self.flight(id);
        let mut known = flight.lock().await;
        if let Some(tree) = &*known {
            return Ok(Arc::clone(tree));
        }
        let path = self.list_path(id);
        let origin = Origin::Blobs(self.blobs.clone());
        if let Ok(tree) = Tree::read(&path, origin.clone())
            && lacking(&self.blobs, &tree).is_ok_and(|lacking| lacking.is_empty())
        {
            let _ = File::open(&path).and_then(|file| file.set_modified(now()));
            return Ok(Arc::clone(known.insert(Arc::new(tree))));
        }
        // The sender is as old as this.
        let _ = self.is_settled.subscribe().wait_for(|is| *is).await;
        let url = &format!("/runner/snapshots/{id}");
        self.shelf.ensure().map_err(Error::Write)?;
        fs::create_dir_all(&self.blobs).map_err(Error::Write)?;
        let snapshot: SnapshotTree = context
            .server
            .persist("fetching a snapshot", |client| async move {
                client.get(url, &()).await
            })
            .await
            .map_err(Error::Fetch)?;
        let tree = Tree::new(path, snapshot.entries, origin);
        let wanted = lacking(&self.blobs, &tree).map_err(Error::Write)?;
        fetch_blobs(context, &self.blobs, wanted, |bytes| self.add_bytes(bytes)).await?;
        self.shelf.forget(&list_name(id)).map_err(Error::Write)?;
        tree.write().map_err(Error::Write)?;
        self.shelf.added();
        Ok(Arc::clone(known.insert(Arc::new(tree))))
    }

    fn add_bytes(&self, more: u64) {
        let mut bytes = self.bytes.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(bytes) = &mut *bytes {
            *bytes += more;
        }
    }

    async fn clean_if_full(&self) {
        let known = *self.bytes.lock().unwrap_or_else(PoisonError::into_inner);
        if known.is_some_and(|bytes| bytes <= CACHE_BYTES_MAX) {
            return;
        }
        // While others use the cache, it may wait; the next one looks again.
        let Ok(_alone) = self.use_or_clean.try_write() else {
            return;
        };
        let (blobs, shelf) = (self.blobs.clone(), Arc::clone(&self.shelf));
        let cleaned =
            tokio::task::spawn_blocking(move || clean(&blobs, &shelf, CACHE_BYTES_MAX)).await;
        match cleaned {
            Ok(Ok(left)) => {
                *self.bytes.lock().unwrap_or_else(PoisonError::into_inner) = Some(left);
                self.flights
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .clear();
            }
            Ok(Err(error)) => tracing::warn!(%error, "the cache of code cannot be cleaned"),
            Err(error) => tracing::warn!(%error, "the cache of code cannot be cleaned"),
        }
    }
}

/// Fetches the blobs that a folder does not have yet.
pub(crate) async fn fetch_blobs(
    context: &Context,
    blobs: &Path,
    mut wanted: Vec<String>,
    count: impl Fn(u64),
) -> Result<(), Error> {
    wanted.sort_unstable();
    wanted.dedup();
    if wanted.iter().any(|hash| hash.parse::<BlobId>().is_err()) {
        return Err(Error::Wrong);
    }
    let mut tries = 0;
    loop {
        wanted.retain(|hash| !blob_path(blobs, hash).exists());
        let Some(batch) = wanted.chunks(FETCH_BLOBS_MAX).next() else {
            return Ok(());
        };
        let body = &BlobsFetch {
            blobs: batch.to_vec(),
            sparse: true,
        };
        let before = wanted.len();
        let received = context
            .server
            .persist("fetching files", |client| async move {
                let request = client
                    .request(Method::POST, "/runner/blobs/fetch")
                    .json(body);
                let response = client.send(request).await?;
                receive(blobs, &client, response).await
            })
            .await
            .map_err(Error::Fetch)?;
        count(received?);
        wanted.retain(|hash| !blob_path(blobs, hash).exists());
        tries = if wanted.len() == before { tries + 1 } else { 0 };
        if tries >= TRIES_MAX {
            return Err(Error::Wrong);
        }
    }
}

/// Writes the blobs of an answer to their places.  The outer error is one of the
/// connection, and worth another try; what arrived whole stays.
async fn receive(
    blobs: &Path,
    client: &client::Client,
    response: reqwest::Response,
) -> Result<Result<u64, Error>, client::Error> {
    let broken = |source| client::Error::Broken {
        url: client.url().to_owned(),
        source,
    };
    let mut body = response.bytes_stream();
    let mut receiver = Receiver::new(blobs);
    while let Some(chunk) = body.next().await {
        let chunk = chunk.map_err(|error| broken(error.into()))?;
        if let Err(error) = receiver.take(&chunk) {
            return Ok(Err(error));
        }
    }
    if receiver.is_between() {
        return Ok(Ok(receiver.received));
    }
    Err(broken("the answer ends within a file".into()))
}

fn is_used(flight: &tokio::sync::Mutex<Option<Arc<Tree>>>) -> bool {
    flight.try_lock().map_or(true, |tree| {
        tree.as_ref()
            .is_some_and(|tree| Arc::strong_count(tree) > 1)
    })
}

#[expect(
    clippy::disallowed_methods,
    reason = "the time of the last use of a cached file"
)]
fn now() -> SystemTime {
    SystemTime::now()
}

fn list_name(id: SnapshotId) -> String {
    format!("{id}.json")
}

/// Whether this is the name of a list.
fn is_list(path: &Path) -> bool {
    path.extension().is_some_and(|kind| kind == "json")
}

/// The contents of a tree.
fn contents(tree: &Tree) -> impl Iterator<Item = &str> {
    let files = tree.entries.iter();
    let files = files.filter(|entry| entry.kind == TreeKind::File);
    files.map(|entry| entry.content.as_str())
}

/// The contents of a tree that are not here whole.
fn lacking(blobs: &Path, tree: &Tree) -> io::Result<Vec<String>> {
    let mut lacking = Vec::new();
    for entry in &tree.entries {
        if entry.kind == TreeKind::File && !has_blob(blobs, &entry.content, entry.size_bytes)? {
            lacking.push(entry.content.clone());
        }
    }
    Ok(lacking)
}

/// All trees, with when they were used; a list that cannot be read goes.
fn read_lists(blobs: &Path, shelf: &Shelf) -> io::Result<Vec<(SystemTime, PathBuf, Tree)>> {
    let mut trees = Vec::new();
    for entry in fs::read_dir(shelf.things())?.flatten() {
        let used = entry.metadata().and_then(|found| found.modified());
        let tree = Tree::read(&entry.path(), Origin::Blobs(blobs.to_owned()));
        match (used, tree) {
            (Ok(used), Ok(tree)) => trees.push((used, entry.path(), tree)),
            _ => drop(fs::remove_file(entry.path())),
        }
    }
    Ok(trees)
}

/// Removes all blobs but these.
fn remove_others(blobs: &Path, kept: &HashSet<String>) -> io::Result<()> {
    for entry in walkdir::WalkDir::new(blobs).into_iter().flatten() {
        if entry.file_type().is_file()
            && !entry
                .file_name()
                .to_str()
                .is_some_and(|name| kept.contains(name))
        {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

/// Removes the trees that were not used for longest, and the blobs of none; gives
/// the bytes that are left.
fn clean(blobs: &Path, shelf: &Shelf, max: u64) -> io::Result<u64> {
    let mut trees = read_lists(blobs, shelf)?;
    // The latest first.
    trees.sort_by_key(|(used, _, _)| std::cmp::Reverse(*used));
    let all: u64 = walkdir::WalkDir::new(blobs)
        .into_iter()
        .flatten()
        .filter_map(|entry| entry.metadata().ok())
        .filter(fs::Metadata::is_file)
        .map(|found| found.len())
        .sum();
    if all <= max {
        return Ok(all);
    }
    let mut kept: HashSet<String> = HashSet::new();
    let mut left = 0;
    for (_, path, tree) in trees {
        let files = tree
            .entries
            .iter()
            .filter(|entry| entry.kind == TreeKind::File);
        let new: Vec<_> = files
            .filter(|entry| !kept.contains(&entry.content))
            .collect();
        let more: u64 = new.iter().map(|entry| entry.size_bytes).sum();
        if left + more > max / 100 * CACHE_KEPT_PERCENT {
            if let Some(name) = path.file_name().and_then(|name| name.to_str()) {
                shelf.forget(name)?;
            }
            fs::remove_file(path)?;
            continue;
        }
        left += more;
        kept.extend(new.into_iter().map(|entry| entry.content.clone()));
    }
    remove_others(blobs, &kept)?;
    Ok(left)
}

/// Takes the records of an answer apart.
struct Receiver<'a> {
    blobs: &'a Path,
    header: Vec<u8>,
    file: Option<Incoming>,
    received: u64,
}

struct Incoming {
    hash: [u8; 32],
    left: u64,
    hash_so_far: Whole,
    /// Where long runs of zeros are left out.
    frames: Option<Frames>,
    file: tempfile::NamedTempFile,
    holes: Holes,
}

impl Incoming {
    /// Takes what belongs to it of what came; gives how much of the disk that takes.
    fn take(&mut self, bytes: &mut &[u8]) -> Result<u64, Error> {
        let part = match &mut self.frames {
            Some(frames) => frames.next(bytes),
            None => {
                let most = usize::try_from(self.left).unwrap_or(usize::MAX);
                let (now, later) = bytes.split_at(most.min(bytes.len()));
                *bytes = later;
                Some(Part::Bytes(now))
            }
        };
        let Some(part) = part else { return Ok(0) };
        let left = self.left.checked_sub(part.len());
        self.left = left.ok_or(Error::Wrong)?;
        match part {
            Part::Bytes(bytes) => {
                self.hash_so_far.update(bytes);
                let file = self.file.as_file();
                self.holes.write(file, bytes).map_err(Error::Write)?;
                Ok(bytes.len() as u64)
            }
            Part::Zeros(len) => {
                self.hash_so_far.zeros(len);
                self.holes.skip(len);
                Ok(0)
            }
        }
    }

    fn is_whole(&self) -> bool {
        self.left == 0 && self.frames.as_ref().is_none_or(Frames::is_between)
    }
}

impl<'a> Receiver<'a> {
    fn new(blobs: &'a Path) -> Self {
        Self {
            blobs,
            header: Vec::new(),
            file: None,
            received: 0,
        }
    }

    fn is_between(&self) -> bool {
        self.file.is_none() && self.header.is_empty()
    }

    fn take(&mut self, mut bytes: &[u8]) -> Result<(), Error> {
        while !bytes.is_empty() {
            match &mut self.file {
                None => {
                    let missing = HEADER_BYTES - self.header.len();
                    let (part, rest) = bytes.split_at(missing.min(bytes.len()));
                    self.header.extend_from_slice(part);
                    bytes = rest;
                    self.begin()?;
                }
                Some(incoming) => {
                    self.received += incoming.take(&mut bytes)?;
                }
            }
            self.end_if_whole()?;
        }
        Ok(())
    }

    fn begin(&mut self) -> Result<(), Error> {
        let Ok(header) = <&[u8; HEADER_BYTES]>::try_from(self.header.as_slice()) else {
            return Ok(());
        };
        let (hash, len) = parse_header(header);
        let (left, is_framed) = framed_len(len);
        self.header.clear();
        let file = tempfile::NamedTempFile::new_in(self.blobs).map_err(Error::Write)?;
        self.file = Some(Incoming {
            hash,
            left,
            hash_so_far: Whole::new(),
            frames: is_framed.then(Frames::default),
            file,
            holes: Holes::default(),
        });
        Ok(())
    }

    fn end_if_whole(&mut self) -> Result<(), Error> {
        let Some(incoming) = self.file.take_if(|incoming| incoming.is_whole()) else {
            return Ok(());
        };
        if *incoming.hash_so_far.finish().as_bytes() != incoming.hash {
            return Err(Error::Wrong);
        }
        let file = incoming.file.as_file();
        incoming.holes.finish(file).map_err(Error::Write)?;
        let path = blob_path(self.blobs, &BlobId::from_bytes(incoming.hash).to_string());
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent).map_err(Error::Write)?;
        }
        incoming
            .file
            .persist(path)
            .map_err(|error| Error::Write(error.error))?;
        Ok(())
    }
}
