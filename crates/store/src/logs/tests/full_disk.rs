//! What happens when the disk is full: tried on a small one of its own.

use std::path::Path;

use bytes::Bytes;
use grid_core::logframe::{self, Source};
use rustix::mount::{MountFlags, UnmountFlags};

use super::super::*;

/// A disk of one mebibyte in memory.
pub(crate) struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    /// Mounts one, or says why this test cannot be done here.
    pub(crate) fn mount() -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let options = c"size=1m";
        match rustix::mount::mount("tmpfs", dir.path(), "tmpfs", MountFlags::empty(), options) {
            Ok(()) => Some(Self(dir)),
            Err(error) => {
                eprintln!("skipped: mounting a small disk needs root ({error})");
                None
            }
        }
    }

    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }

    /// Leaves about so many bytes of room.
    pub(crate) fn fill_but(&self, left: u64) {
        let stat = rustix::fs::statvfs(self.path()).unwrap();
        let free = stat.f_bavail * stat.f_bsize;
        std::fs::write(self.path().join("filler"), vec![1; (free - left) as usize]).unwrap();
    }

    pub(crate) fn make_room(&self) {
        std::fs::remove_file(self.path().join("filler")).unwrap();
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = rustix::mount::unmount(self.path(), UnmountFlags::DETACH);
    }
}

#[tokio::test]
async fn a_full_disk_takes_an_append_back() {
    let Some(disk) = SmallDisk::mount() else {
        return;
    };
    let store = LogStore::open(&disk.path().join("logs")).unwrap();
    let log = LogId::new("a", Stream::Experiment).unwrap();
    let mut bytes = Vec::new();
    for n in 0..4000 {
        let line = format!("line {n} {}\n", "x".repeat(100));
        logframe::encode(&mut bytes, n, Source::Stdout, line.as_bytes());
    }
    let bytes = Bytes::from(bytes);
    let half = 100_001;
    store.append(&log, 0, bytes.slice(..half)).await.unwrap();
    disk.fill_but(40_000);
    let files = || tests::sizes(&disk.path().join("logs"));
    let before = files();

    let full = store.append(&log, half as u64, bytes.slice(half..)).await;
    assert!(matches!(full, Err(LogError::Full { .. })), "{full:?}");
    assert_eq!(files(), before);
    assert_eq!(store.progress(&log).await.unwrap().len, half as u64);
    // What is too much for a new log leaves none.
    let other = LogId::new("b", Stream::Experiment).unwrap();
    let full = store.append(&other, 0, bytes.slice(..200_000)).await;
    assert!(matches!(full, Err(LogError::Full { .. })), "{full:?}");
    assert_eq!(files(), before);

    disk.make_room();
    store
        .append(&log, half as u64, bytes.slice(half..))
        .await
        .unwrap();
    let (stored, _) = store.read(&log, 0, usize::MAX).await.unwrap();
    assert_eq!(stored, bytes);
    assert_eq!(store.count_lines(&log).await.unwrap(), 4000);
}
