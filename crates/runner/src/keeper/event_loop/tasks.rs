//! What the loop does about requests and tasks.

use std::cmp::Reverse;
use std::os::fd::AsFd;

use rustix::event::epoll::{self, EventData, EventFlags};

use super::{Entry, EventLoop, LISTENER_ALARM, STDERR, STDOUT, Waiter};
use crate::keeper::protocol::{
    Answer, Ask, KEY_BYTES_MAX, Message, Refused, Request, SendSignal, Spawn, TASKS_MAX, TaskState,
    TaskView,
};
use crate::keeper::spawn::{Failed, Started, forget_record};
use crate::keeper::spool::Stream;
use crate::keeper::task::{Effects, Task};
use crate::keeper::{clock, sys};

impl EventLoop {
    pub(super) fn obey(&mut self, client: u64, request: Result<Request, String>) {
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

    pub(super) fn started(&mut self, id: u64, result: Result<Started, Failed>) {
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
        forget_record(spool_dir);
        self.entries.remove(&id);
        self.by_key.remove(key);
        Answer::Done
    }

    pub(super) fn readable(&mut self, id: u64, stream: Stream) {
        if let Some(Entry::Live(task)) = self.entries.get_mut(&id) {
            task.readable(stream, clock::steady_ms());
            self.service(id);
        }
    }

    /// Reaps whoever has ended: main processes of tasks, and orphans.
    pub(super) fn reap(&mut self) {
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
    pub(super) fn service(&mut self, id: u64) {
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

    pub(super) fn ring_alarms(&mut self) {
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
