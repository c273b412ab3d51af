//! Datastores by the original client: made from folders, files and addresses, cut off and
//! resumed, mounted by teammates, deleted.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use grid_e2e::original::{NEWEST, Person, Story, screen};
use grid_e2e::{Ran, Server, wait_for};
use serde_json::Value;

use crate::{settled, settled_of, two_teams, two_teams_with};

/// A script that shows what is mounted.
const READ: &str = "import os, pathlib, sys
for path in sorted(pathlib.Path(sys.argv[1]).rglob('*')):
    if path.is_file():
        print(path.relative_to(sys.argv[1]), path.stat().st_size)
try:
    (pathlib.Path(sys.argv[1]) / 'a.txt').write_text('changed')
    print('IT WAS CHANGED')
except OSError as error:
    print('kept')
";

/// Parts so small that files of a test have several of them.
const SMALL_PARTS: (&str, &str) = ("GRID_DATASTORE_MAX_BYTES_PER_FILE_PART_UPLOAD", "1048576");

/// Bytes that are the same each time, and hard to pack.
fn bytes(seed: u32, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(2_654_435_761).max(1);
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        state.to_le_bytes()
    };
    (0..length.div_ceil(4))
        .flat_map(|_| next())
        .take(length)
        .collect()
}

/// A folder of theirs with what data sets have in them.
fn pets(person: &Person<'_>) -> PathBuf {
    person.file("pets/a.txt", "meow\n");
    person.file("pets/empty", "");
    person.file("pets/deep/er/größe.txt", "purr\n");
    person.file("pets/big.bin", bytes(1, 3_500_000));
    std::fs::create_dir_all(person.work().join("pets/nothing")).expect("a folder");
    person.work().join("pets")
}

/// Runs a line with these in the environment.
fn types_with(person: &Person<'_>, environment: &[(&str, &str)], line: &str) -> Ran {
    let words: Vec<&str> = line.split(' ').collect();
    let mut command = person.command(&words);
    command.envs(environment.iter().copied());
    Ran::of(&command.output().expect("the client starts"))
}

/// What a version holds, by our own program.
fn back(server: &Server, who: &str, version: &str) -> PathBuf {
    let folder = server.folder.path().join(format!("back-{version}"));
    let to = folder.display().to_string();
    let words = ["datastore", "download", version, "--to", &to];
    server.grid(who, &words).ok();
    folder
}

#[track_caller]
fn same(one: &Path, other: &Path) {
    let output = Command::new("diff")
        .args(["-r", "--exclude=nothing"])
        .args([one, other])
        .output()
        .expect("diff starts");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{said}");
}

/// The table of datastores, without its head: name, version, size and state.
fn table(person: &Person<'_>, line: &str) -> Vec<[String; 4]> {
    let rows = screen::rows(&person.types(line));
    let head = rows.first().cloned().unwrap_or_default();
    let column = |title: &str| head.iter().position(|cell| cell == title);
    let wanted = ["Name", "Version", "Size", "Status"].map(|title| column(title).expect(title));
    let cells = |row: &Vec<String>| wanted.map(|at| row[at].clone());
    rows.iter().skip(1).map(cells).collect()
}

fn row(cells: [&str; 4]) -> [String; 4] {
    cells.map(str::to_owned)
}

#[test]
fn folders_and_files_become_versions() {
    let server = two_teams();
    let ada = Person::signed_in(&server, "ada");
    let folder = pets(&ada);
    let said = types_with(&ada, &[SMALL_PARTS], "datastore create pets").ok();
    let said = screen::shown(&said);
    assert!(
        said.contains("pets") && said.contains("Creating Datastore"),
        "{said}"
    );
    same(&folder, &back(&server, "ada", "pets:1"));
    std::fs::write(folder.join("a.txt"), "hiss\n").expect("written");
    // With parts as they are delivered.
    ada.types("datastore create ./pets/");
    same(&folder, &back(&server, "ada", "pets:2"));
    ada.types("datastore create pets/a.txt");
    let read = server.grid("ada", &["datastore", "cat", "a:1", "a.txt"]);
    assert_eq!(read.ok(), "hiss\n");
    std::fs::create_dir(ada.work().join("hollow")).expect("a folder");
    ada.types("datastore create hollow");
    assert_eq!(
        table(&ada, "datastore"),
        [
            row(["a", "1", "1 MiB", "available"]),
            row(["hollow", "1", "0 MiB", "available"]),
            row(["pets", "1", "4 MiB", "available"]),
            row(["pets", "2", "4 MiB", "available"]),
        ]
    );
    // What both versions have is stored once.
    let json = server.grid("ada", &["-o", "json", "datastore"]).json();
    let of = |name: &str, version: u64| {
        let all = json["datastores"].as_array().expect("a list");
        let is = |one: &&Value| one["name"] == name && one["version"] == version;
        all.iter().find(is).expect("it")["new_bytes"].as_u64()
    };
    assert_eq!((of("pets", 1), of("pets", 2)), (Some(3_500_010), Some(5)));
    let mut story = Story::default();
    for line in [
        "datastore create s3://bucket/x/ --hpd --name fast",
        "datastore create pets --name 'Loud Name'",
        "datastore resume",
        "datastore delete --name pets --version 1",
        "datastore delete --name pets --version 1",
        "datastore",
    ] {
        story.types(&ada, line);
    }
    insta::assert_snapshot!("datastores", story.told());
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
            let length = body.len();
            let head =
                format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n");
            let _ = connection.write_all(head.as_bytes());
            let _ = connection.write_all(&body);
        }
    });
    format!("http://{address}")
}

