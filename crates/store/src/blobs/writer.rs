//! Storing a blob of unknown length as its bytes arrive.

use std::fs::File;
use std::io::Write;
use std::mem;
use std::num::NonZeroU64;
use std::sync::Arc;

use bytes::Bytes;
use grid_core::blob::BlobId;
use rustix::fs::{Advice, fadvise};
use tempfile::TempPath;
use tokio::task::JoinHandle;

use super::{BlobError, Inner, SMALL_BYTES_MAX, hash};
use crate::logs::blocking;

/// Size of the pieces that are hashed and written, in bytes.
/// Higher: more memory per upload.  Lower: more thread changes.
const PIECE_BYTES: usize = 1024 * 1024;

/// After so many bytes the disk begins to write them.
/// Higher: the end of a large upload waits longer for the disk.  Lower: more small writes.
const WRITE_BACK_BYTES: u64 = 8 * 1024 * 1024;

/// Takes the bytes of one blob.  Hashing and writing of one piece go on while the next
/// arrives.  A writer that is dropped leaves nothing behind.
pub struct BlobWriter {
    inner: Arc<Inner>,
    buffer: Vec<u8>,
    len: u64,
    upload: Upload,
    /// The name of the file on its way.  It goes with the writer.
    path: Option<TempPath>,
}

enum Upload {
    /// All bytes are in the buffer: it may become a small blob.
    Small,
    /// Waiting for bytes.
    Ready(Box<Spill>),
    /// A piece is on its way to the disk.
    Busy(JoinHandle<Result<Box<Spill>, BlobError>>),
    /// A write failed: there is nothing to go on with.
    Broken,
}

struct Spill {
    file: File,
    hasher: blake3::Hasher,
    written: u64,
    /// Up to where the system was told to write to the disk.
    begun: u64,
}

impl BlobWriter {
    pub(super) fn new(inner: Arc<Inner>) -> Self {
        Self {
            inner,
            buffer: Vec::new(),
            len: 0,
            upload: Upload::Small,
            path: None,
        }
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
            let room = PIECE_BYTES - self.buffer.len();
            let (now, later) = bytes.split_at(bytes.len().min(room));
            self.buffer.extend_from_slice(now);
            self.len += now.len() as u64;
            bytes = later;
            if self.buffer.len() == PIECE_BYTES {
                self.flush().await?;
            }
        }
        Ok(())
    }

    /// Hands the buffer on to the disk, when the piece before is there.
    async fn flush(&mut self) -> Result<(), BlobError> {
        let spill = match self.spill().await? {
            Some(spill) => spill,
            None => {
                let inner = Arc::clone(&self.inner);
                let (file, path) = blocking(move || inner.large.upload()).await?;
                self.path = Some(path);
                Spill::new(file)
            }
        };
        let next = Vec::with_capacity(PIECE_BYTES);
        let piece = mem::replace(&mut self.buffer, next);
        self.upload = Upload::Busy(tokio::task::spawn_blocking(move || spill.write(&piece)));
        Ok(())
    }

    /// Waits for the piece on its way.
    async fn spill(&mut self) -> Result<Option<Box<Spill>>, BlobError> {
        if let Upload::Busy(handle) = &mut self.upload {
            let done = handle.await;
            self.upload = match done {
                Ok(Ok(spill)) => Upload::Ready(spill),
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
            Upload::Ready(spill) => Ok(Some(spill)),
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
        self.end(None).await
    }

    async fn end(mut self, expected: Option<BlobId>) -> Result<BlobId, BlobError> {
        let spill = self.spill().await?;
        let (inner, rest, path) = (self.inner, self.buffer, self.path);
        blocking(move || {
            if spill.is_none() && rest.len() <= SMALL_BYTES_MAX {
                let id = named(hash(&rest), expected)?;
                inner.put_hashed(&[(id, Bytes::from(rest))])?;
                return Ok(id);
            }
            let (spill, path) = match spill.zip(path) {
                Some(begun) => begun,
                None => {
                    let (file, path) = inner.large.upload()?;
                    (Spill::new(file), path)
                }
            };
            let Spill { file, hasher, .. } = *spill.write(&rest)?;
            let found = BlobId::from_bytes(*hasher.finalize().as_bytes());
            let id = named(found, expected)?;
            inner.grace.touch(&[id]);
            inner
                .large
                .keep(&file, path, id, (inner.settings.clock)())?;
            Ok(id)
        })
        .await
    }
}

impl Spill {
    fn new(file: File) -> Box<Self> {
        Box::new(Self {
            file,
            hasher: blake3::Hasher::new(),
            written: 0,
            begun: 0,
        })
    }

    fn write(mut self: Box<Self>, piece: &[u8]) -> Result<Box<Self>, BlobError> {
        self.hasher.update(piece);
        self.file
            .write_all(piece)
            .map_err(|source| BlobError::storing("an upload", source))?;
        self.written += piece.len() as u64;
        self.begin_writing_back();
        Ok(self)
    }

    /// Has the disk write what is there while the rest arrives.  Otherwise all of it is
    /// written when the blob is whole, and whoever sent it waits for that.
    fn begin_writing_back(&mut self) {
        let length = self.written - self.begun;
        if length < WRITE_BACK_BYTES {
            return;
        }
        // Only advice: where it is not taken, the sync at the end takes longer.
        let _ = fadvise(
            &self.file,
            self.begun,
            NonZeroU64::new(length),
            Advice::DontNeed,
        );
        self.begun = self.written;
    }
}

fn named(found: BlobId, expected: Option<BlobId>) -> Result<BlobId, BlobError> {
    match expected {
        Some(expected) if expected != found => Err(BlobError::WrongHash { expected, found }),
        _ => Ok(found),
    }
}
