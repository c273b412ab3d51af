//! Storing a blob of unknown length as its bytes arrive.

use std::mem;
use std::sync::Arc;

use bytes::Bytes;
use grid_chunk::{Builder, Chunk, Chunker, Page};
use grid_core::blob::BlobId;
use tokio::task::JoinHandle;

use super::packs::Record;
use super::{BlobError, Inner, SMALL_BYTES_MAX, hash};
use crate::logs::blocking;

/// Size of the pieces that are cut, hashed and written, in bytes.
/// Higher: more memory per upload.  Lower: more thread changes.
const PIECE_BYTES: usize = 2 * 1024 * 1024;

/// The same where hundreds of uploads may come at once: more than a small blob.
const MODEST_PIECE_BYTES: usize = SMALL_BYTES_MAX + 64 * 1024;

/// Takes the bytes of one blob.  Cutting, hashing and writing of one piece go on while
/// the next arrives.  Of a writer that is dropped, chunks are left that the next attempt
/// finds, or the next collection after their grace.
pub struct BlobWriter {
    inner: Arc<Inner>,
    piece_bytes: usize,
    buffer: Vec<u8>,
    len: u64,
    upload: Upload,
}

enum Upload {
    /// All bytes are in the buffer: it may become a small blob.
    Small,
    /// Waiting for bytes.
    Ready(Box<Cutting>),
    /// A piece is on its way to the disk.
    Busy(JoinHandle<Result<Box<Cutting>, BlobError>>),
    /// A write failed: there is nothing to go on with.
    Broken,
}

struct Cutting {
    inner: Arc<Inner>,
    chunker: Chunker,
    recipe: Builder,
}

/// What became of a blob that was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Finished {
    /// Its name.
    pub id: BlobId,
    /// Whether it was not stored before.
    pub is_new: bool,
}

impl BlobWriter {
    pub(super) fn new(inner: Arc<Inner>) -> Self {
        Self {
            inner,
            piece_bytes: PIECE_BYTES,
            buffer: Vec::new(),
            len: 0,
            upload: Upload::Small,
        }
    }

    /// The same with less memory, and more thread changes: for one of very many.
    #[must_use]
    pub fn modest(mut self) -> Self {
        self.piece_bytes = MODEST_PIECE_BYTES;
        self
    }

    /// How many bytes were written.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether nothing was written.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Takes the next bytes.  After an error, or when this was dropped midway, the
    /// writer is of no more use.
    pub async fn write(&mut self, mut bytes: &[u8]) -> Result<(), BlobError> {
        while !bytes.is_empty() {
            let room = self.piece_bytes - self.buffer.len();
            let (now, later) = bytes.split_at(bytes.len().min(room));
            self.buffer.extend_from_slice(now);
            self.len += now.len() as u64;
            bytes = later;
            if self.buffer.len() == self.piece_bytes {
                self.flush().await?;
            }
        }
        Ok(())
    }

    /// Hands the buffer on to the disk, when the piece before is there.
    async fn flush(&mut self) -> Result<(), BlobError> {
        let cutting = match self.cutting().await? {
            Some(cutting) => cutting,
            None => Cutting::new(&self.inner),
        };
        let next = Vec::with_capacity(self.piece_bytes);
        let piece = mem::replace(&mut self.buffer, next);
        self.upload = Upload::Busy(tokio::task::spawn_blocking(move || {
            cutting.take(&piece, false)
        }));
        Ok(())
    }

    /// Waits for the piece on its way.
    async fn cutting(&mut self) -> Result<Option<Box<Cutting>>, BlobError> {
        if let Upload::Busy(handle) = &mut self.upload {
            let done = handle.await;
            self.upload = match done {
                Ok(Ok(cutting)) => Upload::Ready(cutting),
                Ok(Err(error)) => {
                    self.upload = Upload::Broken;
                    return Err(error);
                }
                Err(error) => match error.try_into_panic() {
                    Ok(panic) => std::panic::resume_unwind(panic),
                    Err(_) => std::future::pending().await,
                },
            };
        }
        match mem::replace(&mut self.upload, Upload::Broken) {
            Upload::Small => Ok(None),
            Upload::Ready(cutting) => Ok(Some(cutting)),
            Upload::Busy(_) | Upload::Broken => Err(BlobError::io(
                "go on with an upload that failed",
                std::io::Error::from(std::io::ErrorKind::BrokenPipe),
            )),
        }
    }

