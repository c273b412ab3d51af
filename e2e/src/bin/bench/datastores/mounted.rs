//! How soon a version that the machine has is there, and how fast its files are read.

use anyhow::{Context, Result, bail};
use grid_e2e::Server;

use super::{Kind, middle, source};
use crate::figures::{Figures, Goal};
use crate::machine;

/// Starts of which the middle one counts.
const ROUNDS: usize = 7;

/// How much later an experiment may start for a version that is there.
const MOUNT_MS: f64 = 100.0;

/// Files of a batch, as the script names them.
const BATCH: usize = 300;

/// At least this part of the speed of a local folder.
const READ_SPEED: f64 = 0.9;

/// Says when it runs; then reads a batch from a folder, and says how long that took.
const SCRIPT: &str = r#"#!/bin/bash
echo began $EPOCHREALTIME
from=$1
[ "$2" = mounted ] && from=$GRID_DATASTORES/$1
[ -n "$1" ] || exit 0
b=$EPOCHREALTIME
cat "$from"/part-000/000[0-2]??.bin > /dev/null || exit 1
e=$EPOCHREALTIME
echo "read $b $e"
"#;

pub(super) fn measure(figures: &mut Figures, server: &Server) -> Result<()> {
    server.script("began.sh", SCRIPT);
    let name = "small-1x";
    let local = source(server, Kind::Small, 1);
    // The machine fetches it once.
    let first = begin(server, "mount-first", &[name, "mounted"], Some(name))?;
    let of = format!("first mount of {}", Kind::Small.what());
    figures.add(&of, first.started_s, "s", Goal::None);
    let (mut without, mut with) = (Vec::new(), Vec::new());
    let (mut read_local, mut read_mounted) = (Vec::new(), Vec::new());
    let local = local.to_str().context("a path in UTF-8")?;
    for round in 0..ROUNDS {
        let bare = begin(server, &format!("bare-{round}"), &[local], None)?;
        without.push(bare.started_s);
        read_local.push(bare.read_s);
        let run = format!("mounted-{round}");
        let there = begin(server, &run, &[name, "mounted"], Some(name))?;
        with.push(there.started_s);
        read_mounted.push(there.read_s);
    }
    machine::say(&format!(
        "  started after {without:.3?} s without and {with:.3?} s with a version; read in {read_local:.3?} s and {read_mounted:.3?} s"
    ));
    let mount_ms = (middle(&with)? - middle(&without)?) * 1e3;
    let title = format!("mount of {} that the machine has", Kind::Small.what());
    figures.add(&title, mount_ms, "ms", Goal::AtMost(MOUNT_MS));
    let speed = middle(&read_local)? / middle(&read_mounted)?;
    let title = format!("first {BATCH} files read from a mounted version / local (speed)");
    figures.add(&title, speed, "", Goal::AtLeast(READ_SPEED));
    Ok(())
}

struct Began {
    started_s: f64,
    read_s: f64,
}

fn begin(server: &Server, run: &str, args: &[&str], mount: Option<&str>) -> Result<Began> {
    let mut words = vec!["run", "--localdir", "--name", run];
    if let Some(name) = mount {
        words.extend(["--datastore_name", name]);
    }
    words.push("--");
    words.push("began.sh");
    words.extend(args);
    let at = machine::wall_s();
    let ran = server.grid("ada", &words);
    if ran.code != 0 {
        bail!("starting {run}: {}", ran.stderr);
    }
    server.finished(run);
    let log = server.grid("ada", &["logs", &format!("{run}-exp0")]).ok();
    let numbers = |word: &str| -> Option<Vec<f64>> {
        let line = log
            .lines()
            .find_map(|line| Some(line.split_once(word)?.1))?;
        line.split_whitespace()
            .map(|word| word.parse().ok())
            .collect()
    };
    let began = numbers("began ").with_context(|| format!("it did not begin: {log}"))?;
    let read = numbers("read ").with_context(|| format!("it did not read: {log}"))?;
    Ok(Began {
        started_s: began.first().context("a time")? - at,
        read_s: read.get(1).context("a time")? - read.first().context("a time")?,
    })
}
