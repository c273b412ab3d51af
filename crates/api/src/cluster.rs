//! Clusters and the server itself.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// `GET /health`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Health {
    /// `ok`.
    pub status: String,
    /// Version of the server.
    pub version: String,
}

/// One node and what is in use on it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct NodeView {
    /// Name.
    pub name: String,
    /// Whether its runner is connected.
    pub connected: bool,
    /// CPUs handed out in all.
    pub cpus: u32,
    /// CPUs in use.
    pub cpus_used: u32,
    /// GPUs in all.
    pub gpus: u32,
    /// GPUs in use.
    pub gpus_used: u32,
    /// Memory in all, bytes.
    pub memory_bytes: u64,
    /// What the node cannot enforce or lacks, in sentences.
    #[serde(default)]
    pub warnings: Vec<String>,
}

/// A cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ClusterView {
    /// Name.
    pub name: String,
    /// `process` for this machine.
    pub kind: String,
    /// Its nodes.
    pub nodes: Vec<NodeView>,
    /// Experiments that wait.
    pub waiting: u64,
}

/// `GET /clusters`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ClustersResponse {
    /// By name; the default one first.
    pub clusters: Vec<ClusterView>,
}
