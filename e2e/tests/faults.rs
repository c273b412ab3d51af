//! What must survive: kills at any moment, and scripts that behave badly.

use grid_e2e::common::Dice;
use grid_e2e::{Server, processes_of, signal, wait_for};
use rustix::process::Signal;
use serde_json::Value;

/// Counts up, slowly enough to be hit in the middle, and keeps its own record.
const COUNT: &str = r#"#!/bin/bash
for i in $(seq 1 30); do
  echo "line $i of $2"
  echo "line $i of $2" >> record.txt
  sleep 0.05
done
"#;

fn assert_ran_once(server: &Server, run: &str, count: usize) {
    let experiments = server.finished(run);
    assert_eq!(experiments.len(), count);
    for one in &experiments {
        let name = one["name"].as_str().expect("a name");
        assert_eq!(one["status"], "succeeded", "{one}\n{}", server.runner_log());
        assert_eq!(one["attempts"], 1, "{name} was started again: {one}");
        assert_log_is_whole(server, one);
    }
    server.doctor();
}

/// The log is what the script wrote down itself.
fn assert_log_is_whole(server: &Server, experiment: &Value) {
    let name = experiment["name"].as_str().expect("a name");
    let n = experiment["parameters"][0][1].as_str().expect("a value");
    let expected: Vec<String> = (1..=30).map(|i| format!("line {i} of {n}")).collect();
    assert_eq!(
        server.log_text(name),
        expected.join("\n"),
        "the log of {name}"
    );
    server
        .grid("ada", &["artifacts", name, "--download_dir", "record"])
        .ok();
    let record = std::fs::read_to_string(server.work().join(format!("record/{name}/record.txt")));
    assert_eq!(
        record.expect("the record is an artifact").trim(),
        expected.join("\n")
    );
}

fn one_runs(server: &Server, run: &str) {
    wait_for("a running experiment", || {
        let all = server.experiments(run);
        all.iter().any(|e| e["status"] == "running").then_some(())
    });
}

#[test]
fn the_server_is_killed_in_the_middle_of_a_sweep() {
    let mut server = Server::start(&[]);
    server.script("count.sh", COUNT);
    server.run("count", &["count.sh", "--n", "[1,2,3,4,5]"]);
    one_runs(&server, "count");
    for _ in 0..3 {
        server.kill();
        server.up();
    }
    assert_ran_once(&server, "count", 5);
}

#[test]
fn the_runner_is_killed_and_what_runs_goes_on() {
    let server = Server::start(&[]);
    server.script("count.sh", COUNT);
    server.run("count", &["count.sh", "--n", "[1,2,3]"]);
    one_runs(&server, "count");
    server.kill_runner();
    assert_ran_once(&server, "count", 3);
}

#[test]
fn server_and_runner_are_killed_at_once() {
    let mut server = Server::start(&[]);
    server.script("count.sh", COUNT);
    server.run("count", &["count.sh", "--n", "[1,2,3]"]);
    one_runs(&server, "count");
    server.kill();
    server.kill_runner();
    server.up();
    assert_ran_once(&server, "count", 3);
}

#[test]
fn a_graceful_stop_ends_nothing() {
    let mut server = Server::start(&[]);
    server.script("count.sh", COUNT);
    server.run("count", &["count.sh", "--n", "[1,2]"]);
    one_runs(&server, "count");
    server.stop();
    server.up();
    assert_ran_once(&server, "count", 2);
}

#[test]
fn everything_is_killed_and_lost_attempts_are_tried_again() {
    let mut server = Server::start(&[]);
    server.script("count.sh", COUNT);
    server.run("count", &["count.sh", "--n", "[1,2]"]);
    one_runs(&server, "count");
    server.kill();
    for pid in processes_of(&server.data()) {
        signal(pid, Signal::KILL);
    }
    server.up();
    let experiments = server.finished("count");
    for one in &experiments {
        assert_eq!(one["status"], "succeeded", "{one}\n{}", server.runner_log());
        assert!(
            one["attempts"]
                .as_u64()
                .is_some_and(|attempts| attempts <= 2),
            "{one}"
        );
    }
    server.doctor();
}

#[test]
fn the_process_is_killed_and_its_last_words_are_kept() {
    let server = Server::start(&[]);
    let script = "#!/bin/bash\nfor i in $(seq 1 20000); do echo $i; done\nkill -9 $$\n";
    server.script("die.sh", script);
    server.run("die", &["die.sh"]);
    let ended = server.finished("die");
    assert_eq!(ended[0]["status"], "failed");
    assert!(
        ended[0]["message"]
            .as_str()
            .is_some_and(|m| m.contains("SIGKILL")),
        "{ended:?}"
    );
    let tail = server
        .grid(
            "ada",
            &["-o", "json", "logs", "die-exp0", "--tail-lines", "2"],
        )
        .json();
    assert_eq!(tail["lines"][1]["text"], "20000");
}

