//! Reading a blob: pieces, all of it, or a stream.  What is kept in packs is compared
//! with its hash on every read.

use std::fmt;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::{Bytes, BytesMut};
use futures::Stream;
use grid_chunk::{Entry, Recipe, Whole, is_zeros, sparse};
use grid_core::blob::BlobId;

use super::packs::Found;
use super::{BlobError, Inner, hash};
use crate::logs::blocking;

/// Largest blob that is read in one piece, in bytes.
/// Higher: one request may take that much memory.  Lower: more blobs have to be
/// streamed.
pub const READ_ALL_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// Size of the pieces of a stream in bytes.
/// Higher: more memory per download.  Lower: more thread changes.
const PIECE_BYTES: usize = 512 * 1024;

/// Repeats of the chunk of zeros from which on they are a long run, about a mebibyte.
/// Higher: more zeros travel.  Lower: frames of a few bytes.
const RUN_TIMES_MIN: u32 = 4;

fn is_run(entry: &Entry) -> bool {
    entry.times >= RUN_TIMES_MIN && is_zeros(entry.id)
}

/// What comes next of a blob.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Part {
    /// These bytes.
    Bytes(Bytes),
    /// So many zeros.
    Zeros(u64),
}

/// A blob that can be read, also if it is deleted meanwhile.
#[derive(Clone)]
pub struct BlobReader {
    id: BlobId,
    len: u64,
    source: Source,
}

#[derive(Clone)]
enum Source {
    /// A file of its own, as large blobs were kept before they were cut.
    File(Arc<File>),
    /// One record.
    Record(Arc<Record>),
    /// Chunks.
    Chunks(Arc<Chunks>),
}

struct Record {
    inner: Arc<Inner>,
    found: Found,
    /// The bytes, once they were read and found to be right.
    bytes: Mutex<Option<Bytes>>,
}

/// A large blob that somebody reads.  As long as this is, its chunks stay.
pub(super) struct Chunks {
    inner: Arc<Inner>,
    pub(super) recipe: Recipe,
    /// Where in the content each line of the recipe begins.
    starts: Vec<u64>,
    near: Mutex<Near>,
}

/// What was read last.
#[derive(Default)]
struct Near {
    /// The page of this number: where its lines begin, and they.
    page: Option<(usize, Arc<Lines>)>,
    /// The chunk that begins here.
    chunk: Option<(u64, Bytes)>,
}

#[derive(Default)]
struct Lines {
    starts: Vec<u64>,
    entries: Vec<Entry>,
}

impl Lines {
    fn new(entries: Vec<Entry>, from: u64) -> Self {
        let starts = starts(entries.iter().map(Entry::bytes), from);
        Self { starts, entries }
    }
}

fn starts(lengths: impl Iterator<Item = u64>, from: u64) -> Vec<u64> {
    let next = |at: &mut u64, length| {
        let start = *at;
        *at += length;
        Some(start)
    };
    lengths.scan(from, next).collect()
}

/// The last of these that is not behind `at`.
fn last_at(starts: &[u64], at: u64) -> usize {
    starts
        .partition_point(|start| *start <= at)
        .saturating_sub(1)
}

impl fmt::Debug for BlobReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BlobReader")
            .field("id", &self.id)
            .field("len", &self.len)
            .finish_non_exhaustive()
    }
}

impl BlobReader {
    pub(super) fn of_file(id: BlobId, file: File, len: u64) -> Self {
        let source = Source::File(Arc::new(file));
        Self { id, len, source }
    }

    pub(super) fn of_record(inner: &Arc<Inner>, found: Found) -> Self {
        Self {
            id: found.header.id,
            len: u64::from(found.header.len),
            source: Source::Record(Arc::new(Record {
                inner: Arc::clone(inner),
                found,
                bytes: Mutex::new(None),
            })),
        }
    }

