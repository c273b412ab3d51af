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

/// Bytes of one write.
/// Higher: Linux looks for as much memory in one piece to keep them, and where there is none
/// at hand it clears some away first: 1 GiB in writes of 1 MiB took 1.5 seconds, and of 256
/// KiB 0.2.  Lower: more system calls.
const WRITE_BYTES_MAX: usize = 256 << 10;

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
        let (mut rest, mut at) = (parts, at);
        // How much of the first part is written.
        let mut done = 0;
        while !rest.is_empty() {
            let batch = batch(rest, done);
            if batch.is_empty() {
                break;
            }
            match rustix::io::pwritev(file, &batch, at) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => {
                    at += written as u64;
                    done += written;
                }
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
            while let Some((first, others)) = rest.split_first()
                && done >= first.len()
            {
                done -= first.len();
                rest = others;
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

/// What is written next of these parts, of whose first `done` bytes are written.
fn batch<'a>(parts: &[&'a [u8]], done: usize) -> Vec<IoSlice<'a>> {
    let mut room = WRITE_BYTES_MAX;
    let first = parts
        .first()
        .map(|part| part.get(done..).unwrap_or_default());
    let parts = first.into_iter().chain(parts.iter().skip(1).copied());
    let mut batch = Vec::new();
    for part in parts.filter(|part| !part.is_empty()) {
        if room == 0 || batch.len() == PARTS_MAX {
            break;
        }
        let part = part.get(..room).unwrap_or(part);
        room -= part.len();
        batch.push(IoSlice::new(part));
    }
    batch
}
