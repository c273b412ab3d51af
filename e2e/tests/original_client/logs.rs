//! Logs while they are written: over the web socket, from waiting to the end.

use std::io::{BufRead, BufReader};
use std::process::Stdio;

use grid_e2e::Server;
use grid_e2e::original::{Person, screen};

/// Counts until a file appears, which takes that nothing hides it from the script: there is no
/// sandbox here.  Then on to its end.
const COUNT: &str = "#!/bin/bash
for i in $(seq 1 50); do echo \"first $i\"; done
while [ ! -e \"$1\" ]; do sleep 0.05; done
for i in $(seq 1 2000); do echo \"then $i\"; done
printf 'without an end'
";

/// The text behind `[experiment] [TIME]`, of the lines that are of the experiment.
fn texts(shown: &str) -> Vec<String> {
    let text = |line: &str| {
        let rest = line.strip_prefix("[experiment] [")?;
        Some(rest.split_once("] ")?.1.to_owned())
    };
    // Without a sandbox there is no scratch folder where the client always asks for one.
    let of_the_script = |text: &String| !text.starts_with("The scratch folder is not at");
    shown
        .lines()
        .filter_map(text)
        .filter(of_the_script)
        .collect()
}

#[test]
fn what_is_written_while_one_looks_is_shown_whole_and_in_order() {
    let server = Server::start(&["--sandbox", "off"]);
    let ada = Person::signed_in(&server, "ada");
    let gate = server.folder.path().join("gate");
    ada.file("count.sh", COUNT);
    ada.types(&format!("run -l --name count count.sh {}", gate.display()));
    server.reaches("count-exp0", "running");
    let mut child = ada
        .command(&["logs", "count-exp0"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("it starts");
    let out = BufReader::new(child.stdout.take().expect("piped"));
    let mut seen = String::new();
    for line in out.lines() {
        let line = line.expect("text");
        // Only now, when the client follows, does the script go on.
        if line.contains("first 50") {
            std::fs::write(&gate, "").expect("written");
        }
        seen.push_str(&line);
        seen.push('\n');
    }
    let status = child.wait().expect("it ends");
    assert!(status.success(), "{seen}");
    let seen = texts(&screen::shown(&seen));
    let mut expected: Vec<String> = (1..=50).map(|i| format!("first {i}")).collect();
    expected.extend((1..=2000).map(|i| format!("then {i}")));
    expected.push("without an end".to_owned());
    assert_eq!(seen, expected);

    // The same afterwards, from the archive: the client shows a hundred lines unless told.
    let shown = texts(&ada.types("logs count-exp0"));
    assert_eq!(shown, expected[expected.len() - 100..]);
    let shown = texts(&ada.types("logs count-exp0 -l 3000"));
    assert_eq!(shown, expected);
    server.doctor();
}

#[test]
fn the_end_of_what_runs_and_of_what_waits() {
    let server = Server::start(&["--cpus", "2", "--sandbox", "off"]);
    let ada = Person::signed_in(&server, "ada");
    let gate = server.folder.path().join("gate");
    ada.file("count.sh", COUNT);
    ada.types(&format!(
        "run -l --name big --cpus 2 count.sh {}",
        gate.display()
    ));
    server.reaches("big-exp0", "running");
    ada.types(&format!(
        "run -l --name next --cpus 2 count.sh {}",
        gate.display()
    ));
    // It waits for the other; the client says so instead of waiting for ever.
    let mut follow = ada
        .command(&["logs", "next-exp0"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("it starts");
    let mut tail = ada
        .command(&["logs", "big-exp0", "-l", "3"])
        .stdout(Stdio::piped())
        .spawn()
        .expect("it starts");
    let out = BufReader::new(tail.stdout.take().expect("piped"));
    let mut seen = String::new();
    for line in out.lines() {
        let line = line.expect("text");
        if line.contains("first 50") {
            std::fs::write(&gate, "").expect("written");
        }
        seen.push_str(&line);
        seen.push('\n');
    }
    assert!(tail.wait().expect("it ends").success(), "{seen}");
    let seen = texts(&screen::shown(&seen));
    assert_eq!(seen[..4], ["first 48", "first 49", "first 50", "then 1"]);
    assert_eq!(seen.len(), 3 + 2001);
    let status = grid_e2e::wait_for("the logs of what waited", || {
        follow.try_wait().expect("a child")
    });
    assert!(status.success(), "{status}");
    crate::settled(&server, "next");
}
