//! Storing many blobs of unknown names as their bytes arrive, one blob after the other.
//!
//! What arrives is, for each blob, its length (8 bytes, little endian) and its bytes.  They
//! are cut, hashed and written from the memory in which they arrived, while the next ones
//! arrive; and the disk is waited for once, at the end.  A blob may also be a file that was
//! handed over open, which is read here.

use std::collections::HashSet;
use std::fs::File;
use std::io;
use std::mem;
use std::ops::Range;
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;

use bytes::Bytes;
use grid_chunk::{Builder, Recipe};
use grid_core::blob::BlobId;
use tokio::task::JoinHandle;

use super::pack::key;
use super::packs::Record;
use super::{BlobError, Inner, SMALL_BYTES_MAX, hash};
use crate::logs::blocking;

/// Bytes of what stands before a blob.
const LENGTH_BYTES: usize = 8;

/// Bytes that are cut, hashed and written at a time.
/// Higher: more memory per stream, of which two are filled in turn.  Lower: more thread
/// changes and system calls.
const PIECE_BYTES: usize = 1 << 20;

/// Blobs of one stream, whose names are kept until its end.
/// Higher: many of no bytes fill the memory.  Lower: the disk is waited for more often.
pub(super) const STREAM_BLOBS_MAX: usize = 10_000;

/// Room before each piece for what the one before left: a blob or a chunk whose end had not
/// come, or a part of a length.
const LEFT_BYTES_MAX: usize = SMALL_BYTES_MAX + LENGTH_BYTES;

/// What came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Named {
    /// The blobs in their order.
    pub blobs: Vec<BlobId>,
    /// Bytes of small blobs and chunks that were not here before.
    pub new_bytes: u64,
}

/// Takes the bytes of many blobs.  Of one that is dropped, small blobs and chunks are left:
/// the next attempt finds them, or a collection after their grace.
pub struct BlobsWriter {
    filling: Vec<u8>,
    /// Memory to be filled next.
    spare: Option<Vec<u8>>,
    state: State,
}

/// The memory of a piece, and what is known behind it.
type Parsed = (Vec<u8>, Result<Box<Parser>, BlobError>);

enum State {
    Ready(Box<Parser>),
    /// A piece is on its way to the disk.
    Busy(JoinHandle<Parsed>),
    /// Something failed: there is nothing to go on with.
    Broken,
}

/// What is known of the bytes that came.
struct Parser {
    inner: Arc<Inner>,
    /// What of the piece before is not stored yet.
    left: Vec<u8>,
    large: Option<Large>,
    /// The blobs in their order.
    names: Vec<BlobId>,
    /// The large ones among them, which are not there before their recipes are.
    recipes: Vec<(BlobId, Recipe)>,
    new_bytes: u64,
    longest: u64,
}

/// A large blob of which something came.
struct Large {
    bytes_left: u64,
    whole: blake3::Hasher,
    /// Bytes behind the last chunk that `whole` has seen: it is faster in long pieces.
    ahead: usize,
    recipe: Builder,
}

/// Where records are that are to be stored.
enum Bit {
    /// In the piece.
    Here(Range<usize>),
    /// Made: a page of a recipe.
    Made(Bytes),
}

fn buffer() -> Vec<u8> {
    let mut buffer = Vec::with_capacity(LEFT_BYTES_MAX + PIECE_BYTES);
    buffer.resize(LEFT_BYTES_MAX, 0);
    buffer
}

fn broken() -> BlobError {
    let kind = io::ErrorKind::BrokenPipe;
    BlobError::io("go on with an upload that failed", kind.into())
}

impl BlobsWriter {
    pub(super) fn new(inner: Arc<Inner>, longest: u64) -> Self {
        Self {
            filling: buffer(),
            spare: None,
            state: State::Ready(Box::new(Parser {
                inner,
                left: Vec::new(),
                large: None,
                names: Vec::new(),
                recipes: Vec::new(),
                new_bytes: 0,
                longest,
            })),
        }
    }

    /// Takes the next bytes.  After an error, or when this was dropped midway, the writer is
    /// of no more use.
    pub async fn write(&mut self, mut bytes: &[u8]) -> Result<(), BlobError> {
        while !bytes.is_empty() {
            let room = LEFT_BYTES_MAX + PIECE_BYTES - self.filling.len();
            let (now, later) = bytes.split_at(bytes.len().min(room));
            self.filling.extend_from_slice(now);
            bytes = later;
            if now.len() == room {
                let parser = self.parser().await?;
                let next = self.spare.take().unwrap_or_else(buffer);
                let piece = mem::replace(&mut self.filling, next);
                self.state = State::Busy(tokio::task::spawn_blocking(move || parser.run(piece)));
            }
        }
        Ok(())
    }

