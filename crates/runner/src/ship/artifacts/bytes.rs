//! Reading files for hashing and sending: holes are not read from the disk, and a
//! file that changes meanwhile is noticed.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use rustix::fs::SeekFrom;

use super::scan::Signature;

/// Bytes read at a time.  Higher: more memory per file under way; lower: more
/// system calls.
pub(crate) const CHUNK_BYTES: usize = 1 << 20;

/// Files up to this size are kept in memory between hashing and sending.
/// Higher: more memory; lower: more files are read twice.
pub(crate) const SMALL_BYTES_MAX: u64 = 256 << 10;

/// Why a file could not be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("it cannot be read")]
    Read(#[source] io::Error),
    #[error("it was changed while it was being read")]
    Changed,
}

/// A file whose bytes were seen.
pub(crate) struct Hashed {
    pub(crate) hash: [u8; 32],
    pub(crate) signature: Signature,
    /// The bytes themselves, of a small file.
    pub(crate) bytes: Option<Vec<u8>>,
}

/// Hashes a file.
pub(crate) fn hash(path: &Path) -> Result<Hashed, Error> {
    let file = open(path)?;
    let before = Signature::of(&file.metadata().map_err(Error::Read)?);
    let mut hasher = blake3::Hasher::new();
    let mut kept = (before.size_bytes <= SMALL_BYTES_MAX).then(Vec::new);
    read(&file, before.size_bytes, |piece| {
        hasher.update(piece);
        if let Some(kept) = &mut kept {
            kept.extend_from_slice(piece);
        }
        Ok(())
    })?;
    let after = Signature::of(&file.metadata().map_err(Error::Read)?);
    if after != before {
        return Err(Error::Changed);
    }
    Ok(Hashed {
        hash: *hasher.finalize().as_bytes(),
        signature: before,
        bytes: kept,
    })
}

/// Opens a regular file, and nothing that took its place meanwhile.
pub(crate) fn open(path: &Path) -> Result<File, Error> {
    use rustix::fs::{Mode, OFlags};
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = File::from(
        rustix::fs::open(path, flags, Mode::empty()).map_err(|error| Error::Read(error.into()))?,
    );
    if !file.metadata().map_err(Error::Read)?.is_file() {
        return Err(Error::Changed);
    }
    Ok(file)
}

/// Gives `size` bytes of a file, piece by piece.
pub(crate) fn read(
    file: &File,
    size: u64,
    mut take: impl FnMut(&[u8]) -> Result<(), Error>,
) -> Result<(), Error> {
    let mut buffer = vec![0; usize::try_from(size).unwrap_or(usize::MAX).min(CHUNK_BYTES)];
    let mut zeros: Vec<u8> = Vec::new();
    let mut position = 0;
    while position < size {
        let data = if size <= SMALL_BYTES_MAX {
            position
        } else {
            next_data(file, position).min(size)
        };
        if data > position && zeros.is_empty() {
            zeros = vec![0; CHUNK_BYTES];
        }
        while position < data {
            let count = usize::try_from(data - position)
                .unwrap_or(usize::MAX)
                .min(CHUNK_BYTES);
            take(zeros.get(..count).unwrap_or_default())?;
            position += count as u64;
        }
        let hole = if size <= SMALL_BYTES_MAX {
            size
        } else {
            next_hole(file, position).min(size)
        };
        while position < hole {
            let count = usize::try_from(hole - position)
                .unwrap_or(usize::MAX)
                .min(CHUNK_BYTES);
            let part = buffer.get_mut(..count).unwrap_or_default();
            let got = file.read_at(part, position).map_err(Error::Read)?;
            if got == 0 {
                // It is shorter than it was.
                return Err(Error::Changed);
            }
            take(part.get(..got).unwrap_or_default())?;
            position += got as u64;
        }
    }
    Ok(())
}

/// Where data begins; there and then on file systems without holes.
fn next_data(file: &File, position: u64) -> u64 {
    match rustix::fs::seek(file, SeekFrom::Data(position)) {
        Ok(data) => data,
        // Nothing but a hole up to the end.
        Err(rustix::io::Errno::NXIO) => u64::MAX,
        Err(_) => position,
    }
}

fn next_hole(file: &File, position: u64) -> u64 {
    rustix::fs::seek(file, SeekFrom::Hole(position)).map_or(u64::MAX, |hole| {
        if hole > position { hole } else { u64::MAX }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn holes_count_as_zeros() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("sparse");
        let file = File::create(&path).expect("made");
        file.write_all_at(b"head", 3_000_000).expect("written");
        file.write_all_at(b"tail", 9_000_000).expect("written");
        file.set_len(12_345_678).expect("longer");
        let plain = std::fs::read(&path).expect("read");
        assert_eq!(
            hash(&path).expect("hashed").hash,
            *blake3::hash(&plain).as_bytes()
        );
        for size in [0_usize, 1, 300_000] {
            std::fs::write(&path, vec![7; size]).expect("written");
            let hashed = hash(&path).expect("hashed");
            assert_eq!(hashed.hash, *blake3::hash(&vec![7; size]).as_bytes());
            assert_eq!(hashed.bytes.is_some(), size as u64 <= SMALL_BYTES_MAX);
        }
    }

    #[test]
    fn a_link_that_took_the_place_of_a_file_is_not_followed() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("link");
        std::os::unix::fs::symlink("/etc/hostname", &path).expect("made");
        assert!(hash(&path).is_err());
    }
}
