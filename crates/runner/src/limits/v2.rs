//! Control groups of the second generation: one tree for all controllers.
//!
//! A controller can be used in a group only if every group above it hands it down,
//! and a group that hands something down may have no processes of its own.  Root
//! makes its folder at the top; an ordinary user below its own group, if that was
//! delegated to it (systemd: `Delegate=yes`) and holds nobody but ourselves.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::files::{PROCS, is_writable, make};
use super::{
    CPU_PERIOD_US, Counters, CpuCounter, Error, Group, Kind, Limits, cannot_make, cpu_quota_us,
};

/// Lists the controllers that a group may use.
const CONTROLLERS: &str = "cgroup.controllers";

/// Lists the controllers that a group hands down.
const HANDED_DOWN: &str = "cgroup.subtree_control";

/// The group for this process when it has to leave its own.
const OWN_LEAF: &str = "grid-runner";

/// The folder of this node.
#[derive(Clone, Debug)]
pub(super) struct Tree {
    parent: PathBuf,
    kinds: BTreeSet<Kind>,
}

impl Tree {
    /// The tree, or why there is none that could be used.
    pub(super) fn detect(mount: &Path, folder: &str) -> Result<Self, String> {
        if !mount.join(CONTROLLERS).exists() {
            return Err("this system has no control groups".to_owned());
        }
        let at_top = Self::below(mount, folder);
        let own = own_group(mount).filter(|own| own != mount);
        match (at_top, own) {
            (Ok(tree), _) => Ok(tree),
            (Err(_), Some(own)) => Self::below(&own, folder),
            (Err(error), None) => Err(error),
        }
    }

    fn below(top: &Path, folder: &str) -> Result<Self, String> {
        let parent = top.join(folder);
        make(&parent).map_err(|error| {
            format!("cannot make a control group in {}: {error}", top.display())
        })?;
        let kinds: BTreeSet<Kind> = Kind::ALL
            .into_iter()
            .filter(|kind| hand_down(top, *kind))
            .collect();
        let kinds: BTreeSet<Kind> = kinds
            .into_iter()
            .filter(|kind| hand_down(&parent, *kind))
            .collect();
        if kinds.is_empty() || !is_writable(&parent.join(PROCS)) {
            let _ = fs::remove_dir(&parent);
            return Err(format!(
                "no control group controller is delegated to us in {}",
                top.display()
            ));
        }
        Ok(Self { parent, kinds })
    }

    pub(super) fn kinds(&self) -> BTreeSet<Kind> {
        self.kinds.clone()
    }

    pub(super) fn parents(&self) -> Vec<PathBuf> {
        vec![self.parent.clone()]
    }

    pub(super) fn create(&self, name: &str, limits: &Limits) -> Result<Group, Error> {
        let folder = self.parent.join(name);
        make(&folder).map_err(cannot_make(&folder))?;
        for kind in &self.kinds {
            set(*kind, &folder, limits).map_err(cannot_make(&folder))?;
        }
        Ok(group(folder))
    }

    pub(super) fn open(&self, name: &str) -> Group {
        let folder = self.parent.join(name);
        if folder.exists() {
            group(folder)
        } else {
            Group::default()
        }
    }
}

fn group(folder: PathBuf) -> Group {
    Group {
        counters: Counters {
            oom: Some(folder.join("memory.events")),
            peak: Some(folder.join("memory.peak")),
            cpu: Some(CpuCounter::UsageUsec(folder.join("cpu.stat"))),
        },
        folders: vec![folder],
    }
}

fn set(kind: Kind, folder: &Path, limits: &Limits) -> io::Result<()> {
    let write = |file: &str, value: String| fs::write(folder.join(file), value);
    match kind {
        Kind::Cpu => match limits.cpus {
            Some(cpus) => write("cpu.max", format!("{} {CPU_PERIOD_US}", cpu_quota_us(cpus))),
            None => Ok(()),
        },
        Kind::Memory => match limits.memory_bytes {
            Some(bytes) => {
                // Without swap a process that needs too much ends instead of crawling.
                let _ = fs::write(folder.join("memory.swap.max"), "0");
                write("memory.max", bytes.to_string())
            }
            None => Ok(()),
        },
        Kind::Pids => match limits.pids {
            Some(pids) => write("pids.max", pids.to_string()),
            None => Ok(()),
        },
    }
}

