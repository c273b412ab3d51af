//! One task that lives: its process, its pipes, its way to the end.
//!
//! A task is looked after by [`Task::service`], which does whatever is due and says
//! when it wants to be looked after again.  Events only make it come sooner.

use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;

use super::protocol::{Exit, SendSignal, Spawn, TaskState, Usage};
use super::spawn::Started;
use super::spool::{FAST_BYTES, Moved, Spool, Stream};
use super::{clock, exits, proc, spool, sys};

/// How long a pipe rests after a small piece, in milliseconds.
/// Higher: logs arrive later.  Lower: a process that writes byte by byte makes the
/// keeper busy and the index long.
const REST_MS: i64 = 5;

/// Time between two announcements that a task wrote something, in milliseconds.
/// Higher: logs arrive later.  Lower: clients are busy with announcements.
pub(crate) const GREW_EVERY_MS: i64 = 20;

/// Time between two tries to write when the disk is full, in milliseconds.
/// Higher: goes on later when there is room.  Lower: busy while there is none.
const STALL_RETRY_MS: i64 = 200;

/// How long the end waits, in milliseconds, for pipes and cgroups to become empty
/// after the main process ended and the rest was killed.
/// Higher: somebody who escaped with the pipe delays the end.  Lower: output of
/// processes that take long to die is cut off.
const LINGER_MS: i64 = 2_000;

/// Time between two looks whether they are, in milliseconds.
/// Higher: a sandbox, whose last process goes a moment after the main one, holds its CPUs
/// for longer.  Lower: the keeper is busy with waiting.
const DRAIN_REST_MS: i64 = 1;

/// How long after the end of the main process those who hold a pipe are looked for among
/// all processes of the machine, in milliseconds.
/// Higher: who escaped goes on for longer.  Lower: the whole machine is searched for
/// processes that are just going.
const SWEEP_AFTER_MS: i64 = 10;

/// Pieces moved in one go once the main process has ended.
const LAST_PIECES: usize = 4;

/// What a service has to tell the clients, and what epoll is to watch.
#[derive(Default)]
pub(crate) struct Effects {
    pub(crate) watch: Vec<Stream>,
    pub(crate) grew: bool,
    pub(crate) stalled: Option<String>,
    pub(crate) ended: Option<Exit>,
    /// When to be serviced next, by the steady clock.
    pub(crate) again_at: Option<i64>,
}

impl Effects {
    fn again(&mut self, at: i64) {
        self.again_at = Some(self.again_at.map_or(at, |known| known.min(at)));
    }
}

struct Channel {
    stream: Stream,
    /// `None` once nobody can write to it any more.
    pipe: Option<OwnedFd>,
    /// When to look without being told; `None` while epoll watches.
    look_at: Option<i64>,
    /// What is in it could not be written.
    stalled: bool,
}

impl Channel {
    fn new(stream: Stream, pipe: Option<OwnedFd>) -> Self {
        Self {
            stream,
            pipe,
            look_at: None,
            stalled: false,
        }
    }
}

enum Phase {
    Running,
    /// The main process is gone; what it wrote is not all moved yet.
    Draining {
        exit: Exit,
        until: i64,
        /// When those who escaped are looked for, if they still are to be.
        sweep_at: Option<i64>,
    },
    /// All is moved; what is left is to write it down.
    Finishing {
        exit: Exit,
        retry_at: i64,
        is_repaired: bool,
    },
}

pub(crate) struct Task {
    pub(crate) key: String,
    pub(crate) pid: i32,
    start_time: u64,
    started_at_ms: i64,
    mark: String,
    cgroup: Vec<PathBuf>,
    sandboxed: bool,
    pub(crate) spool: Spool,
    channels: [Channel; 2],
    phase: Phase,
    /// Signals that came before the sandbox had anybody to send them to.
    early_signals: Vec<SendSignal>,
    announced_bytes: u64,
    announced_at: i64,
    pub(crate) stalled: Option<String>,
    /// The wake-up that is set for this task, if any.
    pub(crate) alarm_at: Option<i64>,
}

impl Phase {
    /// How long to wait for who still holds something, in milliseconds: not long at
    /// first, since most are about to go.
    fn rest_ms(&self) -> i64 {
        match self {
            Self::Draining {
                sweep_at: Some(_), ..
            } => DRAIN_REST_MS,
            _ => REST_MS,
        }
    }
}

impl Task {
    pub(crate) fn new(spawn: Spawn, started: Started) -> Self {
        let channel = |stream, pipe| Channel::new(stream, Some(pipe));
        Self {
            key: spawn.key,
            pid: started.pid,
            start_time: started.start_time,
            started_at_ms: started.started_at_ms,
            mark: started.mark,
            cgroup: spawn.cgroup,
            sandboxed: spawn.sandboxed,
            spool: Spool::new(spawn.spool_dir),
            channels: [
                channel(Stream::Stdout, started.stdout),
                channel(Stream::Stderr, started.stderr),
            ],
            phase: Phase::Running,
            early_signals: Vec::new(),
            announced_bytes: 0,
            announced_at: i64::MIN / 2,
            stalled: None,
            alarm_at: None,
        }
    }

