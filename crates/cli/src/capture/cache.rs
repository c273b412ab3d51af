//! Hashes of files that have not changed since they were read.
//!
//! One file per tree, replaced as a whole.  It is only a memory: whatever is
//! wrong with it, files are read again.  A file that was changed a moment before
//! it was read is not remembered: it could be changed again within the same tick
//! of the file system's clock.

use std::collections::HashMap;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

use grid_core::time::Timestamp;

use super::inspect::{Found, Stamp};

/// The first bytes of the file; another format has others.
const MAGIC: &[u8; 8] = b"gridhsh1";

/// How old a change must be, in nanoseconds, for times to tell the next one apart
/// (FAT: 2 s).  Higher: fresh files are read twice.
const SETTLED_NS: i64 = 2_000_000_000;

/// The largest file that is read, in bytes: a million names.  Larger: memory for a tree that is refused anyway.
const FILE_BYTES_MAX: u64 = 256 << 20;

/// How long the memory of a tree that nobody sends any more is kept, in milliseconds (90 days).
const KEPT_MS: i64 = 90 * 86_400_000;

type Hash = [u8; 32];

/// What is remembered about one tree.
pub(super) struct Cache {
    path: PathBuf,
    /// Of the file as it was read.
    digest: blake3::Hash,
    known: HashMap<String, (u64, Stamp, Hash)>,
}

impl Cache {
    /// What was remembered about the tree at `root`.
    pub(super) fn open(folder: &Path, root: &Path) -> Self {
        let name = blake3::hash(root.as_os_str().as_encoded_bytes()).to_hex();
        let path = folder.join("trees").join(&name.as_str()[..32]);
        let small = fs::metadata(&path).is_ok_and(|found| found.len() <= FILE_BYTES_MAX);
        let bytes = if small {
            fs::read(&path).unwrap_or_default()
        } else {
            Vec::new()
        };
        Self {
            path,
            digest: blake3::hash(&bytes),
            known: decode(&bytes).unwrap_or_default(),
        }
    }

    /// The hash of a file, if it is as it was when it was read.
    pub(super) fn get(&self, found: &Found) -> Option<Hash> {
        let (size, stamp, hash) = self.known.get(&found.path)?;
        (*size == found.size_bytes && *stamp == found.stamp).then_some(*hash)
    }

    /// Remembers the hashes of these files, read at `read_at`, and forgets all others.
    pub(super) fn save<'f>(
        &self,
        read_at: Timestamp,
        files: impl Iterator<Item = (&'f Found, Hash)>,
    ) {
        let settled = read_at
            .as_millis()
            .saturating_mul(1_000_000)
            .saturating_sub(SETTLED_NS);
        let mut bytes = MAGIC.to_vec();
        for (found, hash) in files {
            let Stamp {
                modified_ns,
                changed_ns,
                inode,
            } = found.stamp;
            if modified_ns < settled && changed_ns < settled {
                bytes.extend_from_slice(&(found.path.len() as u32).to_le_bytes());
                bytes.extend_from_slice(found.path.as_bytes());
                bytes.extend_from_slice(&found.size_bytes.to_le_bytes());
                bytes.extend_from_slice(&modified_ns.to_le_bytes());
                bytes.extend_from_slice(&changed_ns.to_le_bytes());
                bytes.extend_from_slice(&inode.to_le_bytes());
                bytes.extend_from_slice(&hash);
            }
        }
        // A cache that cannot be written costs time, nothing else.
        let _ = self.write(&bytes, read_at);
    }

    fn write(&self, bytes: &[u8], now: Timestamp) -> std::io::Result<()> {
        if blake3::hash(bytes) == self.digest {
            // As it was: it is only still in use.
            let since = Duration::from_millis(now.as_millis().unsigned_abs());
            return fs::File::open(&self.path)?.set_modified(UNIX_EPOCH + since);
        }
        let folder = self.path.parent().unwrap_or(Path::new("."));
        fs::create_dir_all(folder)?;
        let mut file = tempfile::NamedTempFile::new_in(folder)?;
        file.write_all(bytes)?;
        file.persist(&self.path).map_err(|error| error.error)?;
        for entry in fs::read_dir(folder)?.flatten() {
            let modified = entry.metadata().and_then(|found| found.modified()).ok();
            let age_ms = modified
                .and_then(|at| at.duration_since(UNIX_EPOCH).ok())
                .map_or(0, |at| {
                    now.as_millis() - i64::try_from(at.as_millis()).unwrap_or(i64::MAX)
                });
            if age_ms > KEPT_MS {
                let _ = fs::remove_file(entry.path());
            }
        }
        Ok(())
    }
}

fn decode(bytes: &[u8]) -> Option<HashMap<String, (u64, Stamp, Hash)>> {
    let mut rest = bytes.strip_prefix(MAGIC)?;
    let mut known = HashMap::new();
    while !rest.is_empty() {
        let length = u32::from_le_bytes(take(&mut rest)?) as usize;
        let (path, after) = rest.split_at_checked(length)?;
        rest = after;
        let path = std::str::from_utf8(path).ok()?.to_owned();
        let size = u64::from_le_bytes(take(&mut rest)?);
        let modified_ns = i64::from_le_bytes(take(&mut rest)?);
        let changed_ns = i64::from_le_bytes(take(&mut rest)?);
        let inode = u64::from_le_bytes(take(&mut rest)?);
        let hash: Hash = take(&mut rest)?;
        known.insert(
            path,
            (
                size,
                Stamp {
                    modified_ns,
                    changed_ns,
                    inode,
                },
                hash,
            ),
        );
    }
    Some(known)
}

fn take<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    let (head, tail) = rest.split_at_checked(N)?;
    *rest = tail;
    head.try_into().ok()
}