/// Makes a group hand a controller down; false when it cannot.
fn hand_down(group: &Path, kind: Kind) -> bool {
    let lists = |file: &str| {
        let text = fs::read_to_string(group.join(file)).unwrap_or_default();
        text.split_whitespace()
            .any(|name| name == kind.controller())
    };
    if lists(HANDED_DOWN) {
        return true;
    }
    let enable = || fs::write(group.join(HANDED_DOWN), format!("+{}", kind.controller()));
    lists(CONTROLLERS) && (enable().is_ok() || (step_aside(group) && enable().is_ok()))
}

/// Moves this process out of a group in which it is alone, so that the group may
/// hand controllers down.
fn step_aside(group: &Path) -> bool {
    let own = std::process::id().to_string();
    let procs = fs::read_to_string(group.join(PROCS)).unwrap_or_default();
    if !procs.lines().eq([own.as_str()]) {
        return false;
    }
    let leaf = group.join(OWN_LEAF);
    make(&leaf)
        .and_then(|()| fs::write(leaf.join(PROCS), own))
        .is_ok()
}

/// The group that this process is in.
fn own_group(mount: &Path) -> Option<PathBuf> {
    let text = fs::read_to_string("/proc/self/cgroup").ok()?;
    let path = text.lines().find_map(|line| line.strip_prefix("0::/"))?;
    Some(mount.join(path))
}

#[cfg(test)]
mod tests {
    use super::super::Driver;
    use super::*;

    /// Files as the kernel would show them.
    fn tree(controllers: &str) -> tempfile::TempDir {
        let mount = tempfile::tempdir().unwrap();
        let parent = mount.path().join("grid-n");
        fs::create_dir(&parent).unwrap();
        for group in [mount.path(), &parent] {
            fs::write(group.join(CONTROLLERS), controllers).unwrap();
            fs::write(group.join(HANDED_DOWN), "").unwrap();
            fs::write(group.join(PROCS), "").unwrap();
        }
        mount
    }

    #[test]
    fn limits_are_written_as_the_kernel_reads_them() {
        let mount = tree("cpuset cpu io memory pids");
        let driver = Driver::detect_at(mount.path(), "n");
        assert_eq!(driver.describe(), None);
        let limits = Limits {
            cpus: Some(1.5),
            memory_bytes: Some(1 << 30),
            pids: Some(99),
        };
        let group = driver.create("a", &limits).unwrap();
        let folder = mount.path().join("grid-n/a");
        assert_eq!(group.procs_paths(), [folder.join(PROCS)]);
        for (file, text) in [
            ("cpu.max", "150000 100000"),
            ("memory.max", "1073741824"),
            ("pids.max", "99"),
        ] {
            assert_eq!(fs::read_to_string(folder.join(file)).unwrap(), text);
        }
        fs::write(
            folder.join("memory.events"),
            "low 0\noom 3\noom_kill 2\noom_group_kill 0\n",
        )
        .unwrap();
        fs::write(folder.join("memory.peak"), "4096\n").unwrap();
        fs::write(folder.join("cpu.stat"), "usage_usec 77\nuser_usec 7\n").unwrap();
        let used = driver.open("a").used();
        assert_eq!(
            (used.oom_kills, used.peak_memory_bytes, used.cpu_us),
            (2, Some(4096), Some(77))
        );
    }

    #[test]
    fn missing_controllers_are_named() {
        let driver = Driver::detect_at(tree("memory").path(), "n");
        let said = driver.describe().unwrap();
        assert!(
            said.starts_with("limits of CPU, number of processes are not enforced: "),
            "{said}"
        );
        let none = Driver::detect_at(tree("io").path(), "n");
        assert!(none.enforced().is_empty());
    }
}
