//! What lay in a folder before a version was fetched into it: nothing of that is deleted, and
//! who takes the folder for the version has to know.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::fs;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::path::{Path, PathBuf};

/// Files and links that lay in a folder.
///
/// Of each there is a hash of its path: of millions, that is some megabytes.
#[derive(Debug, Default)]
pub(super) struct Before {
    paths: HashSet<u64>,
}

impl Before {
    /// Looks into the folder `root`, or at what is called `path` below it.  What cannot be
    /// read is not counted.
    pub(super) fn look(root: &Path, path: Option<&str>) -> Self {
        let mut before = Self::default();
        let mut open = vec![PathBuf::from(path.unwrap_or_default())];
        while let Some(folder) = open.pop() {
            let entries = fs::read_dir(root.join(&folder)).into_iter().flatten();
            for entry in entries.flatten() {
                let path = folder.join(entry.file_name());
                match entry.file_type() {
                    Ok(kind) if kind.is_dir() => open.push(path),
                    Ok(_) if !is_beginning(&entry.file_name()) => {
                        before.paths.insert(hash(&path));
                    }
                    Ok(_) | Err(_) => {}
                }
            }
        }
        before
    }

    /// This is of the version.
    pub(super) fn is_of(&mut self, path: &str) {
        if !self.paths.is_empty() {
            self.paths.remove(&hash(Path::new(path)));
        }
    }

    /// How many are of nothing that was fetched.
    pub(super) fn others(&self) -> u64 {
        self.paths.len() as u64
    }
}

/// Whether this is the beginning of a file whose fetching was interrupted.
fn is_beginning(name: &OsStr) -> bool {
    let name = name.as_encoded_bytes();
    name.starts_with(b".") && name.ends_with(b".part")
}

fn hash(path: &Path) -> u64 {
    let mut hasher = DefaultHasher::new();
    path.as_os_str().hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use anyhow::Result;

    use super::*;

    #[test]
    fn what_is_not_of_the_version_is_counted() -> Result<()> {
        let folder = tempfile::tempdir()?;
        let root = folder.path();
        fs::create_dir_all(root.join("sub/deep"))?;
        for path in ["a", "sub/b", "sub/deep/c", ".0123-4567.part"] {
            fs::write(root.join(path), path)?;
        }
        symlink("/", root.join("sub/link"))?;
        let others = |path, of: &[&str]| {
            let mut before = Before::look(root, path);
            of.iter().for_each(|path| before.is_of(path));
            before.others()
        };
        assert_eq!(others(None, &[]), 4);
        assert_eq!(others(None, &["a", "sub/deep/c", "new"]), 2);
        assert_eq!(others(Some("sub"), &["sub/b"]), 2);
        assert_eq!(others(Some("a"), &[]), 0);
        assert_eq!(others(Some("nothing"), &[]), 0);
        Ok(())
    }
}
