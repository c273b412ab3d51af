//! Times of what a version has for itself.

use std::io;
use std::path::Path;

/// Sets the modification time of a file, of an empty folder or of a link, also one before 1970.
pub(super) fn date(path: &Path, modified_ms: i64) -> io::Result<()> {
    let at = rustix::fs::Timespec {
        tv_sec: modified_ms.div_euclid(1_000),
        tv_nsec: modified_ms.rem_euclid(1_000) * 1_000_000,
    };
    let times = rustix::fs::Timestamps {
        last_access: at,
        last_modification: at,
    };
    let flags = rustix::fs::AtFlags::SYMLINK_NOFOLLOW;
    match rustix::fs::utimensat(rustix::fs::CWD, path, &times, flags) {
        // A file system that keeps no time of links.
        Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::NOSYS) => Ok(()),
        done => Ok(done?),
    }
}
