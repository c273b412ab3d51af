//! The files of one log: segments of equal size, named by where they start.
//!
//! `abc/<attempt>.<stream>.<start>.log`, the last one of a sealed log ending in
//! `.end` instead.  Segments are cut at exactly [`SEGMENT_BYTES`], so that a file's
//! name follows from an offset and nothing has to list a folder.  The length of a
//! log is what its files hold.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use super::LogId;
use super::index::CHECKPOINT_BYTES;

/// Size of a segment file in bytes.
/// Higher: deleting and copying come in larger lumps.  Lower: a long log is many
/// files, and its length takes longer to find.
pub const SEGMENT_BYTES: u64 = 64 * 1024 * 1024;

/// The sizes that logs are cut and indexed by: part of the format on disk.  Tests
/// use small ones, to meet every boundary with few bytes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sizes {
    pub(super) segment_bytes: u64,
    pub(super) checkpoint_bytes: u64,
}

impl Default for Sizes {
    fn default() -> Self {
        Self {
            segment_bytes: SEGMENT_BYTES,
            checkpoint_bytes: CHECKPOINT_BYTES,
        }
    }
}

impl Sizes {
    /// Where the segment of an offset starts.
    pub(super) fn start_of(self, offset: u64) -> u64 {
        offset - offset % self.segment_bytes
    }

    /// How many bytes the segment of an offset has from there on.
    pub(super) fn room_at(self, offset: u64) -> usize {
        let room = self.segment_bytes - offset % self.segment_bytes;
        usize::try_from(room).unwrap_or(usize::MAX)
    }
}

/// Where the files of one log are.
#[derive(Clone, Debug)]
pub(super) struct Segments {
    folder: PathBuf,
    name: String,
    pub(super) sizes: Sizes,
}

/// What the files of a log say about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) len: u64,
    pub(super) sealed: bool,
}

impl Segments {
    pub(super) fn new(dir: &Path, log: &LogId, sizes: Sizes) -> Self {
        Self {
            folder: folder(dir, log.attempt()),
            name: format!("{}.{}", log.attempt(), log.stream()),
            sizes,
        }
    }

    pub(super) fn index_path(&self) -> PathBuf {
        self.folder.join(format!("{}.idx", self.name))
    }

    fn path(&self, start: u64, extension: &str) -> PathBuf {
        self.folder
            .join(format!("{}.{start:015}.{extension}", self.name))
    }

    /// The path of the segment that starts here in a log that is not sealed.
    pub(super) fn live_path(&self, start: u64) -> PathBuf {
        self.path(start, "log")
    }

    fn end_path(&self, start: u64) -> PathBuf {
        self.path(start, "end")
    }

    /// Measures the log.
    pub(super) fn find(&self) -> io::Result<Found> {
        let mut len = 0;
        loop {
            let Some(size) = size(&self.live_path(len))? else {
                let last = size(&self.end_path(len))?;
                return Ok(Found {
                    len: len + last.unwrap_or(0).min(self.sizes.segment_bytes),
                    sealed: last.is_some(),
                });
            };
            if size < self.sizes.segment_bytes {
                len += size;
                return Ok(Found { len, sealed: false });
            }
            len += self.sizes.segment_bytes;
        }
    }

    /// Opens the segment that holds `offset` for writing, and makes it if it is the
    /// next one.
    pub(super) fn open_to_write(&self, offset: u64) -> io::Result<File> {
        let path = self.live_path(self.sizes.start_of(offset));
        let fresh = offset.is_multiple_of(self.sizes.segment_bytes);
        let open = || {
            OpenOptions::new()
                .write(true)
                .read(true)
                .create(fresh)
                .truncate(fresh)
                .open(&path)
        };
        match open() {
            Err(error) if fresh && error.kind() == io::ErrorKind::NotFound => {
                fs::create_dir_all(&self.folder)?;
                open()
            }
            result => result,
        }
    }

