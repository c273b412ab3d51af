//! Blobs: bytes by their content's hash.  Code, artifacts, later data.
//!
//! Large blobs are a file each.  Small ones share pack files, because a file for each
//! of 100,000 small blobs costs more than their bytes do.  Promises:
//!
//! - **A blob is there whole or not at all**, whenever the process is killed.
//! - **A blob is what its name says.**  Nothing is stored without its hash having been
//!   computed; reads check it again on request.
//! - **The same bytes are stored once.**
//! - **What was just uploaded, or just said to be there, stays** for [`GC_GRACE`], so
//!   that whoever is about to refer to it can do so.
//!
//! Large files are forced to the disk before they get their name, so that they also
//! survive a loss of power.  Packs are forced only on request ([`Settings`]): a blob
//! that a loss of power took is found by its hash, and said to be missing.
//!
//! The surface is small on purpose: an object store has the same operations.
//! The server process is the only writer of the folder.

mod grace;
mod large;
mod pack;
mod packs;
mod reader;
#[cfg(test)]
mod tests;
mod writer;

use std::collections::HashSet;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::Stream;
use grid_core::blob::BlobId;
use grid_core::time::Timestamp;
use tokio::sync::mpsc;

pub use reader::{BlobReader, READ_ALL_BYTES_MAX};
pub use writer::BlobWriter;

use crate::logs::blocking;
use grace::Grace;
use large::LargeFiles;
use packs::Packs;

/// Largest small blob in bytes: what is larger gets a file.
/// Higher: packs fill with what a file would serve as well, and rewriting them after
/// deletions copies more.  Lower: more files.
pub const SMALL_BYTES_MAX: usize = 256 * 1024;

/// How long a blob stays that was uploaded, or said to be there, and that nobody
/// refers to.  It also begins anew when the store is opened.
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
    /// Force each large blob to the disk before it counts.
    pub sync_large: bool,
    /// Force each batch of small blobs to the disk before it counts.
    pub sync_small: bool,
    /// See [`GC_GRACE`].
    pub grace: Duration,
}

impl Settings {
    /// The usual settings.
    pub fn new(clock: impl Fn() -> Timestamp + Send + Sync + 'static) -> Self {
        Self {
            clock: Arc::new(clock),
            sync_large: true,
            sync_small: false,
            grace: GC_GRACE,
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
    /// The stored bytes are not what they were.
    #[error("blob {id} is damaged on disk: upload it again, and check the disk")]
    Corrupt { id: BlobId },
    /// The disk is full.  Nothing of the blob was kept.
    #[error("no room on disk to store {what}: make room, then try again")]
    Full { what: String, source: io::Error },
    /// The file system failed.
    #[error("could not {doing}")]
    Io { doing: String, source: io::Error },
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

/// What a deletion did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Deleted {
    /// Blobs that are gone now.
    pub removed: u64,
    /// Blobs that are too young to go.
    pub kept: u64,
    /// Blobs that were not there.
    pub missing: u64,
}

/// The blobs in a folder.
#[derive(Clone)]
pub struct Blobs {
    inner: Arc<Inner>,
}

struct Inner {
    settings: Settings,
    grace: Grace,
    packs: Packs,
    large: LargeFiles,
}

impl Blobs {
    /// Opens the folder, makes it if it is not there, and repairs what a killed
    /// process left behind.  This blocks.
    pub fn open(dir: &Path, settings: Settings) -> Result<Self, BlobError> {
        let packs = Packs::open(&dir.join("packs"), settings.sync_small)?;
        let large = LargeFiles::open(dir, settings.sync_large)?;
        let grace = Grace::new(settings.grace);
        Ok(Self {
            inner: Arc::new(Inner {
                settings,
                grace,
                packs,
                large,
            }),
        })
    }

    /// Which of these blobs are not there.  The others stay for the grace.
    pub async fn missing(&self, ids: Vec<BlobId>) -> Result<Vec<BlobId>, BlobError> {
        let inner = Arc::clone(&self.inner);
        blocking(move || {
            inner.grace.touch(&ids);
            let mut missing = inner.packs.missing(ids);
            let mut result = Ok(());
            missing.retain(|id| match inner.large.has(*id) {
                Ok(has) => !has,
                Err(error) => {
                    result = Err(error);
                    true
                }
            });
            result.map(|()| missing)
        })
        .await
    }

    /// Stores blobs of up to [`SMALL_BYTES_MAX`] together.  After an error none, or a
    /// first part of them, is there: the same call again does the rest.
    pub async fn put_small_batch(&self, blobs: Vec<(BlobId, Bytes)>) -> Result<(), BlobError> {
        let inner = Arc::clone(&self.inner);
        blocking(move || inner.put_small(&blobs)).await
    }

    /// Begins to store a blob of any length.
    pub fn writer(&self) -> BlobWriter {
        BlobWriter::new(Arc::clone(&self.inner))
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
            Ok(Some(_)) | Err(BlobError::Corrupt { .. }) => Ok(Health::Corrupt),
            Err(error) => Err(error),
        })
        .await
    }

    /// All blobs, in no order.  What is stored or deleted meanwhile may be among them
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

    /// Deletes blobs that nobody refers to any more, but for those that are within
    /// their grace.
    ///
    /// For this to be safe, whoever is about to refer to a blob must have stored it or
    /// asked [`Blobs::missing`] for it less than the grace ago.
    pub async fn delete(&self, ids: Vec<BlobId>) -> Result<Deleted, BlobError> {
        let inner = Arc::clone(&self.inner);
        blocking(move || inner.delete(ids)).await
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
        let ids: Vec<BlobId> = blobs.iter().map(|(id, _)| *id).collect();
        self.grace.touch(&ids);
        self.packs.put(blobs, (self.settings.clock)())
    }

    fn get(&self, id: BlobId) -> Result<Option<BlobReader>, BlobError> {
        if let Some(reader) = self.packs.get(id)? {
            return Ok(Some(reader));
        }
        self.large.get(id)
    }

    fn delete(&self, ids: Vec<BlobId>) -> Result<Deleted, BlobError> {
        let unique: HashSet<BlobId> = ids.into_iter().collect();
        let mut deleted = Deleted::default();
        let rest = self.packs.delete(unique, &self.grace, &mut deleted)?;
        self.large.delete(&rest, &self.grace, &mut deleted)?;
        self.packs.rewrite()?;
        Ok(deleted)
    }
}

fn stored_hash(reader: Option<BlobReader>) -> Result<Option<BlobId>, BlobError> {
    reader.map(|reader| reader.hash()).transpose()
}

/// The name of these bytes.
fn hash(bytes: &[u8]) -> BlobId {
    BlobId::from_bytes(*blake3::hash(bytes).as_bytes())
}
