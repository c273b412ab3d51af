//! Versions that are made of the objects of a bucket, on a real S3 server: copied, or left
//! where they are and read through the server.
//!
//! Ada owns the team `vision`, Bob is a member, Eve is somebody else with an account.

use std::process::{Command, Stdio};

use grid_e2e::common::{grid, large, same_tree, vision};
use grid_e2e::s3::{Bucket, KEY, SECRET};
use grid_e2e::{Server, wait_for};

fn team() -> Server {
    let server = Server::start_with(&[], &[("GRID_SERVER_FETCH_PRIVATE", "true")]);
    vision(&server);
    server
}

/// Ada tells the server her key.
fn credential(server: &Server, bucket: &Bucket) {
    std::fs::write(server.work().join("secret"), SECRET).expect("written");
    let line = format!(
        "credential create --name lab --access-key-id {KEY} --secret-file secret --endpoint {}",
        bucket.url
    );
    grid(server, "ada", &line).ok();
}

#[test]
fn objects_are_copied_with_a_credential_that_nobody_sees() {
    let (server, bucket) = (team(), Bucket::start(&std::env::temp_dir()));
    let large = large();
    bucket.put(&[
        ("cats/a.txt", b"meow"),
        ("cats/empty", b""),
        ("cats/train/grün 1.txt", b"purr"),
        ("cats/train/large.bin", &large),
        ("cats-not", b"bark"),
    ]);
    let open = format!("datastore create s3://data/cats/ --endpoint {}", bucket.url);
    let said = grid(&server, "ada", &open).fails(1);
    assert!(said.contains("does not let us read it"), "{said}");
    assert!(said.contains("--credential"), "{said}");
    credential(&server, &bucket);
    let made = grid(
        &server,
        "ada",
        "datastore create s3://data/cats --credential lab",
    )
    .ok();
    assert!(made.contains("cats:1 is available: 4 file(s)"), "{made}");
    grid(&server, "ada", "datastore download cats:1 --to back").ok();
    same_tree(&bucket.path("cats"), &server.work().join("back"));
    // A credential that opens it is found, also a teammate's; nothing is stored twice.
    let again = format!("-o json {open} --name cats-of-bob --team vision");
    let made = grid(&server, "bob", &again).json();
    assert_eq!(made["datastore"]["new_bytes"], 0, "{made}");
    assert_eq!(made["datastore"]["source"], "s3://data/cats/");
    let said = grid(&server, "eve", &open).fails(1);
    assert!(said.contains("does not let us read it"), "{said}");
    // What opens one server is shown to no other.
    let line = "datastore create s3://data/cats --credential lab --endpoint http://127.0.0.1:1";
    let said = grid(&server, "ada", line).fails(1);
    assert!(said.contains("shown to no other server"), "{said}");
    for (source, expected) in [
        ("s3://data/dogs/", "there is nothing at s3://data/dogs/"),
        ("s3://nowhere/cats/", "there is no bucket"),
        ("az://data/cats/", "no bucket that this server can read"),
    ] {
        let line = format!("datastore create {source} --credential lab --name x");
        let said = grid(&server, "ada", &line).fails(1);
        assert!(said.contains(expected), "{source}: {said}");
    }
    // One object.
    let line = "datastore create s3://data/cats/train/large.bin --credential lab --name one";
    let made = grid(&server, "ada", line).ok();
    assert!(made.contains("one:1 is available: 1 file(s)"), "{made}");
    let listed = grid(&server, "ada", "datastore files one").ok();
    assert!(listed.contains("large.bin"), "{listed}");
    assert!(!server.log().contains(SECRET) && !server.runner_log().contains(SECRET));
    server.doctor();
}

#[test]
fn a_killed_server_copies_only_what_it_had_not() {
    const OBJECTS: usize = 2_300;
    // A part of the list is written down when all of it is here.
    const PART: usize = 2_000;
    let (mut server, bucket) = (team(), Bucket::start(&std::env::temp_dir()));
    for number in 0..OBJECTS {
        let text = format!("number {number}");
        bucket.put(&[(&format!("many/{number:05}.txt"), text.as_bytes())]);
    }
    credential(&server, &bucket);
    bucket.answer_only(PART + 100);
    let line = [
        "datastore",
        "create",
        "s3://data/many/",
        "--credential",
        "lab",
    ];
    let mut command = server.command("ada", &line);
    let command = command.stdout(Stdio::null()).stderr(Stdio::null());
    let mut client = command.spawn().expect("grid starts");
    wait_for("most of it to be copied", || {
        (bucket.reads().len() >= PART + 100).then_some(())
    });
    server.kill();
    client.kill().expect("killed");
    client.wait().expect("over");
    let lists = bucket.lists();
    bucket.answer_only(usize::MAX);
    server.up();
    wait_for("the version", || {
        let shown = grid(&server, "ada", "-o json datastore").json();
        (shown["datastores"][0]["state"] == "available").then_some(())
    });
    let reads = bucket.reads();
    assert_eq!(reads.len(), OBJECTS);
    for number in 0..PART {
        let key = format!("many/{number:05}.txt");
        assert_eq!(reads[&key], 1, "{key} was copied again");
    }
    assert_eq!(bucket.lists(), lists);
    grid(&server, "ada", "datastore download many --to back").ok();
    same_tree(&bucket.path("many"), &server.work().join("back"));
    server.doctor();
}

