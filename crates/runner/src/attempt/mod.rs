//! One attempt, from the order to launch it until the server has recorded its end.
//!
//! [`drive`] is the way of an attempt: prepare, run, store, end.  Each step looks at
//! what is there first, so that the way is gone on with after a restart of the
//! runner by going it again.

pub(crate) mod command;
pub(crate) mod confine;
pub(crate) mod drive;
pub(crate) mod end;
mod mounts;
pub(crate) mod saved;
pub(crate) mod start;
pub(crate) mod variables;

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use grid_api::artifact::ArtifactView;
use grid_api::log::LogStream;
use grid_api::runner::{Launch, Phase};
use grid_core::id::AttemptId;
use grid_core::workload::End;
use tokio::sync::watch;

use crate::attempt::confine::Confinement;
use crate::folder::Folder;
use crate::limits::Group;
use crate::ship::artifacts;
use crate::ship::logs::Log;

/// What somebody wants of an attempt.  A later wish counts if it is stricter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wish {
    /// To go on.
    None,
    /// To save and end, because the machine goes away.
    Interrupt { grace_ms: u64 },
    /// To end at once, because nobody hears about it any more.
    Abandon,
    /// To end.
    Stop { grace_ms: u64, keep: bool },
}

impl Wish {
    /// Whether what the attempt made is still wanted.
    pub(crate) fn keeps(self) -> bool {
        !matches!(self, Self::Stop { keep: false, .. })
    }

    fn join(self, other: Self) -> Self {
        match (self, other) {
            (
                Self::Stop {
                    grace_ms: a,
                    keep: k,
                },
                Self::Stop {
                    grace_ms: b,
                    keep: l,
                },
            ) => Self::Stop {
                grace_ms: a.min(b),
                keep: k && l,
            },
            (stop @ Self::Stop { .. }, _) | (_, stop @ Self::Stop { .. }) => stop,
            (Self::Abandon, _) | (_, Self::Abandon) => Self::Abandon,
            (Self::None, other) => other,
            (own, _) => own,
        }
    }
}

/// One attempt.
pub(crate) struct Attempt {
    pub(crate) id: AttemptId,
    pub(crate) launch: Launch,
    /// Its folder.
    pub(crate) folder: PathBuf,
    pub(crate) build_log: Arc<Log>,
    pub(crate) log: Arc<Log>,
    pub(crate) artifacts: artifacts::Shared,
    wish: watch::Sender<Wish>,
    group: Mutex<Option<Group>>,
    status: Mutex<Status>,
    /// The server has heard of its end.
    is_told: AtomicBool,
}

struct Status {
    phase: Phase,
    note: Option<String>,
    /// Artifacts to be listed with the next report.
    artifacts: Vec<ArtifactView>,
}

impl Attempt {
    /// An attempt; `is_fresh` when nothing of it can be on disk or at the server.
    pub(crate) fn new(launch: Launch, folder: &Folder, is_fresh: bool) -> Self {
        let id = launch.attempt;
        let own = folder.attempt(id);
        let key = id.to_string();
        let mut spools = vec![folder.spool(&key)];
        if !launch.spec.actions.on_experiment_end.is_empty() {
            spools.push(folder.spool(&end_key(id)));
        }
        let build_spools = vec![folder.spool(&build_key(id))];
        Self {
            id,
            build_log: Arc::new(Log::new(id, LogStream::Build, build_spools, &own, is_fresh)),
            log: Arc::new(Log::new(id, LogStream::Experiment, spools, &own, is_fresh)),
            artifacts: artifacts::Shared::default(),
            launch,
            folder: own,
            wish: watch::Sender::new(Wish::None),
            group: Mutex::new(None),
            status: Mutex::new(Status {
                phase: Phase::Waiting,
                note: None,
                artifacts: Vec::new(),
            }),
            is_told: AtomicBool::new(false),
        }
    }

    /// The key of its script's process.
    pub(crate) fn key(&self) -> String {
        self.id.to_string()
    }

    /// The folder that the script works in.
    pub(crate) fn work(&self) -> PathBuf {
        self.folder.join("work")
    }

    pub(crate) fn home(&self) -> PathBuf {
        self.folder.join("home")
    }

