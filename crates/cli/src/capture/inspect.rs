//! Looking at every file: what it is, how large, when it was changed.

use std::collections::HashSet;
use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Component, Path};

use anyhow::{Context as _, Result};

use super::{not_utf8, shown};
use crate::error::Problem;

/// Files that one thread looks at.  Higher: other cores idle; lower: starting threads costs more.
const FILES_PER_THREAD_MIN: usize = 1_000;

/// Something in the tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Found {
    /// Relative to the top, with `/`.
    pub(crate) path: String,
    pub(crate) kind: Kind,
    /// Permission bits.
    pub(crate) mode: u32,
    /// Zero for what is no file.
    pub(crate) size_bytes: u64,
    /// What changes when the content may have.
    pub(crate) stamp: Stamp,
}

/// What it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Kind {
    File,
    /// Listed when it is empty.
    Folder,
    /// Where it points.
    Link(String),
}

/// Whoever changes a file changes one of these.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Stamp {
    pub(crate) modified_ns: i64,
    pub(crate) changed_ns: i64,
    pub(crate) inode: u64,
}

/// Looks at `paths` below `root`; what is not there any more is left out.
pub(super) fn inspect(root: &Path, paths: Vec<String>) -> Result<Vec<Found>> {
    let found = inspect_any(
        root,
        paths,
        "name them in .gitignore (.gridignore with --localdir)",
    )?;
    check(root, &found)?;
    Ok(tidied(found))
}

/// The same of data, from which nothing is left out: it cannot be named in an ignore file.
pub(super) fn inspect_data(root: &Path, paths: Vec<String>) -> Result<Vec<Found>> {
    let found = inspect_any(root, paths, "remove them, or keep them in another folder")?;
    let outside = outside(root, &found);
    if !outside.is_empty() {
        return Err(Problem::new(format!(
            "these links lead out of what is sent: {}",
            shown(outside)
        ))
        .hint("replace them by what they point to, or take what they point to along")
        .into());
    }
    Ok(tidied(found))
}

fn inspect_any(root: &Path, mut paths: Vec<String>, without: &'static str) -> Result<Vec<Found>> {
    paths.sort_unstable();
    // A file that is in conflict is listed once per version.
    paths.dedup();
    if paths.len() <= FILES_PER_THREAD_MIN {
        return look_at(root, &paths, without);
    }
    let n_threads = std::thread::available_parallelism().map_or(1, usize::from);
    let share = paths.len().div_ceil(n_threads).max(FILES_PER_THREAD_MIN);
    let mut found = Vec::with_capacity(paths.len());
    std::thread::scope(|scope| -> Result<()> {
        let parts: Vec<_> = paths
            .chunks(share)
            .map(|part| scope.spawn(move || look_at(root, part, without)))
            .collect();
        for part in parts {
            let part = part
                .join()
                .map_err(|_| Problem::new("looking at the files failed"))?;
            found.extend(part?);
        }
        Ok(())
    })?;
    Ok(found)
}

/// Something, or what makes it impossible to send.
enum Seen {
    Found(Found),
    Special(String),
    BadLink(String),
}

fn look_at(root: &Path, paths: &[String], without: &'static str) -> Result<Vec<Found>> {
    let (mut found, mut special, mut bad_links) = (Vec::with_capacity(paths.len()), vec![], vec![]);
    for path in paths {
        let on_disk = root.join(path);
        let metadata = match fs::symlink_metadata(&on_disk) {
            Ok(metadata) => metadata,
            Err(error) if is_gone(&error) => continue,
            Err(error) => return Err(error).with_context(|| format!("looking at {path}")),
        };
        match seen(&on_disk, path, &metadata)? {
            Seen::Found(thing) => found.push(thing),
            Seen::Special(name) => special.push(name),
            Seen::BadLink(name) => bad_links.push(name),
        }
    }
    if !special.is_empty() {
        return Err(Problem::new(format!(
            "only files, folders and links can be sent; these are something else: {}",
            shown(special)
        ))
        .hint(without)
        .into());
    }
    if bad_links.is_empty() {
        Ok(found)
    } else {
        Err(not_utf8(bad_links).into())
    }
}

fn is_gone(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
    )
}

