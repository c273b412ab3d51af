//! Taking a zip apart, whose list is at its end.
//!
//! The library reads the whole list before it says how long it is, and keeps some hundred
//! bytes of memory for each line.  So the end of the archive is read here, which says how many
//! entries there are; and the library is handed an archive with a piece of the list at a time:
//! what stands before the list, that piece, and an end that fits it.  A list of any length
//! takes the memory of one piece.

mod time;

use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::os::unix::fs::FileExt as _;

use zip::ZipArchive;
use zip::result::ZipError;

use super::ENTRIES_MAX;
use super::form::{broken, broken_at, broken_zip};
use super::sink::{Head, Sink, too_many};
use crate::datastore::work::Fault;

/// Bytes of the list of a zip.  Higher: more is read of one that is refused in the end; lower:
/// many files with long names or notes have to be sent as a folder.
const LIST_BYTES_MAX: u64 = 512 << 20;

/// Bytes in which the end of a zip is looked for: its longest comment, and what some programs
/// put behind it.
const TAIL_BYTES: u64 = 1 << 20;

/// Lines of the list that are handed on at a time, and their bytes.  Higher: more memory;
/// lower: the library begins anew more often.
const LINES_AT_ONCE: usize = 2_048;
const LINES_BYTES: usize = 1 << 20;

/// Bytes of a line of the list without its names.
const LINE_BYTES: usize = 46;

/// Bytes of the end; of the larger one, and of what says where that is.
const END_BYTES: usize = 22;
const END64_BYTES: usize = 56;
const LOCATOR_BYTES: usize = 20;

const LINE_MARK: &[u8] = b"PK\x01\x02";
const END_MARK: &[u8] = b"PK\x05\x06";
const END64_MARK: &[u8] = b"PK\x06\x06";
const LOCATOR_MARK: &[u8] = b"PK\x06\x07";
/// What may stand behind the last line.
const SIGNATURE_MARK: &[u8] = b"PK\x05\x05";

/// Takes a zip apart.
pub(super) fn zip(file: &File, sink: &mut Sink<'_>) -> Result<(), Fault> {
    let list = List::find(file)?;
    let mut lines = Lines::new(file, &list);
    while let Some(piece) = lines.next()? {
        let view = View::new(file, &list, piece);
        let archive = ZipArchive::new(BufReader::new(view));
        let mut archive = archive.map_err(|error| broken_zip(None, error))?;
        for index in 0..archive.len() {
            one(&mut archive, index, sink)?;
        }
    }
    Ok(())
}

fn one<R: Read + Seek>(
    archive: &mut ZipArchive<R>,
    index: usize,
    sink: &mut Sink<'_>,
) -> Result<(), Fault> {
    let name = archive.by_index_raw(index);
    let name = name
        .map_err(|error| broken_zip(None, error))?
        .name_raw()
        .to_vec();
    let entry = archive.by_index(index);
    let mut entry = entry.map_err(|error| broken_zip(Some(&name), error))?;
    let mode = entry.unix_mode();
    let head = Head {
        name: &name,
        mode: mode.unwrap_or(0o644) & 0o777,
        modified_ms: time::modified_ms(&entry),
    };
    if entry.is_dir() {
        sink.folder(&head)
    } else if mode.is_some_and(|mode| mode & 0o170_000 == 0o120_000) {
        let mut target = Vec::new();
        let most = grid_manifest::TARGET_BYTES_MAX as u64 + 1;
        (&mut entry)
            .take(most)
            .read_to_end(&mut target)
            .map_err(|error| broken_at(&name, &error))?;
        sink.link(&head, &target)
    } else {
        let size = entry.size();
        sink.file(&head, size, &mut entry)
    }
}

/// Where the list of a zip is.
#[derive(Debug, PartialEq, Eq)]
struct List {
    /// Where the archive begins: other things may stand before it.
    origin: u64,
    start: u64,
    end: u64,
    /// How many entries there are, as its end says; small ones leave out what is more than
    /// 65,535.
    entries: u64,
    is_large: bool,
}

fn damaged(why: &'static str) -> Fault {
    broken_zip(None, ZipError::InvalidArchive(why.into()))
}

fn number(bytes: &[u8], at: usize, length: usize) -> u64 {
    let bytes = bytes.get(at..at + length).unwrap_or_default();
    bytes
        .iter()
        .rev()
        .fold(0, |sum, byte| (sum << 8) | u64::from(*byte))
}

