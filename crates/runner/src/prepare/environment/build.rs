//! Building one environment: a process of the keeper, so that neither its output nor
//! its work is lost with a runner.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use grid_api::snapshot::{TreeEntry, TreeKind};
use grid_core::id::AttemptId;
use grid_core::workload::{End, ReasonCode};

use super::plan::{Kind, Plan};
use super::{Environments, script};
use crate::attempt::confine::Walls;
use crate::attempt::end::{self, failed};
use crate::attempt::{Attempt, build_key};
use crate::context::Context;
use crate::folder;
use crate::keeper::client::Error;
use crate::keeper::protocol::{Ending, Exit, Spawn, TaskState};
use crate::keeper::reader::SpoolReader;
use crate::prepare::container::tool_variables;
use crate::prepare::tree::{Origin, Tree};

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

impl Environments {
    pub(super) async fn build(
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
        self.await_former(context, attempt, plan, env).await?;
        if is_built(env) {
            return complete(plan, env).await.map_err(cannot);
        }
        self.evict();
        let tree = env.join("tree");
        lay_out(&attempt.work(), env, &tree).await.map_err(cannot)?;
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
        if !is_built(env) {
            return Err(failure(context, attempt, env, exit.as_ref()));
        }
        complete(plan, env).await.map_err(cannot)
    }

    /// A former runner process may have begun: its build goes on in the keeper.
    async fn await_former(
        &self,
        context: &Arc<Context>,
        attempt: &Arc<Attempt>,
        plan: &Plan,
        env: &Path,
    ) -> Result<(), End> {
        let Some(builder) = builder_of(env) else {
            return Ok(());
        };
        let Ok(Some(state)) = context.keeper.look(&build_key(builder)).await else {
            return Ok(());
        };
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
            return Err(failure(context, attempt, env, exit.as_ref()));
        }
        Ok(())
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
        let (all, readable) = self.environment(context, plan, env, &packages);
        let group = attempt.make_group(&context.confinement);
        let key = build_key(attempt.id);
        let spawn = Spawn {
            spool_dir: context.folder.spool(&key),
            key,
            argv: vec!["/bin/sh".to_owned(), show(&env.join("build.sh"))],
            env: all,
            cwd: tree.to_owned(),
            cgroup: group.procs_paths(),
            ..Spawn::default()
        };
        let walls = Walls {
            writable: vec![env.to_owned(), packages],
            readable: &readable,
            mounts: &[],
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

    /// The variables of a build, and what must be visible for them.
    fn environment(
        &self,
        context: &Context,
        plan: &Plan,
        env: &Path,
        packages: &Path,
    ) -> (Vec<(String, String)>, Vec<PathBuf>) {
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
            (
                "TMPDIR",
                show(context.confinement.tmp_inside(&env.join("tmp"))),
            ),
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
        if context.confinement.is_sandboxed() {
            // No file can be linked from one folder of a sandbox to another.
            all.insert("UV_LINK_MODE".to_owned(), "copy".to_owned());
        }
        if matches!(plan.kind, Kind::Image { .. }) {
            all.extend(tool_variables());
        }
        all.extend(plan.variables.iter().cloned());
        (all.into_iter().collect(), readable)
    }
}

/// Lays the code out anew where the environment will be, with folders for the build.
async fn lay_out(work: &Path, env: &Path, tree: &Path) -> io::Result<()> {
    let (work, env, tree) = (work.to_owned(), env.to_owned(), tree.to_owned());
    let laid_out = tokio::task::spawn_blocking(move || {
        let source = Tree::of_folder(&work, env.join("source.json"))?;
        folder::remove_all(&env)?;
        for part in ["home", "tmp"] {
            fs::create_dir_all(env.join(part))?;
        }
        source.copy_to(&tree).map_err(io::Error::other)
    });
    laid_out
        .await
        .unwrap_or_else(|error| Err(io::Error::other(error)))
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
        if context.is_leaving() {
            // The runner ends, and the build goes on.
            return;
        }
        runtime.spawn(async move { context.keeper.signal(&key, libc::SIGKILL).await });
    }
}

/// Waits for the end of a build; its output goes to the log meanwhile.  `None` when
/// its attempt was forgotten, and the build with it.
async fn wait(context: &Context, attempt: &Attempt, builder: AttemptId) -> Option<Exit> {
    let key = build_key(builder);
    let mut news = context.keeper.watch(&key);
    // What ended before anybody watched is told by a look.
    let _ = context.keeper.look(&key).await;
    loop {
        if let Some(exit) = news.borrow_and_update().exit.clone() {
            attempt.build_log.touch();
            context.changed();
            return Some(exit);
        }
        attempt.build_log.touch();
        context.changed();
        news.changed().await.ok()?;
    }
}

/// Why a build failed, in words that can be acted on.
fn failure(context: &Context, attempt: &Attempt, env: &Path, exit: Option<&Exit>) -> End {
    let step = fs::read_to_string(env.join("step")).unwrap_or_default();
    let step = step.trim();
    let code = if step.starts_with("on_build") {
        ReasonCode::Action
    } else {
        ReasonCode::Build
    };
    let what = if step.is_empty() { "the build" } else { step };
    let how = exit.map_or(Ending::Lost, |exit| exit.how);
    let mut message = format!("{what}: {}", end::in_words(how));
    let tail = tail(&context.folder.spool(&build_key(attempt.id)));
    if !tail.is_empty() {
        message.push_str(":\n");
        message.push_str(&tail);
    }
    failed(code, message, how.shell_code())
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
