//! The main job: launch a sweep, watch it, fetch what it made.

use grid_e2e::Server;
use serde_json::Value;

const TRAIN: &str = r#"#!/usr/bin/env python3
import argparse, os, pathlib
p = argparse.ArgumentParser()
p.add_argument("--lr", type=float)
p.add_argument("--name", default="x")
a = p.parse_args()
print("training with", a.lr, a.name, flush=True)
out = pathlib.Path("out dir")
out.mkdir()
(out / "100% ünï.txt").write_text(f"{a.lr} {a.name}\n")
pathlib.Path("weights.bin").write_bytes(b"the same in every experiment" * 1000)
"#;

fn names(experiments: &[Value], key: &str) -> Vec<String> {
    experiments
        .iter()
        .map(|e| e[key].as_str().unwrap_or("?").to_owned())
        .collect()
}

#[test]
fn a_sweep_from_arguments_to_files() {
    let server = Server::start(&[]);
    server.script("train.py", TRAIN);
    server.run(
        "sweep",
        &[
            "train.py",
            "--lr",
            "[0.1, 0.01]",
            "--name",
            "['hot dog', 'b']",
        ],
    );
    let mut experiments = server.finished("sweep");
    experiments.sort_by_key(|e| e["index"].as_u64());
    assert_eq!(
        names(&experiments, "status"),
        ["succeeded"; 4],
        "{experiments:?}"
    );
    assert_eq!(
        names(&experiments, "name"),
        ["sweep-exp0", "sweep-exp1", "sweep-exp2", "sweep-exp3"]
    );
    assert_eq!(
        experiments[2]["parameters"],
        serde_json::json!([["lr", "0.01"], ["name", "hot dog"]])
    );
    assert!(
        server
            .log_text("sweep-exp2")
            .contains("training with 0.01 hot dog")
    );

    server.grid("ada", &["artifacts", "sweep"]).ok();
    let folder = server.work().join("grid_artifacts/sweep");
    for (index, expected) in ["0.1 hot dog", "0.1 b", "0.01 hot dog", "0.01 b"]
        .into_iter()
        .enumerate()
    {
        let file = folder.join(format!("sweep-exp{index}/out dir/100% ünï.txt"));
        assert_eq!(
            std::fs::read_to_string(file).expect("downloaded").trim(),
            expected
        );
        assert!(
            folder
                .join(format!("sweep-exp{index}/weights.bin"))
                .exists()
        );
        assert!(
            !folder.join(format!("sweep-exp{index}/train.py")).exists(),
            "the code is no artifact"
        );
    }
    server
        .grid(
            "ada",
            &[
                "artifacts",
                "sweep-exp3",
                "-m",
                "weights",
                "--download_dir",
                "some",
            ],
        )
        .ok();
    assert!(server.work().join("some/sweep-exp3/weights.bin").exists());
    assert!(!server.work().join("some/sweep-exp3/out dir").exists());

    let active = server.grid("ada", &["-o", "json", "status"]).json();
    assert_eq!(
        active["runs"].as_array().map(Vec::len),
        Some(0),
        "nothing is active any more"
    );
    let history = server.grid("ada", &["history", "-o", "json"]).json();
    assert_eq!(history["runs"][0]["counts"]["succeeded"], 4);
    server.doctor();
}

#[test]
fn what_a_script_sees() {
    let server = Server::start(&[]);
    server.script(
        "see.sh",
        "#!/bin/bash\nenv | sort\npwd\nid -u\nls -a\nls /root /home 2>&1 | head -5\n",
    );
    server.run("see", &["--env", "COLOUR=blue", "see.sh"]);
    let experiments = server.finished("see");
    let log = server.log_text("see-exp0");
    assert_eq!(
        experiments[0]["status"], "succeeded",
        "{log}\n{experiments:?}"
    );
    for expected in [
        "GRID_EXPERIMENT_NAME=see-exp0",
        "GRID_CLUSTER_ID=local",
        "COLOUR=blue",
        "CUDA_VISIBLE_DEVICES=",
        "GRID_EXPERIMENT_ID=",
        "GRID_USER_ID=",
        "see.sh",
    ] {
        assert!(log.contains(expected), "{expected} is not in:\n{log}");
    }
    let operator = std::fs::read_to_string(server.data().join("operator.json")).expect("there");
    let operator: Value = serde_json::from_str(&operator).expect("JSON");
    let key = operator["api_key"].as_str().expect("a key");
    assert!(
        !log.contains(key) && !log.contains("GRID_API_KEY"),
        "no key reaches a script:\n{log}"
    );
    server.doctor();
}

