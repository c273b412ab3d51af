//! Control groups that a runner made: they outlive its processes, and its folder.

use std::path::{Path, PathBuf};
use std::time::Duration;

/// Where control groups are mounted, of both generations.
const MOUNT: &str = "/sys/fs/cgroup";

/// How deep they are looked for: a runner makes its folder in the group that it is in.
const DEPTH_MAX: u32 = 6;

/// How long those who were killed may take to be gone.
const PATIENCE: Duration = Duration::from_secs(5);

/// Folders of groups of the runner that works in this folder.
pub fn of_runner(dir: &Path) -> Vec<PathBuf> {
    let hash = blake3::hash(dir.as_os_str().as_encoded_bytes()).to_hex();
    let end = format!("-{}", &hash[..8]);
    let mut found = Vec::new();
    look(Path::new(MOUNT), &end, DEPTH_MAX, &mut found);
    found
}

fn look(folder: &Path, end: &str, depth: u32, found: &mut Vec<PathBuf>) {
    for inner in folders(folder) {
        let name = inner.file_name().unwrap_or_default().to_string_lossy();
        if name.starts_with("grid-") && name.ends_with(end) {
            found.push(inner);
        } else if depth > 0 {
            look(&inner, end, depth - 1, found);
        }
    }
}

fn folders(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .map(|entry| entry.path())
        .collect()
}

/// Removes the groups of the runner that works in this folder; its processes were killed.
/// Says which stay.
pub fn remove(dir: &Path) -> Vec<PathBuf> {
    let deadline = super::now() + PATIENCE;
    loop {
        let left: Vec<PathBuf> = of_runner(dir)
            .into_iter()
            .filter(|group| remove_tree(group).is_err() && group.exists())
            .collect();
        if left.is_empty() || super::now() >= deadline {
            return left;
        }
        super::pause(Duration::from_millis(10));
    }
}

/// Folder by folder: the files of a group cannot be removed.
fn remove_tree(group: &Path) -> std::io::Result<()> {
    for inner in folders(group) {
        remove_tree(&inner)?;
    }
    std::fs::remove_dir(group)
}
