//! One pack in a bucket: an object that is written once.
//!
//! Records one after another, as in a pack of a folder; then a line for each record
//! (hash, where it begins, length, time, length of the content); then a tail: magic,
//! number of lines, length of the records, and a hash over lines and tail.  So what is in
//! a pack can be known from its end alone, and a lost line can be found again from the
//! records.
//!
//! Recipes have packs of their own: a collection reads all of them, and nothing else.

use std::fmt;
use std::str::FromStr;

use bytes::Bytes;
use grid_core::blob::BlobId;
use grid_core::time::Timestamp;

use super::super::pack::{Header, Kind, RECIPE_BIT};

/// Length of a line in bytes.
pub(super) const LINE_BYTES: usize = 56;

/// Length of the tail in bytes.
pub(super) const TAIL_BYTES: usize = 48;

const MAGIC: [u8; 4] = *b"GPK1";

/// The name of a pack: its number in the order of writing, what is in it, and something
/// that nobody else has chosen, so that nothing is ever written over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Name {
    pub(super) order: u64,
    random: u64,
    is_recipes: bool,
}

impl Name {
    pub(super) fn new(order: u64, kind: Kind, random: u64) -> Self {
        let is_recipes = kind == Kind::Recipe;
        Self {
            order,
            random,
            is_recipes,
        }
    }

    pub(super) fn kind(self) -> Kind {
        match self.is_recipes {
            true => Kind::Recipe,
            false => Kind::Bytes,
        }
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = if self.is_recipes { 'r' } else { 'b' };
        write!(f, "{:010x}-{kind}-{:016x}", self.order, self.random)
    }
}

impl FromStr for Name {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let mut parts = text.split('-');
        let (Some(order), Some(kind), Some(random), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(());
        };
        let is_recipes = match kind {
            "r" => true,
            "b" => false,
            _ => return Err(()),
        };
        let name = Self {
            order: u64::from_str_radix(order, 16).map_err(drop)?,
            random: u64::from_str_radix(random, 16).map_err(drop)?,
            is_recipes,
        };
        // What is written otherwise is not ours.
        (name.to_string() == text).then_some(name).ok_or(())
    }
}

/// What is known of a record without reading it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Line {
    pub(super) header: Header,
    /// Where in the pack the record begins.
    pub(super) at: u64,
    /// Length of the blob that it is, or that it is the recipe of.
    pub(super) content_bytes: u64,
}

impl Line {
    fn to_bytes(self) -> [u8; LINE_BYTES] {
        let mut bytes = [0; LINE_BYTES];
        // Packs are shorter than that.
        let mut at = self.at as u32;
        if self.header.kind == Kind::Recipe {
            at |= RECIPE_BIT;
        }
        bytes[..32].copy_from_slice(self.header.id.as_bytes());
        bytes[32..36].copy_from_slice(&at.to_le_bytes());
        bytes[36..40].copy_from_slice(&self.header.len.to_le_bytes());
        bytes[40..48].copy_from_slice(&self.header.written_at.as_millis().to_le_bytes());
        bytes[48..].copy_from_slice(&self.content_bytes.to_le_bytes());
        bytes
    }

    pub(super) fn parse(bytes: &[u8; LINE_BYTES]) -> Self {
        let mut id = [0; 32];
        id.copy_from_slice(&bytes[..32]);
        let word = |at: usize| {
            let mut word = [0; 4];
            word.copy_from_slice(&bytes[at..at + 4]);
            u32::from_le_bytes(word)
        };
        let long = |at: usize| u64::from(word(at)) | u64::from(word(at + 4)) << 32;
        let kind = match word(32) & RECIPE_BIT {
            0 => Kind::Bytes,
            _ => Kind::Recipe,
        };
        Self {
            header: Header {
                id: BlobId::from_bytes(id),
                kind,
                len: word(36),
                written_at: Timestamp::from_millis(long(40).cast_signed()),
            },
            at: u64::from(word(32) & !RECIPE_BIT),
            content_bytes: long(48),
        }
    }
}

/// A pack that is put together.
#[derive(Default)]
pub(super) struct Packing {
    bytes: Vec<u8>,
    lines: Vec<Line>,
}

/// One that is ready.
pub(super) struct Packed {
    /// All of the object.
    pub(super) bytes: Bytes,
    /// How many of these are records.
    pub(super) body_bytes: u64,
    pub(super) lines: Vec<Line>,
}

impl Packed {
    /// The records.
    pub(super) fn body(&self) -> Bytes {
        // It is a part of what is in memory.
        self.bytes.slice(..self.body_bytes as usize)
    }

    /// The lines and the tail.
    pub(super) fn end(&self) -> Bytes {
        self.bytes.slice(self.body_bytes as usize..)
    }
}

impl Packing {
    pub(super) fn len(&self) -> u64 {
        self.bytes.len() as u64
    }

    /// Adds a record; gives where it begins.
    pub(super) fn push(&mut self, header: Header, bytes: &[u8]) -> u64 {
        let at = self.len();
        let content_bytes = match (header.kind, bytes.first_chunk::<8>()) {
            (Kind::Recipe, Some(content)) => u64::from_le_bytes(*content),
            _ => u64::from(header.len),
        };
        self.lines.push(Line {
            header,
            at,
            content_bytes,
        });
        self.bytes.extend_from_slice(&header.to_bytes());
        self.bytes.extend_from_slice(bytes);
        at
    }

