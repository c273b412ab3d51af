//! What of a cache is known to be on the disk.
//!
//! Nobody waits for the disk before something of a cache is used.  Beside what runs,
//! [`Shelf::keep`] has the file system write out all that it holds back, once for whatever
//! became whole meanwhile, and notes then, by name, what was whole before.  So there is no
//! note of what is not on the disk.
//!
//! When the machine went down meanwhile, a file may have its name and its length and not
//! its bytes.  [`Shelf::open`] sees that this is another boot and tells what has no note:
//! its owner throws that away and makes it again.
//!
//! ```text
//! DIR/THINGS/NAME           something whole
//! DIR/THINGS.noted/NAME     it is on the disk
//! DIR/THINGS.noted/.boot    the boot in which the others became whole
//! ```

use std::collections::HashSet;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use crate::folder;
use crate::keeper::boot_id;

/// The pause after the disk could not be written to.  Higher: what became whole since is in
/// doubt for longer; lower: a broken disk fills the log.
const PAUSE: Duration = Duration::from_secs(60);

/// Where the boot is written; no thing begins with a dot.
const BOOT_FILE: &str = ".boot";

/// Things of a folder, and which of them are on the disk.
pub(crate) struct Shelf {
    things: PathBuf,
    notes: PathBuf,
    /// Whether something with this path is whole.
    is_whole: fn(&Path) -> bool,
    /// One for all times: what could not be written is told only to who had the file system
    /// open before.
    disk: File,
    names: Mutex<Names>,
    changed: Notify,
}

#[derive(Default)]
struct Names {
    /// What was whole before the file system was last asked to write.
    waiting: HashSet<String>,
    /// What the disk may have refused to take: nobody is told twice.
    refused: HashSet<String>,
}

