//! The keeper's own log: a few lines about what went wrong, for operators.

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;

use super::clock;

/// Size at which a starting keeper begins a new log, in bytes.
/// Higher: old lines are kept longer.  Lower: they are gone when they are wanted.
const LOG_BYTES_MAX: u64 = 1024 * 1024;

/// Lines that one keeper writes at most.
/// Higher: a fault that repeats fills the disk.  Lower: the interesting one is missing.
const LINES_MAX: u32 = 5_000;

/// Where the keeper writes.  Never fails: a keeper without a log still keeps.
pub(crate) struct Journal {
    file: Option<File>,
    lines: std::cell::Cell<u32>,
}

impl Journal {
    pub(crate) fn open(path: &Path) -> Self {
        if fs::metadata(path).is_ok_and(|found| found.len() > LOG_BYTES_MAX) {
            let _ = fs::rename(path, path.with_extension("log.old"));
        }
        let file = File::options().create(true).append(true).open(path).ok();
        Self {
            file,
            lines: std::cell::Cell::new(0),
        }
    }

    pub(crate) fn say(&self, what: &str) {
        let lines = self.lines.get();
        if lines >= LINES_MAX {
            return;
        }
        self.lines.set(lines + 1);
        if let Some(mut file) = self.file.as_ref() {
            let line = format!("{} {what}\n", clock::wall_ms());
            let _ = file.write_all(line.as_bytes());
        }
    }
}
