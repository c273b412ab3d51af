//! Datastores while client, server and runner are killed at any moment of an upload, of
//! laying a version out, of deleting and of collecting: nothing is lost, nothing is half
//! visible, and nothing is left on a disk of what was deleted.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use grid_e2e::common::Dice;
use grid_e2e::left::{NOTHING_BYTES, assert_nothing, collect_now, files};
use grid_e2e::{Ran, Server, moment, now, wait_for};
use serde_json::Value;

/// How long things are killed.
const KILLING: Duration = Duration::from_secs(25);

/// The same where it is looked for what is left behind.
const KILLING_BEFORE_DELETION: Duration = Duration::from_secs(12);

/// The longest moment before a kill, in milliseconds.
const MOMENT_MS: u64 = 900;

/// Adds up what a version has, so that all of it is read.
const READ: &str = "#!/bin/bash\ncat \"$GRID_DATASTORES\"/many/*/* | wc -c\n";

fn grid(server: &Server, line: &str) -> Ran {
    let words: Vec<&str> = line.split(' ').collect();
    server.grid("ada", &words)
}

fn begin(server: &Server, line: &str) -> Child {
    let words: Vec<&str> = line.split(' ').collect();
    let mut command = server.command("ada", &words);
    let command = command.stdout(Stdio::null()).stderr(Stdio::null());
    command.spawn().expect("grid starts")
}

/// Files of a round: most are as before, some are new, and two are large.
fn change(folder: &Path, round: u64) {
    for number in 0..600_u64 {
        let part = folder.join(format!("{:02}", number / 60));
        std::fs::create_dir_all(&part).expect("made");
        let changed = if number % 10 == round % 10 { round } else { 0 };
        let text = format!("{number} {changed}\n").repeat(40);
        std::fs::write(part.join(format!("{number}.txt")), text).expect("written");
    }
    let mut dice = Dice(round.wrapping_mul(0x9E37_79B9) | 1);
    for name in ["one.bin", "two.bin"] {
        let bytes: Vec<u8> = (0..2 << 20).map(|_| dice.below(256) as u8).collect();
        std::fs::write(folder.join("00").join(name), bytes).expect("written");
    }
}

fn versions(server: &Server) -> Vec<Value> {
    let listed = grid(server, "-o json datastore --show-incomplete").json();
    listed["datastores"].as_array().cloned().unwrap_or_default()
}

fn available(server: &Server) -> Vec<u64> {
    versions(server)
        .iter()
        .filter(|one| one["state"] == "available")
        .filter_map(|one| one["version"].as_u64())
        .collect()
}

/// Kills one of all, or several.
fn kill(server: &mut Server, client: &mut Child, dice: &mut Dice) {
    let which = dice.below(4);
    if which == 0 || which == 3 {
        client.kill().expect("killed");
    }
    if which == 2 || which == 3 {
        server.kill_runner();
    }
    if which == 1 || which == 3 {
        server.kill();
        server.up();
    }
}

/// Kills things for a while; gives the runs that were asked for.
fn kill_for(server: &mut Server, folder: &Path, time: Duration) -> Vec<String> {
    let mut dice = Dice(u64::from(std::process::id()) | 1 << 40);
    let (deadline, mut round, mut runs) = (now() + time, 0, Vec::new());
    while now() < deadline {
        round += 1;
        change(folder, round);
        let mut client = begin(server, "datastore create many");
        let run = format!("read-{round}");
        let mount = "--datastore_name many -- read.sh";
        let mut submit = begin(server, &format!("run --localdir --name {run} {mount}"));
        runs.push(run);
        let mut other = match dice.below(3) {
            0 => {
                let oldest = available(server).into_iter().min().unwrap_or(1);
                begin(server, &format!("datastore delete many:{oldest}"))
            }
            1 => {
                let data = server.data().display().to_string();
                begin(server, &format!("server collect --data {data}"))
            }
            _ => begin(server, "datastore download many --to other"),
        };
        moment(Duration::from_millis(dice.below(MOMENT_MS)));
        kill(server, &mut client, &mut dice);
        for child in [&mut client, &mut submit, &mut other] {
            child.wait().expect("over");
        }
    }
    // What is left over is finished.
    let _ = grid(server, "datastore resume --all");
    grid(server, "datastore create many").ok();
    wait_for("everything to be filed", || {
        let open = |one: &Value| one["state"] == "processing";
        (!versions(server).iter().any(open)).then_some(())
    });
    runs
}

