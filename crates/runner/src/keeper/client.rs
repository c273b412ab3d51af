//! Talking to the keeper; starting it when there is none.

use std::collections::HashMap;
use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{sleep, timeout};

use super::protocol::{
    Answer, Ask, Exit, Hello, Message, PROTOCOL, Refused, Request, SendSignal, Spawn, TaskState,
    TaskView,
};
use super::{PROCESS_NAME, paths, socket_path};

/// How long a keeper may take to appear.
/// Higher: a keeper that cannot start is noticed later.  Lower: a busy machine fails.
const START_MAX: Duration = Duration::from_secs(20);

/// Time between two looks whether it has appeared.
const START_POLL: Duration = Duration::from_millis(5);

/// Looks after which it is started once more: it may have met one that was going.
const START_AGAIN: u32 = 100;

/// Why the keeper did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot start the keeper in {dir}; its log is {dir}/keeper.log")]
    Start { dir: PathBuf, source: io::Error },
    #[error("the keeper in {dir} does not answer; its log is {dir}/keeper.log")]
    Silent { dir: PathBuf },
    #[error(
        "the keeper that runs (version {version}, protocol {found}) is not of this version (protocol {PROTOCOL}); \
         it goes once nothing runs on this machine: stop what runs, or wait"
    )]
    Protocol { version: String, found: u32 },
    #[error("the keeper went away; connect again")]
    Gone,
    #[error("{message}")]
    Refused { why: Refused, message: String },
}

/// How to start a keeper.
#[derive(Clone, Debug)]
pub struct Starter {
    pub program: PathBuf,
    pub args: Vec<OsString>,
    /// Its whole environment.
    pub env: Vec<(OsString, OsString)>,
}

impl Starter {
    /// This program, as `runner keeper --dir DIR`, even if its file was replaced meanwhile.
    pub fn this_program(dir: &Path) -> Self {
        let args = ["runner".into(), "keeper".into(), "--dir".into(), dir.into()];
        Self {
            program: "/proc/self/exe".into(),
            args: args.into(),
            env: Vec::new(),
        }
    }
}

/// What the keeper tells unasked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The spool of a task holds this many bytes now.
    Grew {
        key: String,
        total_bytes: u64,
    },
    /// What a task wrote cannot be kept for now.
    Stalled {
        key: String,
        reason: String,
    },
    Ended {
        key: String,
        exit: Exit,
    },
}

/// The events of one connection.  `None` when the keeper is gone.
#[derive(Debug)]
pub struct Events(mpsc::UnboundedReceiver<Event>);

impl Events {
    pub async fn next(&mut self) -> Option<Event> {
        self.0.recv().await
    }
}

/// A connection to the keeper.
#[derive(Clone)]
pub struct Client {
    hello: Hello,
    requests: mpsc::UnboundedSender<Request>,
    next_id: Arc<AtomicU64>,
    waiting: Arc<Mutex<Waiting>>,
}

#[derive(Default)]
struct Waiting {
    answers: HashMap<u64, oneshot::Sender<Answer>>,
    ends: HashMap<String, Vec<oneshot::Sender<Exit>>>,
    /// Set when the connection is lost: nobody may begin to wait after that.
    is_gone: bool,
}

impl Client {
    /// Connects to the keeper of `dir`, and starts it if there is none.
    pub async fn connect(dir: &Path, starter: &Starter) -> Result<(Self, Events), Error> {
        let (hello, read, write) = reach(dir, starter).await?;
        if hello.protocol != PROTOCOL {
            return Err(Error::Protocol {
                version: hello.version,
                found: hello.protocol,
            });
        }
        let waiting = Arc::new(Mutex::new(Waiting::default()));
        let (requests, outgoing) = mpsc::unbounded_channel();
        let (tell, events) = mpsc::unbounded_channel();
        tokio::spawn(write_requests(write, outgoing));
        tokio::spawn(read_messages(read, tell, Arc::clone(&waiting)));
        let client = Self {
            hello,
            requests,
            next_id: Arc::new(AtomicU64::new(1)),
            waiting,
        };
        Ok((client, Events(events)))
    }