    pub(super) fn of_chunks(id: BlobId, inner: &Arc<Inner>, recipe: Recipe) -> (Self, Arc<Chunks>) {
        let starts = match &recipe {
            Recipe::Chunks(entries) => starts(entries.iter().map(Entry::bytes), 0),
            Recipe::Pages(pages) => starts(pages.iter().map(|page| page.bytes), 0),
        };
        let len = recipe.content_bytes();
        let chunks = Arc::new(Chunks {
            inner: Arc::clone(inner),
            recipe,
            starts,
            near: Mutex::default(),
        });
        let source = Source::Chunks(Arc::clone(&chunks));
        (Self { id, len, source }, chunks)
    }

    /// The blob's name.
    pub fn id(&self) -> BlobId {
        self.id
    }

    /// The blob's length in bytes.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether the blob has no bytes.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Up to `bytes_max` bytes from `offset` on; fewer only at the end.
    pub async fn read_at(&self, offset: u64, bytes_max: usize) -> Result<Bytes, BlobError> {
        let reader = self.clone();
        blocking(move || reader.read_now(offset, bytes_max)).await
    }

    /// The whole blob; with `verify`, only if it has its hash.
    pub async fn read_all(&self, verify: bool) -> Result<Bytes, BlobError> {
        let reader = self.clone();
        blocking(move || reader.read_all_now(verify)).await
    }

    pub(super) fn read_all_now(&self, verify: bool) -> Result<Bytes, BlobError> {
        if self.len > READ_ALL_BYTES_MAX {
            return Err(BlobError::TooLarge {
                id: self.id,
                len: self.len,
                max: READ_ALL_BYTES_MAX,
            });
        }
        let bytes = self.read_now(0, usize::MAX)?;
        let is_unverified = matches!(self.source, Source::File(_));
        if verify && is_unverified && hash(&bytes) != self.id {
            return Err(self.corrupt());
        }
        Ok(bytes)
    }

    /// The whole blob, piece by piece.  The last piece comes only if the blob has its
    /// hash.
    pub fn stream(self) -> impl Stream<Item = Result<Bytes, BlobError>> + Send {
        let all = 0..self.len;
        // Of the others, each chunk is verified.
        let is_unverified = matches!(self.source, Source::File(_));
        self.pieces(all, is_unverified.then(blake3::Hasher::new))
    }

    /// A range of the blob, piece by piece.
    pub fn stream_range(
        self,
        range: Range<u64>,
    ) -> impl Stream<Item = Result<Bytes, BlobError>> + Send {
        let range = range.start.min(self.len)..range.end.min(self.len);
        self.pieces(range, None)
    }

    fn pieces(
        self,
        range: Range<u64>,
        hasher: Option<blake3::Hasher>,
    ) -> impl Stream<Item = Result<Bytes, BlobError>> + Send {
        futures::stream::try_unfold((self, range, hasher), |(reader, range, hasher)| {
            blocking(move || {
                let left = usize::try_from(range.end.saturating_sub(range.start));
                let want = left.unwrap_or(usize::MAX).min(PIECE_BYTES);
                if want == 0 {
                    return Ok(None);
                }
                let bytes = reader.read_now(range.start, want)?;
                let range = range.start + bytes.len() as u64..range.end;
                let hasher = hasher.map(|mut hasher| {
                    hasher.update(&bytes);
                    hasher
                });
                let wrong = |hasher: &blake3::Hasher| hasher.finalize() != *reader.id.as_bytes();
                if range.is_empty() && hasher.as_ref().is_some_and(wrong) {
                    return Err(reader.corrupt());
                }
                Ok(Some((bytes, (reader, range, hasher))))
            })
        })
    }

    /// Whether it may have long runs of zeros, which [`BlobReader::part_at`] tells as such.
    pub fn is_sparse(&self) -> bool {
        match &self.source {
            Source::File(_) | Source::Record(_) => false,
            Source::Chunks(chunks) => match &chunks.recipe {
                Recipe::Chunks(entries) => entries.iter().any(is_run),
                // So long that it costs nothing to look.
                Recipe::Pages(_) => true,
            },
        }
    }

