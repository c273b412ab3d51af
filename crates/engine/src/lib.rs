//! Acts: the use cases that doors call, and the control loop that makes the
//! world what the log says.  The only crate that joins the domain, the store and
//! the places where attempts run.

mod access;
mod book;
mod changes;
mod clock;
mod error;
mod git;
mod guard;
mod instance;
mod node;
mod receiving;
mod recorder;
mod secret;
mod turn;
mod vault;
mod watch;

pub mod artifact;
pub mod audit;
pub mod blob;
pub mod credential;
pub mod datastore;
pub mod doctor;
pub mod draft;
pub mod experiment;
pub mod invitation;
pub mod key;
pub mod log;
pub mod objects;
pub mod reference;
pub mod run;
pub mod runner;
pub mod share;
pub mod snapshot;
pub mod ssh_key;
pub mod team;
pub mod ticket;
pub mod trash;
pub mod user;

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU32};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use grid_core::id::{NodeId, RunId, WorkloadId};
use grid_core::spec::{RunSpec, split_command};
use grid_executor::{Executor, Hub};
use grid_store::blobs::Blobs;
use grid_store::db::{self, Db};
use grid_store::logs::LogStore;
use tokio::sync::Notify;

pub use access::Caller;
pub use changes::Changes;
pub use clock::{Clock, SystemClock};
pub use error::{Error, Result};
pub use node::NodeStatus;
pub use receiving::{ALONE_MAX, Place, RECEIVED_MAX, Sender};
pub use secret::{Hashed, hash_key};
pub use watch::Watcher;

use audit::Auditor;
use book::{Book, Details, Entry, RunInfo};
use guard::Guard;
use receiving::Places;
use recorder::Recorder;
use vault::Vault;
use watch::Watch;

/// Open workloads read from the database at a time.
const LOAD_PAGE: u32 = 5_000;

/// What an engine is made of.
pub struct Parts {
    /// The database.
    pub db: Db,
    /// Logs.
    pub logs: LogStore,
    /// Bytes by content.
    pub blobs: Blobs,
    /// Where runners report.
    pub hub: Hub,
    /// How attempts come to run.
    pub executor: Arc<dyn Executor>,
    /// Time and entropy.
    pub clock: Arc<dyn Clock>,
    /// What links and invitations are known by; never leaves the server.
    pub secret: [u8; 32],
    /// What credentials are encrypted with; never in the database.
    pub credential_key: [u8; 32],
    /// Room for things under way (clones of repositories).
    pub scratch: PathBuf,
    /// The one cluster's name.
    pub cluster: String,
}

/// The engine.  Cheap to clone.
#[derive(Clone)]
pub struct Engine {
    pub(crate) inner: Arc<Inner>,
}

pub(crate) struct Inner {
    pub(crate) db: Db,
    pub(crate) logs: LogStore,
    pub(crate) blobs: Blobs,
    pub(crate) hub: Hub,
    pub(crate) executor: Arc<dyn Executor>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) secret: [u8; 32],
    pub(crate) vault: Vault,
    pub(crate) scratch: PathBuf,
    pub(crate) cluster: String,
    pub(crate) recorder: Recorder,
    pub(crate) wake: Notify,
    pub(crate) watch: Watch,
    /// Whether the use of a key is being written down.
    pub(crate) touching: AtomicBool,
    pub(crate) auditor: Auditor,
    pub(crate) guard: Guard,
    /// Where bodies are received.
    pub(crate) receiving: Places,
    /// Where large requests are.
    pub(crate) requests: Places,
    /// Datastore versions that are worked on.
    pub(crate) datastores: datastore::Jobs,
    /// Whether they are fetched from addresses inside, too.
    pub(crate) fetches_private: AtomicBool,
    /// For how many days the audit log is kept; 0 is for ever.
    pub(crate) audit_days: AtomicU32,
    book: Mutex<Book>,
    runs: Mutex<HashMap<RunId, Weak<RunInfo>>>,
}

impl Engine {
    /// Reads what is open and begins to record.  [`Engine::run`] begins to act.
    pub async fn open(parts: Parts) -> Result<Self> {
        let (recorder, requests) = Recorder::new();
        let (auditor, notes) = Auditor::new();
        let inner = Inner {
            db: parts.db,
            logs: parts.logs,
            blobs: parts.blobs,
            hub: parts.hub,
            executor: parts.executor,
            clock: parts.clock,
            secret: parts.secret,
            vault: Vault::new(&parts.credential_key),
            scratch: parts.scratch,
            cluster: parts.cluster,
            recorder,
            wake: Notify::new(),
            watch: Watch::new(),
            touching: AtomicBool::new(false),
            auditor,
            guard: Guard::new(parts.secret),
            receiving: Places::new(RECEIVED_MAX),
            requests: Places::of_requests(),
            datastores: datastore::Jobs::default(),
            fetches_private: AtomicBool::new(false),
            audit_days: AtomicU32::new(audit::KEPT_DAYS),
            book: Mutex::new(Book::default()),
            runs: Mutex::new(HashMap::new()),
        };
        let engine = Self {
            inner: Arc::new(inner),
        };
        engine.load().await?;
        tokio::spawn(recorder::run(Arc::downgrade(&engine.inner), requests));
        tokio::spawn(audit::run(Arc::downgrade(&engine.inner), notes));
        Ok(engine)
    }

