//! What this machine is, and what of it a runner uses.

use std::path::PathBuf;

use anyhow::Context as _;
use grid_core::cluster::Node;

use crate::attempt::command::split_path;
use crate::attempt::confine::Confinement;
use crate::context::{Context, Parts};
use crate::detect::{self, Machine, Tool};
use crate::folder::Folder;
use crate::keeper::client::Starter;
use crate::keeping::Keeping;
use crate::limits::Driver;
use crate::prepare::Prepare;
use crate::prepare::code::Trees;
use crate::server::Server;
use crate::settings::{Config, Settings};

/// Where programs are looked for when nothing else is said.
const SEARCH_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Looks at the machine, and connects to the keeper.
pub(crate) async fn open(settings: &Settings, starter: Option<Starter>) -> anyhow::Result<Context> {
    let config = &settings.config;
    let folder = Folder::open(&config.dir)
        .with_context(|| format!("cannot use the folder {}", config.dir.display()))?;
    let machine = tokio::task::spawn_blocking(detect::machine)
        .await
        .context("looking at the machine failed")?;
    let isolation = config.sandbox.resolve(&machine.bubblewrap)?;
    let driver = Driver::detect(&group_name(config));
    let mut warnings: Vec<String> = isolation.warning().map(str::to_owned).into_iter().collect();
    warnings.extend(driver.describe());
    let python = Python::find(&machine).await;
    if python.is_none() {
        warnings.push(
            "there is no python3 on this machine: Python scripts and environments fail".to_owned(),
        );
    }
    let mut hidden = vec![config.dir.clone()];
    hidden.extend(config.hide.iter().cloned());
    let readable = python
        .iter()
        .filter(|python| !python.prefix.starts_with("/usr"))
        .map(|python| python.prefix.clone());
    let confinement = Confinement {
        isolation,
        driver,
        hidden,
        readable: readable.collect(),
    };
    let search_path = confinement.visible(search_path(python.as_ref()));
    let starter = starter.unwrap_or_else(|| Starter::this_program(&folder.keeper()));
    let keeper = Keeping::connect(&folder.keeper(), starter).await?;
    let trees = Trees::new(folder.cache("blobs"), folder.cache("trees"));
    Ok(Context::new(Parts {
        server: Server::new(settings)?,
        keeper,
        node: node(config, &machine),
        warnings,
        tools: machine
            .tools
            .keys()
            .map(|tool| tool.program().to_owned())
            .collect(),
        confinement,
        prepare: Prepare::new(trees, python.map(|python| python.program)),
        search_path,
        folder,
    }))
}

/// The name of this runner's control groups.  Two runners of one machine may have
/// the same name of a node, and must not remove each other's groups.
fn group_name(config: &Config) -> String {
    let hash = blake3::hash(config.dir.as_os_str().as_encoded_bytes()).to_hex();
    format!("{}-{}", config.node, hash.get(..8).unwrap_or_default())
}

fn node(config: &Config, machine: &Machine) -> Node {
    Node {
        id: config.node.clone(),
        cpus: config.cpus.unwrap_or_else(|| machine.whole_cpus()).max(1),
        gpus: config
            .gpus
            .unwrap_or_else(|| u32::try_from(machine.gpus.len()).unwrap_or(u32::MAX)),
        memory_bytes: machine.memory_bytes,
    }
}

/// The system's search path, with the interpreter's own folder before it when that
/// lies where people's things are: a launcher on the path could not find it there.
fn search_path(python: Option<&Python>) -> Vec<PathBuf> {
    let told = std::env::var("PATH").unwrap_or_default();
    let mut path = split_path(if told.is_empty() { SEARCH_PATH } else { &told });
    if let Some(python) = python
        && let Some(folder) = python.program.parent()
        && !python.prefix.starts_with("/usr")
    {
        path.insert(0, folder.to_owned());
    }
    path
}

/// The interpreter itself, where `python3` may be a launcher that looks for it.
struct Python {
    program: PathBuf,
    prefix: PathBuf,
}

impl Python {
    async fn find(machine: &Machine) -> Option<Self> {
        let found = machine.tools.get(&Tool::Python)?;
        let asked = tokio::process::Command::new(found)
            .args([
                "-I",
                "-c",
                "import sys; print(sys.executable); print(sys.base_prefix)",
            ])
            .stdin(std::process::Stdio::null())
            .kill_on_drop(true)
            .output();
        let output = tokio::time::timeout(PYTHON_MAX, asked).await.ok()?.ok()?;
        let text = String::from_utf8(output.stdout).ok()?;
        let mut lines = text.lines().map(PathBuf::from);
        match (lines.next(), lines.next()) {
            (Some(program), Some(prefix)) if program.is_absolute() => {
                Some(Self { program, prefix })
            }
            _ => Some(Self {
                program: found.clone(),
                prefix: "/usr".into(),
            }),
        }
    }
}

/// How long the interpreter may take to say where it is.  Higher: a broken one
/// delays the start; lower: a cold disk makes it look broken.
const PYTHON_MAX: std::time::Duration = std::time::Duration::from_secs(20);
