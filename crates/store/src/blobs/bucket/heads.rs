//! What is in each pack, on the local disk: copies of the packs' ends.
//!
//! They are a cache: what is missing or wrong is fetched again.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use super::object::{LINE_BYTES, Line, Name, TAIL_BYTES, parse_end};

/// Files that are kept open.
/// Higher: more file descriptors.  Lower: more opening when reads are spread widely.
const OPEN_MAX: usize = 256;

pub(super) struct Heads {
    dir: PathBuf,
    open: Mutex<HashMap<Name, Arc<File>>>,
}

impl Heads {
    pub(super) fn open(dir: PathBuf) -> io::Result<Self> {
        fs::create_dir_all(&dir)?;
        let open = Mutex::default();
        Ok(Self { dir, open })
    }

    fn path(&self, name: Name) -> PathBuf {
        self.dir.join(name.to_string())
    }

    /// Keeps the end of a pack.
    pub(super) fn write(&self, name: Name, end: &[u8]) -> io::Result<()> {
        write_whole(&self.path(name), end)
    }

    /// What is in a pack and how long its records are, if it is kept here undamaged.
    pub(super) fn read(&self, name: Name) -> Option<(Vec<Line>, u64)> {
        parse_end(&fs::read(self.path(name)).ok()?)
    }

    /// The line of the record that begins here; `None` when it is not known here.
    pub(super) fn find(&self, name: Name, at: u64) -> Option<Line> {
        let file = self.file(name)?;
        let len = file.metadata().ok()?.len();
        let (mut low, mut high) = (0, len.checked_sub(TAIL_BYTES as u64)? / LINE_BYTES as u64);
        while low < high {
            let middle = low.midpoint(high);
            let mut bytes = [0; LINE_BYTES];
            file.read_exact_at(&mut bytes, middle * LINE_BYTES as u64)
                .ok()?;
            let line = Line::parse(&bytes);
            match line.at.cmp(&at) {
                std::cmp::Ordering::Equal => return Some(line),
                std::cmp::Ordering::Less => low = middle + 1,
                std::cmp::Ordering::Greater => high = middle,
            }
        }
        None
    }

    fn file(&self, name: Name) -> Option<Arc<File>> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(file) = open.get(&name) {
            return Some(Arc::clone(file));
        }
        let file = Arc::new(File::open(self.path(name)).ok()?);
        if open.len() >= OPEN_MAX {
            open.clear();
        }
        open.insert(name, Arc::clone(&file));
        Some(file)
    }

    pub(super) fn remove(&self, name: Name) {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.remove(&name);
        drop(open);
        // What stays behind is removed at the next start.
        let _ = fs::remove_file(self.path(name));
    }

    /// Removes what is kept of packs that are gone.
    pub(super) fn keep_only(&self, is_there: impl Fn(Name) -> bool) -> io::Result<()> {
        remove_others(&self.dir, is_there)
    }
}

/// Writes a file whole or not at all.
pub(super) fn write_whole(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let new = path.with_extension("new");
    fs::write(&new, bytes).and_then(|()| fs::rename(&new, path))
}

/// Removes all files that are not named as one of these packs.
pub(super) fn remove_others(dir: &Path, is_there: impl Fn(Name) -> bool) -> io::Result<()> {
    for file in fs::read_dir(dir)? {
        let file = file?;
        let name = file.file_name();
        let name = name.to_str().and_then(|name| name.parse().ok());
        if !name.is_some_and(&is_there) {
            fs::remove_file(file.path())?;
        }
    }
    Ok(())
}
