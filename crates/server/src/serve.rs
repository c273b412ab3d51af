//! `grid server`: from settings to a server that answers, and to its end.

use std::io::Write;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use grid_engine::Engine;
use grid_executor::{Hub, ProcessExecutor};
use grid_store::db::Db;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::assembly::{
    Secrets, connect, credential_key_path, executor, look_at_credentials, open_engine, operator,
};
use crate::auth::{Tokens, folder_token};
use crate::config::{self, Options, Settings};
use crate::credential_key;
use crate::doors::Doors;
use crate::folder::{Folder, Lock, Running};
use crate::handover::Handover;
use crate::lease::{self, Lease};
use crate::listen::Ender;
use crate::rest::App;
use crate::{logging, reserve, upkeep};

/// How long requests under way may take when the server ends.  Higher: a stop takes
/// longer; lower: an upload that was nearly done is sent again.
const STOP_LIMIT: Duration = Duration::from_secs(5);

/// How long the database may take to close.
const CLOSE_LIMIT: Duration = Duration::from_secs(2);

/// How long a runner is waited for that says what it cannot do.
const RUNNER_LIMIT: Duration = Duration::from_secs(60);

/// How often it is looked for.
const RUNNER_EVERY: Duration = Duration::from_millis(250);

/// Runs the server until SIGTERM or Ctrl-C.  Running experiments go on without it.
pub async fn run(options: Options) -> Result<()> {
    logging::begin();
    let settings = config::settings(options, config::environment)?;
    // Before anything is slow, so that a signal is never missed.
    let mut signals = Signals::new()?;
    let server = Server::start(settings).await?;
    server.announce();
    server.until(&mut signals).await
}

/// A server that answers.
pub(crate) struct Server {
    executor: Arc<ProcessExecutor>,
    running: Running,
    operator: String,
    folder: Arc<Folder>,
    db: Db,
    engine: Engine,
    /// Held where the database is not in the folder, whose lock would do.
    lease: Option<Lease>,
    stop: CancellationToken,
    enders: Vec<Ender>,
    listeners: JoinSet<std::io::Result<()>>,
    background: JoinSet<()>,
    _lock: Lock,
}

impl Server {
    /// Starts, and sees to it that this machine's runner lives.
    async fn start(settings: Settings) -> Result<Self> {
        let mut server = Self::start_without_runner(settings).await?;
        let executor = Arc::clone(&server.executor);
        server
            .background
            .spawn(async move { executor.supervise().await });
        Ok(server)
    }

    /// Claims the folder, binds, opens the engine, and begins to answer.
    pub(crate) async fn start_without_runner(settings: Settings) -> Result<Self> {
        upkeep::install_tls();
        let folder = Arc::new(Folder::open(&settings.data)?);
        let lock = folder.lock_to_serve().await?;
        let doors = Doors::open(&settings).await?;
        folder.empty_tmp()?;
        reserve::lay_aside(&folder);
        let secret = folder.secret()?;
        let key_path = credential_key_path(&settings, &folder);
        let secrets = Secrets {
            signing: secret,
            credentials: credential_key::load_or_draw(&key_path)?,
        };
        let db = connect(&settings, &folder, true).await?;
        let lease = match &settings.database_url {
            Some(_) => Some(Lease::take(&db, lease::holder(folder.path())).await?),
            None => None,
        };
        let hub = Hub::new();
        let executor = executor(&settings, &folder, &doors, &db, hub.clone()).await?;
        let bucket = settings.bucket.as_ref();
        let engine =
            open_engine(&folder, db.clone(), hub, executor.clone(), secrets, bucket).await?;
        look_at_credentials(&engine, &key_path).await?;
        if let Some(days) = settings.audit_days {
            engine.keep_audit_for(days);
        }
        engine.fetch_private(settings.fetch_private);
        let operator = operator(&engine, &settings, &folder, &doors.url).await?;
        let stop = CancellationToken::new();
        let (handover, handed) = Handover::open();
        let app = App {
            engine: engine.clone(),
            stop: stop.clone(),
            tokens: Tokens::default(),
            handover: handover.clone(),
            folder_token: folder_token(&secret).into(),
            folder: Arc::clone(&folder),
            url: settings.url.as_deref().map(Into::into),
            s3_url: doors.s3_url.as_deref().map(Into::into),
            tls: doors.tls.is_some(),
            trusted_proxies: Arc::new(settings.trusted_proxies),
        };
        let running = Running {
            url: doors.url.clone(),
            local_url: doors.local_url.clone(),
            pid: std::process::id(),
        };
        let (enders, mut listeners) = doors.serve(&app);
        folder.write_running(&running)?;
        let background = background(&engine, &stop);
        if let Some(handed) = handed {
            listeners.spawn(handover.serve(handed, engine.clone(), stop.clone()));
        }
        Ok(Self {
            executor,
            running,
            operator,
            folder,
            db,
            engine,
            lease,
            stop,
            enders,
            listeners,
            background,
            _lock: lock,
        })
    }

