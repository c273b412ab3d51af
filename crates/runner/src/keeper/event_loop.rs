//! The keeper's only loop: signals, clients, pipes and alarms, one after another.

mod tasks;

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::io;
use std::os::fd::OwnedFd;
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
use super::protocol::{Answer, Exit, Hello, Message, PROTOCOL, Refused, SendSignal, Spawn};
use super::recover::Recovered;
use super::spawn::{Failed, Spawner, Started};
use super::spool::Stream;
use super::task::Task;
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
