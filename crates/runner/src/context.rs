//! What all parts of a runner share.

use std::fs::File;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use grid_core::cluster::Node;
use grid_core::id::AttemptId;
use grid_core::workload::ReasonCode;
use tokio::sync::Notify;

use crate::attempt::confine::Confinement;
use crate::attempt::drive;
use crate::attempt::end::failed;
use crate::attempt::saved::{self, Order};
use crate::attempt::{Attempt, Wish};
use crate::folder::Folder;
use crate::keeping::Keeping;
use crate::prepare::Prepare;
use crate::server::Server;
use crate::table::Table;

/// What a runner is made of.
pub(crate) struct Parts {
    pub(crate) folder: Folder,
    pub(crate) server: Server,
    pub(crate) keeper: Arc<Keeping>,
    pub(crate) node: Node,
    pub(crate) warnings: Vec<String>,
    pub(crate) tools: Vec<String>,
    pub(crate) confinement: Confinement,
    pub(crate) prepare: Prepare,
    pub(crate) search_path: Vec<PathBuf>,
    /// Held as long as this runner lives.
    pub(crate) lock: File,
}

/// One runner.
pub(crate) struct Context {
    pub(crate) folder: Folder,
    pub(crate) server: Server,
    pub(crate) keeper: Arc<Keeping>,
    /// What this machine has to hand out.
    pub(crate) node: Node,
    /// What it cannot enforce, in sentences.
    pub(crate) warnings: Vec<String>,
    /// Programs that it has.
    pub(crate) tools: Vec<String>,
    pub(crate) confinement: Confinement,
    pub(crate) prepare: Prepare,
    pub(crate) table: Table,
    /// Where programs are looked for.
    pub(crate) search_path: Vec<PathBuf>,
    _lock: File,
    changed: Notify,
    is_changed: AtomicBool,
    is_leaving: AtomicBool,
}

impl Context {
    pub(crate) fn new(parts: Parts) -> Self {
        let Parts {
            folder,
            server,
            keeper,
            node,
            warnings,
            tools,
            confinement,
            prepare,
            search_path,
            lock,
        } = parts;
        Self {
            table: Table::new(&node),
            folder,
            server,
            keeper,
            node,
            warnings,
            tools,
            confinement,
            prepare,
            search_path,
            _lock: lock,
            changed: Notify::new(),
            is_changed: AtomicBool::new(true),
            is_leaving: AtomicBool::new(false),
        }
    }

    /// There is something that the server should hear.
    pub(crate) fn changed(&self) {
        self.is_changed.store(true, Ordering::Release);
        self.changed.notify_one();
    }

    /// Whether there is, from now on not any more.
    pub(crate) fn take_changed(&self) -> bool {
        self.is_changed.swap(false, Ordering::AcqRel)
    }

    pub(crate) fn is_changed(&self) -> bool {
        self.is_changed.load(Ordering::Acquire)
    }

    /// Waits until there is.
    pub(crate) async fn until_changed(&self) {
        while !self.is_changed() {
            self.changed.notified().await;
        }
    }

    /// This process ends; what runs is not to be touched any more.
    pub(crate) fn leave(&self) {
        self.is_leaving.store(true, Ordering::Release);
    }

    pub(crate) fn is_leaving(&self) -> bool {
        self.is_leaving.load(Ordering::Acquire)
    }

    /// Starts what waits and fits.
    pub(crate) fn start_next(self: &Arc<Self>) {
        for (attempt, grant) in self.table.start_next() {
            let order = Order {
                launch: attempt.launch.clone(),
                grant: grant.clone(),
            };
            if let Err(error) = saved::write_order(&attempt.folder, &order, &self.folder.spare) {
                let message = format!(
                    "the order could not be written to {}: {error}",
                    attempt.folder.display()
                );
                attempt.end(failed(ReasonCode::Start, message, None));
                self.table.release(attempt.id);
                self.changed();
                continue;
            }
            drive::begin(self, &attempt, true);
            tokio::spawn(drive::drive(Arc::clone(self), attempt, grant, true));
        }
    }

    /// Takes back what an attempt held, and starts what waited for it.
    pub(crate) fn release(self: &Arc<Self>, attempt: &Attempt) {
        self.table.release(attempt.id);
        self.start_next();
    }

    /// The server wants nothing more of an attempt: it ends, and its remains go.
    pub(crate) fn superseded(&self, attempt: AttemptId) {
        if let Some(attempt) = self.table.get(attempt) {
            attempt.wish(Wish::Stop {
                grace_ms: 0,
                keep: false,
            });
        }
    }
}
