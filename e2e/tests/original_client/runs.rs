//! From a folder to experiments, their state, their logs and their files; and the end of them.

use grid_e2e::original::{Person, Story, screen};
use grid_e2e::{Ran, Server};

use crate::{TRAIN, settled, two_teams};

/// Seconds in what the client shows as a duration.
fn seconds(duration: &str) -> u64 {
    let (days, time) = duration.split_once("d-").expect("days");
    let mut total: u64 = days.parse().expect("a number");
    for (part, in_one) in time.split(':').zip([24, 60, 60]) {
        total = total * in_one + part.parse::<u64>().expect("a number");
    }
    total
}

/// Submits `train.py` as a sweep of three, of which one fails, and waits for their ends.
fn swept(server: &Server, ada: &Person<'_>) -> String {
    ada.file("train.py", TRAIN);
    ada.file("lib/helper.py", "WORD = 'helped'\n");
    ada.file(".gridignore", "secret.txt\n");
    ada.file("secret.txt", "not for anybody\n");
    let said = ada.types("run --localdir --name sweep train.py --lr '[0.1,0.2,9]' --flag");
    settled(server, "sweep");
    said
}

#[test]
fn a_sweep_from_a_folder_to_its_files() {
    let server = two_teams();
    let ada = Person::signed_in(&server, "ada");
    let mut story = Story::default();
    let submitted = swept(&server, &ada);
    assert!(submitted.contains("Run submitted!"), "{submitted}");
    for line in [
        "status",
        "status sweep",
        "history",
        "logs sweep-exp0",
        "logs sweep",
        "logs sweep-exp1 -l 2",
        "logs sweep-exp2 --show-build-logs",
        "logs nothing-exp0",
        "status nothing",
        "run --localdir --name sweep train.py",
        "artifacts sweep",
        "artifacts sweep-exp1 -m 'txt$' --download_dir chosen",
        "artifacts sweep --bucket_path",
        "artifacts nothing",
        "artifacts nothing-exp0",
        "view sweep",
        "view sweep-exp0",
        "version",
    ] {
        story.types(&ada, line);
    }
    insta::assert_snapshot!("sweep", story.told());

    // Counts and durations are what happened, not only well formed.
    let own = server.experiments("sweep");
    let shown = screen::rows(&ada.types("status sweep"));
    assert_eq!(shown.len(), 1 + own.len());
    for row in &shown[1..] {
        let it = own.iter().find(|it| it["name"] == row[0].as_str());
        let it = it.expect("known by that name");
        assert_eq!(it["status"], row[1].as_str());
        assert!(seconds(&row[2]) < 60 && seconds(&row[3]) < 60, "{row:?}");
        assert!(row[4].starts_with("python train.py "), "{row:?}");
    }
    let history = screen::rows(&ada.types("history"));
    assert_eq!(history[1][2..], ["3", "1", "0", "2"], "{history:?}");

    // Files are what was written, below the folders that the client has always made.
    let work = ada.work();
    let read = |path: &str| std::fs::read_to_string(work.join(path)).unwrap_or_default();
    assert_eq!(read("grid_artifacts/sweep/sweep-exp0/model.txt"), "0.1\n");
    assert_eq!(
        read("grid_artifacts/sweep/sweep-exp1/deep/er/metrics.csv"),
        "1,0.2\n"
    );
    assert_eq!(read("grid_artifacts/sweep/sweep-exp1/empty"), "");
    assert!(work.join("grid_artifacts/sweep/sweep-exp1/empty").exists());
    assert_eq!(read("chosen/sweep-exp1/model.txt"), "0.2\n");
    assert!(
        !work.join("chosen/sweep-exp1/deep").exists(),
        "not asked for"
    );
    server.doctor();
}

#[test]
fn what_runs_is_stopped_and_what_is_over_deleted() {
    let server = two_teams();
    let ada = Person::signed_in(&server, "ada");
    ada.file(
        "talk.sh",
        "#!/bin/bash\nwhile true; do echo talking; sleep 0.1; done\n",
    );
    for name in ["one", "two"] {
        ada.types(&format!("run -l --name {name} talk.sh --n '[1,2]'"));
    }
    for name in ["one-exp0", "one-exp1", "two-exp0", "two-exp1"] {
        server.reaches(name, "running");
    }
    let mut story = Story::default();
    story.types(&ada, "status");
    story.types(&ada, "stop experiment one-exp1");
    settled_one(&server, "one-exp1");
    story.types(&ada, "status one");
    story.types(&ada, "status");
    story.types(&ada, "stop run one");
    settled(&server, "one");
    story.types(&ada, "status one");
    story.types(&ada, "stop run two");
    settled(&server, "two");
    for line in [
        "stop run one",
        "stop experiment one-exp0",
        "stop run nothing",
        "history",
    ] {
        story.types(&ada, line);
    }
    // Deleting asks first.
    let delete = |line: &str, answer: &str| {
        let words: Vec<&str> = line.split(' ').collect();
        let mut command = ada.command(&words);
        command
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .stderr(std::process::Stdio::piped());
        let mut child = command.spawn().expect("it starts");
        let mut input = child.stdin.take().expect("piped");
        std::io::Write::write_all(&mut input, answer.as_bytes()).expect("it asks");
        drop(input);
        Ran::of(&child.wait_with_output().expect("it ends"))
    };
    for (line, answer) in [
        ("delete run one", "n\n"),
        ("delete experiment one-exp0", "y\n"),
        ("delete run two", "y\n"),
        ("delete run two", "y\n"),
        ("delete experiment nothing-exp0", "y\n"),
    ] {
        story.note(
            &ada,
            &format!("grid {line} <<< {}", answer.trim()),
            &delete(line, answer),
        );
    }
    for line in ["status one", "artifacts one", "status two", "history"] {
        story.types(&ada, line);
    }
    insta::assert_snapshot!("stop_and_delete", story.told());

    // What was deleted by the old client lies in the trash like everything else.
    server.grid("ada", &["restore", "two"]).ok();
    assert!(ada.types("history").contains("two"));
    server.doctor();
}

fn settled_one(server: &Server, experiment: &str) {
    server.reaches(experiment, "stopped");
}

#[test]
fn old_names_of_commands_still_work() {
    let server = two_teams();
    let ada = Person::signed_in(&server, "ada");
    ada.file(
        "talk.sh",
        "#!/bin/bash\nwhile true; do echo talking; sleep 0.1; done\n",
    );
    let mut story = Story::default();
    story.types(&ada, "train -l --name old talk.sh");
    server.reaches("old-exp0", "running");
    story.types(&ada, "interactive");
    story.types(&ada, "cancel run old");
    settled(&server, "old");
    story.types(&ada, "status old");
    insta::assert_snapshot!("old_names", story.told());
}