/// Waits for those of the runs that began, which then have read all; gives their names.
fn ended(server: &Server, runs: Vec<String>) -> Vec<String> {
    let is_known = |run: &String| grid(server, &format!("status {run}")).code == 0;
    let begun: Vec<String> = runs.into_iter().filter(is_known).collect();
    for one in begun.iter().flat_map(|run| server.finished(run)) {
        assert_eq!(one["status"], "succeeded", "{one}\n{}", server.runner_log());
    }
    begun
}

/// Whether the newest version is what the folder is.
fn assert_is_the_folder(server: &Server, folder: &Path, to: &str) {
    grid(server, &format!("datastore download many --to {to}")).ok();
    let back = server.work().join(to);
    let mut command = Command::new("diff");
    let ran = command.arg("-r").arg(folder).arg(&back).output();
    assert_eq!(Ran::of(&ran.expect("diff starts")).stdout, "");
}

#[test]
fn whatever_is_killed_nothing_is_lost_and_nothing_is_half_visible() {
    let mut server = Server::start(&[]);
    server.script("read.sh", READ);
    let folder = server.work().join("many");
    change(&folder, 0);
    grid(&server, "datastore create many").ok();
    let runs = kill_for(&mut server, &folder, KILLING);
    assert_is_the_folder(&server, &folder, "back");
    for version in available(&server) {
        let line = format!("datastore download many:{version} --to all/{version}");
        grid(&server, &line).ok();
    }
    ended(&server, runs);
    let data = server.data().display().to_string();
    grid(&server, &format!("server collect --data {data}")).ok();
    server.doctor();
    server.stop();
    grid(&server, &format!("server collect --data {data}")).ok();
    grid(&server, &format!("server doctor --deep --data {data}")).ok();
}

#[test]
fn whatever_was_killed_nothing_is_left_of_what_was_deleted() {
    let mut server = Server::start(&[]);
    server.script("read.sh", READ);
    let folder = server.work().join("many");
    change(&folder, 0);
    grid(&server, "datastore create many").ok();
    let runs = kill_for(&mut server, &folder, KILLING_BEFORE_DELETION);
    for run in ended(&server, runs) {
        grid(&server, &format!("delete run {run} --yes")).ok();
    }
    let newest = available(&server).into_iter().max().expect("a version");
    for version in versions(&server) {
        let number = version["version"].as_u64().expect("a number");
        if number != newest && version["state"] != "failed" {
            grid(&server, &format!("datastore delete many:{number}")).ok();
        }
    }
    // One version is left: what it needs, and nothing else.
    let kept = collect_now(&mut server);
    let mut other = Server::start(&[]);
    let copy = other.work().join("many");
    let mut command = Command::new("cp");
    let ran = command.arg("-a").arg(&folder).arg(&copy).output();
    Ran::of(&ran.expect("cp starts")).ok();
    grid(&other, "datastore create many").ok();
    assert_eq!(kept, collect_now(&mut other));
    let (needed, _) = files(&other.data().join("blobs"));
    let (found, names) = files(&server.data().join("blobs"));
    // A pack is written anew when half of it is not needed any more.
    assert!(
        found <= 2 * needed + NOTHING_BYTES,
        "{found} for {needed}: {names:?}"
    );
    server.up();
    assert_is_the_folder(&server, &folder, "back");

    // And nothing at all.
    grid(&server, &format!("datastore delete many:{newest}")).ok();
    assert_nothing(&mut server);
    // A machine hears of it when its runner begins.
    server.up();
    server.kill_runner();
    let cache = server.data().join("runner/cache/data");
    wait_for("the machine to forget what is gone", || {
        // What says when this machine was started is of no datastore.
        let names = files(&cache).1;
        let is_gone = names.iter().all(|name| name.ends_with("/.boot"));
        is_gone.then_some(())
    });
    server.doctor();
}
