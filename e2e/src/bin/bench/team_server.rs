//! A server with a team that has been at work for a year.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, bail};
use grid_e2e::Server;
use serde_json::Value;

/// Holds another database than the SQLite file in the server's folder, as it does for the
/// server itself: then the same is measured there.
const DATABASE_VARIABLE: &str = "GRID_SERVER_DATABASE_URL";

/// A server and the members of its team.
pub(crate) struct TeamServer {
    pub(crate) server: Server,
    /// `username`, `user_id` and `api_key` of the first hundred of them.
    pub(crate) members: Vec<Value>,
}

impl TeamServer {
    /// Starts a server, and fills the team `vision` while it does not look; the operator owns
    /// the team.  Before that, `prepare` may let something run.
    pub(crate) fn start(
        flags: &[&str],
        people: usize,
        runs: usize,
        prepare: impl FnOnce(&Server),
    ) -> Result<Self> {
        let mut server = Server::start(flags);
        prepare(&server);
        server.stop();
        let own = format!("sqlite://{}", server.data().join("grid.db").display());
        let database = std::env::var(DATABASE_VARIABLE).unwrap_or(own);
        let (people, runs) = (people.to_string(), runs.to_string());
        let lines = program(&["seed", &database, &people, &runs])?;
        server.up();
        let members: Result<Vec<Value>, _> = lines.lines().map(serde_json::from_str).collect();
        Ok(Self {
            server,
            members: members.context("reading the keys of the members")?,
        })
    }
}

/// What the part of the benchmarks prints that knows the inside of the server.
pub(crate) fn program(arguments: &[&str]) -> Result<String> {
    let output = Command::new(path()?)
        .args(arguments)
        .output()
        .context("starting bench_team")?;
    if !output.status.success() {
        bail!("bench_team: {}", String::from_utf8_lossy(&output.stderr));
    }
    String::from_utf8(output.stdout).context("reading what bench_team prints")
}

/// It is built beside this program.
fn path() -> Result<PathBuf> {
    let own = std::env::current_exe().context("looking for this program")?;
    let folder = own.parent().context("a program lies in a folder")?;
    let path = folder.join("examples/bench_team");
    if !path.exists() {
        bail!(
            "{} is not there: cargo build -p grid-engine --example bench_team",
            path.display()
        );
    }
    Ok(path)
}
