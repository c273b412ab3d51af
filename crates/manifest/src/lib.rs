//! The list of the files of a datastore version, cut into blocks.
//!
//! Ten million files make a list of half a gigabyte, of which most questions need a few
//! lines.  So the list is sorted by path and cut into blocks, each stored by its own
//! content; an *index* names the blocks with their first paths and what they add up to.
//! Where a block begins depends on the paths around the cut only: two versions of a
//! datastore share every block but those around what changed.
//!
//! Nothing here does IO: whoever stores and fetches blocks hands their bytes over.

mod block;
mod build;
mod check;
mod index;
mod offer;
#[cfg(test)]
mod tests;
mod wire;

use grid_core::blob::BlobId;

pub use block::{Unpacked, decode, digest, digest_of, encode};
pub use build::{BLOCK_ENTRIES_MAX, Builder, Built, Cutter, Stored, begins_block, text_bytes};
pub use check::{Check, PATH_BYTES_MAX, TARGET_BYTES_MAX};
pub use index::{BlockRef, Index, Totals};
pub use offer::{Offer, Part, parse_offers, write_offers};

/// One line of the list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Relative to the top, with `/`.
    pub path: String,
    /// Permission bits.
    pub mode: u32,
    /// When it was last changed, in milliseconds since 1970 UTC.
    pub modified_ms: i64,
    /// What it is.
    pub node: Node,
}

/// What a line stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Node {
    /// A file whose bytes are stored.
    File {
        /// Which bytes.
        blob: BlobId,
        /// How many.
        size_bytes: u64,
    },
    /// An empty folder; others follow from what is in them.
    Folder,
    /// A symbolic link.
    Link {
        /// Where it points, from the folder that it is in.
        target: String,
    },
    /// A file whose bytes were left where they are.
    Elsewhere {
        /// How many.
        size_bytes: u64,
        /// What the place calls this content.
        tag: String,
    },
}

/// A line that is kept by somebody else.
#[derive(Debug, Clone, Copy)]
pub struct Line<'a> {
    /// Relative to the top, with `/`.
    pub path: &'a str,
    /// Permission bits.
    pub mode: u32,
    /// When it was last changed, in milliseconds since 1970 UTC.
    pub modified_ms: i64,
    /// What it is.
    pub what: What<'a>,
}

/// What such a line stands for: see [`Node`].
#[derive(Debug, Clone, Copy)]
#[expect(missing_docs, reason = "they are those of Node")]
pub enum What<'a> {
    File { blob: BlobId, size_bytes: u64 },
    Folder,
    Link { target: &'a str },
    Elsewhere { size_bytes: u64, tag: &'a str },
}

impl Line<'_> {
    /// As an entry of its own.
    pub fn to_entry(self) -> Entry {
        let node = match self.what {
            What::File { blob, size_bytes } => Node::File { blob, size_bytes },
            What::Folder => Node::Folder,
            What::Link { target } => Node::Link {
                target: target.to_owned(),
            },
            What::Elsewhere { size_bytes, tag } => Node::Elsewhere {
                size_bytes,
                tag: tag.to_owned(),
            },
        };
        Entry {
            path: self.path.to_owned(),
            mode: self.mode,
            modified_ms: self.modified_ms,
            node,
        }
    }
}

impl Entry {
    /// As a line that this keeps.
    pub fn line(&self) -> Line<'_> {
        let what = match &self.node {
            Node::File { blob, size_bytes } => What::File {
                blob: *blob,
                size_bytes: *size_bytes,
            },
            Node::Folder => What::Folder,
            Node::Link { target } => What::Link { target },
            Node::Elsewhere { size_bytes, tag } => What::Elsewhere {
                size_bytes: *size_bytes,
                tag,
            },
        };
        Line {
            path: &self.path,
            mode: self.mode,
            modified_ms: self.modified_ms,
            what,
        }
    }

    /// Bytes of its content.
    pub fn size_bytes(&self) -> u64 {
        match self.node {
            Node::File { size_bytes, .. } | Node::Elsewhere { size_bytes, .. } => size_bytes,
            Node::Folder | Node::Link { .. } => 0,
        }
    }

    /// The bytes that it needs, if they are stored.
    pub fn blob(&self) -> Option<BlobId> {
        match self.node {
            Node::File { blob, .. } => Some(blob),
            Node::Folder | Node::Link { .. } | Node::Elsewhere { .. } => None,
        }
    }
}

/// Why a list is not one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// A path that leads out, or that no file system takes.
    #[error("'{path}' is not a path inside a datastore")]
    Path {
        /// It.
        path: String,
    },
    /// The order of the list is part of what it says.
    #[error("the list is not sorted by path, or names '{path}' twice")]
    Order {
        /// The path that comes too late.
        path: String,
    },
    /// One thing cannot be a file and a folder.
    #[error("'{path}' lies below '{above}', which is no folder")]
    Below {
        /// The path.
        path: String,
        /// What is no folder.
        above: String,
    },
    /// A folder is listed only when it is empty.
    #[error("the folder '{path}' is listed though something is in it")]
    NotEmpty {
        /// The folder.
        path: String,
    },
    /// A link that would show something else than the datastore.
    #[error("the link '{path}' points outside the datastore: {target}")]
    Link {
        /// The link.
        path: String,
        /// Where it points.
        target: String,
    },
    /// `..` behind a name: whether that leads out depends on other links.
    #[error(
        "the link '{path}' goes down and up again, where it cannot be said whether it stays inside: {target}"
    )]
    Wander {
        /// The link.
        path: String,
        /// Where it points.
        target: String,
    },
    /// The bytes are not a list.
    #[error("the stored list of files is damaged: {0}")]
    Damaged(&'static str),
}
