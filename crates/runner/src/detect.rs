//! What this machine has: CPUs, memory, GPUs, and programs that experiments may need.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rustix::time::{ClockId, Timespec, clock_gettime};
use serde::{Deserialize, Serialize};

use crate::sandbox;

/// How long a program may take to say what there is, in milliseconds.
/// Higher: a driver that hangs delays the start.  Lower: GPUs of a busy machine are
/// not found.
const ANSWER_MS_MAX: i64 = 10_000;

/// Time between two looks whether it has answered, in milliseconds.
const ANSWER_POLL_MS: i64 = 2;

/// Most bytes of an answer that are read.
const ANSWER_BYTES_MAX: u64 = 1024 * 1024;

/// Most GPUs that are believed.
/// Higher: a mistyped number makes slots that are not there.  Lower: large machines
/// are not used up.
const GPUS_MAX: u32 = 1_024;

/// Gives the number of GPUs instead of looking for them: `GRID_GPUS=4`.
pub const GPUS_VARIABLE: &str = "GRID_GPUS";

/// What there is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Machine {
    /// CPUs that this process may use; parts of one where a quota says so.
    pub cpus: f64,
    pub memory_bytes: u64,
    pub gpus: Vec<Gpu>,
    /// Where bubblewrap is, or why it cannot be used.
    pub bubblewrap: Result<PathBuf, String>,
    /// Programs that were found, by their names.
    pub tools: BTreeMap<Tool, PathBuf>,
}

impl Machine {
    /// CPUs that can be handed out whole.
    pub fn whole_cpus(&self) -> u32 {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "numbers of CPUs are small and positive; casts saturate"
        )]
        let whole = self.cpus.floor() as u32;
        whole.max(1)
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gpu {
    /// Its number, as in `CUDA_VISIBLE_DEVICES` and `/dev/nvidiaN`.
    pub index: u32,
    pub name: String,
    pub memory_bytes: Option<u64>,
}

/// Programs that some experiments need.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Tool {
    Conda,
    Docker,
    Git,
    Julia,
    Micromamba,
    Podman,
    Python,
    Rscript,
    Uv,
}

impl Tool {
    pub const ALL: [Self; 9] = [
        Self::Conda,
        Self::Docker,
        Self::Git,
        Self::Julia,
        Self::Micromamba,
        Self::Podman,
        Self::Python,
        Self::Rscript,
        Self::Uv,
    ];

    /// The name of the program.
    pub const fn program(self) -> &'static str {
        match self {
            Self::Conda => "conda",
            Self::Docker => "docker",
            Self::Git => "git",
            Self::Julia => "julia",
            Self::Micromamba => "micromamba",
            Self::Podman => "podman",
            Self::Python => "python3",
            Self::Rscript => "Rscript",
            Self::Uv => "uv",
        }
    }
}

/// Looks at everything.  Takes a few hundredths of a second, more where GPUs are
/// slow to answer: to be done once, at the start.
pub fn machine() -> Machine {
    let path = std::env::var_os("PATH").unwrap_or_default();
    Machine {
        cpus: cpus(),
        memory_bytes: memory_bytes(),
        gpus: gpus(std::env::var(GPUS_VARIABLE).ok().as_deref(), &path),
        bubblewrap: bubblewrap(&path),
        tools: Tool::ALL
            .into_iter()
            .filter_map(|tool| Some((tool, find(tool.program(), &path)?)))
            .collect(),
    }
}

/// The program of a name, as a shell would find it.
pub fn find(program: &str, path: &OsStr) -> Option<PathBuf> {
    let is_program = |file: &PathBuf| {
        fs::metadata(file)
            .is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
    };
    std::env::split_paths(path)
        .filter(|folder| folder.is_absolute())
        .map(|folder| folder.join(program))
        .find(is_program)
}

/// Bubblewrap, if there is one that works here: some systems forbid what it needs.
pub fn bubblewrap(path: &OsStr) -> Result<PathBuf, String> {
    let program = find("bwrap", path).ok_or("there is no program bwrap in PATH")?;
    let mut command = Command::new(&program);
    command.args(sandbox::base_arguments()).args(["--", "true"]);
    match answer(&mut command) {
        Ok(_) => Ok(program),
        Err(reason) => Err(format!(
            "{} does not work here: {reason}",
            program.display()
        )),
    }
}

/// CPUs by affinity and by the quotas of the control groups that this process is in.
pub fn cpus() -> f64 {
    let by_affinity = std::thread::available_parallelism().map_or(1, usize::from);
    #[expect(clippy::cast_precision_loss, reason = "numbers of CPUs are small")]
    let by_affinity = by_affinity as f64;
    quota(Path::new("/sys/fs/cgroup"), "/proc/self/cgroup")
        .map_or(by_affinity, |quota| quota.min(by_affinity))
}

