//! What people get wrong in their first hour, and what they are told.

use grid_e2e::{Server, wait_for};

#[test]
fn mistyped_names_are_recognised() {
    let server = Server::start(&[]);
    server.script("say.sh", "#!/bin/bash\necho $1\n");
    server.run("bert-1", &["say.sh", "--x", "[1, 2]"]);
    server.finished("bert-1");
    for (words, hint) in [
        (vec!["status", "brt-1"], "did you mean bert-1?"),
        (vec!["logs", "bert-l-exp0"], "did you mean bert-1-exp0?"),
        (
            vec!["logs", "bert-1-exp7"],
            "are bert-1-exp0 to bert-1-exp1",
        ),
        (vec!["stop", "run", "nothing-like-it"], "`grid status` and"),
    ] {
        let said = server.grid("ada", &words).fails(1);
        assert!(said.contains(hint), "{words:?}: {said}");
    }
    std::fs::create_dir(server.work().join("cats")).expect("made");
    std::fs::write(server.work().join("cats/a"), "meow").expect("written");
    server.grid("ada", &["datastore", "create", "cats"]).ok();
    let said = server.grid("ada", &["datastore", "files", "cast"]).fails(1);
    assert!(said.contains("did you mean cats?"), "{said}");
    // What is another's is none of their business.
    server.person("eve");
    let said = server.grid("eve", &["status", "bert-1"]).fails(1);
    assert!(!said.contains("did you mean"), "{said}");
}

#[test]
fn flags_in_the_wrong_place_are_noticed() {
    let server = Server::start(&[]);
    server.script("say.sh", "#!/bin/bash\necho $@\n");
    let ran = server.grid("ada", &["run", "--name", "a", "say.sh", "--dry-run"]);
    assert_eq!(ran.code, 0, "{ran:?}");
    assert!(
        ran.stderr.contains("--dry-run stands behind the script"),
        "{ran:?}"
    );
    let ran = server.grid(
        "ada",
        &["run", "--name", "b", "--", "./say.sh", "--dry-run"],
    );
    assert!(!ran.stderr.contains("stands behind"), "{ran:?}");
    let ran = server.grid("ada", &["clone", "a", "--set", "--x", "1", "--dry-run"]);
    assert!(
        ran.stderr.contains("--dry-run stands behind --set"),
        "{ran:?}"
    );
    let said = server
        .grid("ada", &["run", "--lr", "0.1", "say.sh"])
        .fails(2);
    assert!(said.contains("grid run SCRIPT --lr"), "{said}");
    let ran = server.grid(
        "ada",
        &["run", "--dry-run", "say.sh", "--lr=unifrom(0, 1, 3)"],
    );
    assert!(ran.stderr.contains("did you mean uniform(…)?"), "{ran:?}");
}

#[test]
fn who_follows_a_failure_is_told_why() {
    let server = Server::start(&[]);
    let ran = server.grid(
        "ada",
        &["run", "--follow", "--name", "a", "--", "sh", "-c", "exit 3"],
    );
    assert_eq!(ran.code, 1, "{ran:?}");
    assert!(
        ran.stderr
            .contains("Experiment a-exp0: failed (exit code 3)"),
        "{ran:?}"
    );
    let ran = server.grid(
        "ada",
        &["run", "--follow", "--name", "b", "--", "no-such-program"],
    );
    assert!(
        ran.stderr.contains("there is no program 'no-such-program'"),
        "{ran:?}"
    );
    let plain = server.work().join("plain");
    std::fs::write(&plain, "#!/bin/sh\n").expect("written");
    let said = server.grid("ada", &["run", "./plain"]).fails(2);
    assert!(said.contains("chmod +x ./plain"), "{said}");
    let ran = server.grid("ada", &["logs", "a-exp0"]);
    assert!(
        ran.stderr.contains("has printed nothing: failed"),
        "{ran:?}"
    );
}

#[test]
fn data_that_cannot_be_sent_takes_no_number() {
    let server = Server::start(&[]);
    let cats = server.work().join("cats");
    std::fs::create_dir(&cats).expect("made");
    std::fs::write(cats.join("a"), "meow").expect("written");
    std::os::unix::fs::symlink("/etc/passwd", cats.join("out")).expect("linked");
    let said = server
        .grid("ada", &["datastore", "create", "cats"])
        .fails(1);
    assert!(said.contains("out -> /etc/passwd"), "{said}");
    let all = ["datastore", "--show-incomplete"];
    assert_eq!(server.grid("ada", &all).ok(), "No datastores.\n");
    std::fs::remove_file(cats.join("out")).expect("removed");
    let elsewhere = ["datastore", "create", "cats", "--cluster", "nowhere"];
    let said = server.grid("ada", &elsewhere).fails(1);
    assert!(said.contains("there is no cluster 'nowhere'"), "{said}");
    let described = [
        "datastore",
        "create",
        "cats",
        "--description",
        "of the street",
    ];
    let made = server.grid("ada", &described).ok();
    assert!(made.contains("cats:1 is available"), "{made}");
    let listed = server.grid("ada", &["datastore"]).ok();
    assert!(listed.contains("of the street"), "{listed}");
    std::fs::write(server.work().join("cats.zip"), "PK").expect("written");
    let ran = server.grid(
        "ada",
        &["datastore", "create", "cats.zip", "--name", "packed"],
    );
    assert!(
        ran.stderr.contains("create - --name packed < cats.zip"),
        "{ran:?}"
    );
}

#[test]
fn who_waits_for_an_address_that_does_not_answer_is_told() {
    let server = Server::start_with(&[], &[("GRID_SERVER_FETCH_PRIVATE", "true")]);
    let line = ["datastore", "create", "http://127.0.0.1:1/cats.tar.gz"];
    let mut command = server.command("ada", &line);
    let said = server.folder.path().join("said");
    command.stderr(std::fs::File::create(&said).expect("made"));
    let mut child = command.spawn().expect("grid starts");
    wait_for("the server to say what it waits for", || {
        let told = std::fs::read_to_string(&said).expect("there");
        told.contains("cats:1 waits: the address cannot be fetched")
            .then_some(())
    });
    let listed = server.grid("ada", &["datastore"]).ok();
    assert!(listed.contains("waiting: the address cannot"), "{listed}");
    child.kill().expect("ended");
    child.wait().expect("ended");
    // Nobody has to wait for it for ever.
    server.grid("ada", &["datastore", "delete", "cats:1"]).ok();
    assert_eq!(server.grid("ada", &["datastore"]).ok(), "No datastores.\n");
}
