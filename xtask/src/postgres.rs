//! A private PostgreSQL for the time of the tests: empty, on a free port, gone afterwards.
//!
//! It keeps nothing (`fsync=off`) and ends with this tool, however this tool ends.

use std::net::TcpListener;
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rustix::process::Signal;
use tempfile::TempDir;

use crate::clock;
use crate::process::{command, end, must, output_of};

/// How long the database may take to answer for the first time.
/// Lower, and a busy machine counts as broken; higher, and a broken one is noticed late.
const START_LIMIT: Duration = Duration::from_secs(30);

/// Connections at once. Tests run side by side, each with a pool of its own.
/// Lower, and they starve each other; higher, and each one costs memory.
const CONNECTIONS_MAX: u32 = 300;

/// The account that a database started by root runs as, because it refuses to be root.
const ACCOUNT: &str = "postgres";

/// A running database; dropping it stops it and removes its files.
pub(crate) struct Postgres {
    server: Child,
    port: u16,
    // Dropped after the server has ended: fields go in this order.
    _folder: TempDir,
}

/// Whether the programs of the database are on this machine.
pub(crate) fn installed() -> bool {
    programs().is_some()
}

impl Postgres {
    /// Starts an empty database; `None` where its programs are missing.
    pub(crate) fn start() -> Result<Option<Self>> {
        let Some(programs) = programs() else {
            return Ok(None);
        };
        // Not below the repository: the database's own account must be able to reach it.
        let folder = tempfile::Builder::new()
            .prefix("grid-postgres-")
            .tempdir()
            .context("making a folder")?;
        if rustix::process::geteuid().is_root() {
            let (uid, gid) = account()?;
            chown(folder.path(), Some(uid), Some(gid))
                .context("giving the folder to the database")?;
        }
        let data = folder.path().join("data");
        let mut initdb = as_account(&programs.join("initdb"));
        initdb
            .args([
                "-A",
                "trust",
                "-U",
                ACCOUNT,
                "-E",
                "UTF8",
                "--locale=C",
                "--no-sync",
                "-D",
            ])
            .arg(&data);
        must(initdb.current_dir(folder.path()).stdout(Stdio::null()))?;
        let port = free_port()?;
        let server = serve(&programs, folder.path(), port)?;
        let mut started = Self {
            server,
            port,
            _folder: folder,
        };
        started.wait_until_ready(&programs)?;
        Ok(Some(started))
    }

    /// What tests connect to.
    pub(crate) fn url(&self) -> String {
        format!("postgres://{ACCOUNT}@127.0.0.1:{}/postgres", self.port)
    }

    fn wait_until_ready(&mut self, programs: &Path) -> Result<()> {
        let port = self.port.to_string();
        let ready = clock::wait_for(START_LIMIT, || {
            if !matches!(self.server.try_wait(), Ok(None)) {
                return Some(false);
            }
            let mut ask = command(programs.join("pg_isready"));
            let answer = ask
                .args(["--quiet", "--host=127.0.0.1", "--port", &port])
                .status();
            answer.is_ok_and(|status| status.success()).then_some(true)
        });
        match ready {
            Some(true) => Ok(()),
            Some(false) => bail!("the test database ended at once; its last words are above"),
            None => bail!(
                "the test database did not answer within {}",
                clock::human(START_LIMIT)
            ),
        }
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        // Its files go away with it, so there is nothing that it should write first.
        end(&mut self.server, Signal::QUIT);
    }
}

fn serve(programs: &Path, folder: &Path, port: u16) -> Result<Child> {
    let mut server = as_account(&programs.join("postgres"));
    server.arg("-D").arg(folder.join("data"));
    let sockets = format!("unix_socket_directories={}", folder.display());
    let settings = [
        format!("port={port}"),
        format!("max_connections={CONNECTIONS_MAX}"),
        "listen_addresses=127.0.0.1".to_owned(),
        "fsync=off".to_owned(),
        "full_page_writes=off".to_owned(),
        "log_min_messages=fatal".to_owned(),
        // Kept to its own folder: what it says belongs to nobody's test output.
        "logging_collector=on".to_owned(),
        sockets,
    ];
    for setting in settings {
        server.arg("-c").arg(setting);
    }
    server
        .current_dir(folder)
        .stdin(Stdio::null())
        .stdout(Stdio::null());
    server.spawn().context("starting the test database")
}

/// The program, as an account that is not root, told to end when this tool does.
fn as_account(program: &Path) -> Command {
    let mut setpriv = command("setpriv");
    if rustix::process::geteuid().is_root() {
        let who = [format!("--reuid={ACCOUNT}"), format!("--regid={ACCOUNT}")];
        setpriv.args(who).arg("--clear-groups");
    }
    setpriv.args(["--pdeathsig", "QUIT", "--"]).arg(program);
    setpriv
}

fn account() -> Result<(u32, u32)> {
    let id = |flag: &str| -> Result<u32> {
        let text = output_of(command("id").args([flag, ACCOUNT]))?;
        text.trim()
            .parse()
            .with_context(|| format!("reading the ids of the account {ACCOUNT}"))
    };
    Ok((id("-u")?, id("-g")?))
}

/// The folder with the database's programs: the newest version that is installed.
fn programs() -> Option<PathBuf> {
    let versions = std::fs::read_dir("/usr/lib/postgresql").ok()?;
    let version = |path: &Path| path.parent()?.file_name()?.to_str()?.parse::<u32>().ok();
    versions
        .filter_map(|entry| Some(entry.ok()?.path().join("bin")))
        .filter(|bin| bin.join("initdb").exists() && bin.join("postgres").exists())
        .max_by_key(|bin| version(bin))
}

/// A port that was free a moment ago.
pub(crate) fn free_port() -> Result<u16> {
    let listener = TcpListener::bind("127.0.0.1:0").context("looking for a free port")?;
    Ok(listener
        .local_addr()
        .context("reading the free port")?
        .port())
}

#[cfg(test)]
mod tests {
    use super::{Postgres, TcpListener, free_port};

    #[test]
    fn the_database_answers_and_leaves_nothing() {
        // Where it is not installed the check says so once, before the tests.
        let Some(database) = Postgres::start().unwrap() else {
            return;
        };
        assert!(database.url().contains(&database.port.to_string()));
        let (folder, port) = (database._folder.path().to_owned(), database.port);
        assert!(folder.exists());
        drop(database);
        assert!(!folder.exists());
        assert!(
            TcpListener::bind(("127.0.0.1", port)).is_ok(),
            "the port is free again"
        );
    }

    #[test]
    fn a_free_port_can_be_used() {
        let port = free_port().unwrap();
        assert_ne!(port, 0);
    }
}
