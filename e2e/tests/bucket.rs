//! Files are kept in a bucket: a server that dies, a machine that is gone, a line that is
//! cut.

use std::io;
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use grid_e2e::s3::{Bucket, KEY, NAME, SECRET};
use grid_e2e::{Server, wait_for};

const TRAIN: &str = r#"#!/usr/bin/env python3
import pathlib, sys
lr = sys.argv[-1]
pathlib.Path("small.txt").write_text(f"with {lr}\n")
pathlib.Path("weights.bin").write_bytes(bytes((i * 7 + len(lr)) % 251 for i in range(700_000)))
print("trained with", lr)
"#;

/// A way to a bucket that can be cut and mended.
struct Line {
    address: SocketAddr,
    is_cut: Arc<AtomicBool>,
    open: Arc<Mutex<Vec<TcpStream>>>,
}

impl Line {
    fn to(url: &str) -> Self {
        let to: SocketAddr = url
            .trim_start_matches("http://")
            .parse()
            .expect("an address");
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let line = Self {
            address: listener.local_addr().expect("an address"),
            is_cut: Arc::default(),
            open: Arc::default(),
        };
        let (is_cut, open) = (Arc::clone(&line.is_cut), Arc::clone(&line.open));
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if !is_cut.load(Ordering::SeqCst) {
                    // Who breaks off is noticed at the other end.
                    let _ = join(&stream, to, &open);
                }
            }
        });
        line
    }

    fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    fn cut(&self) {
        self.is_cut.store(true, Ordering::SeqCst);
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        for stream in open.drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    fn mend(&self) {
        self.is_cut.store(false, Ordering::SeqCst);
    }
}

fn join(here: &TcpStream, to: SocketAddr, open: &Mutex<Vec<TcpStream>>) -> io::Result<()> {
    let there = TcpStream::connect(to)?;
    let mut open = open.lock().unwrap_or_else(PoisonError::into_inner);
    open.extend([here.try_clone()?, there.try_clone()?]);
    for (mut from, mut to) in [
        (here.try_clone()?, there.try_clone()?),
        (there.try_clone()?, here.try_clone()?),
    ] {
        std::thread::spawn(move || {
            let _ = io::copy(&mut from, &mut to);
            let _ = to.shutdown(Shutdown::Both);
        });
    }
    Ok(())
}

fn keys(url: &str) -> [(&'static str, String); 3] {
    [
        ("AWS_ACCESS_KEY_ID", KEY.to_owned()),
        ("AWS_SECRET_ACCESS_KEY", SECRET.to_owned()),
        ("AWS_ENDPOINT_URL", url.to_owned()),
    ]
}

fn artifact(server: &Server, experiment: &str, to: &str) -> Vec<u8> {
    server
        .grid("ada", &["artifacts", experiment, "--download_dir", to])
        .ok();
    let mut folders = vec![server.work().join(to)];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).expect("a folder").flatten() {
            match entry.path() {
                path if path.is_dir() => folders.push(path),
                path if path.ends_with("weights.bin") => {
                    return std::fs::read(path).expect("read");
                }
                _ => {}
            }
        }
    }
    panic!("{experiment} left no weights")
}

fn is_succeeded(server: &Server, run: &str) -> usize {
    let experiments = server.finished(run);
    let succeeded = experiments.iter().filter(|e| e["status"] == "succeeded");
    let count = succeeded.count();
    assert_eq!(count, experiments.len(), "{experiments:?}");
    count
}

fn files(folder: &Path) -> usize {
    std::fs::read_dir(folder).map_or(0, Iterator::count)
}

/// A server whose files are in a bucket, at the end of a line that may be cut.
fn over_a_line(parent: &Path) -> (Bucket, Line, Server, String) {
    let bucket = Bucket::start(parent);
    let line = Line::to(&bucket.url);
    let variables = keys(&line.url());
    let environment = variables
        .each_ref()
        .map(|(name, value)| (*name, value.as_str()));
    let address = format!("s3://{NAME}/grid");
    let server = Server::start_with(&["--blobs", &address], &environment);
    (bucket, line, server, address)
}