fn seen(on_disk: &Path, path: &str, metadata: &Metadata) -> Result<Seen> {
    let kind = metadata.file_type();
    let kind = if kind.is_symlink() {
        let target = fs::read_link(on_disk).with_context(|| format!("reading the link {path}"))?;
        match target.to_str() {
            Some(target) => Kind::Link(target.to_owned()),
            None => return Ok(Seen::BadLink(format!("{path} -> {}", target.display()))),
        }
    } else if kind.is_dir() {
        Kind::Folder
    } else if kind.is_file() {
        Kind::File
    } else {
        let word = match () {
            () if kind.is_fifo() => "pipe",
            () if kind.is_socket() => "socket",
            () => "device",
        };
        return Ok(Seen::Special(format!("{path} ({word})")));
    };
    Ok(Seen::Found(Found {
        path: path.to_owned(),
        mode: metadata.mode() & 0o777,
        size_bytes: if kind == Kind::File {
            metadata.len()
        } else {
            0
        },
        stamp: Stamp::of(metadata),
        kind,
    }))
}

impl Stamp {
    /// Of a file.
    pub(crate) fn of(metadata: &Metadata) -> Self {
        let ns = |s: i64, ns: i64| s.saturating_mul(1_000_000_000).saturating_add(ns);
        Self {
            modified_ns: ns(metadata.mtime(), metadata.mtime_nsec()),
            changed_ns: ns(metadata.ctime(), metadata.ctime_nsec()),
            inode: metadata.ino(),
        }
    }

    /// Whether the time of modification is later or earlier than what can be kept: it counts
    /// nanoseconds, which reach from 1677 to 2262.
    pub(super) fn is_cut(&self) -> bool {
        matches!(self.modified_ns, i64::MAX | i64::MIN)
    }

    /// Of a file below an open folder.
    pub(crate) fn below(folder: &fs::File, path: &str) -> io::Result<Self> {
        let found = rustix::fs::statat(folder, path, rustix::fs::AtFlags::SYMLINK_NOFOLLOW)?;
        Ok(Self::of_stat(&found))
    }

    /// Of what the system said of it.
    pub(super) fn of_stat(found: &rustix::fs::Stat) -> Self {
        let ns = |s: i64, ns: u64| {
            let ns = i64::try_from(ns).unwrap_or_default();
            s.saturating_mul(1_000_000_000).saturating_add(ns)
        };
        Self {
            modified_ns: ns(found.st_mtime, found.st_mtime_nsec),
            changed_ns: ns(found.st_ctime, found.st_ctime_nsec),
            inode: found.st_ino,
        }
    }
}

/// Every link must stay inside: elsewhere what it points to is not there, or is something else.
fn check(root: &Path, found: &[Found]) -> Result<(), Problem> {
    let outside = outside(root, found);
    if outside.is_empty() {
        return Ok(());
    }
    Err(Problem::new(format!("these links lead out of what is sent: {}", shown(outside)))
        .hint("replace them by what they point to, or name them in .gitignore (.gridignore with --localdir)"))
}

/// Links that lead out, with where they lead.
fn outside(root: &Path, found: &[Found]) -> Vec<String> {
    found
        .iter()
        .filter_map(|found| match &found.kind {
            Kind::Link(target) if leads_outside(root, &found.path, target) => {
                Some(format!("{} -> {target}", found.path))
            }
            _ => None,
        })
        .collect()
}

pub(super) fn leads_outside(root: &Path, path: &str, target: &str) -> bool {
    let mut depth = path.split('/').count() - 1;
    for component in Path::new(target).components() {
        match component {
            Component::Normal(_) => depth += 1,
            Component::CurDir => {}
            Component::ParentDir if depth > 0 => depth -= 1,
            Component::ParentDir | Component::RootDir | Component::Prefix(_) => return true,
        }
    }
    // What looks inside may leave by way of other links.
    root.join(path)
        .canonicalize()
        .is_ok_and(|real| !real.starts_with(root))
}

/// Sorted by path; folders only where they are empty; nothing below a link.
fn tidied(mut found: Vec<Found>) -> Vec<Found> {
    let links: HashSet<String> = found
        .iter()
        .filter(|f| matches!(f.kind, Kind::Link(_)))
        .map(|f| f.path.clone())
        .collect();
    if !links.is_empty() {
        found.retain(|found| !parents(&found.path).any(|parent| links.contains(parent)));
    }
    let full: HashSet<String> = found
        .iter()
        .filter_map(|found| {
            found
                .path
                .rsplit_once('/')
                .map(|(parent, _)| parent.to_owned())
        })
        .collect();
    found.retain(|found| found.kind != Kind::Folder || !full.contains(&found.path));
    found.sort_unstable_by(|a, b| a.path.cmp(&b.path));
    found
}

fn parents(path: &str) -> impl Iterator<Item = &str> {
    path.match_indices('/').map(|(at, _)| &path[..at])
}
