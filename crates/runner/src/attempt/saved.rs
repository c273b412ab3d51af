//! What must be known of an attempt after a restart and cannot be found out again.
//!
//! `launch.json` is there before anything is started: without it, nothing was.
//! `state.json` is only written when there is something in it, because most attempts
//! are short and a file costs as much as the rest of them.

use std::fs;
use std::io;
use std::path::Path;

use grid_api::runner::Launch;
use grid_core::workload::End;
use serde::{Deserialize, Serialize};

use crate::folder;
use crate::spare::Spare;
use crate::table::Grant;

const LAUNCH_FILE: &str = "launch.json";
const STATE_FILE: &str = "state.json";

/// The order, and what was given.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Order {
    pub(crate) launch: Launch,
    pub(crate) grant: Grant,
}

/// What was decided on the way.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(crate) struct Saved {
    /// Why the process was told to end, if it was.
    #[serde(default)]
    pub(crate) cause: Option<Cause>,
    /// How it ended; from then on only remains are to be stored.
    #[serde(default)]
    pub(crate) end: Option<End>,
    /// Its artifacts are stored and listed as well.
    #[serde(default)]
    pub(crate) artifacts_stored: bool,
}

/// Why a process was told to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Cause {
    /// Somebody wanted it.
    Stopped,
    /// The machine goes away.
    Interrupted,
    /// It ran too long.
    OverTime,
    /// The server was silent for too long.
    Silence,
}

/// Makes the folder of an attempt and writes the order down.
pub(crate) fn write_order(folder: &Path, order: &Order, spare: &Spare) -> io::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    let text = serde_json::to_vec(order).map_err(io::Error::other)?;
    if spare.furnish(folder, &text) {
        return Ok(());
    }
    fs::DirBuilder::new()
        .mode(0o700)
        .create(folder)
        .or_else(|error| match error.kind() {
            io::ErrorKind::AlreadyExists => Ok(()),
            _ => Err(error),
        })?;
    // Nothing is started before this is complete, so a torn one means "never started".
    fs::write(folder.join(LAUNCH_FILE), text)
}

/// The order of an attempt; `None` when none was written whole.
pub(crate) fn read_order(folder: &Path) -> Option<Order> {
    let text = fs::read(folder.join(LAUNCH_FILE)).ok()?;
    serde_json::from_slice(&text).ok()
}

/// From now on the attempt was never here: its remains are removed after a crash too.
pub(crate) fn remove_order(folder: &Path) -> io::Result<()> {
    folder::remove_all(&folder.join(LAUNCH_FILE))
}

pub(crate) fn write_state(folder: &Path, saved: &Saved) -> io::Result<()> {
    folder::write_whole(
        &folder.join(STATE_FILE),
        &serde_json::to_vec(saved).map_err(io::Error::other)?,
    )
}

pub(crate) fn read_state(folder: &Path) -> Saved {
    let text = fs::read(folder.join(STATE_FILE)).ok();
    text.and_then(|text| serde_json::from_slice(&text).ok())
        .unwrap_or_default()
}
