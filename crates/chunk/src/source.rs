//! Cutting a file, whose holes are not read.

use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::sync::OnceLock;

use bytes::{Bytes, BytesMut};
use grid_core::blob::BlobId;
use rustix::fs::SeekFrom;

use crate::{CHUNK_BYTES_MAX, Whole, cut, id_of};

/// Bytes read at a time.  Higher: more memory per file under way.  Lower: more
/// system calls, and more bytes copied from one buffer to the next.
const READ_BYTES: usize = 4 << 20;

/// Repeats of the chunk of a hole that are told at a time: about half a gibibyte.
/// Higher: nobody hears of progress for longer.  Lower: more entries to add up.
const REPEATS_MAX: u64 = 2_048;

/// What comes next of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Piece {
    /// The hash of the chunk.
    pub id: BlobId,
    /// The chunk's bytes.
    pub bytes: Bytes,
    /// How often it comes in a row.
    pub times: u32,
}

/// A file of a known length, cut as it is read.
pub struct Source {
    file: File,
    size: u64,
    whole: Whole,
    /// The bytes before `read_to` that are not given yet.
    buffer: BytesMut,
    read_to: u64,
    /// No data between these, as far as is known; empty for a file without holes.
    hole: (u64, u64),
    has_holes: bool,
}

/// The chunk at the beginning of many zeros.
fn zeros() -> &'static (BlobId, Bytes) {
    static ZEROS: OnceLock<(BlobId, Bytes)> = OnceLock::new();
    ZEROS.get_or_init(|| {
        let mut bytes = vec![0; CHUNK_BYTES_MAX];
        bytes.truncate(cut(&bytes));
        (id_of(&bytes), bytes.into())
    })
}

/// Whether a chunk is the one that long runs of zeros are made of.
pub fn is_zeros(chunk: BlobId) -> bool {
    chunk == zeros().0
}

impl Source {
    /// Cuts the first `size` bytes of a file.
    pub fn new(file: File, size: u64) -> io::Result<Self> {
        // In units of 512 bytes, whatever the file system's are.
        let stored = file.metadata()?.blocks().saturating_mul(512);
        Ok(Self {
            file,
            size,
            whole: Whole::new(),
            buffer: BytesMut::new(),
            read_to: 0,
            hole: (0, 0),
            has_holes: size > CHUNK_BYTES_MAX as u64 && stored < size,
        })
    }

    /// The file that is read.
    pub fn file(&self) -> &File {
        &self.file
    }

