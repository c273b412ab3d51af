//! One pack file and the two small files beside it.
//!
//! - `<number>.pack`: records one after another, each a header (magic, length, time,
//!   hash) and the bytes.  It is the truth.  The magic says whether the bytes are those
//!   of the hash, or the recipe of a larger blob that has it.
//! - `<number>.idx`: where the records begin, in their order.  A cache: whatever of it
//!   is missing or wrong is made anew from the pack.
//! - `<number>.dead`: which records are deleted.  What is lost of it comes back to life
//!   and is deleted again by the next collection.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use grid_core::blob::BlobId;
use grid_core::time::Timestamp;

use super::disk::Disk;
use super::{SMALL_BYTES_MAX, recipe};

/// Length of a record's header in bytes.
pub(super) const HEADER_BYTES: usize = 48;
const MAGIC: [u8; 4] = *b"GBP1";
const RECIPE_MAGIC: [u8; 4] = *b"GBR1";

/// What both begin with.
const MAGIC_BEGIN: [u8; 2] = *b"GB";

/// Set in an offset of a recipe.  Offsets are below [`super::packs::PACK_BYTES_MAX`].
pub(super) const RECIPE_BIT: u32 = 1 << 31;

const INDEX_ENTRY_BYTES: usize = 24;
const DEAD_ENTRY_BYTES: usize = 12;

/// How far ahead a scan looks for the next record after damage, in one read.
const SEARCH_BYTES: usize = 64 * 1024;

/// The first half of a blob id: what the index knows blobs by.  Two blobs that share
/// it cannot be made on purpose, and by chance are not met.
pub(super) type Key = [u64; 2];

pub(super) fn key(id: &BlobId) -> Key {
    let (words, _) = id.as_bytes().as_chunks::<8>();
    [u64::from_le_bytes(words[0]), u64::from_le_bytes(words[1])]
}

/// What the bytes of a record are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Those of the blob.
    Bytes,
    /// What the blob is made of.
    Recipe,
}

/// What stands before a record's bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) id: BlobId,
    pub(super) kind: Kind,
    pub(super) len: u32,
    pub(super) written_at: Timestamp,
}

impl Header {
    pub(super) fn to_bytes(self) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        bytes[0..4].copy_from_slice(match self.kind {
            Kind::Bytes => &MAGIC,
            Kind::Recipe => &RECIPE_MAGIC,
        });
        bytes[4..8].copy_from_slice(&self.len.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.written_at.as_millis().to_le_bytes());
        bytes[16..48].copy_from_slice(self.id.as_bytes());
        bytes
    }

    pub(super) fn parse(bytes: &[u8; HEADER_BYTES]) -> Option<Self> {
        let (words, _) = bytes.as_chunks::<8>();
        let [m0, m1, m2, m3, l0, l1, l2, l3] = words[0];
        let len = u32::from_le_bytes([l0, l1, l2, l3]);
        let kind = match [m0, m1, m2, m3] {
            MAGIC => Kind::Bytes,
            RECIPE_MAGIC => Kind::Recipe,
            _ => return None,
        };
        if len as usize > SMALL_BYTES_MAX {
            return None;
        }
        let mut id = [0; 32];
        id.copy_from_slice(&bytes[16..]);
        Some(Self {
            id: BlobId::from_bytes(id),
            kind,
            len,
            written_at: Timestamp::from_millis(i64::from_le_bytes(words[1])),
        })
    }

    /// Reads the header at this offset; `None` when there is none.
    pub(super) fn read(pack: &File, offset: u64) -> io::Result<Option<Self>> {
        let mut bytes = [0; HEADER_BYTES];
        match pack.read_exact_at(&mut bytes, offset) {
            Ok(()) => Ok(Self::parse(&bytes)),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Length of the whole record in bytes.
    pub(super) fn record_bytes(&self) -> u64 {
        HEADER_BYTES as u64 + u64::from(self.len)
    }

    /// The place of this record in the index.
    pub(super) fn entry(&self, offset: u64) -> Entry {
        // Packs are no longer than PACK_BYTES_MAX, which fits.
        let offset = offset as u32;
        Entry {
            key: key(&self.id),
            at: At(match self.kind {
                Kind::Bytes => offset,
                Kind::Recipe => offset | RECIPE_BIT,
            }),
        }
    }

    /// Whether these are the bytes of this record.
    pub(super) fn fits(&self, bytes: &[u8]) -> bool {
        match self.kind {
            Kind::Bytes => super::hash(bytes) == self.id,
            Kind::Recipe => recipe::is_whole(self.id, bytes),
        }
    }
}

/// Where in its pack a record begins, and of what kind it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct At(pub(super) u32);

impl At {
    pub(super) fn offset(self) -> u64 {
        u64::from(self.0 & !RECIPE_BIT)
    }

    pub(super) fn is_recipe(self) -> bool {
        self.0 & RECIPE_BIT != 0
    }
}

/// Where one record of a pack begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) key: Key,
    pub(super) at: At,
}

