//! The harness of the end-to-end tests: the real `grid` as server, runner and
//! client, in folders of its own, on a port that the system chooses.
//!
//! Nothing here looks inside: what a test sees is what a person would see.

pub mod common;
pub mod groups;
pub mod left;
pub mod line;
pub mod original;
pub mod s3;
pub mod s3_clients;

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

/// How long anything may take before a test gives up.  Generous: machines are slow
/// when everything is tested at once.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// How often a condition is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Waits until `condition` answers with something.
///
/// # Panics
/// When it does not within [`PATIENCE`], saying what was waited for.
#[track_caller]
pub fn wait_for<T>(what: &str, condition: impl FnMut() -> Option<T>) -> T {
    wait_up_to(PATIENCE, what, condition)
}

/// The same, with another patience.
///
/// # Panics
/// When it does not in time.
#[track_caller]
pub fn wait_up_to<T>(
    patience: Duration,
    what: &str,
    mut condition: impl FnMut() -> Option<T>,
) -> T {
    let deadline = now() + patience;
    loop {
        if let Some(found) = condition() {
            return found;
        }
        assert!(now() < deadline, "waited in vain for {what}");
        pause(LOOK_EVERY);
    }
}

/// Now.
#[expect(clippy::disallowed_methods, reason = "the one clock of the tests")]
pub fn now() -> Instant {
    Instant::now()
}

#[expect(
    clippy::disallowed_methods,
    reason = "the one place in which a test waits, for a condition"
)]
fn pause(time: Duration) {
    std::thread::sleep(time);
}

/// Lets a moment pass, of whatever length, before something is killed.  Nothing is waited for
/// by this.
pub fn moment(time: Duration) {
    pause(time);
}

/// The program under test, built beside the tests.
///
/// # Panics
/// When it has not been built.
pub fn grid_program() -> PathBuf {
    if let Some(path) = std::env::var_os("GRID_BIN") {
        return path.into();
    }
    let own = std::env::current_exe().expect("a test has a path");
    let target = own
        .parent()
        .and_then(Path::parent)
        .expect("tests lie in target/PROFILE/deps");
    let program = target.join("grid");
    assert!(
        program.exists(),
        "{} is not there: cargo build -p grid-cli",
        program.display()
    );
    program
}

/// A server with its runner, in a folder of its own.
pub struct Server {
    /// The folder: data, people's homes, work trees.
    pub folder: tempfile::TempDir,
    flags: Vec<String>,
    environment: Vec<(String, String)>,
    child: Option<Child>,
    trusts: Option<String>,
    /// Where it listens.
    pub url: String,
}

/// What a command came to.
#[derive(Debug)]
pub struct Ran {
    /// Exit code; -1 for a signal.
    pub code: i32,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

impl Ran {
    /// What a program came to that was started by other means.
    pub fn of(output: &Output) -> Self {
        Self {
            code: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// Standard output, of a command that must have worked.
    ///
    /// # Panics
    /// When it failed.
    #[track_caller]
    pub fn ok(self) -> String {
        assert_eq!(
            self.code, 0,
            "stdout: {}\nstderr: {}",
            self.stdout, self.stderr
        );
        self.stdout
    }

    /// Standard error, of a command that must have failed with `code`.
    ///
    /// # Panics
    /// When it ended otherwise.
    #[track_caller]
    pub fn fails(self, code: i32) -> String {
        assert_eq!(
            self.code, code,
            "stdout: {}\nstderr: {}",
            self.stdout, self.stderr
        );
        self.stderr
    }

    /// Standard output as JSON, of a command that must have worked.
    ///
    /// # Panics
    /// When it failed or printed something else.
    #[track_caller]
    pub fn json(self) -> Value {
        let text = self.ok();
        serde_json::from_str(&text).unwrap_or_else(|e| panic!("{e}: {text}"))
    }
}

impl Server {
    /// Starts a server with the given flags behind the usual ones.
    pub fn start(flags: &[&str]) -> Self {
        Self::begin(flags, None, &[])
    }

    /// The same, with more in the environment of the server.
    pub fn start_with(flags: &[&str], environment: &[(&str, &str)]) -> Self {
        Self::begin(flags, None, environment)
    }

    /// The same, for people who trust the certificates in a file.
    pub fn start_trusting(flags: &[&str], authorities: &str) -> Self {
        Self::begin(flags, Some(authorities.to_owned()), &[])
    }

    fn begin(flags: &[&str], trusts: Option<String>, environment: &[(&str, &str)]) -> Self {
        let own = |text: &&str| (*text).to_owned();
        let folder = tempfile::Builder::new()
            .prefix("grid-e2e-")
            .tempdir()
            .expect("a folder");
        let mut server = Self {
            folder,
            flags: flags.iter().map(own).collect(),
            environment: environment
                .iter()
                .map(|(name, value)| (own(name), own(value)))
                .collect(),
            child: None,
            trusts,
            url: String::new(),
        };
        server.up();
        server
    }

    /// The server's data.
    pub fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// Starts it (again) and waits until it is ready.
    ///
    /// # Panics
    /// When it does not come up; with its log.
    pub fn up(&mut self) {
        let said = self.data().join("server.json");
        let _ = std::fs::remove_file(&said);
        let log = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.folder.path().join("server.log"))
            .expect("a log");
        let mut command = Command::new(grid_program());
        command
            .args(["server", "--listen", "127.0.0.1:0", "--data"])
            .arg(self.data())
            .args(&self.flags)
            .env("HOME", self.folder.path())
            .env("GRID_OPERATOR", "ada")
            .envs(self.environment.clone())
            .env_remove("PYTHONDONTWRITEBYTECODE")
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a log"))
            .stderr(log);
        let mut child = command.spawn().expect("the server starts");
        let url = wait_for("the server", || {
            if let Ok(Some(status)) = child.try_wait() {
                panic!("the server ended with {status}: {}", self.log());
            }
            let text = std::fs::read_to_string(&said).ok()?;
            let json: Value = serde_json::from_str(&text).ok()?;
            Some(json["url"].as_str()?.to_owned())
        });
        self.child = Some(child);
        self.url = url;
        wait_for("an answer of the server", || {
            let ran = self.grid("ada", &["-o", "json", "clusters"]);
            let json: Value = serde_json::from_str(&ran.stdout).ok()?;
            let connected = json["clusters"][0]["nodes"][0]["connected"].as_bool()?;
            connected.then_some(())
        });
    }

    /// What the server printed.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("server.log")).unwrap_or_default()
    }

