//! The cache of datastores on this machine.
//!
//! Each content is here once, by its hash.  A version is laid out once, as a folder of hard
//! links to it that nobody writes to, and is shared by all experiments that mount it: what
//! is here is ready at once.  What was not used for longest goes when the cache is full.
//! What was not on the disk yet when the machine went down is fetched again ([`Shelf`]).
//!
//! ```text
//! DIR/cache/data/blobs/HH/HASH       bytes by their hash; HASH.x where they are executable;
//!                                    of what was left in a bucket, by what it is called
//! DIR/cache/data/versions/ID/        a version; there only when it is whole
//! DIR/cache/data/versions/ID.N.new/  one on its way, or going
//! DIR/cache/data/versions.noted/     which versions are on the disk
//! ```

mod lay;
mod room;
mod time;

use std::collections::{HashMap, HashSet};
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use grid_api::runner::VersionsKnown;
use grid_core::blob::BlobId;
use grid_core::id::DatastoreVersionId;
use grid_core::spec::{DatastoreMount, MountedVersion};
use grid_manifest::{Check, Entry, Index, decode};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use self::lay::{close, lay_out};
use self::room::{clean, put_aside, remove_unfinished, tidy};
use super::code::{self, fetch_blobs};
use super::elsewhere;
use super::shelf::Shelf;
use super::tree::{blob_path, has_blob};
use crate::attempt::Attempt;
use crate::context::Context;

/// Part of the disk that datastores may take up, in percent, when nobody said how many
/// bytes.  Higher: environments and artifacts run out of room; lower: data is fetched again
/// more often.
const DISK_PERCENT: u64 = 50;

/// How often a version is laid out again when something of it was missing.
const TRIES_MAX: u32 = 3;

/// How often it is asked which versions are gone for good.  Higher: they take up room for
/// longer; lower: more requests for little.
const TIDY_EVERY: Duration = Duration::from_secs(60 * 60);

/// The pause before that is tried again when somebody fetched something meanwhile, or it failed.
const PAUSE: Duration = Duration::from_secs(10);

/// Versions that are asked about in one request; what the server allows.
const KNOWN_MAX: usize = 1_000;

/// A version that an experiment finds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Mounted {
    /// Where it is on this machine.
    pub(crate) from: PathBuf,
    /// Where it is looked for.
    pub(crate) to: PathBuf,
}

