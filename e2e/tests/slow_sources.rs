//! Buckets and web servers that stall: they take a request and never answer, answer half and
//! fall silent, say that they are busy, or break off.  Nobody waits for them without being
//! told, and what they did not send whole is never taken for whole.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use grid_e2e::common::{large, same_tree};
use grid_e2e::line::{Line, Mode};
use grid_e2e::s3::{Bucket, KEY, NAME, SECRET};
use grid_e2e::{Ran, Server, moment, now, wait_for, wait_up_to};

/// How often it is looked what a client says.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// How long a story waits for what the server finds out within its own limits.
const PATIENCE: Duration = Duration::from_secs(150);

fn grid(server: &Server, line: &str) -> Ran {
    let words: Vec<&str> = line.split(' ').collect();
    server.grid("ada", &words)
}

/// A client that waits, and what it says meanwhile.
fn begin(server: &Server, line: &str) -> (Child, std::path::PathBuf) {
    let words: Vec<&str> = line.split(' ').collect();
    let said = server
        .work()
        .join(format!("said-{}", words.join("-").replace('/', "_")));
    let file = std::fs::File::create(&said).expect("a file");
    let mut command = server.command("ada", &words);
    let command = command.stdout(Stdio::null()).stderr(file);
    (command.spawn().expect("grid starts"), said)
}

fn says(what: &str, file: &Path, expected: &str) {
    let deadline = now() + PATIENCE;
    loop {
        let said = std::fs::read_to_string(file).unwrap_or_default();
        if said.contains(expected) {
            return;
        }
        assert!(now() < deadline, "{what} does not say '{expected}': {said}");
        moment(LOOK_EVERY);
    }
}

/// Waits for a client to end, which has to go well.
fn ends(mut client: Child, said: &Path) {
    let status = wait_up_to(PATIENCE, "the client to end", || {
        client.try_wait().expect("a child")
    });
    let said = std::fs::read_to_string(said).unwrap_or_default();
    assert!(status.success(), "{said}");
}

/// A server, and a bucket at the end of a line.
fn world() -> (Server, Bucket, Line) {
    let server = Server::start_with(&[], &[("GRID_SERVER_FETCH_PRIVATE", "true")]);
    let bucket = Bucket::start(&std::env::temp_dir());
    let line = Line::to(&bucket.url);
    bucket.put(&[("cats/a.txt", b"meow"), ("cats/train/large.bin", &large())]);
    std::fs::write(server.work().join("secret"), SECRET).expect("written");
    let at = line.url();
    let made = format!(
        "credential create --name lab --access-key-id {KEY} --secret-file secret --endpoint {at}"
    );
    grid(&server, &made).ok();
    (server, bucket, line)
}

const CREATE: &str = "datastore create s3://data/cats/ --credential lab";

#[test]
fn a_bucket_that_stalls_is_told_of_and_copied_when_it_answers() {
    let (server, bucket, line) = world();
    // Before there is a version: within the time that a client waits.
    for (mode, expected) in [
        (Mode::Silent(0), "cannot be read: "),
        (Mode::Busy, "cannot be read: "),
        (Mode::Breaks(0), "cannot be read: "),
    ] {
        line.becomes(mode);
        let said = grid(&server, CREATE).fails(1);
        assert!(
            said.contains("s3://data/cats/") && said.contains(expected),
            "{mode:?}: {said}"
        );
    }
    line.becomes(Mode::Through);
    assert!(grid(&server, "-o json datastore").json()["datastores"] == serde_json::json!([]));
    // In the middle.
    for (number, mode) in [(1, Mode::Silent(900_000)), (2, Mode::Breaks(900_000))] {
        line.becomes(Mode::Paced(300));
        let (client, said) = begin(&server, &format!("{CREATE} --name cats-{number}"));
        wait_for("the large one to come", || {
            let shown = grid(&server, "-o json datastore --show-incomplete").json();
            let came = shown["datastores"][0]["progress_bytes"].as_u64();
            (came.unwrap_or(0) > 0).then_some(())
        });
        line.becomes(mode);
        says("the client", &said, "waits: ");
        // Whichever of them was under way.
        says("the client", &said, "'cats/");
        line.becomes(Mode::Through);
        ends(client, &said);
        grid(
            &server,
            &format!("datastore download cats-{number} --to back-{number}"),
        )
        .ok();
        same_tree(
            &bucket.path("cats"),
            &server.work().join(format!("back-{number}")),
        );
    }
    server.doctor();
}

