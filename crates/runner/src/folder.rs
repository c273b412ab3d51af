//! Where a runner has its things on disk.
//!
//! ```text
//! DIR/keeper/                     the keeper's socket and log
//! DIR/spools/KEY/                 what a process wrote; KEY is ATTEMPT, ATTEMPT-build or ATTEMPT-end
//! DIR/attempts/ATTEMPT/           one attempt:
//!     launch.json                 the order and the CPUs given to it; there before anything is started
//!     state.json                  what cannot be found out again after a restart; there when there is such a thing
//!     messages-STREAM.jsonl       lines of the platform between those of the process
//!     shipped-STREAM.json         how far a long log is stored
//!     before                      the paths that existed before the script ran
//!     work/ home/ tmp/ scratch/   what the process sees
//! DIR/spare/                      folders of former attempts, to be used again
//! DIR/cache/blobs/ trees/         code that was fetched
//! DIR/cache/data/                 datastores: `prepare::data`
//! DIR/cache/envs/KEY/             environments that were built
//! DIR/cache/packages/USER/        what the installers keep
//! ```
//!
//! Nothing waits for the disk: a crash of the machine costs attempts that the server then
//! starts again, never their records; and what of the caches was not on the disk then is
//! made again (`prepare::shelf`).

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use grid_core::duration::format_size;
use grid_core::id::AttemptId;

use crate::spare::Spare;

/// Room on the disk below which people are told: what is printed and what is left behind
/// waits for room, and nothing else says why.  Higher: a small disk is always said to be full;
/// lower: it is full before anybody hears of it.
const ROOM_MIN_BYTES: u64 = 32 << 20;

/// The folders of one runner.
#[derive(Debug, Clone)]
pub(crate) struct Folder {
    dir: PathBuf,
    /// Folders to be used again.
    pub(crate) spare: Arc<Spare>,
}

impl Folder {
    /// Makes what is not there.
    pub(crate) fn open(dir: &Path) -> io::Result<Self> {
        use std::os::unix::fs::DirBuilderExt;
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(dir)?;
        let folder = Self {
            dir: dir.to_owned(),
            spare: Arc::new(Spare::open(dir.join("spare"))?),
        };
        for path in [
            folder.keeper(),
            folder.spools(),
            folder.attempts(),
            folder.cache("blobs"),
            folder.cache("trees"),
            folder.cache("envs"),
            folder.cache("packages"),
        ] {
            fs::DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(path)?;
        }
        Ok(folder)
    }

    /// What to say of a disk that is full, or nearly.
    pub(crate) fn shortage(&self) -> Option<String> {
        let disk = rustix::fs::statvfs(&self.dir).ok()?;
        let free_bytes = disk.f_bavail.saturating_mul(disk.f_frsize);
        (free_bytes < ROOM_MIN_BYTES).then(|| {
            format!(
                "the disk of {} is full: {} are free, and logs and files wait until there is room",
                self.dir.display(),
                format_size(free_bytes)
            )
        })
    }

    pub(crate) fn keeper(&self) -> PathBuf {
        self.dir.join("keeper")
    }

    pub(crate) fn spools(&self) -> PathBuf {
        self.dir.join("spools")
    }

    pub(crate) fn spool(&self, key: &str) -> PathBuf {
        self.dir.join("spools").join(key)
    }

    pub(crate) fn attempts(&self) -> PathBuf {
        self.dir.join("attempts")
    }

    pub(crate) fn attempt(&self, attempt: AttemptId) -> PathBuf {
        self.dir.join("attempts").join(attempt.to_string())
    }

    pub(crate) fn cache(&self, part: &str) -> PathBuf {
        self.dir.join("cache").join(part)
    }
}

/// Writes a file whole or not at all.
pub(crate) fn write_whole(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let fresh = path.with_extension("new");
    fs::write(&fresh, bytes)?;
    fs::rename(&fresh, path)
}

/// Removes a file or a folder with all that is in it; one that is not there is removed.
///
/// Folders that their owner made unwritable are made writable first: a runner that
/// is not root could not remove what its users left otherwise.
pub(crate) fn remove_all(path: &Path) -> io::Result<()> {
    let gone = |result: io::Result<()>| match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    };
    match gone(fs::remove_dir_all(path)) {
        Err(error) if error.kind() == io::ErrorKind::NotADirectory => gone(fs::remove_file(path)),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            for entry in walkdir::WalkDir::new(path).into_iter().flatten() {
                if entry.file_type().is_dir() {
                    make_writable(entry.path());
                }
            }
            gone(fs::remove_dir_all(path))
        }
        other => other,
    }
}

fn make_writable(path: &Path) {
    use std::os::unix::fs::PermissionsExt;
    let _ = fs::set_permissions(path, fs::Permissions::from_mode(0o700));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_gone_is_removed() {
        let dir = tempfile::tempdir().expect("a folder");
        remove_all(&dir.path().join("none")).expect("gone already");
        let file = dir.path().join("file");
        write_whole(&file, b"x").expect("written");
        remove_all(&file).expect("a file goes too");
        assert!(!file.exists());
    }
}
