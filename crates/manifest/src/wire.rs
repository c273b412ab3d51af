//! Numbers and texts as bytes.

use std::cell::RefCell;

use grid_core::blob::{BLOB_ID_BYTES, BlobId};
use zstd::bulk::{Compressor, Decompressor};

use super::check::shared_bytes;
use super::{Error, PATH_BYTES_MAX};

/// Writes.
#[derive(Default)]
pub(super) struct Writer(pub(super) Vec<u8>);

impl Writer {
    /// Seven bits to a byte, the lowest first.
    pub(super) fn number(&mut self, mut number: u64) {
        while number >= 0x80 {
            self.0.push((number & 0x7f) as u8 | 0x80);
            number >>= 7;
        }
        self.0.push(number as u8);
    }

    /// Small ones stay small on both sides of zero.
    pub(super) fn signed(&mut self, number: i64) {
        self.number(((number << 1) ^ (number >> 63)).cast_unsigned());
    }

    pub(super) fn text(&mut self, text: &str) {
        self.number(text.len() as u64);
        self.0.extend_from_slice(text.as_bytes());
    }

    /// A path, as what it does not share with the one before.
    pub(super) fn path(&mut self, before: &str, path: &str) {
        let shared = shared_bytes(before, path);
        self.number(shared as u64);
        let rest = &path.as_bytes()[shared..];
        self.number(rest.len() as u64);
        self.0.extend_from_slice(rest);
    }

    pub(super) fn blob(&mut self, blob: &BlobId) {
        self.0.extend_from_slice(blob.as_bytes());
    }
}

/// Reads what was written.
#[derive(Default)]
pub(super) struct Reader<'a>(pub(super) &'a [u8]);

impl<'a> Reader<'a> {
    pub(super) fn is_over(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn take(&mut self, length: usize) -> Result<&'a [u8], Error> {
        let (head, tail) = self
            .0
            .split_at_checked(length)
            .ok_or(Error::Damaged("it ends too early"))?;
        self.0 = tail;
        Ok(head)
    }

    pub(super) fn number(&mut self) -> Result<u64, Error> {
        let mut number = 0_u64;
        for shift in (0..64).step_by(7) {
            let byte = self.take(1)?[0];
            number |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(number);
            }
        }
        Err(Error::Damaged("a number does not end"))
    }

    pub(super) fn size(&mut self) -> Result<usize, Error> {
        usize::try_from(self.number()?).map_err(|_| Error::Damaged("a number is too large"))
    }

    pub(super) fn signed(&mut self) -> Result<i64, Error> {
        let number = self.number()?;
        Ok((number >> 1).cast_signed() ^ -(number & 1).cast_signed())
    }

    pub(super) fn text(&mut self) -> Result<&'a str, Error> {
        let length = self.size()?;
        text(self.take(length)?)
    }

    pub(super) fn path(&mut self, before: &str) -> Result<String, Error> {
        let mut path = before.as_bytes().to_vec();
        self.path_into(&mut path)?;
        String::from_utf8(path).map_err(|_| NOT_UTF_8)
    }

    /// Reads a path in place of the one before.
    pub(super) fn path_into(&mut self, path: &mut Vec<u8>) -> Result<(), Error> {
        let shared = self.size()?;
        if shared > path.len() {
            return Err(Error::Damaged("a path shares more than there is"));
        }
        let length = self.size()?;
        let rest = self.take(length)?;
        // Few bytes that share much would otherwise become very many.
        if shared + rest.len() > PATH_BYTES_MAX {
            return Err(Error::Damaged("a path is too long"));
        }
        path.truncate(shared);
        path.extend_from_slice(rest);
        Ok(())
    }

    pub(super) fn blob(&mut self) -> Result<BlobId, Error> {
        let bytes = self.take(BLOB_ID_BYTES)?;
        let bytes = <[u8; BLOB_ID_BYTES]>::try_from(bytes);
        bytes
            .map(BlobId::from_bytes)
            .map_err(|_| Error::Damaged("a hash is too short"))
    }
}

const NOT_UTF_8: Error = Error::Damaged("a text is not UTF-8");

pub(super) fn text(bytes: &[u8]) -> Result<&str, Error> {
    std::str::from_utf8(bytes).map_err(|_| NOT_UTF_8)
}

thread_local! {
    // What packs is much larger than what it packs: each thread keeps one.
    static PACKER: RefCell<Option<Compressor<'static>>> =
        RefCell::new(Compressor::new(LEVEL).ok());
    static UNPACKER: RefCell<Option<Decompressor<'static>>> =
        RefCell::new(Decompressor::new().ok());
}

/// Packs bytes.
pub(super) fn pack(raw: &[u8]) -> Vec<u8> {
    let packed = PACKER.with_borrow_mut(|packer| packer.as_mut()?.compress(raw).ok());
    // Packing into memory fails only without memory.
    packed.unwrap_or_default()
}

/// Unpacks them; more than `max` bytes are not what was packed.
pub(super) fn unpack(packed: &[u8], max: usize) -> Result<Vec<u8>, Error> {
    let unpacked =
        UNPACKER.with_borrow_mut(|unpacker| unpacker.as_mut()?.decompress(packed, max).ok());
    unpacked.ok_or(Error::Damaged("it does not unpack"))
}

/// How hard lists are packed.  Higher: making a version takes longer for little; lower:
/// hardly faster.
const LEVEL: i32 = 1;
