//! Files that are packed without their holes.
//!
//! There are four ways: one of GNU tar's own format, and three that it wrote into the PAX format
//! over the years, of which the last has the list in front of the bytes.  All of them come to a
//! [`Map`] here, which is believed only if it fits the bytes that are there: what is wrong by one
//! piece has the right name and the wrong bytes, and nobody would see it.

use std::io::{self, Read};

use super::head::BLOCK_BYTES;
use super::records::{damaged, decimal, not_taken};

/// Pieces between the holes of one file.  Higher: one file takes that much memory, 16 bytes for
/// each; lower: files with very many holes have to be sent as a folder.
pub(super) const REGIONS_MAX: usize = 1 << 20;

pub(super) const TOO_MANY: &str = "it has more than 1048576 pieces between holes";

/// Digits of a number in front of the bytes.
const DIGITS_MAX: usize = 20;

/// What the attributes of a file say of its holes.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Told {
    pub(super) name: Option<Vec<u8>>,
    pub(super) major: u64,
    pub(super) minor: u64,
    /// Of the file with its holes.
    pub(super) size: Option<u64>,
    /// How many pieces there are, of which `offset` is where the next one lies.
    pub(super) count: Option<u64>,
    pub(super) offset: Option<u64>,
    pub(super) pieces: Option<Vec<(u64, u64)>>,
}

impl Told {
    /// The map of a file of whose bytes `packed` are there; where it stands in front of them, it
    /// is read.
    pub(super) fn map(self, packed: u64, mut bytes: impl Read) -> io::Result<Map> {
        let unknown = || damaged("it does not say how long it is");
        let size = self.size.ok_or_else(unknown)?;
        match (self.major, self.minor, self.pieces) {
            (0, 0 | 1, Some(pieces)) => {
                let is_whole = self.count.is_none_or(|count| count == pieces.len() as u64);
                if !is_whole || self.offset.is_some() {
                    return Err(damaged("it has more or fewer pieces than it says"));
                }
                Map::new(pieces, size, packed)
            }
            (1, 0, None) if self.offset.is_none() => {
                let (pieces, taken) = in_front(&mut bytes, packed)?;
                Map::new(pieces, size, packed - taken)
            }
            (0, 0 | 1, None) | (1, 0, _) => Err(damaged("it does not say where its holes are")),
            _ => Err(not_taken(
                "its holes are told of in a way that is not known",
            )),
        }
    }
}

/// The list that stands in front of the bytes: how many pieces there are, and of each where it
/// lies and how long it is, each in a line; and how many bytes all of that took.
fn in_front(bytes: &mut impl Read, packed: u64) -> io::Result<(Vec<(u64, u64)>, u64)> {
    let mut lines = Lines {
        bytes,
        left: packed,
        block: [0; BLOCK_BYTES],
        at: BLOCK_BYTES,
    };
    let count = lines.next()?;
    if count > REGIONS_MAX as u64 {
        return Err(not_taken(TOO_MANY));
    }
    let mut pieces = Vec::new();
    for _ in 0..count {
        pieces.push((lines.next()?, lines.next()?));
    }
    Ok((pieces, packed - lines.left))
}

/// The numbers in the blocks in front of the bytes.
struct Lines<'a, R> {
    bytes: &'a mut R,
    left: u64,
    block: [u8; BLOCK_BYTES],
    at: usize,
}

impl<R: Read> Lines<'_, R> {
    fn next(&mut self) -> io::Result<u64> {
        let mut digits = Vec::with_capacity(DIGITS_MAX);
        loop {
            match self.byte()? {
                b'\n' if !digits.is_empty() => break,
                digit @ b'0'..=b'9' if digits.len() < DIGITS_MAX => digits.push(digit),
                _ => return Err(damaged("the list of its pieces has something else in it")),
            }
        }
        decimal(&digits).ok_or_else(|| damaged("what it says of its holes is no number"))
    }

    fn byte(&mut self) -> io::Result<u8> {
        if self.at == BLOCK_BYTES {
            let left = self.left.checked_sub(BLOCK_BYTES as u64);
            let cut = || damaged("the list of its pieces has no end");
            self.left = left.ok_or_else(cut)?;
            self.bytes.read_exact(&mut self.block)?;
            self.at = 0;
        }
        self.at += 1;
        Ok(self.block[self.at - 1])
    }
}

/// Where the bytes that are there belong.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Map {
    /// From where on, and how many; in order, and none is empty.
    pieces: Vec<(u64, u64)>,
    /// Of the file with its holes.
    pub(super) size: u64,
}

