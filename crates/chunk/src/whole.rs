//! The BLAKE3 of content that may have long runs of zeros, which are not gone through byte
//! by byte.
//!
//! BLAKE3 is the root of a tree.  What a part of the tree comes to depends on its bytes and
//! on where they are, so zeros come to something else at each place; what each gibibyte of
//! zeros comes to, up to the largest content that is stored, is in a table that was
//! computed once (`examples/zeros.rs` computes it again).  So a hole of a terabyte costs the
//! two gibibytes at its ends.
//!
//! What comes out is the plain BLAKE3 of all the bytes.

use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};

use blake3::hazmat::{
    ChainingValue, HasherExt, Mode, merge_subtrees_non_root, merge_subtrees_root,
};
use grid_core::blob::BlobId;
use rustix::fs::SeekFrom;

use crate::Holes;
use crate::sparse::Part;

/// Bytes of one part of the tree that is hashed in one go: a power of two.
/// Higher: more of a hole is hashed at its ends.  Lower: parts are put together more often.
const LEAF_BYTES: u64 = 1 << 20;

/// How many zeros each line of the table stands for.
/// Higher: more of a hole is hashed at its ends.  Lower: a longer table.
pub const TABLE_STEP_BYTES: u64 = 1 << 30;

/// What each of these comes to, in their order: 2 TiB, the largest content that is stored.
/// Zeros beyond are hashed like other bytes.
static TABLE: &[u8] = include_bytes!("zeros.bin");

/// Zeros that are hashed at a time; any power of two.
const ZEROS_BYTES: usize = 128 * 1024;
static ZEROS: [u8; ZEROS_BYTES] = [0; ZEROS_BYTES];

/// Bytes of a file that are read at a time.
const READ_BYTES: usize = 1 << 20;

/// Hashes content from its beginning to its end.
#[derive(Debug, Clone)]
pub struct Whole {
    /// What the parts that are behind us came to, from the left; neighbours of one length
    /// are put together before the next one is added.
    parts: Vec<ChainingValue>,
    /// Where the present part begins.
    start: u64,
    leaf: blake3::Hasher,
    /// Zeros that came last: the longer they are in all, the less of them is hashed.
    waiting: u64,
}

impl Default for Whole {
    fn default() -> Self {
        Self::new()
    }
}

impl Whole {
    /// Begins.
    pub fn new() -> Self {
        Self {
            parts: Vec::new(),
            start: 0,
            leaf: blake3::Hasher::new(),
            waiting: 0,
        }
    }

    /// Takes what comes next.
    pub fn update(&mut self, mut bytes: &[u8]) {
        if !bytes.is_empty() {
            self.take_zeros();
        }
        while !bytes.is_empty() {
            let room = usize::try_from(self.room()).unwrap_or(usize::MAX);
            let (now, later) = bytes.split_at(room.min(bytes.len()));
            self.leaf.update(now);
            bytes = later;
        }
    }

    /// Takes so many zeros.
    pub fn zeros(&mut self, len: u64) {
        self.waiting = self.waiting.saturating_add(len);
    }

    fn take_zeros(&mut self) {
        let mut len = std::mem::take(&mut self.waiting);
        while len > 0 {
            let room = self.room();
            // The first part of all is never taken from the table: alone it would be the
            // root, which the table does not know.
            if room == LEAF_BYTES && len >= LEAF_BYTES && self.start > 0 {
                let fits = 1 << self.start.trailing_zeros();
                let size = (1 << len.ilog2()).min(fits);
                let value = zeros_at(self.start, size);
                self.push(value, size);
                len -= size;
                continue;
            }
            let now = room.min(len).min(ZEROS_BYTES as u64);
            self.leaf.update(&ZEROS[..now as usize]);
            len -= now;
        }
    }

    /// The hash of all that came.
    pub fn finish(&self) -> BlobId {
        if self.waiting > 0 {
            let mut all = self.clone();
            all.take_zeros();
            return all.finish();
        }
        let mut parts = self.parts.clone();
        if parts.is_empty() {
            return BlobId::from_bytes(*self.leaf.finalize().as_bytes());
        }
        if self.leaf.count() > 0 {
            merge(&mut parts, self.start);
            parts.push(self.leaf.finalize_non_root());
        }
        let mut right = parts.pop().unwrap_or_default();
        while let Some(left) = parts.pop() {
            if parts.is_empty() {
                let root = merge_subtrees_root(&left, &right, Mode::Hash);
                return BlobId::from_bytes(*root.as_bytes());
            }
            right = merge_subtrees_non_root(&left, &right, Mode::Hash);
        }
        // A single part that is whole is never put away before more comes.
        BlobId::from_bytes(right)
    }