/// Prints what a datastore has at `$1`.
const READ: &str = "#!/bin/bash\ncat \"$GRID_DATASTORES/$1\"\n";

#[test]
fn what_is_left_in_the_bucket_is_read_through_the_server() {
    let (mut server, bucket) = (team(), Bucket::start(&std::env::temp_dir()));
    let large = large();
    bucket.put(&[
        ("cats/a.txt", b"meow\n"),
        ("cats/b.txt", b"purr\n"),
        ("cats/empty", b""),
        ("cats/train/large.bin", &large),
    ]);
    credential(&server, &bucket);
    server.script("read.sh", READ);
    let line = "-o json datastore create s3://data/cats/ --no-copy --credential lab";
    let made = grid(&server, "ada", line).json();
    assert_eq!(made["datastore"]["new_bytes"], 0, "{made}");
    assert_eq!(made["datastore"]["no_copy"], true, "{made}");
    assert!(bucket.reads().is_empty(), "nothing is copied");
    let read = grid(&server, "bob", "datastore cat ada:cats:1 b.txt").ok();
    assert_eq!(read, "purr\n");
    grid(&server, "ada", "datastore download cats:1 --to back").ok();
    same_tree(&bucket.path("cats"), &server.work().join("back"));
    let again = grid(&server, "ada", "datastore download cats:1 --to back").ok();
    assert!(again.contains("4 unchanged"), "{again}");
    let submit = |name: &str, path: &str| {
        let line =
            format!("run --localdir --name {name} --datastore_name ada:cats:1 -- read.sh {path}");
        grid(&server, "bob", &line).ok();
        wait_for("the run to end", || {
            let shown = grid(&server, "bob", &format!("-o json status {name}")).json();
            let counts = &shown["runs"][0]["counts"];
            (counts["succeeded"] == 1 || counts["failed"] == 1).then_some(())
        });
        grid(&server, "bob", &format!("logs {name}-exp0")).ok()
    };
    let log = submit("first", "cats/a.txt");
    assert!(log.contains("meow"), "{log}");
    // What changes or goes is said, with its name; what the machine has is still right.
    bucket.put(&[("cats/a.txt", b"hiss and more\n")]);
    std::fs::remove_file(bucket.path("cats/b.txt")).expect("removed");
    let said = grid(&server, "ada", "datastore cat cats:1 a.txt").fails(1);
    assert!(
        said.contains("'cats/a.txt' of s3://data/cats/ is not any more what it was"),
        "{said}"
    );
    let said = grid(&server, "ada", "datastore cat cats:1 b.txt").fails(1);
    assert!(
        said.contains("'cats/b.txt' of s3://data/cats/ is not there any more"),
        "{said}"
    );
    let log = submit("second", "cats/a.txt");
    assert!(log.contains("meow"), "{log}");
    let data = server.data().display().to_string();
    let doctor = format!("server doctor --deep --data {data}");
    let said = grid(&server, "ada", &doctor).ok();
    let expected = "note: ada:cats:1 was left in s3://data/cats/: of 4 objects 1 changed since \
                    and 1 are gone ('a.txt', 'b.txt'); ";
    assert!(said.contains(expected), "{said}");
    // Another version has what is there now, and mounting the first anew fails with words.
    grid(
        &server,
        "ada",
        "datastore create s3://data/cats/ --no-copy --credential lab",
    )
    .ok();
    let diff = grid(&server, "ada", "datastore diff cats:1 cats:2").ok();
    assert!(diff.contains("0 added, 1 removed, 1 changed"), "{diff}");
    server.stop();
    forget(&server);
    server.up();
    let log = {
        let line = "run --localdir --name third --datastore_name ada:cats:1 -- read.sh cats/a.txt";
        grid(&server, "bob", line).ok();
        server_failed(&server, "third");
        grid(&server, "bob", "-o json status third").ok()
    };
    assert!(log.contains(" of s3://data/cats/ is not "), "{log}");
    let read = grid(&server, "ada", "datastore cat cats:2 a.txt").ok();
    assert_eq!(read, "hiss and more\n");
    grid(&server, "ada", "credential delete lab -y").ok();
    // From the next read on, though the bucket is open still.
    let said = grid(&server, "ada", "datastore cat cats:2 a.txt").fails(1);
    assert!(
        said.contains("the credential that opens it was deleted"),
        "{said}"
    );
    server.doctor();
}

fn server_failed(server: &Server, run: &str) {
    wait_for("the run to fail", || {
        let shown = grid(server, "bob", &format!("-o json status {run}")).json();
        (shown["runs"][0]["counts"]["failed"] == 1).then_some(())
    });
}

/// The machine loses what it has of datastores.
fn forget(server: &Server) {
    let cache = server.data().join("runner/cache/data");
    let mut command = Command::new("sh");
    let script = "chmod -R u+w \"$0\" && rm -rf \"$0\"/blobs/* \"$0\"/versions/*";
    let ran = command.args(["-c", script]).arg(cache).status();
    assert!(ran.expect("sh starts").success());
}
