//! Folders of attempts that left nothing behind, kept for the next attempts.
//!
//! Short experiments would otherwise spend most of their time on folders: a file
//! system is slow at making files where many have just been removed, and at giving
//! back their blocks.  A folder is moved here and from here by renaming, so that at
//! any moment it belongs to one attempt or to none.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use crate::folder;
use crate::keeper::spawn::{FORGOTTEN, SANDBOX_FILE, TASK_FILE};
use crate::keeper::spool::{EXIT_FILE, FRESH_EXIT_FILE};
use crate::prepare::tree::BEFORE_FILE;

/// Folders of each kind that are kept.  Higher: more of them lie about; lower: many
/// short experiments at once make and remove their own.
const SPARE_MAX: usize = 256;

/// What the folder of an attempt may hold to be used again, beside the list of what was
/// there before: of these, the first is a file and the others are empty folders.
const ROOM: [&str; 4] = ["launch.json", "work", "home", "tmp"];

/// The spare folders of a runner.
#[derive(Debug)]
pub(crate) struct Spare {
    dir: PathBuf,
    rooms: Mutex<Vec<PathBuf>>,
    spools: Mutex<Vec<PathBuf>>,
    names: AtomicU64,
}

impl Spare {
    /// Begins with none: what a former runner kept is removed.
    pub(crate) fn open(dir: PathBuf) -> io::Result<Self> {
        folder::remove_all(&dir)?;
        fs::create_dir(&dir)?;
        Ok(Self {
            dir,
            rooms: Mutex::default(),
            spools: Mutex::default(),
            names: AtomicU64::new(0),
        })
    }

    /// Makes a spare folder the one of an attempt, with its order in it; false when
    /// there is none to be had.
    pub(crate) fn furnish(&self, own: &Path, order: &[u8]) -> bool {
        let Some(room) = take(&self.rooms) else {
            return false;
        };
        let [launch, ..] = ROOM;
        // In this sequence: a folder among the attempts has its own order in it.
        let moved = overwrite(&room.join(launch), order).and_then(|()| fs::rename(&room, own));
        moved.is_ok() || drop_spare(&room)
    }

    /// Takes the folder of an attempt, if that has left nothing in it.
    pub(crate) fn keep_room(&self, own: &Path) -> bool {
        is_like_new(own).unwrap_or(false) && self.keep(&self.rooms, own)
    }

    /// Makes a spare folder the spool of a task to come.  Without one the keeper makes it.
    pub(crate) fn furnish_spool(&self, spool: &Path) {
        if let Some(spare) = take(&self.spools)
            && fs::rename(&spare, spool).is_err()
        {
            // There is a spool already.
            drop_spare(&spare);
        }
    }

    /// Takes the spool of a task that was forgotten, if that has written nothing.
    pub(crate) fn keep_spool(&self, spool: &Path) -> bool {
        is_silent(spool).unwrap_or(false)
            // What is used again must not look as if it had ended.
            && fs::rename(spool.join(EXIT_FILE), spool.join(FRESH_EXIT_FILE)).is_ok()
            && self.keep(&self.spools, spool)
    }

    fn keep(&self, kept: &Mutex<Vec<PathBuf>>, own: &Path) -> bool {
        let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() >= SPARE_MAX {
            return false;
        }
        let name = self.names.fetch_add(1, Ordering::Relaxed);
        let spare = self.dir.join(name.to_string());
        let is_moved = fs::rename(own, &spare).is_ok();
        if is_moved {
            kept.push(spare);
        }
        is_moved
    }
}

fn take(kept: &Mutex<Vec<PathBuf>>) -> Option<PathBuf> {
    kept.lock().unwrap_or_else(PoisonError::into_inner).pop()
}

/// Removes what could not be used; what stays behind goes with the next start.
fn drop_spare(spare: &Path) -> bool {
    let _ = folder::remove_all(spare);
    false
}

/// Writes a file in place: what it held before is cut off last, and its block stays.
pub(crate) fn overwrite(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = File::options()
        .write(true)
        .create(true)
        .truncate(false)
        .open(path)?;
    file.write_all(bytes)?;
    file.set_len(bytes.len() as u64)
}