/// Some bytes of a file, if it has them and they begin so.
fn marked<const N: usize>(file: &File, at: u64, mark: &[u8]) -> Option<[u8; N]> {
    let mut bytes = [0; N];
    file.read_exact_at(&mut bytes, at).ok()?;
    bytes.starts_with(mark).then_some(bytes)
}

impl List {
    /// Finds it, and refuses one that is too long before it is read.
    fn find(file: &File) -> Result<Self, Fault> {
        let length = file.metadata().map_err(broken)?.len();
        let tail_at = length.saturating_sub(TAIL_BYTES);
        let mut tail = vec![0; (length - tail_at) as usize];
        file.read_exact_at(&mut tail, tail_at).map_err(broken)?;
        let ends = (0..=tail.len().saturating_sub(END_BYTES)).rev();
        let end_at = ends
            .filter(|at| tail[*at..].starts_with(END_MARK))
            .find(|at| at + END_BYTES + number(&tail[*at..], 20, 2) as usize <= tail.len())
            .ok_or_else(|| damaged("it has no end"))?;
        let end = &tail[end_at..];
        let mut at = tail_at + end_at as u64;
        let said = [
            number(end, 4, 2),
            number(end, 8, 2),
            number(end, 10, 2),
            number(end, 12, 4),
            number(end, 16, 4),
        ];
        let [mut disk, mut here, mut entries, mut size, mut offset] = said;
        let is_full = entries == 0xffff || size == 0xffff_ffff || offset == 0xffff_ffff;
        let large = is_full.then(|| large_end(file, at)).flatten();
        if let Some((large_at, end)) = &large {
            at = *large_at;
            disk = number(end, 16, 4);
            here = number(end, 24, 8);
            entries = number(end, 32, 8);
            size = number(end, 40, 8);
            offset = number(end, 48, 8);
        }
        if disk != 0 || here != entries {
            let why = "it is one part of several";
            return Err(broken_zip(None, ZipError::UnsupportedArchive(why)));
        }
        if entries > ENTRIES_MAX as u64 {
            return Err(too_many());
        }
        if size > LIST_BYTES_MAX {
            return Err(Fault::Data(format!(
                "the list of the archive has more than {} MiB: unpack it, and send the folder",
                LIST_BYTES_MAX >> 20
            )));
        }
        let is_list = |start: &u64| {
            entries == 0 || marked::<4>(file, *start, LINE_MARK).is_some() && start + size <= at
        };
        let start = at.checked_sub(size).filter(is_list);
        let start = start.or_else(|| Some(offset).filter(|offset| *offset < at).filter(is_list));
        let start = start.ok_or_else(|| damaged("its list is not where it says"))?;
        let origin = start.checked_sub(offset);
        Ok(Self {
            origin: origin.ok_or_else(|| damaged("its list is not where it says"))?,
            start,
            end: start + size,
            entries,
            is_large: large.is_some(),
        })
    }
}

/// The end of an archive that is large, and where it is.
fn large_end(file: &File, end_at: u64) -> Option<(u64, [u8; END64_BYTES])> {
    let locator_at = end_at.checked_sub(LOCATOR_BYTES as u64)?;
    let locator = marked::<LOCATOR_BYTES>(file, locator_at, LOCATOR_MARK)?;
    let said = number(&locator, 8, 8);
    // What stands before the archive is not counted in what it says.
    let before = locator_at.checked_sub(END64_BYTES as u64);
    [Some(said), before]
        .into_iter()
        .flatten()
        .filter(|at| *at < locator_at)
        .find_map(|at| Some((at, marked(file, at, END64_MARK)?)))
}

/// The lines of the list, some at a time.
struct Lines<'a> {
    input: BufReader<io::Take<Section<'a>>>,
    list: &'a List,
    left: u64,
    entries: u64,
}

/// A file from somewhere on.
struct Section<'a> {
    file: &'a File,
    at: u64,
}

impl Read for Section<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.file.read_at(buffer, self.at)?;
        self.at += length as u64;
        Ok(length)
    }
}

/// Some lines of the list.
struct Piece {
    lines: Vec<u8>,
    entries: u64,
}