    /// The next chunk.  A file that is shorter than it was is an
    /// [`io::ErrorKind::UnexpectedEof`].
    #[expect(
        clippy::should_implement_trait,
        reason = "it fails, and nobody goes on after that"
    )]
    pub fn next(&mut self) -> io::Result<Option<Piece>> {
        let begin = self.read_to - self.buffer.len() as u64;
        if begin >= self.size {
            return Ok(None);
        }
        if let Some(times) = self.zeros_at(begin) {
            return Ok(Some(self.give_zeros(begin, times)));
        }
        while self.buffer.len() < CHUNK_BYTES_MAX && self.read_to < self.size {
            self.fill()?;
        }
        let bytes = self.buffer.split_to(cut(&self.buffer)).freeze();
        self.whole.update(&bytes);
        Ok(Some(Piece {
            id: id_of(&bytes),
            bytes,
            times: 1,
        }))
    }

    /// The hash of everything that was given.
    pub fn whole(&self) -> BlobId {
        self.whole.finish()
    }

    /// How often the chunk of zeros comes from here on, if it is certain without a look
    /// at the bytes.
    fn zeros_at(&mut self, begin: u64) -> Option<u32> {
        if !self.has_holes {
            return None;
        }
        if begin >= self.hole.1 {
            self.find_hole(begin);
        }
        let (from, to) = self.hole;
        // What decides on a cut is at most the longest chunk.
        let certain = to.checked_sub(begin)?.checked_sub(CHUNK_BYTES_MAX as u64)?;
        if begin < from {
            return None;
        }
        let times = (certain / zeros().1.len() as u64 + 1).min(REPEATS_MAX);
        u32::try_from(times).ok()
    }

    fn find_hole(&mut self, begin: u64) {
        let data = match rustix::fs::seek(&self.file, SeekFrom::Data(begin)) {
            Ok(data) => data.min(self.size),
            // Nothing but a hole up to the end.
            Err(rustix::io::Errno::NXIO) => self.size,
            Err(_) => begin,
        };
        if data > begin {
            self.hole = (begin, data);
            return;
        }
        let Ok(from) = rustix::fs::seek(&self.file, SeekFrom::Hole(begin)) else {
            self.has_holes = false;
            return;
        };
        let to = match rustix::fs::seek(&self.file, SeekFrom::Data(from)) {
            Ok(data) => data.min(self.size),
            Err(_) => self.size,
        };
        self.hole = (from.min(self.size), to);
    }

    fn give_zeros(&mut self, begin: u64, times: u32) -> Piece {
        let (id, bytes) = zeros();
        self.whole.zeros(bytes.len() as u64 * u64::from(times));
        self.buffer.clear();
        self.read_to = begin + u64::from(times) * bytes.len() as u64;
        Piece {
            id: *id,
            bytes: bytes.clone(),
            times,
        }
    }

    /// Reads on, within a hole only as far as the next cut may depend on.
    fn fill(&mut self) -> io::Result<()> {
        let left = self.size - self.read_to;
        let (from, to) = self.hole;
        let mut want = READ_BYTES as u64;
        if self.has_holes && self.read_to < to {
            want = if self.read_to >= from {
                CHUNK_BYTES_MAX as u64
            } else {
                (from - self.read_to).max(CHUNK_BYTES_MAX as u64)
            };
        }
        let want = want.min(left).min(READ_BYTES as u64) as usize;
        let filled = self.buffer.len();
        self.buffer.reserve(want);
        self.buffer.resize(filled + want, 0);
        let part = self.buffer.get_mut(filled..).unwrap_or_default();
        self.file.read_exact_at(part, self.read_to)?;
        self.read_to += want as u64;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{Builder, Chunker, Recipe};

    fn noise(seed: u64, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        blake3::Hasher::new()
            .update(&seed.to_le_bytes())
            .finalize_xof()
            .fill(&mut bytes);
        bytes
    }

    fn of_file(file: File, size: u64) -> (BlobId, Recipe) {
        let mut source = Source::new(file, size).unwrap();
        let mut builder = Builder::new();
        while let Some(piece) = source.next().unwrap() {
            assert_eq!(piece.id, id_of(&piece.bytes));
            builder.push(piece.id, piece.bytes.len() as u32, piece.times);
        }
        (source.whole(), builder.finish().0)
    }

    fn of_bytes(bytes: &[u8], step: usize) -> (BlobId, Recipe) {
        let mut chunker = Chunker::new();
        let mut builder = Builder::new();
        let mut take = |chunker: &mut Chunker, at_end| {
            while let Some(chunk) = chunker.next(at_end) {
                builder.push(chunk.id, chunk.bytes.len() as u32, 1);
            }
        };
        for piece in bytes.chunks(step) {
            chunker.push(piece);
            take(&mut chunker, false);
        }
        take(&mut chunker, true);
        (chunker.whole(), builder.finish().0)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]
        #[test]
        fn a_file_with_holes_is_cut_like_its_bytes(
            parts in proptest::collection::vec((0_u64..4_000_000, 0_usize..600_000), 0..5),
            tail in 0_u64..3_000_000,
            step in 1_000_usize..5_000_000,
        ) {
            let file = tempfile::tempfile().unwrap();
            let mut end = 0;
            for (seed, (gap, len)) in parts.into_iter().enumerate() {
                file.write_all_at(&noise(seed as u64, len), end + gap).unwrap();
                end += gap + len as u64;
            }
            let size = end + tail;
            file.set_len(size).unwrap();
            let mut bytes = vec![0; size as usize];
            file.read_exact_at(&mut bytes, 0).unwrap();
            let (whole, recipe) = of_file(file, size);
            prop_assert_eq!(whole, id_of(&bytes));
            prop_assert_eq!(recipe.content_bytes(), size);
            prop_assert_eq!((whole, recipe), of_bytes(&bytes, step));
        }
    }

    #[test]
    fn a_large_hole_takes_few_entries_and_no_time() {
        let file = tempfile::tempfile().unwrap();
        let size = 1 << 40;
        file.write_all_at(b"head", 0).unwrap();
        file.write_all_at(b"tail", size - 4).unwrap();
        let mut source = Source::new(file, size).unwrap();
        let (mut builder, mut bytes) = (Builder::new(), 0);
        while let Some(piece) = source.next().unwrap() {
            builder.push(piece.id, piece.bytes.len() as u32, piece.times);
            bytes += piece.bytes.len() as u64 * u64::from(piece.times);
        }
        assert_eq!(bytes, size);
        let Recipe::Chunks(entries) = builder.finish().0 else {
            panic!("it is short")
        };
        assert!(entries.len() < 20, "{} entries", entries.len());
    }

    #[test]
    fn a_file_that_shrinks_is_noticed() {
        let file = tempfile::tempfile().unwrap();
        file.set_len(1000).unwrap();
        let mut source = Source::new(file, 2000).unwrap();
        assert_eq!(
            source.next().unwrap_err().kind(),
            io::ErrorKind::UnexpectedEof
        );
    }

    #[test]
    fn cuts_stay_where_they_are() {
        // Other cuts are not wrong, but make everybody send and store everything again.
        let (_, recipe) = of_bytes(&noise(1, 2_000_000), 77_777);
        let Recipe::Chunks(entries) = recipe else {
            panic!("it is short")
        };
        let lengths: Vec<u32> = entries.iter().map(|entry| entry.len).collect();
        assert_eq!(lengths[..4], [83_404, 68_346, 82_041, 50_576]);
    }

    #[test]
    fn a_change_of_one_percent_costs_less_than_three() {
        let (len, files) = (10 << 20, 40);
        let (mut all, mut new) = (0, 0);
        for seed in 0..files {
            let old = noise(seed, len);
            let mut bytes = old.clone();
            let at = (seed as usize * 7_919_111) % (len - len / 100);
            bytes[at..at + len / 100].copy_from_slice(&noise(seed + 1_000, len / 100));
            let (Recipe::Chunks(before), Recipe::Chunks(after)) =
                (of_bytes(&old, len).1, of_bytes(&bytes, len).1)
            else {
                panic!("they are short")
            };
            all += len;
            let is_new = |entry: &&crate::Entry| !before.iter().any(|old| old.id == entry.id);
            new += after
                .iter()
                .filter(is_new)
                .map(|e| e.len as usize)
                .sum::<usize>();
        }
        let share = new as f64 / all as f64;
        assert!(share < 0.025, "{share}");
    }
}
