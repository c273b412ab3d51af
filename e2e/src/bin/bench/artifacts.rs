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
        let mut stored = Vec::new();
        let mut copied = Vec::new();
        for round in 0..ROUNDS {
            let source = server.folder.path().join(format!("{name}-{round}"));
            let copy = server.folder.path().join("copy");
            make(name, round, &source)?;
            let begin = machine::now();
            run(Command::new("cp").arg("-r").arg(&source).arg(&copy))?;
            copied.push(begin.elapsed().as_secs_f64());
            std::fs::remove_dir_all(&copy).context("removing a copy")?;
            stored.push(store(
                &server,
                &mut api,
                &format!("{name}-{round}"),
                &source,
            )?);
        }
        machine::say(&format!(
            "  {what}: stored {stored:.2?} s, cp -r {copied:.2?} s"
        ));
        let stored = median(&stored).context("nothing was measured")?;
        let copied = median(&copied).context("nothing was measured")?;
        figures.add(&format!("cp -r, {what}"), copied, "s", Goal::None);
        figures.add(&format!("stored, {what}"), stored, "s", Goal::None);
        let name = format!("stored, {what} / cp -r (speed)");
        figures.add(&name, copied / stored, "", Goal::AtLeast(SPEED));
    }
    Ok(())
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
    let status = command.status().context("starting cp")?;
    anyhow::ensure!(status.success(), "cp failed ({status})");
    Ok(())
}
