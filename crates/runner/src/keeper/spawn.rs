//! Starting one process: folder, pipes, cgroups, record on disk, exec.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, FileExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rustix::fs::Mode;
use rustix::io::FdFlags;
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Pid, Resource, Rlimit};
use serde::{Deserialize, Serialize};

use super::protocol::{Refused, STATUS_FD_ARGUMENT, Spawn};
use super::{clock, proc, sys};

/// How much more readily user processes are killed than others when memory runs out.
/// Higher: they go even when something else leaks.  Lower: the server may go first.
const OOM_SCORE_ADJ: &str = "300";

/// The record of a task.
pub(crate) const TASK_FILE: &str = "task.json";

/// What the record of a forgotten task consists of.
pub(crate) const FORGOTTEN: &[u8] = b"\n";

/// The file by which a single thread joins a control group of the first generation; the
/// second has none of this name.
const THREADS_FILE: &str = "tasks";

/// What bubblewrap reports about a sandboxed task.
pub(crate) const SANDBOX_FILE: &str = "sandbox.json";

/// Who a task's process is, as found in the spool folder.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct TaskRecord {
    pub(crate) key: String,
    pub(crate) mark: String,
    pub(crate) boot_id: String,
    pub(crate) cgroup: Vec<PathBuf>,
    pub(crate) started_at_ms: i64,
    /// Also the process group.  Zero until the process is there.
    pub(crate) pid: i32,
    pub(crate) start_time: u64,
}

/// A process that runs.
pub(crate) struct Started {
    pub(crate) pid: i32,
    pub(crate) start_time: u64,
    pub(crate) started_at_ms: i64,
    pub(crate) mark: String,
    pub(crate) stdout: OwnedFd,
    pub(crate) stderr: OwnedFd,
}

/// Why there is no process.
#[derive(Debug)]
pub(crate) struct Failed {
    pub(crate) why: Refused,
    pub(crate) message: String,
}

impl Failed {
    fn new(doing: &str, error: &io::Error) -> Self {
        let exhausted = [
            libc::EMFILE,
            libc::ENFILE,
            libc::EAGAIN,
            libc::ENOMEM,
            libc::ENOSPC,
            libc::EDQUOT,
        ];
        let is_exhausted = error
            .raw_os_error()
            .is_some_and(|code| exhausted.contains(&code));
        let why = if is_exhausted {
            Refused::Exhausted
        } else {
            Refused::CannotStart
        };
        Self {
            why,
            message: format!("{doing}: {error}"),
        }
    }
}

/// Starts processes.  Lives in a thread of its own, which never ends: a program on
/// a hanging network disk must not keep the others from being served, and
/// sandboxes die with the thread that started them.
pub(crate) struct Spawner {
    /// Where the folders are noted in which spool folders are made.
    spools: PathBuf,
    known_spools: HashSet<PathBuf>,
    boot_id: String,
    nofile: Rlimit,
}

impl Spawner {
    pub(crate) fn new(spools: PathBuf, nofile: Rlimit) -> Self {
        Self {
            spools,
            known_spools: HashSet::new(),
            boot_id: proc::boot_id(),
            nofile,
        }
    }

    pub(crate) fn start(&mut self, spawn: &Spawn) -> Result<Started, Failed> {
        let folder = &spawn.spool_dir;
        self.note_spools(folder)
            .map_err(|error| Failed::new("cannot note the spool folder", &error))?;
        make_folder(folder).map_err(|error| {
            Failed::new(
                &format!("cannot make the spool folder {}", folder.display()),
                &error,
            )
        })?;
        let started = self.start_in_folder(spawn);
        if started.is_err() {
            // A record without a process would be reported as lost one day.
            let _ = fs::remove_file(folder.join(TASK_FILE));
        }
        started
    }

