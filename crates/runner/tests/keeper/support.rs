//! A real keeper for tests: this test program, started again.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use grid_runner::keeper;
use grid_runner::keeper::client::{Client, Events, Starter};
use grid_runner::keeper::protocol::{Exit, Spawn};
use grid_runner::keeper::reader::{SpoolReader, Stream};
use rustix::process::{Pid, Signal, kill_process};

/// Longest time that anything in these tests may take.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

const KEEPER_DIR: &str = "GRID_TEST_KEEPER_DIR";

/// The body of the test `keeper_process`: a keeper when started as one, else nothing.
pub(crate) fn be_keeper() {
    if let Some(dir) = std::env::var_os(KEEPER_DIR) {
        keeper::main(Path::new(&dir));
    }
}

pub(crate) struct Keeper {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) client: Client,
    pub(crate) events: Events,
}

impl Keeper {
    pub(crate) async fn start() -> Self {
        Self::start_in(tempfile::tempdir().unwrap()).await
    }

    pub(crate) async fn start_in(dir: tempfile::TempDir) -> Self {
        let (client, events) = connect(dir.path()).await;
        Self {
            dir,
            client,
            events,
        }
    }

    /// A keeper of an ordinary user; `None`, with a message, where this cannot be had.
    pub(crate) async fn start_as_nobody() -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let (uid, gid) = (65_534, 65_534);
        if let Err(error) = std::os::unix::fs::chown(dir.path(), Some(uid), Some(gid)) {
            skipped(&format!(
                "only root can start the keeper of another user: {error}"
            ));
            return None;
        }
        let mut starter = starter(dir.path());
        let args = [
            format!("--reuid={uid}"),
            format!("--regid={gid}"),
            "--clear-groups".to_owned(),
        ];
        let program = std::mem::replace(&mut starter.program, "/usr/bin/setpriv".into());
        let all = args
            .into_iter()
            .map(Into::into)
            .chain([program.into_os_string()]);
        starter.args = all.chain(starter.args).collect();
        let (client, events) = Client::connect(dir.path(), &starter).await.unwrap();
        Some(Self {
            dir,
            client,
            events,
        })
    }

    /// Another connection, to another keeper if this one is gone.
    pub(crate) async fn reconnect(&mut self) {
        (self.client, self.events) = connect(self.dir.path()).await;
    }

    pub(crate) fn pid(&self) -> i32 {
        self.client.hello().pid
    }

    pub(crate) fn kill(&self) {
        kill(self.pid());
    }

    pub(crate) fn spool(&self, key: &str) -> PathBuf {
        self.dir.path().join("spool").join(key)
    }

    /// What `sh -c SCRIPT` needs.
    pub(crate) fn shell(&self, key: &str, script: &str) -> Spawn {
        Spawn {
            key: key.to_owned(),
            argv: ["/bin/sh", "-c", script].map(str::to_owned).to_vec(),
            env: vec![("PATH".to_owned(), "/usr/bin:/bin".to_owned())],
            cwd: self.dir.path().to_owned(),
            spool_dir: self.spool(key),
            ..Spawn::default()
        }
    }

    /// Runs a script to its end.
    pub(crate) async fn run(&self, key: &str, script: &str) -> Exit {
        self.client.spawn(self.shell(key, script)).await.unwrap();
        self.wait(key).await
    }

    pub(crate) async fn wait(&self, key: &str) -> Exit {
        tokio::time::timeout(PATIENCE, self.client.wait(key))
            .await
            .unwrap()
            .unwrap()
    }

    /// All that a task wrote.
    pub(crate) fn read(&self, key: &str) -> Vec<(Stream, Vec<u8>)> {
        read(&self.spool(key))
    }

    pub(crate) fn stream(&self, key: &str, stream: Stream) -> Vec<u8> {
        self.read(key)
            .into_iter()
            .filter(|(of, _)| *of == stream)
            .flat_map(|(_, bytes)| bytes)
            .collect()
    }

    pub(crate) fn text(&self, key: &str) -> String {
        String::from_utf8(
            self.read(key)
                .into_iter()
                .flat_map(|(_, bytes)| bytes)
                .collect(),
        )
        .unwrap()
    }
}

impl Drop for Keeper {
    /// Keepers that were started and found another one there may be on their way still.
    fn drop(&mut self) {
        for pid in keepers_of(self.dir.path()) {
            kill(pid);
        }
    }
}

/// Processes that are, or are about to be, the keeper of a folder.
pub(crate) fn keepers_of(dir: &Path) -> Vec<i32> {
    let wanted = format!("{KEEPER_DIR}={}", dir.display());
    let pids = fs::read_dir("/proc")
        .unwrap()
        .flatten()
        .filter_map(|entry| {
            let environ = fs::read(entry.path().join("environ")).ok()?;
            let is_keeper = environ
                .split(|byte| *byte == 0)
                .any(|variable| variable == wanted.as_bytes());
            entry
                .file_name()
                .to_str()?
                .parse()
                .ok()
                .filter(|_| is_keeper)
        });
    pids.collect()
}

pub(crate) fn starter(dir: &Path) -> Starter {
    Starter {
        program: std::env::current_exe().unwrap(),
        args: ["--exact", "keeper_process", "--nocapture"]
            .map(Into::into)
            .to_vec(),
        env: vec![(KEEPER_DIR.into(), dir.into())],
    }
}

pub(crate) async fn connect(dir: &Path) -> (Client, Events) {
    Client::connect(dir, &starter(dir)).await.unwrap()
}

pub(crate) fn read(folder: &Path) -> Vec<(Stream, Vec<u8>)> {
    let mut reader = SpoolReader::open(folder);
    let mut position = 0;
    let mut pieces = Vec::new();
    loop {
        let batch = reader.read_from(position, 1 << 20).unwrap();
        position = batch.next;
        let is_empty = batch.frames.is_empty();
        pieces.extend(
            batch
                .frames
                .into_iter()
                .map(|frame| (frame.stream, frame.bytes)),
        );
        if batch.end.is_some() || is_empty {
            return pieces;
        }
    }
}

pub(crate) fn kill(pid: i32) {
    let _ = kill_process(Pid::from_raw(pid).unwrap(), Signal::KILL);
}

/// Whether a process exists that is not only waiting to be reaped.
pub(crate) fn is_alive(pid: i32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat"))
        .is_ok_and(|stat| !stat.rsplit(')').next().unwrap().starts_with(" Z"))
}

/// Waits for something that happens soon.
pub(crate) async fn eventually(what: &str, mut is_true: impl FnMut() -> bool) {
    let looking = async {
        while !is_true() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let happened = tokio::time::timeout(PATIENCE, looking).await;
    assert!(happened.is_ok(), "did not happen in {PATIENCE:?}: {what}");
}

/// Says why a test cannot do here what it is for.
#[expect(clippy::print_stdout, reason = "tests speak to whoever runs them")]
pub(crate) fn skipped(reason: &str) {
    println!("skipped: {reason}");
}

/// Processes whose parent this is.
pub(crate) fn children(parent: i32) -> Vec<i32> {
    let stats = fs::read_dir("/proc")
        .unwrap()
        .flatten()
        .filter_map(|entry| {
            let stat =
                fs::read_to_string(Path::new("/proc").join(entry.file_name()).join("stat")).ok()?;
            let (pid, rest) = (
                stat.split(' ').next()?.parse().ok()?,
                stat.rsplit(')').next()?,
            );
            let of: i32 = rest.split(' ').nth(2)?.parse().ok()?;
            (of == parent).then_some(pid)
        });
    stats.collect()
}