    /// Says that it is ready, in one line.
    fn announce(&self) {
        let line = format!(
            "Grid server ready on {}  (data in {}, operator {}, key in {})\n",
            self.running.url,
            self.folder.path().display(),
            self.operator,
            self.folder.operator_path().display()
        );
        let mut out = std::io::stdout().lock();
        // Nobody needs to read it.
        let _ = out.write_all(line.as_bytes()).and_then(|()| out.flush());
    }

    /// Answers until it is told to end, or cannot go on.
    async fn until(mut self, signals: &mut Signals) -> Result<()> {
        let result = tokio::select! {
            () = signals.next() => Ok(()),
            Some(ended) = self.listeners.join_next() => {
                Err(anyhow::anyhow!("the server stopped listening: {ended:?}"))
            }
            why = lost(&mut self.lease) => Err(why),
            Some(ended) = self.background.join_next() => {
                Err(anyhow::anyhow!("a part of the server ended by itself: {ended:?}"))
            }
        };
        tokio::select! {
            () = self.end() => {}
            () = signals.next() => exit_now(),
        }
        result
    }

    /// Ends: nothing new is begun, what waits is sent away, what is under way is
    /// finished, within limits.
    pub(crate) async fn end(&mut self) {
        tracing::info!("stopping; running experiments go on");
        self.stop.cancel();
        for ender in &self.enders {
            ender.graceful_shutdown(Some(STOP_LIMIT));
        }
        let finished = async { while self.listeners.join_next().await.is_some() {} };
        let finished = tokio::time::timeout(STOP_LIMIT + CLOSE_LIMIT, finished).await;
        if finished.is_err() {
            tracing::warn!("some requests did not end in time");
        }
        self.background.shutdown().await;
        // What was refused a moment ago is still to be written down.
        if let Err(error) = self.engine.settle_all().await {
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                "the last lines of the audit log were not written"
            );
        }
        if let Some(lease) = &mut self.lease {
            lease.give_back().await;
        }
        // The last connection to close merges the database's own log into it.
        if tokio::time::timeout(CLOSE_LIMIT, self.db.close())
            .await
            .is_err()
        {
            tracing::warn!("the database did not close in time; it is whole all the same");
        }
        self.folder.remove_running();
    }

    /// Where it is.
    #[cfg(test)]
    pub(crate) fn running(&self) -> &Running {
        &self.running
    }
}

/// Waits until the lease is lost; for ever where there is none.
async fn lost(lease: &mut Option<Lease>) -> anyhow::Error {
    match lease {
        Some(lease) => lease.lost().await,
        None => std::future::pending().await,
    }
}

#[expect(
    clippy::exit,
    clippy::disallowed_methods,
    reason = "somebody asked twice: whatever holds up the orderly end is what they do not want to wait for"
)]
fn exit_now() {
    tracing::warn!("stopping at once");
    std::process::exit(130);
}

/// The signals that end a server.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn new() -> Result<Self> {
        let listen = |kind| signal(kind).context("cannot listen for signals");
        Ok(Self {
            terminate: listen(SignalKind::terminate())?,
            interrupt: listen(SignalKind::interrupt())?,
        })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

/// What goes on beside the answers.
fn background(engine: &Engine, stop: &CancellationToken) -> JoinSet<()> {
    let mut tasks = JoinSet::new();
    let (turning, trash, runner) = (engine.clone(), engine.clone(), engine.clone());
    let audit = engine.clone();
    tasks.spawn(async move { turning.run().await });
    tasks.spawn(async move { trash.keep_trash().await });
    tasks.spawn(async move { audit.keep_audit().await });
    let datastores = engine.clone();
    tasks.spawn(async move { datastores.keep_datastores().await });
    let stop = stop.clone();
    tasks.spawn(async move {
        tell_limits(&runner).await;
        // A task that ends would count as a fault.
        stop.cancelled().await;
    });
    tasks
}

/// Says what the runner of this machine cannot do, once it has told.
async fn tell_limits(engine: &Engine) {
    let told = async {
        loop {
            let nodes = engine.nodes().await.unwrap_or_default();
            if !nodes.is_empty() {
                return nodes;
            }
            tokio::time::sleep(RUNNER_EVERY).await;
        }
    };
    match tokio::time::timeout(RUNNER_LIMIT, told).await {
        Ok(nodes) => {
            for node in nodes {
                for warning in node.warnings {
                    tracing::warn!(node = %node.node.id, "{warning}");
                }
            }
        }
        Err(_) => tracing::warn!(
            "the runner of this machine has not spoken; its log is runner/runner.log"
        ),
    }
}
