//! Large blobs: `large/abc/<hash>`, a file each.  `uploads/` holds those that are on
//! their way.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use grid_core::blob::BlobId;
use grid_core::time::Timestamp;
use tempfile::{NamedTempFile, TempPath};

use super::grace::Grace;
use super::reader::BlobReader;
use super::{BlobError, BlobInfo, Deleted};

pub(super) struct LargeFiles {
    dir: PathBuf,
    uploads: PathBuf,
    sync: bool,
    /// Held exclusively to delete, and shared to say that a blob is there: so nobody
    /// is told of a blob that goes at that moment.
    deleting: RwLock<()>,
}

impl LargeFiles {
    pub(super) fn open(dir: &Path, sync: bool) -> Result<Self, BlobError> {
        let files = Self {
            dir: dir.join("large"),
            uploads: dir.join("uploads"),
            sync,
            deleting: RwLock::new(()),
        };
        let make = || {
            fs::create_dir_all(&files.dir)?;
            fs::create_dir_all(&files.uploads)?;
            for left in fs::read_dir(&files.uploads)? {
                fs::remove_file(left?.path())?;
            }
            Ok(())
        };
        make().map_err(|source| {
            BlobError::io(format!("open the folder {}", dir.display()), source)
        })?;
        Ok(files)
    }

    fn folder(&self, id: BlobId) -> PathBuf {
        // One of 4,096, so that a million large blobs do not share a folder.
        self.dir.join(&id.to_string()[..3])
    }

    fn path(&self, id: BlobId) -> PathBuf {
        let mut path = self.folder(id);
        path.push(id.to_string());
        path
    }

    pub(super) fn has(&self, id: BlobId) -> Result<bool, BlobError> {
        let _shared = self.deleting.read().unwrap_or_else(PoisonError::into_inner);
        self.exists(id)
    }

    fn exists(&self, id: BlobId) -> Result<bool, BlobError> {
        self.path(id)
            .try_exists()
            .map_err(|source| BlobError::io(format!("look for blob {id}"), source))
    }

    /// A file for a blob on its way, and its name, with which it goes when that is
    /// dropped.
    pub(super) fn upload(&self) -> Result<(File, TempPath), BlobError> {
        NamedTempFile::new_in(&self.uploads)
            .map(NamedTempFile::into_parts)
            .map_err(|source| BlobError::storing("an upload", source))
    }

    /// Gives an upload its name.  The caller has touched it.
    pub(super) fn keep(
        &self,
        file: &File,
        upload: TempPath,
        id: BlobId,
        at: Timestamp,
    ) -> Result<(), BlobError> {
        let _shared = self.deleting.read().unwrap_or_else(PoisonError::into_inner);
        if self.exists(id)? {
            return Ok(());
        }
        self.name(file, upload, id, at)
            .map_err(|source| BlobError::storing(format!("blob {id}"), source))
    }

    fn name(&self, file: &File, upload: TempPath, id: BlobId, at: Timestamp) -> io::Result<()> {
        let since = Duration::from_millis(u64::try_from(at.as_millis()).unwrap_or(0));
        file.set_modified(UNIX_EPOCH + since)?;
        if self.sync {
            file.sync_data()?;
        }
        let folder = self.folder(id);
        let path = self.path(id);
        match fs::rename(&upload, &path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                fs::create_dir_all(&folder)?;
                if self.sync {
                    File::open(&self.dir)?.sync_all()?;
                }
                fs::rename(&upload, &path)?;
            }
            result => result?,
        }
        // It has another name now: there is nothing to remove.
        let _ = upload.keep();
        if self.sync {
            File::open(&folder)?.sync_all()?;
        }
        Ok(())
    }

    pub(super) fn get(&self, id: BlobId) -> Result<Option<BlobReader>, BlobError> {
        let doing = |source| BlobError::io(format!("open blob {id}"), source);
        let file = match File::open(self.path(id)) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(doing(error)),
        };
        let len = file.metadata().map_err(doing)?.len();
        Ok(Some(BlobReader::new(id, Arc::new(file), 0, len)))
    }

    /// Tells of every blob, as long as somebody listens.
    pub(super) fn list(&self, tell: &mut impl FnMut(BlobInfo) -> bool) -> Result<(), BlobError> {
        self.walk(tell)
            .map_err(|source| BlobError::io("list the large blobs", source))
    }

    fn walk(&self, tell: &mut impl FnMut(BlobInfo) -> bool) -> io::Result<()> {
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
                };
                if !tell(info) {
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    pub(super) fn delete(
        &self,
        ids: &[BlobId],
        grace: &Grace,
        deleted: &mut Deleted,
    ) -> Result<(), BlobError> {
        for id in ids {
            let _alone = self
                .deleting
                .write()
                .unwrap_or_else(PoisonError::into_inner);
            if grace.covers(*id) {
                if self.exists(*id)? {
                    deleted.kept += 1;
                } else {
                    deleted.missing += 1;
                }
                continue;
            }
            match fs::remove_file(self.path(*id)) {
                Ok(()) => deleted.removed += 1,
                Err(error) if error.kind() == io::ErrorKind::NotFound => deleted.missing += 1,
                Err(error) => return Err(BlobError::io(format!("delete blob {id}"), error)),
            }
        }
        Ok(())
    }
}

fn timestamp(time: SystemTime) -> Timestamp {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp::from_millis(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}