    /// What comes at `offset`: up to `bytes_max` bytes, or all the zeros of a long run.
    pub async fn part_at(&self, offset: u64, bytes_max: usize) -> Result<Part, BlobError> {
        let reader = self.clone();
        blocking(move || reader.part_now(offset, bytes_max)).await
    }

    fn part_now(&self, offset: u64, bytes_max: usize) -> Result<Part, BlobError> {
        if let Source::Chunks(chunks) = &self.source
            && offset < self.len
        {
            let (entry, from) = chunks.entry_at(self.id, offset)?;
            if is_run(&entry) {
                return Ok(Part::Zeros(from + entry.bytes() - offset));
            }
        }
        self.read_now(offset, bytes_max).map(Part::Bytes)
    }

    /// A range of the blob as [`grid_chunk::sparse`] frames.
    pub fn stream_sparse(
        self,
        range: Range<u64>,
    ) -> impl Stream<Item = Result<Bytes, BlobError>> + Send {
        let range = range.start.min(self.len)..range.end.min(self.len);
        futures::stream::try_unfold((self, range), |(reader, range)| {
            blocking(move || {
                let left = range.end.saturating_sub(range.start);
                if left == 0 {
                    return Ok(None);
                }
                let want = usize::try_from(left).unwrap_or(usize::MAX).min(PIECE_BYTES);
                let mut out = BytesMut::new();
                let len = match reader.part_now(range.start, want)? {
                    Part::Zeros(len) => {
                        let len = len.min(left);
                        out.extend_from_slice(&sparse::zeros_frame(len));
                        len
                    }
                    Part::Bytes(bytes) => {
                        out.reserve(sparse::FRAME_BYTES + bytes.len());
                        out.extend_from_slice(&sparse::bytes_frame(bytes.len() as u64));
                        out.extend_from_slice(&bytes);
                        bytes.len() as u64
                    }
                };
                let range = range.start + len..range.end;
                Ok(Some((out.freeze(), (reader, range))))
            })
        })
    }

    /// Reads now, on this thread.
    fn read_now(&self, offset: u64, bytes_max: usize) -> Result<Bytes, BlobError> {
        let left = usize::try_from(self.len.saturating_sub(offset)).unwrap_or(usize::MAX);
        let want = left.min(bytes_max);
        match &self.source {
            Source::File(file) => self.read_file(file, offset, want),
            Source::Record(record) => {
                let bytes = self.read_record(record)?;
                let from = bytes.len().min(offset as usize);
                Ok(bytes.slice(from..from + want))
            }
            Source::Chunks(chunks) => self.read_chunks(chunks, offset, want),
        }
    }

    fn read_file(&self, file: &File, offset: u64, want: usize) -> Result<Bytes, BlobError> {
        let mut bytes = BytesMut::zeroed(want);
        match file.read_exact_at(&mut bytes, offset) {
            Ok(()) => Ok(bytes.freeze()),
            Err(error) => Err(self.reading(error)),
        }
    }

    fn reading(&self, error: io::Error) -> BlobError {
        match error.kind() {
            io::ErrorKind::UnexpectedEof => self.corrupt(),
            _ => BlobError::io(format!("read blob {}", self.id), error),
        }
    }

    fn read_record(&self, record: &Record) -> Result<Bytes, BlobError> {
        let mut kept = record.bytes.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(bytes) = &*kept {
            return Ok(bytes.clone());
        }
        let read = record.found.bytes().map_err(|error| self.reading(error));
        let read = read.and_then(|bytes| match hash(&bytes) == self.id {
            true => Ok(bytes),
            false => Err(self.corrupt()),
        });
        match &read {
            Ok(bytes) => *kept = Some(bytes.clone()),
            // Who has its bytes may store them again.
            Err(BlobError::Corrupt { id }) => record.inner.packs.is_found_damaged(*id),
            Err(_) => {}
        }
        read
    }

