//! What an attempt may see and use: the sandbox and the limits, put together.

use std::path::{Path, PathBuf};

use grid_core::cluster::Placement;

use crate::keeper::protocol::Spawn;
use crate::limits::{Driver, Group, Limits};
use crate::prepare::data::Mounted;
use crate::sandbox::{Isolation, Room};

/// Processes and threads of one attempt.  Higher: a fork bomb hurts its neighbours;
/// lower: honest data loaders with many workers on large machines fail.
const PIDS_MAX: u64 = 16_384;

/// Folders of people and services, in which nothing on the system's search path is
/// visible to a sandboxed process.
const UNSEEN: [&str; 4] = ["/root", "/home", "/tmp", "/run"];

/// How processes are confined on this machine.
pub(crate) struct Confinement {
    pub(crate) isolation: Isolation,
    pub(crate) driver: Driver,
    /// Folders that no process may see.
    pub(crate) hidden: Vec<PathBuf>,
    /// What every process may read, wherever it lies: the system's Python.
    pub(crate) readable: Vec<PathBuf>,
}

/// The room of one process.
pub(crate) struct Walls<'a> {
    pub(crate) writable: Vec<PathBuf>,
    pub(crate) readable: &'a [PathBuf],
    pub(crate) mounts: &'a [Mounted],
    pub(crate) tmp: &'a Path,
    pub(crate) gpus: &'a [u32],
}

impl Confinement {
    pub(crate) fn is_sandboxed(&self) -> bool {
        self.isolation != Isolation::Plain
    }

    /// Where temporary files go, as the process sees it.
    pub(crate) fn tmp_inside<'a>(&self, tmp: &'a Path) -> &'a Path {
        if self.is_sandboxed() {
            Path::new("/tmp")
        } else {
            tmp
        }
    }

    /// The folders of a search path that a process can see.
    pub(crate) fn visible(&self, path: Vec<PathBuf>) -> Vec<PathBuf> {
        let is_seen = |folder: &PathBuf| {
            self.readable.iter().any(|shown| folder.starts_with(shown))
                || !UNSEEN.iter().any(|hidden| folder.starts_with(hidden))
        };
        if self.is_sandboxed() {
            path.into_iter().filter(is_seen).collect()
        } else {
            path
        }
    }

    pub(crate) fn enclose(&self, spawn: Spawn, walls: Walls<'_>) -> Spawn {
        let readable = self.readable.iter().chain(walls.readable).cloned();
        let room = Room {
            writable: walls.writable,
            readable: readable.collect(),
            mounts: walls
                .mounts
                .iter()
                .map(|mount| (mount.from.clone(), mount.to.clone()))
                .collect(),
            hidden: self.hidden.clone(),
            tmp: Some(walls.tmp.to_owned()),
            gpus: walls.gpus.to_vec(),
        };
        self.isolation.enclose(spawn, &room)
    }

    /// The group of an attempt, with its limits.  Without one it runs unlimited: at
    /// start-up people were told what is not enforced here.
    pub(crate) fn group(&self, name: &str, placement: &Placement) -> Group {
        let limits = Limits {
            cpus: (placement.cpus > 0).then(|| f64::from(placement.cpus)),
            memory_bytes: (placement.memory_bytes > 0).then_some(placement.memory_bytes),
            pids: Some(PIDS_MAX),
        };
        self.driver.create(name, &limits).unwrap_or_else(|error| {
            tracing::warn!(
                name,
                error = &error as &dyn std::error::Error,
                "its limits are not enforced"
            );
            Group::default()
        })
    }
}

/// A number of bytes as people say it.
pub(crate) fn bytes_in_words(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["bytes", "KiB", "MiB", "GiB", "TiB"];
    let mut unit = 0;
    let mut scale = 1_u64;
    while unit + 1 < UNITS.len() && bytes / scale >= 1024 {
        scale *= 1024;
        unit += 1;
    }
    let name = UNITS.get(unit).unwrap_or(&"bytes");
    if bytes.is_multiple_of(scale) {
        format!("{} {name}", bytes / scale)
    } else {
        let tenths = u128::from(bytes) * 10 / u128::from(scale);
        format!("{}.{} {name}", tenths / 10, tenths % 10)
    }
}

#[cfg(test)]
mod tests {
    use super::bytes_in_words;

    #[test]
    fn bytes_are_said_in_words() {
        for (bytes, words) in [
            (0, "0 bytes"),
            (1023, "1023 bytes"),
            (512 << 20, "512 MiB"),
            (3 << 29, "1.5 GiB"),
        ] {
            assert_eq!(bytes_in_words(bytes), words);
        }
    }
}
