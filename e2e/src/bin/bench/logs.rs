//! Logs: how many bytes a second, and how soon a follower sees a line.

use std::io::{BufRead, BufReader, Write};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use grid_e2e::{Server, wait_up_to};

use crate::figures::{Figures, Goal, percentile};
use crate::http::Api;
use crate::machine;

/// Bytes of the long log.
const BYTES: usize = 1_000_000_000;

/// What is asked for, in MB a second.
const MB_PER_S: f64 = 200.0;

/// What is asked for of a follower, in milliseconds.
const FOLLOW_P95_MS: f64 = 250.0;

/// Lines that are followed.
const LINES: usize = 300;

/// Says the time again and again, as a training loop does.
const TICKING: &str = "#!/usr/bin/env python3
import sys, time
for i in range(int(sys.argv[1])):
    print('at', repr(time.time()), flush=True)
    time.sleep(0.02)
";

pub(crate) fn measure(figures: &mut Figures) -> Result<()> {
    let server = Server::start(&["--sandbox", "off"]);
    let mut api = Api::open(&server)?;
    throughput(&server, &mut api, figures)?;
    follow(&server, figures)
}

fn throughput(server: &Server, api: &mut Api, figures: &mut Figures) -> Result<()> {
    let path = server.folder.path().join("long.log");
    write_log(&path).context("writing a long log")?;
    let path = path.to_str().context("a path in UTF-8")?;
    let begin = machine::now();
    server.run("long", &["--", "cat", path]);
    let experiment = wait_up_to(Duration::from_secs(300), "the long log", || {
        let experiment = api.get("/experiments/long-exp0").ok()?["experiment"].clone();
        experiment["finished_at"].is_string().then_some(experiment)
    });
    let took = begin.elapsed();
    if experiment["status"] != "succeeded" {
        bail!("it did not succeed: {experiment}");
    }
    #[expect(clippy::cast_precision_loss, reason = "a thousand million")]
    let rate = BYTES as f64 / 1e6 / took.as_secs_f64();
    figures.add(
        "log, from process to stored",
        rate,
        "MB/s",
        Goal::AtLeast(MB_PER_S),
    );
    std::fs::remove_file(path).context("removing a long log")
}

/// Lines as training scripts write them.
fn write_log(path: &std::path::Path) -> std::io::Result<()> {
    let mut block = Vec::new();
    while block.len() < 1 << 20 {
        let step = block.len();
        writeln!(
            block,
            "epoch 12 step {step:>9} loss 0.3141592 accuracy 0.944 lr 1.0e-03 (128 samples, 14.2 ms)"
        )?;
    }
    let mut file = std::fs::File::create(path)?;
    let mut left = BYTES;
    while left > 0 {
        let part = block.get(..left.min(block.len())).unwrap_or(&block);
        file.write_all(part)?;
        left -= part.len();
    }
    Ok(())
}

fn follow(server: &Server, figures: &mut Figures) -> Result<()> {
    server.script("tick.py", TICKING);
    server.run("tick", &["tick.py", &LINES.to_string()]);
    server.reaches("tick-exp0", "running");
    let mut child = server
        .command("ada", &["logs", "tick-exp0", "--follow"])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .context("starting a follower")?;
    let out = child.stdout.take().context("the follower's output")?;
    let connected = machine::wall_s();
    let mut late = Vec::new();
    for line in BufReader::new(out).lines() {
        let at = machine::wall_s();
        let line = line.context("reading what the follower prints")?;
        let written = line
            .split_once("at ")
            .and_then(|(_, text)| text.trim().parse::<f64>().ok());
        // What was written before it was connected says nothing about how soon it comes.
        if let Some(written) = written.filter(|written| *written > connected + 0.5) {
            late.push((at - written) * 1e3);
        }
    }
    child.wait().context("waiting for the follower")?;
    if late.len() < LINES / 4 {
        bail!("the follower printed only {} lines in time", late.len());
    }
    let at = |percent| percentile(&late, percent).context("nothing was followed");
    figures.add("line written to followed, p50", at(50)?, "ms", Goal::None);
    figures.add(
        "line written to followed, p95",
        at(95)?,
        "ms",
        Goal::AtMost(FOLLOW_P95_MS),
    );
    Ok(())
}