    /// A task of a keeper that was killed: all that is left is to write that down.
    pub(crate) fn lost(key: String, folder: PathBuf, exit: Exit) -> Self {
        let channel = |stream| Channel::new(stream, None);
        Self {
            key,
            pid: 0,
            start_time: 0,
            started_at_ms: exit.started_at_ms,
            mark: String::new(),
            cgroup: Vec::new(),
            sandboxed: false,
            spool: Spool::new(folder),
            channels: [channel(Stream::Stdout), channel(Stream::Stderr)],
            phase: Phase::Finishing {
                exit,
                retry_at: 0,
                is_repaired: false,
            },
            early_signals: Vec::new(),
            announced_bytes: 0,
            announced_at: i64::MIN / 2,
            stalled: None,
            alarm_at: None,
        }
    }

    pub(crate) fn state(&self) -> TaskState {
        TaskState::Running {
            pid: self.pid,
            start_time: self.start_time,
        }
    }

    pub(crate) fn pipe(&self, stream: Stream) -> Option<&OwnedFd> {
        self.channels[stream.number()].pipe.as_ref()
    }

    /// Something is to be read, says epoll, which has stopped watching with that.
    pub(crate) fn readable(&mut self, stream: Stream, now: i64) {
        self.channels[stream.number()].look_at = Some(now);
    }

    /// To be called when the main process has ended and is not yet reaped: its id,
    /// and that of its group, still belong to nobody else.
    pub(crate) fn kill_rest(&self) {
        sys::kill(-self.pid, libc::SIGKILL);
    }

    pub(crate) fn exited(&mut self, status: sys::Status, usage: Usage, now: i64) {
        let how = exits::ending(status, self.sandboxed.then(|| self.spool.folder()));
        let exit = Exit {
            how,
            started_at_ms: self.started_at_ms,
            ended_at_ms: clock::wall_ms(),
            usage,
        };
        self.phase = Phase::Draining {
            exit,
            until: now + LINGER_MS,
            sweep_at: Some(now + SWEEP_AFTER_MS),
        };
        self.early_signals.clear();
        for channel in &mut self.channels {
            channel.look_at = Some(now);
        }
    }

    /// Does what is due.
    pub(crate) fn service(&mut self, now: i64) -> Effects {
        let mut effects = Effects::default();
        let mut trouble = None;
        for number in 0..self.channels.len() {
            self.move_bytes(number, now, &mut effects, &mut trouble);
        }
        self.send_early_signals(now, &mut effects);
        self.approach_end(now, &mut effects, &mut trouble);
        self.announce(now, &mut effects, trouble);
        effects
    }

    fn move_bytes(
        &mut self,
        number: usize,
        now: i64,
        effects: &mut Effects,
        trouble: &mut Option<String>,
    ) {
        let draining = matches!(self.phase, Phase::Draining { .. });
        let rest = self.phase.rest_ms();
        let channel = &mut self.channels[number];
        let (Some(pipe), Some(look_at)) = (&channel.pipe, channel.look_at) else {
            return;
        };
        if look_at > now {
            effects.again(look_at);
            return;
        }
        let mut moved = self.spool.take(channel.stream, pipe);
        for _ in 1..if draining { LAST_PIECES } else { 1 } {
            if !matches!(moved, Moved::Bytes(_)) {
                break;
            }
            moved = self.spool.take(channel.stream, pipe);
        }
        channel.stalled = matches!(moved, Moved::Stalled(_));
        let look_at = match moved {
            Moved::Bytes(count) if draining || count >= FAST_BYTES => Some(now),
            Moved::Bytes(_) => Some(now + REST_MS),
            // What another process may still write is waited for, but not for ever.
            Moved::Nothing if draining => Some(now + rest),
            Moved::Nothing => None,
            Moved::End => {
                channel.pipe = None;
                channel.look_at = None;
                return;
            }
            Moved::Stalled(error) if error.kind() == io::ErrorKind::NotFound => {
                // The spool folder was removed: nobody wants to know any more.
                channel.pipe = None;
                channel.look_at = None;
                channel.stalled = false;
                return;
            }
            Moved::Stalled(error) => {
                *trouble = Some(format!(
                    "cannot write to {}: {error}",
                    self.spool.folder().display()
                ));
                Some(now + STALL_RETRY_MS)
            }
        };
        channel.look_at = look_at;
        match look_at {
            Some(at) => effects.again(at),
            None => effects.watch.push(channel.stream),
        }
    }