    /// Turns for ever; ends only with its task.
    pub async fn run(&self) {
        turn::run(self).await;
    }

    /// Has the control loop look now.
    pub fn wake(&self) {
        self.inner.wake.notify_one();
    }

    /// Tells when something that people see has changed.
    pub fn watch(&self) -> Watcher {
        self.inner.watch.subscribe()
    }

    /// Tells when who may do what has changed.
    pub fn watch_people(&self) -> Watcher {
        self.inner.watch.subscribe_people()
    }

    /// Whether the database answers.
    pub async fn ping(&self) -> Result<()> {
        drop(self.inner.db.read().await?);
        Ok(())
    }

    async fn load(&self) -> Result<()> {
        let mut after = None;
        loop {
            let mut tx = self.inner.db.read().await?;
            let page = db::workload::open(&mut tx, after, LOAD_PAGE).await?;
            drop(tx);
            for open in page.items {
                let entry = self.inner.open_entry(open).await?;
                self.inner.book().set(entry);
            }
            match page.next {
                Some(next) => after = Some(next),
                None => return Ok(()),
            }
        }
    }
}

/// Does something to its end, also when whoever asked for it goes away meanwhile: a
/// request that is cut off must not leave half of it, or what nobody is told of.
pub(crate) async fn to_the_end<T: Send + 'static>(
    work: impl Future<Output = Result<T>> + Send + 'static,
) -> Result<T> {
    tokio::spawn(work).await.map_err(Error::internal)?
}

impl Inner {
    pub(crate) fn book(&self) -> MutexGuard<'_, Book> {
        // The book is only changed in whole steps; a panic elsewhere leaves it whole.
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An open or finished workload as the database has it; `None` when there is none.
    pub(crate) async fn load_entry(&self, id: WorkloadId) -> Result<Option<Entry>> {
        let mut tx = self.db.read().await?;
        let row = db::workload::get(&mut tx, id).await?;
        drop(tx);
        match row {
            Some(row) => Ok(Some(self.entry(row).await?)),
            None => Ok(None),
        }
    }

    async fn entry(&self, row: db::workload::Stored) -> Result<Entry> {
        let details = Details {
            index: row.idx,
            params: row.params,
            args: row.args,
        };
        let open = db::workload::Open {
            workload: row.workload,
            version: row.version,
            run: row.run,
            owner: row.owner,
            team: row.team,
        };
        let mut entry = self.open_entry(open).await?;
        entry.details = Some(Arc::new(details));
        Ok(entry)
    }

    async fn open_entry(&self, open: db::workload::Open) -> Result<Entry> {
        let Some(run) = open.run else {
            return Err(Error::internal(anyhow::anyhow!(
                "workload {} belongs to no run",
                open.workload.id
            )));
        };
        Ok(Entry {
            since: open.workload.created_at,
            version: open.version,
            workload: open.workload,
            run: self.run_info(run).await?,
            details: None,
        })
    }

    /// What the experiments of a run have in common; read once while any is open.
    pub(crate) async fn run_info(&self, id: RunId) -> Result<Arc<RunInfo>> {
        if let Some(info) = self.runs().get(&id).and_then(Weak::upgrade) {
            return Ok(info);
        }
        let mut tx = self.db.read().await?;
        let Some(run) = db::run::by_id(&mut tx, id).await? else {
            return Err(Error::internal(anyhow::anyhow!("run {id} is gone")));
        };
        let user = db::user::by_id(&mut tx, run.creator).await?;
        drop(tx);
        let spec: RunSpec = serde_json::from_str(&run.spec).map_err(Error::internal)?;
        let username = user.map_or_else(String::new, |user| user.username);
        Ok(self.remember_run(&run, spec, username))
    }

    pub(crate) fn remember_run(
        &self,
        run: &db::run::Run,
        spec: RunSpec,
        username: String,
    ) -> Arc<RunInfo> {
        let need = instance::need(&spec.resources);
        let info = Arc::new(RunInfo {
            name: run.name.clone(),
            owner: run.creator,
            team: run.team,
            username,
            program: split_command(&spec.command).0.to_vec(),
            need,
            spec,
        });
        let mut runs = self.runs();
        if runs.len() > 1_024 {
            runs.retain(|_, info| info.strong_count() > 0);
        }
        runs.insert(run.id, Arc::downgrade(&info));
        info
    }

    fn runs(&self) -> MutexGuard<'_, HashMap<RunId, Weak<RunInfo>>> {
        self.runs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn node_cpus(&self, book: &Book, node: &NodeId) -> u32 {
        book.board
            .nodes()
            .find(|n| n.id == *node)
            .map_or(1, |n| n.cpus)
    }
}
