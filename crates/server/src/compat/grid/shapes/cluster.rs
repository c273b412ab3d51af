//! Clusters and their machines.

use grid_core::time::Timestamp;
use grid_engine::NodeStatus;
use serde::Serialize;

use super::time;

/// All clusters.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(in crate::compat::grid) struct Clusters {
    pub(in crate::compat::grid) clusters: Vec<Cluster>,
    pub(in crate::compat::grid) default_cluster: String,
}

/// Where experiments run.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(in crate::compat::grid) struct Cluster {
    created_at: String,
    id: String,
    name: String,
    spec: Spec,
    pub(in crate::compat::grid) status: Status,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Spec {
    cluster_type: &'static str,
    cost_factor: &'static str,
    desired_state: &'static str,
    driver: Driver,
    gridlet_version: &'static str,
    padding_factor: &'static str,
    pause_automation: bool,
    performance_profile: &'static str,
    user_id: &'static str,
}

#[derive(Serialize)]
struct Driver {
    external: Option<()>,
    kubernetes: Kubernetes,
    slurm: Option<()>,
}

/// The client shows nothing of a cluster to be edited but what hangs on this.
#[derive(Serialize)]
struct Kubernetes {
    aws: Machines,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Machines {
    bucket_name: &'static str,
    instance_types: Vec<Machine>,
    region: &'static str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Machine {
    name: String,
    overprovisioned_ondemand_count: u32,
    root_volume_size: u32,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(in crate::compat::grid) struct Status {
    gridlet_version: &'static str,
    last_healthcheck_timestamp: Option<String>,
    pub(in crate::compat::grid) phase: &'static str,
    reason: String,
}

/// The kind of all clusters here: not one that its user has brought along.
pub(in crate::compat::grid) const TYPE: &str = "CLUSTER_TYPE_GLOBAL";

impl Cluster {
    pub(in crate::compat::grid) fn new(name: &str, since: Timestamp, nodes: &[NodeStatus]) -> Self {
        let (phase, reason) = if nodes.iter().any(|node| node.connected) {
            ("CLUSTER_STATE_RUNNING", "")
        } else {
            ("CLUSTER_STATE_PENDING", "no machine has spoken lately")
        };
        let machines = nodes.iter().map(|status| Machine {
            name: status.node.id.to_string(),
            overprovisioned_ondemand_count: 0,
            root_volume_size: 0,
        });
        Self {
            created_at: time(since),
            id: name.to_owned(),
            name: name.to_owned(),
            spec: Spec {
                cluster_type: TYPE,
                cost_factor: "0",
                desired_state: "CLUSTER_STATE_RUNNING",
                driver: Driver {
                    external: None,
                    kubernetes: Kubernetes {
                        aws: Machines {
                            bucket_name: "",
                            instance_types: machines.collect(),
                            region: "",
                        },
                    },
                    slurm: None,
                },
                gridlet_version: "",
                padding_factor: "0",
                pause_automation: false,
                performance_profile: "CLUSTER_PERFORMANCE_PROFILE_DEFAULT",
                user_id: "",
            },
            status: Status {
                gridlet_version: "",
                last_healthcheck_timestamp: None,
                phase,
                reason: reason.to_owned(),
            },
        }
    }
}

/// The machines that can be asked for.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(in crate::compat::grid) struct InstanceTypes {
    pub(in crate::compat::grid) instance_types: Vec<InstanceType>,
}

/// A machine that can be asked for by name.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(in crate::compat::grid) struct InstanceType {
    availability: &'static str,
    cpu: String,
    gpu: String,
    hourly_cost: f64,
    memory: String,
    name: String,
    overprovisioned_ondemand_count: u32,
    spot: bool,
}

impl InstanceType {
    pub(in crate::compat::grid) fn new(status: &NodeStatus) -> Self {
        let node = &status.node;
        Self {
            availability: if status.connected {
                "AVAILABILITY_AVAILABLE"
            } else {
                "AVAILABILITY_UNAVAILABLE"
            },
            cpu: node.cpus.to_string(),
            gpu: node.gpus.to_string(),
            hourly_cost: 0.0,
            memory: memory(node.memory_bytes),
            name: node.id.to_string(),
            overprovisioned_ondemand_count: 0,
            spot: false,
        }
    }
}

/// `7.8GiB`: with one digit, as people compare machines.
fn memory(bytes: u64) -> String {
    let tenths = (u128::from(bytes) * 10) >> 30;
    format!("{}.{}GiB", tenths / 10, tenths % 10)
}

#[cfg(test)]
mod tests {
    use super::memory;

    #[test]
    fn memory_has_one_digit() {
        assert_eq!(memory(8 << 30), "8.0GiB");
        assert_eq!(memory((8 << 30) - 1), "7.9GiB");
        assert_eq!(memory(0), "0.0GiB");
    }
}