    pub(super) fn finish(mut self) -> Packed {
        let body_bytes = self.len();
        let end = end_of(&self.lines, body_bytes);
        self.bytes.extend_from_slice(&end);
        Packed {
            bytes: self.bytes.into(),
            body_bytes,
            lines: self.lines,
        }
    }
}

/// The lines and the tail of a pack.
pub(super) fn end_of(lines: &[Line], body_bytes: u64) -> Vec<u8> {
    let mut end = Vec::with_capacity(lines.len() * LINE_BYTES + TAIL_BYTES);
    for line in lines {
        end.extend_from_slice(&line.to_bytes());
    }
    end.extend_from_slice(&MAGIC);
    // A pack has fewer.
    end.extend_from_slice(&(lines.len() as u32).to_le_bytes());
    end.extend_from_slice(&body_bytes.to_le_bytes());
    let check = blake3::hash(&end);
    end.extend_from_slice(check.as_bytes());
    end
}

/// How long lines and tail are together, by the tail; `None` when it is none.
pub(super) fn end_bytes(tail: &[u8]) -> Option<u64> {
    let (_, tail) = tail.split_at_checked(tail.len().checked_sub(TAIL_BYTES)?)?;
    let (magic, rest) = tail.split_first_chunk::<4>()?;
    let (count, _) = rest.split_first_chunk::<4>()?;
    let lines = u64::from(u32::from_le_bytes(*count));
    (*magic == MAGIC).then_some(lines * LINE_BYTES as u64 + TAIL_BYTES as u64)
}

/// What the end of a pack says: its lines and the length of its records; `None` when it
/// is damaged.
pub(super) fn parse_end(end: &[u8]) -> Option<(Vec<Line>, u64)> {
    if end_bytes(end)? != end.len() as u64 {
        return None;
    }
    let (said, check) = end.split_at_checked(end.len() - 32)?;
    if *blake3::hash(said).as_bytes() != *check {
        return None;
    }
    let (rest, body_bytes) = said.split_last_chunk::<8>()?;
    let (lines, _) = rest.as_chunks::<LINE_BYTES>();
    Some((
        lines.iter().map(Line::parse).collect(),
        u64::from_le_bytes(*body_bytes),
    ))
}

/// Which records of a pack are deleted: where they begin, and a hash over all of it.
pub(super) fn write_dead(offsets: &[u32]) -> Bytes {
    let mut bytes: Vec<u8> = offsets.iter().flat_map(|at| at.to_le_bytes()).collect();
    let check = blake3::hash(&bytes);
    bytes.extend_from_slice(check.as_bytes());
    bytes.into()
}

/// `None` when it is damaged.
pub(super) fn parse_dead(bytes: &[u8]) -> Option<Vec<u32>> {
    let (offsets, check) = bytes.split_at_checked(bytes.len().checked_sub(32)?)?;
    let (words, _) = offsets.as_chunks::<4>();
    let is_whole = *blake3::hash(offsets).as_bytes() == *check;
    is_whole.then(|| words.iter().map(|word| u32::from_le_bytes(*word)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packed() -> Packed {
        let mut packing = Packing::default();
        for number in 0..5_u8 {
            let bytes = vec![number; 10 * usize::from(number)];
            let header = Header {
                id: super::super::super::hash(&bytes),
                kind: Kind::Bytes,
                len: bytes.len() as u32,
                written_at: Timestamp::from_millis(-7 + i64::from(number)),
            };
            packing.push(header, &bytes);
        }
        packing.finish()
    }

    #[test]
    fn the_end_says_what_is_in_it() {
        let packed = packed();
        let end = packed.end();
        assert_eq!(end_bytes(&packed.bytes), Some(end.len() as u64));
        let (lines, body_bytes) = parse_end(&end).unwrap();
        assert_eq!((&lines, body_bytes), (&packed.lines, packed.body_bytes));
        for at in 0..end.len() {
            let mut wrong = end.to_vec();
            wrong[at] ^= 1;
            assert_eq!(parse_end(&wrong), None, "byte {at}");
            assert_eq!(parse_end(&end[at + 1..]), None, "from {at}");
        }
    }

    #[test]
    fn names_are_read_as_they_are_written() {
        let name = Name::new(77, Kind::Recipe, 0xABC);
        assert_eq!(name.to_string(), "000000004d-r-0000000000000abc");
        assert_eq!(name.to_string().parse(), Ok(name));
        assert_eq!(name.kind(), Kind::Recipe);
        for wrong in ["", "x", "4d-r-abc", "000000004d-x-0000000000000abc"] {
            assert_eq!(wrong.parse::<Name>(), Err(()));
        }
        assert!(Name::new(9, Kind::Recipe, 9) < Name::new(10, Kind::Bytes, 0));
    }

    #[test]
    fn what_is_deleted_is_read_whole_or_not() {
        let dead = write_dead(&[0, 7, 90_000]);
        assert_eq!(parse_dead(&dead), Some(vec![0, 7, 90_000]));
        assert_eq!(parse_dead(&dead[1..]), None);
        assert_eq!(parse_dead(&[]), None);
    }
}
