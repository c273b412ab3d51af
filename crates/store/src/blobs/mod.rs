//! Blobs: bytes by their content's hash.  Code, artifacts, later data.
//!
//! Small blobs are records in pack files, because a file for each of 100,000 small blobs
//! costs more than their bytes do.  Large ones are cut into chunks by their content
//! ([`grid_chunk`]): each chunk is a record like a small blob, and shared by all that
//! have it, and one more record is the *recipe* that makes the blob of them.  Promises:
//!
//! - **A blob is there whole or not at all**, whenever the process is killed.
//! - **A blob is what its name says.**  Nothing is stored without its hash having been
//!   computed, and nothing is given to a reader without its being compared again.
//! - **The same bytes are stored once**, also as parts of different blobs.
//! - **What was just uploaded, or just said to be there, stays** for [`GC_GRACE`], so
//!   that whoever is about to refer to it can do so.
//!
//! Recipes, and all that they are made of, are forced to the disk before they count, so
//! that large blobs also survive a loss of power.  Small ones are so when whoever is about to
//! refer to them asks for it, once for all of them ([`Blobs::sync`]); a blob that a loss of
//! power took before is found by its hash, and said to be missing.
//!
//! What is stored is in files of a folder, or in a bucket ([`bucket`]).  The server process
//! is the only writer of either.

mod ahead;
mod append;
mod backend;
mod bucket;
mod chunked;
mod collect;
mod damaged;
mod disk;
mod grace;
mod index;
mod large;
mod pack;
mod packs;
mod places;
mod reader;
mod recipe;
mod since;
mod stream;
#[cfg(test)]
mod tests;
mod writer;

use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use bytes::Bytes;
use futures::Stream;
use grid_core::blob::BlobId;
use grid_core::time::Timestamp;
use tokio::sync::mpsc;

pub use bucket::{Bucket, BucketError, BucketOptions, CACHE_BYTES, Moved};
pub use chunked::Announced;
pub use collect::{Collected, Collection};
pub use grid_chunk::Recipe;
pub use reader::{BlobReader, Part, READ_ALL_BYTES_MAX};
pub use since::Moment;
pub use stream::{BlobsWriter, Named};
pub use writer::{BlobWriter, Finished};

use crate::logs::blocking;
use backend::Backend;
use chunked::Waits;
use disk::Disk;
use grace::Grace;
use large::LargeFiles;
use pack::{Kind, key};
use packs::Record;
use reader::Chunks;

/// Largest small blob in bytes: what is larger is cut into chunks of at most this.
/// Higher: content that changes within shares less.  Lower: chunks could not be as long
/// as whoever cuts them wants.
pub const SMALL_BYTES_MAX: usize = grid_chunk::CHUNK_BYTES_MAX;

/// How long a blob stays that was uploaded, or said to be there, and that nobody
/// refers to.  Only time during which the store is open counts.
/// Higher: what was deleted takes up room for longer.  Lower: an upload that takes
/// longer than this loses its first blobs before it can refer to them.
pub const GC_GRACE: Duration = Duration::from_secs(24 * 60 * 60);

/// How many blobs a listing may be ahead of its reader.
/// Higher: more memory.  Lower: more thread changes.
const LIST_AHEAD_BLOBS: usize = 1024;

/// How a store of blobs behaves.
#[derive(Clone)]
pub struct Settings {
    /// Tells the time that blobs are marked with.
    pub clock: Arc<dyn Fn() -> Timestamp + Send + Sync>,
    /// Force large blobs to the disk before they count.
    pub sync_large: bool,
    /// Force each batch of small blobs to the disk before it counts.
    pub sync_small: bool,
    /// See [`GC_GRACE`].
    pub grace: Duration,
    /// Keep what is stored in this bucket; the folder then has what is known of it, and
    /// a part of it.
    pub bucket: Option<Bucket>,
    /// After how many steps on the file system the process dies.
    #[cfg(test)]
    pub(crate) steps_left: Option<Arc<std::sync::atomic::AtomicI64>>,
    /// Whether what it sends to a bucket at its death arrives.
    #[cfg(test)]
    pub(crate) last_arrives: bool,
}

impl Settings {
    /// The usual settings.
    pub fn new(clock: impl Fn() -> Timestamp + Send + Sync + 'static) -> Self {
        Self {
            clock: Arc::new(clock),
            sync_large: true,
            sync_small: false,
            grace: GC_GRACE,
            bucket: None,
            #[cfg(test)]
            steps_left: None,
            #[cfg(test)]
            last_arrives: false,
        }
    }

