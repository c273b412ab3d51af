//! The machines of the cluster and what is in use on them.

use grid_core::cluster::Node;
use grid_core::time::Timestamp;
use grid_store::db;

use crate::Engine;
use crate::error::Result;

/// A machine.
#[derive(Debug, Clone)]
pub struct NodeStatus {
    /// What it has.
    pub node: Node,
    /// Whether its runner has spoken lately.
    pub connected: bool,
    /// CPUs handed out.
    pub cpus_used: u32,
    /// GPUs handed out.
    pub gpus_used: u32,
    /// What it cannot enforce.
    pub warnings: Vec<String>,
}

/// How long a runner that is fine may be silent: its longest wait and some.
/// Longer: experiments are sent to a machine that is gone; shorter: one that is fine is
/// shown as gone.
pub(crate) const CONNECTED_MS: u128 = 30_000;

impl Engine {
    /// The name of the one cluster.
    pub fn cluster(&self) -> &str {
        &self.inner.cluster
    }

    /// Since when it has been there.
    pub async fn since(&self) -> Result<Timestamp> {
        let mut tx = self.inner.db.read().await?;
        let first = db::user::first_at(&mut tx).await?;
        Ok(first.unwrap_or_else(|| self.inner.clock.now()))
    }

    /// Its machines.
    pub async fn nodes(&self) -> Result<Vec<NodeStatus>> {
        let states = self
            .inner
            .executor
            .observe()
            .await
            .map_err(crate::Error::internal)?;
        let book = self.inner.book();
        Ok(states
            .into_iter()
            .map(|state| NodeStatus {
                connected: state.silent.as_millis() < CONNECTED_MS,
                // What is sent ahead is not in use yet.
                cpus_used: book.board.cpus_used(&state.node.id).min(state.node.cpus),
                gpus_used: u32::try_from(book.board.gpus_used(&state.node.id)).unwrap_or(u32::MAX),
                warnings: state.warnings,
                node: state.node,
            })
            .collect())
    }

    /// Refuses everybody but operators the log of the server.
    pub fn may_read_log(&self, caller: &crate::Caller) -> Result<()> {
        caller.require_operator("read the log of the server")
    }

    /// How many experiments wait.
    pub fn waiting(&self) -> u64 {
        self.inner.book().board.waiting_len() as u64
    }

    /// How many are open.
    pub fn open_count(&self) -> u64 {
        self.inner.book().len() as u64
    }
}
