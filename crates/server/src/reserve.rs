//! Room that a server keeps for the day when its disk is full.
//!
//! Deleting needs room, too: what goes is first written down in the database.  So a server
//! that starts lays a file aside, and `grid server collect`, which makes room, gives it up
//! first.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::PathBuf;

use rustix::fs::{FallocateFlags, fallocate, statvfs};
use rustix::io::Errno;

use crate::folder::Folder;

/// Its name in the data folder.
const NAME: &str = "reserve";

/// How large it is, in bytes.  Higher: room that is of no other use.  Lower: the log of the
/// database, which grows to half of this before it is written back, does not fit.
const BYTES: u64 = 8 << 20;

/// It is made where so much is free, and given up where less is.  Higher: small disks have
/// none; lower: it is what fills the disk.
const FREE_BYTES_MIN: u64 = 2 * BYTES;

/// Lays it aside, if it is not there and there is room.  A server works without it.
pub(crate) fn lay_aside(folder: &Folder) {
    let path = path(folder);
    let is_there = std::fs::metadata(&path).is_ok_and(|found| found.len() == BYTES);
    if is_there || !has_room(folder) {
        return;
    }
    if let Err(error) = make(&path) {
        tracing::warn!(%error, path = %path.display(), "cannot keep room for a full disk");
        let _ = std::fs::remove_file(&path);
    }
}

/// Gives it up where room is short; says whether it was there.
pub(crate) fn give_up(folder: &Folder) -> bool {
    !has_room(folder) && std::fs::remove_file(path(folder)).is_ok()
}

fn path(folder: &Folder) -> PathBuf {
    folder.path().join(NAME)
}

fn has_room(folder: &Folder) -> bool {
    statvfs(folder.path()).is_ok_and(|disk| {
        let free = disk.f_bavail.saturating_mul(disk.f_frsize);
        free >= FREE_BYTES_MIN
    })
}

fn make(path: &std::path::Path) -> io::Result<()> {
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(0o600);
    let file = options.open(path)?;
    match fallocate(&file, FallocateFlags::empty(), 0, BYTES) {
        // A file system on which room is taken only by writing.
        Err(Errno::OPNOTSUPP | Errno::NOSYS) => fill(file),
        made => Ok(made?),
    }
}

fn fill(mut file: File) -> io::Result<()> {
    let zeros = [0; 64 << 10];
    let mut left = BYTES;
    while left > 0 {
        let part = zeros.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        file.write_all(&zeros[..part])?;
        left -= part as u64;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_laid_aside_once_and_stays_where_there_is_room() {
        let dir = tempfile::tempdir().expect("a folder");
        let folder = Folder::open(&dir.path().join("data")).expect("opened");
        lay_aside(&folder);
        let len = |path: PathBuf| std::fs::metadata(path).map(|found| found.len()).ok();
        assert_eq!(len(path(&folder)), Some(BYTES));
        std::fs::write(path(&folder), "cut").expect("written");
        lay_aside(&folder);
        assert_eq!(len(path(&folder)), Some(BYTES));
        assert!(!give_up(&folder), "nothing is short of room here");
        fill(File::create(path(&folder)).expect("made")).expect("filled");
        assert_eq!(len(path(&folder)), Some(BYTES));
    }
}
