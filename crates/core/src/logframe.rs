//! How log bytes are framed, on the wire and on disk.
//!
//! A log is a string of frames; a frame is a header of 16 bytes and a payload:
//! the bytes that a process wrote in one go, with the time and the stream they
//! came from.  The runner makes frames, the store keeps the bytes as they are
//! and cuts them anywhere, readers decode them.
//!
//! ```text
//! 0        8      12       13      14      16
//! │ at_ms  │ len  │ source │ flags │ check │ payload …
//! │ i64 LE │ u32  │ u8     │ u8    │ u16   │
//! ```
//!
//! `check` is a CRC of the 14 bytes before it.  It tells a header from payload, so
//! that a reader finds its way again after damaged bytes.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Length of a frame's header in bytes.
pub const HEADER_BYTES: usize = 16;

/// Most payload of one frame, in bytes: what a pipe holds.
/// Higher: readers need larger buffers and find frame boundaries more rarely.
/// Lower: busy logs spend more on headers.
pub const PAYLOAD_BYTES_MAX: usize = 64 * 1024;

/// Where log bytes came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    /// The process's standard output.
    Stdout,
    /// The process's standard error.
    Stderr,
    /// A message of the platform itself, between the lines of the process.
    Platform,
}

impl Source {
    /// Every source, in the order of their codes.
    pub const ALL: [Self; 3] = [Self::Stdout, Self::Stderr, Self::Platform];

    /// The number that stands for this source in a header.
    pub const fn code(self) -> u8 {
        match self {
            Self::Stdout => 0,
            Self::Stderr => 1,
            Self::Platform => 2,
        }
    }

    /// The source that a number in a header stands for.
    pub const fn from_code(code: u8) -> Option<Self> {
        match code {
            0 => Some(Self::Stdout),
            1 => Some(Self::Stderr),
            2 => Some(Self::Platform),
            _ => None,
        }
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Stdout => "stdout",
            Self::Stderr => "stderr",
            Self::Platform => "platform",
        })
    }
}

/// What stands before a frame's payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// When the bytes were read from the process, in milliseconds since 1970.
    pub at_ms: i64,
    /// Length of the payload in bytes.
    pub len: u32,
    /// Where the bytes came from.
    pub source: Source,
    /// Reserved: written as 0, ignored when read.
    pub flags: u8,
}

impl Header {
    /// The 16 bytes of this header.
    pub fn to_bytes(self) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        bytes[0..8].copy_from_slice(&self.at_ms.to_le_bytes());
        bytes[8..12].copy_from_slice(&self.len.to_le_bytes());
        bytes[12] = self.source.code();
        bytes[13] = self.flags;
        let check = crc16(&bytes[..14]);
        bytes[14..16].copy_from_slice(&check.to_le_bytes());
        bytes
    }

    /// Reads a header, or says that these bytes are none.
    pub fn parse(bytes: &[u8; HEADER_BYTES]) -> Option<Self> {
        let [
            a,
            b,
            c,
            d,
            e,
            f,
            g,
            h,
            l0,
            l1,
            l2,
            l3,
            source,
            flags,
            c0,
            c1,
        ] = *bytes;
        let len = u32::from_le_bytes([l0, l1, l2, l3]);
        // The cheap tests come first: whoever looks for a header in damaged bytes
        // asks this once per byte.
        let source = Source::from_code(source)?;
        if len as usize > PAYLOAD_BYTES_MAX || u16::from_le_bytes([c0, c1]) != crc16(&bytes[..14]) {
            return None;
        }
        Some(Self {
            at_ms: i64::from_le_bytes([a, b, c, d, e, f, g, h]),
            len,
            source,
            flags,
        })
    }
}

/// Appends `payload` to `out` as frames: one, or more when it is longer than
/// [`PAYLOAD_BYTES_MAX`], or none when it is empty.
pub fn encode(out: &mut Vec<u8>, at_ms: i64, source: Source, payload: &[u8]) {
    out.reserve(encoded_len(payload.len()));
    for part in payload.chunks(PAYLOAD_BYTES_MAX) {
        let header = Header {
            at_ms,
            // A part is no longer than PAYLOAD_BYTES_MAX, which fits.
            len: part.len() as u32,
            source,
            flags: 0,
        };
        out.extend_from_slice(&header.to_bytes());
        out.extend_from_slice(part);
    }
}

