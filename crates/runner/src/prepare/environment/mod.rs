//! Environments: what an experiment needs beside its code, built once by content
//! and shared, read-only, by all later experiments of the same person.
//!
//! An environment is built in the folder where it will be used, because the programs
//! in it know their own path; a file that is written last says that it is complete.

mod plan;
mod requirements;
mod script;
pub(crate) mod tools;

use std::collections::HashMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use grid_api::snapshot::{TreeEntry, TreeKind};
use grid_core::id::AttemptId;
use grid_core::spec::PackageManager;
use grid_core::workload::{End, ReasonCode};
use tokio::sync::watch;

use self::plan::{Kind, Plan, plan};
use self::tools::Tools;
use super::tree::{Origin, Tree};
use super::{Container, Prepared};
use crate::attempt::confine::Walls;
use crate::attempt::end::{self, failed};
use crate::attempt::{Attempt, build_key};
use crate::context::Context;
use crate::folder;
use crate::keeper::client::Error;
use crate::keeper::protocol::{Exit, Spawn, TaskState};
use crate::keeper::reader::SpoolReader;

/// How many environments are kept; the ones not used for longest go first.
/// Higher: more disk (some take gigabytes); lower: they are built again more often.
const KEPT_MAX: usize = 50;

/// Environments used within this time are never removed, in seconds: a running
/// experiment may need them.  Higher: more disk is held; lower: an experiment that
/// runs for longer may lose what it runs with.
const KEPT_S_MIN: u64 = 30 * 24 * 3600;

/// How much of a failed build's output is repeated with the reason, in bytes and
/// lines.  Higher: the reason is unreadable; lower: it is not in it.
const TAIL_BYTES: u64 = 4096;
const TAIL_LINES: usize = 8;

/// Settings of the machine that installers need to reach their servers.
const INSTALLER_VARIABLES: [&str; 24] = [
    "ALL_PROXY",
    "CURL_CA_BUNDLE",
    "HTTPS_PROXY",
    "HTTP_PROXY",
    "NO_PROXY",
    "PIP_CERT",
    "PIP_DEFAULT_TIMEOUT",
    "PIP_EXTRA_INDEX_URL",
    "PIP_FIND_LINKS",
    "PIP_INDEX_URL",
    "PIP_TRUSTED_HOST",
    "REQUESTS_CA_BUNDLE",
    "SSL_CERT_DIR",
    "SSL_CERT_FILE",
    "UV_DEFAULT_INDEX",
    "UV_EXTRA_INDEX_URL",
    "UV_FIND_LINKS",
    "UV_HTTP_TIMEOUT",
    "UV_INDEX",
    "UV_INDEX_URL",
    "all_proxy",
    "http_proxy",
    "https_proxy",
    "no_proxy",
];

/// How a build stands, for those who wait for it.
#[derive(Debug, Clone)]
enum Building {
    Going,
    /// It is over; whether it is there is seen on disk.
    Over,
    Failed(End),
}

struct Flight {
    /// The experiment that builds.
    builder: String,
    state: watch::Receiver<Building>,
}

/// All environments of this machine.
pub(crate) struct Environments {
    folder: PathBuf,
    packages: PathBuf,
    tools: Tools,
    flights: Mutex<HashMap<String, Flight>>,
}

impl Environments {
    pub(crate) fn new(folder: PathBuf, packages: PathBuf, tools: Tools) -> Self {
        Self {
            folder,
            packages,
            tools,
            flights: Mutex::new(HashMap::new()),
        }
    }

