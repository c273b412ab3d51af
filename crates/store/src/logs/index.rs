//! The sparse index of a log: scanner states at every so many bytes, in a file
//! beside the segments.
//!
//! It makes the tail and any page of a long log cheap.  It is a cache: what is
//! missing, torn or wrong in it is found out by the check of each entry and made
//! anew from the log.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use grid_core::logframe::Source;

use super::scan::{Checkpoint, Line, OpenAt, Scanner, Sink};

/// Distance of two entries of the index in bytes of log.
/// Higher: a page costs more reading before its first line.
/// Lower: the index grows; at this value it is a four-thousandth of the log.
pub(super) const CHECKPOINT_BYTES: u64 = 256 * 1024;

const ENTRY_BYTES: usize = 64;
const CHECK_AT: usize = 48;

/// What the check of an entry begins with.  A new version makes old entries invalid,
/// and so has them made anew.
const CHECK_CONTEXT: &[u8] = b"grid log index 1\0";

/// The index file of one log.
#[derive(Clone, Debug)]
pub(super) struct Index {
    path: PathBuf,
    /// How many entries of the file are good.
    entries: u64,
}

impl Index {
    /// The index of a log that has nothing yet.
    pub(super) fn none(path: PathBuf) -> Self {
        Self { path, entries: 0 }
    }

