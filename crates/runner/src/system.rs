//! What this machine is, and what of it a runner uses.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use grid_core::cluster::Node;
use rustix::fs::FlockOperation;

use crate::attempt::command::{find, split_path};
use crate::attempt::confine::Confinement;
use crate::context::{Context, Parts};
use crate::detect::{self, Machine, Tool};
use crate::folder::Folder;
use crate::keeper::client::Starter;
use crate::keeping::Keeping;
use crate::limits::Driver;
use crate::prepare::Prepare;
use crate::prepare::code::Trees;
use crate::prepare::data::Versions;
use crate::prepare::environment::Environments;
use crate::prepare::environment::tools::Tools;
use crate::server::Server;
use crate::settings::{Config, Settings};

/// Where programs are looked for when nothing else is said.
const SEARCH_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Looks at the machine, and connects to the keeper.
pub(crate) async fn open(settings: &Settings, starter: Option<Starter>) -> anyhow::Result<Context> {
    let config = &settings.config;
    let folder = Folder::open(&config.dir)
        .with_context(|| format!("cannot use the folder {}", config.dir.display()))?;
    let lock = lock(&config.dir).await?;
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
    let tools = tools(config, &machine, &search_path, python).await;
    let environments = Environments::new(folder.cache("envs"), folder.cache("packages"), tools)
        .context("the cache of environments cannot be opened")?;
    let trees = Trees::new(folder.cache("blobs"), &folder.cache("trees"))
        .context("the cache of code cannot be opened")?;
    let versions = Versions::new(&folder.cache("data"), config.data_cache_bytes)
        .context("the cache of datastores cannot be opened")?;
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
        prepare: Prepare {
            trees,
            versions,
            environments,
        },
        search_path,
        folder,
        lock,
    }))
}

/// How long a former runner of the same folder may take to go.  Higher: a mistake is
/// noticed later; lower: a busy machine fails to replace its runner.
const LOCK_MAX: Duration = Duration::from_secs(10);

/// Time between two tries.
const LOCK_EVERY: Duration = Duration::from_millis(50);

/// Makes this the only runner of its folder: two would do everything twice.
async fn lock(dir: &Path) -> anyhow::Result<File> {
    let path = dir.join("runner.lock");
    let file = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&path);
    let file = file.with_context(|| format!("cannot open {}", path.display()))?;
    let locked = async {
        while rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
            tokio::time::sleep(LOCK_EVERY).await;
        }
    };
    let patient = tokio::time::timeout(LOCK_MAX, locked).await;
    patient.with_context(|| format!("another runner uses {}; end it first", dir.display()))?;
    Ok(file)
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

/// What builds environments.  Launchers that look for the real program do not work
/// in a sandbox, so uv is asked for through the interpreter it was installed with.
async fn tools(
    config: &Config,
    machine: &Machine,
    path: &[PathBuf],
    python: Option<Python>,
) -> Tools {
    let mut uv = config.uv.clone();
    if uv.is_none()
        && machine.tools.contains_key(&Tool::Uv)
        && let Some(python) = &python
    {
        let told = ask(&python.program, "import uv; print(uv.find_uv_bin())").await;
        uv = told
            .first()
            .map(PathBuf::from)
            .filter(|path| path.is_file());
    }
    Tools {
        uv: uv.or_else(|| find("uv", path)),
        version: python
            .as_ref()
            .map(|python| python.version.clone())
            .unwrap_or_default(),
        python: python.map(|python| python.program),
        conda: ["micromamba", "mamba", "conda"]
            .iter()
            .find_map(|name| find(name, path)),
        julia: find("julia", path),
        images: ["podman", "docker"]
            .iter()
            .find_map(|name| find(name, path)),
    }
}

/// The interpreter itself, where `python3` may be a launcher that looks for it.
struct Python {
    program: PathBuf,
    prefix: PathBuf,
    /// Version and path: what an environment depends on.
    version: String,
}

impl Python {
    async fn find(machine: &Machine) -> Option<Self> {
        let found = machine.tools.get(&Tool::Python)?;
        let code = "import sys; print(sys.executable); print(sys.base_prefix); print(sys.version.replace('\\n', ' '))";
        let told = ask(found, code).await;
        let mut lines = told.into_iter();
        match (lines.next(), lines.next(), lines.next()) {
            (Some(program), Some(prefix), Some(version)) if program.starts_with('/') => {
                Some(Self {
                    version: format!("{program} {version}"),
                    program: program.into(),
                    prefix: prefix.into(),
                })
            }
            _ => Some(Self {
                program: found.clone(),
                prefix: "/usr".into(),
                version: found.display().to_string(),
            }),
        }
    }
}

/// The lines that the interpreter prints for some code; none when it fails.
async fn ask(python: &Path, code: &str) -> Vec<String> {
    let asked = tokio::process::Command::new(python)
        .args(["-I", "-c", code])
        .stdin(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .kill_on_drop(true)
        .output();
    match tokio::time::timeout(PYTHON_MAX, asked).await {
        Ok(Ok(output)) if output.status.success() => String::from_utf8_lossy(&output.stdout)
            .lines()
            .map(str::to_owned)
            .collect(),
        _ => Vec::new(),
    }
}

/// How long the interpreter may take to say where it is.  Higher: a broken one
/// delays the start; lower: a cold disk makes it look broken.
const PYTHON_MAX: Duration = Duration::from_secs(20);