#[test]
fn what_is_left_in_a_bucket_that_stalls_is_read_whole_or_refused_in_words() {
    let (server, bucket, line) = world();
    server.script(
        "read.sh",
        "#!/bin/bash\ncat \"$GRID_DATASTORES\"/cats/*/* | wc -c\n",
    );
    grid(&server, &format!("{CREATE} --no-copy")).ok();
    for mode in [
        Mode::Silent(0),
        Mode::Busy,
        Mode::Breaks(0),
        Mode::Silent(900_000),
    ] {
        line.becomes(mode);
        let cat = ["datastore", "cat", "cats", "train/large.bin"];
        let ran = server.grid("ada", &cat);
        let said = ran.fails(1);
        assert!(
            said.contains("s3://data/cats/") || said.contains("broke off"),
            "{mode:?}: {said}"
        );
    }
    // A machine that mounts it waits, says for what, and goes on by itself.
    line.becomes(Mode::Silent(900_000));
    server.run("mounts", &["--datastore_name", "cats", "--", "read.sh"]);
    wait_up_to(PATIENCE, "the run to say what it waits for", || {
        let shown = grid(&server, "-o json status mounts").json().to_string();
        let log = server.runner_log();
        (shown.contains("large.bin") || log.contains("large.bin")).then_some(())
    });
    line.becomes(Mode::Through);
    let ended = wait_up_to(PATIENCE, "the run to end", || {
        let all = server.experiments("mounts");
        let status = all[0]["status"].as_str().unwrap_or_default().to_owned();
        matches!(status.as_str(), "succeeded" | "failed").then_some(all)
    });
    if ended[0]["status"] == "failed" {
        // It was tried as often as it is: it says why, and another goes on.
        let shown = grid(&server, "status mounts").ok();
        assert!(
            shown.contains("s3://data/cats/") || shown.contains("large.bin"),
            "{shown}"
        );
        server.run("again", &["--datastore_name", "cats", "--", "read.sh"]);
        server.reaches("again-exp0", "succeeded");
    }
    grid(&server, "datastore download cats --to back").ok();
    same_tree(&bucket.path("cats"), &server.work().join("back"));
    server.doctor();
}

#[test]
fn blobs_in_a_bucket_that_stalls_are_read_whole_or_refused_in_words() {
    let bucket = Bucket::start(&std::env::temp_dir());
    let line = Line::to(&bucket.url);
    let at = line.url();
    let keys = [
        ("AWS_ACCESS_KEY_ID", KEY),
        ("AWS_SECRET_ACCESS_KEY", SECRET),
        ("AWS_ENDPOINT_URL", at.as_str()),
    ];
    let address = format!("s3://{NAME}/grid");
    let mut server = Server::start_with(&["--blobs", &address], &keys);
    std::fs::create_dir_all(server.work().join("cats")).expect("a folder");
    std::fs::write(server.work().join("cats/large.bin"), large()).expect("written");
    grid(&server, "datastore create cats").ok();
    // What is known of the bucket here is gone, so it has to be read.
    server.kill();
    std::fs::remove_dir_all(server.data().join("blobs")).expect("removed");
    server.up();
    for mode in [Mode::Silent(0), Mode::Busy, Mode::Silent(500_000)] {
        line.becomes(mode);
        let said = server
            .grid("ada", &["datastore", "cat", "cats", "large.bin"])
            .fails(1);
        assert!(said.contains(&address), "{mode:?}: {said}");
    }
    // Who stores is told, too, and goes on where it was.
    line.becomes(Mode::Silent(0));
    let mut other = large();
    other.reverse();
    std::fs::write(server.work().join("cats/large.bin"), other).expect("written");
    let (client, said) = begin(&server, "datastore create cats");
    wait_up_to(PATIENCE, "the server to say what is wrong", || {
        server.log().contains(&address).then_some(())
    });
    line.becomes(Mode::Through);
    ends(client, &said);
    grid(&server, "datastore download cats --to back").ok();
    same_tree(&server.work().join("cats"), &server.work().join("back"));
    server.doctor();
}

/// A web server over a folder.
struct Web(Child);

impl Drop for Web {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn an_address_that_falls_silent_is_told_of_and_fetched_when_it_answers() {
    let server = Server::start_with(&[], &[("GRID_SERVER_FETCH_PRIVATE", "true")]);
    let tree = server.work().join("cats");
    std::fs::create_dir_all(&tree).expect("a folder");
    std::fs::write(tree.join("large.bin"), large()).expect("written");
    let mut command = Command::new("tar");
    let ran = command
        .current_dir(server.work())
        .args(["cf", "cats.tar", "-C", "cats", "."]);
    Ran::of(&ran.output().expect("tar starts")).ok();
    let mut command = Command::new("python3");
    command.args(["-u", "-m", "http.server", "0", "--bind", "127.0.0.1", "-d"]);
    let command = command.arg(server.work()).stderr(Stdio::null());
    let mut web = Web(command.stdout(Stdio::piped()).spawn().expect("it starts"));
    let mut first = String::new();
    let said = web.0.stdout.take().expect("a pipe");
    BufReader::new(said).read_line(&mut first).expect("a line");
    let port = first.split(' ').skip_while(|word| *word != "port").nth(1);
    let line = Line::to(&format!("http://127.0.0.1:{}", port.expect("a port")));
    line.becomes(Mode::Silent(500_000));
    let at = line.url();
    let (client, said) = begin(
        &server,
        &format!("datastore create {at}/cats.tar --name web"),
    );
    says("the client", &said, "nothing of web:1 came for 15 seconds");
    line.becomes(Mode::Breaks(500_000));
    says("the client", &said, "waits: the archive broke off");
    line.becomes(Mode::Busy);
    says("the client", &said, "the address answered 503");
    line.becomes(Mode::Through);
    ends(client, &said);
    grid(&server, "datastore download web --to back").ok();
    same_tree(&tree, &server.work().join("back"));
    server.doctor();
}
