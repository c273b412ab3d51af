//! The threads that read files and put their chunks together to batches.

use std::fs::{File, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use grid_chunk::{Builder, CHUNK_BYTES_MAX, Page, Recipe, Source, id_of};
use grid_core::blob::BlobId;
use rustix::fs::{Mode, OFlags};
use tokio::sync::mpsc;

use super::{FileError, FileToSend, SentFile};
use crate::blob::BLOB_BYTES_MAX;

/// Bytes of a batch, but for its last chunk.
/// Higher: more memory, and more is sent again when a connection breaks.  Lower: more
/// requests.
const BATCH_BYTES: usize = 8 << 20;

/// Records of a batch.  Higher: the first of many small files is sent later.  Lower: more
/// requests.
const BATCH_RECORDS: usize = 2_000;

/// Chunks and small files that are sent together.
#[derive(Default)]
pub(super) struct Batch {
    pub(super) records: Vec<(BlobId, Bytes)>,
    bytes: usize,
    /// Files that have something in it.
    pub(super) files: Vec<Arc<Reading>>,
}

/// A file whose chunks are on their way.
pub(super) struct Reading {
    pub(super) number: usize,
    pub(super) state: Mutex<State>,
}

#[derive(Default)]
pub(super) struct State {
    /// Batches with chunks of it that have not arrived.
    pub(super) batches: usize,
    /// What it is, once it was read to its end.
    pub(super) end: Option<Result<(SentFile, Option<Recipe>), FileError>>,
}

impl Reading {
    pub(super) fn with<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        change(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Takes files in order, until there are none.
pub(super) struct Reader<'a> {
    pub(super) files: &'a [FileToSend],
    /// Which of them are to be read.
    pub(super) wanted: &'a [usize],
    pub(super) next: &'a AtomicUsize,
    pub(super) batches: mpsc::Sender<Batch>,
    pub(super) batch: Batch,
    pub(super) progress: &'a (dyn Fn(u64) + Sync),
}

/// Nobody wants batches any more.
pub(super) struct Unwanted;

impl Reader<'_> {
    pub(super) fn run(mut self) -> Result<(), Unwanted> {
        while let Some(number) = self.wanted.get(self.next.fetch_add(1, Ordering::Relaxed)) {
            let Some(file) = self.files.get(*number) else {
                continue;
            };
            let reading = Arc::new(Reading {
                number: *number,
                state: Mutex::default(),
            });
            // Also a file that cannot be read is told of by a batch.
            self.belongs(&reading);
            let end = self.read(&file.path, &reading)?;
            reading.with(|state| state.end = Some(end));
            if self.batch.records.len() >= BATCH_RECORDS || self.batch.files.len() >= BATCH_RECORDS
            {
                self.flush()?;
            }
        }
        self.flush()
    }

    fn belongs(&mut self, reading: &Arc<Reading>) {
        let is_last = |last: &Arc<Reading>| Arc::ptr_eq(last, reading);
        if !self.batch.files.last().is_some_and(is_last) {
            self.batch.files.push(Arc::clone(reading));
            reading.with(|state| state.batches += 1);
        }
    }

    fn read(
        &mut self,
        path: &Path,
        reading: &Arc<Reading>,
    ) -> Result<Result<(SentFile, Option<Recipe>), FileError>, Unwanted> {
        let (file, before) = match open(path) {
            Ok(opened) => opened,
            Err(error) => return Ok(Err(error)),
        };
        let read = if before.len() <= CHUNK_BYTES_MAX as u64 {
            self.read_small(&file, before.len(), reading)?
                .map(|blob| (blob, None))
        } else {
            self.read_large(&file, before.len(), reading)?
                .map(|(blob, recipe)| (blob, Some(recipe)))
        };
        let (blob, recipe) = match read {
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                return Ok(Err(FileError::Changed));
            }
            Err(error) => return Ok(Err(FileError::Read(error))),
        };
        match file.metadata() {
            Ok(after) if is_same(&before, &after) => Ok(Ok((
                SentFile {
                    blob,
                    metadata: Some(before),
                },
                recipe,
            ))),
            Ok(_) => Ok(Err(FileError::Changed)),
            Err(error) => Ok(Err(FileError::Read(error))),
        }
    }

    fn read_small(
        &mut self,
        file: &File,
        size: u64,
        reading: &Arc<Reading>,
    ) -> Result<io::Result<BlobId>, Unwanted> {
        let mut bytes = vec![0; size as usize];
        if let Err(error) = std::os::unix::fs::FileExt::read_exact_at(file, &mut bytes, 0) {
            return Ok(Err(error));
        }
        let id = id_of(&bytes);
        self.add(id, bytes.into(), reading)?;
        (self.progress)(size);
        Ok(Ok(id))
    }

    fn read_large(
        &mut self,
        file: &File,
        size: u64,
        reading: &Arc<Reading>,
    ) -> Result<io::Result<(BlobId, Recipe)>, Unwanted> {
        let mut builder = Builder::new();
        let source = file.try_clone().and_then(|file| Source::new(file, size));
        let mut source = match source {
            Ok(source) => source,
            Err(error) => return Ok(Err(error)),
        };
        loop {
            let piece = match source.next() {
                Ok(Some(piece)) => piece,
                Ok(None) => break,
                Err(error) => return Ok(Err(error)),
            };
            // A chunk's length fits.
            let len = piece.bytes.len() as u32;
            let page = builder.push(piece.id, len, piece.times);
            self.add_page(page, reading)?;
            self.add(piece.id, piece.bytes, reading)?;
            (self.progress)(u64::from(len) * u64::from(piece.times));
        }
        let (recipe, page) = builder.finish();
        self.add_page(page, reading)?;
        Ok(Ok((source.whole(), recipe)))
    }

    fn add_page(&mut self, page: Option<Page>, reading: &Arc<Reading>) -> Result<(), Unwanted> {
        match page {
            Some(Page { id, bytes }) => self.add(id, bytes, reading),
            None => Ok(()),
        }
    }

    fn add(&mut self, id: BlobId, bytes: Bytes, reading: &Arc<Reading>) -> Result<(), Unwanted> {
        let is_again = self.batch.records.last().is_some_and(|last| last.0 == id);
        if self.batch.bytes + bytes.len() > BATCH_BYTES && !is_again {
            self.flush()?;
        }
        self.belongs(reading);
        if !is_again {
            self.batch.bytes += bytes.len();
            self.batch.records.push((id, bytes));
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<(), Unwanted> {
        let batch = std::mem::take(&mut self.batch);
        if batch.files.is_empty() {
            return Ok(());
        }
        self.batches.blocking_send(batch).map_err(|_| Unwanted)
    }
}

/// Opens a regular file, and nothing that took its place meanwhile.
pub fn open(path: &Path) -> Result<(File, Metadata), FileError> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = rustix::fs::open(path, flags, Mode::empty());
    let file = File::from(file.map_err(|error| FileError::Read(error.into()))?);
    let metadata = file.metadata().map_err(FileError::Read)?;
    if !metadata.is_file() {
        return Err(FileError::Changed);
    }
    if metadata.len() > BLOB_BYTES_MAX {
        return Err(FileError::TooLarge);
    }
    Ok((file, metadata))
}

/// Whether a file is as it was, as far as its length and times tell.
pub fn is_same(before: &Metadata, after: &Metadata) -> bool {
    let of = |m: &Metadata| {
        (
            m.len(),
            m.mtime(),
            m.mtime_nsec(),
            m.ctime(),
            m.ctime_nsec(),
        )
    };
    of(before) == of(after)
}
