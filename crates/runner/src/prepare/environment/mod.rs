//! Environments: what an experiment needs beside its code, built once by content
//! and shared, read-only, by all later experiments of the same person.
//!
//! An environment is built in the folder where it will be used, because the programs
//! in it know their own path; a file that is written last says that it is complete.  One
//! that was not on the disk yet when the machine went down is built again ([`Shelf`]).

mod build;
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

use grid_core::spec::PackageManager;
use grid_core::workload::{End, ReasonCode};
use tokio::sync::watch;

use self::plan::{Kind, Plan, plan};
use self::tools::Tools;
use super::shelf::Shelf;
use super::tree::{Origin, Tree};
use super::{Container, Prepared};
use crate::attempt::Attempt;
use crate::attempt::end::failed;
use crate::context::Context;
use crate::folder;

/// How many environments are kept; the ones not used for longest go first.
/// Higher: more disk (some take gigabytes); lower: they are built again more often.
const KEPT_MAX: usize = 50;

/// Environments used within this time are never removed, in seconds: a running
/// experiment may need them.  Higher: more disk is held; lower: an experiment that
/// runs for longer may lose what it runs with.
const KEPT_S_MIN: u64 = 30 * 24 * 3600;

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
    shelf: Arc<Shelf>,
    packages: PathBuf,
    tools: Tools,
    flights: Mutex<HashMap<String, Flight>>,
}

impl Environments {
    pub(crate) fn new(folder: PathBuf, packages: PathBuf, tools: Tools) -> io::Result<Self> {
        let (shelf, doubtful) = Shelf::open(&folder, is_complete)?;
        if let Some(doubtful) = doubtful {
            if !doubtful.is_empty() {
                // What the installers kept meanwhile is as doubtful as what they made of it.
                for kept in fs::read_dir(&packages)? {
                    folder::remove_all(&kept?.path())?;
                }
            }
            for name in doubtful {
                tracing::warn!(
                    environment = name,
                    "this machine went down before an environment was on its disk: it is built again"
                );
                folder::remove_all(&folder.join(name))?;
            }
            shelf.settled()?;
        }
        Ok(Self {
            folder,
            shelf: Arc::new(shelf),
            packages,
            tools,
            flights: Mutex::new(HashMap::new()),
        })
    }

    /// Looks after the cache, for ever: what is here comes to be on the disk.
    pub(crate) async fn keep(&self) {
        Arc::clone(&self.shelf).keep().await;
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
        let forgotten = self.shelf.ensure();
        let forgotten = forgotten.and_then(|()| self.shelf.forget(&plan.key));
        let result = match forgotten {
            Ok(()) => self.build(context, attempt, plan, env).await,
            Err(error) => Err(failed(
                ReasonCode::Build,
                format!("the environment cannot be built here: {error}"),
                None,
            )),
        };
        self.shelf.added();
        if let Some(tell) = tell {
            tell.send_replace(match &result {
                Ok(()) => Building::Over,
                Err(end) => Building::Failed(end.clone()),
            });
        }
        drop(flight);
        result.map(|()| true)
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
            if is_old && let Err(error) = self.remove(&path) {
                tracing::warn!(path = %path.display(), %error, "an old environment cannot be removed");
            }
        }
    }

    fn remove(&self, env: &Path) -> io::Result<()> {
        if let Some(name) = env.file_name().and_then(|name| name.to_str()) {
            self.shelf.forget(name)?;
        }
        folder::remove_all(&env.join("complete"))?;
        folder::remove_all(env)
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

fn is_complete(env: &Path) -> bool {
    env.join("complete").exists()
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