/// How many bytes [`encode`] appends for a payload of this length.
pub const fn encoded_len(payload_len: usize) -> usize {
    payload_len + payload_len.div_ceil(PAYLOAD_BYTES_MAX) * HEADER_BYTES
}

/// Takes the first frame off `bytes`, which must begin at a frame's boundary.
pub fn decode(bytes: &[u8]) -> Result<(Header, &[u8], &[u8]), DecodeError> {
    let (head, rest) = bytes
        .split_first_chunk::<HEADER_BYTES>()
        .ok_or(DecodeError::Incomplete)?;
    let header = Header::parse(head).ok_or(DecodeError::Damaged)?;
    let (payload, rest) = rest
        .split_at_checked(header.len as usize)
        .ok_or(DecodeError::Incomplete)?;
    Ok((header, payload, rest))
}

/// Why bytes do not begin with a whole frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// More bytes are needed.
    #[error("the frame is not complete yet")]
    Incomplete,
    /// These bytes are no header.
    #[error("no log frame begins here: the bytes are damaged, or do not start at a frame")]
    Damaged,
}

const CRC_TABLE: [u16; 256] = crc_table();

/// CRC-16/CCITT (polynomial 0x1021, start 0xFFFF).  The start value keeps a run of
/// zero bytes, which a crash may leave behind, from being a valid header.
fn crc16(bytes: &[u8]) -> u16 {
    bytes.iter().fold(0xFFFF, |crc: u16, byte| {
        (crc << 8) ^ CRC_TABLE[usize::from((crc >> 8) as u8 ^ byte)]
    })
}

const fn crc_table() -> [u16; 256] {
    let mut table = [0; 256];
    let mut index = 0;
    while index < 256 {
        let mut crc = (index as u16) << 8;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 0x8000 == 0 {
                crc << 1
            } else {
                (crc << 1) ^ 0x1021
            };
            bit += 1;
        }
        table[index] = crc;
        index += 1;
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_check_is_the_well_known_crc() {
        assert_eq!(crc16(b"123456789"), 0x29B1);
    }

    #[test]
    fn zeros_are_no_header() {
        assert_eq!(Header::parse(&[0; HEADER_BYTES]), None);
    }

    #[test]
    fn any_flipped_bit_of_a_header_is_noticed() {
        let bytes = Header {
            at_ms: 1_700_000_000_123,
            len: 77,
            source: Source::Stderr,
            flags: 0,
        }
        .to_bytes();
        for bit in 0..HEADER_BYTES * 8 {
            let mut damaged = bytes;
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(Header::parse(&damaged), None, "bit {bit}");
        }
    }

    proptest! {
        #[test]
        fn frames_decode_to_what_was_encoded(
            at_ms in any::<i64>(),
            code in 0..3_u8,
            len in prop_oneof![0..200_usize, PAYLOAD_BYTES_MAX - 2..PAYLOAD_BYTES_MAX + 3, 200_000..200_010_usize],
        ) {
            let source = Source::from_code(code).unwrap();
            let payload: Vec<u8> = (0..len).map(|i| i as u8).collect();
            let mut bytes = Vec::new();
            encode(&mut bytes, at_ms, source, &payload);
            prop_assert_eq!(bytes.len(), encoded_len(len));

            let mut rest = &bytes[..];
            let mut seen = Vec::new();
            while !rest.is_empty() {
                prop_assert_eq!(decode(&rest[..HEADER_BYTES - 1]), Err(DecodeError::Incomplete));
                let (header, part, after) = decode(rest).unwrap();
                prop_assert_eq!((header.at_ms, header.source), (at_ms, source));
                seen.extend_from_slice(part);
                rest = after;
            }
            prop_assert_eq!(seen, payload);
        }
    }
}
