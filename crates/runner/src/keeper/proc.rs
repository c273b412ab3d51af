//! What `/proc` tells about processes, and how to kill a set of them.

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

use super::sys;

/// The environment variable by which the keeper finds again what a task started
/// and what left its process group.
pub(crate) const MARK: &str = "GRID_KEEPER_TASK";

/// A line of `/proc/PID/stat`, as far as it matters here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stat {
    pub(crate) pid: i32,
    pub(crate) zombie: bool,
    pub(crate) parent: i32,
    pub(crate) group: i32,
    pub(crate) start_time: u64,
}

impl Stat {
    pub(crate) fn of(pid: i32) -> Option<Self> {
        let mut buffer = [0; 1024];
        let mut file = fs::File::open(format!("/proc/{pid}/stat")).ok()?;
        let length = file.read(&mut buffer).ok()?;
        Self::parse(buffer.get(..length)?)
    }

    fn parse(line: &[u8]) -> Option<Self> {
        let pid = number(line.split(|byte| *byte == b' ').next()?)?;
        let mut fields = fields_after_name(line)?;
        let zombie = matches!(fields.next()?, b"Z" | b"X");
        let parent = number(fields.next()?)?;
        let group = number(fields.next()?)?;
        let start_time = number(fields.nth(START_TIME_AFTER_GROUP)?)?;
        Some(Self {
            pid: i32::try_from(pid).ok()?,
            zombie,
            parent: i32::try_from(parent).ok()?,
            group: i32::try_from(group).unwrap_or(0),
            start_time,
        })
    }
}

/// `starttime` is field 22 of the line and `pgrp` field 5.
const START_TIME_AFTER_GROUP: usize = 16;

/// The name stands in parentheses and may hold anything: count from the last one.
fn fields_after_name(line: &[u8]) -> Option<impl Iterator<Item = &[u8]>> {
    let name_end = line.iter().rposition(|byte| *byte == b')')?;
    Some(line.get(name_end + 2..)?.split(|byte| *byte == b' '))
}

fn number(field: &[u8]) -> Option<u64> {
    if field.is_empty() {
        return None;
    }
    field.iter().try_fold(0_u64, |sum, byte| {
        let digit = byte.checked_sub(b'0').filter(|digit| *digit <= 9)?;
        sum.checked_mul(10)?.checked_add(u64::from(digit))
    })
}

/// Every process there is.
pub(crate) fn all() -> Vec<Stat> {
    pids().filter_map(Stat::of).collect()
}

fn pids() -> impl Iterator<Item = i32> {
    fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

/// Changes with every boot: process ids of another boot mean nothing.
pub(crate) fn boot_id() -> String {
    let read = fs::read_to_string("/proc/sys/kernel/random/boot_id");
    read.map(|id| id.trim().to_owned()).unwrap_or_default()
}

/// Process ids in `cgroup.procs` files; missing files have none.
pub(crate) fn members(procs: &[PathBuf]) -> Vec<i32> {
    let mut found = Vec::new();
    for path in procs {
        let text = fs::read_to_string(path).unwrap_or_default();
        found.extend(
            text.lines()
                .filter_map(|line| line.parse::<i32>().ok())
                .filter(|pid| *pid > 1),
        );
    }
    found.sort_unstable();
    found.dedup();
    found
}

/// Kills the members of cgroups; true when there were any.
pub(crate) fn kill_members(procs: &[PathBuf]) -> bool {
    let own = rustix::process::getpid().as_raw_nonzero().get();
    let mut any = false;
    for pid in members(procs).into_iter().filter(|pid| *pid != own) {
        any |= sys::kill(pid, libc::SIGKILL);
    }
    any
}

/// Kills every process whose environment carries one of these marks; returns how
/// many were alive.
pub(crate) fn kill_marked(is_wanted: impl Fn(&str) -> bool) -> usize {
    let own = rustix::process::getpid().as_raw_nonzero().get();
    let wanted = |pid: &i32| *pid != own && mark_of(*pid).is_some_and(|mark| is_wanted(&mark));
    let alive = |pid: &i32| Stat::of(*pid).is_some_and(|stat| !stat.zombie);
    pids()
        .filter(wanted)
        .filter(alive)
        .filter(|pid| sys::kill(*pid, libc::SIGKILL))
        .count()
}

/// The task that a process belongs to, by the environment it was started with.
fn mark_of(pid: i32) -> Option<String> {
    let environment = fs::read(Path::new("/proc").join(pid.to_string()).join("environ")).ok()?;
    let mut variables = environment.split(|byte| *byte == 0);
    let mark = variables
        .find_map(|variable| variable.strip_prefix(MARK.as_bytes())?.strip_prefix(b"="))?;
    String::from_utf8(mark.to_vec()).ok()
}

#[cfg(test)]
mod tests {
    use super::Stat;

    #[test]
    fn names_with_spaces_and_parentheses_are_skipped() {
        let line = b"77 (a) b (c)) S 5 76 75 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 9876 2 3";
        let stat = Stat::parse(line).unwrap();
        assert_eq!(
            (stat.pid, stat.parent, stat.group, stat.start_time),
            (77, 5, 76, 9876)
        );
        assert!(!stat.zombie);
    }

    #[test]
    fn own_line_parses() {
        let own = i32::try_from(std::process::id()).unwrap();
        assert!(Stat::of(own).is_some_and(|stat| stat.pid == own && stat.start_time > 0));
        assert_eq!(Stat::parse(b"garbage"), None);
    }
}
