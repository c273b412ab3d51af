//! A tree of files that a script starts with.
//!
//! Each attempt gets a copy of its own, because it may change what it likes.  Where
//! the file system can share the bytes of copies until one is written to, it does.

use std::collections::HashSet;
use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Component, Path, PathBuf};

use grid_api::snapshot::{SnapshotTree, TreeEntry, TreeKind};

use crate::folder;

/// Name of the list of paths in the folder of an attempt.
pub(crate) const BEFORE_FILE: &str = "before";

/// Where the bytes of a tree are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Origin {
    /// In the cache of blobs, by hash.
    Blobs(PathBuf),
    /// In a folder, by path.
    Folder(PathBuf),
}

/// A list of entries and where their bytes are.
#[derive(Debug)]
pub(crate) struct Tree {
    /// The list on disk.
    file: PathBuf,
    pub(crate) entries: Vec<TreeEntry>,
    origin: Origin,
}

/// Why a tree could not be laid out.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("the code has a path that leads out of it: '{0}'")]
    Path(String),
    #[error("cannot write {path}")]
    Write {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("{path} is not in the cache of this machine any more")]
    Missing { path: PathBuf },
}

/// Where a blob is in the cache.
pub(crate) fn blob_path(blobs: &Path, hash: &str) -> PathBuf {
    let split = hash.get(..2).unwrap_or("xx");
    blobs.join(split).join(hash)
}

/// Whether a blob is in the cache.  One of another length has lost bytes, and goes: what is
/// made from now on is made of another.
pub(crate) fn has_blob(blobs: &Path, name: &str, size_bytes: u64) -> io::Result<bool> {
    let path = blob_path(blobs, name);
    let Ok(found) = fs::symlink_metadata(&path) else {
        return Ok(false);
    };
    if found.len() == size_bytes {
        return Ok(true);
    }
    tracing::warn!(
        path = %path.display(), bytes = found.len(), expected = size_bytes,
        "a file of the cache is damaged, and is fetched again"
    );
    fs::remove_file(&path)?;
    Ok(false)
}

impl Tree {
    pub(crate) fn new(file: PathBuf, entries: Vec<TreeEntry>, origin: Origin) -> Self {
        Self {
            file,
            entries,
            origin,
        }
    }

    /// Reads a list.
    pub(crate) fn read(file: &Path, origin: Origin) -> io::Result<Self> {
        let tree: SnapshotTree =
            serde_json::from_slice(&fs::read(file)?).map_err(io::Error::other)?;
        Ok(Self::new(file.to_owned(), tree.entries, origin))
    }

    /// Writes the list.
    pub(crate) fn write(&self) -> io::Result<()> {
        let tree = SnapshotTree {
            entries: self.entries.clone(),
        };
        folder::write_whole(
            &self.file,
            &serde_json::to_vec(&tree).map_err(io::Error::other)?,
        )
    }

    /// Makes `work` a copy of the tree, and notes in `own`, the attempt's folder,
    /// what was there before the script.
    pub(crate) fn lay_out(&self, work: &Path, own: &Path) -> Result<(), Error> {
        let noted = own.join(BEFORE_FILE);
        let failed = |path: &Path| {
            let path = path.to_owned();
            move |source| Error::Write { path, source }
        };
        folder::remove_all(&noted).map_err(failed(&noted))?;
        // A link keeps the list even when the cache drops it.  It comes first: what is
        // laid out must not be taken for what the script made.
        let linked =
            fs::hard_link(&self.file, &noted).or_else(|_| fs::copy(&self.file, &noted).map(drop));
        match linked {
            Err(_) if !self.file.exists() => {
                let path = self.file.clone();
                return Err(Error::Missing { path });
            }
            linked => linked.map_err(failed(&noted))?,
        }
        self.copy_to(work)
    }

    /// Makes `work` a copy of the tree.
    pub(crate) fn copy_to(&self, work: &Path) -> Result<(), Error> {
        let failed = |path: &Path| {
            let path = path.to_owned();
            move |source| Error::Write { path, source }
        };
        make_empty(work).map_err(failed(work))?;
        let mut made: HashSet<&Path> = HashSet::new();
        for entry in &self.entries {
            let relative = checked(&entry.path)?;
            let path = work.join(relative);
            if let Some(parent) = relative.parent()
                && !parent.as_os_str().is_empty()
                && made.insert(parent)
            {
                let parent = work.join(parent);
                fs::create_dir_all(&parent).map_err(failed(&parent))?;
            }
            match entry.kind {
                TreeKind::Folder => fs::create_dir_all(&path).map_err(failed(&path))?,
                TreeKind::Link => {
                    std::os::unix::fs::symlink(&entry.content, &path).map_err(failed(&path))?;
                }
                TreeKind::File => {
                    let from = match &self.origin {
                        Origin::Blobs(blobs) => blob_path(blobs, &entry.content),
                        Origin::Folder(folder) => folder.join(relative),
                    };
                    copy(&from, &path, entry.mode).map_err(|error| match error {
                        CopyError::Missing => Error::Missing { path: from },
                        CopyError::Other(source) => Error::Write {
                            path: path.clone(),
                            source,
                        },
                    })?;
                }
            }
        }
        Ok(())
    }
}