    pub(crate) fn python(&self) -> Option<&Path> {
        self.tools.python.as_deref()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Flight>> {
        // Insertions and removals only.
        self.flights.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Provides the environment of an attempt whose code is laid out.
    pub(crate) async fn provide(
        &self,
        context: &Arc<Context>,
        attempt: &Arc<Attempt>,
    ) -> Result<Prepared, End> {
        let launch = &attempt.launch;
        let planned = plan(&attempt.work(), &launch.spec, &launch.user_id, &self.tools);
        let planned =
            planned.map_err(|error| failed(ReasonCode::Build, error.to_string(), None))?;
        let Some(plan) = planned else {
            return Ok(Prepared::default());
        };
        let env = self.folder.join(&plan.key);
        let mut is_ours = false;
        while !is_complete(&env) {
            is_ours = self.build_or_wait(context, attempt, &plan, &env).await?;
        }
        if !is_ours {
            attempt
                .build_log
                .say(&format!("Using cached environment {}", plan.key));
        }
        touch(&env);
        if plan.uses_tree {
            self.use_tree(attempt, &env).await?;
        }
        Ok(self.prepared(&plan, &env, &launch.spec.workdir))
    }

    /// True when this attempt built it.
    async fn build_or_wait(
        &self,
        context: &Arc<Context>,
        attempt: &Arc<Attempt>,
        plan: &Plan,
        env: &Path,
    ) -> Result<bool, End> {
        let (tell, waiting) = {
            let mut flights = self.lock();
            match flights.get(&plan.key) {
                Some(flight) => (None, Some((flight.builder.clone(), flight.state.clone()))),
                None => {
                    let (tell, state) = watch::channel(Building::Going);
                    let builder = attempt.launch.experiment.clone();
                    flights.insert(plan.key.clone(), Flight { builder, state });
                    (Some(tell), None)
                }
            }
        };
        if let Some((builder, mut state)) = waiting {
            let text = format!("Environment {} is being built by {builder}", plan.key);
            attempt.set_note(text.clone());
            attempt.build_log.say(&text);
            context.changed();
            let outcome = state
                .wait_for(|state| !matches!(state, Building::Going))
                .await;
            return match outcome.map(|state| state.clone()) {
                Ok(Building::Failed(end)) => Err(end),
                // Built, or given up: then the next one builds.
                _ => Ok(false),
            };
        }
        let flight = InFlight {
            environments: self,
            key: plan.key.clone(),
        };
        let result = self.build(context, attempt, plan, env).await;
        if let Some(tell) = tell {
            tell.send_replace(match &result {
                Ok(()) => Building::Over,
                Err(end) => Building::Failed(end.clone()),
            });
        }
        drop(flight);
        result.map(|()| true)
    }

    async fn build(
        &self,
        context: &Arc<Context>,
        attempt: &Arc<Attempt>,
        plan: &Plan,
        env: &Path,
    ) -> Result<(), End> {
        let cannot = |error: io::Error| {
            failed(
                ReasonCode::Build,
                format!("the environment cannot be built here: {error}"),
                None,
            )
        };
        // A former runner process may have begun: its build goes on in the keeper.
        if let Some(builder) = builder_of(env)
            && let Ok(Some(state)) = context.keeper.look(&build_key(builder)).await
        {
            if !matches!(state, TaskState::Ended { .. }) {
                let exit = wait(context, attempt, builder).await;
                tracing::info!(
                    key = plan.key,
                    ?exit,
                    "a build of the former runner has ended"
                );
            }
            if builder == attempt.id && !is_built(env) {
                let exit = wait(context, attempt, builder).await;
                return Err(failure(context, attempt, env, &exit));
            }
        }
        if is_built(env) {
            return complete(plan, env).await.map_err(cannot);
        }
        self.evict();
        let (tree, work) = (env.join("tree"), attempt.work());
        let source = Tree::of_folder(&work, env.join("source.json"));
        let laid_out = {
            let (env, tree) = (env.to_owned(), tree.clone());
            tokio::task::spawn_blocking(move || {
                folder::remove_all(&env)?;
                for part in ["home", "tmp"] {
                    fs::create_dir_all(env.join(part))?;
                }
                source?.copy_to(&tree).map_err(io::Error::other)
            })
        };
        laid_out
            .await
            .unwrap_or_else(|error| Err(io::Error::other(error)))
            .map_err(cannot)?;
        fs::write(env.join("builder"), attempt.id.to_string()).map_err(cannot)?;
        let from = match &plan.kind {
            Kind::Actions => "the build actions",
            Kind::Packages { file, .. } => file,
            Kind::Image { dockerfile } => dockerfile,
        };
        let text = format!("Building environment {} from {from}", plan.key);
        attempt.set_note(text.clone());
        attempt.build_log.say(&text);
        context.changed();
        let spawn = self
            .spawn(context, attempt, plan, env, &tree)
            .map_err(cannot)?;
        let guard = KillOnDrop {
            context: Arc::clone(context),
            key: Some(spawn.key.clone()),
        };
        match context.keeper.spawn(&spawn).await {
            Ok(()) => {}
            Err(Error::Refused { message, .. }) => {
                return Err(failed(ReasonCode::Build, message, None));
            }
            Err(error) => return Err(failed(ReasonCode::Build, error.to_string(), None)),
        }
        let exit = wait(context, attempt, attempt.id).await;
        guard.disarm();
        if !exit.how.is_success() || !is_built(env) {
            return Err(failure(context, attempt, env, &exit));
        }
        complete(plan, env).await.map_err(cannot)
    }

    fn spawn(
        &self,
        context: &Context,
        attempt: &Attempt,
        plan: &Plan,
        env: &Path,
        tree: &Path,
    ) -> io::Result<Spawn> {
        let spec = &attempt.launch.spec;
        let text = script::script(plan, env, tree, &spec.workdir, &spec.actions, &self.tools);
        fs::write(env.join("build.sh"), text)?;
        let packages = self.packages.join(&attempt.launch.user_id);
        fs::create_dir_all(&packages)?;
        let tmp = env.join("tmp");
        let show = |path: &Path| path.display().to_string();
        let system_path: Vec<String> = context.search_path.iter().map(|path| show(path)).collect();
        let mut all: HashMap<String, String> = HashMap::new();
        let mut readable: Vec<PathBuf> = Vec::new();
        for name in INSTALLER_VARIABLES {
            let Ok(value) = std::env::var(name) else {
                continue;
            };
            let is_path = Path::new(&value).is_absolute() && Path::new(&value).exists();
            if is_path {
                readable.push(PathBuf::from(&value));
            }
            all.insert(name.to_owned(), value);
        }
        readable.extend(self.tools.uv.clone());
        let own = [
            ("HOME", show(&env.join("home"))),
            ("TMPDIR", show(context.confinement.tmp_inside(&tmp))),
            ("LANG", "C.UTF-8".to_owned()),
            ("PATH", system_path.join(":")),
            ("UV_CACHE_DIR", show(&packages.join("uv"))),
            ("UV_NO_PROGRESS", "1".to_owned()),
            ("UV_PYTHON_DOWNLOADS", "never".to_owned()),
            ("UV_COMPILE_BYTECODE_TIMEOUT", "0".to_owned()),
            ("PIP_CACHE_DIR", show(&packages.join("pip"))),
            ("PIP_NO_INPUT", "1".to_owned()),
            ("PIP_PROGRESS_BAR", "off".to_owned()),
            ("MAMBA_ROOT_PREFIX", show(&packages.join("conda"))),
            ("CONDA_PKGS_DIRS", show(&packages.join("conda/pkgs"))),
            ("GRID_ENVIRONMENT", plan.key.clone()),
        ];
        all.extend(own.map(|(name, value)| (name.to_owned(), value)));
        all.extend(plan.variables.iter().cloned());
        let group = context
            .confinement
            .group(&attempt.key(), &attempt.launch.placement);
        let key = build_key(attempt.id);
        let spawn = Spawn {
            spool_dir: context.folder.spool(&key),
            key,
            argv: vec!["/bin/sh".to_owned(), show(&env.join("build.sh"))],
            env: all.into_iter().collect(),
            cwd: tree.to_owned(),
            cgroup: group.procs_paths(),
            ..Spawn::default()
        };
        let walls = Walls {
            writable: vec![env.to_owned(), packages],
            readable: &readable,
            tmp: &tmp,
            gpus: &[],
        };
        let is_image = matches!(plan.kind, Kind::Image { .. });
        // What builds images separates them itself, and needs its service.
        Ok(if is_image {
            spawn
        } else {
            context.confinement.enclose(spawn, walls)
        })
    }

    /// The code as it was after the build is what the experiment starts with.
    async fn use_tree(&self, attempt: &Attempt, env: &Path) -> Result<(), End> {
        let (env, work, own) = (env.to_owned(), attempt.work(), attempt.folder.clone());
        let laid_out = tokio::task::spawn_blocking(move || {
            let tree = Tree::read(&env.join("tree.json"), Origin::Folder(env.join("tree")))?;
            tree.lay_out(&work, &own).map_err(io::Error::other)
        });
        let result = laid_out
            .await
            .unwrap_or_else(|error| Err(io::Error::other(error)));
        result.map_err(|error| {
            failed(
                ReasonCode::Start,
                format!("the built code cannot be laid out: {error}"),
                None,
            )
        })
    }

    fn prepared(&self, plan: &Plan, env: &Path, workdir: &str) -> Prepared {
        let mut prepared = Prepared {
            readable: vec![env.to_owned()],
            ..Prepared::default()
        };
        let show = |path: &Path| path.display().to_string();
        match &plan.kind {
            Kind::Actions => {}
            Kind::Packages {
                manager: PackageManager::Pip,
                ..
            } => {
                prepared.path_first.push(env.join("venv/bin"));
                prepared
                    .variables
                    .push(("VIRTUAL_ENV".to_owned(), show(&env.join("venv"))));
            }
            Kind::Packages {
                manager: PackageManager::Conda,
                ..
            } => {
                prepared.path_first.push(env.join("conda/bin"));
                prepared
                    .variables
                    .push(("CONDA_PREFIX".to_owned(), show(&env.join("conda"))));
            }
            Kind::Packages {
                manager: PackageManager::Julia,
                ..
            } => {
                // A depot to write to comes first; the rest is read.
                let depots = format!("/tmp/julia:{}:", show(&env.join("depot")));
                prepared
                    .variables
                    .push(("JULIA_DEPOT_PATH".to_owned(), depots));
            }
            Kind::Image { .. } => {
                let tool = self.tools.images.clone().unwrap_or_else(|| "docker".into());
                let image = script::image_name(&plan.key);
                prepared.container = Some(Container {
                    tool,
                    image,
                    workdir: workdir.to_owned(),
                });
            }
        }
        prepared
    }

    /// Removes the environments that were not used for longest.
    fn evict(&self) {
        let mut all: Vec<(SystemTime, PathBuf)> = Vec::new();
        for entry in fs::read_dir(&self.folder).into_iter().flatten().flatten() {
            let marker = entry.path().join("complete");
            if let Ok(used) = marker.metadata().and_then(|found| found.modified()) {
                all.push((used, entry.path()));
            }
        }
        all.sort();
        let surplus = all.len().saturating_sub(KEPT_MAX);
        for (used, path) in all.into_iter().take(surplus) {
            let is_old = now()
                .duration_since(used)
                .is_ok_and(|age| age.as_secs() > KEPT_S_MIN);
            if is_old
                && let Err(error) = folder::remove_all(&path.join("complete"))
                    .and_then(|()| folder::remove_all(&path))
            {
                tracing::warn!(path = %path.display(), %error, "an old environment cannot be removed");
            }
        }
    }
}

/// Lets others build when this attempt stops doing so, however it does.
struct InFlight<'a> {
    environments: &'a Environments,
    key: String,
}

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.environments.lock().remove(&self.key);
    }
}

