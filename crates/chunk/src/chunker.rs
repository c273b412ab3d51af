//! Cutting bytes as they come.

use bytes::{Bytes, BytesMut};
use grid_core::blob::BlobId;

use crate::gear::cut;
use crate::{CHUNK_BYTES_MAX, id_of};

/// A piece of content that is stored as one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chunk {
    /// The hash of its bytes.
    pub id: BlobId,
    /// Its bytes.
    pub bytes: Bytes,
}

/// Cuts content that comes in pieces, and hashes chunks and the whole in one go.
#[derive(Default)]
pub struct Chunker {
    buffer: BytesMut,
    whole: blake3::Hasher,
    len: u64,
}

impl Chunker {
    /// Begins.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes the next bytes.  Ask for chunks until there are none, then come again.
    pub fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
        self.len += bytes.len() as u64;
    }

    /// How many bytes came.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether nothing came.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The next chunk whose end is certain; at the end of the content, of any.
    pub fn next(&mut self, at_end: bool) -> Option<Chunk> {
        let is_certain = self.buffer.len() >= CHUNK_BYTES_MAX || at_end;
        if !is_certain || self.buffer.is_empty() {
            return None;
        }
        let bytes = self.buffer.split_to(cut(&self.buffer)).freeze();
        let id = id_of(&bytes);
        // Once more while the bytes are near.
        self.whole.update(&bytes);
        Some(Chunk { id, bytes })
    }

    /// The hash of all chunks that were given.
    pub fn whole(&self) -> BlobId {
        BlobId::from_bytes(*self.whole.finalize().as_bytes())
    }
}
