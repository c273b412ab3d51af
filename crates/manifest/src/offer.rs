//! Parts of the list of an upload, as they travel: blocks of which only what is new is sent.
//!
//! A part is what a block will be.  It is named when a version before has it as it is; it is
//! a few entries to be put in place of others when that has most of it; else it is all of its
//! entries.  What it must be in the end is said by its digest, so that two sides that think
//! differently of what was before find out.

use grid_core::blob::BlobId;

use super::block::{RAW_BYTES_MAX, name, raw, read};
use super::wire::{Reader, Writer, pack};
use super::{BLOCK_ENTRIES_MAX, Check, Entry, Error, Stored, Totals, begins_block};

/// The first bytes of parts on their way; another format has others.
const MAGIC: &[u8; 4] = b"gdo1";

const SAME: u8 = 0;
const EDITED: u8 = 1;
const WHOLE: u8 = 2;

/// What is sent of a part.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Offer {
    /// It is this block of the version before.
    Same {
        /// The block.
        block: BlobId,
    },
    /// It is this block of the version before, but for some entries.
    Edited {
        /// The block.
        block: BlobId,
        /// What the entries are called in the end ([`super::digest`]).
        digest: BlobId,
        /// Paths that are not there any more, sorted.
        removed: Vec<String>,
        /// Entries that are new, or in place of those with their paths; sorted.
        put: Vec<Entry>,
    },
    /// It is these.
    Whole {
        /// All entries.
        entries: Vec<Entry>,
    },
}

impl Offer {
    /// The block of the version before.
    pub fn before(&self) -> Option<BlobId> {
        match self {
            Self::Same { block } | Self::Edited { block, .. } => Some(*block),
            Self::Whole { .. } => None,
        }
    }
}

/// Writes parts.
pub fn write_offers(offers: &[Offer]) -> Vec<u8> {
    let mut out = Writer(MAGIC.to_vec());
    let entries = |out: &mut Writer, entries: &[Entry]| {
        let bytes = raw(entries);
        out.number(bytes.len() as u64);
        out.0.extend_from_slice(&bytes);
    };
    for offer in offers {
        match offer {
            Offer::Same { block } => {
                out.0.push(SAME);
                out.blob(block);
            }
            Offer::Edited {
                block,
                digest,
                removed,
                put,
            } => {
                out.0.push(EDITED);
                out.blob(block);
                out.blob(digest);
                out.number(removed.len() as u64);
                let mut before = "";
                for path in removed {
                    out.path(before, path);
                    before = path;
                }
                entries(&mut out, put);
            }
            Offer::Whole { entries: all } => {
                out.0.push(WHOLE);
                entries(&mut out, all);
            }
        }
    }
    out.0
}

/// Reads what [`write_offers`] wrote, of at most so many parts with so many entries together.
pub fn parse_offers(bytes: &[u8], most: usize, entries_max: usize) -> Result<Vec<Offer>, Error> {
    let rest = bytes
        .strip_prefix(MAGIC)
        .ok_or(Error::Damaged("it is something else"))?;
    let mut reader = Reader(rest);
    let mut left = entries_max;
    let mut offers = Vec::new();
    while !reader.is_over() {
        if offers.len() >= most {
            return Err(Error::Damaged("there are too many parts"));
        }
        offers.push(match reader.take(1)?[0] {
            SAME => Offer::Same {
                block: reader.blob()?,
            },
            EDITED => Offer::Edited {
                block: reader.blob()?,
                digest: reader.blob()?,
                removed: removed(&mut reader, &mut left)?,
                put: entries(&mut reader, &mut left)?,
            },
            WHOLE => Offer::Whole {
                entries: entries(&mut reader, &mut left)?,
            },
            _ => return Err(Error::Damaged("a part of a kind that there is not")),
        });
    }
    Ok(offers)
}

/// Reads entries, of which so many may still come.
fn entries(reader: &mut Reader<'_>, left: &mut usize) -> Result<Vec<Entry>, Error> {
    let length = reader.size()?;
    if length > RAW_BYTES_MAX {
        return Err(Error::Damaged("a part is too long"));
    }
    let entries = read(reader.take(length)?, *left)?;
    *left -= entries.len();
    Ok(entries)
}

