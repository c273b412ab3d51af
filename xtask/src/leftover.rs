//! Ends what lives on after a server of this tool has ended.
//!
//! That experiments survive their server is what the product promises, and what a demonstration
//! must not leave behind. Only processes of a program that were started with a path below the
//! folder are ended, and what descends from them: a person who looks at the folder is let be.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

use anyhow::{Result, bail};
use rustix::process::{Pid, Signal, kill_process};

use crate::clock;

/// How long processes may take to end after they were asked.
/// Lower, and what they would still write is cut off; higher, and Ctrl-C seems dead.
const GRACE: Duration = Duration::from_secs(5);

/// Asks every process of `program` on `folder`, and all below them, to end; then insists.
pub(crate) fn end_all(program: &Path, folder: &Path) -> Result<()> {
    end_within(GRACE, program, folder)
}

fn end_within(grace: Duration, program: &Path, folder: &Path) -> Result<()> {
    // Those below the first ones have other parents as soon as these are gone, so all are noted.
    let mut noted = BTreeSet::new();
    for signal in [Signal::TERM, Signal::KILL] {
        noted.extend(found(program, folder));
        for process in noted.iter().filter(|process| process.is_alive()) {
            process.send(signal);
        }
        let all_gone = || (!noted.iter().any(Process::is_alive)).then_some(());
        if clock::wait_for(grace, all_gone).is_some() && found(program, folder).is_empty() {
            return Ok(());
        }
    }
    let left: Vec<i32> = noted
        .iter()
        .filter(|it| it.is_alive())
        .map(|it| it.pid)
        .collect();
    bail!(
        "processes on {} could not be ended: {left:?}",
        folder.display()
    )
}

/// A process, and when it started: its number alone may be given to another.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Process {
    pid: i32,
    started: u64,
}

impl Process {
    fn is_alive(&self) -> bool {
        Stat::read(self.pid).is_some_and(|stat| stat.process == *self && !stat.is_zombie)
    }

    fn send(&self, signal: Signal) {
        if let Some(pid) = Pid::from_raw(self.pid) {
            // It may have ended meanwhile, which is what is wanted.
            let _gone_is_fine = kill_process(pid, signal);
        }
    }
}

/// What `/proc/PID/stat` says.
struct Stat {
    process: Process,
    parent: i32,
    is_zombie: bool,
}

impl Stat {
    fn read(pid: i32) -> Option<Self> {
        let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The name comes second, in brackets, and may hold anything; the rest is plain words:
        // the state, the parent, and as the twentieth the time of the start.
        let words: Vec<&str> = text.rsplit_once(')')?.1.split_whitespace().collect();
        let started = words.get(19)?.parse().ok()?;
        let parent = words.get(1)?.parse().ok()?;
        Some(Self {
            process: Process { pid, started },
            parent,
            is_zombie: words.first() == Some(&"Z"),
        })
    }
}

/// Processes of `program` on `folder`, and everything below them.
fn found(program: &Path, folder: &Path) -> Vec<Process> {
    let Ok(entries) = std::fs::read_dir("/proc") else {
        return Vec::new();
    };
    let pids = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    let all: BTreeMap<i32, Stat> = pids
        .filter_map(|pid| Some((pid, Stat::read(pid)?)))
        .collect();
    let alive = all.values().filter(|stat| !stat.is_zombie);
    let is_one = |pid: i32| runs_on(pid, program, folder);
    alive
        .filter(|stat| lineage(stat, &all).any(is_one))
        .map(|stat| stat.process)
        .collect()
}

/// A process, its parent, its parent's parent.
fn lineage<'a>(stat: &'a Stat, all: &'a BTreeMap<i32, Stat>) -> impl Iterator<Item = i32> + 'a {
    std::iter::successors(Some(stat), |stat| all.get(&stat.parent)).map(|stat| stat.process.pid)
}

fn runs_on(pid: i32, program: &Path, folder: &Path) -> bool {
    let process = Path::new("/proc").join(pid.to_string());
    let executable = std::fs::read_link(process.join("exe")).unwrap_or_default();
    // After a new build the old program is shown as deleted.
    let same =
        executable.to_string_lossy().trim_end_matches(" (deleted)") == program.to_string_lossy();
    let words = std::fs::read(process.join("cmdline")).unwrap_or_default();
    let mut words = words.split(|byte| *byte == 0).map(String::from_utf8_lossy);
    same && words.any(|word| Path::new(word.as_ref()).starts_with(folder))
}

#[cfg(test)]
mod tests {
    use super::{clock, end_within, found};
    use std::process::{Child, Command, Stdio};
    use std::time::Duration;

    fn shell(script: &str, folder: &std::path::Path) -> Child {
        let mut shell = Command::new("sh");
        shell
            .args(["-c", script])
            .arg(folder)
            .current_dir(folder)
            .stdin(Stdio::piped())
            .spawn()
            .unwrap()
    }

    #[test]
    fn a_program_on_a_folder_is_ended_with_all_below_it() {
        let (folder, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let program = std::fs::canonicalize("/bin/sh").unwrap();
        let mut stubborn = shell("trap '' TERM; cat; while :; do cat; done", folder.path());
        let mut other = shell("cat; true", elsewhere.path());
        let both = || (found(&program, folder.path()).len() == 2).then_some(());
        assert!(
            clock::wait_for(Duration::from_secs(20), both).is_some(),
            "the shell and its cat"
        );
        end_within(Duration::from_millis(200), &program, folder.path()).unwrap();
        assert!(!stubborn.wait().unwrap().success());
        assert!(
            other.try_wait().unwrap().is_none(),
            "it is on another folder"
        );
        end_within(Duration::from_millis(200), &program, elsewhere.path()).unwrap();
        other.wait().unwrap();
    }
}
