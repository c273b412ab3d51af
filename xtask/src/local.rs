//! A Grid of one's own below the repository: a server, and people who talk to it.
//!
//! Nobody's own settings are read or changed: each person has a home folder beside the server's
//! data. Dropping the server stops it the way a person would, with SIGTERM, and then what it has
//! left running.

use std::fs::File;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rustix::process::Signal;
use serde_json::Value;

use crate::process::{command, end, must, output_of, shown};
use crate::{build, clock, interrupt, leftover, setup, ui};

/// How long the server may take until it answers.
/// Lower, and a busy machine counts as broken; higher, and a broken server is noticed late.
const START_LIMIT: Duration = Duration::from_secs(30);

/// A running server and its folder.
pub(crate) struct Server {
    child: Child,
    folder: PathBuf,
    pub(crate) url: String,
}

impl Server {
    /// Starts `grid server` with its data below `folder`, and waits until it answers.
    pub(crate) fn start(folder: &Path, port: u16) -> Result<Self> {
        Self::start_with(folder, port, &[], &[])
    }

    /// The same, with more flags and variables.
    pub(crate) fn start_with(
        folder: &Path,
        port: u16,
        flags: &[&str],
        variables: &[(&str, &str)],
    ) -> Result<Self> {
        let address = format!("127.0.0.1:{port}");
        if TcpStream::connect(&address).is_ok() {
            bail!("something listens on {address} already; end it, or choose another port");
        }
        std::fs::create_dir_all(folder).with_context(|| format!("making {}", folder.display()))?;
        let log_path = folder.join("server.log");
        let log =
            File::create(&log_path).with_context(|| format!("making {}", log_path.display()))?;
        let mut server = command(build::grid());
        server
            .args(["server", "--listen", &address, "--data"])
            .arg(folder.join("server"))
            .args(flags);
        server
            .stdin(Stdio::null())
            .stderr(log.try_clone().context("sharing the log")?)
            .stdout(log);
        let child = without_overrides(setup::with_tools(&mut server))
            .envs(variables.iter().copied())
            .spawn()
            .context("starting grid server")?;
        let mut started = Self {
            child,
            folder: folder.to_owned(),
            url: format!("http://{address}"),
        };
        started.wait_until_ready(&address).with_context(|| {
            let said = std::fs::read_to_string(&log_path).unwrap_or_default();
            format!(
                "the server does not answer; {} says:\n{said}",
                log_path.display()
            )
        })?;
        Ok(started)
    }

    fn wait_until_ready(&mut self, address: &str) -> Result<()> {
        let operator = self.operator_file();
        let ready = clock::wait_for(START_LIMIT, || {
            if interrupt::requested() || !matches!(self.child.try_wait(), Ok(None)) {
                return Some(false);
            }
            (operator.exists() && TcpStream::connect(address).is_ok()).then_some(true)
        });
        match ready {
            Some(true) => Ok(()),
            Some(false) => bail!("it ended at once"),
            None => bail!("it did not get ready within {}", clock::human(START_LIMIT)),
        }
    }

    /// What the server has printed so far.
    pub(crate) fn log(&self) -> Result<String> {
        let path = self.folder.join("server.log");
        std::fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))
    }

    /// The folder of everything the server keeps.
    pub(crate) fn data(&self) -> PathBuf {
        self.folder.join("server")
    }

    /// Whether it still runs.
    pub(crate) fn is_up(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    pub(crate) fn operator_file(&self) -> PathBuf {
        self.data().join("operator.json")
    }

    /// The operator whom the first start has made.
    pub(crate) fn operator(&self) -> Result<Person> {
        let path = self.operator_file();
        let text = std::fs::read_to_string(&path)
            .with_context(|| format!("reading {}", path.display()))?;
        let operator: Value =
            serde_json::from_str(&text).with_context(|| format!("reading {}", path.display()))?;
        let mut person = self.person("operator")?;
        for (variable, field) in [
            ("GRID_URL", "url"),
            ("GRID_USER_ID", "user_id"),
            ("GRID_API_KEY", "api_key"),
        ] {
            let value = operator[field]
                .as_str()
                .with_context(|| format!("{} has no {field}", path.display()))?;
            person.variables.push((variable, value.into()));
        }
        Ok(person)
    }

    /// Somebody with a home folder of their own, and nothing in it yet.
    pub(crate) fn person(&self, name: &str) -> Result<Person> {
        let home = self.folder.join("home").join(name);
        std::fs::create_dir_all(&home).with_context(|| format!("making {}", home.display()))?;
        let credentials = home.join("credentials.json");
        let variables = vec![("HOME", home), ("GRID_CREDENTIAL_PATH", credentials)];
        Ok(Person {
            name: name.to_owned(),
            url: self.url.clone(),
            variables,
        })
    }

    /// Waits until the person has had enough.
    pub(crate) fn wait_for_interrupt(&mut self) -> Result<()> {
        while !interrupt::requested() {
            if let Some(status) = self.child.try_wait().context("looking at the server")? {
                bail!(
                    "the server ended by itself ({status}); see {}",
                    self.folder.join("server.log").display()
                );
            }
            clock::pause();
        }
        Ok(())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        end(&mut self.child, Signal::TERM);
        if let Err(error) = end_leftovers(&self.folder) {
            ui::warn(&format!("error: {error:#}"));
        }
    }
}