    /// Waits for the piece on its way.
    async fn parser(&mut self) -> Result<Box<Parser>, BlobError> {
        match &mut self.state {
            State::Busy(handle) => {
                let done = handle.await;
                self.state = State::Broken;
                match done {
                    Ok((mut piece, parser)) => {
                        piece.truncate(LEFT_BYTES_MAX);
                        self.spare = Some(piece);
                        parser
                    }
                    Err(error) => match error.try_into_panic() {
                        Ok(panic) => std::panic::resume_unwind(panic),
                        Err(_) => std::future::pending().await,
                    },
                }
            }
            State::Ready(_) | State::Broken => match mem::replace(&mut self.state, State::Broken) {
                State::Ready(parser) => Ok(parser),
                _ => Err(broken()),
            },
        }
    }

    /// Takes a blob that is the first `length` bytes of a file, and reads it; `tell` hears how
    /// many bytes were read each time, and says whether anybody still waits for the end.
    /// `false` when the file has fewer bytes, or nobody waits: the writer is of no more use.
    /// Nor is it when another blob is in the middle.
    pub async fn take(
        &mut self,
        file: File,
        length: u64,
        tell: impl Fn(u64) -> bool + Send + 'static,
    ) -> Result<bool, BlobError> {
        let parser = self.parser().await?;
        if self.filling.len() > LEFT_BYTES_MAX || parser.is_inside() {
            return Err(broken());
        }
        let piece = self.spare.take().unwrap_or_else(buffer);
        let reading = move || parser.read(&file, length, piece, tell);
        let (mut piece, parser) = blocking(reading).await?;
        piece.truncate(LEFT_BYTES_MAX);
        self.spare = Some(piece);
        let Some(parser) = parser else {
            return Ok(false);
        };
        self.state = State::Ready(parser);
        Ok(true)
    }

    /// Ends it: gives the names of all blobs, which are there now.  `None` when it ends in
    /// the middle of one.
    pub async fn finish(mut self) -> Result<Option<Named>, BlobError> {
        let parser = self.parser().await?;
        let piece = self.filling;
        blocking(move || parser.run(piece).1?.end()).await
    }
}

impl Parser {
    /// Takes a piece, and gives its memory back.
    fn run(mut self: Box<Self>, mut piece: Vec<u8>) -> Parsed {
        let result = self.feed(&mut piece);
        (piece, result.map(|()| self))
    }

    /// Takes a piece, which begins behind the room for what is left.
    fn feed(&mut self, piece: &mut [u8]) -> Result<(), BlobError> {
        let begin = LEFT_BYTES_MAX - self.left.len();
        if let Some(room) = piece.get_mut(begin..LEFT_BYTES_MAX) {
            room.copy_from_slice(&self.left);
        }
        self.take(piece.get(begin..).unwrap_or_default())
    }