/// A relative path that stays below where it starts.
fn checked(path: &str) -> Result<&Path, Error> {
    let relative = Path::new(path);
    let stays = !path.is_empty()
        && relative
            .components()
            .all(|part| matches!(part, Component::Normal(_)));
    if stays {
        Ok(relative)
    } else {
        Err(Error::Path(path.to_owned()))
    }
}

enum CopyError {
    Missing,
    Other(io::Error),
}

/// Copies one file; shares its bytes where the file system can.
fn copy(from: &Path, to: &Path, mode: u32) -> Result<(), CopyError> {
    let mut source = File::open(from).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => CopyError::Missing,
        _ => CopyError::Other(error),
    })?;
    // Whoever runs the script must be able to change its own copy.
    let mode = (mode & 0o777) | 0o600;
    let other = CopyError::Other;
    let mut target = File::options()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(to)
        .map_err(other)?;
    if rustix::fs::ioctl_ficlone(&target, &source).is_err() {
        io::copy(&mut source, &mut target).map_err(other)?;
    }
    target
        .set_permissions(fs::Permissions::from_mode(mode))
        .map_err(other)
}

/// Makes an empty folder, whatever was there.
pub(crate) fn make_empty(path: &Path) -> io::Result<()> {
    let builder = || {
        let mut builder = DirBuilder::new();
        builder.mode(0o755);
        builder
    };
    match builder().create(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            if is_empty(path) {
                return Ok(());
            }
            folder::remove_all(path)?;
            builder().create(path)
        }
        other => other,
    }
}

fn is_empty(path: &Path) -> bool {
    let is_folder = path
        .symlink_metadata()
        .is_ok_and(|found| found.is_dir() && found.permissions().mode() & 0o7777 == 0o755);
    is_folder && fs::read_dir(path).is_ok_and(|mut entries| entries.next().is_none())
}

/// Paths that existed before the script of an attempt ran.
pub(crate) fn paths_before(own: &Path) -> io::Result<HashSet<String>> {
    let text = match fs::read(own.join(BEFORE_FILE)) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(HashSet::new()),
        Err(error) => return Err(error),
    };
    let tree: SnapshotTree = serde_json::from_slice(&text).map_err(io::Error::other)?;
    Ok(tree.entries.into_iter().map(|entry| entry.path).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(path: &str, kind: TreeKind, content: &str) -> TreeEntry {
        TreeEntry {
            path: path.to_owned(),
            kind,
            mode: 0o755,
            size_bytes: 0,
            content: content.to_owned(),
        }
    }

    #[test]
    fn a_tree_is_laid_out_as_it_was() {
        let dir = tempfile::tempdir().expect("a folder");
        let blobs = dir.path().join("blobs");
        fs::create_dir_all(blobs.join("ab")).expect("made");
        fs::write(blobs.join("ab/abc"), "print(1)\n").expect("written");
        let entries = vec![
            entry("a b/train.py", TreeKind::File, "abc"),
            entry("empty", TreeKind::Folder, ""),
            entry("link", TreeKind::Link, "a b/train.py"),
        ];
        let tree = Tree::new(
            dir.path().join("t.json"),
            entries,
            Origin::Blobs(blobs.clone()),
        );
        tree.write().expect("written");
        let (own, work) = (dir.path().join("own"), dir.path().join("own/work"));
        fs::create_dir(&own).expect("made");
        tree.lay_out(&work, &own).expect("laid out");
        tree.lay_out(&work, &own).expect("and again");
        assert_eq!(
            fs::read_to_string(work.join("link")).expect("read"),
            "print(1)\n"
        );
        let mode = fs::metadata(work.join("a b/train.py"))
            .expect("there")
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o755);
        fs::write(work.join("a b/train.py"), "changed").expect("its own copy");
        assert_eq!(
            fs::read_to_string(blobs.join("ab/abc")).expect("read"),
            "print(1)\n"
        );
        assert_eq!(paths_before(&own).expect("read").len(), 3);
    }

    #[test]
    fn no_path_leads_out() {
        let dir = tempfile::tempdir().expect("a folder");
        for path in ["../x", "/x", "a/../../x", "", "./x"] {
            let tree = Tree::new(
                dir.path().join("t"),
                vec![entry(path, TreeKind::Folder, "")],
                Origin::Folder("/".into()),
            );
            let result = tree.copy_to(&dir.path().join("work"));
            assert!(matches!(result, Err(Error::Path(_))), "{path}");
        }
    }
}