/// Memory of the machine, or of the control group that this process is in.
pub fn memory_bytes() -> u64 {
    let text = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"));
    let total = line
        .and_then(|line| line.trim().trim_end_matches(" kB").parse::<u64>().ok())
        .unwrap_or(0)
        * 1024;
    let root = Path::new("/sys/fs/cgroup");
    let groups = own_groups("/proc/self/cgroup");
    let limits = groups.iter().flat_map(|group| {
        let files = match group.controllers.as_str() {
            "" => above(root, &group.path, "memory.max"),
            "memory" => above(&root.join("memory"), &group.path, "memory.limit_in_bytes"),
            _ => Vec::new(),
        };
        files
            .into_iter()
            .filter_map(|file| fs::read_to_string(file).ok()?.trim().parse::<u64>().ok())
    });
    // A limit beyond what there is, or of zero, is none.
    limits.filter(|limit| *limit > 0).fold(total, u64::min)
}

/// The smallest CPU quota above this process, in CPUs.
fn quota(root: &Path, list: &str) -> Option<f64> {
    let mut quotas = Vec::new();
    for group in own_groups(list) {
        if group.controllers.is_empty() {
            for file in above(root, &group.path, "cpu.max") {
                let text = fs::read_to_string(file).unwrap_or_default();
                let mut numbers = text.split_whitespace().map(str::parse::<f64>);
                if let (Some(Ok(quota)), Some(Ok(period))) = (numbers.next(), numbers.next()) {
                    quotas.push(quota / period);
                }
            }
        } else if group.controllers.split(',').any(|name| name == "cpu") {
            let tree = root.join("cpu");
            let read = |file: &Path| fs::read_to_string(file).ok()?.trim().parse::<f64>().ok();
            for file in above(&tree, &group.path, "cpu.cfs_quota_us") {
                let period = read(&file.with_file_name("cpu.cfs_period_us"));
                if let (Some(quota), Some(period)) = (read(&file), period) {
                    quotas.push(quota / period);
                }
            }
        }
    }
    quotas
        .into_iter()
        .filter(|quota| *quota > 0.0 && quota.is_finite())
        .reduce(f64::min)
}

struct OwnGroup {
    /// Empty for the second generation.
    controllers: String,
    path: String,
}

fn own_groups(list: &str) -> Vec<OwnGroup> {
    let text = fs::read_to_string(list).unwrap_or_default();
    let group = |line: &str| {
        let mut fields = line.splitn(3, ':').skip(1);
        Some(OwnGroup {
            controllers: fields.next()?.to_owned(),
            path: fields.next()?.to_owned(),
        })
    };
    text.lines().filter_map(group).collect()
}

/// A file of a group and of all groups above it.
fn above(root: &Path, group: &str, file: &str) -> Vec<PathBuf> {
    let folder = root.join(group.trim_start_matches('/'));
    folder
        .ancestors()
        .take_while(|folder| folder.starts_with(root))
        .map(|folder| folder.join(file))
        .collect()
}

/// GPUs: as many as `GRID_GPUS` says, else what `nvidia-smi` says, else the devices.
fn gpus(told: Option<&str>, path: &OsStr) -> Vec<Gpu> {
    if let Some(count) = told.and_then(|told| told.trim().parse::<u32>().ok()) {
        let gpu = |index| Gpu {
            index,
            name: "GPU".to_owned(),
            memory_bytes: None,
        };
        return (0..count.min(GPUS_MAX)).map(gpu).collect();
    }
    let asked = find("nvidia-smi", path).and_then(|program| {
        let mut command = Command::new(program);
        command.args([
            "--query-gpu=index,memory.total,name",
            "--format=csv,noheader,nounits",
        ]);
        answer(&mut command).ok()
    });
    match asked {
        Some(table) => table.lines().filter_map(gpu_of_line).collect(),
        None => gpu_devices(Path::new("/dev")),
    }
}

/// A line such as `0, 81559, NVIDIA H100 80GB HBM3`; memory is in MiB.
fn gpu_of_line(line: &str) -> Option<Gpu> {
    let mut fields = line.splitn(3, ',').map(str::trim);
    let index = fields.next()?.parse().ok()?;
    let memory_mib: Option<u64> = fields.next()?.parse().ok();
    let name = fields.next()?.to_owned();
    Some(Gpu {
        index,
        name,
        memory_bytes: memory_mib.map(|mib| mib * 1024 * 1024),
    })
}

fn gpu_devices(folder: &Path) -> Vec<Gpu> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let index = |entry: fs::DirEntry| {
        entry
            .file_name()
            .to_str()?
            .strip_prefix("nvidia")?
            .parse::<u32>()
            .ok()
    };
    let mut indexes: Vec<u32> = entries.filter_map(index).collect();
    indexes.sort_unstable();
    let gpu = |index| Gpu {
        index,
        name: "NVIDIA GPU".to_owned(),
        memory_bytes: None,
    };
    indexes.into_iter().map(gpu).collect()
}

