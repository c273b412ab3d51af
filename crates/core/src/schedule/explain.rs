//! Why something waits, in words that people can act on.

use serde::{Deserialize, Serialize};

use super::queue::Board;
use crate::cluster::{Need, Node};
use crate::duration::format_size;
use crate::id::{UserId, WorkloadId};

/// Why a workload waits.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Waiting {
    /// What it asks for that is not free: `2 CPUs`, `1 GPU`; empty when it is about to be placed.
    pub lacks: String,
    /// Whose experiments come before it.
    pub ahead: Vec<Ahead>,
}

/// How many experiments of one person come before.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ahead {
    /// Whose.
    pub owner: UserId,
    /// How many.
    pub experiments: u64,
}

impl Board {
    /// Why `id` waits; `None` when it does not.
    pub fn explain(&self, id: WorkloadId) -> Option<Waiting> {
        let waiter = self.waiting.get(&id)?;
        let own = self.lines.get(&waiter.owner)?;
        let before = own.before(waiter.since, id);
        let mut ahead = Vec::new();
        if before > 0 {
            ahead.push(Ahead {
                owner: waiter.owner,
                experiments: before,
            });
        }
        // Others take turns with this person: for each place that comes free they
        // are as likely first, so at most as many of theirs come before.
        let mine = self.cpus_held.get(&waiter.owner).copied().unwrap_or(0);
        for (owner, line) in &self.lines {
            let theirs = self.cpus_held.get(owner).copied().unwrap_or(0);
            if *owner == waiter.owner || theirs > mine {
                continue;
            }
            let turns = line.len().min(before + 1);
            ahead.push(Ahead {
                owner: *owner,
                experiments: turns,
            });
        }
        Some(Waiting {
            lacks: self.lacks(&waiter.need),
            ahead,
        })
    }

    fn lacks(&self, need: &Need) -> String {
        let could = self
            .seats
            .values()
            .filter(|seat| !seat.closed && seat.node.could_fit(need));
        let Some(seat) = could.max_by_key(|seat| {
            (
                seat.fits_now(&seat.node.resolve(need), None),
                seat.cpus_free(),
            )
        }) else {
            return self.lacks_machine(need);
        };
        let need = seat.node.resolve(need);
        if !seat.has_gpus(need.gpus) {
            return count(need.gpus, "GPU");
        }
        if !seat.has_cpus(need.cpus) {
            return count(need.cpus, "CPU");
        }
        if !seat.has_memory(need.memory_bytes) {
            return format!("{} MiB of memory", need.memory_bytes >> 20);
        }
        String::new()
    }

    /// What kind of machine is missing altogether.
    fn lacks_machine(&self, need: &Need) -> String {
        if self.seats.is_empty() {
            return "a machine: none has reported yet".to_owned();
        }
        if self.seats.values().any(|seat| seat.node.could_fit(need)) {
            return "a machine: the one that could take it is out of reach or closed".to_owned();
        }
        let mut parts = Vec::new();
        if need.cpus > 0 {
            parts.push(count(need.cpus, "CPU"));
        }
        if need.gpus > 0 {
            parts.push(count(need.gpus, "GPU"));
        }
        if need.memory_bytes > 0 {
            parts.push(format!("{} MiB of memory", need.memory_bytes >> 20));
        }
        format!(
            "a machine with {}: none of those here is that large",
            parts.join(", ")
        )
    }
}

/// Why `need` can never be met by `nodes`, with the numbers; `None` when it can.
pub fn never_fits<'a>(need: &Need, nodes: impl IntoIterator<Item = &'a Node>) -> Option<String> {
    let mut largest: Option<&Node> = None;
    for node in nodes {
        if node.could_fit(need) {
            return None;
        }
        if largest.is_none_or(|best| (node.gpus, node.cpus) > (best.gpus, best.cpus)) {
            largest = Some(node);
        }
    }
    let Some(node) = largest else {
        return Some("the cluster has no machine yet".to_owned());
    };
    let asked = node.resolve(need);
    let shape = |cpus, gpus, memory_bytes: u64| {
        let mut parts = vec![count(cpus, "CPU")];
        // Only what was asked for is compared: memory in proportion is nobody's wish.
        if need.gpus > 0 {
            parts.push(count(gpus, "GPU"));
        }
        if need.memory_bytes > 0 {
            parts.push(format!("{} of memory", format_size(memory_bytes)));
        }
        parts.join(" and ")
    };
    Some(format!(
        "it asks for {}; the largest machine has {}",
        shape(asked.cpus, asked.gpus, asked.memory_bytes),
        shape(node.cpus, node.gpus, node.memory_bytes),
    ))
}

fn count(n: u32, what: &str) -> String {
    if n == 1 {
        format!("1 {what}")
    } else {
        format!("{n} {what}s")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_can_never_fit_is_told_with_the_numbers() {
        let id = "local".parse().unwrap();
        let node = Node {
            id,
            cpus: 2,
            gpus: 0,
            memory_bytes: 4 << 30,
        };
        let check = |cpus, gpus, memory_bytes| {
            let need = Need {
                cpus,
                gpus,
                memory_bytes,
            };
            never_fits(&need, [&node])
        };
        assert_eq!(check(2, 0, 4 << 30), None);
        let told = check(64, 0, 0).unwrap();
        assert_eq!(told, "it asks for 64 CPUs; the largest machine has 2 CPUs");
        let told = check(1, 1, 0).unwrap();
        assert_eq!(
            told,
            "it asks for 1 CPU and 1 GPU; the largest machine has 2 CPUs and 0 GPUs"
        );
        let told = check(1, 0, 8 << 30).unwrap();
        assert!(
            told.contains("8 GiB of memory") && told.contains("4 GiB of memory"),
            "{told}"
        );
        assert!(never_fits(&Need::default(), []).is_some());
    }
}