#[test]
fn what_is_in_a_bucket_outlives_the_machine() {
    let parent = tempfile::tempdir().expect("a folder");
    let (bucket, _line, mut server, _) = over_a_line(parent.path());
    server.script("train.py", TRAIN);
    server.run("sweep", &["train.py", "--lr", "[0.1, 0.25, 0.125]"]);
    assert_eq!(is_succeeded(&server, "sweep"), 3);
    let before = artifact(&server, "sweep-exp1", "before");
    assert_eq!(before.len(), 700_000);
    assert!(files(&bucket.path("grid/packs")) > 0);
    let packs = server.data().join("blobs/packs");
    assert_eq!(files(&packs), 0, "nothing is kept in the data folder alone");

    // The server dies, and with it all that this machine knew of the bucket.
    server.kill();
    std::fs::remove_dir_all(server.data().join("blobs")).expect("removed");
    server.up();
    assert_eq!(artifact(&server, "sweep-exp1", "after"), before);
    server.doctor();
    let data = server.data();
    let data = data.to_str().expect("UTF-8");
    for flags in [&["--dry-run"][..], &[]] {
        let mut all = vec!["server", "collect", "--data", data];
        all.extend(flags);
        server.grid("ada", &all).ok();
    }
}

#[test]
fn a_line_to_a_bucket_may_be_cut() {
    let parent = tempfile::tempdir().expect("a folder");
    let (_bucket, line, server, address) = over_a_line(parent.path());

    // Who stores is told so.
    line.cut();
    server.script("other.py", &TRAIN.replace("trained", "learned"));
    let mut late = server.command("ada", &["run", "--localdir", "--name", "late", "other.py"]);
    let mut late = late
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .spawn()
        .expect("grid starts");
    wait_for("the server to say what is wrong", || {
        let log = server.log();
        (log.contains(&address) && log.contains("can be reached")).then_some(())
    });
    line.mend();
    let status = late.wait().expect("it ends");
    if !status.success() {
        server.run("late", &["other.py"]);
    }
    assert_eq!(is_succeeded(&server, "late"), 1);

    // What an experiment leaves while it is cut is sent when it is mended.
    let waiting = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = waiting.local_addr().expect("an address").port();
    let waits = format!("import socket\nsocket.create_connection(('127.0.0.1', {port})).recv(1)\n");
    server.script("slow.py", &format!("{TRAIN}{waits}"));
    server.run("slow", &["slow.py"]);
    waiting.set_nonblocking(true).expect("set");
    let (begun, _) = wait_for("the experiment to wait", || waiting.accept().ok());
    line.cut();
    let said = server.log().matches("can be reached").count();
    drop(begun);
    wait_for("its files to be refused", || {
        (server.log().matches("can be reached").count() > said).then_some(())
    });
    line.mend();
    assert_eq!(is_succeeded(&server, "slow"), 1);
    assert_eq!(artifact(&server, "slow-exp0", "slow").len(), 700_000);
    server.doctor();
    assert!(!server.log().contains(SECRET), "no key is in a log");
}

#[test]
fn a_bucket_that_cannot_be_used_stops_the_start() {
    let parent = tempfile::tempdir().expect("a folder");
    let bucket = Bucket::start(parent.path());
    let server = Server::start(&[]);
    let other = server.folder.path().join("other");
    let other = other.to_str().expect("UTF-8");
    let address = format!("s3://{NAME}/grid");
    let arguments = [
        "server",
        "--data",
        other,
        "--listen",
        "127.0.0.1:0",
        "--blobs",
        &address,
    ];
    let mut wrong = keys(&bucket.url);
    wrong[1].1 = "something-else".to_owned();
    let output = server
        .command("ada", &arguments)
        .envs(wrong)
        .output()
        .expect("grid starts");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success());
    assert!(
        said.contains(&address) && said.contains("check its credentials"),
        "{said}"
    );
    assert!(!said.contains("something-else"), "{said}");
}

#[test]
fn files_move_from_the_folder_into_a_bucket() {
    let parent = tempfile::tempdir().expect("a folder");
    let bucket = Bucket::start(parent.path());
    let mut server = Server::start(&[]);
    server.script("train.py", TRAIN);
    server.run("old", &["train.py", "--lr", "0.5"]);
    assert_eq!(is_succeeded(&server, "old"), 1);
    server.stop();
    let data = server.data();
    let data = data.to_str().expect("UTF-8");
    let address = format!("s3://{NAME}/moved");
    let with_keys = |arguments: &[&str]| {
        let mut command = server.command("ada", arguments);
        let output = command.envs(keys(&bucket.url)).output();
        grid_e2e::Ran::of(&output.expect("grid starts"))
    };
    let unmoved = with_keys(&["server", "doctor", "--data", data, "--blobs", &address]);
    assert!(
        unmoved.stderr.contains("grid server blobs move"),
        "{unmoved:?}"
    );
    let moved = with_keys(&[
        "server", "blobs", "move", "--data", data, "--blobs", &address,
    ]);
    assert!(moved.ok().contains("moved "));
    with_keys(&[
        "server", "doctor", "--deep", "--data", data, "--blobs", &address,
    ])
    .ok();
    let folder = with_keys(&["server", "doctor", "--data", data]);
    assert!(folder.stderr.contains(&address), "{folder:?}");
}
