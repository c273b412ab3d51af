//! Puts the original client where the tests find it: once for each content of the pins.
//!
//! Everything lies in one folder below the build's own, named after what it was made of, so
//! that a second test, and the next check, find it made.  Two programs that want it at once
//! wait for each other by a lock on a file.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;

use anyhow::{Context, Result, bail, ensure};

/// Everything the newest client needs, pinned.
const REQUIREMENTS: &str = include_str!("../../original-client/requirements.txt");

/// Which older clients there are, and what they need instead.
const OLDER: &str = include_str!("../../original-client/older.txt");

/// What Python 3.11 needs to import the client.
const FOR_PYTHON_311: &str = include_str!("../../original-client/grid_python311.py");

/// The newest version, which is the one that people have.
pub const NEWEST: &str = "0.8.81";

/// The older versions that are tried, newest first.
pub const OLDER_VERSIONS: [&str; 4] = ["0.8.60", "0.8.50", "0.8.20", "0.8.0"];

/// The clients, ready to be started.
#[derive(Debug)]
pub struct Clients {
    folder: PathBuf,
}

impl Clients {
    /// Those of this build; made first if nobody has yet.
    ///
    /// # Panics
    /// When they cannot be made, with the reason: there is no test without them.
    pub fn ready() -> &'static Self {
        static CLIENTS: OnceLock<Clients> = OnceLock::new();
        CLIENTS.get_or_init(|| {
            let target = target_folder().expect("the folder of the build");
            Self::make(&target.join("tools")).unwrap_or_else(|error| {
                panic!("the original client could not be installed: {error:#}")
            })
        })
    }

    /// Makes what is missing below `tools`.
    ///
    /// # Errors
    /// When there is no Python 3.11, or the packages cannot be had.
    pub fn make(tools: &Path) -> Result<Self> {
        let all = tools.join("original-client");
        std::fs::create_dir_all(&all).context("making the folder for the original client")?;
        let lock = std::fs::File::create(all.join("lock")).context("opening the lock")?;
        rustix::fs::flock(&lock, rustix::fs::FlockOperation::LockExclusive)
            .context("waiting for whoever else installs the original client")?;
        let clients = Self {
            folder: all.join(content()),
        };
        if !clients.folder.join("complete").exists() {
            remove_others(&all)?;
            clients.install()?;
            std::fs::write(clients.folder.join("complete"), "").context("marking it complete")?;
        }
        Ok(clients)
    }

    /// The start of a command of the client, in this version, as it was installed.
    ///
    /// # Panics
    /// When the version is not one of those that are tried.
    pub fn command(&self, version: &str) -> Command {
        if version == NEWEST {
            return Command::new(self.newest().join("bin/grid"));
        }
        assert!(OLDER_VERSIONS.contains(&version), "which is {version}?");
        let own = self.folder.join(version);
        let mut command = Command::new(self.python());
        command
            // Before the packages of the newest, which it shares.
            .env("PYTHONPATH", &own)
            .arg(own.join("bin/grid"));
        command
    }

    /// The Python that has the newest client.
    pub fn python(&self) -> PathBuf {
        self.newest().join("bin/python")
    }

    fn newest(&self) -> PathBuf {
        self.folder.join(NEWEST)
    }

    fn install(&self) -> Result<()> {
        let requirements = self.folder.join("requirements.txt");
        std::fs::create_dir_all(&self.folder).context("making a folder")?;
        std::fs::write(&requirements, REQUIREMENTS).context("writing the requirements")?;
        let python = python_311()?;
        let newest = self.newest();
        // `uv` is much faster, and not on every machine.
        let uv = works(Command::new("uv").arg("--version"));
        if uv {
            done(
                Command::new("uv")
                    .args(["venv", "--quiet", "--python", &python])
                    .arg(&newest),
            )?;
        } else {
            done(Command::new(&python).args(["-m", "venv"]).arg(&newest))?;
        }
        let packages = |arguments: &[&str], folder: Option<&Path>| {
            let mut install = if uv {
                let mut uv = Command::new("uv");
                uv.args(["pip", "install", "--quiet", "--python"])
                    .arg(self.python());
                uv
            } else {
                let mut pip = Command::new(newest.join("bin/pip"));
                pip.args(["install", "--quiet", "--disable-pip-version-check"]);
                pip
            };
            install.arg("--no-deps").args(arguments);
            if let Some(folder) = folder {
                install.arg("--target").arg(folder);
            }
            done(&mut install)
        };
        packages(&["-r", &requirements.display().to_string()], None)?;
        for (version, instead) in older() {
            let client = format!("lightning-grid=={version}");
            let wanted: Vec<&str> = std::iter::once(client.as_str()).chain(instead).collect();
            packages(&wanted, Some(&self.folder.join(version)))?;
        }
        let site = newest.join("lib/python3.11/site-packages");
        for (name, text) in [
            ("grid_python311.py", FOR_PYTHON_311),
            ("grid_python311.pth", "import grid_python311\n"),
        ] {
            std::fs::write(site.join(name), text).context("writing what Python 3.11 needs")?;
        }
        // A client that compiles itself at each start takes twice as long, and some machines
        // forbid Python to keep what it compiled.
        done(
            Command::new(self.python())
                .env_remove("PYTHONDONTWRITEBYTECODE")
                .args(["-m", "compileall", "-q"])
                .arg(&self.folder),
        )
    }
}

