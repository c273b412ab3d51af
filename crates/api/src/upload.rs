//! Sending files: cut, hashed and sent at the same time, and only what is new.
//!
//! A few threads read files, in order, and put their chunks together to batches; each
//! batch is asked about and what is missing of it is sent, several at a time.  Once all
//! chunks of a large file are there, its recipe is announced.  Memory is bounded by the
//! batches under way, whatever is sent.  A file is read once.
//!
//! Nothing is remembered here about what was sent: sent again after any interruption,
//! files cost their being read, and no byte travels twice.

mod read;
mod send;
#[cfg(test)]
mod tests;

use std::fmt::Display;
use std::fs::Metadata;
use std::io;
use std::path::PathBuf;

use bytes::Bytes;
use grid_core::blob::BlobId;

use crate::blob::{BlobRecipe, BlobRecipesAnswer};

pub use read::{is_same, open};
pub use send::send;

/// Where chunks are sent to.  It tries again by itself as long as that may help.
pub trait Door: Sync {
    /// Why it cannot be done.
    type Error: Send;

    /// Which of these have to be sent.
    fn missing(
        &self,
        ids: Vec<BlobId>,
    ) -> impl Future<Output = Result<Vec<BlobId>, Self::Error>> + Send;

    /// Sends these.
    fn put(
        &self,
        records: Vec<(BlobId, Bytes)>,
    ) -> impl Future<Output = Result<(), Self::Error>> + Send;

    /// Makes large blobs of what was sent.
    fn announce(
        &self,
        recipes: Vec<BlobRecipe>,
    ) -> impl Future<Output = Result<BlobRecipesAnswer, Self::Error>> + Send;
}

/// A file to be sent.
#[derive(Debug, Clone)]
pub struct FileToSend {
    /// Where it is.
    pub path: PathBuf,
    /// Its hash, for whom it is certain: if the bytes are there already, it is not read.
    pub known: Option<BlobId>,
}

/// A file whose bytes are there.
#[derive(Debug, Clone)]
pub struct SentFile {
    /// The hash of its content.
    pub blob: BlobId,
    /// What it was when it was read.  Nothing, for one that was not read.
    pub metadata: Option<Metadata>,
}

/// Why one file was not sent.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FileError {
    /// The system says no.
    #[error("it cannot be read")]
    Read(#[source] io::Error),
    /// It is not a file any more, or has other bytes than a moment ago.
    #[error("it was changed while it was being read")]
    Changed,
    /// There is a limit.
    #[error("it is larger than {} TiB", crate::blob::BLOB_BYTES_MAX >> 40)]
    TooLarge,
    /// What was sent is not there, again and again.
    #[error("the server does not keep it")]
    NotKept,
}

/// What this machine is called since it was started, for whoever wants to know whether
/// another program is on it, too.  Nothing where it has no such name.
pub fn machine() -> Option<String> {
    let mut name = std::fs::read("/proc/sys/kernel/random/boot_id").ok()?;
    // The number itself need not be known to others.
    name.extend_from_slice(b"grid");
    Some(grid_chunk::id_of(&name).to_string())
}

/// The body of a request that sends records.
pub fn body(
    records: &[(BlobId, Bytes)],
) -> impl futures::Stream<Item = Result<Bytes, io::Error>> + Send + use<> {
    let pieces: Vec<Result<Bytes, io::Error>> = records
        .iter()
        .flat_map(|(id, bytes)| {
            let header = crate::blob::header(id.as_bytes(), bytes.len() as u64);
            [Ok(Bytes::copy_from_slice(&header)), Ok(bytes.clone())]
        })
        .collect();
    futures::stream::iter(pieces)
}

/// Hashes as they are written.
pub fn written(ids: &[BlobId]) -> Vec<String> {
    ids.iter().map(ToString::to_string).collect()
}

/// Hashes that were written; what is none is left out.
pub fn parsed(ids: &[impl AsRef<str> + Display]) -> Vec<BlobId> {
    ids.iter()
        .filter_map(|id| id.as_ref().parse().ok())
        .collect()
}
