//! Cutting a list into blocks.

use grid_core::blob::BlobId;

use super::check::Check;
use super::{BlockRef, Entry, Error, Index, Node, Totals, encode};

/// Entries of a block, on average.  Higher: a small change stores more and a question about
/// one file reads more; lower: the index, which is read for every question, grows.
const ENTRIES_AVERAGE: u32 = 1_024;

/// Most entries of a block.  Higher: a list whose paths make no cut has blocks that fill the
/// memory; lower: cuts depend on how many entries there are before them.
const ENTRIES_MAX: usize = 16_384;

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
    fn new(bytes: Vec<u8>) -> Self {
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

/// Takes entries in order, gives blocks.
#[derive(Debug, Default)]
pub struct Builder {
    check: Check,
    entries: Vec<Entry>,
    text_bytes: usize,
    index: Index,
}

impl Builder {
    /// Takes the next entry; gives the block that ends before it.
    pub fn push(&mut self, entry: Entry) -> Result<Option<Stored>, Error> {
        self.check.next(&entry)?;
        let is_full = self.entries.len() >= ENTRIES_MAX || self.text_bytes >= TEXT_BYTES_MAX;
        let done = if is_full || is_cut(&entry.path) {
            self.end_block()
        } else {
            None
        };
        self.text_bytes += entry.path.len();
        if let Node::Link { target } = &entry.node {
            self.text_bytes += target.len();
        }
        self.entries.push(entry);
        Ok(done)
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
        let mut totals = Totals::default();
        for entry in &self.entries {
            let is_file = matches!(entry.node, Node::File { .. } | Node::Elsewhere { .. });
            totals.add(Totals {
                entries: 1,
                files: u64::from(is_file),
                bytes: entry.size_bytes(),
            });
        }
        let stored = Stored::new(encode(&self.entries));
        self.index.totals.add(totals);
        self.index.blocks.push(BlockRef {
            blob: stored.blob,
            first,
            totals,
        });
        self.entries.clear();
        self.text_bytes = 0;
        Some(stored)
    }
}

/// Whether a block begins with this path, wherever it stands.
fn is_cut(path: &str) -> bool {
    let hash = blake3::hash(path.as_bytes());
    let [a, b, c, d, ..] = *hash.as_bytes();
    u32::from_le_bytes([a, b, c, d]).is_multiple_of(ENTRIES_AVERAGE)
}
