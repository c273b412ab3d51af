//! The keeper's only loop: signals, clients, pipes and alarms, one after another.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc;

use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::event::{EventfdFlags, eventfd};
use rustix::process::Rlimit;
use rustix::time::Timespec;

use super::conn::{self, Conn, Gone};
use super::journal::Journal;
use super::protocol::{
    Answer, Ask, Exit, Hello, KEY_BYTES_MAX, Message, PROTOCOL, Refused, Request, SendSignal,
    Spawn, TASKS_MAX, TaskState, TaskView,
};
use super::recover::Recovered;
use super::spawn::{Failed, Spawner, Started};
use super::spool::Stream;
use super::task::{Effects, Task};
use super::{clock, sys};

/// Clients served at a time.
/// Higher: somebody who connects in a loop costs memory.  Lower: real clients wait.
const CLIENTS_MAX: usize = 64;

/// How long the keeper accepts nobody when it has no file left, in milliseconds.
const ACCEPT_RETRY_MS: i64 = 500;

/// Events taken from the kernel at a time.
const EVENTS_MAX: usize = 256;

/// Who an event is for: the low two bits say what, the rest which.
const STDOUT: u64 = 0;
const STDERR: u64 = 1;
const CLIENT: u64 = 2;
const OWN: u64 = 3;
const WAKE: u64 = OWN;
const LISTENER: u64 = (1 << 2) | OWN;

/// The alarm that is not a task's: accept clients again.
const LISTENER_ALARM: u64 = 0;

enum Entry {
    Starting {
        spawn: Box<Spawn>,
        waiters: Vec<Waiter>,
        signals: Vec<SendSignal>,
    },
    Live(Box<Task>),
    Ended {
        key: String,
        spool_dir: PathBuf,
        total_bytes: u64,
        exit: Exit,
    },
}

/// Who is to be told how a start went.
#[derive(Clone, Copy)]
struct Waiter {
    client: u64,
    request: u64,
}

type StartJob = (u64, Box<Spawn>);
type StartResult = (u64, Result<Started, Failed>);

pub(crate) struct EventLoop {
    epoll: OwnedFd,
    wake: Arc<OwnedFd>,
    listener: UnixListener,
    journal: Journal,
    jobs: mpsc::Sender<StartJob>,
    results: mpsc::Receiver<StartResult>,
    /// Processes that may exist without being known here yet.
    starting: usize,
    entries: HashMap<u64, Entry>,
    by_key: HashMap<String, u64>,
    by_pid: HashMap<i32, u64>,
    clients: HashMap<u64, Conn>,
    next_id: u64,
    alarms: BinaryHeap<Reverse<(i64, u64)>>,
    stop_when_idle: bool,
}