    fn read_chunks(&self, chunks: &Chunks, offset: u64, want: usize) -> Result<Bytes, BlobError> {
        let mut out = BytesMut::new();
        while out.len() < want {
            let at = offset + out.len() as u64;
            let (start, bytes) = chunks.chunk_at(self.id, at)?;
            // A chunk's length fits.
            let from = (at - start) as usize;
            let take = (bytes.len() - from).min(want - out.len());
            if take == want {
                return Ok(bytes.slice(from..from + take));
            }
            out.reserve(want - out.len());
            out.extend_from_slice(&bytes[from..from + take]);
        }
        Ok(out.freeze())
    }

    /// The hash of what is stored; it blocks.
    pub(super) fn hash(&self) -> Result<BlobId, BlobError> {
        let mut whole = Whole::new();
        let mut at = 0;
        while at < self.len {
            match self.part_now(at, PIECE_BYTES)? {
                Part::Bytes(bytes) => {
                    whole.update(&bytes);
                    at += bytes.len() as u64;
                }
                Part::Zeros(len) => {
                    // They are only passed over where the chunk that stands for them is right.
                    self.read_now(at, 1)?;
                    whole.zeros(len);
                    at += len;
                }
            }
        }
        Ok(whole.finish())
    }

    fn corrupt(&self) -> BlobError {
        BlobError::Corrupt { id: self.id }
    }
}

impl Chunks {
    fn near(&self) -> MutexGuard<'_, Near> {
        self.near.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The chunk that has the byte at `at`, and where it begins.
    fn chunk_at(&self, blob: BlobId, at: u64) -> Result<(u64, Bytes), BlobError> {
        if let Some((start, bytes)) = &self.near().chunk
            && (*start..*start + bytes.len() as u64).contains(&at)
        {
            return Ok((*start, bytes.clone()));
        }
        let (entry, from) = self.entry_at(blob, at)?;
        // Of chunks that come several times in a row, the one that has it.
        let len = u64::from(entry.len);
        let start = from + (at - from) / len.max(1) * len;
        let damaged = || BlobError::Damaged {
            id: blob,
            chunk: entry.id,
            at: start,
        };
        let read = self.inner.packs.read(entry.id, entry.len as usize, true);
        let bytes = match read {
            Ok(Some(bytes)) => bytes,
            Ok(None) | Err(BlobError::Corrupt { .. }) => return Err(damaged()),
            Err(error) => return Err(error),
        };
        self.near().chunk = Some((start, bytes.clone()));
        Ok((start, bytes))
    }

    /// The line that has the byte at `at`, and where it begins.
    fn entry_at(&self, blob: BlobId, at: u64) -> Result<(Entry, u64), BlobError> {
        let number = last_at(&self.starts, at);
        let corrupt = BlobError::Corrupt { id: blob };
        let Some(from) = self.starts.get(number).copied() else {
            return Err(corrupt);
        };
        match &self.recipe {
            Recipe::Chunks(entries) => match entries.get(number) {
                Some(entry) => Ok((*entry, from)),
                None => Err(corrupt),
            },
            Recipe::Pages(_) => {
                let page = self.page(blob, number, from)?;
                let line = last_at(&page.starts, at);
                match (page.entries.get(line), page.starts.get(line)) {
                    (Some(entry), Some(from)) => Ok((*entry, *from)),
                    _ => Err(corrupt),
                }
            }
        }
    }

    fn page(&self, blob: BlobId, number: usize, from: u64) -> Result<Arc<Lines>, BlobError> {
        if let Some((known, page)) = &self.near().page
            && *known == number
        {
            return Ok(Arc::clone(page));
        }
        let Recipe::Pages(pages) = &self.recipe else {
            return Ok(Arc::default());
        };
        let Some(entry) = pages.get(number) else {
            return Ok(Arc::default());
        };
        let Some(entries) = self.inner.page(entry)? else {
            return Err(BlobError::Damaged {
                id: blob,
                chunk: entry.id,
                at: from,
            });
        };
        let page = Arc::new(Lines::new(entries, from));
        self.near().page = Some((number, Arc::clone(&page)));
        Ok(page)
    }
}