    /// How much fits into the present part; somebody is about to add something.
    fn room(&mut self) -> u64 {
        if self.leaf.count() == LEAF_BYTES {
            let value = self.leaf.finalize_non_root();
            self.push(value, LEAF_BYTES);
        }
        LEAF_BYTES - self.leaf.count()
    }

    /// Adds a part of `size` bytes, and begins the next one behind it.
    fn push(&mut self, value: ChainingValue, size: u64) {
        merge(&mut self.parts, self.start);
        self.parts.push(value);
        self.start += size;
        self.leaf = leaf_at(self.start);
    }
}

/// Puts parts of one length together that have `end` bytes, now that something follows.
fn merge(parts: &mut Vec<ChainingValue>, end: u64) {
    while parts.len() > end.count_ones() as usize {
        let (right, left) = (parts.pop(), parts.pop());
        if let (Some(left), Some(right)) = (left, right) {
            parts.push(merge_subtrees_non_root(&left, &right, Mode::Hash));
        }
    }
}

fn leaf_at(start: u64) -> blake3::Hasher {
    let mut leaf = blake3::Hasher::new();
    leaf.set_input_offset(start);
    leaf
}

/// What so many zeros come to that begin at `start`; a power of two that divides it.
fn zeros_at(start: u64, size: u64) -> ChainingValue {
    if size > TABLE_STEP_BYTES {
        let half = size / 2;
        let (left, right) = (zeros_at(start, half), zeros_at(start + half, half));
        return merge_subtrees_non_root(&left, &right, Mode::Hash);
    }
    let known = usize::try_from(start / TABLE_STEP_BYTES).ok();
    match known.and_then(|line| TABLE.as_chunks::<32>().0.get(line)) {
        Some(value) if size == TABLE_STEP_BYTES => *value,
        _ => hash_zeros_at(start, size),
    }
}

/// The same without the table.
pub fn hash_zeros_at(start: u64, size: u64) -> ChainingValue {
    let mut leaf = leaf_at(start);
    let mut left = size;
    while left > 0 {
        let now = left.min(ZEROS_BYTES as u64);
        leaf.update(&ZEROS[..now as usize]);
        left -= now;
    }
    leaf.finalize_non_root()
}

/// Adds all that is in a file, whose holes are not read; gives how much that was.
pub fn hash_file(file: &File, whole: &mut Whole) -> io::Result<u64> {
    each_part(file, |part| {
        match part {
            Part::Bytes(bytes) => whole.update(bytes),
            Part::Zeros(len) => whole.zeros(len),
        }
        Ok(())
    })
}

/// Copies a file into an empty one, whose holes are neither read nor written.
pub fn copy_sparse(from: &File, to: &File) -> io::Result<u64> {
    let mut holes = Holes::default();
    let len = each_part(from, |part| match part {
        Part::Bytes(bytes) => holes.write(to, bytes),
        Part::Zeros(len) => {
            holes.skip(len);
            Ok(())
        }
    })?;
    holes.finish(to)?;
    Ok(len)
}

