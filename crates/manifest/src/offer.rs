//! Parts of the list of an upload, as they travel: blocks of which only what is new is sent.
//!
//! A part is what a block will be.  It is named when a version before has it as it is; it is
//! a few entries to be put in place of others when that has most of it; else it is all of its
//! entries.  What it must be in the end is said by its digest, so that two sides that think
//! differently of what was before find out.

use grid_core::blob::BlobId;

use super::block::{LineWriter, RAW_BYTES_MAX, Unpacked, name, raw, read};
use super::wire::{Reader, Writer, pack};
use super::{BLOCK_ENTRIES_MAX, Check, Entry, Error, Line, Stored, Totals, begins_block};

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
        let mut whole = Whole::of(entries.len(), is_first, |_, _| {});
        for entry in entries {
            whole.line(entry.line(), true)?;
        }
        Ok(whole.finish())
    }

    /// Puts the part that is offered together, of the block before where it has one, and looks
    /// at it; `see` is shown each line of it, and told whether it was sent.  `None` when what
    /// was offered is not meant of this block.
    pub fn offered(
        offer: &Offer,
        before: &Unpacked,
        is_first: bool,
        see: impl FnMut(Line<'_>, bool),
    ) -> Result<Option<Self>, Error> {
        let mut whole = Whole::of(before.lines_guessed(), is_first, see);
        let (put, expected) = match offer {
            Offer::Same { .. } => (whole.edited(before, &[], &[]), None),
            Offer::Edited {
                digest,
                removed,
                put,
                ..
            } => (whole.edited(before, removed, put), Some(*digest)),
            Offer::Whole { entries } => {
                let mut entries = entries.iter();
                let put = entries.try_for_each(|entry| whole.line(entry.line(), true));
                (put, None)
            }
        };
        match (put.map(|()| whole.finish()), expected) {
            (Ok(part), Some(expected)) if part.digest != expected => Ok(None),
            (Err(_), Some(_)) => Ok(None),
            (part, _) => part.map(Some),
        }
    }

    /// The path of its last entry.
    pub fn last(&self) -> &str {
        self.end.last()
    }

    /// As bytes to be stored.
    pub fn store(self) -> Stored {
        Stored::new(pack(&self.raw))
    }
}

/// A part that is put together line by line.
struct Whole<S> {
    out: LineWriter,
    first: Option<String>,
    totals: Totals,
    end: Check,
    is_block: bool,
    see: S,
}

impl<S: FnMut(Line<'_>, bool)> Whole<S> {
    fn of(lines: usize, is_first: bool, see: S) -> Self {
        Self {
            out: LineWriter::of(lines),
            first: None,
            totals: Totals::default(),
            end: Check::default(),
            is_block: is_first,
            see,
        }
    }

    /// Takes the next line, of a block before or one that was sent.
    fn line(&mut self, line: Line<'_>, is_new: bool) -> Result<(), Error> {
        self.end.next_line(line)?;
        if self.first.is_none() {
            self.first = Some(line.path.to_owned());
            self.is_block |= begins_block(line.path);
        } else if is_new && begins_block(line.path) {
            // A block has no place inside at which another one begins: only of what is put
            // into it that has to be looked at.
            self.is_block = false;
        }
        self.totals.add(Totals::of_line(line));
        self.out.line(line);
        (self.see)(line, is_new);
        Ok(())
    }

    /// Takes what a block becomes: without what was removed, and with what was put.
    fn edited(
        &mut self,
        before: &Unpacked,
        removed: &[String],
        put: &[Entry],
    ) -> Result<(), Error> {
        let mut put = put.iter().peekable();
        let mut removed = removed.iter().peekable();
        let mut lines = before.lines()?;
        while let Some(line) = lines.next()? {
            while let Some(new) = put.next_if(|new| new.path.as_str() < line.path) {
                self.line(new.line(), true)?;
            }
            while removed.next_if(|path| path.as_str() < line.path).is_some() {}
            if removed.next_if(|path| *path == line.path).is_some() {
                continue;
            }
            match put.next_if(|new| new.path == line.path) {
                Some(new) => self.line(new.line(), true)?,
                None => self.line(line, false)?,
            }
        }
        put.try_for_each(|new| self.line(new.line(), true))
    }

    fn finish(self) -> Part {
        let raw = self.out.finish();
        let entries = self.totals.entries;
        Part {
            digest: name(&raw),
            first: self.first.unwrap_or_default(),
            totals: self.totals,
            end: self.end,
            is_block: self.is_block && entries > 0 && entries <= BLOCK_ENTRIES_MAX as u64,
            raw,
        }
    }
}
