//! S3 as people use it: the unmodified programs, in an environment of their own, against the
//! door of a server.
//!
//! What they do is told in `s3/stories.py`: one story for each test, which fails when anything
//! is not as it says.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Command, Stdio};

use grid_e2e::s3_clients::programs;
use grid_e2e::{Ran, Server, wait_for};
use serde_json::Value;

/// A server that speaks S3.
fn server() -> Server {
    Server::start(&["--s3-listen", "127.0.0.1:0"])
}

/// A key of somebody, which signs.
struct Key {
    id: String,
    secret: String,
    endpoint: String,
}

impl Key {
    fn of(server: &Server, who: &str, name: &str, more: &[&str]) -> Self {
        let mut arguments = vec!["user", "keys", "create", name, "--s3", "-o", "json"];
        arguments.extend(more);
        let made = server.grid(who, &arguments).json();
        let word = |name: &str| made["s3"][name].as_str().expect("text").to_owned();
        Self {
            id: word("access_key_id"),
            secret: word("secret_access_key"),
            endpoint: word("endpoint"),
        }
    }

    fn sign(&self, command: &mut Command, folder: &Path) {
        command
            .current_dir(folder)
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("HOME", folder)
            .env("AWS_ACCESS_KEY_ID", &self.id)
            .env("AWS_SECRET_ACCESS_KEY", &self.secret)
            .env("AWS_ENDPOINT_URL", &self.endpoint)
            .env("AWS_DEFAULT_REGION", "us-east-1")
            .env("AWS_EC2_METADATA_DISABLED", "true")
            .stdin(Stdio::null());
    }
}

/// Tells a story with a key; `more` is what it needs to know besides.
fn tell(server: &Server, key: &Key, story: &str, more: &[(&str, &str)]) -> String {
    let folder = server.folder.path().join("s3").join(story);
    std::fs::create_dir_all(&folder).expect("a folder");
    let stories = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/s3/stories.py");
    let mut command = Command::new(programs().join("bin/python"));
    key.sign(&mut command, &folder);
    command.arg(stories).arg(story);
    command.env("AWS", programs().join("bin/aws"));
    for (name, value) in more {
        command.env(name, value);
    }
    Ran::of(&command.output().expect("python")).ok()
}

/// A datastore `cats` of ada's in the team `lab`, where bob is, too.
fn cats(server: &Server) {
    server.person("bob");
    std::fs::create_dir_all(server.work().join("cats/train")).expect("a folder");
    server.grid("ada", &["team", "create", "lab"]).ok();
    server.grid("ada", &["team", "invite", "lab", "bob"]).ok();
    server.grid("bob", &["team", "join", "lab"]).ok();
    for (name, text) in [
        ("cats/t.csv", "a,b\n1,2\n3,4\n"),
        ("cats/train/1.txt", "one"),
        ("cats/train/2.txt", "two"),
        ("cats/a b+ü.txt", "odd"),
    ] {
        server.script(name, text);
    }
    let create = ["datastore", "create", "cats", "--team", "lab"];
    server.grid("ada", &create).ok();
}

#[test]
fn what_a_team_has_is_read_by_every_program() {
    let server = server();
    cats(&server);
    server.script("left.py", "open('model.txt', 'w').write('weights')\n");
    server.run("bert", &["--team", "lab", "left.py"]);
    server.reaches("bert-exp0", "succeeded");
    let key = Key::of(&server, "bob", "notebook", &["--scope", "read"]);
    tell(&server, &key, "read", &[]);
    tell(&server, &key, "aws_read", &[]);
}

#[test]
fn a_version_is_written_committed_and_mounted() {
    let server = server();
    cats(&server);
    let key = Key::of(&server, "ada", "laptop", &[]);
    tell(&server, &key, "write", &[]);
    tell(&server, &key, "aws_write", &[]);
    let committed = server.grid("ada", &["datastore", "commit", "dogs"]).ok();
    assert!(committed.contains("dogs:2"), "{committed}");
    tell(&server, &key, "committed", &[]);
    server.script(
        "look.py",
        "import os\nprint(sorted(os.listdir('/datastores/dogs')))\n",
    );
    let mounted = ["--team", "lab", "--datastore_name", "dogs:2"];
    server.run("look", &[&mounted[..], &["look.py"]].concat());
    server.reaches("look-exp0", "succeeded");
    let log = server.log_text("look-exp0");
    assert!(log.contains("['a.txt', 'sub']"), "{log}");
    let again = server
        .grid("ada", &["datastore", "commit", "dogs"])
        .fails(1);
    assert!(again.contains("nothing was written"), "{again}");
    server.doctor();
}