fn tar(folder: &Path) -> Vec<u8> {
    let mut command = Command::new("tar");
    command.current_dir(folder).args(["-cz", "."]);
    let output = command.output().expect("tar starts");
    assert!(output.status.success());
    output.stdout
}

#[test]
fn an_address_is_fetched_and_taken_apart() {
    let server = two_teams_with(&[("GRID_SERVER_FETCH_PRIVATE", "true")]);
    let ada = Person::signed_in(&server, "ada");
    let folder = pets(&ada);
    let good = serve(tar(&folder));
    let said = ada.types(&format!("datastore create {good}/animals.tar.gz"));
    assert!(said.contains("animals"), "{said}");
    same(&folder, &back(&server, "ada", "animals:1"));
    let bad = serve(b"no archive".to_vec());
    ada.types(&format!("datastore create {bad}/x.zip --name broken"));
    assert_eq!(
        table(&ada, "datastore"),
        [
            row(["animals", "1", "4 MiB", "available"]),
            row(["broken", "1", "0 MiB", "failed"]),
        ]
    );
    ada.types("datastore delete --name broken --version 1");
    let refused = ada.grid(&["datastore", "create", "http://169.254.169.254/x.zip"]);
    let said = format!("{}{}", refused.stdout, refused.stderr);
    assert_eq!(refused.code, 1, "{said}");
    assert!(said.contains("never fetched"), "{said}");
    server.doctor();
}

#[test]
fn teammates_mount_and_outsiders_do_not() {
    let server = two_teams();
    let ada = Person::signed_in(&server, "ada");
    let bob = Person::signed_in(&server, "bob");
    let eve = Person::signed_in(&server, "eve");
    pets(&ada);
    ada.types("datastore create pets");
    ada.file("pets/a.txt", "hiss hiss\n");
    ada.types("datastore create pets");
    for person in [&ada, &bob, &eve] {
        person.file("code/read.py", READ);
    }
    let run = |person: &Person<'_>, line: &str| {
        let words: Vec<&str> = line.split(' ').collect();
        let mut command = person.command(&words);
        command.current_dir(person.work().join("code"));
        Ran::of(&command.output().expect("the client starts"))
    };
    let files =
        |size: u32| format!("a.txt {size}\nbig.bin 3500000\ndeep/er/größe.txt 5\nempty 0\nkept\n");
    let said = run(
        &ada,
        "run -l --name mine --datastore_name pets read.py /datastores/pets",
    )
    .ok();
    assert!(said.contains("datastore_version:       2"), "{said}");
    let line = "run -l --name theirs --datastore_name ada:pets --datastore_version 1 \
         --datastore_mount_dir /data/animals read.py /data/animals";
    run(&bob, line).ok();
    settled(&server, "mine");
    settled_of(&server, "bob", "theirs");
    assert_eq!(server.log_text("mine-exp0"), files(10).trim_end());
    let log = server.grid("bob", &["logs", "theirs-exp0"]).ok();
    for line in files(5).lines() {
        assert!(log.contains(line), "{line}: {log}");
    }
    for (who, line) in [
        (
            &eve,
            "run -l --name no --datastore_name ada:pets read.py /datastores/pets",
        ),
        (
            &bob,
            "run -l --name no --datastore_name pets read.py /datastores/pets",
        ),
        (
            &ada,
            "run -l --name no --datastore_name pets --datastore_version 9 read.py /x",
        ),
    ] {
        let refused = run(who, line);
        let said = format!("{}{}", refused.stdout, refused.stderr);
        assert_eq!(refused.code, 1, "{line}: {said}");
        assert!(said.contains("No ready-to-use datastore"), "{line}: {said}");
    }
    let mut story = Story::default();
    story.types(&bob, "datastore");
    story.types(&bob, "datastore --global");
    story.types(&bob, "datastore delete --name pets --version 1");
    story.types(&eve, "datastore --global");
    story.types(&ada, "datastore --global");
    insta::assert_snapshot!("shared_datastores", story.told());
    server.doctor();
}

/// Files enough for some batches, and for some time.
fn many(person: &Person<'_>) -> PathBuf {
    for n in 0..24 {
        person.file(&format!("many/{}/{n}.bin", n % 5), bytes(100 + n, 700_000));
    }
    person.work().join("many")
}