    /// Who answers.  Of another version than this program: ask it to
    /// [`Client::stop_when_idle`], and the next connection starts a new one.
    pub fn hello(&self) -> &Hello {
        &self.hello
    }

    /// Starts a task.  One that is known already is not started again.
    pub async fn spawn(&self, spawn: Spawn) -> Result<TaskState, Error> {
        self.task(Ask::Spawn(spawn)).await
    }

    /// How a task stands.
    pub async fn look(&self, key: &str) -> Result<TaskState, Error> {
        self.task(Ask::Look {
            key: key.to_owned(),
        })
        .await
    }

    /// Sends a signal.  A task that has ended needs none.
    pub async fn signal(&self, key: &str, signal: i32, whole_group: bool) -> Result<(), Error> {
        self.done(Ask::Signal(SendSignal {
            key: key.to_owned(),
            signal,
            whole_group,
        }))
        .await
    }

    /// Drops an ended task.  One that is unknown is dropped already.
    pub async fn forget(&self, key: &str) -> Result<(), Error> {
        self.done(Ask::Forget {
            key: key.to_owned(),
        })
        .await
    }

    /// Every task that the keeper knows.
    pub async fn list(&self) -> Result<Vec<TaskView>, Error> {
        match self.ask(Ask::List).await? {
            Answer::Tasks(tasks) => Ok(tasks),
            answer => Err(unexpected(answer)),
        }
    }

    /// Makes the keeper go at the first moment at which nothing runs.
    pub async fn stop_when_idle(&self) -> Result<(), Error> {
        self.done(Ask::StopWhenIdle).await
    }

    /// Waits for the end of a task.
    pub async fn wait(&self, key: &str) -> Result<Exit, Error> {
        let (tell, told) = oneshot::channel();
        {
            let mut waiting = lock(&self.waiting);
            if waiting.is_gone {
                return Err(Error::Gone);
            }
            waiting.ends.entry(key.to_owned()).or_default().push(tell);
        }
        // Look only now: an end between the look and the wait would be missed.
        if let TaskState::Ended { exit } = self.look(key).await? {
            lock(&self.waiting).ends.remove(key);
            return Ok(exit);
        }
        told.await.map_err(|_| Error::Gone)
    }

    /// Ends a task: gently, and after the grace not.
    pub async fn stop(&self, key: &str, grace: Duration) -> Result<Exit, Error> {
        self.signal(key, libc::SIGTERM, true).await?;
        if let Ok(ended) = timeout(grace, self.wait(key)).await {
            return ended;
        }
        self.signal(key, libc::SIGKILL, true).await?;
        self.wait(key).await
    }

    async fn task(&self, ask: Ask) -> Result<TaskState, Error> {
        match self.ask(ask).await? {
            Answer::Task(state) => Ok(state),
            answer => Err(unexpected(answer)),
        }
    }

    async fn done(&self, ask: Ask) -> Result<(), Error> {
        match self.ask(ask).await? {
            Answer::Done => Ok(()),
            answer => Err(unexpected(answer)),
        }
    }

    async fn ask(&self, ask: Ask) -> Result<Answer, Error> {
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        let (tell, told) = oneshot::channel();
        {
            let mut waiting = lock(&self.waiting);
            if waiting.is_gone {
                return Err(Error::Gone);
            }
            waiting.answers.insert(id, tell);
        }
        self.requests
            .send(Request { id, ask })
            .map_err(|_| Error::Gone)?;
        told.await.map_err(|_| Error::Gone)
    }
}

fn unexpected(answer: Answer) -> Error {
    match answer {
        Answer::Refused { why, message } => Error::Refused { why, message },
        answer => Error::Refused {
            why: Refused::Invalid,
            message: format!("an answer to something else: {answer:?}"),
        },
    }
}

