//! Files of control groups: reading counters, writing limits, killing and removing.

use std::fs;
use std::io;
use std::path::Path;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use rustix::time::{ClockId, Timespec, clock_gettime};

/// The file that lists the processes of a group, and by which they join it.
pub(super) const PROCS: &str = "cgroup.procs";

pub(super) fn number(path: &Path) -> Option<u64> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}

/// The number after a word at the beginning of a line.
pub(super) fn field(path: &Path, name: &str) -> Option<u64> {
    let text = fs::read_to_string(path).ok()?;
    text.lines().find_map(|line| {
        line.strip_prefix(name)?
            .strip_prefix(' ')?
            .trim()
            .parse()
            .ok()
    })
}

/// Makes a folder; one that is there is fine.
pub(super) fn make(folder: &Path) -> io::Result<()> {
    match fs::create_dir(folder) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        _ => Ok(()),
    }
}

/// Whether a file may be written, without writing anything.
pub(super) fn is_writable(path: &Path) -> bool {
    fs::File::options().write(true).open(path).is_ok()
}

/// Kills the processes of a group and of those below it; true when there were any.
pub(super) fn kill_all(folder: &Path) -> bool {
    let mut any = false;
    for inner in inner_groups(folder) {
        any |= kill_all(&inner);
    }
    let procs = fs::read_to_string(folder.join(PROCS)).unwrap_or_default();
    let pids = procs
        .lines()
        .filter_map(|line| line.parse().ok())
        .filter(|pid| *pid > 1);
    for pid in pids.filter_map(Pid::from_raw) {
        any |= kill_process(pid, Signal::KILL).is_ok();
    }
    any
}

fn inner_groups(folder: &Path) -> Vec<std::path::PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .map(|entry| entry.path())
        .collect()
}

/// Kills what is in a group and removes it, with what is below it.  Gone is fine.
pub(super) fn remove_group(folder: &Path, patience: Duration, rest: Duration) -> io::Result<()> {
    let deadline = now() + patience;
    // Most often nobody is in it any more, and the kernel knows that best.
    if fs::remove_dir(folder).is_ok() {
        return Ok(());
    }
    loop {
        let killed = kill_all(folder);
        match remove_tree(folder) {
            Ok(()) => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            // Killed, but not gone yet.  Busy without anybody in it passes, too.
            Err(error) if error.kind() == io::ErrorKind::ResourceBusy || killed => {
                if now() >= deadline {
                    return Err(error);
                }
                pause(rest);
            }
            Err(error) => return Err(error),
        }
    }
}

/// Control groups are removed folder by folder: their files cannot be.
fn remove_tree(folder: &Path) -> io::Result<()> {
    for inner in inner_groups(folder) {
        remove_tree(&inner)?;
    }
    fs::remove_dir(folder)
}

fn now() -> Duration {
    let now = clock_gettime(ClockId::Monotonic);
    Duration::new(
        now.tv_sec.unsigned_abs(),
        u32::try_from(now.tv_nsec).unwrap_or(0),
    )
}

fn pause(time: Duration) {
    let time = Timespec {
        tv_sec: time.as_secs().cast_signed(),
        tv_nsec: time.subsec_nanos().into(),
    };
    let _ = rustix::event::poll(&mut [], Some(&time));
}