    fn approach_end(&mut self, now: i64, effects: &mut Effects, trouble: &mut Option<String>) {
        if let Phase::Draining {
            exit,
            until,
            sweep_at,
        } = &mut self.phase
        {
            let is_open = self.channels.iter().any(|channel| channel.pipe.is_some());
            let is_populated = !self.cgroup.is_empty() && proc::kill_members(&self.cgroup);
            let is_due = (is_open || is_populated) && sweep_at.is_some_and(|at| at <= now);
            if is_due {
                *sweep_at = None;
                // Who still holds a pipe has left the group; the mark finds most of them.
                proc::kill_marked(|mark| mark == self.mark);
            }
            // While nothing can be written, what is in the pipes waits, however long.
            let is_stalled = self.channels.iter().any(|channel| channel.stalled);
            let is_over = *until <= now && !is_stalled;
            if (is_open || is_populated) && !is_over {
                effects.again(now + self.phase.rest_ms());
                return;
            }
            let exit = exit.clone();
            for channel in &mut self.channels {
                channel.pipe = None;
            }
            self.phase = Phase::Finishing {
                exit,
                retry_at: now,
                is_repaired: true,
            };
        }
        let Phase::Finishing {
            exit,
            retry_at,
            is_repaired,
        } = &mut self.phase
        else {
            return;
        };
        if *retry_at > now {
            effects.again(*retry_at);
            return;
        }
        match finish(&mut self.spool, is_repaired, exit) {
            Ok(()) => effects.ended = Some(exit.clone()),
            Err(error) => {
                *retry_at = now + STALL_RETRY_MS;
                effects.again(*retry_at);
                *trouble = Some(format!(
                    "cannot write to {}: {error}",
                    self.spool.folder().display()
                ));
            }
        }
    }

    fn announce(&mut self, now: i64, effects: &mut Effects, trouble: Option<String>) {
        let total = self.spool.total_bytes();
        if total != self.announced_bytes {
            let due = self.announced_at + GREW_EVERY_MS;
            if due <= now || effects.ended.is_some() {
                self.announced_at = now;
                self.announced_bytes = total;
                effects.grew = true;
            } else {
                effects.again(due);
            }
        }
        if trouble.is_some() {
            if trouble != self.stalled {
                effects.stalled.clone_from(&trouble);
            }
            self.stalled = trouble;
        } else if effects.grew {
            self.stalled = None;
        }
    }

    /// Sends a signal, now or as soon as the sandbox has somebody to send it to.
    pub(crate) fn signal(&mut self, signal: SendSignal) {
        if matches!(self.phase, Phase::Running) && !self.deliver(&signal) {
            self.early_signals.push(signal);
        }
    }

    fn send_early_signals(&mut self, now: i64, effects: &mut Effects) {
        let waiting = std::mem::take(&mut self.early_signals);
        for signal in waiting {
            if !self.deliver(&signal) {
                self.early_signals.push(signal);
                effects.again(now + REST_MS);
            }
        }
    }

    /// False when there is nobody in the sandbox yet.
    fn deliver(&self, wanted: &SendSignal) -> bool {
        if self.sandboxed && !(wanted.whole_group && wanted.signal == libc::SIGKILL) {
            return self.deliver_inside(wanted);
        }
        if !wanted.whole_group {
            sys::kill(self.pid, wanted.signal);
            return true;
        }
        sys::kill(-self.pid, wanted.signal);
        self.signal_members(wanted.signal, &[self.pid]);
        if wanted.signal == libc::SIGKILL {
            proc::kill_marked(|mark| mark == self.mark);
        }
        true
    }

    /// The keeper's child is bubblewrap, whose child is the first process of the
    /// sandbox: it ignores signals, leads the session, and has the user's processes
    /// as children.  A signal for bubblewrap itself would kill them unasked.
    fn deliver_inside(&self, wanted: &SendSignal) -> bool {
        let processes = proc::all();
        let Some(first) = processes
            .iter()
            .find(|process| process.parent == self.pid && !process.zombie)
        else {
            return false;
        };
        let users = processes
            .iter()
            .filter(|process| process.parent == first.pid && !process.zombie);
        let Some(main) = users.min_by_key(|process| (process.start_time, process.pid)) else {
            return false;
        };
        if !wanted.whole_group {
            return sys::kill(main.pid, wanted.signal);
        }
        if first.group == first.pid {
            sys::kill(-first.group, wanted.signal);
        } else {
            sys::kill(main.pid, wanted.signal);
        }
        self.signal_members(wanted.signal, &[self.pid, first.pid]);
        true
    }

    /// Signals those of the cgroup who are in none of `groups`.
    fn signal_members(&self, signal: i32, groups: &[i32]) {
        for pid in proc::members(&self.cgroup) {
            if proc::Stat::of(pid).is_some_and(|process| !groups.contains(&process.group)) {
                sys::kill(pid, signal);
            }
        }
    }
}

/// Completes a spool, after its repair if its keeper was killed.  A spool that was
/// removed meanwhile is complete.
fn finish(spool: &mut Spool, is_repaired: &mut bool, exit: &Exit) -> io::Result<()> {
    if !*is_repaired {
        *spool = spool::repair(spool.folder())?;
        *is_repaired = true;
    }
    match spool.finish(exit) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result,
    }
}