    /// Removes the file.
    pub(super) fn remove(&self) -> io::Result<()> {
        match std::fs::remove_file(&self.path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// Finds what is good in the index file of a log of `len` bytes, and the last
    /// good entry of it.
    pub(super) fn open(path: PathBuf, len: u64) -> io::Result<(Self, Checkpoint)> {
        let mut index = Self::none(path);
        let Some(file) = open_if_there(&index.path)? else {
            return Ok((index, Checkpoint::default()));
        };
        let mut count = file.metadata()?.len() / ENTRY_BYTES as u64;
        while count > 0 {
            if let Some(checkpoint) = read_entry(&file, count - 1)?
                && checkpoint.offset <= len
            {
                index.entries = count;
                return Ok((index, checkpoint));
            }
            count -= 1;
        }
        Ok((index, Checkpoint::default()))
    }

    /// Adds entries.  When that fails the index stays as it was, only sparser than
    /// it could be.
    pub(super) fn append(&mut self, checkpoints: &[Checkpoint]) -> io::Result<()> {
        if checkpoints.is_empty() {
            return Ok(());
        }
        let bytes: Vec<u8> = checkpoints.iter().flat_map(encode).collect();
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&self.path)?;
        let at = self.entries * ENTRY_BYTES as u64;
        file.write_all_at(&bytes, at)?;
        // Entries of an older life of this log may stand behind.
        file.set_len(at + bytes.len() as u64)?;
        self.entries += checkpoints.len() as u64;
        Ok(())
    }

    /// The last entry for which `is_before` holds, which must hold for a first part
    /// of the entries only.  Without any it is the beginning of the log.
    ///
    /// `None` when the file is not what it was: it must be made anew.
    pub(super) fn find(
        &self,
        is_before: impl Fn(&Checkpoint) -> bool,
    ) -> io::Result<Option<Checkpoint>> {
        let mut found = Checkpoint::default();
        if self.entries == 0 {
            return Ok(Some(found));
        }
        let Some(file) = open_if_there(&self.path)? else {
            return Ok(None);
        };
        let (mut low, mut high) = (0, self.entries);
        while low < high {
            let middle = low + (high - low) / 2;
            let Some(checkpoint) = read_entry(&file, middle)? else {
                return Ok(None);
            };
            if is_before(&checkpoint) {
                found = checkpoint;
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        Ok(Some(found))
    }
}

fn open_if_there(path: &Path) -> io::Result<Option<File>> {
    match File::open(path) {
        Ok(file) => Ok(Some(file)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Reads one entry; `None` when it is not a good one.
fn read_entry(file: &File, number: u64) -> io::Result<Option<Checkpoint>> {
    let mut bytes = [0; ENTRY_BYTES];
    match file.read_exact_at(&mut bytes, number * ENTRY_BYTES as u64) {
        Ok(()) => Ok(decode(&bytes)),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(None),
        Err(error) => Err(error),
    }
}

fn encode(checkpoint: &Checkpoint) -> [u8; ENTRY_BYTES] {
    let mut bytes = [0; ENTRY_BYTES];
    bytes[0..8].copy_from_slice(&checkpoint.offset.to_le_bytes());
    bytes[8..16].copy_from_slice(&checkpoint.lines.to_le_bytes());
    bytes[16..24].copy_from_slice(&checkpoint.at_ms.to_le_bytes());
    let (pairs, _) = bytes[24..CHECK_AT].as_chunks_mut::<8>();
    for (pair, open) in pairs.iter_mut().zip(checkpoint.open) {
        let Some(open) = open else { continue };
        // Both distances are bounded by LINE_SPAN_BYTES_MAX and the longest frame.
        let back = (checkpoint.offset - open.frame) as u32;
        let into = (open.start - open.frame) as u32;
        pair[..4].copy_from_slice(&back.to_le_bytes());
        pair[4..].copy_from_slice(&into.to_le_bytes());
    }
    let check = check(&bytes[..CHECK_AT]);
    bytes[CHECK_AT..].copy_from_slice(&check);
    bytes
}

fn decode(bytes: &[u8; ENTRY_BYTES]) -> Option<Checkpoint> {
    if bytes[CHECK_AT..] != check(&bytes[..CHECK_AT]) {
        return None;
    }
    let (words, _) = bytes.as_chunks::<8>();
    let offset = u64::from_le_bytes(words[0]);
    let open = |word: [u8; 8]| {
        let [b0, b1, b2, b3, i0, i1, i2, i3] = word;
        let back = u64::from(u32::from_le_bytes([b0, b1, b2, b3]));
        let into = u64::from(u32::from_le_bytes([i0, i1, i2, i3]));
        let frame = offset.checked_sub(back)?;
        (back > 0).then_some(OpenAt {
            start: frame + into,
            frame,
        })
    };
    Some(Checkpoint {
        offset,
        lines: u64::from_le_bytes(words[1]),
        at_ms: i64::from_le_bytes(words[2]),
        open: [open(words[3]), open(words[4]), open(words[5])],
    })
}

fn check(bytes: &[u8]) -> [u8; ENTRY_BYTES - CHECK_AT] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(CHECK_CONTEXT).update(bytes);
    let mut check = [0; ENTRY_BYTES - CHECK_AT];
    check.copy_from_slice(&hasher.finalize().as_bytes()[..ENTRY_BYTES - CHECK_AT]);
    check
}

/// The sink that gathers index entries while a log grows.
pub(super) struct Checkpoints {
    /// Distance of two entries.
    pub(super) every: u64,
    /// Offset of the last entry, found or gathered.
    pub(super) last: u64,
    /// Entries that are not in the file yet.
    pub(super) gathered: Vec<Checkpoint>,
}

impl Sink for Checkpoints {
    fn text(&mut self, _: Source, _: &[u8]) {}
    fn rewind(&mut self, _: Source) {}
    fn line(&mut self, _: Line) {}
    fn damage(&mut self, _: Line, _: u64) {}

    fn boundary(&mut self, scanner: &Scanner) {
        if scanner.position() >= self.last + self.every {
            self.last = scanner.position();
            self.gathered.push(scanner.checkpoint());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checkpoint(number: u64) -> Checkpoint {
        Checkpoint {
            offset: number * CHECKPOINT_BYTES + 7,
            lines: number * 10,
            at_ms: number as i64,
            open: [
                None,
                Some(OpenAt {
                    start: number * CHECKPOINT_BYTES + 5,
                    frame: number * CHECKPOINT_BYTES - 11,
                }),
                None,
            ],
        }
    }

    #[test]
    fn entries_are_found_by_anything_that_rises() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.idx");
        let (mut index, last) = Index::open(path.clone(), 0).unwrap();
        assert_eq!(last, Checkpoint::default());
        let all: Vec<Checkpoint> = (1..=100).map(checkpoint).collect();
        index.append(&all[..40]).unwrap();
        index.append(&all[40..]).unwrap();
        let (index, last) = Index::open(path, u64::MAX).unwrap();
        assert_eq!(last, all[99]);
        for line in [0, 9, 10, 11, 555, 999, 1000, 5000] {
            let expected = all.iter().rfind(|c| c.lines <= line);
            let found = index.find(|c| c.lines <= line).unwrap().unwrap();
            assert_eq!(found, expected.copied().unwrap_or_default(), "line {line}");
        }
    }

    #[test]
    fn what_is_torn_or_ahead_of_the_log_does_not_count() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.idx");
        let (mut index, _) = Index::open(path.clone(), 0).unwrap();
        index
            .append(&[checkpoint(1), checkpoint(2), checkpoint(3)])
            .unwrap();
        let whole = std::fs::read(&path).unwrap();

        // Cut at every byte.
        for cut in 0..=whole.len() {
            std::fs::write(&path, &whole[..cut]).unwrap();
            let (index, last) = Index::open(path.clone(), u64::MAX).unwrap();
            assert_eq!(index.entries, (cut / ENTRY_BYTES) as u64);
            let expected = match index.entries {
                0 => Checkpoint::default(),
                n => checkpoint(n),
            };
            assert_eq!(last, expected);
        }
        // Any byte of the last entry changed.
        for at in 2 * ENTRY_BYTES..whole.len() {
            let mut bytes = whole.clone();
            bytes[at] ^= 1;
            std::fs::write(&path, &bytes).unwrap();
            assert_eq!(
                Index::open(path.clone(), u64::MAX).unwrap().1,
                checkpoint(2)
            );
        }
        // A log that lost its end.
        std::fs::write(&path, &whole).unwrap();
        let (index, last) = Index::open(path, checkpoint(3).offset - 1).unwrap();
        assert_eq!((index.entries, last), (2, checkpoint(2)));
    }
}
