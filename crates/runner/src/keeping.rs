//! The runner's side of the keeper: one connection, made again when it breaks, and
//! for each task a place where its news can be waited for.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;

use crate::keeper::client::{Client, Error, Event, Events, Starter};
use crate::keeper::protocol::{Exit, Refused, Spawn, TaskState};

/// Pause after a keeper that could not be reached.  Higher: a short trouble costs
/// more time; lower: a lasting one fills the log.
const RECONNECT_PAUSE: Duration = Duration::from_millis(500);

/// How often a task is tried again when the machine is out of something (processes,
/// files, disk).  Times [`EXHAUSTED_PAUSE`] it is how long an experiment waits for
/// that before it fails.  Higher: people see the reason later; lower: a short
/// shortage fails experiments.
const EXHAUSTED_TRIES_MAX: u32 = 600;

/// Pause between these tries.
const EXHAUSTED_PAUSE: Duration = Duration::from_millis(100);

/// How long a killed task may take to be gone.  Higher: one that cannot die delays
/// the start of a runner; lower: it is left behind on a busy machine.
const END_MAX: Duration = Duration::from_secs(10);

/// What is known about a task.
#[derive(Debug, Clone, Default)]
pub(crate) struct Seen {
    /// Bytes in its spool, at least.
    pub(crate) total_bytes: u64,
    /// Why what it writes cannot be kept for now.
    pub(crate) stalled: Option<String>,
    /// How it ended.
    pub(crate) exit: Option<Exit>,
}

/// The connection to the keeper.
pub(crate) struct Keeping {
    dir: PathBuf,
    starter: Starter,
    client: watch::Sender<Option<Client>>,
    /// The keeper was told to go, and no other is wanted.
    dismissed: AtomicBool,
    tasks: Mutex<HashMap<String, watch::Sender<Seen>>>,
}

impl Keeping {
    /// Connects, and starts a keeper if there is none.
    pub(crate) async fn connect(dir: &Path, starter: Starter) -> Result<Arc<Self>, Error> {
        let (client, events) = Client::connect(dir, &starter).await?;
        let keeping = Arc::new(Self {
            dir: dir.to_owned(),
            starter,
            client: watch::Sender::new(None),
            dismissed: AtomicBool::new(false),
            tasks: Mutex::new(HashMap::new()),
        });
        let attended = Arc::clone(&keeping);
        tokio::spawn(async move { attended.attend(client, events).await });
        Ok(keeping)
    }

