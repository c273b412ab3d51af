//! What a folder was when it was last sent, as a file that is read and written in one go.
//!
//! In the order of a datastore's list, block by block: hashes with the stamps of the files
//! that they are of, and what the server calls each block.  It is only a memory: whatever is
//! wrong with it, files are read again, and lists are sent whole.  While it is written it is
//! put aside now and then, so that whoever is interrupted does not read again.

use std::fs::{self, File};
use std::io::{BufReader, BufWriter, Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use grid_core::blob::BlobId;
use grid_core::time::Timestamp;
use tempfile::{NamedTempFile, TempPath};

use super::inspect::Stamp;
use super::line::{Known, Line, read_line, write_line};
use crate::clock;

/// The first bytes of the file, and its last; another format has others.
const MAGIC: &[u8; 8] = b"gridlst1";
const END: &[u8; 8] = b"gridlste";

/// How old a change must be, in nanoseconds, for times to tell the next one apart
/// (FAT: 2 s).  Higher: fresh files are read twice.
const SETTLED_NS: i64 = 2_000_000_000;

/// The largest block, in bytes: one that is larger is damaged.
const BLOCK_BYTES_MAX: usize = 256 << 20;

/// How often what is known is put aside.  Higher: more is read again after a kill; lower: a
/// file is renamed more often.
const ASIDE_EVERY: Duration = Duration::from_secs(20);

/// How long the memory of a folder that nobody sends any more is kept, in milliseconds (90 days).
const KEPT_MS: i64 = 90 * 86_400_000;

/// Files and folders that are looked at again together in the end.  Higher: more memory;
/// lower: the list is read again for few.
const LOOKS_MAX: usize = 20_000;

/// Where the memory of a source is.
#[derive(Debug, Clone)]
pub(super) struct Place {
    folder: PathBuf,
    path: PathBuf,
    aside: PathBuf,
}

impl Place {
    pub(super) fn of(cache_dir: &Path, source: &Path) -> Self {
        let folder = cache_dir.join("data").join("lists");
        let name = blake3::hash(source.as_os_str().as_encoded_bytes()).to_hex();
        let name = &name.as_str()[..32];
        Self {
            path: folder.join(name),
            aside: folder.join(format!("{name}.aside")),
            folder,
        }
    }

    /// What was remembered: first by who was interrupted, behind that by who was not.
    pub(super) fn read(&self) -> Reader {
        let files = [&self.path, &self.aside];
        let files = files.map(|path| Blocks::open(path)).into_iter().flatten();
        let mut reader = Reader {
            files: files.collect(),
            current: None,
        };
        reader.advance();
        reader
    }

    /// Begins to write what is known by now, of what is read from `begun` on.
    pub(super) fn write(&self, begun: Timestamp) -> Writer {
        let out = fs::create_dir_all(&self.folder).and_then(|()| {
            let mut file = NamedTempFile::new_in(&self.folder)?;
            file.write_all(MAGIC)?;
            let (file, temp) = file.into_parts();
            Ok(Out {
                file: BufWriter::with_capacity(1 << 18, file),
                temp: Some(temp),
                bytes: MAGIC.len() as u64,
                aside_at: clock::instant(),
            })
        });
        Writer {
            place: self.clone(),
            out: out.ok(),
            names: Vec::new(),
            begun,
            frame: Vec::new(),
            looks: Some(Vec::new()),
        }
    }
}

/// The lines of a file, one after the other.
struct Blocks {
    file: BufReader<File>,
    frame: Vec<u8>,
    at: usize,
    known: Known,
    /// Number of the block, from 1; whether the line is the first of it.
    block: usize,
    is_first: bool,
    names: Vec<[u8; 32]>,
}

impl Blocks {
    fn open(path: &Path) -> Option<Self> {
        let mut file = File::open(path).ok()?;
        let names = names(&mut file).unwrap_or_default();
        file.seek(SeekFrom::Start(0)).ok()?;
        let mut magic = [0; 8];
        file.read_exact(&mut magic).ok()?;
        (&magic == MAGIC).then(|| Self {
            file: BufReader::with_capacity(1 << 18, file),
            frame: Vec::new(),
            at: 0,
            known: Known::default(),
            block: 0,
            is_first: false,
            names,
        })
    }

    /// Goes to the next line; `None` at the end, or where it is damaged.
    fn advance(&mut self) -> Option<()> {
        self.is_first = false;
        while self.at >= self.frame.len() {
            frame(&mut self.file, &mut self.frame)?;
            if self.frame.first() != Some(&b'B') {
                return None;
            }
            self.at = 1;
            self.block += 1;
            self.is_first = true;
            self.known.path.clear();
            self.known.stamp = Stamp::default();
        }
        let mut rest = self.frame.get(self.at..)?;
        read_line(&mut rest, &mut self.known)?;
        self.at = self.frame.len() - rest.len();
        Some(())
    }

    fn name(&self) -> Option<BlobId> {
        let name = self.names.get(self.block.checked_sub(1)?)?;
        (*name != [0; 32]).then(|| BlobId::from_bytes(*name))
    }
}

/// What the server calls the blocks, if the file is whole.
fn names(file: &mut File) -> Option<Vec<[u8; 32]>> {
    let mut end = [0; 16];
    file.seek(SeekFrom::End(-16)).ok()?;
    file.read_exact(&mut end).ok()?;
    let at = end.strip_suffix(END)?;
    let at = u64::from_le_bytes(at.try_into().ok()?);
    file.seek(SeekFrom::Start(at)).ok()?;
    let mut bytes = Vec::new();
    frame(file, &mut bytes)?;
    let names = bytes.strip_prefix(b"N")?.as_chunks::<32>().0;
    Some(names.to_vec())
}

/// Reads a frame whose bytes are what was written.
fn frame(file: &mut impl std::io::Read, into: &mut Vec<u8>) -> Option<()> {
    into.clear();
    let mut head = [0; 12];
    file.read_exact(&mut head).ok()?;
    let (length, sum) = head.split_first_chunk::<4>()?;
    let length = u32::from_le_bytes(*length) as usize;
    if length > BLOCK_BYTES_MAX {
        return None;
    }
    into.resize(length, 0);
    let read = file.read_exact(into);
    if read.is_err() || checksum(into) != sum {
        into.clear();
        return None;
    }
    Some(())
}

fn checksum(bytes: &[u8]) -> [u8; 8] {
    let hash = blake3::hash(bytes);
    hash.as_bytes().first_chunk().copied().unwrap_or_default()
}

/// What is remembered, in order.
pub(super) struct Reader {
    /// The one that is read last comes first.
    files: Vec<Blocks>,
    current: Option<Blocks>,
}

impl Reader {
    /// The line that is next.
    pub(super) fn peek(&self) -> Option<&Known> {
        self.current.as_ref().map(|blocks| &blocks.known)
    }

    /// Number of its block, whether it is the first line of it, and what the server calls it.
    pub(super) fn place(&self) -> Option<(usize, bool, Option<BlobId>)> {
        let blocks = self.current.as_ref()?;
        // Blocks of one file are not those of another.
        let number = blocks.block + (self.files.len() << 40);
        Some((number, blocks.is_first, blocks.name()))
    }

    /// Goes on to the next line.
    pub(super) fn advance(&mut self) {
        if let Some(current) = &mut self.current {
            let mut is_first = false;
            while current.advance().is_some() {
                is_first |= current.is_first;
                if !current.known.is_entered() {
                    current.is_first = is_first;
                    return;
                }
            }
        }
        // The next file goes on behind where this one ended.
        let last = self.current.take().map(|blocks| blocks.known.path);
        let Some(mut next) = self.files.pop() else {
            return;
        };
        let mut is_first = false;
        while next.advance().is_some() {
            is_first |= next.is_first;
            if next.known.is_entered() {
                continue;
            }
            let is_behind = last.as_ref().is_none_or(|last| next.known.path > *last);
            if is_behind {
                next.is_first = is_first;
                self.current = Some(next);
                return;
            }
            is_first = false;
        }
        self.advance();
    }
}

/// What is known by now.
pub(super) struct Writer {
    place: Place,
    /// Without it nothing is remembered: that costs time, nothing else.
    out: Option<Out>,
    names: Vec<[u8; 32]>,
    begun: Timestamp,
    frame: Vec<u8>,
    /// What is to be looked at again, while it is little; else it is read from the file.
    pub(super) looks: Option<Vec<Look>>,
}

/// A file that was read, or a folder that was entered.
#[derive(Debug, Clone)]
pub(super) struct Look {
    pub(super) path: String,
    pub(super) stamp: Stamp,
    pub(super) is_folder: bool,
}

struct Out {
    file: BufWriter<File>,
    /// Until it is put aside.
    temp: Option<TempPath>,
    bytes: u64,
    aside_at: Instant,
}

impl Writer {
    /// Adds a block.
    pub(super) fn block<'a>(&mut self, lines: impl Iterator<Item = Line<'a>>) {
        let mut frame = std::mem::take(&mut self.frame);
        frame.clear();
        frame.push(b'B');
        let settled = self.begun.as_millis().saturating_mul(1_000_000) - SETTLED_NS;
        let mut before = ("", Stamp::default());
        for line in lines {
            self.note(&line);
            before = write_line(&mut frame, before, line, settled);
        }
        self.names.push([0; 32]);
        self.add(&frame);
        self.frame = frame;
        let is_due = |out: &Out| out.aside_at.elapsed() > ASIDE_EVERY;
        if self.out.as_ref().is_some_and(is_due) {
            self.put_aside();
        }
    }

    /// The server calls the block with this number so.
    pub(super) fn name(&mut self, number: usize, name: BlobId) {
        if let Some(place) = self.names.get_mut(number) {
            *place = *name.as_bytes();
        }
    }

    fn note(&mut self, line: &Line<'_>) {
        let Some(looks) = &mut self.looks else { return };
        let (path, stamp, is_folder) = match line {
            Line::Entered(path, stamp) => (*path, *stamp, true),
            Line::Found {
                found,
                was_read: true,
                ..
            } => (found.path.as_str(), found.stamp, false),
            Line::Found { .. } => return,
        };
        looks.push(Look {
            path: path.to_owned(),
            stamp,
            is_folder,
        });
        // Without a file there is no other place.
        if looks.len() > LOOKS_MAX && self.out.is_some() {
            self.looks = None;
        }
    }

    fn add(&mut self, frame: &[u8]) {
        let Some(out) = &mut self.out else { return };
        let length = u32::try_from(frame.len()).unwrap_or(u32::MAX).to_le_bytes();
        let written = out
            .file
            .write_all(&length)
            .and_then(|()| out.file.write_all(&checksum(frame)))
            .and_then(|()| out.file.write_all(frame));
        out.bytes += 12 + frame.len() as u64;
        if written.is_err() {
            self.out = None;
        }
    }

    /// What is written by now is found by the next one, however this ends.
    fn put_aside(&mut self) {
        let Some(out) = &mut self.out else { return };
        let flushed = out.file.flush();
        let moved = match out.temp.take() {
            Some(temp) => temp.persist(&self.place.aside).map_err(|error| error.error),
            None => Ok(()),
        };
        out.aside_at = clock::instant();
        if flushed.and(moved).is_err() {
            self.out = None;
        }
    }

    /// Goes through what was read and entered, of which somebody may have changed something
    /// since, some at a time; `None` when it cannot be said any more what that was.
    pub(super) fn look(&mut self, mut look: impl FnMut(&[Look])) -> Option<()> {
        if let Some(looks) = &self.looks {
            look(looks);
            return Some(());
        }
        let out = self.out.as_mut()?;
        out.file.flush().ok()?;
        let path = match &out.temp {
            Some(temp) => temp.to_path_buf(),
            None => self.place.aside.clone(),
        };
        let mut blocks = Blocks::open(&path)?;
        let mut looks = Vec::new();
        while blocks.advance().is_some() {
            let known = &blocks.known;
            if known.was_read() || known.is_entered() {
                looks.push(Look {
                    path: known.path.clone(),
                    stamp: known.stamp,
                    is_folder: known.is_entered(),
                });
            }
            if looks.len() >= LOOKS_MAX {
                look(&looks);
                looks.clear();
            }
        }
        look(&looks);
        Some(())
    }

    /// All of it is the memory from now on.
    pub(super) fn finish(mut self) {
        let at = self.out.as_ref().map_or(0, |out| out.bytes);
        let names: Vec<u8> = b"N"
            .iter()
            .chain(self.names.as_flattened())
            .copied()
            .collect();
        self.add(&names);
        let Some(mut out) = self.out.take() else {
            return;
        };
        let end = [at.to_le_bytes(), *END].concat();
        let written = out.file.write_all(&end).and_then(|()| out.file.flush());
        let place = &self.place;
        let moved = written.and_then(|()| match out.temp.take() {
            Some(temp) => temp.persist(&place.path).map_err(|error| error.error),
            None => fs::rename(&place.aside, &place.path),
        });
        if moved.is_ok() {
            let _ = fs::remove_file(&place.aside);
            forget_old(&place.folder, self.begun);
        }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        if !self.names.is_empty() {
            self.put_aside();
        }
    }
}

fn forget_old(folder: &Path, now: Timestamp) {
    let Ok(entries) = fs::read_dir(folder) else {
        return;
    };
    for entry in entries.flatten() {
        let modified = entry.metadata().and_then(|found| found.modified()).ok();
        let since = modified.and_then(|at| at.duration_since(std::time::UNIX_EPOCH).ok());
        let age_ms = since.map_or(0, |at| {
            now.as_millis() - i64::try_from(at.as_millis()).unwrap_or(i64::MAX)
        });
        if age_ms > KEPT_MS {
            let _ = fs::remove_file(entry.path());
        }
    }
}
