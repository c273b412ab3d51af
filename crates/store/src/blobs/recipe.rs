//! The record that says what a large blob is made of.
//!
//! Length of the content (8 bytes), flags (4), number of lines (4), a check over all of
//! it and the blob's name (16), the lines ([`grid_chunk::Recipe::write`]).  The check is
//! against damage; that the chunks are the blob was proven when it was stored.

use bytes::{BufMut, Bytes, BytesMut};
use grid_chunk::{ENTRY_BYTES, Recipe};
use grid_core::blob::BlobId;

const HEAD_BYTES: usize = 32;
const CHECK_BYTES: usize = 16;

/// The lines are pages.
const PAGED: u32 = 1;

/// Writes the record of a recipe.
pub(super) fn write(id: BlobId, recipe: &Recipe) -> Bytes {
    let lines = recipe.write();
    let mut bytes = BytesMut::with_capacity(HEAD_BYTES + lines.len());
    bytes.put_u64_le(recipe.content_bytes());
    bytes.put_u32_le(if recipe.is_paged() { PAGED } else { 0 });
    // Lines are limited to what a record can hold, which fits.
    bytes.put_u32_le((lines.len() / ENTRY_BYTES) as u32);
    let check = check(id, &bytes, &lines);
    bytes.put_slice(&check);
    bytes.put_slice(&lines);
    bytes.freeze()
}

fn check(id: BlobId, head: &[u8], lines: &[u8]) -> [u8; CHECK_BYTES] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(id.as_bytes()).update(head).update(lines);
    let mut check = [0; CHECK_BYTES];
    hasher.finalize_xof().fill(&mut check);
    check
}

/// Whether these bytes are the record of a recipe of this blob, undamaged.
pub(super) fn is_whole(id: BlobId, bytes: &[u8]) -> bool {
    let Some((head, lines)) = bytes.split_at_checked(HEAD_BYTES) else {
        return false;
    };
    let (head, found) = head.split_at(HEAD_BYTES - CHECK_BYTES);
    check(id, head, lines) == found
}

/// Reads the record of a recipe; `None` when it is damaged.
pub(super) fn read(id: BlobId, bytes: &[u8]) -> Option<Recipe> {
    if !is_whole(id, bytes) {
        return None;
    }
    let (head, lines) = bytes.split_at_checked(HEAD_BYTES)?;
    let (content, rest) = head.split_first_chunk::<8>()?;
    let (flags, _) = rest.split_first_chunk::<4>()?;
    let is_paged = u32::from_le_bytes(*flags) & PAGED != 0;
    Recipe::read(lines, is_paged, u64::from_le_bytes(*content)).ok()
}
