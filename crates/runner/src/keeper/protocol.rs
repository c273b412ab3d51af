//! What the keeper and its clients say to each other: JSON, one message per line.
//!
//! A client sends [`Request`]s, as many as it likes without waiting; the keeper
//! answers each with one [`Message::Reply`] of the same `id`, in any order, and
//! pushes the other messages to every client.  Fields and variants are only added.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// Number of the protocol.  Raised when an old keeper cannot serve a new client.
pub const PROTOCOL: u32 = 1;

/// Longest request in bytes.
/// Higher: a mad client costs the keeper memory.  Lower: large environments are refused.
pub const REQUEST_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Most tasks that a keeper remembers, running or ended and not yet forgotten.
/// Higher: a runner that never forgets costs memory.  Lower: spawns are refused.
pub const TASKS_MAX: usize = 20_000;

/// Longest key of a task, in bytes.  Keys are for people's eyes and memory only.
pub const KEY_BYTES_MAX: usize = 200;

/// An argument that stands for the number of the status file of the sandbox.
/// The keeper puts the number in its place when it starts a sandboxed task.
pub const STATUS_FD_ARGUMENT: &str = "{grid-status-fd}";

/// One request of a client.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Request {
    /// Comes back with the answer.
    pub id: u64,
    pub ask: Ask,
}

/// What a client can ask for.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ask {
    /// Start a process.  For a key that is known: nothing, and its present state.
    Spawn(Spawn),
    Signal(SendSignal),
    /// Drop an ended task.  Unknown is fine, running is refused.
    Forget {
        key: String,
    },
    /// How one task stands.
    Look {
        key: String,
    },
    List,
    /// Go, at the first moment at which nothing runs.
    StopWhenIdle,
}

/// A process to start.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spawn {
    /// Names the task from now on.
    pub key: String,
    /// Program and arguments.  The program is looked up in the `PATH` of `env`.
    pub argv: Vec<String>,
    /// The whole environment: nothing is inherited.
    pub env: Vec<(String, String)>,
    pub cwd: PathBuf,
    /// Where what it writes is kept.  Made if missing; must be this task's alone.
    pub spool_dir: PathBuf,
    /// `cgroup.procs` files to join before the program is executed.
    #[serde(default)]
    pub cgroup: Vec<PathBuf>,
    /// The program is bubblewrap: signals are meant for the processes inside.
    #[serde(default)]
    pub sandboxed: bool,
    #[serde(default)]
    pub umask: Option<u32>,
    #[serde(default)]
    pub nice: Option<i32>,
}

/// A signal to send.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SendSignal {
    pub key: String,
    /// Number of the signal.
    pub signal: i32,
    /// To the whole process group and cgroup, not only to the main process.
    pub whole_group: bool,
}

/// What the keeper says.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Message {
    /// The first line of every connection.
    Hello(Hello),
    Reply {
        id: u64,
        answer: Answer,
    },
    /// A task wrote something: its spool now holds this many bytes in all.
    /// At most one per task and 20 ms; none for a client that reads too slowly.
    Grew {
        key: String,
        total_bytes: u64,
    },
    /// What a task wrote cannot be kept for now; the task waits.
    Stalled {
        key: String,
        reason: String,
    },
    /// A task ended, and all that it wrote is in its spool.
    Ended {
        key: String,
        exit: Exit,
    },
}

/// Who the keeper is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    pub protocol: u32,
    pub version: String,
    pub pid: i32,
}

/// The answer to one request.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    Done,
    /// To `spawn` and `look`: how the task stands.
    Task(TaskState),
    Tasks(Vec<TaskView>),
    Refused {
        why: Refused,
        message: String,
    },
}

/// Why the keeper did not obey.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Refused {
    /// The request makes no sense.
    Invalid,
    /// There is no such program, folder or cgroup, or it may not be used.
    CannotStart,
    /// The task still runs.
    Running,
    /// There is no such task.
    Unknown,
    /// A limit of the keeper or of the machine is reached: try later.
    Exhausted,
}

/// One task, as `list` shows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskView {
    pub key: String,
    pub spool_dir: PathBuf,
    pub state: TaskState,
    /// Bytes in the spool, both streams together.
    pub total_bytes: u64,
    /// Why what it writes cannot be kept for now.
    pub stalled: Option<String>,
}

/// How a task stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TaskState {
    Starting,
    Running { pid: i32, start_time: u64 },
    Ended { exit: Exit },
}

/// How a task ended, and what it used.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exit {
    pub how: Ending,
    pub started_at_ms: i64,
    pub ended_at_ms: i64,
    pub usage: Usage,
}

/// How a task ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ending {
    /// The process ended by itself.
    Code { code: i32 },
    /// A signal killed the process.
    Signal { signal: i32 },
    /// The sandbox reported `128 + signal`.  It does so for a process that was
    /// killed, and does not say whether the process itself chose that code.
    CodeOrSignal { code: i32, signal: i32 },
    /// The sandbox could not be set up; what it said is in the spool.
    SandboxFailed { code: i32 },
    /// The keeper was killed, and the process with it.
    Lost,
}

impl Ending {
    /// Whether the process ended by itself with code 0.
    pub fn is_success(self) -> bool {
        self == Self::Code { code: 0 }
    }

    /// The signal that killed the process, as far as can be known.
    pub fn signal(self) -> Option<i32> {
        match self {
            Self::Signal { signal } | Self::CodeOrSignal { signal, .. } => Some(signal),
            Self::Code { .. } | Self::SandboxFailed { .. } | Self::Lost => None,
        }
    }

    /// The exit code as a shell would give it; `None` for a lost task.
    pub fn shell_code(self) -> Option<i32> {
        match self {
            Self::Code { code }
            | Self::CodeOrSignal { code, .. }
            | Self::SandboxFailed { code } => Some(code),
            Self::Signal { signal } => Some(128 + signal),
            Self::Lost => None,
        }
    }
}

/// What the main process and those it waited for used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// Largest memory of a single process.
    pub max_rss_bytes: u64,
    pub cpu_user_ms: u64,
    pub cpu_system_ms: u64,
}
