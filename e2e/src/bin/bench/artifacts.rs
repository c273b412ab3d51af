//! How long after its end an experiment's files are stored, against `cp -r` to the same disk.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use grid_e2e::{Server, wait_up_to};

use crate::figures::{Figures, Goal, median};
use crate::http::Api;
use crate::latency::noise;
use crate::machine;

/// The large file.
const LARGE_BYTES: usize = 1 << 30;

/// The small files.
const SMALL_FILES: usize = 100_000;
const SMALL_BYTES: usize = 1_000;
const FILES_OF_A_FOLDER: usize = 1_000;

/// Rounds of which the middle one counts.
const ROUNDS: usize = 3;

/// At least this part of the speed of `cp -r`.
const SPEED: f64 = 0.5;

/// Moving takes no time, so that everything is done after the script.
const SCRIPT: &str = "#!/bin/bash\nmv \"$1\" out && echo over $EPOCHREALTIME\n";

pub(crate) fn measure(figures: &mut Figures) -> Result<()> {
    let server = Server::start(&["--sandbox", "off"]);
    server.script("make.sh", SCRIPT);
    let mut api = Api::open(&server)?;
    for (name, what) in [("large", "1 GiB file"), ("small", "100,000 files")] {
        // One thing after the other, and nothing is removed: file systems are slow at making
        // files where many have just been removed.
        let source = |round: usize| server.folder.path().join(format!("{name}-{round}"));
        let mut times: [Vec<f64>; 3] = Default::default();
        for round in 0..ROUNDS {
            make(name, round, &source(round))?;
        }
        // By turns: memory that a virtual machine has not used for a while has to be got from
        // its host first, and what comes later gets more of that.
        for round in 0..ROUNDS {
            let to = server.folder.path().join(format!("copy-of-{name}-{round}"));
            let [copied, durable] = copy(&source(round), &to)?;
            times[0].push(copied);
            times[1].push(durable);
            let name = format!("{name}-{round}");
            times[2].push(store(&server, &mut api, &name, &source(round))?);
        }
        machine::say(&format!(
            "  {what}: cp -r {:.2?} s, on the disk {:.2?} s, stored {:.2?} s",
            times[0], times[1], times[2]
        ));
        let middle = |times: &[f64]| median(times).context("nothing was measured");
        let [copied, durable, stored] =
            [middle(&times[0])?, middle(&times[1])?, middle(&times[2])?];
        figures.add(&format!("cp -r, {what}"), copied, "s", Goal::None);
        figures.add(&format!("cp -r and sync, {what}"), durable, "s", Goal::None);
        figures.add(&format!("stored, {what}"), stored, "s", Goal::None);
        let mut speed = |than: &str, time: f64, goal| {
            let name = format!("stored, {what} / {than} (speed)");
            figures.add(&name, time / stored, "", goal);
        };
        // What is recorded as stored is on the disk; what `cp` has copied is not yet.
        speed("cp -r", copied, Goal::None);
        speed("cp -r and sync", durable, Goal::AtLeast(SPEED));
    }
    Ok(())
}

/// Seconds of `cp -r`, and of the same until it is on the disk.
pub(crate) fn copy(source: &Path, to: &Path) -> Result<[f64; 2]> {
    let sync = || run(Command::new("sync").arg("-f").arg(source));
    sync()?;
    let begin = machine::now();
    run(Command::new("cp").arg("-r").arg(source).arg(to))?;
    let copied = begin.elapsed().as_secs_f64();
    sync()?;
    Ok([copied, begin.elapsed().as_secs_f64()])
}

/// Seconds from the end of the script to the recorded end of the experiment.
fn store(server: &Server, api: &mut Api, name: &str, source: &Path) -> Result<f64> {
    let source = source.to_str().context("a path in UTF-8")?;
    server.run(name, &["make.sh", source]);
    let path = format!("/experiments/{name}-exp0");
    let experiment = wait_up_to(Duration::from_secs(300), "the files to be stored", || {
        let experiment = api.get(&path).ok()?["experiment"].clone();
        experiment["finished_at"].is_string().then_some(experiment)
    });
    let end = machine::wall_s();
    // The next round must not be slowed down by the tidying up after this one.
    let attempts = server.data().join("runner").join("attempts");
    wait_up_to(
        Duration::from_secs(300),
        "the folder of the experiment to go",
        || {
            std::fs::read_dir(&attempts)
                .ok()?
                .next()
                .is_none()
                .then_some(())
        },
    );
    if experiment["status"] != "succeeded" {
        bail!("{name} did not succeed: {experiment}");
    }
    let expected = if name.starts_with("large") {
        1
    } else {
        SMALL_FILES as u64
    };
    if experiment["artifacts"].as_u64() != Some(expected) {
        bail!("not all files are stored: {experiment}");
    }
    let log = api.get(&format!("{path}/logs"))?;
    let lines = log["lines"].as_array().context("a log has lines")?;
    let over: f64 = lines
        .iter()
        .filter_map(|line| line["text"].as_str()?.strip_prefix("over "))
        .find_map(|text| text.parse().ok())
        .with_context(|| format!("the script did not say when it ended: {log}"))?;
    Ok(end - over)
}

fn make(name: &str, round: usize, folder: &Path) -> Result<()> {
    std::fs::create_dir(folder).context("making a folder")?;
    let seed = |number: usize| (round * SMALL_FILES + number + 1) as u64;
    if name == "large" {
        let bytes = noise(seed(0), LARGE_BYTES);
        return std::fs::write(folder.join("large.bin"), bytes).context("writing a file");
    }
    for number in 0..SMALL_FILES {
        let inner = folder.join(format!("part-{}", number / FILES_OF_A_FOLDER));
        if number % FILES_OF_A_FOLDER == 0 {
            std::fs::create_dir(&inner).context("making a folder")?;
        }
        let bytes = noise(seed(number), SMALL_BYTES);
        std::fs::write(inner.join(format!("{number}.bin")), bytes).context("writing a file")?;
    }
    Ok(())
}

fn run(command: &mut Command) -> Result<()> {
    let status = command
        .status()
        .with_context(|| format!("starting {command:?}"))?;
    anyhow::ensure!(status.success(), "{command:?} failed ({status})");
    Ok(())
}
