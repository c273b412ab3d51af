//! What a runner and the server say to each other.
//!
//! The protocol is level-triggered.  A runner calls `POST /runner/sync` over and
//! over: it says what it is and what attempts it has; the answer says what to
//! launch, stop and forget.  Any answer may be lost, repeated or late: the next
//! sync repairs it.  The call waits up to `wait_ms` when there is nothing to say.
//! Logs go to `PUT /runner/attempts/{attempt}/logs/{stream}?offset=N` (bytes of
//! frames, see `grid_core::logframe`), artifacts as blobs to `PUT /runner/blobs` and
//! then as a list to `PUT /runner/attempts/{attempt}/artifacts`.  An attempt that is
//! not the present one of its workload is refused everywhere with 409: the runner
//! then ends it and drops what it has of it.

use std::collections::BTreeMap;

use grid_core::cluster::{Node, Placement};
use grid_core::id::{AttemptId, WorkloadId};
use grid_core::spec::RunSpec;
use grid_core::workload::End;
use serde::{Deserialize, Serialize};

use crate::artifact::ArtifactView;
use crate::log::LogStream;

/// The longest a sync waits for something to say, in milliseconds.  Higher:
/// proxies cut it; lower: idle machines talk for nothing.
pub const SYNC_WAIT_MS_MAX: u64 = 20_000;

/// Attempts in one sync.  More are not placed on one node.
pub const ATTEMPTS_MAX: usize = 10_000;

/// Most bytes of log that ride along in a sync; more goes by `PUT`.
pub const INLINE_LOG_BYTES_MAX: usize = 64 << 10;

/// `POST /runner/sync`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sync {
    /// The node and what it has.
    pub node: Node,
    /// What it cannot enforce, in sentences; shown to people.
    #[serde(default)]
    pub warnings: Vec<String>,
    /// Programs that it has: `git`, `uv`, `conda`, `julia`, `podman`, …; what needs another is refused at submit.
    #[serde(default)]
    pub tools: Vec<String>,
    /// Every attempt that this runner knows, also ended ones that it was not told to forget.
    pub have: Vec<Have>,
    /// How long to wait when there is nothing to say.
    pub wait_ms: u64,
    /// Rises with every sync of one runner process, so that a late one is ignored.
    pub seq: u64,
    /// Drawn anew by each runner process.
    pub epoch: u64,
    /// The `seq` of earlier syncs whose answers the runner still waited for when it
    /// composed this one.  Any other answer has reached it or never will, so what this
    /// sync does not list of it was lost and is given again.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub awaiting: Vec<u64>,
}

/// One attempt on a runner.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Have {
    /// Which.
    pub attempt: AttemptId,
    /// How far it is.
    pub phase: Phase,
    /// What is being done, for people: "installing 12 packages".
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
    /// Log bytes not sent otherwise; a short experiment needs no other request.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub logs: Vec<InlineLog>,
    /// Artifacts not listed otherwise; their blobs are stored.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub artifacts: Vec<ArtifactView>,
}

/// A piece of a log inside a sync.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InlineLog {
    /// Which log.
    pub stream: LogStream,
    /// Where the piece begins in it.
    pub offset: u64,
    /// The bytes, in base64.
    pub frames: String,
}

/// How far an attempt is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "phase", rename_all = "snake_case")]
pub enum Phase {
    /// Waits at the runner for CPUs.
    Waiting,
    /// Code and environment are being prepared.
    Preparing,
    /// The user's process runs, or its artifacts are still being stored.
    Running,
    /// Over, and all of it is stored.
    Ended {
        /// How.
        end: End,
        /// Whether the user's process ran: of one that is over soon, `Running` is never said.
        #[serde(default)]
        ran: bool,
    },
}

/// The answer to a sync.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Orders {
    /// Attempts to start, in this order, unless the runner has or had them.
    #[serde(default)]
    pub launch: Vec<Launch>,
    /// Attempts to end.
    #[serde(default)]
    pub stop: Vec<StopOrder>,
    /// Attempts that have been recorded as over: their remains may go.
    #[serde(default)]
    pub forget: Vec<AttemptId>,
    /// The runner should end when it has nothing left to run (a newer one takes over).
    #[serde(default)]
    pub retire: bool,
}

/// An order to end an attempt.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StopOrder {
    /// Which.
    pub attempt: AttemptId,
    /// How long after SIGTERM comes SIGKILL, in milliseconds.
    pub grace_ms: u64,
    /// Whether its remains (logs, artifacts) are still wanted; not of a superseded attempt.
    pub keep: bool,
}

/// An order to start an attempt: all that a runner needs to know.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Launch {
    /// Which.
    pub attempt: AttemptId,
    /// What it holds on the node.
    pub placement: Placement,
    /// Name of the run.
    pub run: String,
    /// Name of the experiment.
    pub experiment: String,
    /// Number of the experiment in the run.
    pub index: u64,
    /// User name of the creator.
    pub username: String,
    /// Id of the creator.
    pub user_id: String,
    /// Name of the cluster.
    pub cluster: String,
    /// What was asked for.
    pub spec: RunSpec,
    /// The script, or the program and what belongs to it: `["train.py"]`, `["python", "-m", "pkg"]`.
    pub program: Vec<String>,
    /// The arguments of this experiment.
    pub args: Vec<String>,
    /// Its parameters by name.
    pub parameters: BTreeMap<String, String>,
    /// The earlier attempt whose artifacts are restored first (`auto_resume`).
    #[serde(default)]
    pub resume: bool,
    /// The workload, for file names.
    pub workload: WorkloadId,
}

/// The query of `PUT /runner/attempts/{attempt}/logs/{stream}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogPut {
    /// Where the body begins in the log.
    pub offset: u64,
}

/// The answer: how long the log is now.  After a 409 with a gap, send from here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogLength {
    /// Bytes of frames stored.
    pub length: u64,
}

/// `PUT /runner/attempts/{attempt}/artifacts`: files whose blobs are stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ArtifactsPut {
    /// New or changed files; at most 10,000 a call.
    pub artifacts: Vec<ArtifactView>,
    /// Files that are gone again and were not kept.
    #[serde(default)]
    pub removed: Vec<String>,
}

/// `POST /runner/blobs/fetch`: the answer is records as in [`crate::blob`], in the order asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlobsFetch {
    /// BLAKE3 in hex; at most 10,000 a call.
    pub blobs: Vec<String>,
    /// Leave long runs of zeros out ([`crate::blob::framed_len`]).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub sparse: bool,
}

/// `POST /runner/datastores/known`: which of these versions are still there, also in the trash.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VersionsKnown {
    /// Ids; at most 1,000 a call.
    pub versions: Vec<String>,
}

/// `POST /runner/blobs/missing`: which of these the server does not have.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlobsMissing {
    /// BLAKE3 in hex; at most 10,000 a call.
    pub blobs: Vec<String>,
}
