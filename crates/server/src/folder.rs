//! The data folder: who may look in, who works in it, and the small files in it.
//!
//! | name | what |
//! | --- | --- |
//! | `lock` | held by the one process that works here; has its id and what it is |
//! | `grid.db` | the database, unless another one is named |
//! | `secret` | 32 bytes that sign links |
//! | `credential.key` | what credentials are encrypted with, unless another file is named |
//! | `logs/`, `blobs/` | what experiments wrote and left behind |
//! | `runner/` | the runner of this machine |
//! | `tmp/` | work under way; emptied at each start |
//! | `reserve` | room for the day when the disk is full |
//! | `operator.json` | the first user, with their key |
//! | `server.json` | where the server is now, for tools |

use std::fs::{DirBuilder, File, OpenOptions, Permissions};
use std::io::{Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};

use crate::config::FILE_NAME as SETTINGS;

const LOCK: &str = "lock";
/// What stands in it behind the process id of a command, as `grid server collect` is one.
const COMMAND: &str = "command";
const DATABASE: &str = "grid.db";
const SECRET: &str = "secret";
const CREDENTIAL_KEY: &str = "credential.key";
const OPERATOR: &str = "operator.json";
const SERVER: &str = "server.json";

/// How long a server that starts waits for a command that works in the folder.  Higher: a
/// command that hangs is noticed later.  Lower: a collection makes a restart fail.
const COMMAND_WAIT: Duration = Duration::from_secs(60);
const COMMAND_LOOK_EVERY: Duration = Duration::from_millis(50);

/// By what a folder is known to be a server's.
const OURS: [&str; 6] = [LOCK, DATABASE, SECRET, SETTINGS, OPERATOR, "runner"];

/// The data folder of a server.
#[derive(Debug, Clone)]
pub(crate) struct Folder(PathBuf);

