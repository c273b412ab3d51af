//! Datastores where there is no sandbox: links beside the work folder.

use std::collections::HashSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::Attempt;
use crate::folder;
use crate::prepare::Prepared;

/// Where datastores are looked for unless somebody says otherwise.
const INSIDE: &str = "/datastores";

fn links(attempt: &Attempt) -> PathBuf {
    attempt.folder.join("datastores")
}

/// The folder that is told to the script.
pub(super) fn folder(attempt: &Attempt, is_linked: bool) -> String {
    if is_linked {
        links(attempt).display().to_string()
    } else {
        INSIDE.to_owned()
    }
}

/// Makes the links, each named like the last part of where it should be.
pub(super) fn link(attempt: &Attempt, prepared: &Prepared) -> io::Result<()> {
    let links = links(attempt);
    folder::remove_all(&links)?;
    fs::create_dir(&links)?;
    let mut taken: HashSet<String> = HashSet::new();
    for mount in &prepared.mounts {
        let name = mount.to.file_name().unwrap_or_default();
        let name = name.to_string_lossy().into_owned();
        let name = if taken.contains(&name) {
            format!("{name}-{}", taken.len())
        } else {
            name
        };
        std::os::unix::fs::symlink(&mount.from, links.join(&name))?;
        if !Path::new(&mount.to).is_dir() {
            attempt.log.say(&format!(
                "The datastore is not at {} on this machine, which has no sandbox; use $GRID_DATASTORES/{name}.",
                mount.to.display()
            ));
        }
        taken.insert(name);
    }
    Ok(())
}
