//! Sending files as they are, to a server on the same machine.
//!
//! Nothing travels within a machine: that the server cuts and hashes what is read here
//! saves hashing everything twice, and asking about every chunk.  Large files are not even
//! sent, but handed over open ([`grid_api::handover`]).  Of very large files, and of those
//! with holes, it is better to send what is new only: they are left to the others.

mod hand;

use std::fs::{File, Metadata};
use std::io;
use std::mem;
use std::os::unix::fs::MetadataExt as _;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use grid_api::blob::BlobsNamed;
use grid_api::client::{Client, Error};
use grid_api::handover::{FILE_BYTES_MIN, Offer};
use grid_api::upload::{FileError, FileToSend, SentFile, is_same, machine, open};
use grid_core::blob::BlobId;
use tokio::sync::mpsc;

use super::{PAUSE, TRIES_MAX};
use crate::progress::Progress;

/// Requests at the same time: while one waits for the disk of the server, others are read.
/// Higher: more memory here and at the server; lower: the machine waits for its disk.
const SENDERS: usize = 3;

/// Bytes of a request, but for its last file.  Higher: more is sent again when it breaks;
/// lower: the disk is waited for more often.
const REQUEST_BYTES: u64 = 48 << 20;

/// Files of a request, for the same reasons.
const REQUEST_FILES: usize = 1_250;

/// Bytes that are read and sent at a time.  Higher: they are not in the cache of the
/// processor any more when they are sent; lower: more system calls.
const PIECE_BYTES: usize = 256 << 10;

/// Pieces of a request on their way.
const PIECES_MAX: usize = 4;

/// Larger files go on where they were cut off: they are cut into chunks here.
const FILE_BYTES_MAX: u64 = 16 << 30;

/// Smaller files are sent with their holes.
const HOLES_BYTES_MIN: u64 = 256 << 10;

/// Bytes of the length that stands before a file.
const LENGTH_BYTES: usize = 8;

/// What became of files, in their order; nothing, of those that are to be sent otherwise.
pub(super) type Outcomes = Vec<Option<Result<SentFile, FileError>>>;

/// How a server on the same machine is spoken to.
#[derive(Debug, Clone)]
pub(crate) struct Near {
    route: String,
    /// Where it takes open files.
    offer: Option<Offer>,
}

impl Near {
    /// Finds out whether the server is on this machine.
    pub(crate) async fn find(client: &Client) -> Option<Self> {
        let route = format!("/blobs/near?machine={}", machine()?);
        // Also a server that does not know of this is not near.
        let offer = Self::ask(client, &route).await.ok()?;
        Some(Self { route, offer })
    }

    /// Asks for where open files are taken now.
    async fn ask(client: &Client, route: &str) -> Result<Option<Offer>, Error> {
        let empty = client.put_bytes::<BlobsNamed>(route, Vec::new()).await?;
        Ok(empty.handover)
    }

    /// Sends files; says what became of them, and how many bytes of them were new.
    pub(super) async fn send(
        &self,
        client: &Client,
        files: &Arc<Vec<FileToSend>>,
        progress: &Progress,
    ) -> Result<(Outcomes, u64), Error> {
        let work = Arc::new(Work {
            files: Arc::clone(files),
            progress: progress.clone(),
            hands_over: AtomicBool::new(self.offer.is_some()),
            state: Mutex::new(State {
                next: 0,
                again: Vec::new(),
                large: Vec::new(),
                outcomes: files.iter().map(|_| None).collect(),
                new_bytes: 0,
            }),
        });
        self.send_all(client, &work).await?;
        if work.has_large() {
            hand::all(self, client, &work).await?;
            // What is left is sent after all.
            work.sends_large();
            self.send_all(client, &work).await?;
        }
        let mut state = work.state();
        Ok((mem::take(&mut state.outcomes), state.new_bytes))
    }

    async fn send_all(&self, client: &Client, work: &Arc<Work>) -> Result<(), Error> {
        let senders = (0..SENDERS).map(|_| self.requests(client, work));
        futures::future::try_join_all(senders).await?;
        Ok(())
    }