/// Held while this process works in the folder.
#[derive(Debug)]
pub(crate) struct Lock(#[expect(dead_code, reason = "closing the file lets go of the lock")] File);

/// What locking came to.
pub(crate) enum Locked {
    /// Nobody else works here.
    Ours(Lock),
    /// Another process does.
    Theirs(Holder),
}

/// Who works in a folder, as far as that is told.
#[derive(Debug, Default)]
pub(crate) struct Holder {
    pid: Option<u32>,
    /// A command that will be over, not a server.
    is_command: bool,
}

impl Holder {
    fn read(text: &str) -> Self {
        let mut words = text.split_whitespace();
        Self {
            pid: words.next().and_then(|pid| pid.parse().ok()),
            is_command: words.next() == Some(COMMAND),
        }
    }

    /// Whether it is soon over: a command, or somebody who has not said yet who they are
    /// and whose line is that of a process that is gone.
    fn is_soon_over(&self) -> bool {
        self.is_command
            || !self
                .pid
                .is_some_and(|pid| Path::new("/proc").join(pid.to_string()).exists())
    }
}

/// What `operator.json` says.
#[derive(Serialize, Deserialize)]
pub(crate) struct Operator {
    pub(crate) url: String,
    pub(crate) username: String,
    pub(crate) user_id: String,
    pub(crate) api_key: String,
}

/// What `server.json` says.
#[derive(Serialize, Deserialize)]
pub(crate) struct Running {
    /// Where it listens.
    pub(crate) url: String,
    /// Where it listens for this machine only, without TLS.
    pub(crate) local_url: String,
    pub(crate) pid: u32,
}

impl Folder {
    /// The folder, made if it is not there, and closed to others.
    pub(crate) fn open(dir: &Path) -> Result<Self> {
        let doing = || format!("cannot use {} for the data of the server", dir.display());
        match std::fs::read_dir(dir) {
            Ok(entries) => {
                let names: Vec<_> = entries.flatten().map(|entry| entry.file_name()).collect();
                let is_ours = OURS
                    .iter()
                    .any(|ours| names.iter().any(|name| name == ours));
                if !names.is_empty() && !is_ours {
                    bail!(
                        "{} holds other things: choose a folder of its own for the server with --data",
                        dir.display()
                    );
                }
                std::fs::set_permissions(dir, Permissions::from_mode(0o700)).with_context(doing)?;
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                make_private(dir).with_context(doing)?;
            }
            Err(error) => return Err(error).with_context(doing),
        }
        let folder = Self(dir.to_owned());
        for below in [folder.logs(), folder.blobs(), folder.runner(), folder.tmp()] {
            make_private(&below).with_context(doing)?;
        }
        Ok(folder)
    }

    /// The folder of a server that was here before, or a copy of one: a backup has no lock.
    pub(crate) fn existing(dir: &Path) -> Result<Self> {
        if ![LOCK, DATABASE, SECRET]
            .iter()
            .any(|name| dir.join(name).exists())
        {
            bail!(
                "there is no server's data in {}: name the folder with --data, or start `grid server` once",
                dir.display()
            );
        }
        Self::open(dir)
    }

    /// Claims the folder for a command.
    pub(crate) fn lock(&self) -> Result<Locked> {
        self.lock_as(&format!("{} {COMMAND}", std::process::id()))
    }

    fn lock_as(&self, who: &str) -> Result<Locked> {
        let path = self.0.join(LOCK);
        let doing = || format!("cannot lock {}", path.display());
        let mut options = OpenOptions::new();
        options
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .mode(0o600);
        let mut file = options.open(&path).with_context(doing)?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {
                file.set_len(0).with_context(doing)?;
                writeln!(file, "{who}").with_context(doing)?;
                Ok(Locked::Ours(Lock(file)))
            }
            Err(rustix::io::Errno::WOULDBLOCK) => {
                let mut text = String::new();
                file.read_to_string(&mut text).with_context(doing)?;
                Ok(Locked::Theirs(Holder::read(&text)))
            }
            Err(error) => Err(error).with_context(doing),
        }
    }

    /// Claims it for a command, or says who has it.
    pub(crate) fn lock_or_refuse(&self) -> Result<Lock> {
        match self.lock()? {
            Locked::Ours(lock) => Ok(lock),
            Locked::Theirs(holder) => Err(self.refusal(&holder)),
        }
    }

    /// Claims it for a server: a command that works in it is waited for, another server is not.
    pub(crate) async fn lock_to_serve(&self) -> Result<Lock> {
        let waiting = async {
            let mut is_told = false;
            loop {
                match self.lock_as(&std::process::id().to_string())? {
                    Locked::Ours(lock) => return Ok(lock),
                    Locked::Theirs(holder) if holder.is_soon_over() => {
                        if !is_told && holder.is_command {
                            tracing::info!(
                                pid = holder.pid,
                                "a command works in the data folder; waiting for its end"
                            );
                            is_told = true;
                        }
                    }
                    Locked::Theirs(holder) => return Err(self.refusal(&holder)),
                }
                tokio::time::sleep(COMMAND_LOOK_EVERY).await;
            }
        };
        match tokio::time::timeout(COMMAND_WAIT, waiting).await {
            Ok(locked) => locked,
            Err(_) => self.lock_or_refuse(),
        }
    }

    fn refusal(&self, holder: &Holder) -> anyhow::Error {
        let pid = holder.pid.map(|pid| format!(" (process {pid})"));
        let (who, folder) = (pid.unwrap_or_default(), self.0.display());
        if holder.is_command {
            return anyhow!("a command{who} works in {folder}: wait for its end, or stop it");
        }
        anyhow!(
            "another server{who} works in {folder}: stop it first, or choose another folder with --data"
        )
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    pub(crate) fn database(&self) -> PathBuf {
        self.0.join(DATABASE)
    }

    pub(crate) fn logs(&self) -> PathBuf {
        self.0.join("logs")
    }

    pub(crate) fn blobs(&self) -> PathBuf {
        self.0.join("blobs")
    }

    pub(crate) fn runner(&self) -> PathBuf {
        self.0.join("runner")
    }

    pub(crate) fn tmp(&self) -> PathBuf {
        self.0.join("tmp")
    }

    pub(crate) fn secret_path(&self) -> PathBuf {
        self.0.join(SECRET)
    }

    pub(crate) fn credential_key_path(&self) -> PathBuf {
        self.0.join(CREDENTIAL_KEY)
    }

    pub(crate) fn operator_path(&self) -> PathBuf {
        self.0.join(OPERATOR)
    }

    /// Removes what a former server left under way.
    pub(crate) fn empty_tmp(&self) -> Result<()> {
        let tmp = self.tmp();
        std::fs::remove_dir_all(&tmp)
            .and_then(|()| make_private(&tmp))
            .with_context(|| format!("cannot empty {}", tmp.display()))
    }

    /// Whether there is something to sign links with.
    pub(crate) fn has_secret(&self) -> bool {
        self.secret_path().exists()
    }

    /// What signs links; drawn at the first start.
    pub(crate) fn secret(&self) -> Result<[u8; 32]> {
        let path = self.secret_path();
        let doing = || format!("cannot use the secret in {}", path.display());
        match std::fs::read(&path) {
            Ok(bytes) => bytes.try_into().map_err(|bytes: Vec<u8>| {
                anyhow::anyhow!(
                    "{} has {} bytes instead of 32: put the right one back, or remove it \
                     (links that were made with it end)",
                    path.display(),
                    bytes.len()
                )
            }),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                let mut secret = [0; 32];
                rustix::rand::getrandom(&mut secret, rustix::rand::GetRandomFlags::empty())
                    .with_context(doing)?;
                write_private(&path, &secret).with_context(doing)?;
                Ok(secret)
            }
            Err(error) => Err(error).with_context(doing),
        }
    }

    /// The first user, if the file is there and reads.
    pub(crate) fn operator(&self) -> Option<Operator> {
        let bytes = std::fs::read(self.operator_path()).ok()?;
        serde_json::from_slice(&bytes).ok()
    }

    pub(crate) fn write_operator(&self, operator: &Operator) -> Result<()> {
        write_json(&self.operator_path(), operator)
    }

    /// Where the server that runs here says it is.
    pub(crate) fn running(&self) -> Result<Running> {
        let path = self.0.join(SERVER);
        let read = || Ok::<_, anyhow::Error>(serde_json::from_slice(&std::fs::read(&path)?)?);
        read().with_context(|| format!("cannot read {}", path.display()))
    }

    pub(crate) fn write_running(&self, running: &Running) -> Result<()> {
        write_json(&self.0.join(SERVER), running)
    }

    /// The server is going: nobody should look for it.
    pub(crate) fn remove_running(&self) {
        // What stays behind names a process that is not there; readers cope.
        let _ = std::fs::remove_file(self.0.join(SERVER));
    }
}