/// Ends what an earlier server on this folder has left running.
pub(crate) fn end_leftovers(folder: &Path) -> Result<()> {
    leftover::end_all(&build::grid(), folder)
}

/// Somebody who types `grid …`.
pub(crate) struct Person {
    pub(crate) name: String,
    url: String,
    variables: Vec<(&'static str, PathBuf)>,
}

impl Person {
    /// `grid` with these arguments, as this person.
    pub(crate) fn grid(&self, args: &[&str]) -> Command {
        let mut grid = command(build::grid());
        setup::with_tools(without_overrides(&mut grid))
            .args(args)
            .stdin(Stdio::null());
        for (name, value) in &self.variables {
            grid.env(name, value);
        }
        grid
    }

    /// Types a command, in a folder: shows it, then what it says.
    pub(crate) fn types(&self, folder: &Path, args: &[&str]) -> Result<()> {
        let mut grid = self.grid(args);
        ui::say(&format!("\n$ {}", typed(&grid)));
        must(grid.current_dir(folder))
    }

    /// Asks without showing it: the same command with JSON as its output.
    pub(crate) fn asks(&self, args: &[&str]) -> Result<Value> {
        let mut grid = self.grid(args);
        let text = output_of(grid.args(["--output", "json"]))?;
        serde_json::from_str(&text)
            .with_context(|| format!("reading what {} printed", typed(&grid)))
    }

    /// What another terminal needs to be this person.
    pub(crate) fn exports(&self) -> String {
        let own = self
            .variables
            .iter()
            .filter(|(name, _)| name.starts_with("GRID_"));
        let lines = own.map(|(name, value)| format!("  export {name}={}", value.display()));
        let url = format!("  export GRID_URL={}", self.url);
        std::iter::once(url)
            .chain(lines)
            .collect::<Vec<_>>()
            .join("\n")
    }
}

/// Removes the caller's own `GRID_…`, which would win over what stands in the home folder.
fn without_overrides(command: &mut Command) -> &mut Command {
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("GRID_") {
            command.env_remove(name);
        }
    }
    command
}

/// The command with the program's bare name, as it stands in the documentation.
fn typed(command: &Command) -> String {
    let line = shown(command);
    let path = shown(&Command::new(build::grid()));
    line.strip_prefix(&path)
        .map_or(line.clone(), |rest| format!("grid{rest}"))
}

#[cfg(test)]
mod tests {
    use super::{Command, PathBuf, Person, build, typed};

    #[test]
    fn commands_are_shown_as_people_type_them() {
        let mut grid = Command::new(build::grid());
        grid.args(["run", "--lr", "[0.1, 0.2]"]);
        assert_eq!(typed(&grid), "grid run --lr '[0.1, 0.2]'");
    }

    #[test]
    fn a_person_has_a_home_of_their_own_and_nothing_of_the_callers() {
        let variables = vec![("HOME", PathBuf::from("/tmp/ada"))];
        let grid = Person {
            name: "ada".to_owned(),
            url: String::new(),
            variables,
        }
        .grid(&["status"]);
        let value = |name: &str| {
            grid.get_envs()
                .find(|(key, _)| *key == name)
                .map(|(_, value)| value)
        };
        assert_eq!(value("HOME"), Some(Some("/tmp/ada".as_ref())));
        let own = std::env::vars_os().map(|(name, _)| name.to_string_lossy().into_owned());
        let mut own = own.filter(|name| name.starts_with("GRID_"));
        assert!(own.all(|name| value(&name) == Some(None)));
    }
}
