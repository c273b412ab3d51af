//! The system calls of the keeper that need `unsafe`, each wrapped safely.

use std::fs;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};

use rustix::process::{Resource, Rlimit};

use super::protocol::Usage;

/// Where the signal handler writes to wake the event loop.
static WAKE_FD: AtomicI32 = AtomicI32::new(-1);

/// Whether somebody asked the keeper to go with SIGTERM.
static TERMINATE: AtomicBool = AtomicBool::new(false);

/// How a process that was waited for ended.
pub(crate) enum Status {
    Code(i32),
    Signal(i32),
}

/// Installs handlers: SIGCHLD and SIGTERM wake the loop, the rest is swallowed.
///
/// Handlers and not "ignore", since what is ignored stays so in the processes that
/// are started, and what is handled does not.
pub(crate) fn install_signal_handlers(wake: &OwnedFd) -> io::Result<()> {
    WAKE_FD.store(wake.as_raw_fd(), Ordering::SeqCst);
    let swallowed = [
        libc::SIGHUP,
        libc::SIGINT,
        libc::SIGQUIT,
        libc::SIGPIPE,
        libc::SIGXFSZ,
    ];
    for signal in [libc::SIGCHLD, libc::SIGTERM].into_iter().chain(swallowed) {
        handle(signal)?;
    }
    Ok(())
}

/// Whether SIGTERM came since the last call.
pub(crate) fn take_terminate() -> bool {
    TERMINATE.swap(false, Ordering::SeqCst)
}

#[expect(unsafe_code, reason = "signal handlers can only be set through libc")]
fn handle(signal: i32) -> io::Result<()> {
    // SAFETY: the handler only touches atomics and calls `write`, which is allowed
    // in signal handlers, and `action` is fully initialised.
    let result = unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = on_signal as extern "C" fn(libc::c_int) as libc::sighandler_t;
        action.sa_flags = libc::SA_RESTART | libc::SA_NOCLDSTOP;
        libc::sigaction(signal, &raw const action, std::ptr::null_mut())
    };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

#[expect(
    unsafe_code,
    reason = "writing from a signal handler: nothing but the bare call is allowed"
)]
extern "C" fn on_signal(signal: libc::c_int) {
    if signal == libc::SIGTERM {
        TERMINATE.store(true, Ordering::SeqCst);
    }
    if signal == libc::SIGTERM || signal == libc::SIGCHLD {
        let one = 1_u64.to_ne_bytes();
        // SAFETY: `write` is async-signal-safe, the buffer lives, and errno is put
        // back for the code that was interrupted.
        unsafe {
            let errno = libc::__errno_location();
            let before = *errno;
            libc::write(
                WAKE_FD.load(Ordering::SeqCst),
                one.as_ptr().cast(),
                one.len(),
            );
            *errno = before;
        }
    }
}

/// A child (this one, or any) that has ended and has not been reaped: it stays as
/// it is, and its process id cannot be given to anybody else yet.
#[expect(
    unsafe_code,
    reason = "no safe wrapper tells the process id of any child that ended"
)]
pub(crate) fn peek_ended(child: Option<i32>) -> Option<i32> {
    let (kind, id) = match child {
        Some(pid) => (libc::P_PID, libc::id_t::try_from(pid).ok()?),
        None => (libc::P_ALL, 0),
    };
    let mut info = MaybeUninit::<libc::siginfo_t>::zeroed();
    // SAFETY: the kernel fills `info`, which is valid when zeroed; `si_pid` is set
    // for children, and zero when there was none.
    unsafe {
        let flags = libc::WEXITED | libc::WNOHANG | libc::WNOWAIT;
        if libc::waitid(kind, id, info.as_mut_ptr(), flags) != 0 {
            return None;
        }
        let pid = info.assume_init().si_pid();
        (pid > 0).then_some(pid)
    }
}

/// Reaps a child if it has ended.
#[expect(
    unsafe_code,
    reason = "no safe wrapper gives the resource usage of a child"
)]
pub(crate) fn reap(pid: i32) -> Option<(Status, Usage)> {
    let mut status = 0;
    let mut usage = MaybeUninit::<libc::rusage>::zeroed();
    // SAFETY: both out-pointers are valid; a zeroed rusage is a valid one.
    let (reaped, usage) = unsafe {
        let reaped = libc::wait4(pid, &raw mut status, libc::WNOHANG, usage.as_mut_ptr());
        (reaped, usage.assume_init())
    };
    if reaped != pid {
        return None;
    }
    let status = if libc::WIFSIGNALED(status) {
        Status::Signal(libc::WTERMSIG(status))
    } else {
        Status::Code(libc::WEXITSTATUS(status))
    };
    let millis = |time: libc::timeval| {
        u64::try_from(time.tv_sec).unwrap_or(0) * 1_000
            + u64::try_from(time.tv_usec).unwrap_or(0) / 1_000
    };
    let usage = Usage {
        max_rss_bytes: u64::try_from(usage.ru_maxrss).unwrap_or(0) * 1024,
        cpu_user_ms: millis(usage.ru_utime),
        cpu_system_ms: millis(usage.ru_stime),
    };
    Some((status, usage))
}

/// Sends a signal to a process, or to a process group when `target` is negative.
/// True when there was somebody to send it to.
#[expect(
    unsafe_code,
    reason = "signals are given by number, which safe wrappers refuse"
)]
pub(crate) fn kill(target: i32, signal: i32) -> bool {
    if matches!(target, -1..=1) {
        // Everybody, our own group, or init: never what was meant.
        return false;
    }
    // SAFETY: `kill` touches no memory of ours.
    unsafe { libc::kill(target, signal) == 0 }
}

/// Sets what the child does between fork and exec.
#[expect(
    unsafe_code,
    reason = "cgroups must be joined by the child itself, before exec"
)]
pub(crate) fn before_exec(
    command: &mut Command,
    setup: impl FnMut() -> io::Result<()> + Send + Sync + 'static,
) {
    // SAFETY: callers pass closures that neither allocate nor lock; see `spawn::Setup`.
    unsafe {
        command.pre_exec(setup);
    }
}

/// Closes what the starter of this process left open: files and pipes of others,
/// which would otherwise stay open as long as the keeper lives.
#[expect(
    unsafe_code,
    reason = "no safe wrapper closes files that nobody here owns"
)]
pub(crate) fn close_inherited() {
    const FIRST: libc::c_uint = 3;
    // SAFETY: called before this process opens anything of its own.
    unsafe {
        if libc::syscall(libc::SYS_close_range, FIRST, libc::c_uint::MAX, 0) != 0 {
            for fd in 3..1024 {
                libc::close(fd);
            }
        }
    }
}

/// Orphans of user processes come to the keeper, so that none outlives its task
/// unseen, and every one of them is reaped.
pub(crate) fn become_parent_of_orphans() -> io::Result<()> {
    rustix::process::set_child_subreaper(Some(rustix::process::getpid()))?;
    // Memory runs out: anything else is a better choice than the keeper.  Needs a
    // capability that is often missing, and then nothing is lost but the wish.
    let _ = fs::write("/proc/self/oom_score_adj", "-900");
    Ok(())
}

/// Raises the number of files that the keeper may open to what is allowed at all,
/// and returns the old limit, which is what user processes get.
pub(crate) fn raise_open_files() -> Rlimit {
    let before = rustix::process::getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: before.maximum,
        maximum: before.maximum,
    };
    let _ = rustix::process::setrlimit(Resource::Nofile, raised);
    before
}