/// Why a version is not there.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("the server did not say which version of '{0}' is mounted")]
    Unknown(String),
    #[error("the datastore could not be fetched")]
    Fetch(#[source] code::Error),
    #[error("the list of its files is damaged")]
    List(#[source] grid_manifest::Error),
    #[error("the datastore, which was left in a bucket, could not be fetched")]
    Elsewhere(#[source] elsewhere::Error),
    #[error("cannot write {path}")]
    Write {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("{path} is not in the cache of this machine any more")]
    Missing { path: PathBuf },
}

impl Error {
    fn write(path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Write { path, source }
    }

    fn is_full(&self) -> bool {
        let (Self::Write { source: cause, .. }
        | Self::Fetch(code::Error::Write(cause))
        | Self::Elsewhere(elsewhere::Error::Write(cause))) = self
        else {
            return false;
        };
        matches!(
            cause.kind(),
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
        )
    }

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

type Flights = HashMap<DatastoreVersionId, Arc<tokio::sync::Mutex<()>>>;

/// The cache.
pub(crate) struct Versions {
    blobs: PathBuf,
    shelf: Arc<Shelf>,
    /// Whether nothing in doubt is left of another boot: nothing is made of the blobs before.
    is_settled: watch::Sender<bool>,
    bytes_max: u64,
    /// How many fetches there were: each has a folder of its own.
    fetches: AtomicU64,
    /// One fetch per version at a time; the others wait for it.
    flights: Mutex<Flights>,
    /// Held for reading while versions are used, for writing while old ones go.
    use_or_clean: tokio::sync::RwLock<()>,
    bytes: Mutex<Option<u64>>,
}

impl Versions {
    /// The cache in a folder, of at most so many bytes.
    pub(crate) fn new(dir: &Path, bytes_max: Option<u64>) -> io::Result<Self> {
        let blobs = dir.join("blobs");
        fs::create_dir_all(&blobs)?;
        let (shelf, doubtful) = Shelf::open(&dir.join("versions"), is_version)?;
        let is_settled = watch::Sender::new(doubtful.is_none());
        for name in doubtful.into_iter().flatten() {
            if is_version(Path::new(&name)) {
                tracing::warn!(
                    version = name,
                    "this machine went down before a datastore was on its disk: it is fetched again"
                );
                put_aside(&shelf, &name)?;
            }
        }
        let bytes_max = match bytes_max {
            Some(bytes) => bytes,
            None => {
                let disk = rustix::fs::statvfs(dir)?;
                disk.f_blocks.saturating_mul(disk.f_frsize) / 100 * DISK_PERCENT
            }
        };
        Ok(Self {
            blobs,
            shelf: Arc::new(shelf),
            is_settled,
            bytes_max,
            fetches: AtomicU64::default(),
            flights: Mutex::default(),
            use_or_clean: tokio::sync::RwLock::new(()),
            bytes: Mutex::default(),
        })
    }

    /// Brings here what an attempt mounts, and says where it is.
    pub(crate) async fn provide(
        &self,
        context: &Context,
        attempt: &Attempt,
    ) -> Result<Vec<Mounted>, Error> {
        let mounts = &attempt.launch.spec.datastores;
        let mut mounted = Vec::with_capacity(mounts.len());
        for mount in mounts {
            mounted.push(self.one(context, attempt, mount).await?);
        }
        if !mounts.is_empty() {
            self.clean_if_full(context, self.bytes_max).await;
        }
        Ok(mounted)
    }

    async fn one(
        &self,
        context: &Context,
        attempt: &Attempt,
        mount: &DatastoreMount,
    ) -> Result<Mounted, Error> {
        let unknown = || Error::Unknown(mount.datastore.clone());
        let version = mount.mounted.as_ref().ok_or_else(unknown)?;
        let mut tries = 0;
        loop {
            let used = self.use_or_clean.read().await;
            let done = self.fetch(context, attempt, mount, version).await;
            drop(used);
            match done {
                Ok(from) => {
                    let to = mount.mount_dir.clone();
                    let to = to.unwrap_or_else(|| format!("/datastores/{}", version.name));
                    let to = PathBuf::from(to);
                    return Ok(Mounted { from, to });
                }
                // Somebody cleaned the cache by hand.
                Err(Error::Missing { .. }) if tries < TRIES_MAX => tries += 1,
                Err(error) if error.is_full() && tries < 1 => {
                    tries += 1;
                    self.clean_if_full(context, 0).await;
                }
                Err(error) => return Err(error),
            }
        }
    }

    fn flight(&self, id: DatastoreVersionId) -> Arc<tokio::sync::Mutex<()>> {
        let mut flights = self.flights.lock().unwrap_or_else(PoisonError::into_inner);
        flights.retain(|known, flight| *known == id || Arc::strong_count(flight) > 1);
        Arc::clone(flights.entry(id).or_default())
    }

    async fn fetch(
        &self,
        context: &Context,
        attempt: &Attempt,
        mount: &DatastoreMount,
        version: &MountedVersion,
    ) -> Result<PathBuf, Error> {
        let id = version.id.to_string();
        let whole = self.shelf.things().join(&id);
        if is_there(&whole) {
            return Ok(whole);
        }
        let flight = self.flight(version.id);
        let _alone = flight.lock().await;
        if is_there(&whole) {
            return Ok(whole);
        }
        attempt.set_note(format!("fetching datastore {}", mount.datastore));
        // The sender is as old as this.
        let _ = self.is_settled.subscribe().wait_for(|is| *is).await;
        self.shelf
            .ensure()
            .map_err(Error::write(self.shelf.things()))?;
        fs::create_dir_all(&self.blobs).map_err(Error::write(&self.blobs))?;
        remove_unfinished(&self.shelf, &id);
        let number = self.fetches.fetch_add(1, Ordering::Relaxed);
        let fresh = self.shelf.things().join(format!("{id}.{number}.new"));
        fs::create_dir(&fresh).map_err(Error::write(&fresh))?;
        let index = self.read(context, version.manifest).await?;
        let index = Index::decode(&index).map_err(Error::List)?;
        let mut check = Check::default();
        for block in &index.blocks {
            let bytes = self.read(context, block.blob).await?;
            let entries = decode(&bytes).map_err(Error::List)?;
            for entry in &entries {
                // What the server says is checked once more where it becomes files.
                check.next(entry).map_err(Error::List)?;
            }
            self.fetch_all(context, self.lacking(&entries)?).await?;
            let count = |more| self.add_bytes(more);
            let waits = |why: Option<String>| {
                let why = why.map_or_else(String::new, |why| format!(": waits for {why}"));
                attempt.set_note(format!("fetching datastore {}{why}", mount.datastore));
            };
            elsewhere::fetch(context, &self.blobs, version.id, &entries, count, waits)
                .await
                .map_err(Error::Elsewhere)?;
            let (blobs, fresh) = (self.blobs.clone(), fresh.clone());
            let id = version.id;
            let laid = tokio::task::spawn_blocking(move || lay_out(&blobs, &fresh, id, &entries));
            laid.await
                .map_err(|error| Error::write(&self.blobs)(io::Error::other(error)))??;
        }
        let (from, to, shelf) = (fresh, whole.clone(), Arc::clone(&self.shelf));
        let closed = tokio::task::spawn_blocking(move || {
            shelf.forget(&id)?;
            close(&from, &to)
        });
        match closed
            .await
            .unwrap_or_else(|error| Err(io::Error::other(error)))
        {
            // One that was given up at its last step came first.
            Err(_) if is_there(&whole) => {}
            closed => closed.map_err(Error::write(&whole))?,
        }
        self.shelf.added();
        Ok(whole)
    }

    /// What is not here of what some entries need.
    fn lacking(&self, entries: &[Entry]) -> Result<Vec<String>, Error> {
        let mut lacking = Vec::new();
        for entry in entries {
            let Some(name) = entry.blob().map(|blob| blob.to_string()) else {
                continue;
            };
            let is_here = has_blob(&self.blobs, &name, entry.size_bytes());
            if !is_here.map_err(Error::write(&self.blobs))? {
                lacking.push(name);
            }
        }
        Ok(lacking)
    }

    async fn fetch_all(&self, context: &Context, wanted: Vec<String>) -> Result<(), Error> {
        let count = |more| self.add_bytes(more);
        fetch_blobs(context, &self.blobs, wanted, count)
            .await
            .map_err(Error::Fetch)
    }

    /// Fetches a part of the list, and reads it.
    async fn read(&self, context: &Context, blob: BlobId) -> Result<Vec<u8>, Error> {
        let path = blob_path(&self.blobs, &blob.to_string());
        for _ in 0..TRIES_MAX {
            self.fetch_all(context, vec![blob.to_string()]).await?;
            match fs::read(&path) {
                Ok(bytes) if blake3::hash(&bytes).as_bytes() == blob.as_bytes() => {
                    return Ok(bytes);
                }
                Ok(_) => {
                    tracing::warn!(path = %path.display(), "a list of the cache is damaged, and is fetched again");
                    fs::remove_file(&path).map_err(Error::write(&path))?;
                }
                Err(_) => break,
            }
        }
        Err(Error::Missing { path })
    }

    fn add_bytes(&self, more: u64) {
        let mut bytes = self.bytes.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(bytes) = &mut *bytes {
            *bytes += more;
        }
    }

    /// Looks after the cache, for ever: what is here comes to be on the disk, and what nobody
    /// can want any more goes, now and then: versions that are gone for good, and what is left
    /// of a runner that was killed.
    pub(crate) async fn keep(&self, context: &Context) {
        tokio::join!(Arc::clone(&self.shelf).keep(), self.keep_tidy(context));
    }

    async fn keep_tidy(&self, context: &Context) {
        while !*self.is_settled.borrow() {
            if let Err(error) = self.settle().await {
                tracing::error!(%error, "the cache of datastores cannot be used; trying again");
                tokio::time::sleep(PAUSE).await;
            }
        }
        loop {
            let pause = match self.tidy(context).await {
                Ok(true) => TIDY_EVERY,
                Ok(false) => PAUSE,
                Err(error) => {
                    tracing::warn!(%error, "the cache of datastores cannot be tidied; trying again later");
                    TIDY_EVERY
                }
            };
            tokio::time::sleep(pause).await;
        }
    }

    /// Removes what is in doubt since the machine was restarted; nothing is fetched before.
    async fn settle(&self) -> io::Result<()> {
        let (blobs, shelf) = (self.blobs.clone(), Arc::clone(&self.shelf));
        let settled = tokio::task::spawn_blocking(move || {
            // What versions that are on the disk have is on the disk.
            tidy(&blobs, &shelf, &HashSet::new())?;
            shelf.settled()
        });
        settled.await.map_err(io::Error::other)??;
        self.is_settled.send_replace(true);
        Ok(())
    }

    /// False when somebody is at work on the cache: who waited until nobody is would keep
    /// everybody else waiting, too.
    async fn tidy(&self, context: &Context) -> io::Result<bool> {
        let kept = fs::read_dir(self.shelf.things())?.flatten();
        let kept = kept.filter_map(|entry| {
            let name = entry.file_name().to_str()?.to_owned();
            name.parse::<DatastoreVersionId>().is_ok().then_some(name)
        });
        let kept: Vec<String> = kept.collect();
        let mut gone: HashSet<String> = kept.iter().cloned().collect();
        for part in kept.chunks(KNOWN_MAX) {
            let ask = &VersionsKnown {
                versions: part.to_vec(),
            };
            let answer = context
                .server
                .persist("asking which datastores are gone", |client| async move {
                    client
                        .post::<_, VersionsKnown>("/runner/datastores/known", ask)
                        .await
                })
                .await;
            let known = answer.map_err(io::Error::other)?;
            for id in &known.versions {
                gone.remove(id);
            }
        }
        // Nobody lays anything out meanwhile.
        let Ok(_alone) = self.use_or_clean.try_write() else {
            return Ok(false);
        };
        let used = used(context);
        gone.retain(|id| !used.contains(id));
        let (blobs, shelf) = (self.blobs.clone(), Arc::clone(&self.shelf));
        let tidied = tokio::task::spawn_blocking(move || tidy(&blobs, &shelf, &gone)).await;
        let left = tidied.map_err(io::Error::other)??;
        *self.bytes.lock().unwrap_or_else(PoisonError::into_inner) = Some(left);
        Ok(true)
    }

    /// Removes what was not used for longest while there is more than `most`.
    async fn clean_if_full(&self, context: &Context, most: u64) {
        let known = *self.bytes.lock().unwrap_or_else(PoisonError::into_inner);
        if known.is_some_and(|bytes| bytes <= most) {
            return;
        }
        // While others use the cache, it may wait; the next one looks again.
        let Ok(_alone) = self.use_or_clean.try_write() else {
            return;
        };
        let used = used(context);
        let (blobs, shelf) = (self.blobs.clone(), Arc::clone(&self.shelf));
        let cleaned = tokio::task::spawn_blocking(move || clean(&blobs, &shelf, &used, most)).await;
        match cleaned {
            Ok(Ok(left)) => {
                *self.bytes.lock().unwrap_or_else(PoisonError::into_inner) = Some(left);
            }
            Ok(Err(error)) => tracing::warn!(%error, "the cache of datastores cannot be cleaned"),
            Err(error) => tracing::warn!(%error, "the cache of datastores cannot be cleaned"),
        }
    }
}

/// Versions that attempts of this machine have.
fn used(context: &Context) -> HashSet<String> {
    context
        .table
        .all()
        .iter()
        .flat_map(|attempt| &attempt.launch.spec.datastores)
        .filter_map(|mount| Some(mount.mounted.as_ref()?.id.to_string()))
        .collect()
}

/// Whether this is the name of a version.
fn is_version(path: &Path) -> bool {
    let name = path.file_name().and_then(|name| name.to_str());
    name.is_some_and(|name| name.parse::<DatastoreVersionId>().is_ok())
}

/// Whether a version is there; from now on it was used last.
fn is_there(whole: &Path) -> bool {
    File::open(whole)
        .and_then(|folder| folder.set_modified(now()))
        .is_ok()
}

#[expect(
    clippy::disallowed_methods,
    reason = "the time of the last use of a cached version"
)]
fn now() -> SystemTime {
    SystemTime::now()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use grid_manifest::Node;

    use super::lay::{FILE_MODE, FOLDER_MODE, PROGRAM_MODE};
    use super::room::files;
    use super::*;

    fn file(path: &str, content: &str, mode: u32) -> Entry {
        Entry {
            path: path.to_owned(),
            mode,
            modified_ms: 1_700_000_000_000,
            node: Node::File {
                blob: BlobId::from_bytes(*blake3::hash(content.as_bytes()).as_bytes()),
                size_bytes: content.len() as u64,
            },
        }
    }

    fn store(blobs: &Path, content: &str) {
        let hash = blake3::hash(content.as_bytes()).to_hex();
        let path = blob_path(blobs, hash.as_str());
        fs::create_dir_all(path.parent().expect("a folder")).expect("made");
        fs::write(path, content).expect("written");
    }

    fn version(dir: &Path, name: &str, entries: &[Entry]) -> PathBuf {
        let (blobs, fresh) = (dir.join("blobs"), dir.join(format!("versions/{name}.new")));
        fs::create_dir_all(&fresh).expect("made");
        let id = DatastoreVersionId::from_parts(grid_core::time::Timestamp::from_millis(1), 1);
        lay_out(&blobs, &fresh, id, entries).expect("laid out");
        let whole = dir.join("versions").join(name);
        close(&fresh, &whole).expect("closed");
        whole
    }

    #[test]
    fn links_and_empty_folders_have_their_times() {
        let dir = tempfile::tempdir().expect("a folder");
        let entry = |path: &str, node: Node| Entry {
            path: path.to_owned(),
            mode: 0o755,
            modified_ms: 1_700_000_000_000,
            node,
        };
        let target = "nowhere".to_owned();
        let entries = [
            entry("a/empty", Node::Folder),
            entry("link", Node::Link { target }),
        ];
        let whole = version(dir.path(), "one", &entries);
        for name in ["a/empty", "link"] {
            let found = fs::symlink_metadata(whole.join(name)).expect("there");
            assert_eq!(found.mtime(), 1_700_000_000, "{name}");
        }
    }

    #[test]
    fn versions_share_what_they_have_in_common_and_go_when_unused() {
        let dir = tempfile::tempdir().expect("a folder");
        let blobs = dir.path().join("blobs");
        for content in ["one", "two", "three!"] {
            store(&blobs, content);
        }
        let first = [file("a/one", "one", 0o644), file("a/two", "two", 0o755)];
        let second = [file("a/one", "one", 0o600), file("b", "three!", 0o644)];
        let old = version(dir.path(), "old", &first);
        let new = version(dir.path(), "new", &second);
        let inode = |path: PathBuf| fs::metadata(path).expect("there").ino();
        assert_eq!(inode(old.join("a/one")), inode(new.join("a/one")));
        let mode = |path: PathBuf| fs::metadata(path).expect("there").mode() & 0o777;
        assert_eq!(mode(old.join("a/two")), PROGRAM_MODE);
        assert_eq!(mode(new.join("b")), FILE_MODE);
        assert_eq!(mode(new.join("a")), FOLDER_MODE);
        let earlier = SystemTime::UNIX_EPOCH + Duration::from_secs(1);
        let touched = File::open(&old).and_then(|folder| folder.set_modified(earlier));
        touched.expect("touched");

        let trees = dir.path().join("versions");
        let (shelf, _) = Shelf::open(&trees, is_version).expect("opened");
        let used = HashSet::from(["new".to_owned()]);
        let left = clean(&blobs, &shelf, &used, 10).expect("cleaned");
        assert!(!old.exists() && new.join("b").exists());
        assert_eq!(left, "one".len() as u64 + "three!".len() as u64);
        // What was never whole goes with what is left of it.
        let cut = trees.join("cut.3.new");
        fs::create_dir(&cut).expect("made");
        store(&blobs, "of nobody");
        let left = tidy(&blobs, &shelf, &HashSet::new()).expect("tidied");
        assert!(new.exists() && !cut.exists());
        assert_eq!(left, "one".len() as u64 + "three!".len() as u64);
        // Whatever goes has lost its name before anything of it is removed.
        let aside = put_aside(&shelf, "new").expect("put aside");
        assert!(!new.exists() && aside.join("b").exists());
        let left = tidy(&blobs, &shelf, &used).expect("tidied");
        assert!(!aside.exists());
        assert_eq!((left, files(&blobs).count()), (0, 0));
    }
}