/// A few files at a time: the client remembers what is done after each batch.
const SMALL_BATCHES: [(&str, &str); 3] = [
    ("GRID_DATASTORE_MAX_FILES_PER_UPLOAD_BATCH", "3"),
    ("GRID_DATASTORE_UPLOAD_MAX_WORKER_THREADS", "1"),
    ("GRID_DATASTORE_MAX_BYTES_PER_FILE_PART_UPLOAD", "262144"),
];

/// Begins to send a folder and waits until the client has noted that some of it is there.
fn in_the_middle(person: &Person<'_>) -> std::process::Child {
    let mut command = person.command(&["datastore", "create", "many"]);
    command
        .envs(SMALL_BATCHES)
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let mut client = command.spawn().expect("the client starts");
    let folder = person.home().join(".grid/datastores");
    wait_for("a batch to be there", || {
        if let Ok(Some(status)) = client.try_wait() {
            panic!("it ended with {status} before it was cut off");
        }
        let mut files = std::fs::read_dir(&folder).ok()?;
        let text = std::fs::read_to_string(files.next()?.ok()?.path()).ok()?;
        text.contains("\"is_uploaded\":true").then_some(())
    });
    client
}

#[test]
fn an_upload_that_is_cut_off_goes_on() {
    let mut server = two_teams();
    let folder = {
        let ada = Person::signed_in(&server, "ada");
        let folder = many(&ada);
        // The client is killed.
        let mut client = in_the_middle(&ada);
        client.kill().expect("killed");
        client.wait().expect("over");
        assert_eq!(table(&ada, "datastore"), Vec::<[String; 4]>::new());
        let shown = ada.types("datastore --show-incomplete");
        assert!(shown.contains("many"), "{shown}");
        let said = types_with(&ada, &SMALL_BATCHES, "datastore resume").ok();
        assert!(said.contains("creating datastore from"), "{said}");
        same(&folder, &back(&server, "ada", "many:1"));
        let shown = ada.types("datastore --show-incomplete");
        assert!(!shown.contains("many"), "{shown}");
        folder
    };
    // The server is killed: the client ends, and goes on with the next one.
    let mut client = in_the_middle(&Person::signed_in(&server, "ada"));
    server.kill();
    let ended = client.wait().expect("over");
    assert!(!ended.success() || !server.log().is_empty());
    server.up();
    {
        let ada = Person::new(&server, "ada", NEWEST);
        // Asked whether to go on, somebody says yes.
        let mut command = ada.command(&["datastore", "create", "many"]);
        command.envs(SMALL_BATCHES).stdin(Stdio::piped());
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut client = command.spawn().expect("the client starts");
        let mut input = client.stdin.take().expect("a pipe");
        input.write_all(b"y\n").expect("said");
        drop(input);
        let ran = Ran::of(&client.wait_with_output().expect("over"));
        let said = format!("{}{}", ran.stdout, ran.stderr);
        assert!(said.contains("did not complete"), "{said}");
        same(&folder, &back(&server, "ada", "many:2"));
        // What was cut off and forgotten is nothing that anybody sees.
        let mut client = in_the_middle(&ada);
        client.kill().expect("killed");
        client.wait().expect("over");
        ada.types("datastore clearcache");
        assert_eq!(ada.grid(&["datastore", "resume"]).code, 1);
        assert_eq!(
            table(&ada, "datastore"),
            [
                row(["many", "1", "17 MiB", "available"]),
                row(["many", "2", "17 MiB", "available"]),
            ]
        );
    }
    server.doctor();
}

#[test]
fn a_notebook_makes_and_mounts_datastores() {
    let server = two_teams();
    let ada = Person::signed_in(&server, "ada");
    let folder = pets(&ada);
    ada.file("read.py", READ);
    let script = "
import time
from grid import *
store = Datastore(name='zoo', source='pets')
store.upload()
print()
print('made', store.name, store.version, store.status, store.size)
print([(d.name, d.version, d.status) for d in list_datastores()])
found = Datastore(name='zoo', version=1)
print('found', found.id == store.id, found.created_at == store.created_at)
run = Run(name='visit', run_command='read.py /datastores/zoo', localdir=True,
          dependency_file=None, datastore=found)
run.start()
until = time.time() + 60
while Run('visit').experiment_counts['succeeded'] < 1:
    assert time.time() < until
    time.sleep(0.1)
print('mounted', Run('visit').datastore.name, Run('visit').datastore_mount_dir)
found.delete()
print([(d.name, d.version) for d in list_datastores()])
";
    let said = ada.python(script).ok();
    let said = screen::shown(&said);
    for line in [
        "made zoo 1 available 4 MiB",
        "[('zoo', 1, 'available')]",
        "found True True",
        "mounted zoo /datastores/zoo",
        "[]",
    ] {
        assert!(
            said.lines().any(|other| other.trim() == line),
            "{line}: {said}"
        );
    }
    let log = server.log_text("visit-exp0");
    assert!(
        log.contains("deep/er/größe.txt 5") && log.contains("kept"),
        "{log}"
    );
    server.grid("ada", &["datastore", "restore", "zoo:1"]).ok();
    same(&folder, &back(&server, "ada", "zoo:1"));
    server.doctor();
}