fn removed(reader: &mut Reader<'_>, left: &mut usize) -> Result<Vec<String>, Error> {
    let count = reader.size()?;
    if count > BLOCK_ENTRIES_MAX || count > *left {
        return Err(Error::Damaged("more is removed than there was"));
    }
    *left -= count;
    let mut paths: Vec<String> = Vec::new();
    for _ in 0..count {
        let before = paths.last().map_or("", String::as_str);
        let path = reader.path(before)?;
        paths.push(path);
    }
    Ok(paths)
}

/// A part that was looked at.
#[derive(Debug)]
pub struct Part {
    /// What its entries are called.
    pub digest: BlobId,
    /// The path of its first entry.
    pub first: String,
    /// What is in it.
    pub totals: Totals,
    /// What is left over for what follows.
    pub end: Check,
    /// Whether it is a block as it is; else it has to be cut anew.
    pub is_block: bool,
    raw: Vec<u8>,
}

impl Part {
    /// Looks at the entries of a part, which begins the list or not.
    pub fn of(entries: &[Entry], is_first: bool) -> Result<Self, Error> {
        let new = entries.iter().map(|entry| entry.path.as_str());
        Self::looked(entries, is_first, new)
    }

    /// Puts the part that is offered together, of the block before where it has one; and looks
    /// at it.  `None` when what was offered is not meant of this block.
    pub fn offered(
        offer: Offer,
        before: Vec<Entry>,
        is_first: bool,
    ) -> Result<Option<(Self, Vec<Entry>)>, Error> {
        // A block has no place inside at which another one begins: only of what is put into
        // it that has to be looked at.
        let (new, expected): (Option<Vec<String>>, _) = match &offer {
            Offer::Same { .. } => (Some(Vec::new()), None),
            Offer::Edited { digest, put, .. } => {
                let new = put.iter().map(|entry| entry.path.clone());
                (Some(new.collect()), Some(*digest))
            }
            Offer::Whole { .. } => (None, None),
        };
        let entries = offer.apply(before);
        let part = match &new {
            Some(new) => Self::looked(&entries, is_first, new.iter().map(String::as_str)),
            None => Self::of(&entries, is_first),
        };
        match (part, expected) {
            (Ok(part), Some(expected)) if part.digest != expected => Ok(None),
            (Err(_), Some(_)) => Ok(None),
            (part, _) => Ok(Some((part?, entries))),
        }
    }

    fn looked<'a>(
        entries: &[Entry],
        is_first: bool,
        mut new: impl Iterator<Item = &'a str>,
    ) -> Result<Self, Error> {
        let mut end = Check::default();
        for entry in entries {
            end.next(entry)?;
        }
        let first = entries.first().map_or("", |entry| entry.path.as_str());
        let is_block = !entries.is_empty()
            && entries.len() <= BLOCK_ENTRIES_MAX
            && (is_first || begins_block(first))
            && !new.any(|path| path != first && begins_block(path));
        let raw = raw(entries);
        Ok(Self {
            digest: name(&raw),
            first: first.to_owned(),
            totals: Totals::of(entries),
            end,
            is_block,
            raw,
        })
    }

    /// As bytes to be stored.
    pub fn store(self) -> Stored {
        Stored::new(pack(&self.raw))
    }
}

/// What a block becomes: without what was removed, and with what was put.
pub(crate) fn edited(before: Vec<Entry>, removed: &[String], put: Vec<Entry>) -> Vec<Entry> {
    let mut after = Vec::with_capacity(before.len() + put.len());
    let mut put = put.into_iter().peekable();
    let mut removed = removed.iter().peekable();
    for entry in before {
        while let Some(new) = put.next_if(|new| new.path < entry.path) {
            after.push(new);
        }
        while removed.next_if(|path| **path < entry.path).is_some() {}
        if removed.next_if(|path| **path == entry.path).is_some() {
            continue;
        }
        after.push(put.next_if(|new| new.path == entry.path).unwrap_or(entry));
    }
    after.extend(put);
    after
}

impl Offer {
    /// The entries of the part, made of those of the block before, where there is one.
    pub fn apply(self, before: Vec<Entry>) -> Vec<Entry> {
        match self {
            Self::Same { .. } => before,
            Self::Edited { removed, put, .. } => edited(before, &removed, put),
            Self::Whole { entries } => entries,
        }
    }
}
