//! A runner in a process of its own, and what is needed to talk to it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use grid_api::runner::Launch;
use grid_core::cluster::Placement;
use grid_core::id::{AttemptId, DatastoreVersionId, SnapshotId, WorkloadId};
use grid_core::spec::{DatastoreMount, MountedVersion, RunSpec, Source};
use grid_core::time::Timestamp;
use grid_core::workload::End;
use grid_runner::keeper;
use grid_runner::keeper::client::Starter;
use grid_runner::settings::Settings;
use tokio::time::Instant;

use crate::fake::Fake;

const CONFIG: &str = "GRID_TEST_RUNNER_CONFIG";
const KEEPER: &str = "GRID_TEST_KEEPER_DIR";

/// Numbers of nodes: each test has its own control groups.
static NODES: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);

/// How long anything may take that must happen.  Higher: a broken test takes longer;
/// lower: a busy machine fails honest ones.
const DEADLINE: Duration = Duration::from_secs(60);

/// How long those who were killed in a control group may take to be gone.
const GROUP_PATIENCE: Duration = Duration::from_secs(5);

pub(crate) fn be_keeper() {
    if let Some(dir) = std::env::var_os(KEEPER) {
        let _ = keeper::main(Path::new(&dir));
    }
}

pub(crate) fn be_runner() {
    let Some(path) = std::env::var_os(CONFIG) else {
        return;
    };
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_env_filter("grid_runner=debug")
        .init();
    let settings = Settings::load(Path::new(&path)).expect("the configuration reads");
    let dir = settings.config.dir.join("keeper");
    let starter = Starter {
        program: std::env::current_exe().expect("this program"),
        args: ["--exact", "keeper_process", "--nocapture"]
            .map(Into::into)
            .to_vec(),
        env: vec![(KEEPER.into(), dir.into())],
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime");
    runtime
        .block_on(grid_runner::run_with(settings, Some(starter)))
        .expect("the runner runs");
}

/// A runner and its server.  All of it is gone when this is dropped.
pub(crate) struct Rig {
    pub(crate) fake: Fake,
    pub(crate) dir: tempfile::TempDir,
    config: serde_json::Value,
    runner: Option<Child>,
    server: Option<tokio::task::JoinHandle<()>>,
    next: u128,
    /// Variables that the runner is started with.
    variables: Vec<(String, String)>,
}

impl Rig {
    pub(crate) async fn new(more: serde_json::Value) -> Self {
        Self::with_variables(more, &[]).await
    }

    pub(crate) async fn with_variables(
        more: serde_json::Value,
        variables: &[(&str, String)],
    ) -> Self {
        // Not in /tmp, which a sandboxed process sees as its own.
        let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a folder");
        let mut config = serde_json::json!({
            "url": "", "token": "secret", "node": format!("test-{}-{}", std::process::id(), NODES.fetch_add(1, std::sync::atomic::Ordering::Relaxed)), "dir": dir.path().join("runner"),
            "sandbox": "off", "cpus": 4,
        });
        let fields = config.as_object_mut().expect("an object");
        fields.extend(more.as_object().expect("an object").clone());
        let mut rig = Self {
            fake: Fake::default(),
            dir,
            config,
            runner: None,
            server: None,
            next: 1,
            variables: variables
                .iter()
                .map(|(name, value)| ((*name).to_owned(), value.clone()))
                .collect(),
        };
        rig.start_server().await;
        rig.start_runner();
        rig
    }

    pub(crate) async fn start_server(&mut self) {
        let (address, server) = self.fake.serve().await;
        self.server = Some(server);
        self.config["url"] = serde_json::json!(format!("http://{address}"));
        std::fs::write(self.config_path(), self.config.to_string()).expect("written");
    }

    /// The server is away from now on.
    pub(crate) async fn stop_server(&mut self) {
        if let Some(server) = self.server.take() {
            server.abort();
            let _ = server.await;
        }
    }

    fn config_path(&self) -> PathBuf {
        self.dir.path().join("config.json")
    }

    pub(crate) fn runner_dir(&self) -> PathBuf {
        self.dir.path().join("runner")
    }

    pub(crate) fn start_runner(&mut self) {
        let log = std::fs::File::options()
            .create(true)
            .append(true)
            .open(self.dir.path().join("runner.log"))
            .expect("a log");
        let child = Command::new(std::env::current_exe().expect("this program"))
            .args(["--exact", "runner_process", "--nocapture"])
            .env(CONFIG, self.config_path())
            .envs(self.variables.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn();
        self.runner = Some(child.expect("the runner starts"));
    }

    pub(crate) fn signal_runner(&mut self, signal: i32) {
        let child = self.runner.as_ref().expect("a runner");
        kill(i32::try_from(child.id()).expect("a pid"), signal);
    }

    pub(crate) fn wait_for_runner(&mut self) -> std::process::ExitStatus {
        self.runner
            .take()
            .expect("a runner")
            .wait()
            .expect("it ends")
    }

    pub(crate) fn kill_runner(&mut self) {
        self.signal_runner(libc::SIGKILL);
        self.wait_for_runner();
    }

    /// An order for `program`, without code.
    pub(crate) fn order(&mut self, program: &[&str]) -> Launch {
        let workload = WorkloadId::from_parts(Timestamp::from_millis(1_700_000_000_000), self.next);
        self.next += 1;
        let program: Vec<String> = program.iter().map(|word| (*word).to_owned()).collect();
        Launch {
            attempt: AttemptId {
                workload,
                number: 1,
            },
            placement: Placement {
                node: "local".parse().expect("a name"),
                cpus: 1,
                gpus: vec![],
                memory_bytes: 0,
            },
            run: "quick-fox".to_owned(),
            experiment: format!("quick-fox-exp{}", self.next),
            index: 0,
            username: "ada".to_owned(),
            user_id: "0b9f6a9e-0000-4000-8000-000000000001".to_owned(),
            cluster: "local".to_owned(),
            spec: RunSpec {
                command: program.clone(),
                params: vec![],
                sweep: Default::default(),
                source: Source::Nothing,
                workdir: String::new(),
                environment: Default::default(),
                resources: Default::default(),
                datastores: vec![],
                actions: Default::default(),
                auto_resume: false,
                retries: 0,
                max_duration_ms: None,
                description: String::new(),
            },
            program,
            args: vec![],
            parameters: BTreeMap::new(),
            resume: false,
            workload,
        }
    }

    pub(crate) fn shell(&mut self, script: &str) -> Launch {
        self.order(&["sh", "-c", script])
    }

    /// An order whose code are these files.
    pub(crate) fn with_code(&mut self, program: &[&str], files: &[(&str, u32, &[u8])]) -> Launch {
        let mut launch = self.order(program);
        let id = SnapshotId::from_parts(Timestamp::from_millis(1_700_000_000_000), self.next);
        self.fake.add_snapshot(id, files);
        launch.spec.source = Source::Snapshot { id, git: None };
        launch
    }

    /// An order that mounts a version with these files as `data`: see [`Fake::add_version`].
    pub(crate) fn with_data(&mut self, script: &str, files: &[(&str, u32, &[u8])]) -> Launch {
        let mut launch = self.shell(script);
        let bytes = files.iter().map(|(_, _, bytes)| bytes.len() as u64);
        let mounted = MountedVersion {
            id: DatastoreVersionId::from_parts(
                Timestamp::from_millis(1_700_000_000_000),
                self.next,
            ),
            name: "data".to_owned(),
            version: 1,
            manifest: self.fake.add_version(files),
            files: files.len() as u64,
            size_bytes: bytes.sum(),
        };
        launch.spec.datastores = vec![DatastoreMount {
            datastore: "data".to_owned(),
            mount_dir: None,
            mounted: Some(mounted),
        }];
        launch
    }

    /// The same order once more, as another experiment.
    pub(crate) fn again(&mut self, attempt: AttemptId) -> Launch {
        let fresh = self.order(&["true"]);
        let former = self.fake.order(attempt);
        Launch {
            attempt: fresh.attempt,
            workload: fresh.workload,
            experiment: fresh.experiment,
            ..former
        }
    }

    pub(crate) fn work(&self, attempt: AttemptId) -> PathBuf {
        self.runner_dir()
            .join("attempts")
            .join(attempt.to_string())
            .join("work")
    }

    pub(crate) fn launch(&self, launch: Launch) -> AttemptId {
        let attempt = launch.attempt;
        self.fake.launch(launch);
        attempt
    }

    pub(crate) async fn until(&self, what: &str, is_so: impl Fn(&Fake) -> bool) {
        let deadline = Instant::now() + DEADLINE;
        while !is_so(&self.fake) {
            assert!(
                Instant::now() < deadline,
                "{what}: not within {DEADLINE:?}\n{}",
                self.runner_log()
            );
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    pub(crate) async fn end(&self, attempt: AttemptId) -> End {
        self.until("an end", |fake| fake.end(attempt).is_some())
            .await;
        self.fake.end(attempt).expect("just seen")
    }

    /// How it ended, in words.
    pub(crate) async fn end_in_words(&self, attempt: AttemptId) -> String {
        match self.end(attempt).await {
            End::Failed { reason } => format!("{:?}: {}", reason.code, reason.message),
            other => format!("{other:?}"),
        }
    }

    pub(crate) fn text(&self, attempt: AttemptId) -> String {
        String::from_utf8_lossy(&self.fake.text(attempt, "experiment", None)).into_owned()
    }

    pub(crate) fn runner_log(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("runner.log")).unwrap_or_default()
    }
}

impl Rig {
    pub(crate) fn kill_keeper(&self) {
        for pid in keepers(&self.runner_dir().join("keeper")) {
            kill(pid, libc::SIGKILL);
        }
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        if let Some(mut runner) = self.runner.take() {
            let _ = runner.kill();
            let _ = runner.wait();
        }
        end_keeper(&self.runner_dir().join("keeper"));
        let node = self.config["node"].as_str().unwrap_or_default().to_owned();
        for controller in ["", "cpu", "cpuacct", "memory", "pids", "unified"] {
            let parent = Path::new("/sys/fs/cgroup").join(controller);
            for entry in std::fs::read_dir(parent).into_iter().flatten().flatten() {
                if entry
                    .file_name()
                    .to_string_lossy()
                    .starts_with(&format!("grid-{node}-"))
                {
                    remove_group(&entry.path());
                }
            }
        }
    }
}

/// Removes a control group, as soon as those that were killed in it are gone.
fn remove_group(folder: &Path) {
    let deadline = Instant::now() + GROUP_PATIENCE;
    while remove_groups(folder).is_err() && folder.exists() && Instant::now() < deadline {
        std::thread::yield_now();
    }
}

/// Removes control groups that nobody is in any more.
fn remove_groups(folder: &Path) -> std::io::Result<()> {
    for entry in std::fs::read_dir(folder)?.flatten() {
        if entry.path().is_dir() {
            remove_groups(&entry.path())?;
        }
    }
    std::fs::remove_dir(folder)
}

fn keepers(dir: &Path) -> Vec<i32> {
    let folder = format!("{KEEPER}={}", dir.display());
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let pid = |entry: std::fs::DirEntry| {
        let environ = std::fs::read(entry.path().join("environ")).unwrap_or_default();
        let is_keeper = environ
            .split(|byte| *byte == 0)
            .any(|variable| variable == folder.as_bytes());
        entry
            .file_name()
            .to_str()?
            .parse::<i32>()
            .ok()
            .filter(|_| is_keeper)
    };
    entries.filter_map(pid).collect()
}

/// Ends the keeper of a folder, and everything that it started.
fn end_keeper(dir: &Path) {
    for pid in keepers(dir) {
        kill(pid, libc::SIGKILL);
    }
    let spools = dir
        .parent()
        .map(|parent| parent.join("spools"))
        .unwrap_or_default();
    for entry in std::fs::read_dir(spools).into_iter().flatten().flatten() {
        let record = std::fs::read(entry.path().join("task.json")).unwrap_or_default();
        let record: serde_json::Value = serde_json::from_slice(&record).unwrap_or_default();
        if let Some(pid) = record["pid"].as_i64()
            && !entry.path().join("exit.json").exists()
        {
            kill(-i32::try_from(pid).expect("a pid"), libc::SIGKILL);
        }
    }
}

fn kill(pid: i32, signal: i32) {
    let raw = rustix::process::Pid::from_raw(pid.abs()).expect("a pid");
    let signal = rustix::process::Signal::from_named_raw(signal).expect("a signal");
    let _ = if pid < 0 {
        rustix::process::kill_process_group(raw, signal)
    } else {
        rustix::process::kill_process(raw, signal)
    };
}
