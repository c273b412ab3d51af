//! Datastores by their names in one folder, whatever place people chose for them: links beside
//! the work folder where there is no sandbox, and in it another mount.

use std::collections::HashSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::Attempt;
use crate::folder;
use crate::prepare::Prepared;
use crate::prepare::data::Mounted;

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

/// What each is called in that folder: like the last part of where it should be.
fn names(mounts: &[Mounted]) -> Vec<String> {
    let mut taken: HashSet<String> = HashSet::new();
    let mut names = Vec::with_capacity(mounts.len());
    for mount in mounts {
        let name = mount.to.file_name().unwrap_or_default();
        let name = name.to_string_lossy().into_owned();
        let name = if taken.contains(&name) {
            format!("{name}-{}", taken.len())
        } else {
            name
        };
        taken.insert(name.clone());
        names.push(name);
    }
    names
}

/// The mounts of a sandbox: where people want them, and in the one folder, so that a script
/// that goes by it finds them on every machine.
pub(super) fn with_names(mounts: &[Mounted]) -> Vec<Mounted> {
    let mut all = mounts.to_vec();
    for (mount, name) in mounts.iter().zip(names(mounts)) {
        let to = Path::new(INSIDE).join(name);
        // Nothing can be mounted in what is mounted, which is read-only.
        let is_free = |other: &Mounted| !other.to.starts_with(&to) && !to.starts_with(&other.to);
        if all.iter().all(is_free) {
            let from = mount.from.clone();
            all.push(Mounted { from, to });
        }
    }
    all
}

/// Why a datastore cannot be mounted where it is wanted on this machine: over what it keeps
/// below `own` for experiments, their work folders and environments.
pub(super) fn obstacle(mounts: &[Mounted], own: &Path) -> Option<String> {
    let is_in_the_way = |to: &&PathBuf| own.starts_with(to) || to.starts_with(own);
    let mut places = mounts.iter().map(|mount| &mount.to);
    let place = places.find(is_in_the_way)?;
    Some(format!(
        "no datastore can be mounted at {} on this machine, which has the folders of experiments \
         at {}: choose another place with --datastore_mount_dir",
        place.display(),
        own.display()
    ))
}

/// Makes the links.
pub(super) fn link(attempt: &Attempt, prepared: &Prepared) -> io::Result<()> {
    let links = links(attempt);
    folder::remove_all(&links)?;
    fs::create_dir(&links)?;
    for (mount, name) in prepared.mounts.iter().zip(names(&prepared.mounts)) {
        std::os::unix::fs::symlink(&mount.from, links.join(&name))?;
        if !Path::new(&mount.to).is_dir() {
            attempt.log.say(&format!(
                "The datastore is not at {} on this machine, which has no sandbox; use $GRID_DATASTORES/{name}.",
                mount.to.display()
            ));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places(wanted: &[&str]) -> Vec<String> {
        let mounted = |to: &&str| Mounted {
            from: PathBuf::from("/cache"),
            to: PathBuf::from(to),
        };
        let mounts: Vec<Mounted> = wanted.iter().map(mounted).collect();
        let all = with_names(&mounts);
        all.iter().map(|one| one.to.display().to_string()).collect()
    }

    #[test]
    fn what_would_cover_the_work_folder_is_told_by_its_name() {
        let at = |to: &str| {
            let mounted = Mounted {
                from: PathBuf::from("/cache"),
                to: PathBuf::from(to),
            };
            obstacle(&[mounted], Path::new("/srv/ada/.grid/runner"))
        };
        for place in ["/srv", "/srv/ada", "/srv/ada/.grid/runner/attempts/1"] {
            let told = at(place).expect("told");
            assert!(told.contains(&format!("mounted at {place} on")), "{told}");
        }
        for place in ["/datastores/cats", "/srv/ada/data", "/srv/ad"] {
            assert_eq!(at(place), None);
        }
    }

    #[test]
    fn a_datastore_is_also_where_a_script_looks_for_it_by_its_name() {
        assert_eq!(places(&["/datastores/cats"]), ["/datastores/cats"]);
        assert_eq!(places(&["/my/data"]), ["/my/data", "/datastores/data"]);
        assert_eq!(
            places(&["/a/x", "/b/x"]),
            ["/a/x", "/b/x", "/datastores/x", "/datastores/x-1"]
        );
        // Where no other mount can be.
        assert_eq!(places(&["/datastores"]), ["/datastores"]);
        assert_eq!(
            places(&["/datastores/x/y", "/my/x"]),
            ["/datastores/x/y", "/my/x", "/datastores/y"]
        );
    }
}