    /// What the runner printed.
    pub fn runner_log(&self) -> String {
        std::fs::read_to_string(self.data().join("runner/runner.log")).unwrap_or_default()
    }

    /// Kills the server as nobody can expect it.
    ///
    /// # Panics
    /// When it does not run.
    pub fn kill(&mut self) {
        let mut child = self.child.take().expect("the server runs");
        child.kill().expect("it can be killed");
        child.wait().expect("it is gone");
    }

    /// Stops the server as a service manager does, and waits until it has ended.
    ///
    /// # Panics
    /// When it does not end, or not well.
    pub fn stop(&mut self) {
        let mut child = self.child.take().expect("the server runs");
        signal(
            i32::try_from(child.id()).expect("a pid"),
            rustix::process::Signal::TERM,
        );
        let status = wait_for("the server to stop", || child.try_wait().expect("a child"));
        assert!(status.success(), "it ended with {status}: {}", self.log());
    }

    /// Kills the runner as nobody can expect it.
    pub fn kill_runner(&self) {
        signal(self.runner_pid(), rustix::process::Signal::KILL);
    }

    /// The process id of the runner.
    pub fn runner_pid(&self) -> i32 {
        wait_for("the runner", || {
            let text = std::fs::read_to_string(self.data().join("runner/runner.pid")).ok()?;
            let json: Value = serde_json::from_str(&text).ok()?;
            i32::try_from(json["pid"].as_i64()?).ok()
        })
    }

    /// A command of a person.  `ada` is the operator; others are made by [`Server::person`].
    pub fn command(&self, who: &str, arguments: &[&str]) -> Command {
        let home = self.folder.path().join("home").join(who);
        std::fs::create_dir_all(&home).expect("a home");
        let mut command = Command::new(grid_program());
        command
            .args(arguments)
            .current_dir(self.work())
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("HOME", &home)
            .env("GRID_URL", &self.url)
            .stdin(Stdio::null());
        if let Some(authorities) = &self.trusts {
            command.env("GRID_CA_FILE", authorities);
        }
        if who == "ada" {
            let text =
                std::fs::read_to_string(self.data().join("operator.json")).expect("operator.json");
            let json: Value = serde_json::from_str(&text).expect("JSON");
            for (name, key) in [("GRID_USER_ID", "user_id"), ("GRID_API_KEY", "api_key")] {
                command.env(name, json[key].as_str().expect("text"));
            }
        }
        command
    }

    /// Runs a command of a person to its end.
    ///
    /// # Panics
    /// When it cannot be started.
    pub fn grid(&self, who: &str, arguments: &[&str]) -> Ran {
        Ran::of(&self.command(who, arguments).output().expect("grid starts"))
    }

    /// Makes a user and signs them in.
    pub fn person(&self, name: &str) {
        let made = self
            .grid("ada", &["-o", "json", "user", "create", name])
            .json();
        let key = made["api_key"].as_str().expect("a key");
        self.grid(
            name,
            &[
                "login",
                "--url",
                &self.url,
                "--username",
                name,
                "--key",
                key,
            ],
        )
        .ok();
    }