#[test]
fn how_scripts_end_is_told() {
    let server = Server::start(&[]);
    server.script(
        "fail.sh",
        "#!/bin/bash\necho before\necho why >&2\nexit 3\n",
    );
    server.script("crash.sh", "#!/bin/bash\nkill -SEGV $$\n");
    server.run("fail", &["fail.sh"]);
    server.run("crash", &["crash.sh"]);
    server.run("missing", &["--", "no-such-program-anywhere"]);
    let fail = server.finished("fail");
    assert_eq!(fail[0]["status"], "failed");
    assert_eq!(fail[0]["reason"]["exit_code"], 3, "{fail:?}");
    assert_eq!(server.log_text("fail-exp0"), "before\nwhy");
    let crash = server.finished("crash");
    assert!(
        crash[0]["message"]
            .as_str()
            .is_some_and(|m| m.contains("SIGSEGV")),
        "{crash:?}"
    );
    let missing = server.finished("missing");
    let said = missing[0]["message"].as_str().unwrap_or_default();
    assert!(said.contains("no-such-program-anywhere"), "{missing:?}");
    let refused = server.grid("ada", &["run", "--localdir", "not-there.py"]);
    assert!(
        refused.code != 0 && refused.stderr.contains("not-there.py"),
        "{refused:?}"
    );
}

#[test]
fn stop_retry_delete_restore() {
    let server = Server::start(&[]);
    server.script(
        "wait.sh",
        "#!/bin/bash\necho started\nif [ -n \"$QUICK\" ]; then exit 0; fi\nsleep 1000\n",
    );
    server.run("waits", &["wait.sh", "--n", "[1,2,3,4,5]"]);
    server.reaches("waits-exp0", "running");
    let queued = server.experiments("waits");
    let last = queued
        .iter()
        .find(|e| e["name"] == "waits-exp4")
        .expect("the last");
    let message = last["message"].as_str().unwrap_or_default();
    assert!(
        message.contains("waiting for 1 CPU") && message.contains("of ada ahead"),
        "{message}"
    );
    server
        .grid("ada", &["stop", "experiment", "waits-exp4"])
        .ok();
    server.reaches("waits-exp4", "stopped");
    server.grid("ada", &["stop", "run", "waits"]).ok();
    let all = server.finished("waits");
    assert_eq!(names(&all, "status"), ["stopped"; 5]);
    let refused = server.grid("ada", &["delete", "run", "waits"]);
    assert_ne!(
        refused.code, 0,
        "without a terminal to ask at, nothing is deleted"
    );
    server
        .grid("ada", &["delete", "run", "waits", "--yes"])
        .ok();
    assert_ne!(server.grid("ada", &["logs", "waits-exp0"]).code, 0);
    server.grid("ada", &["restore", "run", "waits"]).ok();
    assert!(server.log_text("waits-exp0").contains("started"));
    server.grid("ada", &["retry", "waits"]).ok();
    server.reaches("waits-exp0", "running");
    server.grid("ada", &["stop", "run", "waits"]).ok();
    server.finished("waits");
    server.doctor();
}

#[test]
fn a_clone_runs_again_with_other_arguments() {
    let server = Server::start(&[]);
    server.script("say.sh", "#!/bin/bash\necho \"said $@\"\n");
    server.run("first", &["say.sh", "--lr", "uniform(0,1,2)"]);
    let first = server.finished("first");
    server
        .grid("ada", &["clone", "first", "--name", "again"])
        .ok();
    let again = server.finished("again");
    let parameters = |all: &[Value]| {
        all.iter()
            .map(|e| e["parameters"].clone())
            .collect::<Vec<_>>()
    };
    assert_eq!(parameters(&first), parameters(&again), "the seed is kept");
    server
        .grid(
            "ada",
            &["clone", "first", "--name", "other", "--set", "--lr=7"],
        )
        .ok();
    server.finished("other");
    assert_eq!(server.log_text("other-exp0"), "said --lr=7");
    let dry = server
        .grid(
            "ada",
            &[
                "run",
                "-o",
                "json",
                "--localdir",
                "--dry-run",
                "say.sh",
                "--x",
                "[1,2,3]",
            ],
        )
        .json();
    assert_eq!(dry["experiments"].as_array().map(Vec::len), Some(3));
}

#[test]
fn people_have_their_own() {
    let server = Server::start(&[]);
    server.person("bob");
    server.script("say.sh", "#!/bin/bash\necho hello\n");
    server.run("hers", &["say.sh"]);
    server.finished("hers");
    let bob = server.grid("bob", &["-o", "json", "history"]).json();
    assert_eq!(bob["runs"].as_array().map(Vec::len), Some(0));
    for command in [
        ["status", "ada:hers"],
        ["logs", "ada:hers-exp0"],
        ["artifacts", "ada:hers"],
    ] {
        let said = server.grid("bob", &command).fails(1);
        assert!(said.contains("no "), "{said}");
    }
    assert!(
        server
            .grid("bob", &["user", "create", "eve"])
            .fails(1)
            .contains("operator")
    );
    let mut nobody = server.command("bob", &["status"]);
    nobody.env("GRID_USER_ID", "x").env("GRID_API_KEY", "wrong");
    let output = nobody.output().expect("grid starts");
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("key"));
}
