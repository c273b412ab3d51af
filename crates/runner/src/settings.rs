//! What a runner is told by the file it is started with.
//!
//! The file is written by whoever starts the runner and holds its token, so it is
//! readable by its owner only.  It is read again whenever the server cannot be
//! reached: a server that was started anew may listen elsewhere.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use grid_core::id::NodeId;
use serde::Deserialize;

use crate::sandbox::Sandbox;

/// The content of the file.
#[derive(Clone, Deserialize)]
pub struct Config {
    /// Where the server listens: `http://HOST:PORT`.
    pub url: String,
    /// What proves to the server who is calling.
    pub token: String,
    /// The name of this machine.
    pub node: NodeId,
    /// The runner's folder: attempts, spools, caches.
    pub dir: PathBuf,
    /// Whether users' processes are confined.
    #[serde(default)]
    pub sandbox: Sandbox,
    /// CPUs to hand out instead of those found.
    #[serde(default)]
    pub cpus: Option<u32>,
    /// GPUs to hand out instead of those found.
    #[serde(default)]
    pub gpus: Option<u32>,
    /// A file of certificate authorities to trust, as PEM.
    #[serde(default)]
    pub ca_file: Option<PathBuf>,
    /// Folders that no experiment may see.
    #[serde(default)]
    pub hide: Vec<PathBuf>,
    /// After how long without the server the runner ends what it runs; never when
    /// absent, which is right where the server lives on the same machine.
    #[serde(default)]
    pub silence_max_ms: Option<u64>,
    /// After how long without the server a runner that has nothing to run ends; a minute
    /// when absent.
    #[serde(default)]
    pub idle_max_ms: Option<u64>,
    /// Most bytes of datastores that are kept here; half of the disk when absent.
    #[serde(default)]
    pub data_cache_bytes: Option<u64>,
    /// Where `uv` is, when it is not on the `PATH`.
    #[serde(default)]
    pub uv: Option<PathBuf>,
}

/// The file and what it said last.
#[derive(Clone)]
pub struct Settings {
    /// Where the file is.
    pub path: PathBuf,
    /// What it said.
    pub config: Config,
}

impl Settings {
    /// Reads the file.
    pub fn load(path: &Path) -> anyhow::Result<Self> {
        Ok(Self {
            path: path.to_owned(),
            config: read(path)?,
        })
    }
}

/// Reads the file anew.
pub(crate) fn read(path: &Path) -> anyhow::Result<Config> {
    let text = std::fs::read(path)
        .with_context(|| format!("cannot read the configuration {}", path.display()))?;
    let config: Config = serde_json::from_slice(&text)
        .with_context(|| format!("the configuration {} does not read", path.display()))?;
    anyhow::ensure!(
        config.dir.is_absolute(),
        "the configuration {} names the folder '{}', which is not absolute",
        path.display(),
        config.dir.display()
    );
    Ok(config)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_said_has_a_default() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        let text = r#"{"url":"http://127.0.0.1:1","token":"t","node":"local","dir":"/d","sandbox":"off","later":1}"#;
        std::fs::write(file.path(), text).expect("written");
        let config = read(file.path()).expect("it reads");
        assert_eq!(config.sandbox, Sandbox::Off);
        assert_eq!(config.silence_max_ms, None);
        std::fs::write(file.path(), text.replace("/d", "d")).expect("written");
        assert!(
            read(file.path()).is_err(),
            "a relative folder depends on where one stands"
        );
    }
}
