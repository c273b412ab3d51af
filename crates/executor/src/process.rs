//! This machine as a cluster: one runner, a process of its own.
//!
//! The runner outlives the server, so that a restart of the server ends nothing.
//! Whether one lives is told by its process id and start time on disk; a runner
//! that has died is started again, and finds its attempts by itself.

use std::path::{Path, PathBuf};
use std::time::Duration;

use async_trait::async_trait;
use grid_api::runner::{Launch, StopOrder};
use grid_core::id::{AttemptId, NodeId};
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use crate::{Error, Executor, Hub, NodeState, Stopped};

/// How often the runner's life is checked.  Higher: a killed runner is missed
/// longer; lower: an idle server wakes up for nothing.
const CHECK_EVERY: Duration = Duration::from_secs(1);

/// The pause before a runner that keeps dying is started again, at most.
const RESTART_PAUSE_MAX: Duration = Duration::from_secs(30);

/// What the server may have in its environment to use a bucket, and nobody beside the
/// processes of users should.
const SECRETS: [&str; 9] = [
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "AZURE_CLIENT_SECRET",
    "AZURE_STORAGE_ACCESS_KEY",
    "AZURE_STORAGE_ACCOUNT_KEY",
    "AZURE_STORAGE_SAS_KEY",
    "GOOGLE_SERVICE_ACCOUNT_KEY",
    "GRID_SERVER_DATABASE_URL",
];

/// What the runner of this machine is told.
#[derive(Debug, Clone)]
pub struct ProcessOptions {
    /// Its folder: attempts, caches, its log.
    pub dir: PathBuf,
    /// Where the server listens.
    pub url: String,
    /// Its token.
    pub token: String,
    /// Its name.
    pub node: NodeId,
    /// `auto`, `require` or `off`.
    pub sandbox: String,
    /// CPUs to hand out instead of those found.
    pub cpus: Option<u32>,
    /// GPUs to hand out instead of those found.
    pub gpus: Option<u32>,
    /// A certificate authority to trust, when the server has a certificate of its own making.
    pub ca_file: Option<PathBuf>,
    /// Folders that no experiment may see.
    pub hide: Vec<PathBuf>,
}

/// The file that tells a runner all it needs; holds its token, so mode 0600.
#[derive(Serialize)]
struct Config<'a> {
    url: &'a str,
    token: &'a str,
    node: &'a NodeId,
    dir: &'a Path,
    sandbox: &'a str,
    cpus: Option<u32>,
    gpus: Option<u32>,
    ca_file: Option<&'a Path>,
    hide: &'a [PathBuf],
}

/// Which process is the runner.
#[derive(Serialize, Deserialize)]
struct Pid {
    pid: i32,
    start_time: u64,
}

/// This machine.
pub struct ProcessExecutor {
    hub: Hub,
    options: ProcessOptions,
}

impl ProcessExecutor {
    /// Writes the runner's configuration.  Nothing is started yet.
    pub fn new(hub: Hub, options: ProcessOptions) -> Result<Self, Error> {
        let folder = |path: &Path, source| Error::Folder {
            path: path.display().to_string(),
            source,
        };
        std::fs::create_dir_all(&options.dir).map_err(|e| folder(&options.dir, e))?;
        let config = Config {
            url: &options.url,
            token: &options.token,
            node: &options.node,
            dir: &options.dir,
            sandbox: &options.sandbox,
            cpus: options.cpus,
            gpus: options.gpus,
            ca_file: options.ca_file.as_deref(),
            hide: &options.hide,
        };
        let path = options.dir.join("runner.json");
        let text = serde_json::to_vec_pretty(&config)
            .map_err(|e| folder(&path, std::io::Error::other(e)))?;
        write_private(&path, &text).map_err(|e| folder(&path, e))?;
        // Nobody else could run what this machine has: its silence is a runner that is
        // being started again, however long that takes.
        hub.register(&options.node, true);
        Ok(Self { hub, options })
    }

    /// Sees to it that a runner lives, for ever.  Ends only with its task.
    pub async fn supervise(&self) {
        let mut pause = CHECK_EVERY;
        let mut started: Option<Instant> = None;
        let mut child: Option<tokio::process::Child> = None;
        loop {
            if let Some(running) = &mut child {
                // Reaps it, and notices at once when it ends.
                tokio::select! {
                    status = running.wait() => {
                        tracing::warn!(status = ?status.ok(), "the runner has ended; starting another");
                        child = None;
                    }
                    () = tokio::time::sleep(RESTART_PAUSE_MAX) => {
                        pause = CHECK_EVERY;
                        continue;
                    }
                }
            }
            if self.is_alive() {
                tokio::time::sleep(CHECK_EVERY).await;
                continue;
            }
            if started.is_some_and(|at| at.elapsed() < RESTART_PAUSE_MAX) {
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(RESTART_PAUSE_MAX);
            }
            started = Some(Instant::now());
            match self.spawn() {
                Ok(new) => child = Some(new),
                Err(error) => {
                    tracing::error!(
                        error = &error as &dyn std::error::Error,
                        "cannot start the runner"
                    );
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(RESTART_PAUSE_MAX);
                }
            }
        }
    }

