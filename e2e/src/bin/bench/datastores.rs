//! How fast data becomes a version, against `cp -r`, `dvc add` and `aws s3 sync` in the same
//! run; what a second version costs; how soon a version that the machine has is mounted, and
//! how fast its files are read; and what the server takes while ten people send at once.
//!
//! `GRID_BENCH_DATASTORES=0.02` measures with two percent of the data, to see that it works.

mod mounted;
mod others;

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use grid_e2e::{Ran, Server};
use serde_json::Value;

use crate::artifacts::copy;
use crate::figures::{Figures, Goal, median};
use crate::latency::noise;
use crate::machine;

/// The large files, and their bytes together.
const LARGE_FILES: usize = 100;
const LARGE_BYTES: usize = 1 << 30;

/// The small files.
const SMALL_FILES: usize = 100_000;
const SMALL_BYTES: usize = 4_096;
const FILES_OF_A_FOLDER: usize = 1_000;

/// Rounds of which the middle one counts.
const ROUNDS: usize = 3;

/// At least this part of the speed of `cp -r`.
const LARGE_SPEED: f64 = 0.6;
const SMALL_SPEED: f64 = 1.0;

/// A second version of which a percent changed: of the bytes, and of the time.
const SECOND_BYTES: f64 = 0.03;
const SECOND_TIME: f64 = 0.1;

/// People who send at once, what each of them sends, and what the server may take.
const PEOPLE: usize = 10;
const PERSON_LARGE_BYTES: usize = 96 << 20;
const PERSON_SMALL_FILES: usize = 5_000;
const MEMORY_MIB: f64 = 200.0;

/// What part of the data is measured with.
fn share() -> f64 {
    let said = std::env::var("GRID_BENCH_DATASTORES").ok();
    said.and_then(|text| text.parse().ok()).unwrap_or(1.0)
}

fn scaled(number: usize) -> usize {
    ((number as f64 * share()) as usize).max(100)
}

pub(crate) fn measure(figures: &mut Figures) -> Result<()> {
    let server = Server::start(&["--sandbox", "off"]);
    machine::say(&format!("  {:.0} % of the data", share() * 100.0));
    for kind in [Kind::Large, Kind::Small] {
        let copied = against_cp(figures, &server, kind)?;
        second(figures, &server, kind, copied)?;
    }
    others::measure(figures, &server)?;
    mounted::measure(figures, &server)?;
    drop(server);
    memory(figures)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Large,
    Small,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::Large => "large",
            Self::Small => "small",
        }
    }

    fn what(self) -> String {
        match self {
            Self::Large => format!("{} MiB in {LARGE_FILES} files", scaled(LARGE_BYTES) >> 20),
            Self::Small => format!("{} files of 4 KiB", scaled(SMALL_FILES)),
        }
    }

    fn files(self) -> usize {
        match self {
            Self::Large => LARGE_FILES,
            Self::Small => scaled(SMALL_FILES),
        }
    }

    fn bytes_of_one(self) -> usize {
        match self {
            Self::Large => scaled(LARGE_BYTES) / LARGE_FILES,
            Self::Small => SMALL_BYTES,
        }
    }
}

fn file(folder: &Path, number: usize) -> PathBuf {
    let part = format!("part-{:03}", number / FILES_OF_A_FOLDER);
    folder.join(part).join(format!("{number:06}.bin"))
}

/// Files that share nothing with those of another seed.
fn make(folder: &Path, (files, bytes): (usize, usize), seed: usize) -> Result<()> {
    for number in 0..files {
        let path = file(folder, number);
        if number % FILES_OF_A_FOLDER == 0 {
            let inner = path.parent().context("a folder")?;
            std::fs::create_dir_all(inner).context("making a folder")?;
        }
        let seed = (seed * SMALL_FILES + number + 1) as u64;
        std::fs::write(path, noise(seed, bytes)).context("writing a file")?;
    }
    Ok(())
}

