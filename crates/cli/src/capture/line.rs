//! A line of what is remembered of a folder, as bytes: what it does not share with the one
//! before.

use super::inspect::{Found, Kind, Stamp};

/// How a folder that is entered is written down; files, folders and links are 0, 1 and 2.
const ENTERED: u8 = 3;
const KIND: u8 = 0x0f;

/// It was read this time: it is looked at again in the end.
const WAS_READ: u8 = 0x10;

/// It had just been changed when it was read: the next change may look the same.
const IS_FRESH: u8 = 0x20;

/// What is remembered of a line.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Known {
    pub(super) path: String,
    flags: u8,
    pub(super) mode: u32,
    pub(super) size_bytes: u64,
    pub(super) stamp: Stamp,
    pub(super) hash: [u8; 32],
    pub(super) target: String,
}

impl Known {
    /// Whether it may be believed when nothing seems to have changed.
    pub(super) fn is_settled(&self) -> bool {
        self.flags & IS_FRESH == 0
    }

    /// Whether it was read by who wrote this.
    pub(super) fn was_read(&self) -> bool {
        self.flags & WAS_READ != 0
    }

    pub(super) fn is_entered(&self) -> bool {
        self.flags & KIND == ENTERED
    }

    pub(super) fn is(&self, kind: &Kind) -> bool {
        self.flags & KIND == code(kind)
    }
}

fn code(kind: &Kind) -> u8 {
    match kind {
        Kind::File => 0,
        Kind::Folder => 1,
        Kind::Link(_) => 2,
    }
}

/// Reads what [`write_line`] wrote, where `known` is the line before.
pub(super) fn read_line(rest: &mut &[u8], known: &mut Known) -> Option<()> {
    known.flags = *take::<1>(rest)?.first()?;
    let shared = usize::try_from(number(rest)?).ok()?;
    let length = usize::try_from(number(rest)?).ok()?;
    let tail = std::str::from_utf8(slice(rest, length)?).ok()?;
    if !known.path.is_char_boundary(shared) {
        return None;
    }
    known.path.truncate(shared);
    known.path.push_str(tail);
    known.mode = u32::try_from(number(rest)?).ok()?;
    let before = known.stamp;
    let modified_ns = before.modified_ns.wrapping_add(signed(rest)?);
    known.stamp = Stamp {
        modified_ns,
        changed_ns: modified_ns.wrapping_add(signed(rest)?),
        inode: before.inode.wrapping_add_signed(signed(rest)?),
    };
    (known.size_bytes, known.hash) = (0, [0; 32]);
    known.target.clear();
    match known.flags & KIND {
        0 => {
            known.size_bytes = number(rest)?;
            known.hash = take(rest)?;
        }
        2 => {
            let length = usize::try_from(number(rest)?).ok()?;
            let target = std::str::from_utf8(slice(rest, length)?).ok()?;
            known.target.push_str(target);
        }
        _ => {}
    }
    Some(())
}

fn slice<'a>(rest: &mut &'a [u8], length: usize) -> Option<&'a [u8]> {
    let (head, tail) = rest.split_at_checked(length)?;
    *rest = tail;
    Some(head)
}

fn take<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    let (head, tail) = rest.split_first_chunk::<N>()?;
    *rest = tail;
    Some(*head)
}

fn number(rest: &mut &[u8]) -> Option<u64> {
    let mut number = 0_u64;
    for shift in (0..64).step_by(7) {
        let (&byte, tail) = rest.split_first()?;
        *rest = tail;
        number |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some(number);
        }
    }
    None
}

fn signed(rest: &mut &[u8]) -> Option<i64> {
    let number = number(rest)?;
    Some((number >> 1).cast_signed() ^ -(number & 1).cast_signed())
}

/// What is written down of a block.
#[derive(Clone, Copy)]
pub(super) enum Line<'a> {
    Entered(&'a str, Stamp),
    Found {
        found: &'a Found,
        hash: [u8; 32],
        was_read: bool,
    },
}

/// Writes a line behind the one before.
pub(super) fn write_line<'a>(
    out: &mut Vec<u8>,
    (before, earlier): (&str, Stamp),
    line: Line<'a>,
    settled: i64,
) -> (&'a str, Stamp) {
    let (path, stamp, mode, mut flags) = match &line {
        Line::Entered(path, stamp) => (*path, *stamp, 0, ENTERED),
        Line::Found { found, .. } => (
            found.path.as_str(),
            found.stamp,
            found.mode,
            code(&found.kind),
        ),
    };
    if matches!(line, Line::Found { was_read: true, .. }) {
        flags |= WAS_READ;
    }
    if stamp.modified_ns >= settled || stamp.changed_ns >= settled {
        flags |= IS_FRESH;
    }
    out.push(flags);
    let mut shared = before
        .bytes()
        .zip(path.bytes())
        .take_while(|(a, b)| a == b)
        .count();
    while !path.is_char_boundary(shared) {
        shared -= 1;
    }
    let tail = path.get(shared..).unwrap_or_default();
    put_number(out, shared as u64);
    put_number(out, tail.len() as u64);
    out.extend_from_slice(tail.as_bytes());
    put_number(out, mode.into());
    put_signed(out, stamp.modified_ns.wrapping_sub(earlier.modified_ns));
    put_signed(out, stamp.changed_ns.wrapping_sub(stamp.modified_ns));
    put_signed(out, stamp.inode.wrapping_sub(earlier.inode).cast_signed());
    if let Line::Found { found, hash, .. } = &line {
        match &found.kind {
            Kind::File => {
                put_number(out, found.size_bytes);
                out.extend_from_slice(hash);
            }
            Kind::Link(target) => {
                put_number(out, target.len() as u64);
                out.extend_from_slice(target.as_bytes());
            }
            Kind::Folder => {}
        }
    }
    (path, stamp)
}

fn put_number(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push((number & 0x7f) as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

fn put_signed(out: &mut Vec<u8>, number: i64) {
    put_number(out, ((number << 1) ^ (number >> 63)).cast_unsigned());
}