    fn disk(&self) -> Disk {
        Disk {
            #[cfg(test)]
            steps_left: self.steps_left.clone(),
            #[cfg(test)]
            last_arrives: self.last_arrives,
        }
    }
}

/// Why a blob operation did not happen.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BlobError {
    /// The bytes are not those that were announced.
    #[error("the bytes received for blob {expected} have the hash {found}: send them again")]
    WrongHash { expected: BlobId, found: BlobId },
    /// There were more or fewer bytes than announced.
    #[error("blob {id} should have {expected} bytes and {found} were received: send it again")]
    WrongLength {
        id: BlobId,
        expected: u64,
        found: u64,
    },
    /// A blob is too large for what was asked.
    #[error("blob {id} has {len} bytes, more than the {max} that can be handled in one piece")]
    TooLarge { id: BlobId, len: u64, max: u64 },
    /// A blob is announced that is too large for what was asked.
    #[error("a blob of {len} bytes is announced, and the limit is {max}")]
    TooLong { len: u64, max: u64 },
    /// More blobs come in one stream than are taken.
    #[error("more than {max} files come at once: send the rest in another request")]
    TooMany { max: usize },
    /// What a large blob is said to be made of is not taken.
    #[error("blob {id} is not made of these chunks: {why}")]
    BadRecipe { id: BlobId, why: String },
    /// The stored bytes are not what they were.
    #[error("blob {id} is damaged on disk: upload it again, and check the disk")]
    Corrupt { id: BlobId },
    /// A part of the stored bytes is not what it was.
    #[error(
        "the chunk {chunk} at byte {at} of blob {id} is damaged on disk: upload it again, and check the disk"
    )]
    Damaged { id: BlobId, chunk: BlobId, at: u64 },
    /// The disk is full.  Of a large blob, what is stored shortens the next attempt.
    #[error("no room on disk to store {what}: make room, then try again")]
    Full { what: String, source: io::Error },
    /// The bucket did not do what it was asked.
    #[error(transparent)]
    Bucket(BucketError),
    /// The folder is that of another store.
    #[error(
        "the blobs of this server are in the bucket {there}: name that one, or empty the folder of the blobs if it is really another server"
    )]
    Elsewhere { there: String },
    /// The folder has blobs that are not in the bucket.
    #[error(
        "the blobs of this server are still in its folder: move them to {bucket} with `grid server blobs move`, or start it without a bucket"
    )]
    Unmoved { bucket: String },
    /// The file system failed.
    #[error("could not {doing}")]
    Io { doing: String, source: io::Error },
}

impl From<BucketError> for BlobError {
    fn from(error: BucketError) -> Self {
        Self::Bucket(error)
    }
}

impl BlobError {
    fn io(doing: impl Into<String>, source: io::Error) -> Self {
        Self::Io {
            doing: doing.into(),
            source,
        }
    }

    /// An error of storing `what`.
    fn storing(what: impl Into<String>, source: io::Error) -> Self {
        let what = what.into();
        match source.kind() {
            io::ErrorKind::StorageFull
            | io::ErrorKind::QuotaExceeded
            | io::ErrorKind::FileTooLarge => Self::Full { what, source },
            _ => Self::io(format!("store {what}"), source),
        }
    }
}

/// What is known of a stored blob.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlobInfo {
    /// Its name.
    pub id: BlobId,
    /// Its length in bytes.
    pub len: u64,
    /// When it was stored.
    pub written_at: Timestamp,
    /// Whether it is made of others in this list.
    pub is_chunked: bool,
}

/// What a check of a blob found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Health {
    /// It is there and has its hash.
    Ok,
    /// It is not there.
    Missing,
    /// It is there with other bytes.
    Corrupt,
}

/// The blobs in a folder.
#[derive(Clone)]
pub struct Blobs {
    inner: Arc<Inner>,
}

struct Inner {
    settings: Settings,
    grace: Grace,
    packs: Backend,
    large: LargeFiles,
    /// Large blobs that are being read: what they are made of stays.
    readers: Mutex<Vec<Weak<Chunks>>>,
    /// Held by whoever collects.
    collecting: Arc<tokio::sync::Mutex<()>>,
}

impl Blobs {
    /// Opens the folder, makes it if it is not there, and repairs what a killed
    /// process left behind.  This blocks.
    pub fn open(dir: &Path, settings: Settings) -> Result<Self, BlobError> {
        let packs = Backend::open(dir, &settings, &settings.disk())?;
        let large = LargeFiles::open(dir, &settings.disk())?;
        Self::over(dir, settings, packs, large)
    }

