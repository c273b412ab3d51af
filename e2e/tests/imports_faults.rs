//! Datastores that come from elsewhere while the server is killed at any moment: an archive
//! with an address, a bucket that is copied, one that is only listed, a pipe, and parts over
//! S3.  Each version is whole then, or is not there and says why; and nothing is left of what
//! was deleted.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use grid_e2e::common::Dice;
use grid_e2e::left::assert_nothing;
use grid_e2e::line::{Line, Mode};
use grid_e2e::s3::{Bucket, KEY, SECRET};
use grid_e2e::s3_clients::programs;
use grid_e2e::{Ran, Server, moment, now, wait_for, wait_up_to};
use serde_json::Value;

/// How long things are killed.
const KILLING: Duration = Duration::from_secs(40);

/// The longest moment before a kill, in milliseconds.
const MOMENT_MS: u64 = 1_600;

/// How fast sources are, in kibibytes in a second: so fast that one comes within a moment.
const PACE: u64 = 3 << 10;

/// How long what was left over may take in the end.
const PATIENCE: Duration = Duration::from_secs(180);

/// Writes a tree as parts over S3, each round the same names, and makes a version of it.
const OVER_S3: &str = r#"
import boto3, os, sys
from boto3.s3.transfer import TransferConfig
s3 = boto3.client("s3")
parts = TransferConfig(multipart_threshold=1 << 20, multipart_chunksize=5 << 20)
for folder, _, names in os.walk(sys.argv[1]):
    for name in names:
        path = os.path.join(folder, name)
        key = "datastores/ada/parts/next/" + os.path.relpath(path, sys.argv[1])
        s3.upload_file(path, "lab", key, Config=parts)
s3.put_object(Bucket="lab", Key="datastores/ada/parts/next/.commit")
"#;

/// Hands on what comes, about as fast.
const SLOWLY: &str = "import sys, time\nwhile piece := sys.stdin.buffer.read(1 << 16):\n    \
    sys.stdout.buffer.write(piece)\n    sys.stdout.buffer.flush()\n    time.sleep(0.02)\n";

/// How much later parts begin to come, in milliseconds: their program takes that to start.
const PARTS_LATER_MS: u64 = 900;

/// A web server over a folder.
struct Web(Child);

impl Web {
    /// Starts one; gives its address as well.
    fn start(folder: &Path) -> (Self, String) {
        let mut command = Command::new("python3");
        command.args(["-u", "-m", "http.server", "0", "--bind", "127.0.0.1"]);
        let command = command.arg("-d").arg(folder).stderr(Stdio::null());
        let mut child = command.stdout(Stdio::piped()).spawn().expect("it starts");
        let mut line = String::new();
        let said = child.stdout.take().expect("a pipe");
        BufReader::new(said).read_line(&mut line).expect("a line");
        let port = line.split(' ').skip_while(|word| *word != "port").nth(1);
        let url = format!("http://127.0.0.1:{}", port.expect("a port"));
        (Self(child), url)
    }
}

impl Drop for Web {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn grid(server: &Server, line: &str) -> Ran {
    let words: Vec<&str> = line.split(' ').collect();
    server.grid("ada", &words)
}

/// Everything that data comes from.
struct World {
    server: Server,
    bucket: Bucket,
    _web: Web,
    _to_bucket: Line,
    to_web: Line,
    /// The key that signs for our own door.
    key: (String, String),
    door: String,
    /// Which versions there were, by name and number, with their ids.
    seen: HashMap<(String, u64), String>,
    dice: Dice,
}

impl World {
    fn new() -> Self {
        // The door has to be where it was when the server is back.
        let door = {
            let free = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
            free.local_addr().expect("an address").to_string()
        };
        let environment = [("GRID_SERVER_FETCH_PRIVATE", "true")];
        let server = Server::start_with(&["--s3-listen", &door], &environment);
        let bucket = Bucket::start(&std::env::temp_dir());
        let sources = server.work().join("sources");
        std::fs::create_dir_all(&sources).expect("a folder");
        let (web, url) = Web::start(&sources);
        let (to_bucket, to_web) = (Line::to(&bucket.url), Line::to(&url));
        to_bucket.becomes(Mode::Paced(PACE));
        to_web.becomes(Mode::Paced(PACE));
        std::fs::write(server.work().join("secret"), SECRET).expect("written");
        grid(&server, "team create lab").ok();
        let at = to_bucket.url();
        let line = format!(
            "credential create --name keys --access-key-id {KEY} --secret-file secret --endpoint {at}"
        );
        grid(&server, &line).ok();
        let made = grid(&server, "user keys create door --s3 -o json").json();
        let word = |name: &str| made["s3"][name].as_str().expect("text").to_owned();
        Self {
            key: (word("access_key_id"), word("secret_access_key")),
            door: format!("http://{door}"),
            server,
            bucket,
            _web: web,
            _to_bucket: to_bucket,
            to_web,
            seen: HashMap::new(),
            dice: Dice(u64::from(std::process::id()) | 1 << 40),
        }
    }