    fn start_in_folder(&self, spawn: &Spawn) -> Result<Started, Failed> {
        let failed = |doing: &'static str| move |error: io::Error| Failed::new(doing, &error);
        let record_failed = failed("cannot write the task's record");
        let mut record = self.record(spawn);
        let file = open_record(&spawn.spool_dir).map_err(record_failed)?;
        // First without the process, which the mark in its environment gives away:
        // a keeper that is killed at any moment leaves none that is not found.
        write(&file, &record).map_err(record_failed)?;
        let (stdout, child_stdout) = pipe().map_err(failed("cannot make a pipe"))?;
        let (stderr, child_stderr) = pipe().map_err(failed("cannot make a pipe"))?;
        let status = if spawn.sandboxed {
            let status = sandbox_status(&spawn.spool_dir);
            Some(status.map_err(failed("cannot write the sandbox's status"))?)
        } else {
            None
        };

        let mut command = command(spawn, &record.mark, status.as_ref())?;
        command.stdin(Stdio::null());
        command.stdout(child_stdout).stderr(child_stderr);
        if let Some(setup) = Setup::new(spawn)? {
            sys::before_exec(&mut command, move || setup.apply());
        }
        let child = command
            .spawn()
            .map_err(|error| cannot_start(spawn, &error))?;
        record.pid = i32::try_from(child.id()).unwrap_or(0);
        // It may have ended already, but nobody reaps it before this start is known.
        record.start_time = proc::Stat::of(record.pid).map_or(0, |stat| stat.start_time);
        self.settle(record.pid);
        // Should the disk be full just now, the mark is still in it.
        let _ = write(&file, &record);
        Ok(Started {
            pid: record.pid,
            start_time: record.start_time,
            started_at_ms: record.started_at_ms,
            mark: record.mark,
            stdout,
            stderr,
        })
    }

    fn record(&self, spawn: &Spawn) -> TaskRecord {
        TaskRecord {
            key: spawn.key.clone(),
            mark: mark(spawn),
            boot_id: self.boot_id.clone(),
            cgroup: spawn.cgroup.clone(),
            started_at_ms: clock::wall_ms(),
            pid: 0,
            start_time: 0,
        }
    }

    /// Takes from a new process what it inherited and is only for the keeper.  Done
    /// from here, since a process that has nothing to do before it is executed is
    /// started without copying the keeper's memory, in half the time.
    fn settle(&self, pid: i32) {
        let _ = fs::write(format!("/proc/{pid}/oom_score_adj"), OOM_SCORE_ADJ);
        let _ = rustix::process::prlimit(Pid::from_raw(pid), Resource::Nofile, self.nofile);
    }

    fn note_spools(&mut self, spool_dir: &Path) -> io::Result<()> {
        let Some(parent) = spool_dir.parent() else {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "the spool folder has no parent",
            ));
        };
        if self.known_spools.contains(parent) {
            return Ok(());
        }
        let text = fs::read_to_string(&self.spools).unwrap_or_default();
        let parent_text = parent.to_string_lossy();
        if !text.lines().any(|line| line == parent_text) {
            let mut file = File::options()
                .create(true)
                .append(true)
                .open(&self.spools)?;
            file.write_all(format!("{parent_text}\n").as_bytes())?;
        }
        self.known_spools.insert(parent.to_owned());
        Ok(())
    }
}

/// Makes the folder; what an earlier task of the same folder left must not be
/// taken for this task's.
fn make_folder(folder: &Path) -> io::Result<()> {
    let mut builder = fs::DirBuilder::new();
    builder.mode(0o700);
    match builder.create(folder) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            builder.recursive(true).create(folder)
        }
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            for name in super::spool::FILES {
                let _ = fs::remove_file(folder.join(name));
            }
            fs::metadata(folder).map(drop)
        }
        Err(error) => Err(error),
    }
}

/// Opens the record, with nothing in it.  That of a forgotten task is a line end, and
/// is written over: giving its block back would take longer than all the rest.
fn open_record(folder: &Path) -> io::Result<File> {
    let file = File::options()
        .write(true)
        .create(true)
        .truncate(false)
        .open(folder.join(TASK_FILE))?;
    if file.metadata()?.len() > FORGOTTEN.len() as u64 {
        file.set_len(0)?;
    }
    Ok(file)
}

/// Makes a record one of a task that is forgotten.
pub(crate) fn forget_record(folder: &Path) {
    let path = folder.join(TASK_FILE);
    let blank = |file: File| {
        file.write_all_at(FORGOTTEN, 0)?;
        file.set_len(FORGOTTEN.len() as u64)
    };
    if File::options()
        .write(true)
        .open(&path)
        .and_then(blank)
        .is_err()
    {
        let _ = fs::remove_file(path);
    }
}

/// What the environment of everything that this task starts carries.  The folder
/// is in it because keys are unique per keeper only.
fn mark(spawn: &Spawn) -> String {
    let mut hasher = DefaultHasher::new();
    spawn.spool_dir.hash(&mut hasher);
    format!("{}.{:016x}", spawn.key, hasher.finish())
}

fn pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(pipe_with(PipeFlags::CLOEXEC)?)
}

/// The file for what bubblewrap reports, open for the process to be started.  No
/// other process is started meanwhile: this thread starts them all.
fn sandbox_status(folder: &Path) -> io::Result<OwnedFd> {
    let status = OwnedFd::from(File::create(folder.join(SANDBOX_FILE))?);
    rustix::io::fcntl_setfd(&status, FdFlags::empty())?;
    Ok(status)
}