/// Makes a version; says how long that took, and what the server says of it.
fn create(server: &Server, who: &str, source: &Path, name: &str) -> Result<(f64, Value)> {
    let source = source.to_str().context("a path in UTF-8")?;
    let words = ["-o", "json", "datastore", "create", source, "--name", name];
    let begin = machine::now();
    let ran = server.grid(who, &words);
    let took = begin.elapsed().as_secs_f64();
    if ran.code != 0 {
        bail!("making a version of {source}: {}", ran.stderr);
    }
    let made: Value = serde_json::from_str(&ran.stdout).context("JSON")?;
    Ok((took, made["datastore"].clone()))
}

fn middle(times: &[f64]) -> Result<f64> {
    median(times).context("nothing was measured")
}

fn source(server: &Server, kind: Kind, round: usize) -> PathBuf {
    let name = format!("{}-{round}", kind.name());
    server.folder.path().join(name)
}

/// One thing after the other, and nothing is removed: file systems are slow at making files
/// where many have just been removed.  Says how long `cp -r` and sync took.
fn against_cp(figures: &mut Figures, server: &Server, kind: Kind) -> Result<f64> {
    let mut times: [Vec<f64>; 3] = Default::default();
    for round in 0..ROUNDS {
        let seed = round + if kind == Kind::Large { 0 } else { 100 };
        let shape = (kind.files(), kind.bytes_of_one());
        make(&source(server, kind, round), shape, seed)?;
    }
    for round in 0..ROUNDS {
        let name = format!("copy-of-{}-{round}", kind.name());
        let to = server.folder.path().join(name);
        let [copied, durable] = copy(&source(server, kind, round), &to)?;
        times[0].push(copied);
        times[1].push(durable);
    }
    for round in 0..ROUNDS {
        let name = format!("{}-{round}x", kind.name());
        let (took, made) = create(server, "ada", &source(server, kind, round), &name)?;
        if made["files"].as_u64() != Some(kind.files() as u64) {
            bail!("not all files are there: {made}");
        }
        times[2].push(took);
    }
    let what = kind.what();
    machine::say(&format!(
        "  {what}: cp -r {:.2?} s, on the disk {:.2?} s, made {:.2?} s",
        times[0], times[1], times[2]
    ));
    let [copied, durable, made] = [middle(&times[0])?, middle(&times[1])?, middle(&times[2])?];
    figures.add(&format!("cp -r, {what}"), copied, "s", Goal::None);
    figures.add(&format!("cp -r and sync, {what}"), durable, "s", Goal::None);
    figures.add(&format!("datastore create, {what}"), made, "s", Goal::None);
    let goal = match kind {
        Kind::Large => LARGE_SPEED,
        Kind::Small => SMALL_SPEED,
    };
    // What is a version is on the disk; what `cp` has copied is not yet.
    for (than, time) in [("cp -r", copied), ("cp -r and sync", durable)] {
        let name = format!("datastore create, {what} / {than} (speed)");
        figures.add(&name, time / made, "", Goal::AtLeast(goal));
    }
    Ok(durable)
}

