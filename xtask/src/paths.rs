//! Where things are in this repository.

use std::path::PathBuf;

/// The folder of the workspace's `Cargo.toml`.
pub(crate) fn root() -> PathBuf {
    let here = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    let root = here.parent().unwrap_or(&here);
    // Without links in it, so that it compares equal to what the system says about processes.
    root.canonicalize().unwrap_or_else(|_| root.to_owned())
}

/// Where cargo puts what it builds.
pub(crate) fn target() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR")
        .map_or_else(|| root().join("target"), |dir| root().join(dir))
}

/// Programs and caches that this tool keeps, so that a second check is fast.
pub(crate) fn tools() -> PathBuf {
    target().join("tools")
}
