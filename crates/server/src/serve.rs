//! `grid server`: from settings to a server that answers, and to its end.

use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use axum_server::Handle;
use grid_core::id::NodeId;
use grid_core::name::UserName;
use grid_engine::{Clock, Engine, Parts, SystemClock};
use grid_executor::{Executor, Hub, ProcessExecutor, ProcessOptions};
use grid_store::blobs::{Blobs, Settings as BlobSettings};
use grid_store::db::{self, Db};
use grid_store::logs::LogStore;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::auth::{Tokens, folder_token};
use crate::config::{self, Options, Settings};
use crate::folder::{Folder, Lock, Operator, Running};
use crate::listen::{self, Ender};
use crate::rest::{self, App};
use crate::{logging, upkeep};

/// The name of the one cluster, and of its one node.
pub(crate) const LOCAL: &str = "local";

/// Who the first user is when nobody says.
const OPERATOR: &str = "operator";

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
        let lock = folder.lock_or_refuse()?;
        let doors = Doors::open(&settings).await?;
        folder.empty_tmp()?;
        let secret = folder.secret()?;
        let db = connect(&settings, &folder, true).await?;
        let hub = Hub::new();
        let executor = executor(&settings, &folder, &doors, &db, hub.clone()).await?;
        let engine = open_engine(&folder, db.clone(), hub, executor.clone(), secret).await?;
        let operator = operator(&engine, &settings, &folder, &doors.url).await?;
        let stop = CancellationToken::new();
        let app = App {
            engine: engine.clone(),
            stop: stop.clone(),
            tokens: Tokens::default(),
            folder_token: folder_token(&secret).into(),
            folder: Arc::clone(&folder),
            url: settings.url.as_deref().map(Into::into),
            tls: doors.tls.is_some(),
        };
        let running = Running {
            url: doors.url.clone(),
            local_url: doors.local_url.clone(),
            pid: std::process::id(),
        };
        let (enders, listeners) = doors.serve(&app);
        folder.write_running(&running)?;
        let background = background(&engine, &stop);
        Ok(Self {
            executor,
            running,
            operator,
            folder,
            db,
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

/// Where people, and the runner of this machine, come in.
struct Doors {
    listener: TcpListener,
    /// With TLS the runner comes in by a door of its own: no certificate names loopback.
    local: Option<TcpListener>,
    tls: Option<axum_server::tls_rustls::RustlsConfig>,
    url: String,
    local_url: String,
}

impl Doors {
    async fn open(settings: &Settings) -> Result<Self> {
        let listener = listen::bind(settings.listen)?;
        let address = listener
            .local_addr()
            .context("cannot tell the own address")?;
        let tls = match &settings.tls {
            Some(files) => Some(listen::tls(files).await?),
            None => None,
        };
        let local = tls
            .is_some()
            .then(|| listen::bind((Ipv4Addr::LOCALHOST, 0).into()))
            .transpose()?;
        let local_address = match &local {
            Some(local) => local.local_addr().context("cannot tell the own address")?,
            None => reachable(address),
        };
        let near = reachable(address);
        let own = match &tls {
            // Certificates name hosts.
            Some(_) if near.ip().is_loopback() => format!("https://localhost:{}", near.port()),
            Some(_) => format!("https://{near}"),
            None => format!("http://{near}"),
        };
        if tls.is_none() && !address.ip().is_loopback() {
            tracing::warn!(
                %address,
                "plain HTTP on other than loopback: keys and data can be read on the way; \
                 give --tls-cert and --tls-key, or put a proxy with HTTPS before it"
            );
        }
        Ok(Self {
            listener,
            local,
            tls,
            url: settings.url.clone().unwrap_or(own),
            local_url: format!("http://{local_address}"),
        })
    }

    fn serve(self, app: &App) -> (Vec<Ender>, JoinSet<std::io::Result<()>>) {
        let mut listeners = JoinSet::new();
        let ender: Ender = Handle::new();
        let router = rest::router(app.clone());
        listeners.spawn(listen::serve(
            self.listener,
            router,
            self.tls,
            ender.clone(),
        ));
        let mut enders = vec![ender];
        if let Some(local) = self.local {
            let ender: Ender = Handle::new();
            let router = rest::runner_router(app.clone());
            listeners.spawn(listen::serve(local, router, None, ender.clone()));
            enders.push(ender);
        }
        (enders, listeners)
    }
}

/// The address under which this machine reaches a listener.
fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}

/// Connects to the database of the settings.
pub(crate) async fn connect(settings: &Settings, folder: &Folder, migrate: bool) -> Result<Db> {
    let url = match &settings.database_url {
        Some(url) => url.clone(),
        None => db::sqlite_url(&folder.database()),
    };
    let options = db::Options {
        migrate,
        ..db::Options::default()
    };
    Db::connect(&url, &options)
        .await
        .context("cannot use the database")
}

/// The runner of this machine, with a token of its own.
async fn executor(
    settings: &Settings,
    folder: &Folder,
    doors: &Doors,
    db: &Db,
    hub: Hub,
) -> Result<Arc<ProcessExecutor>> {
    let node: NodeId = LOCAL.parse()?;
    let options = ProcessOptions {
        dir: folder.runner(),
        url: doors.local_url.clone(),
        token: new_token(db, &node).await?,
        node,
        sandbox: settings.sandbox.as_str().to_owned(),
        cpus: settings.cpus,
        gpus: settings.gpus,
        ca_file: None,
        hide: hidden(folder),
    };
    Ok(Arc::new(ProcessExecutor::new(hub, options)?))
}

/// A new token for a runner.  Here and not in the engine, which is made with the
/// executor that needs it.
pub(crate) async fn new_token(db: &Db, node: &NodeId) -> Result<String> {
    let clock = SystemClock;
    let token = format!("{:032x}{:032x}", clock.entropy(), clock.entropy());
    let mut tx = db.write().await?;
    let hash = grid_engine::hash_key(&token);
    db::runner_token::put(&mut tx, node, &hash, clock.now()).await?;
    tx.commit().await?;
    Ok(token)
}

/// What no experiment may see: this server's data, and keys of who runs it.
fn hidden(folder: &Folder) -> Vec<PathBuf> {
    let mut hidden = vec![folder.path().to_owned()];
    if let Some(home) = config::environment("HOME") {
        let keys = PathBuf::from(home).join(".grid");
        if keys.is_dir() {
            hidden.push(keys);
        }
    }
    hidden
}

/// Opens the stores in the folder and the engine over them.
pub(crate) async fn open_engine(
    folder: &Folder,
    db: Db,
    hub: Hub,
    executor: Arc<dyn Executor>,
    secret: [u8; 32],
) -> Result<Engine> {
    let (logs, blobs) = (folder.logs(), folder.blobs());
    let stores = tokio::task::spawn_blocking(move || {
        let logs = LogStore::open(&logs).context("cannot open the logs")?;
        let settings = BlobSettings::new(|| SystemClock.now());
        let blobs = Blobs::open(&blobs, settings).context("cannot open the blobs")?;
        Ok::<_, anyhow::Error>((logs, blobs))
    });
    let (logs, blobs) = stores.await??;
    let parts = Parts {
        db,
        logs,
        blobs,
        hub,
        executor,
        clock: Arc::new(SystemClock),
        secret,
        scratch: folder.tmp(),
        cluster: LOCAL.to_owned(),
    };
    Engine::open(parts).await.context("cannot open the engine")
}

/// The first user, made at the first start; their file names where the server is now.
async fn operator(
    engine: &Engine,
    settings: &Settings,
    folder: &Folder,
    url: &str,
) -> Result<String> {
    let name = operator_name(settings)?;
    let created = match grid_engine::user::create_first(engine, &name).await? {
        None if folder.operator().is_none() => {
            // Somebody lost the file, or the first start was cut short.  Who owns the
            // folder owns the server.
            grid_engine::user::recover_operator(engine).await?
        }
        created => created,
    };
    let operator = match (created, folder.operator()) {
        (Some(with_key), _) => Operator {
            url: url.to_owned(),
            username: with_key.user.username,
            user_id: with_key.user.id.to_string(),
            api_key: with_key.api_key,
        },
        (None, Some(known)) => Operator {
            url: url.to_owned(),
            ..known
        },
        (None, None) => {
            tracing::warn!("no user of this server is an operator: nobody can create users");
            return Ok("nobody".to_owned());
        }
    };
    folder.write_operator(&operator)?;
    Ok(operator.username)
}

fn operator_name(settings: &Settings) -> Result<String> {
    if let Some(name) = &settings.operator {
        let name = UserName::parse(name);
        return Ok(name
            .context("GRID_OPERATOR cannot be the name of a user")?
            .to_string());
    }
    let name = settings
        .system_user
        .as_deref()
        .and_then(|name| UserName::parse(name).ok());
    Ok(name.map_or_else(|| OPERATOR.to_owned(), |name| name.to_string()))
}

/// What goes on beside the answers.
fn background(engine: &Engine, stop: &CancellationToken) -> JoinSet<()> {
    let mut tasks = JoinSet::new();
    let (turning, trash, runner) = (engine.clone(), engine.clone(), engine.clone());
    tasks.spawn(async move { turning.run().await });
    tasks.spawn(async move { trash.keep_trash().await });
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listener_on_every_address_is_reached_by_loopback() {
        for (listening, reached) in [
            ("0.0.0.0:80", "127.0.0.1:80"),
            ("[::]:80", "[::1]:80"),
            ("192.0.2.1:80", "192.0.2.1:80"),
            ("127.0.0.1:80", "127.0.0.1:80"),
        ] {
            let listening: SocketAddr = listening.parse().expect("an address");
            assert_eq!(reachable(listening).to_string(), reached);
        }
    }
}