/// Ends a build that nobody waits for any more.
struct KillOnDrop {
    context: Arc<Context>,
    key: Option<String>,
}

impl KillOnDrop {
    fn disarm(mut self) {
        self.key = None;
    }
}

impl Drop for KillOnDrop {
    fn drop(&mut self) {
        let (Some(key), Ok(runtime)) = (self.key.take(), tokio::runtime::Handle::try_current())
        else {
            return;
        };
        let context = Arc::clone(&self.context);
        // When the runner itself ends, this comes to nothing, and the build goes on.
        runtime.spawn(async move { context.keeper.signal(&key, libc::SIGKILL).await });
    }
}

/// Waits for the end of a build; its output goes to the log meanwhile.
async fn wait(context: &Context, attempt: &Attempt, builder: AttemptId) -> Exit {
    let key = build_key(builder);
    let mut news = context.keeper.watch(&key);
    // What ended before anybody watched is told by a look.
    let _ = context.keeper.look(&key).await;
    loop {
        if let Some(exit) = news.borrow_and_update().exit.clone() {
            attempt.build_log.touch();
            context.changed();
            return exit;
        }
        attempt.build_log.touch();
        context.changed();
        if news.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

/// Why a build failed, in words that can be acted on.
fn failure(context: &Context, attempt: &Attempt, env: &Path, exit: &Exit) -> End {
    let step = fs::read_to_string(env.join("step")).unwrap_or_default();
    let step = step.trim();
    let code = if step.starts_with("on_build") {
        ReasonCode::Action
    } else {
        ReasonCode::Build
    };
    let what = if step.is_empty() { "the build" } else { step };
    let mut message = format!("{what}: {}", end::in_words(exit.how));
    let tail = tail(&context.folder.spool(&build_key(attempt.id)));
    if !tail.is_empty() {
        message.push_str(":\n");
        message.push_str(&tail);
    }
    failed(code, message, exit.how.shell_code())
}

/// The last lines that a process printed.
fn tail(spool: &Path) -> String {
    let mut reader = SpoolReader::open(spool);
    let end = reader.end_position().unwrap_or(0);
    let batch = reader.read_from(
        end.saturating_sub(TAIL_BYTES),
        usize::try_from(TAIL_BYTES).unwrap_or(usize::MAX),
    );
    let bytes: Vec<u8> = batch
        .map(|batch| batch.frames)
        .unwrap_or_default()
        .into_iter()
        .flat_map(|frame| frame.bytes)
        .collect();
    let text = String::from_utf8_lossy(&bytes);
    let lines: Vec<&str> = text
        .lines()
        .map(str::trim_end)
        .filter(|line| !line.is_empty())
        .collect();
    lines
        .get(lines.len().saturating_sub(TAIL_LINES)..)
        .unwrap_or_default()
        .join("\n")
}

fn is_complete(env: &Path) -> bool {
    env.join("complete").exists()
}

/// Whether the build came to its end; what is left to do is ours.
fn is_built(env: &Path) -> bool {
    env.join("built").exists()
}

fn builder_of(env: &Path) -> Option<AttemptId> {
    fs::read_to_string(env.join("builder"))
        .ok()?
        .trim()
        .parse()
        .ok()
}

#[expect(
    clippy::disallowed_methods,
    reason = "the time of the last use of a cached environment"
)]
fn now() -> SystemTime {
    SystemTime::now()
}