/// The lock is only held for insertions and removals: a panic cannot leave them half done.
fn lock(waiting: &Mutex<Waiting>) -> MutexGuard<'_, Waiting> {
    waiting.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn write_requests(mut write: OwnedWriteHalf, mut outgoing: mpsc::UnboundedReceiver<Request>) {
    let mut batch = Vec::new();
    while outgoing.recv_many(&mut batch, 64).await > 0 {
        let mut lines = Vec::new();
        for request in batch.drain(..) {
            if serde_json::to_writer(&mut lines, &request).is_ok() {
                lines.push(b'\n');
            }
        }
        if write.write_all(&lines).await.is_err() {
            return;
        }
    }
}

async fn read_messages(
    mut read: BufReader<OwnedReadHalf>,
    tell: mpsc::UnboundedSender<Event>,
    waiting: Arc<Mutex<Waiting>>,
) {
    while let Some(message) = next_message(&mut read).await {
        let event = match message {
            Message::Hello(_) => continue,
            Message::Reply { id, answer } => {
                if let Some(asker) = lock(&waiting).answers.remove(&id) {
                    let _ = asker.send(answer);
                }
                continue;
            }
            Message::Grew { key, total_bytes } => Event::Grew { key, total_bytes },
            Message::Stalled { key, reason } => Event::Stalled { key, reason },
            Message::Ended { key, exit } => {
                for waiter in lock(&waiting).ends.remove(&key).into_iter().flatten() {
                    let _ = waiter.send(exit.clone());
                }
                Event::Ended { key, exit }
            }
        };
        // Nobody may be listening, and the answers still matter.
        let _ = tell.send(event);
    }
    let mut waiting = lock(&waiting);
    *waiting = Waiting {
        is_gone: true,
        ..Waiting::default()
    };
}

/// `None` when the connection is lost.  Messages of a later version are skipped.
async fn next_message(read: &mut BufReader<OwnedReadHalf>) -> Option<Message> {
    loop {
        let mut line = Vec::new();
        if read.read_until(b'\n', &mut line).await.ok()? == 0 {
            return None;
        }
        match serde_json::from_slice(&line) {
            Ok(message) => return Some(message),
            Err(error) => {
                tracing::warn!(%error, "the keeper said something that is not understood");
            }
        }
    }
}

type Greeted = (Hello, BufReader<OwnedReadHalf>, OwnedWriteHalf);

/// A connection to a keeper that has greeted us, and was started for it if need be.
async fn reach(dir: &Path, starter: &Starter) -> Result<Greeted, Error> {
    let silent = || Error::Silent {
        dir: dir.to_owned(),
    };
    let looking = async {
        for looks in 0_u32.. {
            // One that is just dying accepts and says nothing: look again.
            if let Ok(stream) = connect(dir).await
                && let Some(greeted) = greeting(stream).await
            {
                return Ok(greeted);
            }
            if looks % START_AGAIN == 0 {
                start(dir, starter).map_err(|source| Error::Start {
                    dir: dir.to_owned(),
                    source,
                })?;
            }
            sleep(START_POLL).await;
        }
        Err(silent())
    };
    timeout(START_MAX, looking).await.map_err(|_| silent())?
}

async fn greeting(stream: UnixStream) -> Option<Greeted> {
    let (read, write) = stream.into_split();
    let mut read = BufReader::new(read);
    match next_message(&mut read).await? {
        Message::Hello(hello) => Some((hello, read, write)),
        _ => None,
    }
}

async fn connect(dir: &Path) -> io::Result<UnixStream> {
    let (path, _guard) = socket_path(dir, &paths(dir).socket)?;
    UnixStream::connect(path).await
}

/// Starts a keeper that outlives this process: it makes its own session, and holds
/// neither our files nor our folder.
fn start(dir: &Path, starter: &Starter) -> io::Result<()> {
    std::fs::create_dir_all(dir)?;
    let mut command = tokio::process::Command::new(&starter.program);
    command.arg0(PROCESS_NAME).args(&starter.args);
    command
        .env_clear()
        .envs(starter.env.iter().map(|(name, value)| (name, value)));
    command
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    // Dropped and not killed: the runtime reaps it should it end while we live.
    command.kill_on_drop(false).spawn().map(drop)
}