impl Map {
    /// Takes one that fits a file of `size` bytes, of which `packed` are there.
    ///
    /// Programs disagree on whether a piece begins with a block, and never differ because all
    /// pieces but the last are of whole blocks; so those that are not are refused.  Nor do they
    /// agree on how long a file is that ends with a hole which is not told of by an empty piece.
    pub(super) fn new(pieces: Vec<(u64, u64)>, size: u64, packed: u64) -> io::Result<Self> {
        let (mut end, mut sum) = (0, 0_u64);
        let mut kept = Vec::with_capacity(pieces.len());
        for (at, length) in pieces {
            let next = at.checked_add(length).filter(|next| *next <= size);
            let next = next.ok_or_else(|| damaged("a piece of it lies behind its end"))?;
            if at < end {
                return Err(damaged("two pieces of it lie in the same place"));
            }
            end = next;
            if length == 0 {
                continue;
            }
            if !sum.is_multiple_of(BLOCK_BYTES as u64) {
                return Err(damaged("a piece of it ends within a block"));
            }
            kept.push((at, length));
            sum += length;
        }
        if sum != packed {
            return Err(damaged("its pieces are more or fewer bytes than there are"));
        }
        if end != size {
            return Err(damaged("its last piece ends elsewhere than it does"));
        }
        Ok(Self { pieces: kept, size })
    }

    /// The whole file.
    pub(super) fn whole<R: Read>(self, bytes: R) -> Whole<R> {
        Whole {
            bytes,
            pieces: self.pieces.into_iter(),
            piece: (0, 0),
            at: 0,
            size: self.size,
        }
    }
}

/// A file with its holes.
pub(super) struct Whole<R> {
    bytes: R,
    pieces: std::vec::IntoIter<(u64, u64)>,
    /// What is left of the piece that comes next.
    piece: (u64, u64),
    at: u64,
    size: u64,
}

impl<R: Read> Read for Whole<R> {
    /// Fills the buffer, that many small holes are not many small reads.
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut filled = 0;
        while filled < buffer.len() && self.at < self.size {
            if self.piece.1 == 0 {
                self.piece = self.pieces.next().unwrap_or((self.size, 0));
            }
            let rest = &mut buffer[filled..];
            let most = |bytes: u64| usize::try_from(bytes).unwrap_or(usize::MAX).min(rest.len());
            let (begin, length) = self.piece;
            let done = if self.at < begin {
                let done = most(begin - self.at);
                rest[..done].fill(0);
                done
            } else {
                let done = most(length);
                self.bytes.read_exact(&mut rest[..done])?;
                self.piece = (begin + done as u64, length - done as u64);
                done
            };
            self.at += done as u64;
            filled += done;
        }
        Ok(filled)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whole(pieces: &[(u64, u64)], size: u64, bytes: &[u8]) -> io::Result<Vec<u8>> {
        let map = Map::new(pieces.to_vec(), size, bytes.len() as u64)?;
        let mut file = Vec::new();
        map.whole(bytes).read_to_end(&mut file)?;
        Ok(file)
    }

    #[test]
    fn holes_are_zeros() {
        let x = [b'x'; 513];
        let zeros = |count| vec![0; count];
        for (pieces, size, bytes, expected) in [
            (&[(3, 0)][..], 3, &x[..0], zeros(3)),
            (&[], 0, &x[..0], zeros(0)),
            (
                &[(2, 3), (9, 0)],
                9,
                &x[..3],
                [zeros(2), x[..3].to_vec(), zeros(4)].concat(),
            ),
            (
                &[(0, 512), (700, 0), (1_000, 1)],
                1_001,
                &x[..],
                [x[..512].to_vec(), zeros(488), x[..1].to_vec()].concat(),
            ),
        ] {
            assert_eq!(whole(pieces, size, bytes).expect("whole"), expected);
        }
    }

    #[test]
    fn a_map_that_does_not_fit_is_refused() {
        let bytes = [b'x'; 1_024];
        for (pieces, size, expected) in [
            (&[][..], 4_096, "more or fewer bytes"),
            (&[(0, 1_024)], 4_096, "ends elsewhere"),
            (&[(0, 1_024), (4_095, 0)], 4_096, "ends elsewhere"),
            (&[(0, 1_024), (1_000, 0)], 4_096, "same place"),
            (&[(0, 512)], 4_096, "more or fewer bytes"),
            (&[(0, 512), (512, 513)], 4_096, "more or fewer bytes"),
            (&[(0, 1), (512, 1_023)], 4_096, "within a block"),
            (&[(0, 512), (511, 512)], 4_096, "same place"),
            (&[(512, 512), (0, 512)], 4_096, "same place"),
            (&[(0, 1_024)], 1_023, "behind its end"),
            (&[(0, 1_024), (5_000, 0)], 4_096, "behind its end"),
            (&[(u64::MAX, 1_024)], 4_096, "behind its end"),
        ] {
            let refused = whole(pieces, size, &bytes).expect_err(expected);
            assert!(refused.to_string().contains(expected), "{refused}");
        }
    }
}
