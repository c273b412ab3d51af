//! The clock, and what the system says about processes.

use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};

/// Tells the person who waits.
pub(crate) fn say(text: &str) {
    let _ = writeln!(std::io::stderr(), "{text}");
}

#[expect(clippy::disallowed_methods, reason = "the one clock of the benchmarks")]
pub(crate) fn now() -> Instant {
    Instant::now()
}

/// Seconds since 1970, as scripts read them off the same clock.
#[expect(clippy::disallowed_methods, reason = "the one clock of the benchmarks")]
pub(crate) fn wall_s() -> f64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0.0, |since| since.as_secs_f64())
}

#[expect(
    clippy::disallowed_methods,
    reason = "what an idle server uses is measured over a time"
)]
pub(crate) fn pause(time: Duration) {
    std::thread::sleep(time);
}

/// How busy the machine is, and with how much.
pub(crate) fn load() -> String {
    let cpus = std::thread::available_parallelism().map_or(1, usize::from);
    let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let one = text.split(' ').next().unwrap_or("?");
    format!("{cpus} CPUs, load {one}")
}

/// A process of the product.
#[derive(Debug, Clone)]
pub(crate) struct Process {
    pub(crate) pid: i32,
    /// `server`, `runner` or `keeper`.
    pub(crate) role: String,
}

/// The processes of the product that belong to `folder`.
pub(crate) fn processes(folder: &Path) -> Vec<Process> {
    let mut found = Vec::new();
    for pid in grid_e2e::processes_of(folder) {
        let Ok(bytes) = std::fs::read(format!("/proc/{pid}/cmdline")) else {
            continue;
        };
        let words: Vec<String> = bytes
            .split(|byte| *byte == 0)
            .map(|word| String::from_utf8_lossy(word).into_owned())
            .collect();
        let Some(name) = words.first() else {
            continue;
        };
        let role = if name.ends_with("grid-keeper") {
            Some("keeper")
        } else if name.ends_with("grid") {
            let roles = ["server", "runner"];
            roles
                .into_iter()
                .find(|role| words.iter().any(|word| word == role))
        } else {
            None
        };
        found.extend(role.map(|role| Process {
            pid,
            role: role.to_owned(),
        }));
    }
    found
}

/// Memory of a process that is in RAM, in MiB.
pub(crate) fn resident_mib(pid: i32) -> Result<f64> {
    status_mib(pid, "VmRSS:")
}

/// The most that it ever was.
pub(crate) fn most_resident_mib(pid: i32) -> Result<f64> {
    status_mib(pid, "VmHWM:")
}

fn status_mib(pid: i32, what: &str) -> Result<f64> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status"))
        .with_context(|| format!("reading about process {pid}"))?;
    let line = text.lines().find_map(|line| line.strip_prefix(what));
    let kib: f64 = line
        .and_then(|line| line.trim().strip_suffix(" kB"))
        .and_then(|number| number.trim().parse().ok())
        .with_context(|| format!("the memory of process {pid} is not told"))?;
    Ok(kib / 1024.0)
}

/// CPU time of all threads of a process so far.
pub(crate) fn cpu_time(pid: i32) -> Duration {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task"));
    let nanos = |entry: std::fs::DirEntry| -> Option<u64> {
        let text = std::fs::read_to_string(entry.path().join("schedstat")).ok()?;
        text.split(' ').next()?.parse().ok()
    };
    let all = tasks.into_iter().flatten().flatten().filter_map(nanos);
    Duration::from_nanos(all.sum())
}
