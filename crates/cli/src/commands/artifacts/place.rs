//! Where a file goes: inside the folder, whatever its path says.
//!
//! Paths come from the server, which has them from scripts.  A path that climbs is
//! refused, and so is a link that already lies in the way: nothing is ever written
//! outside the folder that was asked for.

use std::collections::HashSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use anyhow::{Context as _, Result};

use crate::error::Problem;

/// The folder that files go to.
pub(crate) struct Place {
    root: PathBuf,
    /// Folders that are known to be real ones.
    made: Mutex<HashSet<PathBuf>>,
}

impl Place {
    /// The folder, made if it is not there.
    pub(crate) fn open(root: &Path) -> Result<Self> {
        if fs::metadata(root).is_ok_and(|found| !found.is_dir()) {
            let what = Problem::new(format!("a file is in the way: {}", root.display()));
            return Err(what.hint("move it away, or choose another folder").into());
        }
        fs::create_dir_all(root)
            .with_context(|| format!("making the folder {}", root.display()))?;
        Ok(Self {
            root: root.to_path_buf(),
            made: Mutex::new(HashSet::new()),
        })
    }

    /// Where `path` goes below `folder`, which is the top when empty, with the folders
    /// above it made.
    pub(crate) fn of(&self, folder: &Path, path: &str) -> Result<PathBuf> {
        let folder = folder
            .to_str()
            .context("the name of the experiment is no text")?;
        let whole = match folder {
            "" => path.to_owned(),
            folder => format!("{folder}/{path}"),
        };
        check(&whole)?;
        let (parent, _) = whole.rsplit_once('/').unwrap_or(("", &whole));
        self.make(parent)?;
        Ok(self.root.join(&whole))
    }

    fn make(&self, relative: &str) -> Result<()> {
        let is_made = |path: &Path| self.made.lock().is_ok_and(|made| made.contains(path));
        if is_made(Path::new(relative)) {
            return Ok(());
        }
        let mut path = PathBuf::new();
        for part in relative.split('/') {
            path.push(part);
            if is_made(&path) {
                continue;
            }
            let on_disk = self.root.join(&path);
            match fs::create_dir(&on_disk) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                    require_folder(&on_disk)?;
                }
                Err(error) => {
                    return Err(error)
                        .with_context(|| format!("making the folder {}", on_disk.display()));
                }
            }
            if let Ok(mut made) = self.made.lock() {
                made.insert(path.clone());
            }
        }
        Ok(())
    }
}

fn require_folder(path: &Path) -> Result<()> {
    let found =
        fs::symlink_metadata(path).with_context(|| format!("looking at {}", path.display()))?;
    if found.is_dir() {
        return Ok(());
    }
    let what = if found.is_symlink() {
        "a link"
    } else {
        "a file"
    };
    Err(
        Problem::new(format!("{what} is in the way: {}", path.display()))
            .hint("move it away, or choose another folder")
            .into(),
    )
}

/// That no folder has the name of a file.
pub(crate) fn require_no_folder(target: &Path) -> Result<(), Problem> {
    if fs::symlink_metadata(target).is_ok_and(|found| found.is_dir()) {
        let what = Problem::new(format!("a folder is in the way: {}", target.display()));
        return Err(what.hint("move it away, or choose another folder"));
    }
    Ok(())
}

/// A path that stays where it is put.
fn check(path: &str) -> Result<(), Problem> {
    let is_good =
        |part: &str| !part.is_empty() && part != "." && part != ".." && !part.contains('\0');
    if path.split('/').all(is_good) {
        return Ok(());
    }
    Err(Problem::new(format!(
        "the path '{}' would leave the folder; it is not written",
        path.escape_debug()
    )))
}

/// Results that lie in a project are not part of its next run.
pub(super) fn keep_out_of_git(folder: &Path) -> Result<()> {
    if fs::symlink_metadata(folder).is_ok() {
        return Ok(());
    }
    fs::create_dir_all(folder)
        .with_context(|| format!("making the folder {}", folder.display()))?;
    let path = folder.join(".gitignore");
    fs::write(&path, "# Downloaded by `grid artifacts`.\n*\n")
        .with_context(|| format!("writing {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_that_climb_are_refused() -> Result<()> {
        let folder = tempfile::tempdir()?;
        let place = Place::open(&folder.path().join("here"))?;
        for path in [
            "../x",
            "/etc/passwd",
            "a/../../x",
            "a//b",
            "",
            ".",
            "a/./b",
            "a\0b",
            "..",
            "a/",
        ] {
            assert!(place.of(Path::new("exp0"), path).is_err(), "{path:?}");
        }
        for path in ["x", "a b/100%/ü.txt", "..x", "a/...", "-rf"] {
            let at = place.of(Path::new("run/exp0"), path)?;
            assert_eq!(at, folder.path().join("here/run/exp0").join(path));
            assert!(at.parent().is_some_and(Path::is_dir));
        }
        Ok(())
    }

    #[test]
    fn links_in_the_way_are_not_followed() -> Result<()> {
        let folder = tempfile::tempdir()?;
        let outside = tempfile::tempdir()?;
        let place = Place::open(folder.path())?;
        std::os::unix::fs::symlink(outside.path(), folder.path().join("exp0"))?;
        assert!(place.of(Path::new("exp0"), "x").is_err());
        fs::create_dir(folder.path().join("exp1"))?;
        std::os::unix::fs::symlink(outside.path(), folder.path().join("exp1/sub"))?;
        assert!(place.of(Path::new("exp1"), "sub/x").is_err());
        Ok(())
    }
}