impl Entry {
    pub(super) fn to_bytes(self) -> [u8; INDEX_ENTRY_BYTES] {
        let mut bytes = [0; INDEX_ENTRY_BYTES];
        bytes[0..8].copy_from_slice(&self.key[0].to_le_bytes());
        bytes[8..16].copy_from_slice(&self.key[1].to_le_bytes());
        bytes[16..20].copy_from_slice(&self.at.0.to_le_bytes());
        bytes[20..24].copy_from_slice(&self.check().to_le_bytes());
        bytes
    }

    fn parse(bytes: &[u8; INDEX_ENTRY_BYTES]) -> Option<Self> {
        let (words, _) = bytes.as_chunks::<8>();
        let [o0, o1, o2, o3, c0, c1, c2, c3] = words[2];
        let entry = Self {
            key: [u64::from_le_bytes(words[0]), u64::from_le_bytes(words[1])],
            at: At(u32::from_le_bytes([o0, o1, o2, o3])),
        };
        (entry.check() == u32::from_le_bytes([c0, c1, c2, c3])).then_some(entry)
    }

    fn check(self) -> u32 {
        mix(self.key[0] ^ self.key[1].rotate_left(32) ^ u64::from(self.at.0))
    }
}

/// A check against torn and zeroed entries; not against anybody who forges them.
fn mix(value: u64) -> u32 {
    let mixed = (value ^ 0x9E37_79B9_7F4A_7C15).wrapping_mul(0xD6E8_FEB8_6659_FD93);
    (mixed >> 32) as u32
}

/// The files of one pack.
#[derive(Clone, Debug)]
pub(super) struct PackFiles {
    pub(super) pack: PathBuf,
    pub(super) index: PathBuf,
    pub(super) dead: PathBuf,
}

impl PackFiles {
    pub(super) fn new(dir: &Path, number: u32) -> Self {
        let path = |extension| dir.join(format!("{number:08}.{extension}"));
        Self {
            pack: path("pack"),
            index: path("idx"),
            dead: path("dead"),
        }
    }