    /// Hears what the keeper says, for ever.
    async fn attend(self: Arc<Self>, mut client: Client, mut events: Events) {
        loop {
            self.client.send_replace(Some(client.clone()));
            if client.hello().version != env!("CARGO_PKG_VERSION") {
                // It goes when nothing runs, and the next one is of this version.
                let _ = client.stop_when_idle().await;
            }
            match client.list().await {
                Ok(tasks) => {
                    for task in tasks {
                        let exit = match task.state {
                            TaskState::Ended { exit } => Some(exit),
                            TaskState::Starting | TaskState::Running { .. } => None,
                        };
                        self.note(&task.key, |seen| {
                            seen.total_bytes = task.total_bytes;
                            seen.stalled = task.stalled;
                            seen.exit = exit;
                        });
                    }
                }
                Err(error) => tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "the keeper does not list its tasks"
                ),
            }
            while let Some(event) = events.next().await {
                match event {
                    Event::Grew { key, total_bytes } => self.note(&key, |seen| {
                        seen.total_bytes = total_bytes;
                        seen.stalled = None;
                    }),
                    Event::Stalled { key, reason } => {
                        self.note(&key, |seen| seen.stalled = Some(reason));
                    }
                    Event::Ended { key, exit } => self.note(&key, |seen| seen.exit = Some(exit)),
                }
            }
            self.client.send_replace(None);
            if self.dismissed.load(Ordering::Acquire) {
                return;
            }
            tracing::warn!("the keeper is gone; starting another");
            (client, events) = loop {
                match Client::connect(&self.dir, &self.starter).await {
                    Ok(connected) => break connected,
                    Err(error) => {
                        tracing::error!(
                            error = &error as &dyn std::error::Error,
                            "cannot reach the keeper"
                        );
                        tokio::time::sleep(RECONNECT_PAUSE).await;
                    }
                }
            };
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, watch::Sender<Seen>>> {
        // Held for one look-up at a time: nothing can be half done.
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note(&self, key: &str, change: impl FnOnce(&mut Seen)) {
        if let Some(task) = self.lock().get(key) {
            task.send_modify(change);
        }
    }

    /// The news of a task, from now on.
    pub(crate) fn watch(&self, key: &str) -> watch::Receiver<Seen> {
        self.lock()
            .entry(key.to_owned())
            .or_insert_with(|| watch::Sender::new(Seen::default()))
            .subscribe()
    }

    async fn client(&self) -> Client {
        let mut connected = self.client.subscribe();
        loop {
            if let Some(client) = connected.borrow_and_update().clone() {
                return client;
            }
            if connected.changed().await.is_err() {
                // The sender is a field of this very object.
                std::future::pending::<()>().await;
            }
        }
    }

    /// Starts a task, or finds it started.
    pub(crate) async fn spawn(&self, spawn: &Spawn) -> Result<(), Error> {
        let mut tries = 0;
        loop {
            let state = match self.client().await.spawn(spawn.clone()).await {
                Ok(state) => state,
                // Whether it was started will be known by its key.
                Err(Error::Gone) => {
                    self.gone().await;
                    continue;
                }
                Err(Error::Refused {
                    why: Refused::Exhausted,
                    message,
                }) if tries < EXHAUSTED_TRIES_MAX => {
                    tries += 1;
                    tracing::warn!(
                        key = spawn.key,
                        message,
                        "the machine is out of something; trying again"
                    );
                    tokio::time::sleep(EXHAUSTED_PAUSE).await;
                    continue;
                }
                Err(error) => return Err(error),
            };
            if let TaskState::Ended { exit } = state {
                self.note(&spawn.key, |seen| seen.exit = Some(exit));
            }
            return Ok(());
        }
    }

    /// Waits a moment for the loss of a connection to be noticed.
    async fn gone(&self) {
        let mut connected = self.client.subscribe();
        let _ = tokio::time::timeout(RECONNECT_PAUSE, connected.changed()).await;
    }

    /// How a task stands; `None` when the keeper has no such task.
    pub(crate) async fn look(&self, key: &str) -> Result<Option<TaskState>, Error> {
        loop {
            match self.client().await.look(key).await {
                Ok(state) => {
                    if let TaskState::Ended { exit } = &state {
                        self.note(key, |seen| seen.exit = Some(exit.clone()));
                    }
                    return Ok(Some(state));
                }
                Err(Error::Gone) => self.gone().await,
                Err(Error::Refused {
                    why: Refused::Unknown,
                    ..
                }) => return Ok(None),
                Err(error) => return Err(error),
            }
        }
    }

    /// Sends a signal to all of a task.  One that has ended needs none.
    pub(crate) async fn signal(&self, key: &str, signal: i32) {
        loop {
            match self.client().await.signal(key, signal, true).await {
                Err(Error::Gone) => self.gone().await,
                Err(error) => {
                    tracing::debug!(
                        key,
                        signal,
                        error = &error as &dyn std::error::Error,
                        "no signal was sent"
                    );
                    return;
                }
                Ok(()) => return,
            }
        }
    }

    /// Lets the keeper go once nothing runs: this runner is about to.
    pub(crate) async fn dismiss(&self) {
        self.dismissed.store(true, Ordering::Release);
        let client = self.client.borrow().clone();
        if let Some(client) = client {
            // It may be gone already, which serves as well.
            let _ = client.stop_when_idle().await;
        }
    }

    /// Drops all that is known of a task; one that still runs is killed first.
    pub(crate) async fn forget(&self, key: &str) {
        self.lock().remove(key);
        loop {
            let client = self.client().await;
            match client.forget(key).await {
                Ok(()) => return,
                Err(Error::Gone) => self.gone().await,
                Err(Error::Refused {
                    why: Refused::Running,
                    ..
                }) => {
                    self.signal(key, libc::SIGKILL).await;
                    if tokio::time::timeout(END_MAX, client.wait(key))
                        .await
                        .is_err()
                    {
                        tracing::error!(key, "a killed process does not end");
                        return;
                    }
                }
                Err(error) => {
                    tracing::warn!(
                        key,
                        error = &error as &dyn std::error::Error,
                        "the keeper does not forget"
                    );
                    return;
                }
            }
        }
    }

    /// Every task of the keeper.
    pub(crate) async fn keys(&self) -> Result<Vec<String>, Error> {
        loop {
            match self.client().await.list().await {
                Err(Error::Gone) => self.gone().await,
                result => return Ok(result?.into_iter().map(|task| task.key).collect()),
            }
        }
    }
}