    /// What a version of this round has, made again whenever it is asked for.
    fn tree(&self, round: u64) -> PathBuf {
        let tree = self.server.work().join("sources").join(round.to_string());
        if tree.exists() {
            return tree;
        }
        for number in 0..60_u64 {
            let part = tree.join(format!("part {:02}", number / 20));
            std::fs::create_dir_all(&part).expect("made");
            let changed = if number % 5 == round % 5 { round } else { 0 };
            let text = format!("{number} {changed}\n").repeat(30);
            std::fs::write(part.join(format!("{number}.txt")), text).expect("written");
        }
        let mut dice = Dice(round.wrapping_mul(0x9E37_79B9) | 1);
        let bytes: Vec<u8> = (0..6 << 20).map(|_| dice.below(256) as u8).collect();
        std::fs::write(tree.join("large.bin"), bytes).expect("written");
        std::fs::write(tree.join("empty"), "").expect("written");
        std::fs::write(tree.join("round"), round.to_string()).expect("written");
        tree
    }

    /// Begins to make a version of this round; gives the client.
    fn begin(&self, round: u64) -> Child {
        let tree = self.tree(round);
        let sources = tree.parent().expect("a folder");
        let shell = |script: &str| {
            let mut command = self.server.command("ada", &[]);
            let program = command.get_program().to_owned();
            let mut sh = Command::new("sh");
            let named: Vec<_> = command
                .get_envs()
                .map(|(name, value)| (name.to_owned(), value.map(ToOwned::to_owned)))
                .collect();
            sh.env_clear().current_dir(sources).args(["-c", script]);
            for (name, value) in named {
                sh.env(name, value.unwrap_or_default());
            }
            sh.env("GRID", program);
            command = sh;
            command.stdin(Stdio::null()).stdout(Stdio::null());
            command.stderr(Stdio::null()).spawn().expect("sh starts")
        };
        let (web, name) = (self.to_web.url(), round.to_string());
        match round % 5 {
            0 => shell(&format!(
                "tar czf {name}.tmp -C {name} . && mv {name}.tmp {name}.tgz && \
                 exec \"$GRID\" datastore create {web}/{name}.tgz --name web --team lab"
            )),
            1 | 2 => {
                let objects = self.bucket.path(&name);
                let mut copy = Command::new("cp");
                let ran = copy.arg("-a").arg(&tree).arg(&objects).output();
                Ran::of(&ran.expect("cp starts")).ok();
                let (called, more) = match round % 5 {
                    1 => ("copied", ""),
                    _ => ("listed", "--no-copy"),
                };
                shell(&format!(
                    "exec \"$GRID\" datastore create s3://data/{name}/ --credential keys \
                     --name {called} --team lab {more}"
                ))
            }
            3 => shell(&format!(
                "tar c -C {name} . | python3 -c '{SLOWLY}' | \
                 exec \"$GRID\" datastore create - --name piped --team lab"
            )),
            _ => {
                let mut command = Command::new(programs().join("bin/python"));
                command
                    .args(["-c", OVER_S3])
                    .arg(&tree)
                    .env_clear()
                    .env("PATH", std::env::var_os("PATH").unwrap_or_default())
                    .env("AWS_ACCESS_KEY_ID", &self.key.0)
                    .env("AWS_SECRET_ACCESS_KEY", &self.key.1)
                    .env("AWS_ENDPOINT_URL", &self.door)
                    .env("AWS_DEFAULT_REGION", "us-east-1")
                    .env("AWS_EC2_METADATA_DISABLED", "true");
                let command = command.stdin(Stdio::null()).stdout(Stdio::null());
                command.stderr(Stdio::null()).spawn().expect("it starts")
            }
        }
    }