    /// Opens the segment that holds `offset` for reading, if it is there.
    pub(super) fn open_to_read(&self, offset: u64) -> io::Result<Option<File>> {
        let start = self.sizes.start_of(offset);
        // A log may be sealed between the two tries, but never opened again.
        for path in [self.live_path(start), self.end_path(start)] {
            match File::open(path) {
                Ok(file) => return Ok(Some(file)),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        Ok(None)
    }

    /// Marks the log as complete at this length.
    pub(super) fn seal(&self, len: u64) -> io::Result<()> {
        let start = self.sizes.start_of(len.saturating_sub(1));
        fs::rename(self.live_path(start), self.end_path(start))
    }

    /// Removes segments behind the end of the log.  After a loss of power there may be
    /// some, because files reach the disk in no order.
    pub(super) fn discard_after(&self, len: u64) -> io::Result<()> {
        let mut start = self.sizes.start_of(len) + self.sizes.segment_bytes;
        loop {
            match fs::remove_file(self.live_path(start)) {
                Ok(()) => start += self.sizes.segment_bytes,
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
                Err(error) => return Err(error),
            }
        }
    }

    /// Removes what a failed append wrote after `len`, as far as possible: bytes that
    /// stay behind are bytes of this log, and the next append writes the same again.
    pub(super) fn roll_back(&self, len: u64) {
        let start = self.sizes.start_of(len);
        if len > start
            && let Ok(file) = OpenOptions::new().write(true).open(self.live_path(start))
        {
            let _ = file.set_len(len - start);
        } else {
            let _ = fs::remove_file(self.live_path(start));
        }
        let _ = fs::remove_file(self.live_path(start + self.sizes.segment_bytes));
    }
}

/// The folder of an attempt's files: one of 4,096, so that a million attempts do not
/// share one.
fn folder(dir: &Path, attempt: &str) -> PathBuf {
    let hash = blake3::hash(attempt.as_bytes()).to_hex();
    dir.join(&hash.as_str()[..3])
}

/// Removes every file of an attempt, of all its streams.
pub(super) fn remove_all(dir: &Path, attempt: &str) -> io::Result<()> {
    let folder = folder(dir, attempt);
    let entries = match fs::read_dir(&folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    for entry in entries {
        let entry = entry?;
        // Attempt keys hold no dot, so the first one ends the key.
        let name = entry.file_name();
        if name.to_str().and_then(|name| name.split('.').next()) != Some(attempt) {
            continue;
        }
        match fs::remove_file(entry.path()) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

fn size(path: &Path) -> io::Result<Option<u64>> {
    match fs::metadata(path) {
        Ok(metadata) => Ok(Some(metadata.len())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Reads a log from anywhere, keeping the last segment's file open between reads.
#[derive(Debug)]
pub(super) struct SegmentReader {
    segments: Segments,
    open: Option<(u64, File)>,
}

impl SegmentReader {
    pub(super) fn new(segments: Segments) -> Self {
        Self {
            segments,
            open: None,
        }
    }

    /// Reads into `buffer` from `offset` on, up to the end of the segment, and says
    /// how many bytes there were.
    pub(super) fn read_at(&mut self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let sizes = self.segments.sizes;
        let start = sizes.start_of(offset);
        if self.open.as_ref().is_none_or(|(open, _)| *open != start) {
            let Some(file) = self.segments.open_to_read(offset)? else {
                return Ok(0);
            };
            self.open = Some((start, file));
        }
        let Some((_, file)) = &self.open else {
            return Ok(0);
        };
        let want = buffer.len().min(sizes.room_at(offset));
        file.read_at(&mut buffer[..want], offset - start)
    }

    /// Reads `buffer` full from `offset` on, over segments, or up to the end.
    pub(super) fn read_full_at(&mut self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let mut filled = 0;
        while filled < buffer.len() {
            match self.read_at(offset + filled as u64, &mut buffer[filled..]) {
                Ok(0) => break,
                Ok(read) => filled += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(filled)
    }
}
