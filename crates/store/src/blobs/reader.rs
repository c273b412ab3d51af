//! Reading a blob: pieces, all of it, or a stream; with its hash checked on request.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use futures::Stream;
use grid_core::blob::BlobId;

use super::{BlobError, hash};
use crate::logs::blocking;

/// Largest blob that is read in one piece, in bytes.
/// Higher: one request may take that much memory.  Lower: more blobs have to be
/// streamed.
pub const READ_ALL_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// Size of the pieces of a stream in bytes.
/// Higher: more memory per download.  Lower: more thread changes.
const PIECE_BYTES: usize = 512 * 1024;

/// A blob that can be read, also if it is deleted meanwhile.
#[derive(Clone, Debug)]
pub struct BlobReader {
    id: BlobId,
    file: Arc<File>,
    /// Where in the file the blob begins.
    start: u64,
    len: u64,
}

impl BlobReader {
    pub(super) fn new(id: BlobId, file: Arc<File>, start: u64, len: u64) -> Self {
        Self {
            id,
            file,
            start,
            len,
        }
    }

    /// The blob's name.
    pub fn id(&self) -> BlobId {
        self.id
    }

    /// The blob's length in bytes.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether the blob has no bytes.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Up to `bytes_max` bytes from `offset` on; fewer only at the end.
    pub async fn read_at(&self, offset: u64, bytes_max: usize) -> Result<Bytes, BlobError> {
        let reader = self.clone();
        blocking(move || reader.read_now(offset, bytes_max)).await
    }

    /// The whole blob; with `verify`, only if it has its hash.
    pub async fn read_all(&self, verify: bool) -> Result<Bytes, BlobError> {
        let reader = self.clone();
        blocking(move || reader.read_all_now(verify)).await
    }

    pub(super) fn read_all_now(&self, verify: bool) -> Result<Bytes, BlobError> {
        if self.len > READ_ALL_BYTES_MAX {
            return Err(BlobError::TooLarge {
                id: self.id,
                len: self.len,
                max: READ_ALL_BYTES_MAX,
            });
        }
        let bytes = self.read_now(0, usize::MAX)?;
        if verify && hash(&bytes) != self.id {
            return Err(self.corrupt());
        }
        Ok(bytes)
    }

    /// The whole blob, piece by piece.  The last piece comes only if the blob has its
    /// hash.
    pub fn stream(self) -> impl Stream<Item = Result<Bytes, BlobError>> + Send {
        let all = 0..self.len;
        self.pieces(all, Some(blake3::Hasher::new()))
    }

    /// A range of the blob, piece by piece.  Its hash cannot be checked.
    pub fn stream_range(
        self,
        range: Range<u64>,
    ) -> impl Stream<Item = Result<Bytes, BlobError>> + Send {
        let range = range.start.min(self.len)..range.end.min(self.len);
        self.pieces(range, None)
    }

    fn pieces(
        self,
        range: Range<u64>,
        hasher: Option<blake3::Hasher>,
    ) -> impl Stream<Item = Result<Bytes, BlobError>> + Send {
        futures::stream::try_unfold((self, range, hasher), |(reader, range, hasher)| {
            blocking(move || {
                let left = usize::try_from(range.end.saturating_sub(range.start));
                let want = left.unwrap_or(usize::MAX).min(PIECE_BYTES);
                if want == 0 {
                    return Ok(None);
                }
                let bytes = reader.read_now(range.start, want)?;
                let range = range.start + bytes.len() as u64..range.end;
                let hasher = hasher.map(|mut hasher| {
                    hasher.update(&bytes);
                    hasher
                });
                let wrong = |hasher: &blake3::Hasher| hasher.finalize() != *reader.id.as_bytes();
                if range.is_empty() && hasher.as_ref().is_some_and(wrong) {
                    return Err(reader.corrupt());
                }
                Ok(Some((bytes, (reader, range, hasher))))
            })
        })
    }

    /// Reads now, on this thread.
    fn read_now(&self, offset: u64, bytes_max: usize) -> Result<Bytes, BlobError> {
        let left = usize::try_from(self.len.saturating_sub(offset)).unwrap_or(usize::MAX);
        let mut bytes = BytesMut::zeroed(left.min(bytes_max));
        match self.file.read_exact_at(&mut bytes, self.start + offset) {
            Ok(()) => Ok(bytes.freeze()),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Err(self.corrupt()),
            Err(error) => Err(BlobError::io(format!("read blob {}", self.id), error)),
        }
    }

    /// The hash of what is stored; it blocks.
    pub(super) fn hash(&self) -> Result<BlobId, BlobError> {
        let mut hasher = blake3::Hasher::new();
        let mut at = 0;
        while at < self.len {
            let bytes = self.read_now(at, PIECE_BYTES)?;
            hasher.update(&bytes);
            at += bytes.len() as u64;
        }
        Ok(BlobId::from_bytes(*hasher.finalize().as_bytes()))
    }

    fn corrupt(&self) -> BlobError {
        BlobError::Corrupt { id: self.id }
    }
}