/// Tells of all that is in a file; gives how much that was.
fn each_part(file: &File, mut tell: impl FnMut(Part<'_>) -> io::Result<()>) -> io::Result<u64> {
    let found = file.metadata()?;
    // In units of 512 bytes, whatever the file system's are.
    let mut has_holes = found.blocks().saturating_mul(512) < found.len();
    let mut buffer = vec![0; READ_BYTES];
    let (mut at, mut data_to) = (0, 0);
    loop {
        if has_holes && at >= data_to {
            match next_data(file, at, found.len()) {
                Some((from, to)) => {
                    tell(Part::Zeros(from - at))?;
                    (at, data_to) = (from, to);
                }
                None => has_holes = false,
            }
        }
        let most = match has_holes {
            true => usize::try_from(data_to - at).unwrap_or(usize::MAX),
            false => READ_BYTES,
        };
        let part = buffer.get_mut(..most.min(READ_BYTES)).unwrap_or_default();
        let read = file.read_at(part, at)?;
        if read == 0 {
            return Ok(at);
        }
        tell(Part::Bytes(buffer.get(..read).unwrap_or_default()))?;
        at += read as u64;
    }
}

/// The next data of a file that was `len` bytes long: where it begins, and ends.  Nothing,
/// when that cannot be said.
fn next_data(file: &File, at: u64, len: u64) -> Option<(u64, u64)> {
    match rustix::fs::seek(file, SeekFrom::Data(at)) {
        Ok(from) if from >= at => {
            let to = rustix::fs::seek(file, SeekFrom::Hole(from)).ok()?;
            (to > from).then_some((from, to))
        }
        // Nothing but a hole up to the end.
        Err(rustix::io::Errno::NXIO) => Some((len.max(at), len.max(at))),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[derive(Debug, Clone)]
    enum Step {
        Bytes(usize),
        Zeros(u64),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            (0_usize..3_000_000).prop_map(Step::Bytes),
            (0_u64..9_000_000).prop_map(Step::Zeros),
            (0_u32..24).prop_map(|bits| Step::Zeros(1 << bits)),
            (0_u32..22).prop_map(|bits| Step::Bytes(1 << bits)),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]
        #[test]
        fn it_is_the_hash_of_all_bytes(steps in proptest::collection::vec(step(), 0..8)) {
            let (mut whole, mut plain) = (Whole::new(), blake3::Hasher::new());
            for (number, step) in steps.iter().enumerate() {
                match step {
                    Step::Bytes(len) => {
                        let bytes = vec![number as u8 + 1; *len];
                        whole.update(&bytes);
                        plain.update(&bytes);
                    }
                    Step::Zeros(len) => {
                        whole.zeros(*len);
                        plain.update(&vec![0; *len as usize]);
                    }
                }
                let found = BlobId::from_bytes(*plain.finalize().as_bytes());
                prop_assert_eq!(whole.finish(), found);
            }
        }
    }

    #[test]
    fn zeros_from_the_table_are_the_zeros_themselves() {
        let mut whole = Whole::new();
        whole.zeros(3 << 30);
        whole.update(b"end");
        let mut plain = blake3::Hasher::new();
        let zeros = vec![0; 1 << 20];
        for _ in 0..3 << 10 {
            plain.update(&zeros);
        }
        plain.update(b"end");
        assert_eq!(whole.finish().as_bytes(), plain.finalize().as_bytes());
    }

    #[test]
    fn the_table_reaches_as_far_as_anything_that_is_stored() {
        assert_eq!(TABLE.len() as u64 / 32 * TABLE_STEP_BYTES, 2 << 40);
        // Its last line; the others were computed like it.
        let last = (2_u64 << 40) - TABLE_STEP_BYTES;
        let found = hash_zeros_at(last, TABLE_STEP_BYTES);
        assert_eq!(zeros_at(last, TABLE_STEP_BYTES), found);
    }

    #[test]
    fn a_file_is_hashed_without_its_holes() {
        let file = tempfile::tempfile().unwrap();
        let (tib, mut whole) = (1_u64 << 40, Whole::new());
        file.write_all_at(b"in the middle", 12_345_678).unwrap();
        file.set_len(tib).unwrap();
        assert_eq!(hash_file(&file, &mut whole).unwrap(), tib);
        let mut told = Whole::new();
        told.zeros(12_345_678);
        told.update(b"in the middle");
        told.zeros(tib - 12_345_678 - 13);
        assert_eq!(whole.finish(), told.finish());
        let copy = tempfile::tempfile().unwrap();
        assert_eq!(copy_sparse(&file, &copy).unwrap(), tib);
        let mut copied = Whole::new();
        hash_file(&copy, &mut copied).unwrap();
        assert_eq!(copied.finish(), told.finish());
        assert!(copy.metadata().unwrap().blocks() <= 256);
        // The same without holes.
        let file = tempfile::tempfile().unwrap();
        let bytes: Vec<u8> = (0..2_500_001_u32).map(|number| number as u8).collect();
        file.write_all_at(&bytes, 0).unwrap();
        let mut whole = Whole::new();
        assert_eq!(hash_file(&file, &mut whole).unwrap(), bytes.len() as u64);
        assert_eq!(whole.finish(), crate::id_of(&bytes));
    }
}
