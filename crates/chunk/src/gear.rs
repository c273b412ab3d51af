//! Where a chunk ends, several stretches at a time.
//!
//! It is where [`fastcdc::v2020::cut`] ends it: where so many bits are zero of a hash that
//! each byte shifts on by one bit, so that a byte is out of it after 64 others.  Each step
//! needs the one before, and a processor that waits for it has room for others: four
//! stretches that lie behind one another are hashed side by side, each from 64 bytes before
//! its begin on, in half of the time.

use std::borrow::Cow;
use std::sync::LazyLock;

use fastcdc::v2020::{MASKS, get_gear_with_seed};

use crate::{CHUNK_BYTES_CENTER, CHUNK_BYTES_MAX, CHUNK_BYTES_MIN};

/// What bits of the hash are zero where a chunk ends: 18 of them below the center and 14
/// above, so that few chunks are much longer or shorter.
const MASK_BELOW: u64 = MASKS[18];
const MASK_ABOVE: u64 = MASKS[14];

/// Bytes after which one has no part in the hash any more.
const WINDOW: usize = 64;

/// Stretches side by side.
const LANES: usize = 4;

/// Bytes of a stretch.  Higher: more is hashed behind the end of a chunk, for nothing.
/// Lower: more of it are the bytes before its begin.
const LANE_BYTES: usize = 1024;

/// What each byte adds.
static GEAR: LazyLock<[u64; 256]> = LazyLock::new(|| {
    let (gear, _): (Cow<'static, [u64]>, _) = get_gear_with_seed(0);
    let mut table = [0; 256];
    for (place, number) in table.iter_mut().zip(gear.iter()) {
        *place = *number;
    }
    table
});

/// Length of the first chunk of `bytes`, which are all that is left, or at least
/// [`CHUNK_BYTES_MAX`] of it.
pub fn cut(bytes: &[u8]) -> usize {
    let bytes = bytes.get(..CHUNK_BYTES_MAX).unwrap_or(bytes);
    // Ends are looked for in pairs of bytes.
    let even = bytes.get(..bytes.len() & !1).unwrap_or(bytes);
    let mut roll = Roll {
        gear: &GEAR,
        hash: 0,
        from: CHUNK_BYTES_MIN,
    };
    let below = even.get(..CHUNK_BYTES_CENTER).unwrap_or(even);
    roll.end(below, MASK_BELOW)
        .or_else(|| roll.end(even, MASK_ABOVE))
        .unwrap_or(bytes.len())
}

/// The hash of the bytes from [`CHUNK_BYTES_MIN`] to `from`.
struct Roll {
    gear: &'static [u64; 256],
    hash: u64,
    from: usize,
}

impl Roll {
    #[inline]
    fn add(&self, hash: u64, byte: u8) -> u64 {
        (hash << 1).wrapping_add(self.gear[usize::from(byte)])
    }

    /// The first place behind `from` at which the bits of `mask` are zero.
    fn end(&mut self, bytes: &[u8], mask: u64) -> Option<usize> {
        while let Some(block) = bytes.get(self.from..self.from + LANES * LANE_BYTES) {
            if let Some(found) = self.block(bytes, block, mask) {
                return Some(self.from + found);
            }
            self.from += block.len();
        }
        for byte in bytes.get(self.from..).unwrap_or_default() {
            self.hash = self.add(self.hash, *byte);
            if self.hash & mask == 0 {
                return Some(self.from);
            }
            self.from += 1;
        }
        None
    }

    /// The first such place in a block of four stretches.
    fn block(&mut self, bytes: &[u8], block: &[u8], mask: u64) -> Option<usize> {
        let (lanes, _) = block.as_chunks::<LANE_BYTES>();
        let [first, second, third, fourth] = lanes else {
            return None;
        };
        let mut hashes = [self.hash; LANES];
        for (lane, hash) in hashes.iter_mut().enumerate().skip(1) {
            let begin = self.from + lane * LANE_BYTES;
            let before = bytes.get(begin - WINDOW..begin).unwrap_or_default();
            *hash = before.iter().fold(0, |hash, byte| self.add(hash, *byte));
        }
        let [mut a, mut b, mut c, mut d] = hashes;
        let mut found = usize::MAX;
        for at in 0..LANE_BYTES {
            a = self.add(a, first[at]);
            b = self.add(b, second[at]);
            c = self.add(c, third[at]);
            d = self.add(d, fourth[at]);
            let is_end = (a & mask == 0) | (b & mask == 0) | (c & mask == 0) | (d & mask == 0);
            if is_end {
                if a & mask == 0 {
                    return Some(at);
                }
                // One further ahead in an earlier stretch may still come.
                let ends = [b, c, d].map(|hash| hash & mask == 0);
                let lane = ends.iter().position(|is_end| *is_end).unwrap_or_default() + 1;
                found = found.min(lane * LANE_BYTES + at);
            }
        }
        self.hash = d;
        (found != usize::MAX).then_some(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the library says.
    fn expected(bytes: &[u8]) -> usize {
        let (_, length) = fastcdc::v2020::cut(
            bytes,
            CHUNK_BYTES_MIN,
            CHUNK_BYTES_CENTER,
            CHUNK_BYTES_MAX,
            MASK_BELOW,
            MASK_ABOVE,
            MASK_BELOW << 1,
            MASK_ABOVE << 1,
        );
        length
    }

    fn noise(seed: u64, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        let mut hasher = blake3::Hasher::new();
        hasher.update(&seed.to_le_bytes());
        hasher.finalize_xof().fill(&mut bytes);
        bytes
    }

    #[track_caller]
    fn same_cuts(bytes: &[u8]) -> usize {
        let (mut rest, mut count) = (bytes, 0);
        while !rest.is_empty() {
            let length = cut(rest);
            assert_eq!(length, expected(rest), "{} bytes are left", rest.len());
            rest = &rest[length..];
            count += 1;
        }
        count
    }

    #[test]
    fn chunks_end_where_the_library_ends_them() {
        // So many that ends are in every stretch, and several in one block.
        assert!(same_cuts(&noise(1, 48 << 20)) > 700);
        let words = |n: usize| b"the same words again and again "[n % 31];
        let text: Vec<u8> = (0..4 << 20)
            .map(|n| words(n) ^ (n / 10_007) as u8)
            .collect();
        same_cuts(&text);
        assert_eq!(same_cuts(&vec![0; 1 << 20]), 4);
        let mostly = |n: usize| if n % 4_999 < 70 { (n / 3) as u8 } else { 7 };
        same_cuts(&(0..4 << 20).map(mostly).collect::<Vec<u8>>());
    }

    #[test]
    fn chunks_of_every_length_end_where_the_library_ends_them() {
        let bytes = noise(2, 2 * CHUNK_BYTES_MAX);
        let edges = [
            0,
            1,
            CHUNK_BYTES_MIN,
            CHUNK_BYTES_MIN + LANES * LANE_BYTES,
            CHUNK_BYTES_CENTER,
            CHUNK_BYTES_CENTER + LANES * LANE_BYTES,
            CHUNK_BYTES_MAX,
        ];
        for edge in edges {
            for length in edge.saturating_sub(3)..edge + 4 {
                for from in (0..CHUNK_BYTES_MAX).step_by(7_919) {
                    let some = &bytes[from..from + length];
                    assert_eq!(cut(some), expected(some), "{length} from {from}");
                }
            }
        }
    }
}
