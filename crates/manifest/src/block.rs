//! A part of the list as bytes.  The same entries are always the same bytes.

use grid_core::blob::BlobId;
use grid_core::time::file_ms;

use super::wire::{Reader, Writer, pack, text, unpack};
use super::{Entry, Error, Line, What};

/// The first bytes of a part; another format has others.
const MAGIC: &[u8; 4] = b"gdb1";

/// Most bytes of a part before it is packed.  Higher: a damaged one takes that much memory;
/// lower: parts of entries with long paths and links do not fit.
pub(super) const RAW_BYTES_MAX: usize = 128 << 20;

/// Bytes of an entry, more or less: so many are reserved.
const ENTRY_BYTES: usize = 64;

const FILE: u8 = 0;
const FOLDER: u8 = 1;
const LINK: u8 = 2;
const ELSEWHERE: u8 = 3;

/// Writes entries in the order given, packed.
pub fn encode(entries: &[Entry]) -> Vec<u8> {
    pack(&raw(entries))
}

/// What these entries are called, without storing them.
pub fn digest(entries: &[Entry]) -> BlobId {
    name(&raw(entries))
}

/// The same, of lines that are kept otherwise.
pub fn digest_of<'a>(lines: impl ExactSizeIterator<Item = Line<'a>>) -> BlobId {
    name(&raw_of(lines))
}

/// The same, of entries that were written already, and not packed.
pub(super) fn name(raw: &[u8]) -> BlobId {
    BlobId::from_bytes(*blake3::hash(raw).as_bytes())
}

/// Writes entries in the order given, not packed.
pub(super) fn raw(entries: &[Entry]) -> Vec<u8> {
    raw_of(entries.iter().map(Entry::line))
}

fn raw_of<'a>(lines: impl ExactSizeIterator<Item = Line<'a>>) -> Vec<u8> {
    let mut out = LineWriter::of(lines.len());
    for line in lines {
        out.line(line);
    }
    out.finish()
}

/// Writes lines one after the other.
pub(super) struct LineWriter {
    out: Writer,
    path: String,
    modified_ms: i64,
}

impl LineWriter {
    /// Of so many lines, more or less.
    pub(super) fn of(lines: usize) -> Self {
        let mut out = Writer(Vec::with_capacity(MAGIC.len() + lines * ENTRY_BYTES));
        out.0.extend_from_slice(MAGIC);
        Self {
            out,
            path: String::new(),
            modified_ms: 0,
        }
    }

    /// Every list of files is written here, whoever sent it: so this bounds their times.
    pub(super) fn line(&mut self, line: Line<'_>) {
        let out = &mut self.out;
        let modified_ms = file_ms(line.modified_ms);
        out.path(&self.path, line.path);
        out.number(line.mode.into());
        out.signed(modified_ms.wrapping_sub(self.modified_ms));
        line.path.clone_into(&mut self.path);
        self.modified_ms = modified_ms;
        match line.what {
            What::File { blob, size_bytes } => {
                out.0.push(FILE);
                out.number(size_bytes);
                out.blob(&blob);
            }
            What::Folder => out.0.push(FOLDER),
            What::Link { target } => {
                out.0.push(LINK);
                out.text(target);
            }
            What::Elsewhere { size_bytes, tag } => {
                out.0.push(ELSEWHERE);
                out.number(size_bytes);
                out.text(tag);
            }
        }
    }

    pub(super) fn finish(self) -> Vec<u8> {
        self.out.0
    }
}

/// A block whose lines are read one after the other, without keeping them.
#[derive(Debug, Default)]
pub struct Unpacked {
    /// Nothing, of a block that has no lines.
    raw: Vec<u8>,
}

impl Unpacked {
    /// Unpacks what [`encode`] wrote.
    pub fn of(packed: &[u8]) -> Result<Self, Error> {
        let raw = unpack(packed, RAW_BYTES_MAX)?;
        Ok(Self { raw })
    }

    /// How many lines it has, more or less.
    pub(super) fn lines_guessed(&self) -> usize {
        self.raw.len() / ENTRY_BYTES
    }

    /// Its lines.
    pub(super) fn lines(&self) -> Result<LineReader<'_>, Error> {
        match self.raw.is_empty() {
            true => Ok(LineReader::default()),
            false => LineReader::of(&self.raw),
        }
    }
}

/// Reads what [`LineWriter`] wrote.
#[derive(Default)]
pub(super) struct LineReader<'a> {
    reader: Reader<'a>,
    path: Vec<u8>,
    modified_ms: i64,
}

impl<'a> LineReader<'a> {
    pub(super) fn of(raw: &'a [u8]) -> Result<Self, Error> {
        let rest = raw
            .strip_prefix(MAGIC)
            .ok_or(Error::Damaged("it is something else"))?;
        Ok(Self {
            reader: Reader(rest),
            path: Vec::new(),
            modified_ms: 0,
        })
    }

    /// The next line, which is there until the one after it is read.
    pub(super) fn next(&mut self) -> Result<Option<Line<'_>>, Error> {
        let reader = &mut self.reader;
        if reader.is_over() {
            return Ok(None);
        }
        reader.path_into(&mut self.path)?;
        let mode = u32::try_from(reader.number()?).map_err(|_| Error::Damaged("a mode"))?;
        self.modified_ms = self.modified_ms.wrapping_add(reader.signed()?);
        let what = match reader.take(1)?[0] {
            FILE => What::File {
                size_bytes: reader.number()?,
                blob: reader.blob()?,
            },
            FOLDER => What::Folder,
            LINK => What::Link {
                target: reader.text()?,
            },
            ELSEWHERE => What::Elsewhere {
                size_bytes: reader.number()?,
                tag: reader.text()?,
            },
            _ => return Err(Error::Damaged("an entry of a kind that there is not")),
        };
        Ok(Some(Line {
            path: text(&self.path)?,
            mode,
            // Lists that were written before times were bounded have any.
            modified_ms: file_ms(self.modified_ms),
            what,
        }))
    }
}

/// Reads what [`encode`] wrote.
pub fn decode(packed: &[u8]) -> Result<Vec<Entry>, Error> {
    read(&unpack(packed, RAW_BYTES_MAX)?, usize::MAX)
}

/// Reads what [`raw`] wrote of at most so many entries.
pub(super) fn read(raw: &[u8], most: usize) -> Result<Vec<Entry>, Error> {
    let mut lines = LineReader::of(raw)?;
    let mut entries = Vec::with_capacity((raw.len() / ENTRY_BYTES).min(most));
    while let Some(line) = lines.next()? {
        if entries.len() >= most {
            return Err(Error::Damaged("it has too many entries"));
        }
        entries.push(line.to_entry());
    }
    Ok(entries)
}
