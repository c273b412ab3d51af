//! Data that a team shares: made in versions, mounted, refused, deleted, brought back; and
//! uploads that are cut at any moment.
//!
//! Ada owns the team `vision`, Bob is a member, Eve is somebody else with an account.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use grid_e2e::common::{grid, same_tree, vision};
use grid_e2e::{Ran, Server, wait_for};
use serde_json::Value;

/// Prints what a datastore has at `$1`, tries to change it, and waits for a word.
const READ: &str = r#"#!/bin/bash
cat "$GRID_DATASTORES/$1"
if [ -n "$2" ]; then
  echo changed > "$GRID_DATASTORES/$1" && echo "IT WAS CHANGED"
fi
until [ -e stop ] || [ "$3" != wait ]; do sleep 0.05; done
echo over
"#;

fn team() -> Server {
    let server = Server::start_with(&[], &[("GRID_SERVER_FETCH_PRIVATE", "true")]);
    vision(&server);
    server.script("read.sh", READ);
    server
}

/// Files in a folder of the work tree.
fn data(server: &Server, name: &str, files: &[(&str, &str)]) -> PathBuf {
    let folder = server.work().join(name);
    for (path, text) in files {
        let path = folder.join(path);
        std::fs::create_dir_all(path.parent().expect("a folder")).expect("made");
        std::fs::write(path, text).expect("written");
    }
    folder
}

/// Versions with their states, as somebody sees them.
fn versions(server: &Server, who: &str, flags: &str) -> Vec<String> {
    let line = format!("-o json datastore {flags}");
    let listed = grid(server, who, line.trim()).json();
    let one = |one: &Value| {
        let word = |key: &str| one[key].as_str().unwrap_or_default().to_owned();
        let number = one["version"].as_u64().unwrap_or_default();
        format!(
            "{}:{}:{number} {}",
            word("created_by"),
            word("name"),
            word("state")
        )
    };
    let listed = listed["datastores"].as_array().cloned().unwrap_or_default();
    let mut listed: Vec<String> = listed.iter().map(one).collect();
    listed.sort();
    listed
}

fn submit(server: &Server, who: &str, name: &str, flags: &str, args: &str) -> Ran {
    let line = format!("run --localdir --name {name} {flags} -- read.sh {args}");
    grid(server, who, &line)
}

#[test]
fn every_create_makes_a_version_and_only_what_is_new_is_stored() {
    let server = team();
    let folder = data(
        &server,
        "cats",
        &[("train/1.txt", "one"), ("train/2.txt", "two"), ("grün", "")],
    );
    std::fs::create_dir(folder.join("empty")).expect("made");
    std::os::unix::fs::symlink("train/1.txt", folder.join("first")).expect("made");
    let made = grid(&server, "ada", "datastore create cats").ok();
    assert!(
        made.contains("cats:1 is available: 3 file(s), 6 B"),
        "{made}"
    );
    std::fs::write(folder.join("train/3.txt"), "three").expect("written");
    std::fs::remove_file(folder.join("grün")).expect("removed");
    let made = grid(&server, "ada", "-o json datastore create cats").json();
    assert_eq!(made["datastore"]["version"], 2);
    assert_eq!(made["datastore"]["new_bytes"], 5, "{made}");
    let diff = grid(&server, "ada", "datastore diff cats:1 cats:2").ok();
    assert_eq!(
        diff,
        "- grün (0 B)\n+ train/3.txt (5 B)\n1 added, 1 removed, 0 changed\n"
    );
    // Renamed as a whole: nothing is new.
    std::fs::rename(&folder, server.work().join("felines")).expect("renamed");
    let made = grid(
        &server,
        "ada",
        "-o json datastore create felines --name cats",
    )
    .json();
    assert_eq!(made["datastore"]["new_bytes"], 0, "{made}");
    let listed = grid(&server, "ada", "-o json datastore files cats:1").json();
    let names: Vec<&str> = listed["files"]
        .as_array()
        .expect("files")
        .iter()
        .map(|file| file["path"].as_str().expect("a path"))
        .collect();
    assert_eq!(names, ["empty", "first", "grün", "train"]);
    grid(&server, "ada", "datastore download cats:1 --to back").ok();
    let back = server.work().join("back");
    assert!(back.join("empty").is_dir() && back.join("grün").is_file());
    let read = std::fs::read_to_string(back.join("first"));
    assert_eq!(read.ok().as_deref(), Some("one"));
    // A link that leads out is refused with its name, and no version is there of it.
    std::os::unix::fs::symlink("/etc/passwd", server.work().join("felines/out")).expect("made");
    let said = grid(&server, "ada", "datastore create felines --name cats").fails(1);
    assert!(said.contains("out -> /etc/passwd"), "{said}");
    server.doctor();
}

