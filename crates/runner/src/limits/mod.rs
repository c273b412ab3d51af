//! Limits of CPU, memory and processes, by control groups where the system has them.
//!
//! [`Driver::detect`] finds out what this machine allows; a [`Group`] holds the
//! processes of one attempt.  Linux has two generations of control groups, and
//! machines that mix them; what cannot be enforced is said ([`Driver::describe`])
//! and is otherwise ignored: an attempt runs without that limit.
//!
//! Groups of a node live in one folder, `grid-NODE`, below each controller.  They
//! belong to attempts and not to this process: after a restart they are found by
//! name again.

mod files;
mod v1;
mod v2;

use std::collections::{BTreeSet, HashSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use files::{kill_all, remove_group};

/// Where control groups are mounted.
const MOUNT: &str = "/sys/fs/cgroup";

/// Length of the period in which a CPU limit is counted, in microseconds.
/// Higher: a process bursts and then stands still for longer.  Lower: more switching.
const CPU_PERIOD_US: u64 = 100_000;

/// Least CPU that can be given, in microseconds per period: what the kernel allows.
const CPU_QUOTA_US_MIN: u64 = 1_000;

/// How long a group may take to become empty after everything in it was killed.
/// Higher: a process that cannot die delays the end.  Lower: an empty folder stays behind.
const EMPTY_MAX: Duration = Duration::from_secs(2);

/// Time between two looks whether it is.
const EMPTY_POLL: Duration = Duration::from_millis(10);

/// What one attempt may use.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Limits {
    /// CPUs, and parts of one.
    pub cpus: Option<f64>,
    pub memory_bytes: Option<u64>,
    /// Processes and threads.
    pub pids: Option<u64>,
}

impl Limits {
    /// Whether there is a limit of this kind.
    pub(crate) fn of(&self, kind: Kind) -> bool {
        match kind {
            Kind::Cpu => self.cpus.is_some(),
            Kind::Memory => self.memory_bytes.is_some(),
            Kind::Pids => self.pids.is_some(),
        }
    }
}

/// One of the three things that are limited.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    Cpu,
    Memory,
    Pids,
}

impl Kind {
    pub const ALL: [Self; 3] = [Self::Cpu, Self::Memory, Self::Pids];

    /// The name of the controller, the same in both generations.
    pub(crate) const fn controller(self) -> &'static str {
        match self {
            Self::Cpu => "cpu",
            Self::Memory => "memory",
            Self::Pids => "pids",
        }
    }

    const fn people_name(self) -> &'static str {
        match self {
            Self::Cpu => "CPU",
            Self::Memory => "memory",
            Self::Pids => "number of processes",
        }
    }
}

/// What the processes of a group used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Used {
    /// Processes that were killed because the group's memory was used up.
    pub oom_kills: u64,
    pub peak_memory_bytes: Option<u64>,
    pub cpu_us: Option<u64>,
}

/// A group could not be made or removed.
#[derive(Debug, thiserror::Error)]
#[error("cannot {doing} the control group {path}")]
pub struct Error {
    doing: &'static str,
    path: PathBuf,
    source: io::Error,
}

/// How limits are enforced on this machine.
#[derive(Clone, Debug)]
pub struct Driver {
    system: System,
}

#[derive(Clone, Debug)]
enum System {
    V1(v1::Tree),
    V2(v2::Tree),
    None { reason: String },
}

impl Driver {
    /// Looks what the control groups of this machine allow, and makes the folder of
    /// this node in them.  Never fails: what does not work is not enforced.
    pub fn detect(node: &str) -> Self {
        Self::detect_at(Path::new(MOUNT), node)
    }

    /// The same for control groups that are mounted elsewhere.
    pub fn detect_at(mount: &Path, node: &str) -> Self {
        let folder = format!("grid-{}", file_name(node));
        let second = v2::Tree::detect(mount, &folder);
        let reason = match second {
            Ok(tree) => {
                return Self {
                    system: System::V2(tree),
                };
            }
            Err(reason) => reason,
        };
        match v1::Tree::detect(mount, &folder) {
            Some(tree) => Self {
                system: System::V1(tree),
            },
            None => Self {
                system: System::None { reason },
            },
        }
    }

    /// A driver that enforces nothing, for a reason to show to people.
    pub fn none(reason: &str) -> Self {
        Self {
            system: System::None {
                reason: reason.to_owned(),
            },
        }
    }

    /// What is enforced here.
    pub fn enforced(&self) -> BTreeSet<Kind> {
        match &self.system {
            System::V1(tree) => tree.kinds(),
            System::V2(tree) => tree.kinds(),
            System::None { .. } => BTreeSet::new(),
        }
    }

    /// What is not, in a sentence for the start-up message; `None` when all is.
    pub fn describe(&self) -> Option<String> {
        let enforced = self.enforced();
        let missing: Vec<&str> = Kind::ALL
            .into_iter()
            .filter(|kind| !enforced.contains(kind))
            .map(Kind::people_name)
            .collect();
        if missing.is_empty() {
            return None;
        }
        let reason = match &self.system {
            System::V1(_) => "the control group controller is missing or not writable",
            System::V2(_) => "the control group controller is not delegated to this user",
            System::None { reason } => reason,
        };
        Some(format!(
            "limits of {} are not enforced: {reason}",
            missing.join(", ")
        ))
    }

