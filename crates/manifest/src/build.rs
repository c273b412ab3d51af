//! Cutting a list into blocks.

use grid_core::blob::BlobId;

use super::check::Check;
use super::{BlockRef, Entry, Error, Index, Node, Totals, encode};

/// Entries of a block, on average.  Higher: a small change stores more and a question about
/// one file reads more; lower: the index, which is read for every question, grows.
const ENTRIES_AVERAGE: u32 = 1_024;

/// Most entries of a block, which is a part of an upload, too.  Higher: a list whose paths make no cut has blocks that fill the
/// memory; lower: cuts depend on how many entries there are before them.
pub const BLOCK_ENTRIES_MAX: usize = 16_384;

/// Most bytes of paths and links in a block, for the same reason.
const TEXT_BYTES_MAX: usize = 4 << 20;

/// Bytes to be stored under the name that they have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    /// The name.
    pub blob: BlobId,
    /// The bytes.
    pub bytes: Vec<u8>,
}

impl Stored {
    pub(super) fn new(bytes: Vec<u8>) -> Self {
        Self {
            blob: BlobId::from_bytes(*blake3::hash(&bytes).as_bytes()),
            bytes,
        }
    }
}

/// The end of a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Built {
    /// The last block, if any entry was left.
    pub last: Option<Stored>,
    /// The index: its name is the name of the list.
    pub index: Stored,
    /// What is in the list.
    pub totals: Totals,
}

/// Says where blocks end: the same for everybody, so that who sends a list can send the
/// blocks of which it will be made.
#[derive(Debug, Default)]
pub struct Cutter {
    entries: usize,
    text_bytes: usize,
}

impl Cutter {
    /// Takes the next entry, of so many bytes of text, which is said to begin a block wherever
    /// it stands ([`begins_block`]) or not.  `true` when a block ends before it.
    pub fn next(&mut self, begins_block: bool, text_bytes: usize) -> bool {
        let is_full = self.entries >= BLOCK_ENTRIES_MAX || self.text_bytes >= TEXT_BYTES_MAX;
        let ends = self.entries > 0 && (is_full || begins_block);
        if ends {
            *self = Self::default();
        }
        self.entries += 1;
        self.text_bytes += text_bytes;
        ends
    }
}

/// Bytes of path and link of an entry.
pub fn text_bytes(entry: &Entry) -> usize {
    let target = match &entry.node {
        Node::Link { target } => target.len(),
        _ => 0,
    };
    entry.path.len() + target
}

/// Takes entries in order, gives blocks.
#[derive(Debug, Default)]
pub struct Builder {
    check: Check,
    cutter: Cutter,
    entries: Vec<Entry>,
    index: Index,
}

impl Builder {
    /// Takes the next entry; gives the block that ends before it.
    pub fn push(&mut self, entry: Entry) -> Result<Option<Stored>, Error> {
        self.check.next(&entry)?;
        let ends = self
            .cutter
            .next(begins_block(&entry.path), text_bytes(&entry));
        let done = if ends { self.end_block() } else { None };
        self.entries.push(entry);
        Ok(done)
    }

    /// Takes a block as it is, of which `end` was left over when its entries were looked at;
    /// gives the one that ends before it.  `None` when its entries have to be taken one by one.
    pub fn join(&mut self, block: &BlockRef, end: Check) -> Result<Option<Vec<Stored>>, Error> {
        let is_between = self.entries.is_empty() || begins_block(&block.first);
        if !is_between || !self.check.join(&block.first, end)? {
            return Ok(None);
        }
        let before = self.end_block();
        self.cutter = Cutter::default();
        self.index.push(block.clone());
        Ok(Some(before.into_iter().collect()))
    }

    /// There are no more.
    pub fn finish(mut self) -> Built {
        let last = self.end_block();
        Built {
            last,
            totals: self.index.totals,
            index: Stored::new(self.index.encode()),
        }
    }

    fn end_block(&mut self) -> Option<Stored> {
        let first = self.entries.first()?.path.clone();
        let stored = Stored::new(encode(&self.entries));
        self.index.push(BlockRef {
            blob: stored.blob,
            first,
            totals: Totals::of(&self.entries),
        });
        self.entries.clear();
        Some(stored)
    }
}

/// Whether a block begins with this path, wherever it stands.
pub fn begins_block(path: &str) -> bool {
    let hash = blake3::hash(path.as_bytes());
    let [a, b, c, d, ..] = *hash.as_bytes();
    u32::from_le_bytes([a, b, c, d]).is_multiple_of(ENTRIES_AVERAGE)
}