fn command(spawn: &Spawn, mark: &str, status: Option<&OwnedFd>) -> Result<Command, Failed> {
    let invalid = |message: &str| Failed {
        why: Refused::Invalid,
        message: message.to_owned(),
    };
    let (name, arguments) = spawn
        .argv
        .split_first()
        .ok_or_else(|| invalid("no program to start"))?;
    let bad_name = |name: &str| name.is_empty() || name.contains(['=', '\0']);
    if spawn.env.iter().any(|(name, _)| bad_name(name)) {
        return Err(invalid("an environment variable has no usable name"));
    }
    let program = find_program(name, spawn).ok_or_else(|| Failed {
        why: Refused::CannotStart,
        message: format!("cannot start {name}: there is no such program in PATH"),
    })?;
    let mut command = if is_plain_text(&program, &spawn.cwd) {
        // A script that does not say what for: for the shell, as everywhere.
        let mut shell = Command::new("/bin/sh");
        shell.arg(&program);
        shell
    } else {
        let mut command = Command::new(&program);
        command.arg0(name);
        command
    };
    for argument in arguments {
        match status {
            Some(status) if argument == STATUS_FD_ARGUMENT => {
                command.arg(status.as_raw_fd().to_string())
            }
            _ => command.arg(argument),
        };
    }
    command
        .env_clear()
        .envs(spawn.env.iter().map(|(name, value)| (name, value)));
    command
        .env(proc::MARK, OsStr::new(mark))
        .current_dir(&spawn.cwd)
        .process_group(0);
    Ok(command)
}

/// The program of a name, by the `PATH` of the task.
fn find_program(name: &str, spawn: &Spawn) -> Option<PathBuf> {
    if name.contains('/') {
        return Some(name.into());
    }
    let (_, path) = spawn.env.iter().find(|(name, _)| name == "PATH")?;
    crate::detect::find(name, OsStr::new(path))
}

/// Whether this is executable and neither a binary nor a script with a `#!` line.
fn is_plain_text(program: &Path, cwd: &Path) -> bool {
    let mut start = [0; 2];
    let read = File::open(cwd.join(program)).and_then(|mut file| file.read_exact(&mut start));
    read.is_ok()
        && start != *b"#!"
        && start
            .iter()
            .all(|byte| byte.is_ascii_graphic() || byte.is_ascii_whitespace())
}

fn cgroups(paths: &[PathBuf]) -> Result<Vec<File>, Failed> {
    let open = |path: &PathBuf| {
        let write = |path: &Path| File::options().write(true).open(path);
        // In the first generation of control groups a thread that moves only itself does
        // not wait until all others have passed a quiet point, which takes the kernel up
        // to 25 ms; and what has just been forked is one thread.
        let file = write(&path.with_file_name(THREADS_FILE)).or_else(|_| write(path));
        file.map_err(|error| {
            Failed::new(
                &format!("cannot join the cgroup {}", path.display()),
                &error,
            )
        })
    };
    paths.iter().map(open).collect()
}

fn cannot_start(spawn: &Spawn, error: &io::Error) -> Failed {
    let program = spawn.argv.first().map_or("", String::as_str);
    if !spawn.cwd.is_dir() {
        return Failed::new(
            &format!("cannot start {program} in {}", spawn.cwd.display()),
            error,
        );
    }
    Failed::new(&format!("cannot start {program}"), error)
}

fn write(file: &File, record: &TaskRecord) -> io::Result<()> {
    let mut text = serde_json::to_vec(record).map_err(io::Error::other)?;
    text.push(b'\n');
    file.write_all_at(&text, 0)
}

/// What the child does between fork and exec.  Must not allocate or lock: only
/// this thread exists after the fork, and another may have held any lock.
struct Setup {
    cgroups: Vec<File>,
    umask: Option<Mode>,
    nice: Option<i32>,
}

impl Setup {
    /// `None` when there is nothing to do, which makes the start much faster.
    fn new(spawn: &Spawn) -> Result<Option<Self>, Failed> {
        if spawn.cgroup.is_empty() && spawn.umask.is_none() && spawn.nice.is_none() {
            return Ok(None);
        }
        let umask = spawn.umask.map(Mode::from_raw_mode);
        Ok(Some(Self {
            cgroups: cgroups(&spawn.cgroup)?,
            umask,
            nice: spawn.nice,
        }))
    }

    fn apply(&self) -> io::Result<()> {
        for mut cgroup in &self.cgroups {
            cgroup.write_all(b"0")?;
        }
        if let Some(umask) = self.umask {
            rustix::process::umask(umask);
        }
        if let Some(nice) = self.nice {
            rustix::process::setpriority_process(None, nice)?;
        }
        Ok(())
    }
}
