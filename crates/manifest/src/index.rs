//! The index: which blocks there are, where each begins, and what they add up to.

use grid_core::blob::BlobId;

use super::wire::{Reader, Writer, pack, unpack};
use super::{Entry, Error, Line, What};

/// The first bytes of an index; another format has others.
const MAGIC: &[u8; 4] = b"gdx1";

/// Most bytes of an index before it is packed.  Higher: a damaged one takes that much
/// memory; lower: a list of a hundred million files has no index.
const RAW_BYTES_MAX: usize = 256 << 20;

/// Numbers of what is in a part of the list.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Totals {
    /// Lines.
    pub entries: u64,
    /// Files among them.
    pub files: u64,
    /// Their bytes together.
    pub bytes: u64,
}

impl Totals {
    /// What these entries add up to.
    pub fn of(entries: &[Entry]) -> Self {
        let mut totals = Self::default();
        for entry in entries {
            totals.add(Self::of_line(entry.line()));
        }
        totals
    }

    /// What one line adds.
    pub(super) fn of_line(line: Line<'_>) -> Self {
        let (files, bytes) = match line.what {
            What::File { size_bytes, .. } | What::Elsewhere { size_bytes, .. } => (1, size_bytes),
            What::Folder | What::Link { .. } => (0, 0),
        };
        Self {
            entries: 1,
            files,
            bytes,
        }
    }

    /// Adds others.
    pub fn add(&mut self, other: Self) {
        self.entries += other.entries;
        self.files += other.files;
        self.bytes = self.bytes.saturating_add(other.bytes);
    }
}

/// One block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlockRef {
    /// Its bytes.
    pub blob: BlobId,
    /// The path of its first entry.
    pub first: String,
    /// What is in it.
    pub totals: Totals,
}

/// All blocks, in the order of their paths.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Index {
    /// Them.
    pub blocks: Vec<BlockRef>,
    /// What they add up to.
    pub totals: Totals,
}

impl Index {
    /// Adds the next block.
    pub(super) fn push(&mut self, block: BlockRef) {
        self.totals.add(block.totals);
        self.blocks.push(block);
    }

    /// The block with this name, which is perhaps near the one with this number.
    pub fn block(&self, blob: BlobId, near: usize) -> Option<&BlockRef> {
        let (before, behind) = self.blocks.split_at(near.min(self.blocks.len()));
        let before = before.iter().rev();
        behind.iter().chain(before).find(|block| block.blob == blob)
    }

    /// The number of the block in which `path` is, if it is anywhere.
    pub fn block_of(&self, path: &str) -> usize {
        self.blocks
            .partition_point(|block| block.first.as_str() <= path)
            .saturating_sub(1)
    }

    /// As bytes, packed.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Writer(MAGIC.to_vec());
        out.number(self.blocks.len() as u64);
        let mut first = "";
        for block in &self.blocks {
            out.path(first, &block.first);
            first = &block.first;
            out.blob(&block.blob);
            out.number(block.totals.entries);
            out.number(block.totals.files);
            out.number(block.totals.bytes);
        }
        pack(&out.0)
    }

    /// Reads what [`Index::encode`] wrote.
    pub fn decode(packed: &[u8]) -> Result<Self, Error> {
        let raw = unpack(packed, RAW_BYTES_MAX)?;
        let rest = raw
            .strip_prefix(MAGIC)
            .ok_or(Error::Damaged("it is something else"))?;
        let mut reader = Reader(rest);
        let count = reader.number()?;
        let mut index = Self::default();
        for _ in 0..count {
            let before = index.blocks.last().map_or("", |block| block.first.as_str());
            let first = reader.path(before)?;
            let blob = reader.blob()?;
            let totals = Totals {
                entries: reader.number()?,
                files: reader.number()?,
                bytes: reader.number()?,
            };
            index.totals.add(totals);
            index.blocks.push(BlockRef {
                blob,
                first,
                totals,
            });
        }
        if reader.is_over() {
            Ok(index)
        } else {
            Err(Error::Damaged("something follows its end"))
        }
    }
}
