//! Moving many blobs in one request.
//!
//! The body of `PUT /blobs` (and of `PUT /runner/blobs`) is a sequence of records:
//! BLAKE3 of the bytes (32 bytes), their number (8 bytes, little endian), the bytes.
//! The server stores each whole record it has received and verified, even if the
//! connection breaks in the next one; sending a record again is harmless.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Bytes of a record's header.
pub const HEADER_BYTES: usize = 40;

/// The largest blob, in bytes (256 GiB).  Higher and one request may fill a disk unseen.
pub const BLOB_BYTES_MAX: u64 = 256 << 30;

/// Writes the header of a record.
pub fn header(hash: &[u8; 32], len: u64) -> [u8; HEADER_BYTES] {
    let mut bytes = [0; HEADER_BYTES];
    bytes[..32].copy_from_slice(hash);
    bytes[32..].copy_from_slice(&len.to_le_bytes());
    bytes
}

/// Reads the header of a record: the hash and the number of bytes that follow.
pub fn parse_header(bytes: &[u8; HEADER_BYTES]) -> ([u8; 32], u64) {
    let mut hash = [0; 32];
    hash.copy_from_slice(&bytes[..32]);
    let mut len = [0; 8];
    len.copy_from_slice(&bytes[32..]);
    (hash, u64::from_le_bytes(len))
}

/// The answer to an upload.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct BlobsStored {
    /// How many records were stored or already there.
    pub stored: u64,
}
