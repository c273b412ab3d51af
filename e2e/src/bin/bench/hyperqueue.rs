//! The same work done by HyperQueue, a task server without users, logs and files: what can
//! be had on this machine at this moment.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, bail};

/// The version to be ahead of.
const VERSION: &str = "0.27.0";

/// Each round is one job of many tasks, from submit to the last one recorded.
const SCRIPT: &str = r#"
import logging, sys, tempfile, time
from hyperqueue import Job
from hyperqueue.cluster import LocalCluster
logging.disable(logging.CRITICAL)
n, rounds = int(sys.argv[1]), int(sys.argv[2])
def once(client, n):
    job = Job()
    for _ in range(n):
        job.program(["/bin/true"], stdout=None, stderr=None)
    begin = time.monotonic()
    client.wait_for_jobs([client.submit(job)])
    return n / (time.monotonic() - begin)
with tempfile.TemporaryDirectory() as folder, LocalCluster(folder) as cluster:
    cluster.start_worker()
    client = cluster.client()
    once(client, 100)
    for _ in range(rounds):
        print('rate', once(client, n), flush=True)
"#;

/// Tasks per second, of each round.
pub(crate) fn measure(tasks: usize, rounds: usize) -> Result<Vec<f64>> {
    let python = install()?;
    let mut command = Command::new(python);
    command
        .arg("-c")
        .arg(SCRIPT)
        .args([tasks.to_string(), rounds.to_string()])
        .env_remove("PYTHONDONTWRITEBYTECODE");
    let output = command.output().context("starting HyperQueue")?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!("HyperQueue ended with {}: {said}", output.status);
    }
    let text = String::from_utf8_lossy(&output.stdout);
    text.lines()
        // It draws a progress bar, too.
        .filter_map(|line| line.rsplit_once("rate "))
        .map(|(_, rate)| rate.trim().parse().context("reading a rate of HyperQueue"))
        .collect()
}

/// A private environment beside the other tools; made once.
fn install() -> Result<PathBuf> {
    let program = std::env::current_exe().context("where this program is")?;
    let target = program.ancestors().nth(2).context("where it was built")?;
    let venv = target.join("tools/hyperqueue");
    let python = venv.join("bin/python");
    let is_there = |python: &PathBuf| {
        let script = format!(
            "import importlib.metadata as m, sys; sys.exit(m.version('hyperqueue') != '{VERSION}')"
        );
        let found = Command::new(python).arg("-c").arg(script).output();
        found.is_ok_and(|output| output.status.success())
    };
    if is_there(&python) {
        return Ok(python);
    }
    must(
        Command::new("uv")
            .args(["venv", "-q", "--clear"])
            .arg(&venv),
    )?;
    must(
        Command::new("uv")
            .args(["pip", "install", "-q", "--compile-bytecode", "-p"])
            .arg(&python)
            .arg(format!("hyperqueue=={VERSION}")),
    )?;
    Ok(python)
}

fn must(command: &mut Command) -> Result<()> {
    let status = command
        .status()
        .context("starting uv, which installs HyperQueue")?;
    if !status.success() {
        bail!("uv could not install HyperQueue ({status})");
    }
    Ok(())
}
