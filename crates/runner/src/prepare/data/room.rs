//! What the cache of datastores takes up, and making room in it.

use std::collections::HashSet;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use crate::folder;
use crate::prepare::shelf::Shelf;

/// What is left of a full cache, in percent.
const KEPT_PERCENT: u64 = 80;

/// Removes versions that are gone, those that were never whole, and bytes that no version has;
/// gives the bytes that are left.  Nobody may be at work on the cache.
pub(super) fn tidy(blobs: &Path, shelf: &Shelf, gone: &HashSet<String>) -> io::Result<u64> {
    for entry in fs::read_dir(shelf.things())?.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if gone.contains(&name) || is_unfinished(&name) {
            discard(shelf, &name)?;
        }
    }
    unlinked(blobs)
}

/// Removes versions that nobody uses, the one not used for longest first, until little
/// enough is left; then bytes that no version has.  Gives the bytes that are left.
pub(super) fn clean(
    blobs: &Path,
    shelf: &Shelf,
    used: &HashSet<String>,
    most: u64,
) -> io::Result<u64> {
    let mut left = files(blobs).map(|(_, found)| room(&found)).sum::<u64>();
    if left <= most {
        return Ok(left);
    }
    let mut versions = Vec::new();
    for entry in fs::read_dir(shelf.things())?.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let id = name.split('.').next().unwrap_or(&name);
        if !used.contains(id) {
            let at = entry.metadata().and_then(|found| found.modified());
            versions.push((at.unwrap_or(SystemTime::UNIX_EPOCH), name));
        }
    }
    versions.sort();
    let wanted = most / 100 * KEPT_PERCENT;
    for (_, name) in versions {
        if left <= wanted {
            break;
        }
        // Of its own: what no other version has a name for.
        let own: u64 = files(&shelf.things().join(&name))
            .filter(|(_, found)| found.nlink() <= 2)
            .map(|(_, found)| room(&found))
            .sum();
        discard(shelf, &name)?;
        left = left.saturating_sub(own);
    }
    unlinked(blobs)
}

/// Whether a name is that of something on its way, or half gone.
fn is_unfinished(name: &str) -> bool {
    name.ends_with(".new")
}

/// Removes a version; it loses its name first, so that no half of one is ever taken for it.
fn discard(shelf: &Shelf, name: &str) -> io::Result<()> {
    if is_unfinished(name) {
        return folder::remove_all(&shelf.things().join(name));
    }
    folder::remove_all(&put_aside(shelf, name)?)
}

/// Takes its name from a version; gives where it is.
pub(super) fn put_aside(shelf: &Shelf, name: &str) -> io::Result<PathBuf> {
    let aside = shelf.things().join(format!("{name}.old.new"));
    folder::remove_all(&aside)?;
    shelf.forget(name)?;
    fs::rename(shelf.things().join(name), &aside)?;
    Ok(aside)
}

/// Removes what former fetches of a version left: those that were given up.  One may still be
/// at its last step, and then some of it stays until the cache is tidied.
pub(super) fn remove_unfinished(shelf: &Shelf, id: &str) {
    for entry in fs::read_dir(shelf.things()).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if is_unfinished(&name) && name.split('.').next() == Some(id) {
            let _ = folder::remove_all(&entry.path());
        }
    }
}

/// Removes bytes that no version has; gives those that are left.
fn unlinked(blobs: &Path) -> io::Result<u64> {
    let mut kept = 0;
    for (path, found) in files(blobs) {
        if found.nlink() <= 1 {
            fs::remove_file(path)?;
        } else {
            kept += room(&found);
        }
    }
    Ok(kept)
}

/// What a file takes up: a hole takes nothing.
fn room(found: &fs::Metadata) -> u64 {
    found.len().min(found.blocks().saturating_mul(512))
}

/// The files below a folder.
pub(super) fn files(folder: &Path) -> impl Iterator<Item = (PathBuf, fs::Metadata)> {
    walkdir::WalkDir::new(folder)
        .into_iter()
        .flatten()
        .filter(|entry| entry.file_type().is_file())
        .filter_map(|entry| Some((entry.path().to_owned(), entry.metadata().ok()?)))
}