/// Whether nothing tells a folder from one that was just made for an attempt.
fn is_like_new(own: &Path) -> io::Result<bool> {
    let found = fs::symlink_metadata(own)?;
    let [launch, folders @ ..] = ROOM;
    for entry in fs::read_dir(own)? {
        let entry = entry?;
        let name = entry.file_name();
        if name == BEFORE_FILE {
            // Only a link to the list of the code, which stays.
            fs::remove_file(entry.path())?;
            continue;
        }
        let is_folder = folders.iter().any(|folder| name == *folder);
        if is_folder && !is_untouched(&entry.path(), found.uid())? {
            return Ok(false);
        }
        if !is_folder && (name != launch || !entry.file_type()?.is_file()) {
            return Ok(false);
        }
    }
    Ok(found.is_dir())
}

fn is_untouched(folder: &Path, owner: u32) -> io::Result<bool> {
    let found = fs::symlink_metadata(folder)?;
    let is_ours = found.is_dir() && found.uid() == owner;
    let is_as_made = matches!(found.mode() & 0o7777, 0o700 | 0o755);
    // Attributes of its own: access for others, for example.
    let is_plain = rustix::fs::llistxattr(folder, &mut [0_u8; 0]).is_ok_and(|length| length == 0);
    Ok(is_ours && is_as_made && is_plain && fs::read_dir(folder)?.next().is_none())
}

fn is_silent(spool: &Path) -> io::Result<bool> {
    for entry in fs::read_dir(spool)? {
        let entry = entry?;
        let name = entry.file_name();
        let is_forgotten = name == TASK_FILE && entry.metadata()?.len() == FORGOTTEN.len() as u64;
        // What bubblewrap reports begins anew with each task.
        if !is_forgotten && name != EXIT_FILE && name != SANDBOX_FILE {
            return Ok(false);
        }
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn room(dir: &Path, name: &str) -> PathBuf {
        let own = dir.join(name);
        for folder in ["work", "home", "tmp"] {
            fs::create_dir_all(own.join(folder)).expect("made");
        }
        fs::write(own.join("launch.json"), "an order that is longer").expect("written");
        fs::write(own.join(BEFORE_FILE), "{}").expect("written");
        own
    }

    #[test]
    fn a_folder_in_which_nothing_was_left_is_used_again() {
        let dir = tempfile::tempdir().expect("a folder");
        let spare = Spare::open(dir.path().join("spare")).expect("opened");
        let next = dir.path().join("b");
        assert!(!spare.furnish(&next, b"x"), "there is none yet");
        let own = room(dir.path(), "a");
        assert!(spare.keep_room(&own) && !own.exists());
        assert!(spare.furnish(&next, b"another"));
        let order = fs::read_to_string(next.join("launch.json")).expect("there");
        assert_eq!(order, "another");
        assert!(next.join("work").is_dir() && !next.join(BEFORE_FILE).exists());
        assert!(!spare.furnish(&own, b"x"), "it was the only one");
    }

    #[test]
    fn a_folder_that_was_touched_is_not() {
        let touches: [fn(&Path); 5] = [
            |own| fs::write(own.join("work/new"), "x").expect("written"),
            |own| fs::write(own.join("state.json"), "x").expect("written"),
            |own| fs::create_dir(own.join("home/.cache")).expect("made"),
            |own| {
                let open = fs::Permissions::from_mode(0o777);
                fs::set_permissions(own.join("tmp"), open).expect("set");
            },
            |own| {
                fs::remove_dir(own.join("work")).expect("removed");
                std::os::unix::fs::symlink("/etc", own.join("work")).expect("linked");
            },
        ];
        let dir = tempfile::tempdir().expect("a folder");
        let spare = Spare::open(dir.path().join("spare")).expect("opened");
        for (number, touch) in touches.iter().enumerate() {
            let own = room(dir.path(), &number.to_string());
            touch(&own);
            assert!(!spare.keep_room(&own) && own.exists(), "{number}");
        }
    }

    #[test]
    fn a_spool_that_is_used_again_does_not_look_ended() {
        let dir = tempfile::tempdir().expect("a folder");
        let spare = Spare::open(dir.path().join("spare")).expect("opened");
        let (first, second) = (dir.path().join("a"), dir.path().join("b"));
        fs::create_dir(&first).expect("made");
        fs::write(first.join(EXIT_FILE), "{}").expect("written");
        fs::write(first.join(TASK_FILE), "{\"key\":\"a\"}").expect("written");
        assert!(!spare.keep_spool(&first), "it was not forgotten");
        overwrite(&first.join(TASK_FILE), b"\n").expect("written");
        assert!(spare.keep_spool(&first));
        spare.furnish_spool(&second);
        assert!(second.join(TASK_FILE).exists() && !second.join(EXIT_FILE).exists());
    }
}