/// The first version with a percent changed, and with its top folder renamed.
fn second(figures: &mut Figures, server: &Server, kind: Kind, copied: f64) -> Result<()> {
    let (folder, what) = (source(server, kind, 0), kind.what());
    let name = format!("{}-0x", kind.name());
    let shown = server.grid("ada", &["-o", "json", "datastore", "--name", &name]);
    let size = shown.json()["datastores"][0]["size_bytes"].as_f64();
    let size = size.context("a size")?;
    let (first, _) = fresh(server, kind)?;
    let changed = kind.files() / 100;
    for number in 0..changed {
        let bytes = noise((9_000_000 + number) as u64, kind.bytes_of_one());
        std::fs::write(file(&folder, number * 100), bytes).context("changing a file")?;
    }
    let (took, made) = create(server, "ada", &folder, &name)?;
    let new = made["new_bytes"].as_f64().context("new bytes")?;
    let of = format!("second version, {changed} of {what}");
    figures.add(&format!("{of}, changed: time"), took, "s", Goal::None);
    let ratio = took / first;
    let title = format!("{of}, changed: time / first");
    figures.add(&title, ratio, "", Goal::AtMost(SECOND_TIME));
    // What keeping another copy of it takes.
    let title = format!("{of}, changed: time / cp -r and sync");
    figures.add(&title, took / copied, "", Goal::AtMost(SECOND_TIME));
    let title = format!("{of}, changed: stored / size");
    figures.add(&title, new / size, "", Goal::AtMost(SECOND_BYTES));
    if kind == Kind::Large {
        for number in 0..kind.files() {
            let path = file(&folder, number);
            let mut bytes = std::fs::read(&path).context("reading")?;
            let at = bytes.len() / 3;
            let part = noise((8_000_000 + number) as u64, bytes.len() / 100);
            bytes[at..at + part.len()].copy_from_slice(&part);
            std::fs::write(path, bytes).context("changing a file")?;
        }
        let (took, made) = create(server, "ada", &folder, &name)?;
        let new = made["new_bytes"].as_f64().context("new bytes")?;
        let of = format!("third version, 1 % of each of {what}");
        figures.add(&format!("{of}: time / first"), took / first, "", Goal::None);
        let goal = Goal::AtMost(SECOND_BYTES);
        figures.add(&format!("{of}: stored / size"), new / size, "", goal);
    }
    let renamed = folder.with_file_name(format!("{}-renamed", kind.name()));
    std::fs::rename(&folder, &renamed).context("renaming")?;
    let (took, made) = create(server, "ada", &renamed, &name)?;
    let new = made["new_bytes"].as_f64().context("new bytes")?;
    let of = format!("top folder renamed, {what}");
    figures.add(&format!("{of}: time"), took, "s", Goal::None);
    figures.add(&format!("{of}: stored"), new, "B", Goal::AtMost(0.0));
    Ok(())
}

/// The time of a version of which nothing is stored or remembered.
fn fresh(server: &Server, kind: Kind) -> Result<(f64, Value)> {
    let folder = server.folder.path().join(format!("{}-fresh", kind.name()));
    make(&folder, (kind.files(), kind.bytes_of_one()), 300)?;
    create(server, "ada", &folder, &format!("{}-fresh", kind.name()))
}

/// What the server takes at most while many send.
fn memory(figures: &mut Figures) -> Result<()> {
    let server = Server::start(&["--sandbox", "off"]);
    let folder = |number: usize| server.folder.path().join(format!("of-{number}"));
    for number in 0..PEOPLE {
        let large = scaled(PERSON_LARGE_BYTES) / 4;
        make(&folder(number).join("large"), (4, large), 400 + number)?;
        let small = (scaled(PERSON_SMALL_FILES), SMALL_BYTES);
        make(&folder(number).join("small"), small, 500 + number)?;
    }
    let begin = machine::now();
    let mut sending = Vec::new();
    for number in 0..PEOPLE {
        let (source, name) = (folder(number), format!("of-{number}x"));
        let source = source.to_str().context("a path in UTF-8")?;
        let words = ["-o", "json", "datastore", "create", source, "--name", &name];
        let mut command = server.command("ada", &words);
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        sending.push(command.spawn().context("starting grid")?);
    }
    let mut times = Vec::new();
    for child in sending {
        let ran = Ran::of(&child.wait_with_output().context("waiting")?);
        times.push(begin.elapsed().as_secs_f64());
        if ran.code != 0 {
            bail!("one of {PEOPLE} uploads failed: {}", ran.stderr);
        }
    }
    machine::say(&format!(
        "  {PEOPLE} uploads at once were over after {times:.1?} s"
    ));
    let processes = machine::processes(server.folder.path());
    let process = processes.iter().find(|process| process.role == "server");
    let process = process.context("the server was not found among the processes")?;
    let most = machine::most_resident_mib(process.pid)?;
    let name = format!("server, most resident while {PEOPLE} upload at once");
    figures.add(&name, most, "MiB", Goal::AtMost(MEMORY_MIB));
    let last = times.iter().copied().fold(0.0, f64::max);
    figures.add(&format!("{PEOPLE} uploads at once"), last, "s", Goal::None);
    Ok(())
}

fn run(command: &mut Command) -> Result<f64> {
    let begin = machine::now();
    let output = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("starting {command:?}"))?;
    let took = begin.elapsed().as_secs_f64();
    let said = String::from_utf8_lossy(&output.stderr);
    anyhow::ensure!(output.status.success(), "{command:?} failed: {said}");
    Ok(took)
}