fn make_private(dir: &Path) -> std::io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(dir)
}

fn write_json(path: &Path, content: &impl Serialize) -> Result<()> {
    let mut text = serde_json::to_vec_pretty(content)?;
    text.push(b'\n');
    write_private(path, &text).with_context(|| format!("cannot write {}", path.display()))
}

/// Writes a file that only its owner can read, whole or not at all, also when the
/// machine stops.
pub(crate) fn write_private(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(".new");
    let mut options = OpenOptions::new();
    let mut file = options
        .create(true)
        .truncate(true)
        .write(true)
        .mode(0o600)
        .open(&temporary)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    std::fs::rename(&temporary, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        std::fs::metadata(path).expect("there").permissions().mode() & 0o777
    }

    #[tokio::test]
    async fn a_server_waits_for_a_command_and_not_for_a_server() {
        let dir = tempfile::tempdir().expect("a folder");
        let folder = Folder::open(&dir.path().join("data")).expect("opened");
        let command = folder.lock_or_refuse().expect("locked");
        let error = folder.lock_or_refuse().expect_err("taken").to_string();
        assert!(error.starts_with("a command (process"), "{error}");
        let waiting = folder.lock_to_serve();
        let ending = async {
            tokio::task::yield_now().await;
            drop(command);
        };
        let (server, ()) = tokio::join!(waiting, ending);
        let server = server.expect("locked after the command");
        let error = folder.lock_to_serve().await.expect_err("taken").to_string();
        assert!(error.starts_with("another server (process"), "{error}");
        drop(server);
        // Of a server that was killed the line is left.
        std::fs::write(folder.path().join(LOCK), "4194305\n").expect("written");
        folder.lock_to_serve().await.expect("locked");
    }

    #[test]
    fn a_folder_is_private_and_locked_once() {
        let dir = tempfile::tempdir().expect("a folder");
        let data = dir.path().join("deep/data");
        let folder = Folder::open(&data).expect("opened");
        let lock = folder.lock_or_refuse().expect("locked");
        let error = Folder::open(&data)
            .expect("opened")
            .lock_or_refuse()
            .expect_err("taken");
        let pid = std::process::id().to_string();
        assert!(error.to_string().contains(&pid), "{error}");
        drop(lock);
        folder.lock_or_refuse().expect("free again");
        assert_eq!(mode(&data), 0o700);
        assert_eq!(mode(&data.join("blobs")), 0o700);
    }

    #[test]
    fn the_secret_stays() {
        let dir = tempfile::tempdir().expect("a folder");
        let folder = Folder::open(&dir.path().join("data")).expect("opened");
        let secret = folder.secret().expect("drawn");
        assert_ne!(secret, [0; 32]);
        assert_eq!(folder.secret().expect("read"), secret);
        assert_eq!(mode(&folder.secret_path()), 0o600);
    }

    #[test]
    fn a_folder_with_other_things_is_refused() {
        let dir = tempfile::tempdir().expect("a folder");
        std::fs::write(dir.path().join("thesis.tex"), "").expect("written");
        let before = mode(dir.path());
        let error = Folder::open(dir.path()).expect_err("refused");
        assert!(error.to_string().contains("holds other things"), "{error}");
        assert_eq!(mode(dir.path()), before);
    }
}