#[test]
fn a_teammate_mounts_what_only_its_creator_may_change() {
    let server = team();
    data(&server, "cats", &[("a.txt", "first version\n")]);
    grid(&server, "ada", "datastore create cats").ok();
    data(&server, "cats", &[("a.txt", "second version\n")]);
    grid(&server, "ada", "datastore create cats").ok();
    assert!(versions(&server, "bob", "").is_empty());
    let seen = versions(&server, "bob", "--global");
    assert_eq!(seen, ["ada:cats:1 available", "ada:cats:2 available"]);
    assert!(versions(&server, "eve", "--global").is_empty());
    let table = grid(&server, "bob", "datastore --global").ok();
    assert!(table.contains("Created by"), "{table}");
    let read = grid(&server, "bob", "datastore cat ada:cats:1 a.txt").ok();
    assert_eq!(read, "first version\n");

    for (run, flags, expected) in [
        ("newest", "--datastore_name ada:cats", "second version"),
        (
            "long",
            "--datastore_name ada:/datastores/cats/1",
            "first version",
        ),
        (
            "flagged",
            "--datastore_name ada:cats --datastore_version 1",
            "first version",
        ),
    ] {
        submit(&server, "bob", run, flags, "cats/a.txt change").ok();
        wait_for("the run to end", || {
            let shown = grid(&server, "bob", &format!("-o json status {run}")).json();
            (shown["runs"][0]["counts"]["succeeded"] == 1).then_some(())
        });
        let log = grid(&server, "bob", &format!("logs {run}-exp0")).ok();
        assert!(log.contains(expected) && !log.contains("CHANGED"), "{log}");
    }
    let shown = grid(&server, "bob", "status newest").ok();
    assert!(
        shown.contains("datastore ada:cats:2 at /datastores/cats"),
        "{shown}"
    );
    let users = grid(&server, "ada", "datastore used-by cats:1").ok();
    assert!(users.contains("long") && users.contains("bob"), "{users}");

    for line in [
        "datastore delete ada:cats:1",
        "datastore rename ada:cats dogs",
    ] {
        let said = grid(&server, "bob", line).fails(1);
        assert!(said.contains("datastore 'cats' belongs to ada"), "{said}");
    }
    // Who may not know of it is told the same as of what is not there.
    for verb in ["files", "download", "delete"] {
        let of = |name: &str| {
            let said = grid(&server, "eve", &format!("datastore {verb} ada:{name}:1")).fails(1);
            said.replace(name, "NAME")
        };
        assert_eq!(of("cats"), of("none"), "{verb}");
    }
    let flags = "--datastore_name ada:cats";
    let said = submit(&server, "eve", "spy", flags, "cats/a.txt").fails(1);
    assert!(said.contains("no datastore 'ada:cats'"), "{said}");
    server.doctor();
}

#[test]
fn what_is_mounted_is_not_deleted_and_what_is_deleted_comes_back() {
    let server = team();
    data(&server, "cats", &[("a.txt", "meow\n")]);
    grid(&server, "ada", "datastore create cats").ok();
    let flags = "--datastore_name ada:cats";
    submit(&server, "bob", "busy", flags, "cats/a.txt change wait").ok();
    wait_for("the run to read", || {
        let log = grid(&server, "bob", "logs busy-exp0");
        log.stdout.contains("meow").then_some(())
    });
    let said = grid(&server, "ada", "datastore delete --name cats --version 1").fails(1);
    assert!(said.contains("mounted by bob:busy"), "{said}");
    let table = grid(&server, "ada", "datastore").ok();
    assert!(table.contains("bob:busy"), "{table}");
    grid(&server, "bob", "stop run busy").ok();
    wait_for("it to be deleted", || {
        let deleted = grid(&server, "ada", "datastore delete --name cats --version 1");
        (deleted.code == 0).then_some(())
    });
    assert!(versions(&server, "ada", "").is_empty());
    assert_eq!(
        versions(&server, "ada", "--deleted"),
        ["ada:cats:1 available"]
    );
    let said = submit(
        &server,
        "bob",
        "late",
        "--datastore_name ada:cats:1",
        "cats/a.txt",
    )
    .fails(1);
    assert!(said.contains("is in the trash"), "{said}");
    let said = grid(&server, "bob", "retry busy").fails(1);
    assert!(said.contains("is in the trash"), "{said}");
    // Its number is never given again.
    let made = grid(&server, "ada", "datastore create cats").ok();
    assert!(made.contains("cats:2 is available"), "{made}");
    grid(&server, "ada", "datastore restore cats:1").ok();
    let read = grid(&server, "ada", "datastore cat cats:1 a.txt").ok();
    assert_eq!(read, "meow\n");
    grid(&server, "ada", "datastore rename cats dogs").ok();
    grid(&server, "ada", "datastore describe dogs:1 animals").ok();
    let listed = grid(&server, "ada", "-o json datastore --name dogs").json();
    assert_eq!(listed["datastores"][1]["description"], "animals");
    server.doctor();
}

