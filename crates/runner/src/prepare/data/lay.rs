//! Making a version of what the cache has: hard links to it that nobody writes to.

use std::fs::{self, File, Permissions};
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use grid_core::id::DatastoreVersionId;
use grid_manifest::{Entry, Node};

use super::Error;
use super::time::date;
use crate::prepare::elsewhere;
use crate::prepare::tree::blob_path;

/// Mode bits of files, of programs and of folders: nobody writes to them.
pub(super) const FILE_MODE: u32 = 0o444;
pub(super) const PROGRAM_MODE: u32 = 0o555;
pub(super) const FOLDER_MODE: u32 = 0o555;

/// Makes the files of a block.
pub(super) fn lay_out(
    blobs: &Path,
    fresh: &Path,
    id: DatastoreVersionId,
    entries: &[Entry],
) -> Result<(), Error> {
    let mut parent: Option<&Path> = None;
    for entry in entries {
        let relative = Path::new(&entry.path);
        let path = fresh.join(relative);
        if let Some(above) = relative.parent()
            && !above.as_os_str().is_empty()
            && parent != Some(above)
        {
            let above_path = fresh.join(above);
            fs::create_dir_all(&above_path).map_err(Error::write(&above_path))?;
            parent = Some(above);
        }
        match &entry.node {
            Node::Folder => {
                fs::create_dir_all(&path).map_err(Error::write(&path))?;
                date(&path, entry.modified_ms).map_err(Error::write(&path))?;
            }
            Node::Link { target } => {
                std::os::unix::fs::symlink(target, &path).map_err(Error::write(&path))?;
                date(&path, entry.modified_ms).map_err(Error::write(&path))?;
            }
            Node::File { blob, .. } => link(blobs, &blob.to_string(), entry, &path)?,
            Node::Elsewhere { tag, .. } => {
                let name = elsewhere::name(id, &entry.path, tag);
                link(blobs, &name, entry, &path)?;
            }
        }
    }
    Ok(())
}

/// Gives a content a name in a version.
fn link(blobs: &Path, name: &str, entry: &Entry, path: &Path) -> Result<(), Error> {
    let plain = blob_path(blobs, name);
    let is_program = entry.mode & 0o111 != 0;
    let from = if is_program {
        let program = plain.with_extension("x");
        if !has_length_of(&program, &plain) {
            copy(&plain, &program)?;
        }
        program
    } else {
        plain
    };
    let found = fs::symlink_metadata(&from).map_err(|_| Error::Missing { path: from.clone() })?;
    if found.nlink() == 1 {
        settle(&from, is_program, entry.modified_ms).map_err(Error::write(&from))?;
    }
    match fs::hard_link(&from, path) {
        // So many versions have it that the file system keeps no more names.
        Err(error) if error.raw_os_error() == Some(libc::EMLINK) => {
            copy(&from, path)?;
            settle(path, is_program, entry.modified_ms).map_err(Error::write(path))
        }
        linked => linked.map_err(Error::write(path)),
    }
}

/// Whether a copy is there and has not lost bytes.
fn has_length_of(copy: &Path, of: &Path) -> bool {
    let length = |path| fs::symlink_metadata(path).map(|found| found.len()).ok();
    length(copy).is_some_and(|found| length(of).is_none_or(|wanted| found == wanted))
}

/// The content of another file; its bytes are shared where the file system can.
fn copy(from: &Path, to: &Path) -> Result<(), Error> {
    let source = File::open(from).map_err(|_| Error::Missing {
        path: from.to_owned(),
    })?;
    let folder = to.parent().unwrap_or(Path::new("."));
    let fresh = tempfile::NamedTempFile::new_in(folder).map_err(Error::write(to))?;
    if rustix::fs::ioctl_ficlone(fresh.as_file(), &source).is_err() {
        grid_chunk::copy_sparse(&source, fresh.as_file()).map_err(Error::write(to))?;
    }
    fresh
        .persist(to)
        .map(drop)
        .map_err(|error| Error::write(to)(error.error))
}

/// Nobody writes to it from here on.  Its time is that of the version it came with.
fn settle(path: &Path, is_program: bool, modified_ms: i64) -> io::Result<()> {
    let file = File::open(path)?;
    let mode = if is_program { PROGRAM_MODE } else { FILE_MODE };
    file.set_permissions(Permissions::from_mode(mode))?;
    date(path, modified_ms)
}

/// A version is whole: its folders are closed, and it gets its name.
pub(super) fn close(fresh: &Path, whole: &Path) -> io::Result<()> {
    // What gets its name has nothing left to be done: this may end after any step.
    for entry in walkdir::WalkDir::new(fresh).contents_first(true) {
        let entry = entry.map_err(io::Error::other)?;
        if entry.file_type().is_dir() {
            fs::set_permissions(entry.path(), Permissions::from_mode(FOLDER_MODE))?;
        }
    }
    fs::rename(fresh, whole)
}
