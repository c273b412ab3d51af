//! Writing files whose zeros take no room.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

/// Zeros that are left out together; a multiple of what file systems keep.
/// Higher: short holes are written.  Lower: more system calls.
const BLOCK_BYTES: usize = 32 * 1024;

static ZEROS: [u8; BLOCK_BYTES] = [0; BLOCK_BYTES];

/// A place in a file that is written from the front to the end: where only zeros come, a
/// hole is left.  What is there must be empty from that place on.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Holes {
    at: u64,
}

impl Holes {
    /// Goes on at a place.
    pub fn at(at: u64) -> Self {
        Self { at }
    }

    /// Leaves a hole of so many bytes.
    pub fn skip(&mut self, len: u64) {
        self.at += len;
    }

    /// Writes what comes next.
    pub fn write(&mut self, file: &File, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let room = BLOCK_BYTES - (self.at % BLOCK_BYTES as u64) as usize;
            let (mut block, mut rest) = bytes.split_at(room.min(bytes.len()));
            // Also of a part of a block: pieces end anywhere.
            if !ZEROS.starts_with(block) {
                // Blocks behind each other are written at once.
                let end = Self::data_len(bytes, room);
                (block, rest) = bytes.split_at(end);
                file.write_all_at(block, self.at)?;
            }
            self.at += block.len() as u64;
            bytes = rest;
        }
        Ok(())
    }

    /// How much there is before the next block of zeros; the first block is none.
    fn data_len(bytes: &[u8], room: usize) -> usize {
        let mut end = room.min(bytes.len());
        while let Some(next) = bytes.get(end..end + BLOCK_BYTES) {
            if next == ZEROS.as_slice() {
                return end;
            }
            end += BLOCK_BYTES;
        }
        bytes.len()
    }

    /// The file ends here.
    pub fn finish(self, file: &File) -> io::Result<()> {
        // A hole at the end is not there until the length says so.
        if file.metadata()?.len() < self.at {
            file.set_len(self.at)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn what_was_written_is_read(
            parts in proptest::collection::vec((any::<bool>(), 0_usize..200_000), 0..6),
            step in 1_usize..150_000,
        ) {
            let bytes: Vec<u8> = parts
                .into_iter()
                .flat_map(|(is_hole, len)| std::iter::repeat_n(u8::from(!is_hole), len))
                .collect();
            let file = tempfile::tempfile().unwrap();
            let mut holes = Holes::default();
            for piece in bytes.chunks(step) {
                holes.write(&file, piece).unwrap();
            }
            holes.finish(&file).unwrap();
            let mut read = vec![0; bytes.len()];
            file.read_exact_at(&mut read, 0).unwrap();
            prop_assert_eq!(file.metadata().unwrap().len(), bytes.len() as u64);
            prop_assert!(read == bytes);
        }
    }

    #[test]
    fn zeros_take_no_room() {
        let file = tempfile::tempfile().unwrap();
        let mut holes = Holes::default();
        let size = 8 << 20;
        let mut bytes = vec![0; size];
        bytes[3] = 1;
        // As they come over a line.
        for piece in bytes.chunks(16_384 + 1) {
            holes.write(&file, piece).unwrap();
        }
        holes.finish(&file).unwrap();
        let found = file.metadata().unwrap();
        assert_eq!(found.len(), size as u64);
        assert!(found.blocks() * 512 <= 64 * 1024, "{}", found.blocks());
    }
}
