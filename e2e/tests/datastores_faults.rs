//! Datastores while client, server and runner are killed at any moment of an upload, of
//! laying a version out, of deleting and of collecting.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use grid_e2e::{Ran, Server, moment, now, wait_for};
use serde_json::Value;

/// How long things are killed.
const KILLING: Duration = Duration::from_secs(25);

/// The longest moment before a kill, in milliseconds.
const MOMENT_MS: u64 = 900;

/// Adds up what a version has, so that all of it is read.
const READ: &str = "#!/bin/bash\ncat \"$GRID_DATASTORES\"/many/*/* | wc -c\n";

/// Numbers without an order.
struct Dice(u64);

impl Dice {
    fn below(&mut self, most: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % most
    }
}

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

#[test]
fn whatever_is_killed_nothing_is_lost_and_nothing_is_half_visible() {
    let mut server = Server::start(&[]);
    server.script("read.sh", READ);
    let folder = server.work().join("many");
    change(&folder, 0);
    grid(&server, "datastore create many").ok();
    let mut dice = Dice(u64::from(std::process::id()) | 1 << 40);
    let (deadline, mut round, mut runs) = (now() + KILLING, 0, Vec::new());
    while now() < deadline {
        round += 1;
        change(&folder, round);
        let mut client = begin(&server, "datastore create many");
        let run = format!("read-{round}");
        let mount = "--datastore_name many -- read.sh";
        let mut submit = begin(&server, &format!("run --localdir --name {run} {mount}"));
        runs.push(run);
        let mut other = match dice.below(3) {
            0 => {
                let oldest = available(&server).into_iter().min().unwrap_or(1);
                begin(&server, &format!("datastore delete many:{oldest}"))
            }
            1 => {
                let data = server.data().display().to_string();
                begin(&server, &format!("server collect --data {data}"))
            }
            _ => begin(&server, "datastore download many --to other"),
        };
        moment(Duration::from_millis(dice.below(MOMENT_MS)));
        kill(&mut server, &mut client, &mut dice);
        for child in [&mut client, &mut submit, &mut other] {
            child.wait().expect("over");
        }
    }
    // What is left over is finished, and is what the folder is.
    let _ = grid(&server, "datastore resume --all");
    grid(&server, "datastore create many").ok();
    wait_for("everything to be filed", || {
        let open = |one: &Value| one["state"] == "processing";
        (!versions(&server).iter().any(open)).then_some(())
    });
    grid(&server, "datastore download many --to back").ok();
    let back = server.work().join("back");
    let mut command = Command::new("diff");
    let ran = command.arg("-r").arg(&folder).arg(&back).output();
    assert_eq!(Ran::of(&ran.expect("diff starts")).stdout, "");
    for version in available(&server) {
        let line = format!("datastore download many:{version} --to all/{version}");
        grid(&server, &line).ok();
    }
    // A run whose client was cut may not have begun; one that began has read all.
    for run in runs {
        let known = grid(&server, &format!("status {run}")).code == 0;
        for one in known.then(|| server.finished(&run)).into_iter().flatten() {
            assert_eq!(one["status"], "succeeded", "{one}\n{}", server.runner_log());
        }
    }
    let data = server.data().display().to_string();
    grid(&server, &format!("server collect --data {data}")).ok();
    server.doctor();
    server.stop();
    grid(&server, &format!("server collect --data {data}")).ok();
    grid(&server, &format!("server doctor --deep --data {data}")).ok();
}