    /// The folder in which people type: not a Git work tree.
    ///
    /// # Panics
    /// When it cannot be made.
    pub fn work(&self) -> PathBuf {
        let work = self.folder.path().join("work");
        std::fs::create_dir_all(&work).expect("a folder");
        work
    }

    /// Writes a script into that folder.
    ///
    /// # Panics
    /// When it cannot be written.
    pub fn script(&self, name: &str, text: &str) {
        use std::os::unix::fs::PermissionsExt;
        let path = self.work().join(name);
        std::fs::write(&path, text).expect("written");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).expect("set");
    }

    /// Ada submits a run by this name.
    #[track_caller]
    pub fn run(&self, name: &str, arguments: &[&str]) {
        let mut all = vec!["run", "--localdir", "--name", name];
        all.extend(arguments);
        self.grid("ada", &all).ok();
    }

    /// The experiments of one of Ada's runs.
    #[track_caller]
    pub fn experiments(&self, run: &str) -> Vec<Value> {
        let json = self.grid("ada", &["-o", "json", "status", run]).json();
        json["experiments"].as_array().expect("a list").clone()
    }

    /// Waits until every experiment of a run is over; answers with them.
    ///
    /// # Panics
    /// When that takes too long, with what is known.
    #[track_caller]
    pub fn finished(&self, run: &str) -> Vec<Value> {
        let deadline = now() + PATIENCE;
        loop {
            let experiments = self.experiments(run);
            let over = |e: &Value| {
                matches!(
                    e["status"].as_str(),
                    Some("succeeded" | "failed" | "stopped")
                )
            };
            if experiments.iter().all(over) {
                return experiments;
            }
            assert!(
                now() < deadline,
                "not over: {experiments:?}\nrunner: {}",
                self.runner_log()
            );
            pause(LOOK_EVERY);
        }
    }

    /// Waits until an experiment has this status.
    #[track_caller]
    pub fn reaches(&self, experiment: &str, status: &str) {
        let run = experiment.rsplit_once("-exp").expect("an experiment").0;
        wait_for(&format!("{experiment} to be {status}"), || {
            let all = self.experiments(run);
            let one = all.iter().find(|e| e["name"] == experiment)?;
            (one["status"] == status).then_some(())
        });
    }

    /// The text of the log of an experiment, without times.
    #[track_caller]
    pub fn log_text(&self, experiment: &str) -> String {
        let json = self.grid("ada", &["-o", "json", "logs", experiment]).json();
        let lines = json["lines"].as_array().expect("a list").clone();
        lines
            .iter()
            .filter_map(|line| line["text"].as_str())
            .collect::<Vec<_>>()
            .join("\n")
    }

    /// Asserts that all that is stored is consistent.
    #[track_caller]
    pub fn doctor(&self) {
        let data = self.data();
        let data = data.to_str().expect("UTF-8");
        self.grid("ada", &["server", "doctor", "--deep", "--data", data])
            .ok();
    }
}

impl Drop for Server {
    /// Ends everything: server, runner, keeper, and whatever they started.
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
        let folder = self.folder.path().to_owned();
        for _ in 0..3 {
            for pid in processes_of(&folder) {
                signal(pid, rustix::process::Signal::KILL);
            }
        }
        let left = groups::remove(&self.data().join("runner"));
        // A test that fails is told of by what failed in it.
        let is_told = left.is_empty() || std::thread::panicking();
        assert!(is_told, "control groups stay behind: {left:?}");
    }
}

/// Sends a signal; a process that is gone is not an error.
pub fn signal(pid: i32, signal: rustix::process::Signal) {
    if let Some(pid) = rustix::process::Pid::from_raw(pid) {
        let _ = rustix::process::kill_process(pid, signal);
    }
}

/// Every process whose command line, working folder or environment names `folder`.
pub fn processes_of(folder: &Path) -> Vec<i32> {
    let wanted = folder.as_os_str().as_encoded_bytes();
    let names = |path: PathBuf| std::fs::read(path).is_ok_and(|bytes| contains(&bytes, wanted));
    let own = i32::try_from(std::process::id()).unwrap_or(0);
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = entry
            .file_name()
            .to_str()
            .and_then(|name| name.parse::<i32>().ok())
        else {
            continue;
        };
        let proc = entry.path();
        let inside = std::fs::read_link(proc.join("cwd")).is_ok_and(|cwd| cwd.starts_with(folder));
        if pid != own && (inside || names(proc.join("cmdline")) || names(proc.join("environ"))) {
            found.push(pid);
        }
    }
    found
}

fn contains(text: &[u8], wanted: &[u8]) -> bool {
    text.windows(wanted.len()).any(|window| window == wanted)
}
