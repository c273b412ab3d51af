//! A part of the list as bytes.  The same entries are always the same bytes.

use grid_core::blob::BlobId;

use super::wire::{Reader, Writer, pack, unpack};
use super::{Entry, Error, Node};

/// The first bytes of a part; another format has others.
const MAGIC: &[u8; 4] = b"gdb1";

/// Most bytes of a part before it is packed.  Higher: a damaged one takes that much memory;
/// lower: parts of entries with long paths and links do not fit.
const RAW_BYTES_MAX: usize = 128 << 20;

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
    BlobId::from_bytes(*blake3::hash(&raw(entries)).as_bytes())
}

fn raw(entries: &[Entry]) -> Vec<u8> {
    let mut out = Writer(MAGIC.to_vec());
    let (mut path, mut modified_ms) = ("", 0);
    for entry in entries {
        out.path(path, &entry.path);
        out.number(entry.mode.into());
        out.signed(entry.modified_ms.wrapping_sub(modified_ms));
        (path, modified_ms) = (&entry.path, entry.modified_ms);
        match &entry.node {
            Node::File { blob, size_bytes } => {
                out.0.push(FILE);
                out.number(*size_bytes);
                out.blob(blob);
            }
            Node::Folder => out.0.push(FOLDER),
            Node::Link { target } => {
                out.0.push(LINK);
                out.text(target);
            }
            Node::Elsewhere { size_bytes, tag } => {
                out.0.push(ELSEWHERE);
                out.number(*size_bytes);
                out.text(tag);
            }
        }
    }
    out.0
}

/// Reads what [`encode`] wrote.
pub fn decode(packed: &[u8]) -> Result<Vec<Entry>, Error> {
    let raw = unpack(packed, RAW_BYTES_MAX)?;
    let rest = raw
        .strip_prefix(MAGIC)
        .ok_or(Error::Damaged("it is something else"))?;
    let mut reader = Reader(rest);
    let mut entries: Vec<Entry> = Vec::new();
    let mut modified_ms = 0_i64;
    while !reader.is_over() {
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
