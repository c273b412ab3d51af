//! Clusters, their nodes, and what is handed out on them.

use serde::{Deserialize, Serialize};

use crate::id::NodeId;

/// What a workload asks for.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Need {
    /// CPUs, handed out exclusively.  0 means "one whole machine's".
    pub cpus: u32,
    /// GPUs, handed out exclusively.
    pub gpus: u32,
    /// Memory in bytes; 0 means "in proportion to the CPUs".
    pub memory_bytes: u64,
}

/// One machine of a cluster: what it has, whatever is in use.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Node {
    /// Its name.
    pub id: NodeId,
    /// CPUs that are handed out.
    pub cpus: u32,
    /// GPUs that are handed out, numbered from 0.
    pub gpus: u32,
    /// Memory that is handed out, in bytes.
    pub memory_bytes: u64,
}

impl Node {
    /// What `need` comes to on this node: every zero that means "in proportion" filled in.
    pub fn resolve(&self, need: &Need) -> Need {
        let cpus = if need.cpus == 0 { self.cpus } else { need.cpus };
        let memory_bytes = if need.memory_bytes == 0 {
            let share =
                u128::from(self.memory_bytes) * u128::from(cpus) / u128::from(self.cpus.max(1));
            u64::try_from(share).unwrap_or(u64::MAX)
        } else {
            need.memory_bytes
        };
        Need {
            cpus,
            gpus: need.gpus,
            memory_bytes,
        }
    }

    /// Whether `need` fits when nothing else runs here.
    pub fn could_fit(&self, need: &Need) -> bool {
        let need = self.resolve(need);
        need.cpus <= self.cpus && need.gpus <= self.gpus && need.memory_bytes <= self.memory_bytes
    }
}

/// A need met: where an attempt runs and what it holds there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Placement {
    /// The node.
    pub node: NodeId,
    /// CPUs held.
    pub cpus: u32,
    /// Which GPUs are held, by number on the node.
    pub gpus: Vec<u32>,
    /// Memory held, in bytes; the limit that is enforced.
    pub memory_bytes: u64,
}