/// What a program prints, if it ends well and in time.
fn answer(command: &mut Command) -> Result<String, String> {
    // Into files and not into pipes: whoever does not read a pipe in time holds the
    // writer up, and whoever inherits it holds us up.
    let file = || tempfile::tempfile().map_err(|error| format!("no temporary file: {error}"));
    let (out, err) = (file()?, file()?);
    let share = |file: &fs::File| file.try_clone().map_err(|error| error.to_string());
    command
        .stdin(Stdio::null())
        .stdout(share(&out)?)
        .stderr(share(&err)?);
    let mut child = command.spawn().map_err(|error| error.to_string())?;
    let deadline = millis() + ANSWER_MS_MAX;
    let status = loop {
        match child.try_wait() {
            Ok(Some(status)) => break status,
            Ok(None) if millis() < deadline => pause(ANSWER_POLL_MS),
            Ok(None) => {
                let _ = child.kill();
                let _ = child.wait();
                return Err(format!(
                    "no answer within {} seconds",
                    ANSWER_MS_MAX / 1_000
                ));
            }
            Err(error) => return Err(error.to_string()),
        }
    };
    if status.success() {
        return Ok(text_of(out));
    }
    let complaint = text_of(err);
    Err(complaint
        .lines()
        .next()
        .map_or_else(|| status.to_string(), str::to_owned))
}

fn text_of(mut file: fs::File) -> String {
    use std::io::Seek;
    let mut bytes = Vec::new();
    let _ = file.rewind();
    let _ = file.take(ANSWER_BYTES_MAX).read_to_end(&mut bytes);
    String::from_utf8_lossy(&bytes).into_owned()
}

fn millis() -> i64 {
    let now = clock_gettime(ClockId::Monotonic);
    now.tv_sec * 1_000 + now.tv_nsec / 1_000_000
}

fn pause(millis: i64) {
    let time = Timespec {
        tv_sec: millis / 1_000,
        tv_nsec: millis % 1_000 * 1_000_000,
    };
    let _ = rustix::event::poll(&mut [], Some(&time));
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Makes programs, and says in which folder they are.
    fn programs(programs: &[(&str, &str)]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for (name, script) in programs {
            let file = folder.path().join(name);
            fs::write(&file, format!("#!/bin/sh\n{script}\n")).unwrap();
            fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).unwrap();
        }
        folder
    }

    #[test]
    fn gpus_by_word_by_program_and_by_device() {
        assert_eq!(gpus(Some("4"), OsStr::new("")).len(), 4);
        assert_eq!(gpus(Some("0"), OsStr::new("")), []);
        let folder = programs(&[(
            "nvidia-smi",
            "echo '0, 81559, NVIDIA H100, 80GB'; echo '1, [N/A], Odd'; echo junk",
        )]);
        let expected = [
            Gpu {
                index: 0,
                name: "NVIDIA H100, 80GB".to_owned(),
                memory_bytes: Some(81_559 * 1024 * 1024),
            },
            Gpu {
                index: 1,
                name: "Odd".to_owned(),
                memory_bytes: None,
            },
        ];
        assert_eq!(gpus(None, folder.path().as_os_str()), expected);
        assert_eq!(gpus(Some("junk"), folder.path().as_os_str()), expected);
        for name in ["nvidia1", "nvidia0", "nvidiactl", "nvidia-uvm"] {
            fs::write(folder.path().join(name), "").unwrap();
        }
        let indexes: Vec<u32> = gpu_devices(folder.path())
            .iter()
            .map(|gpu| gpu.index)
            .collect();
        assert_eq!(indexes, [0, 1]);
    }

    #[test]
    fn a_program_that_fails_gives_its_complaint() {
        let folder = programs(&[("bwrap", "echo 'bwrap: not permitted' >&2; exit 1")]);
        let error = bubblewrap(folder.path().as_os_str()).unwrap_err();
        assert!(
            error.ends_with("does not work here: bwrap: not permitted"),
            "{error}"
        );
        assert!(
            bubblewrap(OsStr::new("/nowhere"))
                .unwrap_err()
                .contains("no program")
        );
    }

    #[test]
    fn quotas_of_both_generations_and_of_groups_above() {
        let folder = tempfile::tempdir().unwrap();
        let write = |file: &str, text: &str| {
            let file = folder.path().join(file);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, text).unwrap();
        };
        write("cpu/a/cpu.cfs_quota_us", "150000\n");
        write("cpu/a/cpu.cfs_period_us", "100000\n");
        write("cpu/a/b/cpu.cfs_quota_us", "-1\n");
        write("cpu/a/b/cpu.cfs_period_us", "100000\n");
        write("c/cpu.max", "max 100000\n");
        write("c/d/cpu.max", "50000 100000\n");
        let list = |text: &str| {
            write("list", text);
            quota(folder.path(), folder.path().join("list").to_str().unwrap())
        };
        assert_eq!(list("4:cpu,cpuacct:/a/b\n"), Some(1.5));
        assert_eq!(list("0::/c/d\n"), Some(0.5));
        assert_eq!(list("0::/c\n"), None);
        assert_eq!(list("4:cpu:/a/b\n0::/c/d\n"), Some(0.5));
        assert_eq!(list(""), None);
    }

    #[test]
    fn this_machine_has_something() {
        let machine = machine();
        assert!(
            machine.cpus > 0.0 && machine.whole_cpus() >= 1 && machine.memory_bytes > 1 << 20,
            "{machine:?}"
        );
    }
}
