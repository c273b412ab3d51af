//! One pack file and the two small files beside it.
//!
//! - `<number>.pack`: records one after another, each a header (magic, length, time,
//!   hash) and the bytes.  It is the truth.
//! - `<number>.idx`: where the records begin, in their order.  A cache: whatever of it
//!   is missing or wrong is made anew from the pack.
//! - `<number>.dead`: which records are deleted.  What is lost of it comes back to life
//!   and is deleted again by the next collection.

use std::collections::HashSet;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use grid_core::blob::BlobId;
use grid_core::time::Timestamp;

use super::SMALL_BYTES_MAX;

/// Length of a record's header in bytes.
pub(super) const HEADER_BYTES: usize = 48;
const MAGIC: [u8; 4] = *b"GBP1";

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

/// What stands before a record's bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) id: BlobId,
    pub(super) len: u32,
    pub(super) written_at: Timestamp,
}

impl Header {
    pub(super) fn to_bytes(self) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        bytes[0..4].copy_from_slice(&MAGIC);
        bytes[4..8].copy_from_slice(&self.len.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.written_at.as_millis().to_le_bytes());
        bytes[16..48].copy_from_slice(self.id.as_bytes());
        bytes
    }

    fn parse(bytes: &[u8; HEADER_BYTES]) -> Option<Self> {
        let (words, _) = bytes.as_chunks::<8>();
        let [m0, m1, m2, m3, l0, l1, l2, l3] = words[0];
        let len = u32::from_le_bytes([l0, l1, l2, l3]);
        if [m0, m1, m2, m3] != MAGIC || len as usize > SMALL_BYTES_MAX {
            return None;
        }
        let mut id = [0; 32];
        id.copy_from_slice(&bytes[16..]);
        Some(Self {
            id: BlobId::from_bytes(id),
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
}

/// Where one record of a pack begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) key: Key,
    pub(super) offset: u32,
}

impl Entry {
    pub(super) fn to_bytes(self) -> [u8; INDEX_ENTRY_BYTES] {
        let mut bytes = [0; INDEX_ENTRY_BYTES];
        bytes[0..8].copy_from_slice(&self.key[0].to_le_bytes());
        bytes[8..16].copy_from_slice(&self.key[1].to_le_bytes());
        bytes[16..20].copy_from_slice(&self.offset.to_le_bytes());
        bytes[20..24].copy_from_slice(&self.check().to_le_bytes());
        bytes
    }

    fn parse(bytes: &[u8; INDEX_ENTRY_BYTES]) -> Option<Self> {
        let (words, _) = bytes.as_chunks::<8>();
        let [o0, o1, o2, o3, c0, c1, c2, c3] = words[2];
        let entry = Self {
            key: [u64::from_le_bytes(words[0]), u64::from_le_bytes(words[1])],
            offset: u32::from_le_bytes([o0, o1, o2, o3]),
        };
        (entry.check() == u32::from_le_bytes([c0, c1, c2, c3])).then_some(entry)
    }

    fn check(self) -> u32 {
        mix(self.key[0] ^ self.key[1].rotate_left(32) ^ u64::from(self.offset))
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
    pub(super) fn remove(&self) -> io::Result<()> {
        fs::remove_file(&self.pack)?;
        for path in [&self.index, &self.dead] {
            match fs::remove_file(path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }

    /// Notes records as deleted.
    pub(super) fn bury(&self, records: &[(u32, u32)]) -> io::Result<()> {
        let file = open(&self.dead)?;
        let at = file.metadata()?.len() / DEAD_ENTRY_BYTES as u64 * DEAD_ENTRY_BYTES as u64;
        let mut bytes = Vec::with_capacity(records.len() * DEAD_ENTRY_BYTES);
        for (offset, len) in records {
            bytes.extend_from_slice(&offset.to_le_bytes());
            bytes.extend_from_slice(&len.to_le_bytes());
            bytes.extend_from_slice(&dead_check(*offset, *len).to_le_bytes());
        }
        file.write_all_at(&bytes, at)
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
pub(super) fn open_pack(files: &PackFiles) -> io::Result<Found> {
    let pack = open(&files.pack)?;
    let mut len = pack.metadata()?.len();
    let (mut entries, mut end) = read_index(files, &pack, len)?.unwrap_or_default();
    let known = entries.len();
    while end < len {
        match next_record(&pack, end, len)? {
            Some((offset, header)) => {
                entries.push(Entry {
                    key: key(&header.id),
                    // Packs are no longer than PACK_BYTES_MAX, which fits.
                    offset: offset as u32,
                });
                end = offset + header.record_bytes();
            }
            None => {
                pack.set_len(end)?;
                len = end;
            }
        }
    }
    let indexed = match write_index(files, known as u64, &entries[known..]) {
        Ok(()) => entries.len() as u64,
        Err(error) => {
            // A cache that could not be written is made again at the next start.
            tracing::warn!(%error, path = %files.index.display(), "could not complete the index of a pack");
            known as u64
        }
    };
    let dead = files.dead_records()?;
    // A record ends where the next begins.
    let ends = entries.iter().skip(1).map(|entry| u64::from(entry.offset));
    let dead_bytes: u64 = entries
        .iter()
        .zip(ends.chain([len]))
        .filter(|(entry, _)| dead.contains(&entry.offset))
        .map(|(entry, end)| end.saturating_sub(u64::from(entry.offset)))
        .sum();
    entries.retain(|entry| !dead.contains(&entry.offset));
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
    let Some(entries) = entries else {
        return Ok(None);
    };
    let Some(last) = entries.last() else {
        return Ok(None);
    };
    let Some(header) = Header::read(pack, u64::from(last.offset))? else {
        return Ok(None);
    };
    let end = u64::from(last.offset) + header.record_bytes();
    let good = key(&header.id) == last.key && end <= len;
    Ok(good.then_some((entries, end)))
}

/// Adds entries to an index file that has `known` of them.
pub(super) fn write_index(files: &PackFiles, known: u64, new: &[Entry]) -> io::Result<()> {
    if new.is_empty() {
        return Ok(());
    }
    let bytes: Vec<u8> = new.iter().flat_map(|entry| entry.to_bytes()).collect();
    let at = known * INDEX_ENTRY_BYTES as u64;
    let file = open(&files.index)?;
    file.write_all_at(&bytes, at)?;
    file.set_len(at + bytes.len() as u64)
}

/// The first whole record at `from` or behind, with its hash checked.
fn next_record(pack: &File, from: u64, len: u64) -> io::Result<Option<(u64, Header)>> {
    let mut at = from;
    while at < len {
        if let Some(header) = Header::read(pack, at)?
            && at + header.record_bytes() <= len
        {
            let mut bytes = vec![0; header.len as usize];
            pack.read_exact_at(&mut bytes, at + HEADER_BYTES as u64)?;
            if super::hash(&bytes) == header.id {
                return Ok(Some((at, header)));
            }
        }
        match search(pack, at + 1, len)? {
            Some(next) => at = next,
            None => return Ok(None),
        }
    }
    Ok(None)
}

/// Goes through the headers of a pack without reading what they stand before.  After
/// damage it may find headers that are none: the caller knows what it looks for.
pub(super) struct Records {
    pub(super) pack: Arc<File>,
    pub(super) len: u64,
    pub(super) at: u64,
}

impl Records {
    pub(super) fn next(&mut self) -> io::Result<Option<(u32, Header)>> {
        while self.at < self.len {
            let at = self.at;
            if let Some(header) = Header::read(&self.pack, at)? {
                self.at += header.record_bytes();
                // Packs are no longer than PACK_BYTES_MAX, which fits.
                return Ok(Some((at as u32, header)));
            }
            self.at = search(&self.pack, at + 1, self.len)?.unwrap_or(self.len);
        }
        Ok(None)
    }
}

/// Where the bytes that begin a record come next.
fn search(pack: &File, from: u64, len: u64) -> io::Result<Option<u64>> {
    let mut at = from;
    let mut bytes = vec![0; SEARCH_BYTES];
    while at + MAGIC.len() as u64 <= len {
        let want = usize::try_from(len - at).unwrap_or(SEARCH_BYTES);
        let bytes = &mut bytes[..want.min(SEARCH_BYTES)];
        pack.read_exact_at(bytes, at)?;
        if let Some(found) = memchr::memmem::find(bytes, &MAGIC) {
            return Ok(Some(at + found as u64));
        }
        at += (bytes.len() - (MAGIC.len() - 1)) as u64;
    }
    Ok(None)
}

/// Opens a file for reading and writing, and makes it if it is not there.
pub(super) fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .create(true)
        .truncate(false)
        .read(true)
        .write(true)
        .open(path)
}

fn read_if_there(path: &Path) -> io::Result<Vec<u8>> {
    match fs::read(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        result => result,
    }
}