/// Notes that an environment is used.
fn touch(env: &Path) {
    let _ = fs::File::options()
        .write(true)
        .open(env.join("complete"))
        .and_then(|file| file.set_modified(now()));
}

/// Keeps of the built code what experiments need, removes the rest, and says that
/// the environment is complete.
async fn complete(plan: &Plan, env: &Path) -> io::Result<()> {
    let (env, uses_tree, keeps_tree) = (env.to_owned(), plan.uses_tree, plan.keeps_tree);
    let done = tokio::task::spawn_blocking(move || {
        folder::remove_all(&env.join("tmp"))?;
        if uses_tree {
            Tree::of_folder(&env.join("tree"), env.join("tree.json"))?.write()?;
        }
        if !keeps_tree {
            folder::remove_all(&env.join("tree"))?;
        }
        fs::write(env.join("complete"), "")
    });
    done.await
        .unwrap_or_else(|error| Err(io::Error::other(error)))
}

impl Tree {
    /// The tree that a folder holds now.
    fn of_folder(top: &Path, file: PathBuf) -> io::Result<Self> {
        use std::os::unix::fs::PermissionsExt;
        let mut entries = Vec::new();
        for entry in walkdir::WalkDir::new(top).min_depth(1).sort_by_file_name() {
            let entry = entry?;
            let Some(path) = entry.path().strip_prefix(top).ok().and_then(Path::to_str) else {
                continue;
            };
            let found = entry.metadata()?;
            let (kind, content) = match found.file_type() {
                kind if kind.is_dir() => (TreeKind::Folder, String::new()),
                kind if kind.is_file() => (TreeKind::File, String::new()),
                kind if kind.is_symlink() => (
                    TreeKind::Link,
                    fs::read_link(entry.path())?.to_string_lossy().into_owned(),
                ),
                _ => continue,
            };
            let mode = found.permissions().mode() & 0o777;
            entries.push(TreeEntry {
                path: path.to_owned(),
                kind,
                mode,
                size_bytes: found.len(),
                content,
            });
        }
        Ok(Self::new(file, entries, Origin::Folder(top.to_owned())))
    }
}