    /// One request after the other, until nothing is left.
    async fn requests(&self, client: &Client, work: &Arc<Work>) -> Result<(), Error> {
        let (mut tries, mut pause) = (1, PAUSE);
        loop {
            let (pieces, mut arriving) = mpsc::channel(PIECES_MAX);
            let first = work.take();
            let Some(first) = first else { return Ok(()) };
            let reader = Arc::clone(work);
            let read = tokio::task::spawn_blocking(move || {
                let mut request = Request::new(&reader, pieces);
                request.run(first);
                request.read
            });
            let body = futures::stream::poll_fn(move |context| arriving.poll_recv(context));
            let sent = client.put_stream::<_, _, BlobsNamed>(&self.route, body);
            let sent = sent.await;
            // Whoever hung up has ended it, too.
            let Ok(read) = read.await else { return Ok(()) };
            match sent {
                Ok(named) => {
                    work.settle(read, &named)?;
                    (tries, pause) = (1, PAUSE);
                }
                Err(_) if read.is_cut => work.put_back(&read),
                Err(error) if error.is_transient() && tries < TRIES_MAX => {
                    work.put_back(&read);
                    tokio::time::sleep(pause).await;
                    tries += 1;
                    pause = (pause * 2).max(Duration::from_millis(1));
                }
                Err(error) => return Err(error),
            }
        }
    }
}

/// Files that are sent by several at a time.
struct Work {
    files: Arc<Vec<FileToSend>>,
    progress: Progress,
    /// Whether large files are handed over.
    hands_over: AtomicBool,
    state: Mutex<State>,
}

struct State {
    next: usize,
    /// Files of requests that were cut.
    again: Vec<usize>,
    /// Files to be handed over, the next one last.
    large: Vec<usize>,
    outcomes: Outcomes,
    new_bytes: u64,
}

/// What went into a request.
#[derive(Default)]
struct Read {
    /// The files in the order of the body, and what they were.
    files: Vec<(usize, Result<Metadata, FileError>)>,
    /// A file was the trouble, and the body was not ended.
    is_cut: bool,
}

impl Work {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_handed_over(&self, metadata: &Metadata) -> bool {
        self.hands_over.load(Ordering::Relaxed) && metadata.len() >= FILE_BYTES_MIN
    }

    fn take(&self) -> Option<usize> {
        let mut state = self.state();
        if let Some(number) = state.again.pop() {
            return Some(number);
        }
        let number = state.next;
        (number < self.files.len()).then(|| {
            state.next += 1;
            number
        })
    }

    fn has_large(&self) -> bool {
        !self.state().large.is_empty()
    }

    fn take_large(&self) -> Option<usize> {
        self.state().large.pop()
    }

    fn put_back_large(&self, number: usize) {
        self.state().large.push(number);
    }

    /// From now on they are sent as the others.
    fn sends_large(&self) {
        self.hands_over.store(false, Ordering::Relaxed);
        let mut state = self.state();
        let large = mem::take(&mut state.large);
        state.again.extend(large);
    }

    fn end(&self, number: usize, error: FileError) {
        if let Some(place) = self.state().outcomes.get_mut(number) {
            *place = Some(Err(error));
        }
    }

    fn put_back(&self, read: &Read) {
        let numbers = read.files.iter().map(|(number, _)| *number);
        self.state().again.extend(numbers);
    }

    fn settle(&self, read: Read, named: &BlobsNamed) -> Result<(), Error> {
        let strange = || Error::Refused {
            status: 502,
            detail: grid_api::error::ErrorDetail {
                code: grid_api::error::ErrorCode::Internal,
                message: "the server did not name the files that were sent".to_owned(),
                hint: None,
            },
        };
        if named.blobs.len() != read.files.len() {
            return Err(strange());
        }
        let mut state = self.state();
        state.new_bytes += named.new_bytes;
        for ((number, metadata), name) in read.files.into_iter().zip(&named.blobs) {
            let blob: BlobId = name.parse().map_err(|_| strange())?;
            if let Some(place) = state.outcomes.get_mut(number) {
                *place = Some(metadata.map(|metadata| SentFile {
                    blob,
                    metadata: Some(metadata),
                }));
            }
        }
        Ok(())
    }
}

