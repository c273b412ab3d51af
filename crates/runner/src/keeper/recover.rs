//! What a new keeper does about the tasks of one that was killed.
//!
//! Their pipes died with the old keeper, so that they cannot be taken over: what
//! still runs is killed and reported as lost.  What had ended keeps its end.

use std::collections::HashSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::protocol::{Ending, Exit, Usage};
use super::spawn::{TASK_FILE, TaskRecord};
use super::task::Task;
use super::{clock, paths, proc, spool, sys};

/// How often the killed are looked for until they are gone.
/// Higher: a process that cannot die delays the start.  Lower: it is left behind sooner.
const KILL_ROUNDS_MAX: u32 = 200;

/// Time between two looks, in milliseconds.
const KILL_ROUND_MS: i64 = 10;

/// A task that a former keeper left.
pub(crate) enum Recovered {
    Ended {
        key: String,
        spool_dir: PathBuf,
        total_bytes: u64,
        exit: Exit,
    },
    /// Killed now, or dead already: its end is still to be written down.
    Lost(Box<Task>),
}

/// Finds and ends what the former keeper of `dir` left; also says what it could not read.
pub(crate) fn recover(dir: &Path) -> io::Result<(Vec<Recovered>, Vec<String>)> {
    let list = match fs::read_to_string(paths(dir).spools) {
        Ok(list) => list,
        Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
        Err(error) => return Err(error),
    };
    let mut recovered = Vec::new();
    let mut problems = Vec::new();
    let mut lost = Vec::new();
    for folder in list
        .lines()
        .flat_map(|parent| fs::read_dir(parent).into_iter().flatten().flatten())
    {
        let folder = folder.path();
        match look(&folder) {
            Ok(None) => {}
            Ok(Some(Found::Ended(found))) => recovered.push(found),
            Ok(Some(Found::Lost(record))) => lost.push((folder, record)),
            Err(error) => problems.push(format!(
                "cannot read what is left in {}: {error}",
                folder.display()
            )),
        }
    }
    let records: Vec<&TaskRecord> = lost.iter().map(|(_, record)| record).collect();
    if !records.is_empty() && !kill(&records) {
        problems.push("some processes of the former keeper do not die".to_owned());
    }
    for (folder, record) in lost {
        let exit = exit(&record);
        recovered.push(Recovered::Lost(Box::new(Task::lost(
            record.key, folder, exit,
        ))));
    }
    Ok((recovered, problems))
}

fn exit(record: &TaskRecord) -> Exit {
    Exit {
        how: Ending::Lost,
        started_at_ms: record.started_at_ms,
        ended_at_ms: clock::wall_ms(),
        usage: Usage::default(),
    }
}

enum Found {
    Ended(Recovered),
    Lost(TaskRecord),
}

fn look(folder: &Path) -> io::Result<Option<Found>> {
    let text = match fs::read(folder.join(TASK_FILE)) {
        Ok(text) => text,
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
            ) =>
        {
            return Ok(None);
        }
        Err(error) => return Err(error),
    };
    if text.trim_ascii().is_empty() {
        // It is forgotten, or the keeper was killed before it had a process to write about.
        return Ok(None);
    }
    let record: TaskRecord = serde_json::from_slice(&text).map_err(io::Error::other)?;
    let Some(exit) = spool::read_exit(folder)? else {
        return Ok(Some(Found::Lost(record)));
    };
    let size = |name: &str| fs::metadata(folder.join(name)).map_or(0, |found| found.len());
    let total_bytes = size("out") + size("err");
    let spool_dir = folder.to_owned();
    Ok(Some(Found::Ended(Recovered::Ended {
        key: record.key,
        spool_dir,
        total_bytes,
        exit,
    })))
}

/// Kills what is left of these tasks; false when something does not die in time.
fn kill(records: &[&TaskRecord]) -> bool {
    let boot_id = proc::boot_id();
    let records: Vec<&&TaskRecord> = records
        .iter()
        .filter(|record| record.boot_id == boot_id)
        .collect();
    let marks: HashSet<&str> = records.iter().map(|record| record.mark.as_str()).collect();
    for _ in 0..KILL_ROUNDS_MAX {
        let mut alive = proc::kill_marked(|mark| marks.contains(mark));
        for record in &records {
            alive +=
                usize::from(kill_group(record)) + usize::from(proc::kill_members(&record.cgroup));
        }
        if alive == 0 {
            return true;
        }
        clock::rest_ms(KILL_ROUND_MS);
    }
    false
}

/// Kills the process group of a task (if that was noted in time), unless its leader is somebody else by now.
/// While a member lives, the number of the group is not given away, so that a
/// group whose leader is gone is not touched: its members carry the mark.
fn kill_group(record: &TaskRecord) -> bool {
    let is_same = |stat: &proc::Stat| stat.start_time == record.start_time && !stat.zombie;
    proc::Stat::of(record.pid).is_some_and(|stat| is_same(&stat))
        && sys::kill(-record.pid, libc::SIGKILL)
}