    fn spawn(&self) -> Result<tokio::process::Child, Error> {
        // Also when an upgrade has put another program in its place.
        let program = Path::new("/proc/self/exe");
        let log = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.options.dir.join("runner.log"))
            .map_err(Error::Spawn)?;
        let mut command = tokio::process::Command::new(program);
        command
            .arg0("grid")
            .args(["runner", "--config"])
            .arg(self.options.dir.join("runner.json"))
            .stdin(std::process::Stdio::null())
            .stdout(log.try_clone().map_err(Error::Spawn)?)
            .stderr(log)
            .kill_on_drop(false)
            // Its own group: a Ctrl-C at the server's terminal is not for it.
            .process_group(0);
        for name in SECRETS {
            command.env_remove(name);
        }
        let child = command.spawn().map_err(Error::Spawn)?;
        if let Some(pid) = child.id().and_then(|pid| i32::try_from(pid).ok())
            && let Some(start_time) = start_time(pid)
        {
            let text = serde_json::to_vec(&Pid { pid, start_time }).unwrap_or_default();
            if let Err(error) = write_private(&self.pid_path(), &text) {
                // It lives all the same, and this server has it as its child.
                tracing::warn!(
                    pid,
                    error = &error as &dyn std::error::Error,
                    "the next server will not know the runner of this machine by its process id"
                );
            }
            tracing::info!(pid, "started the runner of this machine");
        }
        Ok(child)
    }

    fn pid_path(&self) -> PathBuf {
        self.options.dir.join("runner.pid")
    }

    /// Whether the runner that was started last, by whichever server, still lives.
    fn is_alive(&self) -> bool {
        let Ok(text) = std::fs::read(self.pid_path()) else {
            return false;
        };
        let Ok(pid) = serde_json::from_slice::<Pid>(&text) else {
            return false;
        };
        start_time(pid.pid) == Some(pid.start_time)
    }
}

/// When a process started, in clock ticks since boot: with the process id its
/// identity.  `None` when there is no such process, or only its remains.
fn start_time(pid: i32) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in parentheses may hold anything; fields are counted after it.
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_ascii_whitespace();
    if fields.next()? == "Z" {
        return None;
    }
    fields.nth(18)?.parse().ok()
}

/// Writes a file that only its owner can read, whole or not at all.
fn write_private(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    use std::io::Write;
    use std::os::unix::fs::OpenOptionsExt;
    let temporary = path.with_extension("new");
    let mut file = std::fs::OpenOptions::new()
        .create(true)
        .truncate(true)
        .write(true)
        .mode(0o600)
        .open(&temporary)?;
    file.write_all(bytes)?;
    std::fs::rename(&temporary, path)
}

#[async_trait]
impl Executor for ProcessExecutor {
    async fn launch(&self, launches: Vec<Launch>) -> Result<(), Error> {
        self.hub.launch(launches);
        Ok(())
    }

    async fn stop(&self, stop: StopOrder, node: &NodeId) -> Result<Stopped, Error> {
        Ok(self.hub.stop(stop, node, Instant::now()))
    }

    async fn forget(&self, attempt: AttemptId, node: &NodeId) -> Result<(), Error> {
        self.hub.forget(attempt, node, Instant::now());
        Ok(())
    }

    async fn observe(&self) -> Result<Vec<NodeState>, Error> {
        Ok(self.hub.observe(Instant::now()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_known_by_its_start_time() {
        let own = i32::try_from(std::process::id()).expect("a pid");
        assert!(start_time(own).is_some());
        let mut child = std::process::Command::new("true")
            .spawn()
            .expect("true starts");
        let pid = i32::try_from(child.id()).expect("a pid");
        child.wait().expect("it ends");
        assert_eq!(start_time(pid), None);
    }

    #[test]
    fn the_configuration_is_private() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().expect("a folder");
        let options = ProcessOptions {
            dir: dir.path().join("runner"),
            url: "http://127.0.0.1:1".to_owned(),
            token: "secret".to_owned(),
            node: "local".parse().expect("a name"),
            sandbox: "auto".to_owned(),
            cpus: None,
            gpus: None,
            ca_file: None,
            hide: vec![],
        };
        ProcessExecutor::new(Hub::new(), options).expect("written");
        let file = dir.path().join("runner/runner.json");
        let mode = std::fs::metadata(&file)
            .expect("there")
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600);
    }
}
