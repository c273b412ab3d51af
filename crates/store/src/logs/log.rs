//! One log: its length, its open file, and the index that grows with it.
//!
//! All of this blocks; the async surface is in the parent module.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, TryLockError};

use tokio::sync::watch;

use super::index::{Checkpoints, Index};
use super::scan::{Checkpoint, Scanner};
use super::segment::{Found, SegmentReader, Segments, Sizes};
use super::{LogError, LogId};

/// Longest piece of one append in bytes.
/// Higher: one sender keeps the log's lock and the disk for longer.
/// Lower: busy logs come in more requests.
pub const APPEND_BYTES_MAX: usize = 8 * 1024 * 1024;

/// Most bytes that are written without a thread change.  Measured: such a write takes
/// some 20 µs, about what the change costs.
/// Higher: other tasks of the async thread wait for the disk.
const INLINE_BYTES_MAX: usize = 32 * 1024;

/// Size of the pieces in which a log is read to be indexed or compared.
const SCAN_BYTES: usize = 256 * 1024;

/// How far a log has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Length in bytes.
    pub len: u64,
    /// Whether it will stay so.
    pub sealed: bool,
}

pub(super) struct Log {
    id: LogId,
    segments: Segments,
    state: Mutex<Option<State>>,
    progress: watch::Sender<Progress>,
    /// When the registry handed this out last, by its own count.
    pub(super) used: AtomicU64,
    open_files: Arc<AtomicUsize>,
}

struct State {
    len: u64,
    sealed: bool,
    tail: Option<Tail>,
    lines: Option<Lines>,
}

/// The file that the next byte goes to.
struct Tail {
    start: u64,
    file: File,
    _counted: Counted,
}

/// How many lines there are, as far as the log goes.
struct Lines {
    scanner: Scanner,
    checkpoints: Checkpoints,
    index: Index,
}

/// One open file in a count of open files.
struct Counted(Arc<AtomicUsize>);