#[test]
fn what_is_stored_is_copied_from_key_to_key() {
    let server = server();
    cats(&server);
    server.script("left.py", "open('model.txt', 'w').write('weights')\n");
    server.run("bert", &["--team", "lab", "left.py"]);
    server.reaches("bert-exp0", "succeeded");
    let key = Key::of(&server, "ada", "laptop", &[]);
    tell(&server, &key, "copies", &[]);
    server.doctor();
}

#[test]
fn folders_without_files_links_and_odd_names() {
    let server = server();
    cats(&server);
    let tree = server.work().join("tree");
    for folder in ["a-b", "a", "deep/one"] {
        std::fs::create_dir_all(tree.join(folder)).expect("a folder");
    }
    for name in ["a-b.txt", "a.txt", "deep/two.txt", "file"] {
        server.script(&format!("tree/{name}"), "file");
    }
    for (name, target) in [
        ("link", "file"),
        ("deep/up", "../link"),
        ("around", "deep"),
        ("nowhere", "gone"),
        ("loop", "loop"),
    ] {
        std::os::unix::fs::symlink(target, tree.join(name)).expect("a link");
    }
    let create = ["datastore", "create", "tree", "--team", "lab"];
    server.grid("ada", &create).ok();
    let key = Key::of(&server, "ada", "laptop", &[]);
    for story in ["folders", "aws_folders", "odd"] {
        tell(&server, &key, story, &[]);
    }
    let woods = server.grid("ada", &["datastore", "files", "woods:1"]).ok();
    assert!(woods.contains("empty"), "{woods}");
    server.doctor();
}

#[test]
fn who_may_not_know_is_told_that_there_is_nothing() {
    let server = server();
    cats(&server);
    server.person("eve");
    let key = Key::of(&server, "ada", "laptop", &[]);
    let link = tell(&server, &key, "links", &[]);
    let eve = Key::of(&server, "eve", "evil", &[]);
    tell(&server, &eve, "outsider", &[]);
    let bob = Key::of(&server, "bob", "notebook", &[]);
    tell(&server, &bob, "teammate", &[]);
    let narrow = Key::of(&server, "ada", "narrow", &["--scope", "read"]);
    tell(&server, &narrow, "narrow", &[]);
    server.grid("ada", &["team", "remove", "lab", "bob"]).ok();
    tell(&server, &bob, "outsider", &[]);
    // What was signed with a key that is revoked opens nothing any more, a link neither.
    server
        .grid("ada", &["user", "keys", "revoke", "laptop"])
        .ok();
    tell(&server, &key, "revoked", &[("LINK", link.trim())]);
    let audit = server
        .grid("ada", &["team", "audit", "lab", "-o", "json"])
        .json();
    let events = audit["events"].as_array().expect("events");
    let refused = |event: &&Value| event["result"] == "refused" && event["actor"] == "bob";
    assert!(events.iter().any(|event| refused(&event)), "{audit}");
}

/// A file on its way to a link, of which only the beginning is sent once somebody takes it.
struct Slow {
    stream: TcpStream,
    is_taken: bool,
}

impl Slow {
    fn begin(link: &str) -> Self {
        let (host, path) = link
            .strip_prefix("http://")
            .and_then(|rest| rest.split_once('/'))
            .expect("a link");
        let mut stream = TcpStream::connect(host).expect("a connection");
        let head = format!(
            "PUT /{path} HTTP/1.1\r\nHost: {host}\r\nContent-Length: 1000000\r\n\
             Expect: 100-continue\r\n\r\n"
        );
        stream.write_all(head.as_bytes()).expect("sent");
        stream.set_nonblocking(true).expect("set");
        let is_taken = false;
        Self { stream, is_taken }
    }

    /// Whether it has been told to go on, and then does, a little.
    fn is_taken(&mut self) -> bool {
        let mut said = [0; 1_024];
        if let Ok(length) = self.stream.read(&mut said) {
            let said = String::from_utf8_lossy(&said[..length]);
            assert!(said.starts_with("HTTP/1.1 100 "), "{said}");
            self.stream.write_all(b"and then").expect("sent");
            self.is_taken = true;
        }
        self.is_taken
    }
}

/// What one user alone is received of at a time.
const ALONE_MAX: usize = 25;