impl EventLoop {
    pub(crate) fn new(
        listener: UnixListener,
        journal: Journal,
        spools: PathBuf,
        nofile: Rlimit,
    ) -> io::Result<Self> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let wake = Arc::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?);
        epoll::add(&epoll, &*wake, EventData::new_u64(WAKE), EventFlags::IN)?;
        epoll::add(
            &epoll,
            &listener,
            EventData::new_u64(LISTENER),
            EventFlags::IN | EventFlags::ONESHOT,
        )?;
        sys::install_signal_handlers(&wake)?;
        let (jobs, results) = start_spawner(Spawner::new(spools, nofile), Arc::clone(&wake))?;
        Ok(Self {
            epoll,
            wake,
            listener,
            journal,
            jobs,
            results,
            starting: 0,
            entries: HashMap::new(),
            by_key: HashMap::new(),
            by_pid: HashMap::new(),
            clients: HashMap::new(),
            next_id: 1,
            alarms: BinaryHeap::new(),
            stop_when_idle: false,
        })
    }

    /// Takes over what a former keeper left.
    pub(crate) fn adopt(&mut self, recovered: Vec<Recovered>) {
        for found in recovered {
            let id = self.take_id();
            match found {
                Recovered::Ended {
                    key,
                    spool_dir,
                    total_bytes,
                    exit,
                } => {
                    self.by_key.insert(key.clone(), id);
                    self.entries.insert(
                        id,
                        Entry::Ended {
                            key,
                            spool_dir,
                            total_bytes,
                            exit,
                        },
                    );
                }
                Recovered::Lost(task) => {
                    self.by_key.insert(task.key.clone(), id);
                    self.entries.insert(id, Entry::Live(task));
                    self.service(id);
                }
            }
        }
    }

    /// Serves until it was told to stop and nothing runs.
    pub(crate) fn run(&mut self) {
        while !(self.stop_when_idle && self.is_idle()) {
            // Whatever goes wrong with one event must not end what others run.
            if catch_unwind(AssertUnwindSafe(|| self.turn())).is_err() {
                self.journal
                    .say("an event made the keeper panic; it goes on");
            }
        }
    }

    fn is_idle(&self) -> bool {
        self.entries
            .values()
            .all(|entry| matches!(entry, Entry::Ended { .. }))
    }

    fn take_id(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id
    }

    fn turn(&mut self) {
        let timeout = self.alarms.peek().map(|Reverse((at, _))| {
            let wait = (at - clock::steady_ms()).max(0);
            Timespec {
                tv_sec: wait / 1_000,
                tv_nsec: wait % 1_000 * 1_000_000,
            }
        });
        let mut events = Vec::with_capacity(EVENTS_MAX);
        match epoll::wait(
            &self.epoll,
            rustix::buffer::spare_capacity(&mut events),
            timeout.as_ref(),
        ) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => self
                .journal
                .say(&format!("cannot wait for events: {error}")),
        }
        for event in events {
            let (data, flags) = (event.data, event.flags);
            self.handle(data.u64(), flags);
        }
        self.ring_alarms();
        self.flush_clients();
    }

    fn handle(&mut self, token: u64, flags: EventFlags) {
        let id = token >> 2;
        match token & 3 {
            STDOUT => self.readable(id, Stream::Stdout),
            STDERR => self.readable(id, Stream::Stderr),
            CLIENT => self.serve(id, flags),
            _ if token == WAKE => self.woken(),
            _ => self.accept(),
        }
    }

    fn woken(&mut self) {
        let mut count = [0; 8];
        let _ = rustix::io::read(&*self.wake, &mut count);
        if sys::take_terminate() {
            self.stop_when_idle = true;
        }
        while let Ok((id, result)) = self.results.try_recv() {
            self.started(id, result);
        }
        self.reap();
    }

    // ---- clients

    fn accept(&mut self) {
        while self.clients.len() < CLIENTS_MAX {
            let accepted = match self.listener.accept() {
                Ok((stream, _)) => Conn::new(stream),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => Err(error),
            };
            match accepted {
                Ok(conn) => self.greet(conn),
                Err(error) => {
                    self.journal
                        .say(&format!("cannot accept a client: {error}"));
                    let at = clock::steady_ms() + ACCEPT_RETRY_MS;
                    self.alarms.push(Reverse((at, LISTENER_ALARM)));
                    return;
                }
            }
        }
        if self.clients.len() < CLIENTS_MAX {
            self.watch_listener();
        }
    }

    fn watch_listener(&self) {
        let flags = EventFlags::IN | EventFlags::ONESHOT;
        let _ = epoll::modify(
            &self.epoll,
            &self.listener,
            EventData::new_u64(LISTENER),
            flags,
        );
    }

    fn greet(&mut self, mut conn: Conn) {
        conn.send(&Message::Hello(Hello {
            protocol: PROTOCOL,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: rustix::process::getpid().as_raw_nonzero().get(),
        }));
        let id = self.take_id();
        let data = EventData::new_u64(id << 2 | CLIENT);
        if epoll::add(&self.epoll, &conn.stream, data, EventFlags::IN).is_ok() {
            self.clients.insert(id, conn);
        }
    }

    fn serve(&mut self, client: u64, flags: EventFlags) {
        let Some(conn) = self.clients.get_mut(&client) else {
            return;
        };
        if !flags.intersects(EventFlags::IN | EventFlags::HUP | EventFlags::ERR) {
            return;
        }
        match conn.requests() {
            Ok(requests) => requests
                .into_iter()
                .for_each(|request| self.obey(client, request)),
            Err(Gone) => self.drop_client(client),
        }
    }

    fn drop_client(&mut self, client: u64) {
        let was_full = self.clients.len() >= CLIENTS_MAX;
        self.clients.remove(&client);
        if was_full {
            self.watch_listener();
        }
    }

    fn flush_clients(&mut self) {
        let mut gone = Vec::new();
        for (id, conn) in &mut self.clients {
            if conn.has_output() && conn.flush().is_err() {
                gone.push(*id);
                continue;
            }
            if conn.has_output() != conn.watched_for_output {
                conn.watched_for_output = conn.has_output();
                let flags = if conn.has_output() {
                    EventFlags::IN | EventFlags::OUT
                } else {
                    EventFlags::IN
                };
                let _ = epoll::modify(
                    &self.epoll,
                    &conn.stream,
                    EventData::new_u64(id << 2 | CLIENT),
                    flags,
                );
            }
        }
        gone.into_iter().for_each(|id| self.drop_client(id));
    }

    fn reply(&mut self, to: Waiter, answer: Answer) {
        if let Some(conn) = self.clients.get_mut(&to.client) {
            conn.send(&Message::Reply {
                id: to.request,
                answer,
            });
        }
    }

    fn tell_all(&mut self, message: &Message) {
        let line = conn::line(message);
        let may_be_left_out = matches!(message, Message::Grew { .. });
        for conn in self.clients.values_mut() {
            if !(may_be_left_out && conn.is_busy()) {
                conn.send_line(&line);
            }
        }
    }

    // ---- requests

    fn obey(&mut self, client: u64, request: Result<Request, String>) {
        let request = match request {
            Ok(request) => request,
            Err(message) => {
                let answer = Answer::Refused {
                    why: Refused::Invalid,
                    message,
                };
                return self.reply(Waiter { client, request: 0 }, answer);
            }
        };
        let from = Waiter {
            client,
            request: request.id,
        };
        let answer = match request.ask {
            Ask::Spawn(spawn) => match self.spawn(spawn, from) {
                Some(answer) => answer,
                None => return,
            },
            Ask::Signal(signal) => self.signal(signal),
            Ask::Forget { key } => self.forget(&key),
            Ask::Look { key } => match self.by_key.get(&key).and_then(|id| self.entries.get(id)) {
                Some(entry) => Answer::Task(view(entry).state),
                None => unknown(&key),
            },
            Ask::List => Answer::Tasks(self.entries.values().map(view).collect()),
            Ask::StopWhenIdle => {
                self.stop_when_idle = true;
                Answer::Done
            }
        };
        self.reply(from, answer);
    }

    /// `None` when the answer comes with the end of the start.
    fn spawn(&mut self, spawn: Spawn, from: Waiter) -> Option<Answer> {
        if let Some(known) = self
            .by_key
            .get(&spawn.key)
            .and_then(|id| self.entries.get_mut(id))
        {
            if let Entry::Starting { waiters, .. } = known {
                waiters.push(from);
                return None;
            }
            return Some(Answer::Task(view(known).state));
        }
        let invalid = |message: &str| {
            Some(Answer::Refused {
                why: Refused::Invalid,
                message: message.to_owned(),
            })
        };
        if spawn.key.is_empty() || spawn.key.len() > KEY_BYTES_MAX || spawn.key.contains('\0') {
            return invalid("the key of a task is 1 to 200 bytes long");
        }
        if !spawn.spool_dir.is_absolute() || !spawn.cwd.is_absolute() {
            return invalid("spool folder and working directory are absolute paths");
        }
        if self.entries.len() >= TASKS_MAX {
            let message = format!("{TASKS_MAX} tasks are known; forget some that have ended");
            return Some(Answer::Refused {
                why: Refused::Exhausted,
                message,
            });
        }
        let id = self.take_id();
        let spawn = Box::new(spawn);
        if self.jobs.send((id, spawn.clone())).is_err() {
            let message = "the thread that starts processes is gone".to_owned();
            return Some(Answer::Refused {
                why: Refused::Exhausted,
                message,
            });
        }
        self.starting += 1;
        self.by_key.insert(spawn.key.clone(), id);
        self.entries.insert(
            id,
            Entry::Starting {
                spawn,
                waiters: vec![from],
                signals: Vec::new(),
            },
        );
        None
    }

    fn started(&mut self, id: u64, result: Result<Started, Failed>) {
        self.starting = self.starting.saturating_sub(1);
        let Some(Entry::Starting {
            spawn,
            waiters,
            signals,
        }) = self.entries.remove(&id)
        else {
            return;
        };
        let answer = match result {
            Ok(started) => {
                self.by_pid.insert(started.pid, id);
                let mut task = Box::new(Task::new(*spawn, started));
                let state = task.state();
                for (stream, kind) in [(Stream::Stdout, STDOUT), (Stream::Stderr, STDERR)] {
                    let flags = EventFlags::IN | EventFlags::ONESHOT;
                    let data = EventData::new_u64(id << 2 | kind);
                    if let Some(Err(_)) = task
                        .pipe(stream)
                        .map(|pipe| epoll::add(&self.epoll, pipe, data, flags))
                    {
                        task.readable(stream, clock::steady_ms());
                    }
                }
                signals.into_iter().for_each(|signal| task.signal(signal));
                self.entries.insert(id, Entry::Live(task));
                self.service(id);
                Answer::Task(state)
            }
            Err(Failed { why, message }) => {
                self.by_key.remove(&spawn.key);
                Answer::Refused { why, message }
            }
        };
        waiters
            .into_iter()
            .for_each(|waiter| self.reply(waiter, answer.clone()));
    }

    fn signal(&mut self, signal: SendSignal) -> Answer {
        let known = self.by_key.get(&signal.key).copied();
        match known.and_then(|id| self.entries.get_mut(&id)) {
            None => unknown(&signal.key),
            // Already gone is what was wanted.
            Some(Entry::Ended { .. }) => Answer::Done,
            Some(Entry::Starting { signals, .. }) => {
                signals.push(signal);
                Answer::Done
            }
            Some(Entry::Live(task)) => {
                task.signal(signal);
                if let Some(id) = known {
                    self.service(id);
                }
                Answer::Done
            }
        }
    }

    fn forget(&mut self, key: &str) -> Answer {
        let Some(id) = self.by_key.get(key).copied() else {
            return Answer::Done;
        };
        let Some(Entry::Ended { spool_dir, .. }) = self.entries.get(&id) else {
            return Answer::Refused {
                why: Refused::Running,
                message: format!("{key} has not ended"),
            };
        };
        // Without it, the next keeper does not find this task again.
        let _ = std::fs::remove_file(spool_dir.join(super::spawn::TASK_FILE));
        self.entries.remove(&id);
        self.by_key.remove(key);
        Answer::Done
    }

    // ---- tasks

    fn readable(&mut self, id: u64, stream: Stream) {
        if let Some(Entry::Live(task)) = self.entries.get_mut(&id) {
            task.readable(stream, clock::steady_ms());
            self.service(id);
        }
    }

    /// Reaps whoever has ended: main processes of tasks, and orphans.
    fn reap(&mut self) {
        while let Some(pid) = sys::peek_ended(None) {
            if self.by_pid.contains_key(&pid) {
                self.reap_main(pid);
            } else if self.starting == 0 {
                sys::reap(pid);
            } else {
                // It may be one that is just being started: it stays until that is
                // known, and must not hide the others meanwhile.
                let ended = |pid: &i32| sys::peek_ended(Some(*pid)).is_some();
                let known: Vec<i32> = self.by_pid.keys().copied().filter(ended).collect();
                known.into_iter().for_each(|pid| self.reap_main(pid));
                return;
            }
        }
    }

    fn reap_main(&mut self, pid: i32) {
        let Some(id) = self.by_pid.remove(&pid) else {
            return;
        };
        if let Some(Entry::Live(task)) = self.entries.get_mut(&id) {
            task.kill_rest();
        }
        let Some((status, usage)) = sys::reap(pid) else {
            return;
        };
        if let Some(Entry::Live(task)) = self.entries.get_mut(&id) {
            task.exited(status, usage, clock::steady_ms());
            self.service(id);
        }
    }

    /// Looks after a task, and does what comes of it.
    fn service(&mut self, id: u64) {
        let Some(Entry::Live(task)) = self.entries.get_mut(&id) else {
            return;
        };
        let effects = task.service(clock::steady_ms());
        for stream in &effects.watch {
            let kind = if *stream == Stream::Stdout {
                STDOUT
            } else {
                STDERR
            };
            let data = EventData::new_u64(id << 2 | kind);
            if let Some(pipe) = task.pipe(*stream) {
                let _ = epoll::modify(
                    &self.epoll,
                    pipe.as_fd(),
                    data,
                    EventFlags::IN | EventFlags::ONESHOT,
                );
            }
        }
        if let Some(at) = effects.again_at
            && task.alarm_at.is_none_or(|known| at < known)
        {
            task.alarm_at = Some(at);
            self.alarms.push(Reverse((at, id)));
        }
        self.publish(id, effects);
    }

    fn publish(&mut self, id: u64, effects: Effects) {
        let Some(Entry::Live(task)) = self.entries.get(&id) else {
            return;
        };
        let (key, total_bytes) = (task.key.clone(), task.spool.total_bytes());
        let spool_dir = task.spool.folder().to_owned();
        if effects.grew {
            self.tell_all(&Message::Grew {
                key: key.clone(),
                total_bytes,
            });
        }
        if let Some(reason) = effects.stalled {
            self.journal.say(&format!("{key}: {reason}"));
            self.tell_all(&Message::Stalled {
                key: key.clone(),
                reason,
            });
        }
        if let Some(exit) = effects.ended {
            self.tell_all(&Message::Ended {
                key: key.clone(),
                exit: exit.clone(),
            });
            self.entries.insert(
                id,
                Entry::Ended {
                    key,
                    spool_dir,
                    total_bytes,
                    exit,
                },
            );
        }
    }

    fn ring_alarms(&mut self) {
        let now = clock::steady_ms();
        let mut due = Vec::new();
        while let Some(Reverse((at, id))) = self.alarms.peek().copied() {
            if at > now {
                break;
            }
            self.alarms.pop();
            due.push((at, id));
        }
        for (at, id) in due {
            if id == LISTENER_ALARM {
                self.watch_listener();
            } else if let Some(Entry::Live(task)) = self.entries.get_mut(&id)
                && task.alarm_at == Some(at)
            {
                task.alarm_at = None;
                self.service(id);
            }
        }
    }
}