    /// Removes all three.  The pack goes first: without it the others mean nothing.
    pub(super) fn remove(&self, disk: &Disk) -> io::Result<()> {
        disk.remove(&self.pack)?;
        for path in [&self.index, &self.dead] {
            match disk.remove(path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }

    /// Notes records as deleted: where they begin and their lengths.
    pub(super) fn bury(&self, disk: &Disk, records: &[(u32, u32)]) -> io::Result<()> {
        let file = disk.open(&self.dead)?;
        let at = file.metadata()?.len() / DEAD_ENTRY_BYTES as u64 * DEAD_ENTRY_BYTES as u64;
        let mut bytes = Vec::with_capacity(records.len() * DEAD_ENTRY_BYTES);
        for (offset, len) in records {
            bytes.extend_from_slice(&offset.to_le_bytes());
            bytes.extend_from_slice(&len.to_le_bytes());
            bytes.extend_from_slice(&dead_check(*offset, *len).to_le_bytes());
        }
        disk.write_at(&file, &bytes, at)
    }

    /// Forces to the disk what was noted as deleted.
    pub(super) fn sync_dead(&self, disk: &Disk) -> io::Result<()> {
        disk.sync(&disk.open(&self.dead)?)
    }

    fn dead_records(&self) -> io::Result<HashSet<u32>> {
        let bytes = read_if_there(&self.dead)?;
        let (entries, _) = bytes.as_chunks::<DEAD_ENTRY_BYTES>();
        let word = |entry: &[u8; DEAD_ENTRY_BYTES], at: usize| {
            u32::from_le_bytes([entry[at], entry[at + 1], entry[at + 2], entry[at + 3]])
        };
        Ok(entries
            .iter()
            .filter(|entry| dead_check(word(entry, 0), word(entry, 4)) == word(entry, 8))
            .map(|entry| word(entry, 0))
            .collect())
    }
}

fn dead_check(offset: u32, len: u32) -> u32 {
    mix(u64::from(offset) << 32 | u64::from(len))
}

/// A pack as it was found.
pub(super) struct Found {
    /// Its length in bytes.
    pub(super) len: u64,
    /// How many entries its index file has.
    pub(super) indexed: u64,
    /// The records that are not deleted.
    pub(super) live: Vec<Entry>,
    /// Length of these in bytes.
    pub(super) live_bytes: u64,
}

/// Opens a pack and repairs what a crash left: a torn record at its end is cut off,
/// and the index is completed.
pub(super) fn open_pack(files: &PackFiles, disk: &Disk) -> io::Result<Found> {
    let pack = disk.open(&files.pack)?;
    let mut len = pack.metadata()?.len();
    let (mut entries, mut end) = read_index(files, &pack, len)?.unwrap_or_default();
    let known = entries.len();
    while end < len {
        match next_record(&pack, end, len)? {
            Some((offset, header)) => {
                entries.push(header.entry(offset));
                end = offset + header.record_bytes();
            }
            None => {
                let (path, bytes) = (files.pack.display(), len - end);
                tracing::warn!(%path, bytes, "what stands at the end of a pack is no whole record, and is cut off");
                disk.set_len(&pack, end)?;
                len = end;
            }
        }
    }
    let indexed = match write_index(files, disk, known as u64, &entries[known..]) {
        Ok(()) => entries.len() as u64,
        Err(error) => {
            // A cache that could not be written is made again at the next start.
            tracing::warn!(%error, path = %files.index.display(), "could not complete the index of a pack");
            known as u64
        }
    };
    let dead = files.dead_records()?;
    // A record ends where the next begins.
    let ends = entries.iter().skip(1).map(|entry| entry.at.offset());
    let dead_bytes: u64 = entries
        .iter()
        .zip(ends.chain([len]))
        .filter(|(entry, _)| dead.contains(&(entry.at.offset() as u32)))
        .map(|(entry, end)| end.saturating_sub(entry.at.offset()))
        .sum();
    entries.retain(|entry| !dead.contains(&(entry.at.offset() as u32)));
    Ok(Found {
        len,
        indexed,
        live: entries,
        live_bytes: len.saturating_sub(dead_bytes),
    })
}

/// The entries of the index and where the last of them ends, if all of it is good.
fn read_index(files: &PackFiles, pack: &File, len: u64) -> io::Result<Option<(Vec<Entry>, u64)>> {
    let bytes = read_if_there(&files.index)?;
    let (raw, _) = bytes.as_chunks::<INDEX_ENTRY_BYTES>();
    let entries: Option<Vec<Entry>> = raw.iter().map(Entry::parse).collect();
    let Some(mut entries) = entries else {
        return Ok(None);
    };
    let Some(last) = entries.last().copied() else {
        return Ok(None);
    };
    let offset = last.at.offset();
    let header = Header::read(pack, offset)?;
    let Some(header) = header.filter(|header| header.entry(offset) == last) else {
        return Ok(None);
    };
    let end = offset + header.record_bytes();
    if end != len && !is_record(pack, offset, &header, len)? {
        // It does not say where the next begins: that is looked for from here on.
        entries.pop();
        return Ok(Some((entries, offset)));
    }
    Ok(Some((entries, end)))
}

/// Adds entries to an index file that has `known` of them.
pub(super) fn write_index(
    files: &PackFiles,
    disk: &Disk,
    known: u64,
    new: &[Entry],
) -> io::Result<()> {
    if new.is_empty() {
        return Ok(());
    }
    let bytes: Vec<u8> = new.iter().flat_map(|entry| entry.to_bytes()).collect();
    let at = known * INDEX_ENTRY_BYTES as u64;
    let file = disk.open(&files.index)?;
    disk.write_at(&file, &bytes, at)?;
    disk.set_len(&file, at + bytes.len() as u64)
}

/// Whether what stands behind this header is what it says.
fn is_record(pack: &File, at: u64, header: &Header, len: u64) -> io::Result<bool> {
    if at + header.record_bytes() > len {
        return Ok(false);
    }
    let mut bytes = vec![0; header.len as usize];
    pack.read_exact_at(&mut bytes, at + HEADER_BYTES as u64)?;
    Ok(header.fits(&bytes))
}

/// The first whole record at `from` or behind, with its hash checked.
fn next_record(pack: &File, from: u64, len: u64) -> io::Result<Option<(u64, Header)>> {
    let mut at = from;
    while at < len {
        if let Some(header) = Header::read(pack, at)?
            && is_record(pack, at, &header, len)?
        {
            return Ok(Some((at, header)));
        }
        match search(pack, at + 1, len)? {
            Some(next) => at = next,
            None => return Ok(None),
        }
    }
    Ok(None)
}

/// Where the bytes that begin a record come next.
fn search(pack: &File, from: u64, len: u64) -> io::Result<Option<u64>> {
    let mut at = from;
    let mut bytes = vec![0; SEARCH_BYTES];
    while at + MAGIC_BEGIN.len() as u64 <= len {
        let want = usize::try_from(len - at).unwrap_or(SEARCH_BYTES);
        let bytes = &mut bytes[..want.min(SEARCH_BYTES)];
        pack.read_exact_at(bytes, at)?;
        if let Some(found) = memchr::memmem::find(bytes, &MAGIC_BEGIN) {
            return Ok(Some(at + found as u64));
        }
        at += (bytes.len() - (MAGIC_BEGIN.len() - 1)) as u64;
    }
    Ok(None)
}

fn read_if_there(path: &Path) -> io::Result<Vec<u8>> {
    match fs::read(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        result => result,
    }
}