impl<'a> Lines<'a> {
    fn new(file: &'a File, list: &'a List) -> Self {
        let left = list.end - list.start;
        let section = Section {
            file,
            at: list.start,
        };
        Self {
            input: BufReader::with_capacity(LINES_BYTES, section.take(left)),
            list,
            left,
            entries: 0,
        }
    }

    fn next(&mut self) -> Result<Option<Piece>, Fault> {
        let mut piece = Piece {
            lines: Vec::new(),
            entries: 0,
        };
        let (lines_most, bytes_most) = (LINES_AT_ONCE as u64, LINES_BYTES);
        while piece.entries < lines_most && piece.lines.len() < bytes_most && self.left > 0 {
            let mut line = [0; LINE_BYTES];
            self.read(&mut line[..4])?;
            if line.starts_with(SIGNATURE_MARK) {
                self.left = 0;
                break;
            }
            if !line.starts_with(LINE_MARK) {
                return Err(damaged("its list has something else in it"));
            }
            self.read(&mut line[4..])?;
            let texts = [28, 30, 32].map(|at| number(&line, at, 2) as usize);
            let begin = piece.lines.len() + LINE_BYTES;
            piece.lines.extend(line);
            piece.lines.resize(begin + texts.iter().sum::<usize>(), 0);
            self.read(&mut piece.lines[begin..])?;
            piece.entries += 1;
        }
        self.entries += piece.entries;
        if self.entries > ENTRIES_MAX as u64 {
            return Err(too_many());
        }
        if piece.entries > 0 {
            return Ok(Some(piece));
        }
        let said = match self.list.is_large {
            true => self.entries,
            false => self.entries & 0xffff,
        };
        if said != self.list.entries {
            return Err(damaged("its list has another length than it says"));
        }
        Ok(None)
    }

    fn read(&mut self, bytes: &mut [u8]) -> Result<(), Fault> {
        let cut = || damaged("its list ends in the middle of a line");
        let left = self.left.checked_sub(bytes.len() as u64);
        self.left = left.ok_or_else(cut)?;
        self.input.read_exact(bytes).map_err(broken)
    }
}

/// An archive with some lines of the list: what stands before the list, those, and an end.
struct View<'a> {
    file: &'a File,
    origin: u64,
    /// Bytes of the file that belong to it.
    body: u64,
    tail: Vec<u8>,
    at: u64,
}

impl<'a> View<'a> {
    fn new(file: &'a File, list: &List, piece: Piece) -> Self {
        let body = list.start - list.origin;
        let (mut tail, entries) = (piece.lines, piece.entries);
        let size = tail.len() as u64;
        let end64_at = body + size;
        tail.extend(END64_MARK);
        // What follows of it; both versions; which part of several it is.
        tail.extend((END64_BYTES as u64 - 12).to_le_bytes());
        tail.extend([45, 0, 45, 0]);
        tail.extend([0; 8]);
        for value in [entries, entries, size, body] {
            tail.extend(value.to_le_bytes());
        }
        tail.extend(LOCATOR_MARK);
        tail.extend([0; 4]);
        tail.extend(end64_at.to_le_bytes());
        tail.extend([1, 0, 0, 0]);
        // That the numbers are in the large end.
        tail.extend(END_MARK);
        tail.extend([0; 4]);
        tail.extend([0xff; 12]);
        tail.extend([0; 2]);
        Self {
            file,
            origin: list.origin,
            body,
            tail,
            at: 0,
        }
    }

    fn len(&self) -> u64 {
        self.body + self.tail.len() as u64
    }
}

impl Read for View<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = if let Some(at) = self.at.checked_sub(self.body) {
            let rest = self.tail.get(at as usize..).unwrap_or_default();
            let length = rest.len().min(buffer.len());
            buffer[..length].copy_from_slice(&rest[..length]);
            length
        } else {
            let left = usize::try_from(self.body - self.at).unwrap_or(usize::MAX);
            let most = left.min(buffer.len());
            self.file
                .read_at(&mut buffer[..most], self.origin + self.at)?
        };
        self.at += length as u64;
        Ok(length)
    }
}

impl Seek for View<'_> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let at = match to {
            SeekFrom::Start(at) => Some(at),
            SeekFrom::End(by) => self.len().checked_add_signed(by),
            SeekFrom::Current(by) => self.at.checked_add_signed(by),
        };
        self.at = at.ok_or_else(|| io::Error::other("a place before the beginning"))?;
        Ok(self.at)
    }
}