    /// Ends the blob and stores it, if it is the one that was announced.
    pub async fn finish(self, expected: BlobId, expected_len: u64) -> Result<(), BlobError> {
        if self.len != expected_len {
            return Err(BlobError::WrongLength {
                id: expected,
                expected: expected_len,
                found: self.len,
            });
        }
        self.end(Some(expected)).await.map(|_| ())
    }

    /// Ends the blob and stores it under the name that its bytes have.
    pub async fn finish_unnamed(self) -> Result<BlobId, BlobError> {
        Ok(self.end(None).await?.id)
    }

    /// The same, for those who count what is new.
    pub async fn finish_counted(self) -> Result<Finished, BlobError> {
        self.end(None).await
    }

    async fn end(mut self, expected: Option<BlobId>) -> Result<Finished, BlobError> {
        let cutting = self.cutting().await?;
        let (inner, rest) = (self.inner, self.buffer);
        blocking(move || {
            if cutting.is_none() && rest.len() <= SMALL_BYTES_MAX {
                let id = named(hash(&rest), expected)?;
                let is_new = inner.is_new(id)?;
                inner.put_hashed(&[(id, Bytes::from(rest))])?;
                return Ok(Finished { id, is_new });
            }
            let cutting = cutting.unwrap_or_else(|| Cutting::new(&inner));
            cutting.take(&rest, true)?.end(expected)
        })
        .await
    }
}

impl Cutting {
    fn new(inner: &Arc<Inner>) -> Box<Self> {
        Box::new(Self {
            inner: Arc::clone(inner),
            chunker: Chunker::new(),
            recipe: Builder::new(),
        })
    }

    fn take(mut self: Box<Self>, piece: &[u8], is_last: bool) -> Result<Box<Self>, BlobError> {
        self.chunker.push(piece);
        let mut chunks = Vec::new();
        while let Some(chunk) = self.chunker.next(is_last) {
            // A chunk's length fits.
            let len = chunk.bytes.len() as u32;
            let page = self.recipe.push(chunk.id, len, 1);
            chunks.push(chunk);
            chunks.extend(page.map(|Page { id, bytes }| Chunk { id, bytes }));
        }
        self.put(&chunks)?;
        Ok(self)
    }

    fn put(&self, chunks: &[Chunk]) -> Result<(), BlobError> {
        self.inner.grace.touch(chunks.iter().map(|chunk| &chunk.id));
        let records: Vec<Record<'_>> = chunks
            .iter()
            .map(|chunk| Record::of(chunk.id, &chunk.bytes))
            .collect();
        self.inner
            .packs
            .put(&records, (self.inner.settings.clock)())
    }

    fn end(mut self: Box<Self>, expected: Option<BlobId>) -> Result<Finished, BlobError> {
        let id = named(self.chunker.whole(), expected)?;
        let is_new = self.inner.is_new(id)?;
        let (recipe, page) = mem::take(&mut self.recipe).finish();
        if let Some(Page { id, bytes }) = page {
            self.put(&[Chunk { id, bytes }])?;
        }
        self.inner.grace.touch([&id]);
        self.inner.put_recipes([(id, recipe)].iter())?;
        Ok(Finished { id, is_new })
    }
}

impl Inner {
    /// Whether nothing was stored under a name yet.
    fn is_new(&self, id: BlobId) -> Result<bool, BlobError> {
        Ok(self.packs.find(id).is_none() && !self.large.has(id)?)
    }
}

fn named(found: BlobId, expected: Option<BlobId>) -> Result<BlobId, BlobError> {
    match expected {
        Some(expected) if expected != found => Err(BlobError::WrongHash { expected, found }),
        _ => Ok(found),
    }
}