    pub(crate) fn tmp(&self) -> PathBuf {
        self.folder.join("tmp")
    }

    /// The control group of its processes, made if need be.
    pub(crate) fn make_group(&self, confinement: &Confinement) -> Group {
        let mut group = self.group.lock().unwrap_or_else(PoisonError::into_inner);
        group
            .get_or_insert_with(|| confinement.group(&self.key(), &self.launch.placement))
            .clone()
    }

    /// The control group of its processes, if there is one.
    pub(crate) fn find_group(&self, confinement: &Confinement) -> Group {
        let group = self.group.lock().unwrap_or_else(PoisonError::into_inner);
        // A former runner process may have made it.
        group
            .clone()
            .unwrap_or_else(|| confinement.driver.open(&self.key()))
    }

    /// Both logs.
    pub(crate) fn logs(&self) -> [(LogStream, &Arc<Log>); 2] {
        [
            (LogStream::Build, &self.build_log),
            (LogStream::Experiment, &self.log),
        ]
    }

    fn status(&self) -> MutexGuard<'_, Status> {
        // Assignments only: nothing can be half done.
        self.status.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn phase(&self) -> Phase {
        self.status().phase.clone()
    }

    pub(crate) fn note(&self) -> Option<String> {
        self.status().note.clone()
    }

    pub(crate) fn set_phase(&self, phase: Phase) {
        let mut status = self.status();
        if !matches!(status.phase, Phase::Ended { .. }) {
            status.phase = phase;
            status.note = None;
        }
    }

    pub(crate) fn set_note(&self, note: impl Into<String>) {
        self.status().note = Some(note.into());
    }

    /// Nothing is to be said any more.
    pub(crate) fn clear_note(&self) {
        self.status().note = None;
    }

    pub(crate) fn end(&self, end: End) {
        let ran = matches!(self.status().phase, Phase::Running);
        self.set_phase(Phase::Ended { end, ran });
    }

    pub(crate) fn is_ended(&self) -> bool {
        matches!(self.status().phase, Phase::Ended { .. })
    }

    /// Artifacts whose blobs are stored, to be listed with the next report.
    pub(crate) fn list_artifacts(&self, artifacts: Vec<ArtifactView>) {
        self.status().artifacts = artifacts;
    }

    pub(crate) fn listed_artifacts(&self) -> Vec<ArtifactView> {
        self.status().artifacts.clone()
    }

    /// Whether the server has heard of its end.
    pub(crate) fn is_told(&self) -> bool {
        self.is_told.load(Ordering::Acquire)
    }

    pub(crate) fn set_told(&self) {
        self.is_told.store(true, Ordering::Release);
        self.list_artifacts(Vec::new());
    }

    /// Adds a wish.
    pub(crate) fn wish(&self, wish: Wish) {
        self.wish.send_if_modified(|present| {
            let joined = present.join(wish);
            let is_new = joined != *present;
            *present = joined;
            is_new
        });
    }

    pub(crate) fn wishes(&self) -> watch::Receiver<Wish> {
        self.wish.subscribe()
    }

    pub(crate) fn wished(&self) -> Wish {
        *self.wish.borrow()
    }
}

/// The key of the process that builds the environment.
pub(crate) fn build_key(attempt: AttemptId) -> String {
    format!("{attempt}-build")
}

/// The key of the process that runs the actions at the end.
pub(crate) fn end_key(attempt: AttemptId) -> String {
    format!("{attempt}-end")
}

#[cfg(test)]
mod tests {
    use super::Wish;

    #[test]
    fn the_stricter_wish_counts() {
        let stop = |grace_ms, keep| Wish::Stop { grace_ms, keep };
        let interrupt = Wish::Interrupt { grace_ms: 5 };
        for (first, second, both) in [
            (Wish::None, interrupt, interrupt),
            (interrupt, Wish::None, interrupt),
            (interrupt, stop(9, true), stop(9, true)),
            (stop(9, true), interrupt, stop(9, true)),
            (stop(9, true), stop(3, true), stop(3, true)),
            (stop(3, true), stop(9, false), stop(3, false)),
        ] {
            assert_eq!(first.join(second), both, "{first:?} {second:?}");
        }
    }
}
