//! The keeper: the parent of every user process of a node.
//!
//! A small process that lives long and does little, so that the runner and the
//! server may die and come back at any time.  It starts processes, owns their
//! pipes, moves what they write into spool folders, and remembers how they ended.
//! The runner commands it over a Unix socket ([`client`]) and reads the spools
//! itself ([`reader`]).
//!
//! What it promises:
//!
//! - Every byte that a process wrote is in its spool, in order per stream, before
//!   the end of that process is announced.  Bytes go from pipe to file inside the
//!   kernel (`splice`), so that there is no moment at which they exist only in the
//!   keeper's memory.
//! - A full disk loses nothing: the process blocks on its pipe until there is room.
//! - When a process has ended, what it left behind in its process group, its
//!   cgroup or its pid namespace is killed before the end is announced.
//! - One task is one process, in a process group of its own: nothing else is
//!   started beside it.
//! - Nothing that a user process or a client does ends the keeper.  It goes when it
//!   was told to and nothing runs.  While nothing happens it uses no CPU.
//! - After `kill -9` of the keeper itself, the next one kills what the old one left
//!   running, and reports it as lost; the spools stay readable (`recover.rs`).
//!
//! What it does not promise: survival of a power cut (nothing is synced to the
//! disk), or protection from unsandboxed processes of the same user, which may
//! kill whatever they like.
//!
//! # Folder
//!
//! `DIR/keeper.sock` (mode 0600) · `DIR/keeper.lock` (one keeper per folder) ·
//! `DIR/keeper.log` · `DIR/spools` (the folders in which spool folders were made;
//! how a new keeper finds the tasks of a dead one).
//!
//! A spool folder holds `task.json` (who the process is), `out`, `err` and `index`
//! (what it wrote; made when there is something to hold), `sandbox.json` (what
//! bubblewrap says, for sandboxed tasks) and `exit.json` (how it ended; written
//! last).  The runner removes the folder after it has shipped it and told the
//! keeper to forget the task.
//!
//! # A new binary beside an old keeper
//!
//! The keeper greets every client with its protocol number and its version.  A
//! change of the protocol that an old keeper cannot serve raises
//! [`protocol::PROTOCOL`], and [`client::Client::connect`] then says so.  An old
//! keeper is never killed, since that would end people's processes: the new runner
//! sends `stop_when_idle`, the old keeper goes at the first moment at which nothing
//! runs, and the next connection starts the new one, which finds the ended tasks of
//! the old one on disk.
//!
//! # Service managers
//!
//! The keeper has its own session, but stays in the control group in which it was
//! started.  A systemd unit of the server needs `KillMode=process`.

pub mod client;
mod clock;
mod conn;
mod event_loop;
mod exits;
mod journal;
mod proc;
pub mod protocol;
pub mod reader;
mod recover;
pub(crate) mod spawn;
pub(crate) mod spool;
mod sys;
mod task;
#[cfg(test)]
pub(crate) mod testing;

use std::fs::{self, File};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use rustix::fs::FlockOperation;

use event_loop::EventLoop;
use journal::Journal;
pub(crate) use proc::boot_id;

/// The name that a keeper shows in process lists.
pub const PROCESS_NAME: &str = "grid-keeper";

/// Runs a keeper on `dir` until it is told to go and nothing runs.
///
/// Ends at once, with success, when `dir` already has a living keeper.  To be
/// called first thing in `main`, before any thread is started or file opened: files
/// that are open are closed, since they belong to whoever started this process.
pub fn main(dir: &Path) -> ExitCode {
    sys::close_inherited();
    // Fails only when this process leads its group, and then it cannot be taken
    // down with the group of the one who started it either.
    let _ = rustix::process::setsid();
    let _ = rustix::thread::set_name(c"grid-keeper");
    match run(dir) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let journal = Journal::open(&paths(dir).log);
            journal.say(&format!("cannot go on: {error}"));
            ExitCode::FAILURE
        }
    }
}

/// Where a keeper has its things.
pub(crate) struct Paths {
    pub(crate) socket: PathBuf,
    pub(crate) lock: PathBuf,
    pub(crate) log: PathBuf,
    pub(crate) spools: PathBuf,
}

pub(crate) fn paths(dir: &Path) -> Paths {
    Paths {
        socket: dir.join("keeper.sock"),
        lock: dir.join("keeper.lock"),
        log: dir.join("keeper.log"),
        spools: dir.join("spools"),
    }
}

fn run(dir: &Path) -> io::Result<()> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir)?;
    let paths = paths(dir);
    let Some(_lock) = lock(&paths.lock)? else {
        return Ok(());
    };
    let journal = Journal::open(&paths.log);
    sys::become_parent_of_orphans()?;
    let nofile = sys::raise_open_files();
    let listener = listen(dir, &paths.socket)?;
    let (recovered, problems) = recover::recover(dir)?;
    for problem in &problems {
        journal.say(problem);
    }
    let mut event_loop = EventLoop::new(listener, journal, paths.spools.clone(), nofile)?;
    event_loop.adopt(recovered);
    event_loop.run();
    // Under the lock: nobody else's socket can be at this path.
    let _ = fs::remove_file(&paths.socket);
    Ok(())
}

/// Takes the lock that makes a keeper the only one of its folder; `None` when
/// another one lives.
fn lock(path: &Path) -> io::Result<Option<File>> {
    let file = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(path)?;
    match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(Some(file)),
        Err(rustix::io::Errno::WOULDBLOCK) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Binds under another name and renames: whoever finds the socket can connect.
fn listen(dir: &Path, path: &Path) -> io::Result<UnixListener> {
    let fresh = path.with_extension("new");
    let _ = fs::remove_file(&fresh);
    let (address, _guard) = socket_path(dir, &fresh)?;
    let listener = UnixListener::bind(address)?;
    fs::set_permissions(&fresh, fs::Permissions::from_mode(0o600))?;
    fs::rename(&fresh, path)?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// Longest path that a socket can have, in bytes, with the final zero.
const SOCKET_PATH_BYTES_MAX: usize = 108;

/// A path for a socket in `dir`.  One that is too long goes by way of the open
/// folder, which must be kept open meanwhile.
fn socket_path(dir: &Path, path: &Path) -> io::Result<(PathBuf, Option<File>)> {
    if path.as_os_str().len() < SOCKET_PATH_BYTES_MAX {
        return Ok((path.to_owned(), None));
    }
    let folder = File::open(dir)?;
    let name = path.file_name().unwrap_or_default();
    let short = Path::new("/proc/self/fd")
        .join(folder.as_raw_fd().to_string())
        .join(name);
    Ok((short, Some(folder)))
}
