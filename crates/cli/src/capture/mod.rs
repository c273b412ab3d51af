//! Taking the code along: exactly what is on the disk now.
//!
//! In a Git work tree that is what Git tracks and what is new and not ignored,
//! with the changes that nobody has committed; otherwise the folder as it is,
//! without what its ignore files name.  Content is addressed by its hash, so
//! bytes that the server has are not sent again, and a local cache remembers
//! hashes, so an unchanged file costs one look at its size and times.
//!
//! What cannot be taken along as it is (special files, links that lead out of
//! the tree, names that are not UTF-8) is refused with its name: a run that
//! silently lacks a file is worse than none.

mod blocks;
mod cache;
pub(crate) mod data;
#[cfg(test)]
mod data_tests;
mod folder;
mod git;
mod hash;
mod inspect;
mod line;
mod list;
mod listing;
#[cfg(test)]
mod tests;
mod upload;
mod walk;

use std::path::{Component, Path, PathBuf};

use anyhow::{Context as _, Result};
use grid_core::duration::{format_size, parse_size_bytes};
use grid_core::spec::GitState;

use crate::error::Problem;
pub(crate) use git::project;
use inspect::Found;

/// Bytes that one run may take along, unless `GRID_CAPTURE_MAX` says otherwise.
/// Higher: data sets travel with every run by mistake.  Lower: weights kept
/// beside the code have to be moved.
const BYTES_MAX: u64 = 2 << 30;

/// Files that one run may take along.  Higher: a forgotten `node_modules` makes
/// every run slow.  Lower: large repositories are refused.
const FILES_MAX: usize = 200_000;

/// How many of the largest files a refusal names.
const LARGEST_SHOWN: usize = 5;

/// A tree that can be sent.
#[derive(Debug)]
pub(crate) struct Capture {
    /// The folder that is its top.
    root: PathBuf,
    /// The folder in it from which the command was given; empty for the top.
    pub(crate) workdir: String,
    /// `owner/name` of the repository, or the name of the folder.
    pub(crate) project: Option<String>,
    /// The commit below it.
    pub(crate) git: Option<GitState>,
    /// What the user should know.
    pub(crate) notes: Vec<String>,
    found: Vec<Found>,
}

/// What is taken along.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum How {
    /// The Git work tree around the folder; the folder itself where there is none.
    Automatic,
    /// The folder itself.
    Folder,
}

/// Looks at what there is, and refuses what cannot be taken along.
pub(crate) fn scan(cwd: &Path, how: How, bytes_max: u64) -> Result<Capture> {
    let cwd = cwd
        .canonicalize()
        .with_context(|| format!("looking at the folder {}", cwd.display()))?;
    let top = if how == How::Automatic {
        git::find_root(&cwd)
    } else {
        None
    };
    let (root, list) = match top {
        Some(root) => {
            let list = git::list(&root)?;
            (root, list)
        }
        None => (cwd.clone(), folder::list(&cwd)?),
    };
    let mut notes = list.notes;
    if how == How::Automatic && list.git.is_none() {
        notes.push(format!(
            "{} is not in a Git work tree: its files are sent as they are, as with --localdir",
            cwd.display()
        ));
    }
    if list.paths.len() > FILES_MAX {
        return Err(too_many(&list.paths).into());
    }
    let workdir = relative_text(&root, &cwd)?;
    let found = inspect::inspect(&root, list.paths)?;
    check_size(&found, bytes_max)?;
    let project = list.project.or_else(|| {
        root.file_name()
            .map(|name| name.to_string_lossy().into_owned())
    });
    Ok(Capture {
        root,
        workdir,
        project,
        git: list.git,
        notes,
        found,
    })
}

/// The limit that holds for this user.
pub(crate) fn bytes_max() -> Result<u64> {
    match std::env::var("GRID_CAPTURE_MAX") {
        Ok(text) if !text.is_empty() => parse_size_bytes(&text).map_err(|error| {
            Problem::usage("GRID_CAPTURE_MAX is wrong")
                .because(error)
                .into()
        }),
        _ => Ok(BYTES_MAX),
    }
}

impl Capture {
    /// Files, and their bytes together.
    pub(crate) fn size(&self) -> (usize, u64) {
        (
            self.found.len(),
            self.found.iter().map(|found| found.size_bytes).sum(),
        )
    }

    /// Whether a path, relative to the working folder, is in the tree; a folder
    /// is when anything in it is.
    pub(crate) fn has(&self, path: &str) -> bool {
        let Some(path) = joined(&self.workdir, path) else {
            return false;
        };
        let at = self
            .found
            .partition_point(|found| found.path.as_str() < path.as_str());
        self.found.get(at).is_some_and(|found| {
            found.path == path
                || found
                    .path
                    .strip_prefix(&path)
                    .is_some_and(|rest| rest.starts_with('/'))
        })
    }