/// A body that is being read.
struct Request<'a> {
    work: &'a Work,
    pieces: mpsc::Sender<io::Result<Bytes>>,
    piece: Vec<u8>,
    bytes: u64,
    read: Read,
}

/// Nobody wants the rest.
struct Unwanted;

impl<'a> Request<'a> {
    fn new(work: &'a Work, pieces: mpsc::Sender<io::Result<Bytes>>) -> Self {
        Self {
            work,
            pieces,
            piece: Vec::with_capacity(PIECE_BYTES),
            bytes: 0,
            read: Read::default(),
        }
    }

    fn run(&mut self, first: usize) {
        let mut next = Some(first);
        while let Some(number) = next {
            let Some(file) = self.work.files.get(number) else {
                break;
            };
            let result = match open(&file.path) {
                Ok((_, metadata)) if is_better_cut(&metadata) => Ok(()),
                Ok((_, metadata)) if self.work.is_handed_over(&metadata) => {
                    self.work.put_back_large(number);
                    Ok(())
                }
                Ok((file, metadata)) => self.file(number, &file, metadata),
                Err(error) => {
                    self.work.end(number, error);
                    Ok(())
                }
            };
            if result.is_err() {
                if !self.read.is_cut {
                    // The line broke in the middle of it.
                    let unsent = Err(FileError::NotKept);
                    self.read.files.push((number, unsent));
                }
                return;
            }
            let is_full = self.bytes >= REQUEST_BYTES || self.read.files.len() >= REQUEST_FILES;
            next = if is_full { None } else { self.work.take() };
        }
        let _ = self.flush();
    }

    fn file(&mut self, number: usize, file: &File, metadata: Metadata) -> Result<(), Unwanted> {
        let size = metadata.len();
        let room = self.piece.capacity() - self.piece.len();
        if room < LENGTH_BYTES + size.min(PIECE_BYTES as u64 / 4) as usize {
            self.flush()?;
        }
        self.piece.extend_from_slice(&size.to_le_bytes());
        let mut left = size;
        while left > 0 {
            if self.piece.len() == self.piece.capacity() {
                self.flush()?;
            }
            match self.fill(file, left) {
                Ok(0) => return Err(self.cut(number, FileError::Changed)),
                Ok(count) => left -= count,
                Err(error) => return Err(self.cut(number, FileError::Read(error))),
            }
        }
        self.bytes += size;
        let read = match file.metadata() {
            Ok(after) if is_same(&metadata, &after) => Ok(metadata),
            Ok(_) => Err(FileError::Changed),
            Err(error) => Err(FileError::Read(error)),
        };
        self.read.files.push((number, read));
        Ok(())
    }

    /// Reads on, at most so many bytes.
    fn fill(&mut self, file: &File, left: u64) -> io::Result<u64> {
        let before = self.piece.len();
        let count = loop {
            let room = rustix::buffer::spare_capacity(&mut self.piece);
            match rustix::io::read(file, room) {
                Err(rustix::io::Errno::INTR) => {}
                read => break read?,
            }
        };
        // What was added since it was opened is of the next version.
        let count = left.min(count as u64);
        self.piece.truncate(before + count as usize);
        self.work.progress.add(count);
        Ok(count)
    }

    fn flush(&mut self) -> Result<(), Unwanted> {
        if self.piece.is_empty() {
            return Ok(());
        }
        let next = Vec::with_capacity(PIECE_BYTES);
        let piece = mem::replace(&mut self.piece, next);
        let sent = self.pieces.blocking_send(Ok(piece.into()));
        sent.map_err(|_| Unwanted)
    }

    /// A file has fewer bytes than it was said to have: nothing can follow it.
    fn cut(&mut self, number: usize, error: FileError) -> Unwanted {
        self.work.end(number, error);
        self.read.is_cut = true;
        let cut = io::Error::other("a file became shorter while it was read");
        let _ = self.pieces.blocking_send(Err(cut));
        Unwanted
    }
}

/// Whether it is better not to send it like this.
fn is_better_cut(metadata: &Metadata) -> bool {
    let size = metadata.len();
    // In units of 512 bytes, whatever the file system's are.
    let has_holes = size > HOLES_BYTES_MIN && metadata.blocks().saturating_mul(512) < size;
    size > FILE_BYTES_MAX || has_holes
}