    /// Makes the group of an attempt.  An existing one gets the new limits.
    pub fn create(&self, name: &str, limits: &Limits) -> Result<Group, Error> {
        let name = file_name(name);
        match &self.system {
            System::V1(tree) => tree.create(&name, limits),
            System::V2(tree) => tree.create(&name, limits),
            System::None { .. } => Ok(Group::default()),
        }
    }

    /// The group of an attempt that a former runner made; one without folders if
    /// there is none.
    pub fn open(&self, name: &str) -> Group {
        let name = file_name(name);
        match &self.system {
            System::V1(tree) => tree.open(&name),
            System::V2(tree) => tree.open(&name),
            System::None { .. } => Group::default(),
        }
    }

    /// Kills and removes the groups of a former runner, but for those to keep.
    /// Returns what could not be removed.
    pub fn clean_up(&self, keep: &HashSet<String>) -> Vec<Error> {
        let keep: HashSet<String> = keep.iter().map(|name| file_name(name)).collect();
        let mut names = BTreeSet::new();
        for parent in self.parents() {
            let entries = fs::read_dir(parent).into_iter().flatten().flatten();
            let folders = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
            names.extend(folders.map(|entry| entry.file_name().to_string_lossy().into_owned()));
        }
        let stale = names.into_iter().filter(|name| !keep.contains(name));
        stale
            .filter_map(|name| self.open(&name).remove().err())
            .collect()
    }

    /// Removes the folder of this node, for a node that will not come back.  One in
    /// which a group is left stays.
    pub fn retire(&self) {
        for parent in self.parents() {
            let _ = fs::remove_dir(parent);
        }
    }

    /// The folder of this node, in each tree.
    fn parents(&self) -> Vec<PathBuf> {
        match &self.system {
            System::V1(tree) => tree.parents(),
            System::V2(tree) => tree.parents(),
            System::None { .. } => Vec::new(),
        }
    }
}

/// The group of one attempt.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Group {
    folders: Vec<PathBuf>,
    counters: Counters,
}

/// Files in which the kernel counts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Counters {
    /// Holds a line `oom_kill N`.
    oom: Option<PathBuf>,
    peak: Option<PathBuf>,
    cpu: Option<CpuCounter>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum CpuCounter {
    /// Holds nanoseconds.
    Nanoseconds(PathBuf),
    /// Holds a line `usage_usec N`.
    UsageUsec(PathBuf),
}

impl Group {
    /// Whether there is a group at all.
    pub fn exists(&self) -> bool {
        !self.folders.is_empty()
    }

    /// The files that a process writes itself to before it becomes the user's.
    pub fn procs_paths(&self) -> Vec<PathBuf> {
        self.folders
            .iter()
            .map(|folder| folder.join(files::PROCS))
            .collect()
    }

    /// What its processes have used so far.
    pub fn used(&self) -> Used {
        let counters = &self.counters;
        Used {
            oom_kills: counters
                .oom
                .as_deref()
                .and_then(|path| files::field(path, "oom_kill"))
                .unwrap_or(0),
            peak_memory_bytes: counters.peak.as_deref().and_then(files::number),
            cpu_us: match &counters.cpu {
                Some(CpuCounter::Nanoseconds(path)) => {
                    files::number(path).map(|nanoseconds| nanoseconds / 1_000)
                }
                Some(CpuCounter::UsageUsec(path)) => files::field(path, "usage_usec"),
                None => None,
            },
        }
    }

    /// Kills every process in it; true when there was any.
    pub fn kill(&self) -> bool {
        let mut any = false;
        for folder in &self.folders {
            any |= kill_all(folder);
        }
        any
    }

    /// Kills what is in it and removes it.  Waits, briefly, for the killed to be gone.
    pub fn remove(&self) -> Result<(), Error> {
        for folder in &self.folders {
            remove_group(folder, EMPTY_MAX, EMPTY_POLL).map_err(|source| Error {
                doing: "remove",
                path: folder.clone(),
                source,
            })?;
        }
        Ok(())
    }
}

fn cannot_make(path: &Path) -> impl Fn(io::Error) -> Error {
    let path = path.to_owned();
    move |source| Error {
        doing: "make",
        path: path.clone(),
        source,
    }
}

/// CPU time per period, in microseconds.
fn cpu_quota_us(cpus: f64) -> u64 {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "numbers of CPUs are small and positive; casts saturate"
    )]
    let quota = (cpus * CPU_PERIOD_US as f64).round() as u64;
    quota.max(CPU_QUOTA_US_MIN)
}

/// A name that is a file name, whatever it was.
fn file_name(name: &str) -> String {
    let clean: String = name
        .chars()
        .map(|c| {
            if c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.') {
                c
            } else {
                '_'
            }
        })
        .collect();
    if clean.trim_matches('.').is_empty() {
        format!("_{clean}")
    } else {
        clean
    }
}

#[cfg(test)]
mod tests {
    use super::{cpu_quota_us, file_name};

    #[test]
    fn names_stay_below_their_folder() {
        for (name, file) in [
            ("a-1.b", "a-1.b"),
            ("../x", ".._x"),
            ("..", "_.."),
            ("", "_"),
            ("a b/ü", "a_b__"),
        ] {
            assert_eq!(file_name(name), file);
        }
    }

    #[test]
    fn quotas() {
        for (cpus, quota) in [(0.5, 50_000), (4.0, 400_000), (0.0, 1_000), (0.333, 33_300)] {
            assert_eq!(cpu_quota_us(cpus), quota);
        }
    }
}