impl Shelf {
    /// The things of a folder, and in another boot than the last one the names of those
    /// that may have lost bytes.
    ///
    /// What is there when there are no notes at all is of an earlier version of this
    /// program: nothing is known of it, and it is taken as it is.
    pub(crate) fn open(
        things: &Path,
        is_whole: fn(&Path) -> bool,
    ) -> io::Result<(Self, Option<Vec<String>>)> {
        fs::create_dir_all(things)?;
        let mut notes = things.as_os_str().to_owned();
        notes.push(".noted");
        let notes = PathBuf::from(notes);
        let shelf = Self {
            things: things.to_owned(),
            is_whole,
            disk: File::open(things)?,
            names: Mutex::default(),
            changed: Notify::new(),
            notes,
        };
        match fs::create_dir(&shelf.notes) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            made => {
                made?;
                shelf.settled()?;
                // Were it not on the disk, things that come later were taken for old ones.
                File::open(shelf.notes.parent().unwrap_or(things))?.sync_all()?;
                return Ok((shelf, None));
            }
        }
        shelf.drop_stale()?;
        let boot = fs::read_to_string(shelf.notes.join(BOOT_FILE)).unwrap_or_default();
        if boot == boot_id() {
            return Ok((shelf, None));
        }
        let doubtful = shelf.names_of(&shelf.things)?.into_iter();
        let doubtful = doubtful.filter(|name| !shelf.is_noted(name)).collect();
        Ok((shelf, Some(doubtful)))
    }

    /// Nothing that is in doubt is left: from now on things are of this boot.
    pub(crate) fn settled(&self) -> io::Result<()> {
        folder::write_whole(&self.notes.join(BOOT_FILE), boot_id().as_bytes())
    }

    /// Makes its folders again when somebody has removed them, which may be done while nothing
    /// runs.
    pub(crate) fn ensure(&self) -> io::Result<()> {
        fs::create_dir_all(&self.things)?;
        if self.notes.join(BOOT_FILE).exists() {
            return Ok(());
        }
        fs::create_dir_all(&self.notes)?;
        self.settled()
    }

    pub(crate) fn things(&self) -> &Path {
        &self.things
    }

    fn is_noted(&self, name: &str) -> bool {
        self.notes.join(name).exists()
    }

    /// Something became whole.
    pub(crate) fn added(&self) {
        self.changed.notify_one();
    }

    /// What has this name goes, or comes to be: it is not on the disk.
    pub(crate) fn forget(&self, name: &str) -> io::Result<()> {
        let mut names = self.lock();
        names.waiting.remove(name);
        names.refused.remove(name);
        folder::remove_all(&self.notes.join(name))
    }

    /// Has what became whole written to the disk, for ever.
    pub(crate) async fn keep(self: Arc<Self>) {
        loop {
            let shelf = Arc::clone(&self);
            let written = tokio::task::spawn_blocking(move || shelf.write_out()).await;
            match written.unwrap_or_else(|error| Err(io::Error::other(error))) {
                Ok(()) => self.changed.notified().await,
                Err(error) => {
                    tracing::error!(
                        folder = %self.things.display(), %error,
                        "what was made here last may not be on the disk, and is made again when this machine was restarted"
                    );
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }

    fn write_out(&self) -> io::Result<()> {
        let mut waiting = HashSet::new();
        for name in self.names_of(&self.things)? {
            if !self.is_noted(&name) && (self.is_whole)(&self.things.join(&name)) {
                waiting.insert(name);
            }
        }
        waiting.retain({
            let names = self.lock();
            move |name| !names.refused.contains(name)
        });
        if waiting.is_empty() {
            return Ok(());
        }
        let (count, begun) = (waiting.len(), Instant::now());
        self.lock().waiting = waiting;
        let written = rustix::fs::syncfs(&self.disk);
        let mut names = self.lock();
        let waiting = std::mem::take(&mut names.waiting);
        if let Err(error) = written {
            names.refused.extend(waiting);
            return Err(error.into());
        }
        for name in waiting {
            File::create(self.notes.join(name))?;
        }
        tracing::debug!(folder = %self.things.display(), count, took = ?begun.elapsed(), "what was made is on the disk");
        Ok(())
    }

    /// Removes notes of what is not there.
    fn drop_stale(&self) -> io::Result<()> {
        for name in self.names_of(&self.notes)? {
            if !self.things.join(&name).exists() {
                fs::remove_file(self.notes.join(&name))?;
            }
        }
        Ok(())
    }

    fn names_of(&self, folder: &Path) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(folder)? {
            let name = entry?.file_name().into_string();
            names.extend(name.ok().filter(|name| !name.starts_with('.')));
        }
        Ok(names)
    }

    fn lock(&self) -> MutexGuard<'_, Names> {
        self.names.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_whole(path: &Path) -> bool {
        path.extension().is_none()
    }

    fn open(dir: &Path) -> (Shelf, Option<Vec<String>>) {
        Shelf::open(&dir.join("things"), is_whole).expect("opened")
    }

    /// The machine was restarted.
    fn reboot(dir: &Path) {
        fs::write(dir.join("things.noted/.boot"), "another").expect("written");
    }

    #[test]
    fn after_another_boot_what_was_not_on_the_disk_is_told() {
        let dir = tempfile::tempdir().expect("a folder");
        let make = |name: &str| fs::write(dir.path().join("things").join(name), "x");
        fs::create_dir(dir.path().join("things")).expect("made");
        make("of-before").expect("written");
        let (shelf, doubtful) = open(dir.path());
        assert_eq!(doubtful, None, "an earlier program left it");
        make("first").expect("written");
        shelf.write_out().expect("written");
        make("second").expect("written");
        make("third.new").expect("written");
        assert_eq!(open(dir.path()).1, None, "the same boot");
        reboot(dir.path());
        let (shelf, doubtful) = open(dir.path());
        let mut doubtful = doubtful.expect("another boot");
        doubtful.sort();
        assert_eq!(doubtful, ["second", "third.new"]);
        assert!(open(dir.path()).1.is_some(), "until they were seen to");
        shelf.settled().expect("written");
        assert_eq!(open(dir.path()).1, None);
    }

    #[test]
    fn what_goes_while_the_disk_writes_is_not_noted() {
        let dir = tempfile::tempdir().expect("a folder");
        let (shelf, _) = open(dir.path());
        let thing = dir.path().join("things/one");
        fs::write(&thing, "x").expect("written");
        shelf.write_out().expect("written");
        assert!(shelf.is_noted("one"));
        shelf.forget("one").expect("forgotten");
        assert!(!shelf.is_noted("one"));
        shelf.lock().waiting.insert("one".to_owned());
        shelf.forget("one").expect("forgotten");
        assert!(shelf.lock().waiting.is_empty());
        // A note that a crash left behind says nothing of what comes later.
        fs::write(dir.path().join("things.noted/two"), "").expect("written");
        let (shelf, _) = open(dir.path());
        assert!(!shelf.is_noted("two"));
    }
}
