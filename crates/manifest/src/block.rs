//! A part of the list as bytes.  The same entries are always the same bytes.

use grid_core::blob::BlobId;

use super::wire::{Reader, Writer, pack, unpack};
use super::{Entry, Error, Line, Node, What};

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
    let mut out = Writer(Vec::with_capacity(MAGIC.len() + lines.len() * ENTRY_BYTES));
    out.0.extend_from_slice(MAGIC);
    let (mut path, mut modified_ms) = ("", 0);
    for line in lines {
        out.path(path, line.path);
        out.number(line.mode.into());
        out.signed(line.modified_ms.wrapping_sub(modified_ms));
        (path, modified_ms) = (line.path, line.modified_ms);
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
    out.0
}

/// Reads what [`encode`] wrote.
pub fn decode(packed: &[u8]) -> Result<Vec<Entry>, Error> {
    read(&unpack(packed, RAW_BYTES_MAX)?, usize::MAX)
}

/// Reads what [`raw`] wrote of at most so many entries.
pub(super) fn read(raw: &[u8], most: usize) -> Result<Vec<Entry>, Error> {
    let rest = raw
        .strip_prefix(MAGIC)
        .ok_or(Error::Damaged("it is something else"))?;
    let mut reader = Reader(rest);
    let mut entries: Vec<Entry> = Vec::new();
    let mut modified_ms = 0_i64;
    while !reader.is_over() {
        if entries.len() >= most {
            return Err(Error::Damaged("it has too many entries"));
        }
        let before = entries.last().map_or("", |entry| entry.path.as_str());
        let path = reader.path(before)?;
        let mode = u32::try_from(reader.number()?).map_err(|_| Error::Damaged("a mode"))?;
        modified_ms = modified_ms.wrapping_add(reader.signed()?);
        let node = match reader.take(1)?[0] {
            FILE => Node::File {
                size_bytes: reader.number()?,
                blob: reader.blob()?,
            },
            FOLDER => Node::Folder,
            LINK => Node::Link {
                target: reader.text()?,
            },
            ELSEWHERE => Node::Elsewhere {
                size_bytes: reader.number()?,
                tag: reader.text()?,
            },
            _ => return Err(Error::Damaged("an entry of a kind that there is not")),
        };
        entries.push(Entry {
            path,
            mode,
            modified_ms,
            node,
        });
    }
    Ok(entries)
}
