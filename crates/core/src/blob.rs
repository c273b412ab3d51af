//! The name of stored bytes: the BLAKE3-256 hash of their content.
//!
//! Only the name lives here.  Hashing belongs to those who hold the bytes (the
//! store and the runner), so that this crate stays free of that dependency.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Length of a blob id in bytes, and half its length in text.
pub const BLOB_ID_BYTES: usize = 32;

/// The content address of a blob, shown as 64 lower-case hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BlobId([u8; BLOB_ID_BYTES]);

impl BlobId {
    /// Makes an id of the 32 bytes of a BLAKE3 hash.
    pub const fn from_bytes(bytes: [u8; BLOB_ID_BYTES]) -> Self {
        Self(bytes)
    }

    /// The 32 bytes of the hash.
    pub const fn as_bytes(&self) -> &[u8; BLOB_ID_BYTES] {
        &self.0
    }
}

/// Why a text is not a blob id.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("'{text}' is not a blob id: expected 64 lower-case hexadecimal digits")]
pub struct BlobIdError {
    text: String,
}

/// Longest piece of a wrong text that an error repeats, in characters.
/// Longer: somebody's megabyte of nonsense fills the log.  Shorter: people
/// cannot see what they typed.
const QUOTED_CHARS_MAX: usize = 80;

impl FromStr for BlobId {
    type Err = BlobIdError;

    fn from_str(text: &str) -> Result<Self, BlobIdError> {
        parse(text.as_bytes()).map(Self).ok_or_else(|| BlobIdError {
            text: text.chars().take(QUOTED_CHARS_MAX).collect(),
        })
    }
}

fn parse(text: &[u8]) -> Option<[u8; BLOB_ID_BYTES]> {
    let mut bytes = [0; BLOB_ID_BYTES];
    let (pairs, rest) = text.as_chunks::<2>();
    if pairs.len() != BLOB_ID_BYTES || !rest.is_empty() {
        return None;
    }
    for (byte, [high, low]) in bytes.iter_mut().zip(pairs) {
        *byte = digit(*high)? << 4 | digit(*low)?;
    }
    Some(bytes)
}

/// Upper case is refused: one blob has one name, also as a file name.
fn digit(character: u8) -> Option<u8> {
    match character {
        b'0'..=b'9' => Some(character - b'0'),
        b'a'..=b'f' => Some(character - b'a' + 10),
        _ => None,
    }
}

impl fmt::Display for BlobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let mut text = [0; 2 * BLOB_ID_BYTES];
        for (pair, byte) in text.as_chunks_mut::<2>().0.iter_mut().zip(self.0) {
            *pair = [
                DIGITS[usize::from(byte >> 4)],
                DIGITS[usize::from(byte & 15)],
            ];
        }
        f.pad(std::str::from_utf8(&text).map_err(|_| fmt::Error)?)
    }
}

impl fmt::Debug for BlobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BlobId({self})")
    }
}

impl Serialize for BlobId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for BlobId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn text_and_json_return_the_same_id(bytes in any::<[u8; 32]>()) {
            let id = BlobId::from_bytes(bytes);
            prop_assert_eq!(id.to_string().parse::<BlobId>(), Ok(id));
            let json = serde_json::to_string(&id).unwrap();
            prop_assert_eq!(json.len(), 66);
            prop_assert_eq!(serde_json::from_str::<BlobId>(&json).unwrap(), id);
        }
    }

    #[test]
    fn only_64_lower_case_digits_are_an_id() {
        let good = "0123456789abcdef".repeat(4);
        assert_eq!(good.parse::<BlobId>().unwrap().to_string(), good);
        for bad in [
            "",
            "abc",
            &good[1..],
            &format!("{good}0"),
            &good.to_uppercase(),
            &good.replace('0', "g"),
            &good.replace("01", "é"),
        ] {
            assert!(bad.parse::<BlobId>().is_err(), "{bad}");
        }
        let long = "x".repeat(1 << 20).parse::<BlobId>().unwrap_err();
        assert!(long.to_string().len() < 200);
    }
}
