//! Moving many blobs in one request.
//!
//! The body of `PUT /blobs` (and of `PUT /runner/blobs`) is a sequence of records:
//! BLAKE3 of the bytes (32 bytes), their number (8 bytes, little endian), the bytes.
//! The server stores each whole record it has received and verified, even if the
//! connection breaks in the next one; sending a record again is harmless.
//!
//! What is larger than a chunk ([`grid_chunk::CHUNK_BYTES_MAX`]) is cut into chunks by
//! whoever sends it: `POST /blobs/missing` says which of them have to be sent, they
//! travel as records, and `POST /blobs/recipes` makes the blob of them.  All of this can
//! be done again at any time; what arrived once does not travel twice.
//!
//! Who is on the machine of the server may leave cutting and hashing to it: the body of
//! `PUT /blobs/near` is the length of each file (8 bytes, little endian) and its bytes.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use grid_chunk::Recipe;
pub use grid_chunk::sparse;
use grid_core::blob::{BlobId, BlobIdError};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::handover::Offer;

/// Bytes of a record's header.
pub const HEADER_BYTES: usize = 40;

/// The largest blob, in bytes (2 TiB).  Higher: what it is made of does not fit in a
/// recipe.
pub const BLOB_BYTES_MAX: u64 = 2 << 40;

/// Recipes in one request.  Higher: one request takes longer; lower: more requests.
pub const RECIPES_MAX: usize = 500;

/// Bytes of a request with recipes.  Higher: more memory; lower: one recipe may not fit.
pub const RECIPES_BYTES_MAX: usize = 16 << 20;

/// Chunks that one answer names as missing; there may be more.
/// Higher: longer answers; lower: more rounds.
pub const RECIPE_MISSING_MAX: usize = 20_000;

/// Writes the header of a record.
pub fn header(hash: &[u8; 32], len: u64) -> [u8; HEADER_BYTES] {
    let mut bytes = [0; HEADER_BYTES];
    bytes[..32].copy_from_slice(hash);
    bytes[32..].copy_from_slice(&len.to_le_bytes());
    bytes
}

/// What says in the length of a record that its bytes come as frames, in which long runs of
/// zeros are left out ([`grid_chunk::sparse`]).  Only who asks for that gets it.
const FRAMED: u64 = 1 << 63;

/// Writes the header of a record whose bytes come as frames.
pub fn framed_header(hash: &[u8; 32], len: u64) -> [u8; HEADER_BYTES] {
    header(hash, len | FRAMED)
}

/// The length that a header says, and whether the bytes come as frames.
pub fn framed_len(len: u64) -> (u64, bool) {
    (len & !FRAMED, len & FRAMED != 0)
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

/// The answer to the bytes of one blob whose hash the sender does not know.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlobNamed {
    /// BLAKE3 of the bytes, in hexadecimal digits.
    pub blake3: String,
}

/// The answer to files whose hashes the sender does not know.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct BlobsNamed {
    /// BLAKE3 of each file in their order, in hexadecimal digits.
    pub blobs: Vec<String>,
    /// Bytes of them that had not been sent before.
    pub new_bytes: u64,
    /// In answer to no files: where open ones are taken.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub handover: Option<Offer>,
}

/// The query that goes with such files.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct BlobsNear {
    /// The machine of the sender: BLAKE3 of its `/proc/sys/kernel/random/boot_id` and `grid`.
    pub machine: String,
}

/// The query that goes with such bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BlobWhole {
    /// How many there are.
    pub size_bytes: u64,
}

/// Which blobs, or chunks of blobs, are meant; in an answer, which have to be sent.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct BlobList {
    /// Hashes, in hexadecimal digits.
    pub blobs: Vec<String>,
}

/// What a large blob is made of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct BlobRecipe {
    /// BLAKE3 of the whole.
    pub blob: String,
    /// Length of the whole in bytes.
    pub size_bytes: u64,
    /// Whether `chunks` names pages, which were sent like chunks, instead of chunks.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub paged: bool,
    /// In base64: for each chunk its hash (32 bytes), its length and how often it comes in
    /// a row (4 bytes each, little endian); for each page its hash, and how many bytes of
    /// the whole it stands for (8 bytes).
    pub chunks: String,
}

/// Large blobs whose chunks were sent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct BlobRecipes {
    /// At most 500.
    pub recipes: Vec<BlobRecipe>,
}

/// What became of them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct BlobRecipesAnswer {
    /// Blobs that are there now: their chunks are here, and have this hash together.
    pub stored: Vec<String>,
    /// Blobs whose chunks are here and have another hash together.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub wrong: Vec<String>,
    /// Chunks and pages that have to be sent for the others; perhaps not all of them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub missing: Vec<String>,
}

impl BlobRecipe {
    /// Writes one down.
    pub fn new(blob: BlobId, recipe: &Recipe) -> Self {
        Self {
            blob: blob.to_string(),
            size_bytes: recipe.content_bytes(),
            paged: recipe.is_paged(),
            chunks: BASE64.encode(recipe.write()),
        }
    }

    /// Reads it; the error is a sentence for whoever sent it.
    pub fn parse(&self) -> Result<(BlobId, Recipe), String> {
        let blob = self.blob.parse().map_err(|e: BlobIdError| e.to_string())?;
        let list = BASE64
            .decode(&self.chunks)
            .map_err(|error| format!("the chunks of {blob} are not base64: {error}"))?;
        let recipe = Recipe::read(&list, self.paged, self.size_bytes);
        let recipe =
            recipe.map_err(|error| format!("the chunks of {blob} make no blob: {error}"))?;
        Ok((blob, recipe))
    }
}