/// More files than are sent in one part.
fn many(server: &Server) -> PathBuf {
    let folder = server.work().join("many");
    for part in 0..40 {
        let below = folder.join(format!("{part:03}"));
        std::fs::create_dir_all(&below).expect("made");
        for number in 0..400 {
            let text = format!("{part} {number}\n").repeat(20);
            std::fs::write(below.join(format!("{number}.txt")), text).expect("written");
        }
    }
    folder
}

fn begin(server: &Server) -> Child {
    let mut command = server.command("ada", &["datastore", "create", "many"]);
    let command = command.stdout(Stdio::null()).stderr(Stdio::null());
    command.spawn().expect("grid starts")
}

/// Waits until some of the upload is kept, but not all.
fn half_way(server: &Server) {
    wait_for("a part of the upload", || {
        let listed = grid(server, "ada", "-o json datastore --show-incomplete").json();
        let one = &listed["datastores"][0];
        let files = one["files"].as_u64().unwrap_or_default();
        (one["state"] == "uploading" && files > 0).then_some(())
    });
}

#[test]
fn a_killed_client_goes_on_where_it_was() {
    let server = team();
    let folder = many(&server);
    let mut client = begin(&server);
    half_way(&server);
    client.kill().expect("killed");
    client.wait().expect("over");
    assert!(versions(&server, "ada", "").is_empty());
    let said = grid(&server, "ada", "datastore resume").ok();
    assert!(
        said.contains("many:1 is available: 16000 file(s)"),
        "{said}"
    );
    grid(&server, "ada", "datastore download many --to back").ok();
    same_tree(&folder, &server.work().join("back"));
    // The same create goes on, too; what was finished begins anew.
    std::fs::write(folder.join("more"), "more").expect("written");
    let said = grid(&server, "ada", "datastore create many").ok();
    assert!(
        said.contains("many:2 is available: 16001 file(s)"),
        "{said}"
    );
    let said = grid(&server, "ada", "datastore resume").fails(1);
    assert!(said.contains("no interrupted upload"), "{said}");
    server.doctor();
}

#[test]
fn a_killed_server_has_kept_what_was_sent() {
    let mut server = team();
    let folder = many(&server);
    let mut client = begin(&server);
    half_way(&server);
    server.kill();
    client.kill().expect("killed");
    client.wait().expect("over");
    server.up();
    let said = grid(&server, "ada", "datastore create many");
    assert!(
        said.stderr.contains("Going on with many:1"),
        "{}",
        said.stderr
    );
    assert!(said.ok().contains("many:1 is available"));
    grid(&server, "ada", "datastore download many --to back").ok();
    same_tree(&folder, &server.work().join("back"));
    server.doctor();
}

#[test]
fn two_clients_at_once_make_two_whole_versions() {
    let server = team();
    many(&server);
    let mut clients = [begin(&server), begin(&server)];
    for client in &mut clients {
        assert!(client.wait().expect("over").success());
    }
    let seen = versions(&server, "ada", "");
    assert_eq!(seen, ["ada:many:1 available", "ada:many:2 available"]);
    let diff = grid(&server, "ada", "datastore diff many:1 many:2").ok();
    assert_eq!(diff, "0 added, 0 removed, 0 changed\n");
    server.doctor();
}

/// Serves one answer after the other; gives the address.
fn serve(body: Vec<u8>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    std::thread::spawn(move || {
        for connection in listener.incoming() {
            let Ok(mut connection) = connection else {
                return;
            };
            let mut request = [0; 4_096];
            let _ = connection.read(&mut request);
            let head = format!(
                "HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
                body.len()
            );
            let _ = connection.write_all(head.as_bytes());
            let _ = connection.write_all(&body);
        }
    });
    format!("http://{address}")
}

fn tar(folder: &Path, flags: &[&str]) -> Vec<u8> {
    let mut command = Command::new("tar");
    command.current_dir(folder).args(flags);
    let output = command.output().expect("tar starts");
    assert!(output.status.success());
    output.stdout
}

