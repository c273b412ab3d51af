//! Commands that look, when much has happened.

use std::time::Duration;

use anyhow::{Context, Result};
use grid_e2e::{Server, wait_up_to};

use crate::figures::{Figures, Goal, median, millis};
use crate::http::Api;
use crate::machine;

/// The history: so many runs of so many experiments.
const RUNS: usize = 100;
const EXPERIMENTS: usize = 1_000;

/// How often each thing is tried.
const TRIES: usize = 50;

/// What is asked for, in milliseconds.
const STATUS_MS: f64 = 30.0;
const SERVER_MS: f64 = 5.0;
const HELP_MS: f64 = 10.0;

pub(crate) fn measure(figures: &mut Figures) -> Result<()> {
    let server = Server::start(&["--sandbox", "off", "--cpus", "1"]);
    let mut api = Api::open(&server)?;
    // While this has the only CPU nothing else starts, and what is stopped is over at once.
    server.run("busy", &["--", "sleep", "100000"]);
    server.reaches("busy-exp0", "running");
    fill(&server, &mut api, figures)?;

    for (name, words, goal) in [
        ("grid --help", &["--help"][..], Goal::AtMost(HELP_MS)),
        (
            "grid status, 100,000 experiments",
            &["status"],
            Goal::AtMost(STATUS_MS),
        ),
        ("grid history, 100 runs", &["history"], Goal::None),
        (
            "grid status RUN, 1,000 experiments",
            &["status", "past-7"],
            Goal::None,
        ),
    ] {
        figures.add(name, command(&server, words)?, "ms", goal);
    }
    for (name, path, goal) in [
        (
            "server: active runs",
            "/runs?active=true",
            Goal::AtMost(SERVER_MS),
        ),
        (
            "server: history, 100 runs",
            "/runs?active=false",
            Goal::None,
        ),
        (
            "server: 1,000 experiments of a run",
            "/runs/past-7/experiments",
            Goal::None,
        ),
    ] {
        figures.add(name, request(&mut api, path)?, "ms", goal);
    }
    Ok(())
}

/// Milliseconds of a whole command.
fn command(server: &Server, words: &[&str]) -> Result<f64> {
    let mut times = Vec::new();
    for _ in 0..TRIES {
        let mut command = server.command("ada", words);
        let begin = machine::now();
        let output = command.output().context("starting grid")?;
        times.push(millis(begin.elapsed()));
        anyhow::ensure!(output.status.success(), "{words:?} failed: {output:?}");
    }
    median(&times).context("nothing was measured")
}

/// Milliseconds of a request on a connection that is there.
fn request(api: &mut Api, path: &str) -> Result<f64> {
    let mut times = Vec::new();
    for _ in 0..TRIES {
        let begin = machine::now();
        api.get(path)?;
        times.push(millis(begin.elapsed()));
    }
    median(&times).context("nothing was measured")
}

fn fill(server: &Server, api: &mut Api, figures: &mut Figures) -> Result<()> {
    let range = format!("range({EXPERIMENTS})");
    let mut submits = Vec::new();
    for number in 0..RUNS {
        let name = format!("past-{number}");
        let begin = machine::now();
        server.run(&name, &["--", "true", "--i", &range, "--lr", "0.1"]);
        submits.push(begin.elapsed());
        server.grid("ada", &["stop", "run", &name]).ok();
    }
    let took = median(&submits).context("nothing was submitted")?;
    figures.time("grid run, a sweep of 1,000", took, Goal::None);
    wait_up_to(Duration::from_secs(300), "the history", || {
        let runs = api.get("/runs?active=true").ok()?;
        (runs["runs"].as_array()?.len() == 1).then_some(())
    });
    Ok(())
}
