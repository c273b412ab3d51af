//! What people submit, and how their scripts behave.

use grid_core::cluster::Need;
use grid_core::id::UserId;
use grid_core::workload::Kind;

/// A submitted workload, as the server keeps it beside the log.
#[derive(Debug, Clone)]
pub(super) struct Submitted {
    pub(super) kind: Kind,
    pub(super) owner: UserId,
    pub(super) need: Need,
    pub(super) script: Script,
    /// For the trace: `w3`.
    pub(super) name: String,
}

/// How a script behaves.
#[derive(Debug, Clone, Copy)]
pub(super) struct Script {
    /// How long its environment takes.
    pub(super) prepare_ms: u64,
    /// How long it runs; a session runs until it is stopped.
    pub(super) run_ms: Option<u64>,
    /// How long its artifacts take to be stored.
    pub(super) collect_ms: u64,
    /// How often it fails.
    pub(super) fails_percent: u64,
    /// Whether its environment cannot be built.
    pub(super) build_fails: bool,
    /// Whether it does nothing on SIGTERM.
    pub(super) ignores_term: bool,
    /// Whether it saves and exits with 0 on SIGTERM.
    pub(super) saves: bool,
}

/// How a process ended, as its keeper saw it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Exit {
    /// By itself, with this code.
    Code(i32),
    /// By a signal of the runner's.
    Signal,
    /// Killed by the keeper because the server was silent.
    Fenced,
    /// With its machine.
    Gone,
}