#[test]
fn scripts_that_behave_badly() {
    let server = Server::start(&[]);
    server.script(
        "stubborn.sh",
        "#!/bin/bash\ntrap '' TERM\necho up\nwhile true; do sleep 0.1; done\n",
    );
    server.script(
        "forks.sh",
        "#!/bin/bash\n(setsid sleep 998 &)\nsleep 998 &\necho parent done\n",
    );
    server.script(
        "closes.sh",
        "#!/bin/bash\necho said\nexec >&- 2>&-\nsleep 0.2\necho nobody hears\ntouch after\n",
    );
    for (name, script) in [("forks", "forks.sh"), ("closes", "closes.sh")] {
        server.run(name, &[script]);
        let ended = server.finished(name);
        assert_eq!(ended[0]["status"], "succeeded", "{ended:?}");
    }
    assert_eq!(server.log_text("closes-exp0"), "said");
    server.run("stubborn", &["stubborn.sh"]);
    server.reaches("stubborn-exp0", "running");
    server.grid("ada", &["stop", "run", "stubborn"]).ok();
    let ended = server.finished("stubborn");
    assert_eq!(ended[0]["status"], "stopped");
    let left = wait_for("the last process to go", || {
        let left: Vec<String> = processes_of(&server.data())
            .into_iter()
            .filter_map(|pid| std::fs::read(format!("/proc/{pid}/cmdline")).ok())
            .map(|line| String::from_utf8_lossy(&line).replace('\0', " "))
            .filter(|line| line.contains("sleep") || line.contains(".sh"))
            .collect();
        left.is_empty().then_some(left)
    });
    assert!(left.is_empty());
    server.doctor();
}

#[test]
fn much_output_and_many_files() {
    let server = Server::start(&[]);
    server.script(
        "much.py",
        "#!/usr/bin/env python3\nimport os,sys\n\
         line = 'x' * 99 + '\\n'\n\
         for i in range(1000): sys.stdout.write(line * 1000)\n\
         print('the end')\n\
         os.mkdir('many')\n\
         for i in range(5000): open(f'many/{i}', 'w').write(str(i))\n\
         f = open('sparse', 'wb'); f.truncate(2 << 30); f.close()\n",
    );
    server.run("much", &["much.py"]);
    let ended = server.finished("much");
    assert_eq!(ended[0]["status"], "succeeded", "{ended:?}");
    let tail = server
        .grid(
            "ada",
            &["-o", "json", "logs", "much-exp0", "--tail-lines", "1"],
        )
        .json();
    assert_eq!(tail["lines"][0]["text"], "the end");
    let one = server.grid("ada", &["-o", "json", "status", "much"]).json();
    assert_eq!(one["experiments"].as_array().map(Vec::len), Some(1));
    server
        .grid("ada", &["artifacts", "much-exp0", "-m", "many/49.."])
        .ok();
    let folder = server.work().join("grid_artifacts/much-exp0/many");
    assert_eq!(std::fs::read_dir(&folder).expect("downloaded").count(), 100);
    assert_eq!(
        std::fs::read_to_string(folder.join("4999")).expect("there"),
        "4999"
    );
    server.doctor();
}

#[test]
fn a_large_file_is_whole_although_the_server_died_while_it_came() {
    let mut server = Server::start(&[]);
    server.script(
        "large.sh",
        "#!/bin/bash\nhead -c 200000000 /dev/urandom > large.bin && sha256sum < large.bin\n",
    );
    server.run("large", &["large.sh"]);
    let packs = server.data().join("blobs/packs");
    let stored = || -> u64 {
        let files = std::fs::read_dir(&packs).into_iter().flatten().flatten();
        files
            .filter_map(|file| file.metadata().ok())
            .map(|metadata| metadata.len())
            .sum()
    };
    wait_for("a part of the file to be stored", || {
        (stored() > 20_000_000).then_some(())
    });
    server.kill();
    server.up();
    let ended = server.finished("large");
    assert_eq!(ended[0]["status"], "succeeded", "{ended:?}");
    assert_eq!(ended[0]["attempts"], 1);
    server.grid("ada", &["artifacts", "large-exp0"]).ok();
    let file = server.work().join("grid_artifacts/large-exp0/large.bin");
    let sum = std::process::Command::new("sha256sum")
        .stdin(std::fs::File::open(&file).expect("downloaded"))
        .output()
        .expect("sha256sum");
    let sum = String::from_utf8_lossy(&sum.stdout).into_owned();
    assert_eq!(server.log_text("large-exp0").trim(), sum.trim());
    assert!(
        stored() < 215_000_000,
        "what came before the server died is not stored twice"
    );
    server.doctor();
}

