//! Control groups of the first generation: a tree of folders per controller.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use super::files::{PROCS, is_writable, make};
use super::{
    CPU_PERIOD_US, Counters, CpuCounter, Error, Group, Kind, Limits, cannot_make, cpu_quota_us,
};

/// The folder of this node in the trees of the controllers that can be used.
#[derive(Clone, Debug)]
pub(super) struct Tree {
    controllers: BTreeMap<Kind, PathBuf>,
    /// Only counts; may be the same folder as that of the CPU limit.
    accounting: Option<PathBuf>,
}

impl Tree {
    pub(super) fn detect(mount: &Path, folder: &str) -> Option<Self> {
        let usable = |controller: &str| {
            let parent = mount.join(controller).join(folder);
            // A controller that is not mounted is an empty folder, or none.
            if !mount.join(controller).join(PROCS).exists() {
                return None;
            }
            make(&parent).ok()?;
            is_writable(&parent.join(PROCS)).then_some(parent)
        };
        let controllers: BTreeMap<Kind, PathBuf> = Kind::ALL
            .into_iter()
            .filter_map(|kind| Some((kind, usable(kind.controller())?)))
            .collect();
        if controllers.is_empty() {
            return None;
        }
        Some(Self {
            controllers,
            accounting: usable("cpuacct"),
        })
    }

    pub(super) fn kinds(&self) -> BTreeSet<Kind> {
        self.controllers.keys().copied().collect()
    }

    pub(super) fn parents(&self) -> Vec<PathBuf> {
        self.controllers
            .values()
            .chain(&self.accounting)
            .cloned()
            .collect()
    }

    pub(super) fn create(&self, name: &str, limits: &Limits) -> Result<Group, Error> {
        // Joining a group costs as much as starting a process: only those that limit, or
        // any one, which nobody can leave.
        let is_wanted = |kind: Kind| limits.of(kind) || Some(kind) == self.cheapest(limits);
        let wanted: Vec<(&Kind, &PathBuf)> = self
            .controllers
            .iter()
            .filter(|(kind, _)| is_wanted(**kind))
            .collect();
        let mut group = self.group(name);
        group.folders.retain(|folder| {
            let parent = folder.parent();
            wanted.iter().any(|(_, limiting)| parent == Some(limiting))
        });
        for folder in &group.folders {
            make(folder).map_err(cannot_make(folder))?;
        }
        for (kind, parent) in wanted {
            let folder = parent.join(name);
            set(*kind, &folder, limits).map_err(cannot_make(&folder))?;
        }
        Ok(group)
    }

    /// The controller to hold processes together where nothing is limited.
    fn cheapest(&self, limits: &Limits) -> Option<Kind> {
        let is_limited = self.controllers.keys().any(|kind| limits.of(*kind));
        let last = self.controllers.keys().next_back().copied();
        last.filter(|_| !is_limited)
    }

    pub(super) fn open(&self, name: &str) -> Group {
        let mut group = self.group(name);
        group.folders.retain(|folder| folder.exists());
        group
    }

    fn group(&self, name: &str) -> Group {
        let mut folders: Vec<PathBuf> = self
            .parents()
            .into_iter()
            .map(|parent| parent.join(name))
            .collect();
        // Two controllers in one tree are two names of one folder.
        folders.dedup_by_key(|folder| {
            folder
                .parent()
                .and_then(|parent| fs::canonicalize(parent).ok())
        });
        let memory = self
            .controllers
            .get(&Kind::Memory)
            .map(|parent| parent.join(name));
        let accounting = self.accounting.as_ref().map(|parent| parent.join(name));
        Group {
            folders,
            counters: Counters {
                oom: memory
                    .as_ref()
                    .map(|folder| folder.join("memory.oom_control")),
                peak: memory.map(|folder| folder.join("memory.max_usage_in_bytes")),
                cpu: accounting.map(|folder| CpuCounter::Nanoseconds(folder.join("cpuacct.usage"))),
            },
        }
    }
}

fn set(kind: Kind, folder: &Path, limits: &Limits) -> std::io::Result<()> {
    let write = |file: &str, value: String| fs::write(folder.join(file), value);
    match kind {
        Kind::Cpu => {
            if let Some(cpus) = limits.cpus {
                write("cpu.cfs_period_us", CPU_PERIOD_US.to_string())?;
                write("cpu.cfs_quota_us", cpu_quota_us(cpus).to_string())?;
            }
        }
        Kind::Memory => {
            if let Some(bytes) = limits.memory_bytes {
                // Where swap is counted, memory and swap together must not be less than memory.
                let swap = folder.join("memory.memsw.limit_in_bytes");
                let _ = fs::write(&swap, "-1");
                write("memory.limit_in_bytes", bytes.to_string())?;
                let _ = fs::write(&swap, bytes.to_string());
            }
        }
        Kind::Pids => {
            if let Some(pids) = limits.pids {
                write("pids.max", pids.to_string())?;
            }
        }
    }
    Ok(())
}