#[test]
fn archives_are_fetched_and_taken_apart_and_bad_ones_are_refused() {
    let server = team();
    let folder = data(
        &server,
        "cats",
        &[("a.txt", "meow\n"), ("b/c.txt", "purr\n")],
    );
    let good = serve(tar(&folder, &["-cz", "."]));
    let said = grid(
        &server,
        "ada",
        &format!("datastore create {good}/cats.tar.gz"),
    );
    assert!(said.ok().contains("cats:1 is available: 2 file(s)"));
    let read = grid(&server, "ada", "datastore cat cats b/c.txt").ok();
    assert_eq!(read, "purr\n");
    let flags = ["-cPz", "--transform", "s,^,../,", "a.txt"];
    let climbing = serve(tar(&folder, &flags));
    let line = format!("datastore create {climbing}/x.tgz --name bad");
    let said = grid(&server, "ada", &line).fails(1);
    assert!(said.contains("'../a.txt' (it climbs out)"), "{said}");
    std::os::unix::fs::symlink("/etc", folder.join("etc")).expect("made");
    let links = serve(tar(&folder, &["-c", "."]));
    let line = format!("datastore create {links}/x.tar --name bad");
    let said = grid(&server, "ada", &line).fails(1);
    assert!(said.contains("a link that leads out, to /etc"), "{said}");
    for (address, expected) in [
        ("http://169.254.169.254/latest/x.zip", "never fetched"),
        ("https://ada:secret@example.org/x.zip", "password"),
    ] {
        let line = format!("datastore create {address} --name bad");
        let said = grid(&server, "ada", &line).fails(1);
        assert!(said.contains(expected), "{address}: {said}");
    }
    // From standard input.
    let mut command = server.command("ada", &["datastore", "create", "-", "--name", "piped"]);
    command.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.spawn().expect("grid starts");
    let mut input = child.stdin.take().expect("a pipe");
    std::fs::remove_file(folder.join("etc")).expect("removed");
    input.write_all(&tar(&folder, &["-c", "."])).expect("sent");
    drop(input);
    let piped = Ran::of(&child.wait_with_output().expect("over")).ok();
    assert!(piped.contains("piped:1 is available: 2 file(s)"), "{piped}");
    server.doctor();
}

/// Shows what two datastores have, and where the second is.
const BOTH: &str = r#"#!/bin/bash
cat "$GRID_DATASTORES/cats/a.txt" "$GRID_DATASTORES/$1/b.txt"
stat -c 'takes %b blocks' "$GRID_DATASTORES/cats/hole.bin"
tail -c 4 "$GRID_DATASTORES/cats/hole.bin"
"#;

#[test]
fn a_configuration_file_lists_several_also_where_there_is_no_sandbox() {
    for flags in [&[][..], &["--sandbox", "off"][..]] {
        let server = Server::start(flags);
        let folder = data(&server, "cats", &[("a.txt", "meow\n")]);
        // Sixty-four mebibytes of which a block has bytes.
        let hole = std::fs::File::create(folder.join("hole.bin")).expect("made");
        std::os::unix::fs::FileExt::write_all_at(&hole, b"tail", (64 << 20) - 4).expect("written");
        grid(&server, "ada", "datastore create cats").ok();
        data(&server, "dogs", &[("b.txt", "bark\n")]);
        grid(&server, "ada", "datastore create dogs").ok();
        data(&server, "dogs", &[("b.txt", "howl\n")]);
        grid(&server, "ada", "datastore create dogs").ok();
        let config = "compute:\n  train:\n    localdir: true\n    \
             datastore_name: [cats, dogs]\n    datastore_version: [1, 1]\n    \
             datastore_mount_dir: [/datastores/cats, /datastores/pets]\n";
        std::fs::write(server.work().join("config.yml"), config).expect("written");
        server.script("both.sh", BOTH);
        let line = "run --name both --config config.yml both.sh pets";
        grid(&server, "ada", line).ok();
        for one in server.finished("both") {
            assert_eq!(one["status"], "succeeded", "{one}\n{}", server.runner_log());
        }
        let log = server.log_text("both-exp0");
        assert!(log.contains("meow\nbark\n"), "{log}");
        assert!(log.ends_with("tail"), "{log}");
        let blocks = log.split_once("takes ").and_then(|(_, rest)| {
            let number = rest.split(' ').next()?;
            number.parse::<u64>().ok()
        });
        assert!(blocks.is_some_and(|blocks| blocks < 2_048), "{log}");
        let shown = grid(&server, "ada", "status both").ok();
        assert!(
            shown.contains("datastore ada:dogs:1 at /datastores/pets"),
            "{shown}"
        );
        server.doctor();
    }
}