#[test]
fn a_full_disk_stops_nothing_for_ever() {
    if !rustix::process::geteuid().is_root() {
        // Only root can make a small disk.
        return;
    }
    let mut server = Server::start(&[]);
    server.stop();
    let logs = server.data().join("logs");
    std::fs::create_dir_all(&logs).expect("a folder");
    let small = Small::mount(&logs, "4m");
    server.up();
    server.script(
        "fill.sh",
        "#!/bin/bash\nfor i in $(seq 100); do head -c 80000 /dev/zero | tr '\\0' 'y' | fold -w 99; sleep 0.02; done\necho done\n",
    );
    server.run("fill", &["fill.sh"]);
    wait_for("the disk to be full", || {
        // What does not fit is stored when there is room, and whole.
        (small.free() < 1_000_000).then_some(())
    });
    let shown = server.experiments("fill");
    assert_ne!(
        shown[0]["status"], "succeeded",
        "not while its log is not stored"
    );
    small.grow("64m");
    let ended = server.finished("fill");
    assert_eq!(ended[0]["status"], "succeeded", "{ended:?}");
    let tail = server
        .grid(
            "ada",
            &["-o", "json", "logs", "fill-exp0", "--tail-lines", "1"],
        )
        .json();
    assert!(
        tail["lines"][0]["text"]
            .as_str()
            .is_some_and(|t| t.ends_with("done")),
        "{tail}"
    );
    server.doctor();
    drop(server);
}

#[test]
fn a_disk_that_is_nearly_full_is_told_of() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let mut server = Server::start(&[]);
    server.stop();
    // It would go on in the folder that is covered now.
    server.kill_runner();
    let _small = Small::mount(&server.data().join("runner"), "48m");
    server.up();
    let warned = || {
        let listed = server.grid("ada", &["clusters"]);
        listed.stderr.contains("is full").then_some(())
    };
    assert_eq!(warned(), None, "there is room");
    server.script(
        "fill.sh",
        "#!/bin/bash\nhead -c 30000000 /dev/zero > $TMPDIR/filled\nsleep 60\n",
    );
    server.run("fill", &["fill.sh"]);
    wait_for("the machine to tell of its disk", warned);
    wait_for("the experiment to say why it may not get on", || {
        let shown = server.grid("ada", &["status", "fill"]).ok();
        let is_told = shown.contains("running") && shown.contains("is full");
        is_told.then_some(())
    });
    server.grid("ada", &["stop", "run", "fill"]).ok();
    server.finished("fill");
    drop(server);
}

#[test]
fn a_disk_that_is_really_full_is_made_free_again() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let mut server = Server::start(&[]);
    server.stop();
    server.kill_runner();
    let small = Small::mount(&server.data(), "48m");
    server.up();
    let mut dice = Dice(42);
    let bytes = |dice: &mut Dice, len: usize| -> Vec<u8> {
        let words = (0..len / 8).flat_map(|_| dice.below(u64::MAX).to_le_bytes());
        words.collect()
    };
    std::fs::write(server.work().join("some"), bytes(&mut dice, 12 << 20)).expect("written");
    server.grid("ada", &["datastore", "create", "some"]).ok();
    server.grid("ada", &["datastore", "delete", "some:1"]).ok();
    std::fs::write(server.work().join("much"), bytes(&mut dice, 60 << 20)).expect("written");
    server
        .grid("ada", &["datastore", "create", "much"])
        .fails(1);
    // To the last byte.
    let mut filler = std::fs::File::create(server.data().join("tmp/filler")).expect("made");
    while std::io::Write::write(&mut filler, &[1; 4_096]).is_ok_and(|written| written > 0) {}
    server.kill();
    server.kill_runner();
    assert_eq!(small.free(), 0);
    let data = server.data();
    let data = data.to_str().expect("UTF-8");
    let collect = ["server", "collect", "--trash", "--now", "--data", data];
    let said = server.grid("ada", &collect).ok();
    assert!(said.contains("the disk is nearly full"), "{said}");
    assert!(small.free() > 10 << 20, "{said}: {}", small.free());
    std::fs::remove_file(server.data().join("tmp/filler")).expect("removed");
    server.up();
    server.doctor();
    let reserve = std::fs::metadata(server.data().join("reserve"));
    assert!(
        reserve.is_ok_and(|found| found.len() > 0),
        "laid aside again"
    );
    drop(server);
}

/// A small disk in memory.
struct Small(std::path::PathBuf);

impl Small {
    fn mount(path: &std::path::Path, size: &str) -> Self {
        let option = format!("size={size}");
        let done = std::process::Command::new("mount")
            .args(["-t", "tmpfs", "-o", &option, "grid-e2e"])
            .arg(path)
            .status();
        assert!(done.is_ok_and(|status| status.success()), "root can mount");
        Self(path.to_owned())
    }

    fn grow(&self, size: &str) {
        let option = format!("remount,size={size}");
        let done = std::process::Command::new("mount")
            .args(["-o", &option])
            .arg(&self.0)
            .status();
        assert!(done.is_ok_and(|status| status.success()), "root can mount");
    }

    fn free(&self) -> u64 {
        let stat = rustix::fs::statvfs(&self.0).expect("it is mounted");
        stat.f_bavail * stat.f_frsize
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount")
            .arg("-l")
            .arg(&self.0)
            .status();
    }
}