    fn over(
        dir: &Path,
        settings: Settings,
        packs: Backend,
        large: LargeFiles,
    ) -> Result<Self, BlobError> {
        let disk = settings.disk();
        let grace = Grace::open(&dir.join("grace"), settings.grace, &disk);
        let grace = grace.map_err(|source| {
            BlobError::io(format!("open the folder {}", dir.display()), source)
        })?;
        Ok(Self {
            inner: Arc::new(Inner {
                settings,
                grace,
                packs,
                large,
                readers: Mutex::default(),
                collecting: Arc::default(),
            }),
        })
    }

    /// Which of these blobs are not there.  The others stay for the grace.
    pub async fn missing(&self, ids: Vec<BlobId>) -> Result<Vec<BlobId>, BlobError> {
        let inner = Arc::clone(&self.inner);
        blocking(move || {
            inner.grace.touch(&ids);
            let mut missing = Vec::new();
            for id in ids {
                if !inner.has(id)? {
                    missing.push(id);
                }
            }
            Ok(missing)
        })
        .await
    }

    /// Which of these are not stored at all.  Nothing is promised of the others: they do
    /// not begin to be kept by this.
    pub async fn gone(&self, ids: Vec<BlobId>) -> Result<Vec<BlobId>, BlobError> {
        let inner = Arc::clone(&self.inner);
        blocking(move || {
            let mut gone = Vec::new();
            for id in ids {
                if inner.packs.find(id).is_none() && !inner.large.has(id)? {
                    gone.push(id);
                }
            }
            Ok(gone)
        })
        .await
    }

    /// Stores blobs of up to [`SMALL_BYTES_MAX`] together.  After an error none, or a
    /// first part of them, is there: the same call again does the rest.
    pub async fn put_small_batch(&self, blobs: Vec<(BlobId, Bytes)>) -> Result<(), BlobError> {
        let inner = Arc::clone(&self.inner);
        blocking(move || inner.put_small(&blobs)).await
    }

    /// Everything that was stored before this is on the disk, or in the bucket, when it
    /// returns.  Packs are waited for that were written to since the last time, each once;
    /// who comes while others wait shares that with them.
    pub async fn sync(&self) -> Result<(), BlobError> {
        let inner = Arc::clone(&self.inner);
        blocking(move || {
            let result = inner.packs.sync();
            result.map_err(|source| BlobError::storing("blobs for good", source))
        })
        .await
    }

    /// Stores large blobs by what they are made of, as far as that is here.  Each is
    /// read and compared with its name before it counts; that ends soon when nobody waits
    /// for it any more.
    pub async fn announce(
        &self,
        blobs: Vec<(BlobId, Recipe)>,
    ) -> Result<Vec<Announced>, BlobError> {
        let inner = Arc::clone(&self.inner);
        let waits = Waits::begin();
        let awaited = waits.awaited();
        blocking(move || inner.announce(&blobs, &awaited)).await
    }

    /// What a blob is made of; `None` when it is not here, or small.
    pub async fn recipe(&self, id: BlobId) -> Result<Option<Recipe>, BlobError> {
        let inner = Arc::clone(&self.inner);
        blocking(move || inner.recipe(id)).await
    }

    /// Begins to store a blob of any length.
    pub fn writer(&self) -> BlobWriter {
        BlobWriter::new(Arc::clone(&self.inner))
    }

    /// Begins to store blobs of up to `longest` bytes that come one after the other.
    pub fn stream_writer(&self, longest: u64) -> BlobsWriter {
        BlobsWriter::new(Arc::clone(&self.inner), longest)
    }

    /// Opens a blob to be read, if it is there.
    pub async fn get(&self, id: BlobId) -> Result<Option<BlobReader>, BlobError> {
        let inner = Arc::clone(&self.inner);
        blocking(move || inner.get(id)).await
    }

    /// Reads and verifies a blob in one go, if it is there: the quick way to a small one.
    pub async fn read(&self, id: BlobId) -> Result<Option<Bytes>, BlobError> {
        let inner = Arc::clone(&self.inner);
        blocking(move || match inner.get(id)? {
            Some(reader) => reader.read_all_now(true).map(Some),
            None => Ok(None),
        })
        .await
    }