    /// Takes the beginning of a file; nothing is left when it is shorter, or nobody waits.
    fn read(
        mut self: Box<Self>,
        file: &File,
        length: u64,
        mut piece: Vec<u8>,
        tell: impl Fn(u64) -> bool,
    ) -> Result<(Vec<u8>, Option<Box<Self>>), BlobError> {
        self.left.extend_from_slice(&length.to_le_bytes());
        let mut done = 0;
        loop {
            let wanted = (length - done).min(PIECE_BYTES as u64);
            piece.resize(LEFT_BYTES_MAX + wanted as usize, 0);
            let room = piece.get_mut(LEFT_BYTES_MAX..).unwrap_or_default();
            match file.read_exact_at(room, done) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                    return Ok((piece, None));
                }
                Err(error) => return Err(BlobError::io("read a file that was handed over", error)),
            }
            // Nothing is stored any more once nobody waits, however long the read took.
            if !tell(wanted) {
                return Ok((piece, None));
            }
            self.feed(&mut piece)?;
            done += wanted;
            if done == length {
                return Ok((piece, Some(self)));
            }
        }
    }

    fn take(&mut self, bytes: &[u8]) -> Result<(), BlobError> {
        let mut bits: Vec<(BlobId, Bit)> = Vec::new();
        let mut at = 0;
        while let Some(next) = self.step(bytes, at, &mut bits)? {
            at = next;
        }
        self.put(bytes, &bits)?;
        self.left.clear();
        self.left
            .extend_from_slice(bytes.get(at..).unwrap_or_default());
        Ok(())
    }

    /// Takes what begins at `at`, if its end has come; says what is behind it.
    fn step(
        &mut self,
        bytes: &[u8],
        at: usize,
        bits: &mut Vec<(BlobId, Bit)>,
    ) -> Result<Option<usize>, BlobError> {
        let rest = bytes.get(at..).unwrap_or_default();
        if let Some(large) = &mut self.large {
            let of_it = usize::try_from(large.bytes_left).unwrap_or(usize::MAX);
            let here = rest.get(..of_it.min(rest.len())).unwrap_or_default();
            if here.len() < SMALL_BYTES_MAX && here.len() < of_it {
                return Ok(None);
            }
            if let Some(unseen) = here.get(large.ahead..) {
                large.whole.update(unseen);
                large.ahead = here.len();
            }
            let len = grid_chunk::cut(here);
            let id = hash(here.get(..len).unwrap_or_default());
            large.ahead -= len;
            large.bytes_left -= len as u64;
            bits.push((id, Bit::Here(at..at + len)));
            // A chunk's length fits.
            if let Some(page) = large.recipe.push(id, len as u32, 1) {
                bits.push((page.id, Bit::Made(page.bytes)));
            }
            if large.bytes_left == 0 {
                self.end_large(bits);
            }
            return Ok(Some(at + len));
        }
        let Some((length, rest)) = rest.split_first_chunk::<LENGTH_BYTES>() else {
            return Ok(None);
        };
        if self.names.len() >= STREAM_BLOBS_MAX {
            return Err(BlobError::TooMany {
                max: STREAM_BLOBS_MAX,
            });
        }
        let length = u64::from_le_bytes(*length);
        let begin = at + LENGTH_BYTES;
        if length > SMALL_BYTES_MAX as u64 {
            if length > self.longest {
                return Err(BlobError::TooLong {
                    len: length,
                    max: self.longest,
                });
            }
            self.large = Some(Large {
                bytes_left: length,
                whole: blake3::Hasher::new(),
                ahead: 0,
                recipe: Builder::new(),
            });
            return Ok(Some(begin));
        }
        let Some(blob) = rest.get(..length as usize) else {
            return Ok(None);
        };
        let id = hash(blob);
        bits.push((id, Bit::Here(begin..begin + blob.len())));
        self.names.push(id);
        Ok(Some(begin + blob.len()))
    }

    fn end_large(&mut self, bits: &mut Vec<(BlobId, Bit)>) {
        let Some(large) = self.large.take() else {
            return;
        };
        let id = BlobId::from_bytes(*large.whole.finalize().as_bytes());
        let (recipe, page) = large.recipe.finish();
        if let Some(page) = page {
            bits.push((page.id, Bit::Made(page.bytes)));
        }
        self.names.push(id);
        self.recipes.push((id, recipe));
    }

    fn put(&mut self, bytes: &[u8], bits: &[(BlobId, Bit)]) -> Result<(), BlobError> {
        let records: Vec<Record<'_>> = bits
            .iter()
            .map(|(id, bit)| match bit {
                Bit::Here(range) => Record::of(*id, bytes.get(range.clone()).unwrap_or_default()),
                Bit::Made(bytes) => Record::of(*id, bytes),
            })
            .collect();
        self.inner
            .grace
            .touch(records.iter().map(|record| &record.id));
        let now = (self.inner.settings.clock)();
        let mut seen = HashSet::with_capacity(records.len());
        let is_new = |record: &&Record<'_>| {
            let is_known = self.inner.packs.index().get(&key(&record.id)).is_some();
            !is_known && seen.insert(record.id)
        };
        let new = records.iter().filter(is_new);
        self.new_bytes += new.map(|record| record.bytes.len() as u64).sum::<u64>();
        self.inner.packs.put(&records, now)
    }

    /// Whether something came of a blob, and not all of it.
    fn is_inside(&self) -> bool {
        self.large.is_some() || !self.left.is_empty()
    }

    fn end(self: Box<Self>) -> Result<Option<Named>, BlobError> {
        if self.is_inside() {
            return Ok(None);
        }
        let recipes = &self.recipes;
        self.inner.grace.touch(recipes.iter().map(|(id, _)| id));
        self.inner.put_recipes(recipes.iter())?;
        Ok(Some(Named {
            blobs: self.names,
            new_bytes: self.new_bytes,
        }))
    }
}
