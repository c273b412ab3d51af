//! The block that stands in front of each entry of a tar.

use std::ops::Range;

/// What a tar is made of.
pub(super) const BLOCK_BYTES: usize = 512;

const NAME: Range<usize> = 0..100;
const MODE: Range<usize> = 100..108;
const SIZE: Range<usize> = 124..136;
const MODIFIED: Range<usize> = 136..148;
const SUM: Range<usize> = 148..156;
const KIND: usize = 156;
const TARGET: Range<usize> = 157..257;
const MARK: Range<usize> = 257..265;
const PREFIX: Range<usize> = 345..500;

/// Where GNU tar says which pieces of a file there are, in the first block and in those that
/// follow it: the pieces, how many, and whether yet another block follows.
const PIECES: (usize, usize, usize) = (386, 4, 482);
const MORE_PIECES: (usize, usize, usize) = (0, 21, 504);
const PIECE_BYTES: usize = 24;
const NUMBER_BYTES: usize = 12;
const REAL_SIZE: Range<usize> = 483..495;

/// One block.
pub(super) struct Block(pub(super) [u8; BLOCK_BYTES]);

impl Block {
    /// Whether it is what stands at the end.
    pub(super) fn is_zero(&self) -> bool {
        self.0.iter().all(|byte| *byte == 0)
    }

    /// Whether its bytes add up to what it says.  Some old programs took them for signed.
    pub(super) fn adds_up(&self) -> bool {
        let byte = |at: usize| if SUM.contains(&at) { b' ' } else { self.0[at] };
        let unsigned: i128 = (0..BLOCK_BYTES).map(|at| i128::from(byte(at))).sum();
        let signed: i128 = (0..BLOCK_BYTES)
            .map(|at| i128::from(byte(at).cast_signed()))
            .sum();
        let said = number(&self.0[SUM]);
        said == Some(unsigned) || said == Some(signed)
    }

    /// What kind of entry it is of.
    pub(super) fn kind(&self) -> u8 {
        self.0[KIND]
    }

    /// Its name, which has two halves in the format that is a standard.
    pub(super) fn name(&self) -> Vec<u8> {
        let name = text(&self.0[NAME]);
        let is_standard = self.0[MARK].starts_with(b"ustar\0");
        match text(&self.0[PREFIX]) {
            prefix if is_standard && !prefix.is_empty() => [prefix, b"/", name].concat(),
            _ => name.to_vec(),
        }
    }

    /// Where a link points.
    pub(super) fn target(&self) -> Vec<u8> {
        text(&self.0[TARGET]).to_vec()
    }

    /// Bytes that follow; `None` if that is no number.
    pub(super) fn size(&self) -> Option<u64> {
        size(&self.0[SIZE])
    }

    pub(super) fn mode(&self) -> u32 {
        let mode = number(&self.0[MODE]).and_then(|mode| u32::try_from(mode).ok());
        mode.unwrap_or(0o644) & 0o777
    }

    /// In milliseconds; what is no number, or no time that can be kept, is near to it.
    pub(super) fn modified_ms(&self) -> i64 {
        let seconds = number(&self.0[MODIFIED]).unwrap_or_default();
        bounded(seconds.saturating_mul(1_000))
    }

    /// Whether GNU tar made it.
    pub(super) fn is_gnu(&self) -> bool {
        self.0[MARK] == *b"ustar  \0"
    }

    /// The pieces that it lists, from where on and how long, and whether another block of them
    /// follows; of the first block, or of one of those.
    pub(super) fn pieces(&self, is_first: bool) -> Option<(Vec<(u64, u64)>, bool)> {
        let (at, most, more) = if is_first { PIECES } else { MORE_PIECES };
        let listed = self.0[at..at + most * PIECE_BYTES].chunks_exact(PIECE_BYTES);
        let listed = listed.take_while(|piece| piece[0] != 0 && piece[NUMBER_BYTES] != 0);
        let pieces = listed.map(|piece| {
            let (at, length) = piece.split_at(NUMBER_BYTES);
            Some((size(at)?, size(length)?))
        });
        Some((pieces.collect::<Option<_>>()?, self.0[more] != 0))
    }

    /// Bytes of the whole file of which those are pieces.
    pub(super) fn real_size(&self) -> Option<u64> {
        size(&self.0[REAL_SIZE])
    }
}

/// Milliseconds as they are kept.
pub(super) fn bounded(ms: i128) -> i64 {
    let ends = (i128::from(i64::MIN), i128::from(i64::MAX));
    i64::try_from(ms.clamp(ends.0, ends.1)).unwrap_or_default()
}

/// What stands before the first zero.
pub(super) fn text(field: &[u8]) -> &[u8] {
    let end = field.iter().position(|byte| *byte == 0);
    &field[..end.unwrap_or(field.len())]
}

/// A number of bytes; none is written where there are none.
fn size(field: &[u8]) -> Option<u64> {
    if field.iter().all(|byte| matches!(byte, 0 | b' ')) {
        return Some(0);
    }
    let size = i64::try_from(number(field)?).ok()?;
    u64::try_from(size).ok()
}

/// A number: digits to the base of eight, or, where they have no room, bytes to the base of 256
/// of which the first has its highest bit set and the next one for the sign.
fn number(field: &[u8]) -> Option<i128> {
    let (&first, rest) = field.split_first()?;
    if first & 0x80 != 0 {
        let begin = i128::from(first & 0x3f) - i128::from(first & 0x40);
        return Some(rest.iter().fold(begin, |sum, byte| {
            sum.saturating_mul(256).saturating_add(i128::from(*byte))
        }));
    }
    // Where the field before ran over, a zero stands here.
    let field = if first == 0 { rest } else { field };
    let digits = std::str::from_utf8(text(field)).ok()?.trim_matches(' ');
    let is_digits = digits.bytes().all(|byte| byte.is_ascii_digit());
    i128::from_str_radix(digits, 8).ok().filter(|_| is_digits)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_as_programs_write_them() {
        for (field, expected) in [
            (&b"0000644\0"[..], Some(0o644)),
            (b"    644 ", Some(0o644)),
            (b"\x0000644 \0", Some(0o644)),
            (b"77777777777\0", Some(0o77_777_777_777)),
            (b"\x80\0\0\0\0\0\0\x02\0\0\0\0", Some(1 << 33)),
            (
                b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xfe",
                Some(-2),
            ),
            (
                b"\x80\0\0\0\x7f\xff\xff\xff\xff\xff\xff\xff",
                Some(i128::from(i64::MAX)),
            ),
            (b"99999999", None),
            (b"+0000644", None),
            (b"        ", None),
            (b"\0\0\0\0\0\0\0\0", None),
        ] {
            assert_eq!(number(field), expected, "{field:?}");
        }
        assert_eq!(size(b"        "), Some(0));
        assert_eq!(size(b"\xff\xff\xff\xff\xff\xff\xff\xff"), None);
        assert_eq!(size(b"\x80\0\0\0\x80\0\0\0\0\0\0\0"), None);
        assert_eq!(bounded(i128::MAX), i64::MAX);
        assert_eq!(bounded(i128::MIN), i64::MIN);
    }
}