impl Counted {
    fn new(count: &Arc<AtomicUsize>) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(count))
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Log {
    pub(super) fn new(dir: &Path, id: LogId, sizes: Sizes, open_files: Arc<AtomicUsize>) -> Self {
        Self {
            segments: Segments::new(dir, &id, sizes),
            id,
            state: Mutex::new(None),
            progress: watch::Sender::new(Progress::default()),
            used: AtomicU64::new(0),
            open_files,
        }
    }

    pub(super) fn segments(&self) -> &Segments {
        &self.segments
    }

    pub(super) fn subscribe(&self) -> watch::Receiver<Progress> {
        self.progress.subscribe()
    }

    /// Makes an error of a failed file operation.
    pub(super) fn error(&self, doing: &'static str) -> impl Fn(io::Error) -> LogError {
        move |source| LogError::io(doing, &self.id, source)
    }

    fn lock(&self) -> MutexGuard<'_, Option<State>> {
        self.state.lock().unwrap_or_else(|poisoned| {
            // Somebody panicked half way: the files are the truth.
            let mut guard = poisoned.into_inner();
            *guard = None;
            self.state.clear_poison();
            guard
        })
    }

    fn load<'a>(&self, guard: &'a mut Option<State>) -> Result<&'a mut State, LogError> {
        let state = match guard.take() {
            Some(state) => state,
            None => {
                let Found { len, sealed } = self.segments.find().map_err(self.error("measure"))?;
                State {
                    len,
                    sealed,
                    tail: None,
                    lines: None,
                }
            }
        };
        let state = guard.insert(state);
        self.publish(state);
        Ok(state)
    }

    fn publish(&self, state: &State) {
        let now = Progress {
            len: state.len,
            sealed: state.sealed,
        };
        self.progress.send_if_modified(|progress| {
            let changed = *progress != now;
            *progress = now;
            changed
        });
    }

    /// How far the log is, if that is known and nobody is changing it.
    pub(super) fn try_progress(&self) -> Option<Progress> {
        let state = self.state.try_lock().ok()?;
        state.as_ref().map(|state| Progress {
            len: state.len,
            sealed: state.sealed,
        })
    }

    pub(super) fn progress(&self) -> Result<Progress, LogError> {
        let mut guard = self.lock();
        let state = self.load(&mut guard)?;
        Ok(Progress {
            len: state.len,
            sealed: state.sealed,
        })
    }

    /// Appends if that is quick: little, to an open file that nobody else uses now.
    pub(super) fn try_append(&self, offset: u64, bytes: &[u8]) -> Option<Result<u64, LogError>> {
        if bytes.len() > INLINE_BYTES_MAX {
            return None;
        }
        let mut guard = match self.state.try_lock() {
            Ok(guard) => guard,
            Err(TryLockError::WouldBlock | TryLockError::Poisoned(_)) => return None,
        };
        let state = guard.as_mut()?;
        let quick = offset == state.len
            && !state.sealed
            && state.lines.is_some()
            && state.tail.as_ref().is_some_and(|tail| {
                tail.start == self.segments.sizes.start_of(offset)
                    && bytes.len() <= self.segments.sizes.room_at(offset)
            });
        quick.then(|| self.append_to(state, bytes))
    }

    pub(super) fn append(&self, offset: u64, bytes: &[u8]) -> Result<u64, LogError> {
        if bytes.len() > APPEND_BYTES_MAX {
            return Err(LogError::TooLarge { bytes: bytes.len() });
        }
        let mut guard = self.lock();
        let state = self.load(&mut guard)?;
        let have = state.len;
        let Some(known) = have.checked_sub(offset) else {
            return Err(LogError::Gap {
                log: self.id.clone(),
                have,
                offset,
            });
        };
        let known = usize::try_from(known)
            .unwrap_or(usize::MAX)
            .min(bytes.len());
        let (old, new) = bytes.split_at(known);
        self.compare(offset, old)?;
        if new.is_empty() {
            return Ok(have);
        }
        if state.sealed {
            return Err(LogError::Sealed {
                log: self.id.clone(),
                len: have,
            });
        }
        self.append_to(state, new)
    }

    /// Makes sure that what is sent again is what was sent before.
    fn compare(&self, offset: u64, old: &[u8]) -> Result<(), LogError> {
        let mut reader = SegmentReader::new(self.segments.clone());
        let mut stored = vec![0; old.len().min(SCAN_BYTES)];
        let mut at = offset;
        for sent in old.chunks(SCAN_BYTES) {
            let stored = &mut stored[..sent.len()];
            let read = reader
                .read_full_at(at, stored)
                .map_err(self.error("read"))?;
            if &stored[..read] != sent {
                return Err(LogError::Diverged {
                    log: self.id.clone(),
                    offset: at,
                });
            }
            at += sent.len() as u64;
        }
        Ok(())
    }

    fn append_to(&self, state: &mut State, bytes: &[u8]) -> Result<u64, LogError> {
        if state.lines.is_none() {
            state.lines = Some(self.scan(state.len)?);
        }
        if let Err(source) = self.write(state, bytes) {
            state.tail = None;
            self.segments.roll_back(state.len);
            return Err(LogError::io("write", &self.id, source));
        }
        state.len += bytes.len() as u64;
        if let Some(lines) = &mut state.lines {
            lines.feed(bytes);
        }
        self.publish(state);
        Ok(state.len)
    }

    fn write(&self, state: &mut State, mut bytes: &[u8]) -> io::Result<()> {
        let mut at = state.len;
        while !bytes.is_empty() {
            let start = self.segments.sizes.start_of(at);
            if state.tail.as_ref().is_none_or(|tail| tail.start != start) {
                state.tail = None;
                self.segments.discard_after(at)?;
                state.tail = Some(Tail {
                    start,
                    file: self.segments.open_to_write(at)?,
                    _counted: Counted::new(&self.open_files),
                });
            }
            let Some(tail) = &state.tail else { break };
            let room = self.segments.sizes.room_at(at);
            let (now, later) = bytes.split_at(bytes.len().min(room));
            tail.file.write_all_at(now, at - start)?;
            at += now.len() as u64;
            bytes = later;
        }
        Ok(())
    }

    /// Counts the lines of a log of `len` bytes, from the end of its index on.
    fn scan(&self, len: u64) -> Result<Lines, LogError> {
        let (index, last) = if len == 0 {
            (
                Index::none(self.segments.index_path()),
                Checkpoint::default(),
            )
        } else {
            Index::open(self.segments.index_path(), len).map_err(self.error("index"))?
        };
        let mut lines = Lines {
            scanner: Scanner::resume(&last),
            checkpoints: Checkpoints {
                every: self.segments.sizes.checkpoint_bytes,
                last: last.offset,
                gathered: Vec::new(),
            },
            index,
        };
        let mut reader = SegmentReader::new(self.segments.clone());
        let mut buffer = vec![0; SCAN_BYTES.min(usize::try_from(len).unwrap_or(SCAN_BYTES))];
        while lines.scanner.position() < len {
            let at = lines.scanner.position();
            let want = usize::try_from(len - at)
                .unwrap_or(SCAN_BYTES)
                .min(buffer.len());
            let read = reader
                .read_full_at(at, &mut buffer[..want])
                .map_err(self.error("index"))?;
            if read == 0 {
                let short = io::Error::from(io::ErrorKind::UnexpectedEof);
                return Err(LogError::io("index", &self.id, short));
            }
            lines.feed(&buffer[..read]);
        }
        Ok(lines)
    }

    /// How many lines have ended, and how long the log is with them.
    pub(super) fn count(&self) -> Result<(Progress, u64), LogError> {
        let mut guard = self.lock();
        let state = self.load(&mut guard)?;
        let progress = Progress {
            len: state.len,
            sealed: state.sealed,
        };
        Ok((progress, self.lines(state)?.scanner.lines()))
    }

    fn lines<'a>(&self, state: &'a mut State) -> Result<&'a mut Lines, LogError> {
        let lines = match state.lines.take() {
            Some(lines) => lines,
            None => self.scan(state.len)?,
        };
        Ok(state.lines.insert(lines))
    }

    /// The last checkpoint for which `is_before` holds; see [`Index::find`].
    pub(super) fn checkpoint(
        &self,
        is_before: impl Fn(&Checkpoint) -> bool,
    ) -> Result<Checkpoint, LogError> {
        for _ in 0..2 {
            let index = {
                let mut guard = self.lock();
                let state = self.load(&mut guard)?;
                self.lines(state)?.index.clone()
            };
            if let Some(found) = index.find(&is_before).map_err(self.error("index"))? {
                return Ok(found);
            }
            // The file was damaged under us: have it made anew.
            index.remove().map_err(self.error("index"))?;
            if let Some(state) = self.lock().as_mut() {
                state.lines = None;
            }
        }
        Ok(Checkpoint::default())
    }

    /// Seals the log; with `expected`, only if it is exactly that long.
    pub(super) fn finish(&self, expected: Option<u64>) -> Result<u64, LogError> {
        let mut guard = self.lock();
        let state = self.load(&mut guard)?;
        let have = state.len;
        match expected {
            Some(offset) if offset > have => {
                return Err(LogError::Gap {
                    log: self.id.clone(),
                    have,
                    offset,
                });
            }
            Some(offset) if offset < have => {
                return Err(LogError::Diverged {
                    log: self.id.clone(),
                    offset,
                });
            }
            _ => {}
        }
        if !state.sealed {
            if have > 0 {
                self.segments.seal(have).map_err(self.error("seal"))?;
            }
            state.sealed = true;
        }
        state.tail = None;
        self.publish(state);
        Ok(have)
    }

    /// Forgets what was known: the files are gone.
    pub(super) fn forget(&self, remove: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
        let mut guard = self.lock();
        *guard = None;
        remove()?;
        self.progress.send_replace(Progress {
            len: 0,
            sealed: true,
        });
        Ok(())
    }

    /// Closes the file if nobody is using it; says whether there was one.
    pub(super) fn close_file(&self) -> bool {
        match self.state.try_lock() {
            Ok(mut guard) => guard
                .as_mut()
                .is_some_and(|state| state.tail.take().is_some()),
            Err(_) => false,
        }
    }
}

impl Lines {
    fn feed(&mut self, bytes: &[u8]) {
        self.scanner.feed(bytes, &mut self.checkpoints);
        let gathered = &mut self.checkpoints.gathered;
        if let Err(error) = self.index.append(gathered) {
            // The index is a cache: it is sparser now, and the log is whole.
            tracing::debug!(%error, "could not extend the index of a log");
        }
        gathered.clear();
    }
}