    /// Reads all of a blob and compares it with its name.
    pub async fn check(&self, id: BlobId) -> Result<Health, BlobError> {
        let inner = Arc::clone(&self.inner);
        blocking(move || match inner.get(id).and_then(stored_hash) {
            Ok(Some(found)) if found == id => Ok(Health::Ok),
            Ok(None) => Ok(Health::Missing),
            Ok(Some(_)) | Err(BlobError::Corrupt { .. } | BlobError::Damaged { .. }) => {
                Ok(Health::Corrupt)
            }
            Err(error) => Err(error),
        })
        .await
    }

    /// Reads all that is in the bucket and compares it with its name, a pack at a time, so
    /// that [`Blobs::known_health`] says how it is.  Blobs of a folder are better read one
    /// at a time ([`Blobs::check`]): for these it does nothing, and says so.
    pub async fn reread(&self) -> Result<bool, BlobError> {
        let inner = Arc::clone(&self.inner);
        blocking(move || match &inner.packs {
            Backend::Folder(_) => Ok(false),
            Backend::Bucket(packs) => packs.reread().map(|()| true),
        })
        .await
    }

    /// How a blob is, as far as that is known without reading it.
    pub async fn known_health(&self, id: BlobId) -> Result<Health, BlobError> {
        let inner = Arc::clone(&self.inner);
        blocking(move || inner.known_health(id)).await
    }

    /// All blobs and chunks, in no order.  What is stored or deleted meanwhile may be among them
    /// or not.
    pub fn list(&self) -> impl Stream<Item = Result<BlobInfo, BlobError>> + Send + use<> {
        let (sender, mut receiver) = mpsc::channel(LIST_AHEAD_BLOBS);
        let inner = Arc::clone(&self.inner);
        tokio::task::spawn_blocking(move || {
            // The listener may stop listening at any time.
            let mut tell = |info| sender.blocking_send(Ok(info)).is_ok();
            let result = inner.packs.list(&mut tell);
            let result = result.and_then(|()| inner.large.list(&mut tell));
            if let Err(error) = result {
                let _ = sender.blocking_send(Err(error));
            }
        });
        futures::stream::poll_fn(move |context| receiver.poll_recv(context))
    }
}

impl Inner {
    fn put_small(&self, blobs: &[(BlobId, Bytes)]) -> Result<(), BlobError> {
        for (id, bytes) in blobs {
            if bytes.len() > SMALL_BYTES_MAX {
                return Err(BlobError::TooLarge {
                    id: *id,
                    len: bytes.len() as u64,
                    max: SMALL_BYTES_MAX as u64,
                });
            }
            let found = hash(bytes);
            if found != *id {
                return Err(BlobError::WrongHash {
                    expected: *id,
                    found,
                });
            }
        }
        self.put_hashed(blobs)
    }

    /// Stores small blobs whose hashes are known to be right.
    fn put_hashed(&self, blobs: &[(BlobId, Bytes)]) -> Result<(), BlobError> {
        self.grace.touch(blobs.iter().map(|(id, _)| id));
        let records: Vec<Record<'_>> = blobs
            .iter()
            .map(|(id, bytes)| Record::of(*id, bytes))
            .collect();
        self.packs.put(&records, (self.settings.clock)())
    }

    fn get(self: &Arc<Self>, id: BlobId) -> Result<Option<BlobReader>, BlobError> {
        match self.packs.get(id)? {
            None => return self.large.get(id),
            Some(found) if found.header.kind == Kind::Bytes => {
                return Ok(Some(BlobReader::of_record(self, found)));
            }
            Some(_) => {}
        }
        let Some(recipe) = self.recipe(id)? else {
            return Ok(None);
        };
        let (reader, chunks) = BlobReader::of_chunks(id, self, recipe);
        self.is_read(&chunks);
        // A collection that did not see the reader yet has removed the recipe before.
        let is_here = self.packs.index().get(&key(&id)).is_some();
        Ok(is_here.then_some(reader))
    }

    fn is_read(&self, chunks: &Arc<Chunks>) {
        let mut readers = self.readers.lock().unwrap_or_else(PoisonError::into_inner);
        if readers.len().is_power_of_two() {
            readers.retain(|reader| reader.strong_count() > 0);
        }
        readers.push(Arc::downgrade(chunks));
    }
}

fn stored_hash(reader: Option<BlobReader>) -> Result<Option<BlobId>, BlobError> {
    reader.map(|reader| reader.hash()).transpose()
}

/// The name of these bytes.
fn hash(bytes: &[u8]) -> BlobId {
    BlobId::from_bytes(*blake3::hash(bytes).as_bytes())
}
