//! Large blobs in a file each, `large/abc/<hash>`: how they were kept before they were
//! cut into chunks.  They are read and deleted; no new ones are made.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{PoisonError, RwLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use grid_core::blob::BlobId;
use grid_core::time::Timestamp;

use super::collect::Collected;
use super::disk::Disk;
use super::grace::Grace;
use super::pack::key;
use super::reader::BlobReader;
use super::{BlobError, BlobInfo};

pub(super) struct LargeFiles {
    dir: PathBuf,
    disk: Disk,
    /// Whether there are any: looking for one costs a system call.
    any: bool,
    /// Held exclusively to delete, and shared to say that a blob is there: so nobody
    /// is told of a blob that goes at that moment.
    deleting: RwLock<()>,
}

impl LargeFiles {
    pub(super) fn open(dir: &Path, disk: &Disk) -> Result<Self, BlobError> {
        let doing = |source| BlobError::io(format!("open the folder {}", dir.display()), source);
        // What was on its way when large blobs were still files.
        match fs::remove_dir_all(dir.join("uploads")) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(doing(error)),
            _ => {}
        }
        let dir = dir.join("large");
        let any = dir.try_exists().map_err(doing)?;
        Ok(Self {
            dir,
            disk: disk.clone(),
            any,
            deleting: RwLock::new(()),
        })
    }

    fn path(&self, id: BlobId) -> PathBuf {
        let name = id.to_string();
        // One of 4,096, so that a million large blobs did not share a folder.
        self.dir.join(&name[..3]).join(name)
    }

    pub(super) fn has(&self, id: BlobId) -> Result<bool, BlobError> {
        if !self.any {
            return Ok(false);
        }
        let _shared = self.deleting.read().unwrap_or_else(PoisonError::into_inner);
        self.path(id)
            .try_exists()
            .map_err(|source| BlobError::io(format!("look for blob {id}"), source))
    }

    pub(super) fn get(&self, id: BlobId) -> Result<Option<BlobReader>, BlobError> {
        if !self.any {
            return Ok(None);
        }
        let doing = |source| BlobError::io(format!("open blob {id}"), source);
        let file = match File::open(self.path(id)) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(doing(error)),
        };
        let len = file.metadata().map_err(doing)?.len();
        Ok(Some(BlobReader::of_file(id, file, len)))
    }

    /// Tells of every blob, as long as somebody listens.
    pub(super) fn list(&self, tell: &mut impl FnMut(BlobInfo) -> bool) -> Result<(), BlobError> {
        self.walk(tell)
            .map_err(|source| BlobError::io("list the large blobs", source))
    }

    fn walk(&self, tell: &mut impl FnMut(BlobInfo) -> bool) -> io::Result<()> {
        if !self.any {
            return Ok(());
        }
        for folder in fs::read_dir(&self.dir)? {
            for file in fs::read_dir(folder?.path())? {
                let file = file?;
                let name = file.file_name();
                // What has another name is not ours.
                let Some(id) = name.to_str().and_then(|name| name.parse().ok()) else {
                    continue;
                };
                let metadata = match file.metadata() {
                    Ok(metadata) => metadata,
                    Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                    Err(error) => return Err(error),
                };
                let info = BlobInfo {
                    id,
                    len: metadata.len(),
                    written_at: timestamp(metadata.modified()?),
                    is_chunked: false,
                };
                if !tell(info) {
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    /// Deletes what is not needed and not young.
    pub(super) fn sweep(
        &self,
        is_needed: impl Fn(BlobId) -> bool,
        grace: &Grace,
        is_dry: bool,
        collected: &mut Collected,
    ) -> Result<(), BlobError> {
        let mut unneeded = Vec::new();
        self.list(&mut |info| {
            if is_needed(info.id) {
                collected.kept += 1;
            } else {
                unneeded.push(info);
            }
            true
        })?;
        for info in unneeded {
            let alone = self.deleting.write();
            let _alone = alone.unwrap_or_else(PoisonError::into_inner);
            if grace.covers(&key(&info.id)) {
                collected.young += 1;
                collected.kept += 1;
                continue;
            }
            if !is_dry {
                self.disk
                    .remove(&self.path(info.id))
                    .map_err(|error| BlobError::io(format!("delete blob {}", info.id), error))?;
            }
            collected.removed += 1;
            collected.removed_bytes += info.len;
        }
        Ok(())
    }
}

fn timestamp(time: SystemTime) -> Timestamp {
    let since: Duration = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp::from_millis(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}