    /// All versions, of which none has a number that another had.
    fn versions(&mut self) -> Vec<Value> {
        let listed = grid(&self.server, "-o json datastore --show-incomplete").json();
        let listed = listed["datastores"].as_array().cloned().unwrap_or_default();
        for one in &listed {
            let name = one["name"].as_str().expect("a name").to_owned();
            let number = one["version"].as_u64().expect("a number");
            let id = one["id"].as_str().expect("an id");
            let before = self.seen.insert((name, number), id.to_owned());
            assert!(before.is_none_or(|before| before == id), "{one}");
        }
        listed
    }

    /// Begins versions and kills what makes them, for a while; gives how many it began.
    fn kill_for(&mut self, time: Duration) -> u64 {
        let (deadline, mut round) = (now() + time, 0);
        while now() < deadline {
            round += 1;
            let mut clients = vec![self.begin(round)];
            // Two at a time, of different kinds.
            round += 1;
            clients.push(self.begin(round));
            let is_late = (round - 1..=round).any(|round| round % 5 == 4);
            let later = if is_late { PARTS_LATER_MS } else { 0 };
            moment(Duration::from_millis(self.dice.below(MOMENT_MS) + later));
            let which = self.dice.below(4);
            if which != 1 {
                self.server.kill();
            }
            if which != 0 {
                clients[0].kill().expect("killed");
            }
            if which != 1 {
                self.server.up();
            }
            for client in &mut clients {
                // They would ask where the server was: it is elsewhere now.
                client.kill().expect("killed");
                client.wait().expect("over");
            }
            self.versions();
        }
        round
    }

    /// Waits until nothing is under way but what somebody has to send; gives all versions.
    fn settled(&mut self) -> Vec<Value> {
        wait_up_to(PATIENCE, "everything to be made", || {
            let versions = self.versions();
            let open = |one: &Value| {
                one["state"] == "processing"
                    || one["state"] == "uploading" && one["source_kind"] == "stream"
            };
            (!versions.iter().any(open)).then_some(versions)
        })
    }

    /// Fetches a version; says of which round it is, and that it is as it was then.
    fn check(&mut self, called: &str) -> u64 {
        let to = format!("back/{called}");
        grid(
            &self.server,
            &format!("datastore download {called} --to {to}"),
        )
        .ok();
        let back = self.server.work().join(&to);
        let round = std::fs::read_to_string(back.join("round")).expect("a round");
        let round = round.parse().expect("a number");
        let tree = self.tree(round);
        let ran = Command::new("diff")
            .arg("-r")
            .arg(&tree)
            .arg(&back)
            .output();
        assert_eq!(Ran::of(&ran.expect("diff starts")).stdout, "", "{called}");
        std::fs::remove_dir_all(back).expect("removed");
        round
    }
}

#[test]
fn whatever_is_killed_what_comes_from_elsewhere_is_whole_or_says_why_not() {
    let mut world = World::new();
    let last = world.kill_for(KILLING);
    // Whoever asks once more, undisturbed, gets what they asked for.
    for round in last + 1..=last + 5 {
        let mut client = world.begin(round);
        let ended = wait_for("the client", || client.try_wait().expect("a child"));
        assert!(ended.success(), "{round}: {}", world.server.log());
    }
    let versions = world.settled();
    let (mut told, mut rounds) = (String::new(), HashMap::new());
    for one in &versions {
        let name = one["name"].as_str().expect("a name");
        let called = format!("{name}:{}", one["version"]);
        let state = one["state"].as_str().expect("a state");
        let _ = write!(told, "{called} {state} {}; ", one["message"]);
        match state {
            "available" => {
                let round = world.check(&called);
                let before = rounds.insert(round, called.clone());
                assert_eq!(before, None, "{called} is of the same round");
            }
            "failed" => {
                let why = one["message"].as_str().expect("why");
                assert!(why.contains("send it again"), "{called}: {why}");
            }
            // What was written over S3 and not made into a version waits for more.
            other => assert_eq!((name, other), ("parts", "uploading"), "{told}"),
        }
    }
    for name in ["web", "copied", "listed", "piped", "parts"] {
        assert!(rounds.values().any(|one| one.starts_with(name)), "{told}");
    }
    world.server.doctor();
    for one in versions {
        let id = one["id"].as_str().expect("an id");
        grid(&world.server, &format!("datastore delete {id}")).ok();
    }
    assert_nothing(&mut world.server);
}
