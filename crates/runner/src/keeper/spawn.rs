//! Starting one process: folder, pipes, cgroups, record on disk, exec.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rustix::fs::Mode;
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Resource, Rlimit};
use serde::{Deserialize, Serialize};

use super::protocol::{Refused, STATUS_FD_ARGUMENT, Spawn};
use super::{clock, proc, sys};

/// How much more readily user processes are killed than others when memory runs out.
/// Higher: they go even when something else leaks.  Lower: the server may go first.
const OOM_SCORE_ADJ: &[u8] = b"300";

/// The record of a task.
pub(crate) const TASK_FILE: &str = "task.json";

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
    /// Also the process group and the session.
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
        let record_path = spawn.spool_dir.join(TASK_FILE);
        let record = File::options()
            .create(true)
            .truncate(true)
            .read(true)
            .write(true)
            .open(record_path);
        let mut record = record.map_err(failed("cannot write the task's record"))?;
        let mark = mark(spawn);
        let started_at_ms = clock::wall_ms();
        let (stdout, child_stdout) = pipe().map_err(failed("cannot make a pipe"))?;
        let (stderr, child_stderr) = pipe().map_err(failed("cannot make a pipe"))?;
        let status = if spawn.sandboxed {
            let file = File::create(spawn.spool_dir.join(SANDBOX_FILE));
            Some(OwnedFd::from(
                file.map_err(failed("cannot write the sandbox's status"))?,
            ))
        } else {
            None
        };

        let mut command = command(spawn, &mark, status.as_ref())?;
        command
            .stdin(Stdio::null())
            .stdout(child_stdout)
            .stderr(child_stderr);
        let mut setup = Setup {
            record: record
                .try_clone()
                .map_err(failed("cannot write the task's record"))?,
            text: self.record_text(spawn, &mark, started_at_ms),
            cgroups: cgroups(&spawn.cgroup)?,
            status,
            nofile: self.nofile,
            umask: spawn.umask.map(Mode::from_raw_mode),
            nice: spawn.nice,
        };
        sys::before_exec(&mut command, move || setup.apply());
        let child = command
            .spawn()
            .map_err(|error| cannot_start(spawn, &error))?;
        let pid = i32::try_from(child.id()).unwrap_or(0);
        // Read back what the child wrote: by now it may have ended already.
        let start_time = read_back(&mut record).map_or(0, |found| found.start_time);
        Ok(Started {
            pid,
            start_time,
            started_at_ms,
            mark,
            stdout,
            stderr,
        })
    }

    /// The record but for what only the child knows: it appends to this, see [`Setup`].
    fn record_text(&self, spawn: &Spawn, mark: &str, started_at_ms: i64) -> Vec<u8> {
        let unfinished = TaskRecord {
            key: spawn.key.clone(),
            mark: mark.to_owned(),
            boot_id: self.boot_id.clone(),
            cgroup: spawn.cgroup.clone(),
            started_at_ms,
            pid: 0,
            start_time: 0,
        };
        let mut text = serde_json::to_vec(&unfinished).unwrap_or_default();
        let tail = br#""pid":0,"start_time":0}"#;
        text.truncate(text.len().saturating_sub(tail.len()));
        // So that the child need not allocate.
        text.reserve(RECORD_TAIL_BYTES);
        text
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

fn command(spawn: &Spawn, mark: &str, status: Option<&OwnedFd>) -> Result<Command, Failed> {
    let invalid = |message: &str| Failed {
        why: Refused::Invalid,
        message: message.to_owned(),
    };
    let (program, arguments) = spawn
        .argv
        .split_first()
        .ok_or_else(|| invalid("no program to start"))?;
    let bad_name = |name: &str| name.is_empty() || name.contains(['=', '\0']);
    if spawn.env.iter().any(|(name, _)| bad_name(name)) {
        return Err(invalid("an environment variable has no usable name"));
    }
    let mut command = Command::new(program);
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
        .current_dir(&spawn.cwd);
    Ok(command)
}

fn cgroups(paths: &[PathBuf]) -> Result<Vec<File>, Failed> {
    let open = |path: &PathBuf| {
        let file = File::options().write(true).open(path);
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

fn read_back(record: &mut File) -> Option<TaskRecord> {
    use std::os::unix::fs::FileExt;
    let mut text = vec![0; usize::try_from(record.metadata().ok()?.len()).ok()?];
    record.read_exact_at(&mut text, 0).ok()?;
    serde_json::from_slice(&text).ok()
}

/// Room for what the child appends to its record, in bytes.
const RECORD_TAIL_BYTES: usize = 80;

/// What the child does between fork and exec.  Must not allocate or lock: only
/// this thread exists after the fork, and another may have held any lock.
struct Setup {
    record: File,
    text: Vec<u8>,
    cgroups: Vec<File>,
    status: Option<OwnedFd>,
    nofile: Rlimit,
    umask: Option<Mode>,
    nice: Option<i32>,
}

impl Setup {
    fn apply(&mut self) -> io::Result<()> {
        rustix::process::setsid()?;
        for mut cgroup in &self.cgroups {
            cgroup.write_all(b"0")?;
        }
        if let Ok(file) = open_own(c"/proc/self/oom_score_adj", rustix::fs::OFlags::WRONLY) {
            let _ = rustix::io::write(&file, OOM_SCORE_ADJ);
        }
        let _ = rustix::process::setrlimit(Resource::Nofile, self.nofile);
        if let Some(umask) = self.umask {
            rustix::process::umask(umask);
        }
        if let Some(nice) = self.nice {
            rustix::process::setpriority_process(None, nice)?;
        }
        if let Some(status) = &self.status {
            sys::keep_over_exec(status.as_fd())?;
        }
        self.write_record()
    }

    /// Completes the record.  After this, and not before, the program may run: a
    /// keeper that is killed at any moment leaves no process without a record.
    fn write_record(&mut self) -> io::Result<()> {
        let pid = rustix::process::getpid().as_raw_nonzero().get();
        self.text.extend_from_slice(br#""pid":"#);
        push_number(&mut self.text, u64::try_from(pid).unwrap_or(0));
        self.text.extend_from_slice(br#","start_time":"#);
        push_number(&mut self.text, own_start_time().unwrap_or(0));
        self.text.extend_from_slice(b"}\n");
        (&self.record).write_all(&self.text)
    }
}

fn own_start_time() -> Option<u64> {
    let mut file = File::from(open_own(c"/proc/self/stat", rustix::fs::OFlags::RDONLY).ok()?);
    let mut line = [0; 1024];
    let length = file.read(&mut line).ok()?;
    proc::start_time_of_line(line.get(..length)?)
}

fn open_own(path: &std::ffi::CStr, flags: rustix::fs::OFlags) -> io::Result<OwnedFd> {
    Ok(rustix::fs::open(
        path,
        flags | rustix::fs::OFlags::CLOEXEC,
        Mode::empty(),
    )?)
}

/// Appends a decimal number without allocating, as long as there is room.
fn push_number(text: &mut Vec<u8>, number: u64) {
    let mut digits = [0; 20];
    let mut rest = number;
    let mut start = digits.len();
    loop {
        start -= 1;
        if let (Some(digit), Ok(value)) = (digits.get_mut(start), u8::try_from(rest % 10)) {
            *digit = b'0' + value;
        }
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    text.extend_from_slice(digits.get(start..).unwrap_or_default());
}

#[cfg(test)]
mod tests {
    use super::push_number;

    #[test]
    fn numbers_are_decimal() {
        for number in [0, 7, 10, 4_194_304, u64::MAX] {
            let mut text = Vec::new();
            push_number(&mut text, number);
            assert_eq!(text, number.to_string().into_bytes());
        }
    }
}
