//! Places where attempts run.
//!
//! One trait, [`Executor`]; every implementation starts the same `grid runner`
//! and differs only in how it comes to be on a machine.  What runners say and
//! are told goes through one [`Hub`].

mod hub;
mod process;

use async_trait::async_trait;
use grid_api::runner::{Launch, StopOrder};
use grid_core::id::AttemptId;
use grid_core::workload::Observed;

pub use hub::{Call, Hub, LOST_AFTER_MS, NodeState};
pub use process::{ProcessExecutor, ProcessOptions};

/// What an executor sees of one attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// Which attempt.
    pub attempt: AttemptId,
    /// What of it.
    pub observed: Observed,
}

/// What became of the wish that an attempt ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stopped {
    /// It was ordered; its end will be seen.
    Ordered,
    /// There is no such attempt, and none is on its way: it has ended.
    NotThere,
}

/// Why an executor could not do something.  The next turn tries again.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The runner's files could not be written.
    #[error("the runner's folder {path} cannot be used")]
    Folder {
        path: String,
        #[source]
        source: std::io::Error,
    },
    /// The runner could not be started.
    #[error("the runner could not be started")]
    Spawn(#[source] std::io::Error),
}

/// Starts, stops and observes attempts on one cluster.
///
/// Every method may be called again with the same arguments at any time, in any
/// order, after any crash, and must then do nothing new.
#[async_trait]
pub trait Executor: Send + Sync {
    /// Begins attempts and returns soon.  Progress is observed, not awaited.
    async fn launch(&self, launches: Vec<Launch>) -> Result<(), Error>;
    /// Asks an attempt to end: gently until the grace is over, then not.
    /// An attempt that does not exist has ended.
    async fn stop(&self, stop: StopOrder, node: &grid_core::id::NodeId) -> Result<Stopped, Error>;
    /// Lets go of what is left of an attempt that has been recorded as over.
    async fn forget(&self, attempt: AttemptId, node: &grid_core::id::NodeId) -> Result<(), Error>;
    /// What exists now on each node that can be seen, all of it, in one call.  What may
    /// be on its way there counts as alive.
    async fn observe(&self) -> Result<Vec<NodeState>, Error>;
}