/// The folder into which everything is built, seen from a program in `PROFILE/` or `PROFILE/deps`.
fn target_folder() -> Result<PathBuf> {
    let own = std::env::current_exe().context("asking where this program is")?;
    let folder = own
        .ancestors()
        .skip(1)
        .find(|folder| folder.join("CACHEDIR.TAG").exists());
    Ok(folder
        .context("looking for the folder of the build")?
        .to_owned())
}

/// The versions in `older.txt`, each with the packages that it needs instead.
fn older() -> impl Iterator<Item = (&'static str, Vec<&'static str>)> {
    let lines = OLDER.lines().filter(|line| !line.starts_with('#'));
    lines.filter_map(|line| {
        let mut words = line.split_whitespace();
        Some((words.next()?, words.collect()))
    })
}

/// A name for what the pins say.
fn content() -> String {
    let mut hasher = DefaultHasher::new();
    (REQUIREMENTS, OLDER, FOR_PYTHON_311).hash(&mut hasher);
    format!("{:016x}", hasher.finish())
}

/// Takes away what was made of other pins, or was not finished.
fn remove_others(all: &Path) -> Result<()> {
    for entry in std::fs::read_dir(all).context("looking for older installations")? {
        let path = entry.context("looking for older installations")?.path();
        if path.is_dir() {
            std::fs::remove_dir_all(&path)
                .with_context(|| format!("removing {}", path.display()))?;
        }
    }
    Ok(())
}

/// The name of a CPython 3.11: what the packages are pinned for.
fn python_311() -> Result<String> {
    let is_it = "import sys, venv; raise SystemExit(sys.version_info[:2] != (3, 11))";
    for name in ["python3.11", "python3"] {
        if works(Command::new(name).args(["-c", is_it])) {
            return Ok(name.to_owned());
        }
    }
    bail!("there is no CPython 3.11 with the module venv on the PATH")
}

fn works(command: &mut Command) -> bool {
    output(command).is_ok_and(|output| output.status.success())
}

fn done(command: &mut Command) -> Result<()> {
    let output = output(command)?;
    ensure!(
        output.status.success(),
        "{command:?} ended with {}:\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(())
}

fn output(command: &mut Command) -> Result<Output> {
    command
        .stdin(std::process::Stdio::null())
        .output()
        .with_context(|| format!("starting {command:?}"))
}

#[cfg(test)]
mod tests {
    use super::{NEWEST, OLDER_VERSIONS, REQUIREMENTS, older};

    #[test]
    fn the_files_and_the_code_know_the_same_versions() {
        let pinned = format!("lightning-grid=={NEWEST}");
        assert!(REQUIREMENTS.lines().any(|line| line == pinned));
        let versions: Vec<_> = older().map(|(version, _)| version).collect();
        assert_eq!(versions, OLDER_VERSIONS);
    }
}