    /// A path of this machine, as it is called in the tree from the working folder.
    pub(crate) fn within(&self, path: &Path) -> Option<String> {
        let inside = path.canonicalize().ok()?;
        let inside = inside.strip_prefix(&self.root).ok()?.to_str()?.to_owned();
        let up = self
            .workdir
            .split('/')
            .filter(|part| !part.is_empty())
            .count();
        match inside.strip_prefix(&self.workdir) {
            Some(below) if up == 0 => Some(below.to_owned()),
            Some(below) if below.starts_with('/') => Some(below.trim_start_matches('/').to_owned()),
            _ => Some(format!("{}{inside}", "../".repeat(up))),
        }
    }
}

/// What is in a folder, before it is looked at closely.
#[derive(Debug, Default)]
struct List {
    /// Relative paths, with `/`; in any order.
    paths: Vec<String>,
    project: Option<String>,
    git: Option<GitState>,
    notes: Vec<String>,
}

/// `path` from `base`, both inside the tree; none when it climbs out.
fn joined(base: &str, path: &str) -> Option<String> {
    let mut parts: Vec<&str> = base.split('/').filter(|part| !part.is_empty()).collect();
    for component in Path::new(path).components() {
        match component {
            Component::Normal(part) => parts.push(part.to_str()?),
            Component::CurDir => {}
            Component::ParentDir => {
                parts.pop()?;
            }
            Component::RootDir | Component::Prefix(_) => return None,
        }
    }
    Some(parts.join("/"))
}

fn relative_text(root: &Path, path: &Path) -> Result<String> {
    let relative = path.strip_prefix(root).unwrap_or(Path::new(""));
    match relative.to_str() {
        Some(text) => Ok(text.to_owned()),
        None => Err(not_utf8([relative.to_string_lossy().into_owned()]).into()),
    }
}

fn not_utf8(names: impl IntoIterator<Item = String>) -> Problem {
    Problem::new(format!(
        "names that are not UTF-8 cannot be sent: {}",
        shown(names)
    ))
    .hint("rename them, or name them in .gitignore (.gridignore with --localdir)")
}

/// The first few names, and how many more there are.
fn shown(names: impl IntoIterator<Item = String>) -> String {
    const SHOWN_MAX: usize = 10;
    let names: Vec<String> = names.into_iter().collect();
    let more = names.len().saturating_sub(SHOWN_MAX);
    let mut text = names
        .iter()
        .take(SHOWN_MAX)
        .cloned()
        .collect::<Vec<_>>()
        .join(", ");
    if more > 0 {
        text.push_str(&format!(" and {more} more"));
    }
    text
}

fn too_many(paths: &[String]) -> Problem {
    let mut folders = std::collections::BTreeMap::<&str, usize>::new();
    for path in paths {
        *folders
            .entry(path.split('/').next().unwrap_or(path))
            .or_default() += 1;
    }
    let mut folders: Vec<_> = folders.into_iter().collect();
    folders.sort_by_key(|(_, files)| std::cmp::Reverse(*files));
    let largest = folders
        .iter()
        .take(LARGEST_SHOWN)
        .map(|(name, files)| format!("{name} ({files})"));
    Problem::new(format!(
        "{} files are more than the {FILES_MAX} that a run takes along; most are in {}",
        paths.len(),
        shown(largest)
    ))
    .hint("name what the script does not need in .gitignore (.gridignore with --localdir)")
}

fn check_size(found: &[Found], bytes_max: u64) -> Result<(), Problem> {
    let bytes: u64 = found.iter().map(|found| found.size_bytes).sum();
    if bytes <= bytes_max {
        return Ok(());
    }
    let mut largest: Vec<&Found> = found.iter().collect();
    largest.sort_by_key(|found| std::cmp::Reverse(found.size_bytes));
    let largest = largest
        .iter()
        .take(LARGEST_SHOWN)
        .map(|f| format!("{} ({})", f.path, format_size(f.size_bytes)));
    Err(Problem::new(format!(
        "{} of files are more than the {} that a run takes along; the largest are {}",
        format_size(bytes),
        format_size(bytes_max),
        shown(largest.collect::<Vec<_>>())
    ))
    .hint(
        "name what the script does not need in .gitignore (.gridignore with --localdir), \
         or raise the limit: GRID_CAPTURE_MAX=10G",
    ))
}