fn unknown(key: &str) -> Answer {
    Answer::Refused {
        why: Refused::Unknown,
        message: format!("there is no task {key}"),
    }
}

fn view(entry: &Entry) -> TaskView {
    match entry {
        Entry::Starting { spawn, .. } => TaskView {
            key: spawn.key.clone(),
            spool_dir: spawn.spool_dir.clone(),
            state: TaskState::Starting,
            total_bytes: 0,
            stalled: None,
        },
        Entry::Live(task) => TaskView {
            key: task.key.clone(),
            spool_dir: task.spool.folder().to_owned(),
            state: task.state(),
            total_bytes: task.spool.total_bytes(),
            stalled: task.stalled.clone(),
        },
        Entry::Ended {
            key,
            spool_dir,
            total_bytes,
            exit,
        } => TaskView {
            key: key.clone(),
            spool_dir: spool_dir.clone(),
            state: TaskState::Ended { exit: exit.clone() },
            total_bytes: *total_bytes,
            stalled: None,
        },
    }
}

/// Starts the thread that starts processes.  It lives as long as the keeper: the
/// kernel kills sandboxes when the thread that started them ends.
fn start_spawner(
    mut spawner: Spawner,
    wake: Arc<OwnedFd>,
) -> io::Result<(mpsc::Sender<StartJob>, mpsc::Receiver<StartResult>)> {
    let (jobs, incoming) = mpsc::channel::<StartJob>();
    let (outgoing, results) = mpsc::channel();
    let work = move || {
        for (id, spawn) in incoming {
            let result =
                catch_unwind(AssertUnwindSafe(|| spawner.start(&spawn))).unwrap_or_else(|_| {
                    Err(Failed {
                        why: Refused::CannotStart,
                        message: "starting it made the keeper panic".to_owned(),
                    })
                });
            let _ = outgoing.send((id, result));
            let _ = rustix::io::write(&*wake, &1_u64.to_ne_bytes());
        }
    };
    std::thread::Builder::new()
        .name("spawner".to_owned())
        .stack_size(256 * 1024)
        .spawn(work)?;
    Ok((jobs, results))
}
