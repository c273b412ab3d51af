//! Steps on the file system, between any two of which the process may be killed.
//!
//! All writing goes through here, so that tests can have a process die at each step,
//! and in the middle of each write.

use std::fs::{self, File, OpenOptions};
use std::io::{self, IoSlice};
use std::os::unix::fs::FileExt;
use std::path::Path;
#[cfg(test)]
use std::sync::{
    Arc,
    atomic::{AtomicI64, Ordering},
};

/// Parts of one write; what Linux takes (`IOV_MAX`).
const PARTS_MAX: usize = 1024;

/// Does what it is told; in tests, until it is to die.
#[derive(Clone, Default)]
pub(super) struct Disk {
    #[cfg(test)]
    pub(super) steps_left: Option<Arc<AtomicI64>>,
    /// Whether what is sent last arrives.
    #[cfg(test)]
    pub(super) last_arrives: bool,
}

impl Disk {
    /// Whether this step is done: a process that died does nothing more.
    #[cfg(test)]
    pub(super) fn step(&self) -> io::Result<()> {
        let Some(left) = &self.steps_left else {
            return Ok(());
        };
        if left.fetch_sub(1, Ordering::SeqCst) > 0 {
            return Ok(());
        }
        Err(io::Error::other("killed"))
    }

    #[cfg(not(test))]
    #[expect(clippy::unused_self, reason = "in tests it counts")]
    #[expect(clippy::unnecessary_wraps, reason = "in tests it fails")]
    pub(super) fn step(&self) -> io::Result<()> {
        Ok(())
    }

    /// Opens a file for reading and writing, and makes it if it is not there.
    pub(super) fn open(&self, path: &Path) -> io::Result<File> {
        self.step()?;
        OpenOptions::new()
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .open(path)
    }

    pub(super) fn write_at(&self, file: &File, bytes: &[u8], at: u64) -> io::Result<()> {
        let step = self.step();
        // The first half may be there.  Of a process that died before, nothing.
        #[cfg(test)]
        if step.is_err() && self.is_dying() {
            file.write_all_at(&bytes[..bytes.len() / 2], at)?;
        }
        step?;
        file.write_all_at(bytes, at)
    }

    /// Writes these, one behind the other, without putting them together first.
    pub(super) fn write_parts_at(&self, file: &File, parts: &[&[u8]], at: u64) -> io::Result<()> {
        let step = self.step();
        // The first half may be there, as in `write_at`.
        #[cfg(test)]
        if step.is_err() && self.is_dying() {
            let whole = parts.concat();
            file.write_all_at(&whole[..whole.len() / 2], at)?;
        }
        step?;
        let mut slices: Vec<IoSlice<'_>> = parts
            .iter()
            .filter(|part| !part.is_empty())
            .map(|part| IoSlice::new(part))
            .collect();
        let (mut rest, mut at) = (slices.as_mut_slice(), at);
        while !rest.is_empty() {
            let batch = rest.get(..PARTS_MAX).unwrap_or(rest);
            match rustix::io::pwritev(file, batch, at) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => {
                    IoSlice::advance_slices(&mut rest, written);
                    at += written as u64;
                }
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    pub(super) fn set_len(&self, file: &File, len: u64) -> io::Result<()> {
        self.step()?;
        file.set_len(len)
    }

    pub(super) fn sync(&self, file: &File) -> io::Result<()> {
        self.step()?;
        file.sync_data()
    }

    pub(super) fn remove(&self, path: &Path) -> io::Result<()> {
        self.step()?;
        fs::remove_file(path)
    }

    pub(super) fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.step()?;
        fs::rename(from, to)
    }

    /// Whether the step that was just not done is done all the same.
    #[cfg(test)]
    pub(super) fn does_last(&self) -> bool {
        self.last_arrives && self.is_dying()
    }

    #[cfg(test)]
    fn is_dying(&self) -> bool {
        let left = self.steps_left.as_ref();
        left.is_some_and(|left| left.load(Ordering::SeqCst) == -1)
    }
}