#[test]
fn who_sends_sixty_files_slowly_keeps_nobody_waiting() {
    let server = server();
    cats(&server);
    let ada = Key::of(&server, "ada", "laptop", &[]);
    let bob = Key::of(&server, "bob", "notebook", &[]);
    let links = tell(&server, &ada, "slow_links", &[]);
    let mut slow: Vec<Slow> = links.lines().map(Slow::begin).collect();
    assert_eq!(slow.len(), 60);
    let mut taken = || {
        slow.iter_mut()
            .filter_map(|one| one.is_taken().then_some(()))
            .count()
    };
    wait_for("as many as may to be taken", || {
        (taken() >= ALONE_MAX).then_some(())
    });
    // Others go through, by whichever way they come.
    tell(&server, &bob, "beside", &[]);
    std::fs::write(server.work().join("large.bin"), vec![7; 5 << 20]).expect("written");
    let create = ["datastore", "create", "large.bin", "--name", "mice"];
    server.grid("bob", &create).ok();
    let mut tar = server.command("bob", &["datastore", "create", "-", "--name", "rats"]);
    let archive = Command::new("tar")
        .arg("c")
        .arg("-C")
        .arg(server.work())
        .arg("cats")
        .output();
    let archive = archive.expect("tar starts").stdout;
    let mut child = tar.stdin(Stdio::piped()).spawn().expect("grid starts");
    let mut input = child.stdin.take().expect("a pipe");
    input.write_all(&archive).expect("sent");
    drop(input);
    assert!(child.wait().expect("over").success());
    // Of the sixty no more were taken meanwhile than one may send; who ends lets the next in.
    assert_eq!(taken(), ALONE_MAX);
    slow.retain(|one| !one.is_taken);
    assert_eq!(slow.len(), 60 - ALONE_MAX);
    wait_for("the next to be taken", || {
        let taken = slow
            .iter_mut()
            .filter_map(|one| one.is_taken().then_some(()));
        (taken.count() == ALONE_MAX).then_some(())
    });
    drop(slow);
    server.doctor();
}

#[test]
fn rclone_copies_both_ways() {
    let server = server();
    cats(&server);
    let key = Key::of(&server, "ada", "laptop", &[]);
    let folder = server.folder.path().join("rclone");
    std::fs::create_dir_all(&folder).expect("a folder");
    let asked = |arguments: &[&str]| {
        let mut command = Command::new("rclone");
        key.sign(&mut command, &folder);
        for (name, value) in [
            ("RCLONE_CONFIG_GRID_TYPE", "s3"),
            ("RCLONE_CONFIG_GRID_PROVIDER", "Other"),
            ("RCLONE_CONFIG_GRID_ENV_AUTH", "true"),
            ("RCLONE_CONFIG_GRID_ENDPOINT", &key.endpoint),
        ] {
            command.env(name, value);
        }
        Ran::of(&command.args(arguments).output().expect("rclone"))
    };
    let rclone = |arguments: &[&str]| asked(arguments).ok();
    let rclone_says = |arguments: &[&str]| {
        let ran = asked(arguments);
        assert_eq!(ran.code, 0, "{}", ran.stderr);
        ran.stderr
    };
    rclone(&["copy", "grid:lab/datastores/ada/cats/1", "down"]);
    let text = std::fs::read_to_string(folder.join("down/a b+ü.txt"));
    assert_eq!(text.expect("copied"), "odd");
    rclone(&["copy", "down", "grid:lab/datastores/ada/birds/next"]);
    let listed = rclone(&[
        "lsf",
        "-R",
        "--files-only",
        "grid:lab/datastores/ada/birds/next",
    ]);
    assert_eq!(listed, "a b+ü.txt\nt.csv\ntrain/1.txt\ntrain/2.txt\n");
    std::fs::write(folder.join("empty"), "").expect("written");
    rclone(&[
        "copyto",
        "empty",
        "grid:lab/datastores/ada/birds/next/.commit",
    ]);
    let listed = rclone(&[
        "lsf",
        "-R",
        "--files-only",
        "grid:lab/datastores/ada/birds/1",
    ]);
    assert_eq!(listed, "a b+ü.txt\nt.csv\ntrain/1.txt\ntrain/2.txt\n");
    // From key to key, and nothing twice.
    let (from, to) = (
        "grid:lab/datastores/ada/birds/1",
        "grid:lab/datastores/ada/crows/next",
    );
    let copied = rclone_says(&["copy", "-v", from, to]);
    assert!(copied.contains("server-side copy"), "{copied}");
    for (from, to) in [(from, to), ("down", from), ("down", to), (to, "down")] {
        let same = rclone_says(&["check", "-v", from, to]);
        assert!(same.contains("0 differences found"), "{same}");
        let again = rclone_says(&["copy", "-v", from, to]);
        assert!(
            again.contains("nothing to transfer"),
            "{from} {to}: {again}"
        );
    }
    rclone(&["moveto", &format!("{to}/t.csv"), &format!("{to}/moved.csv")]);
    let listed = rclone(&["lsf", "-R", "--files-only", to]);
    assert_eq!(listed, "a b+ü.txt\nmoved.csv\ntrain/1.txt\ntrain/2.txt\n");
}
