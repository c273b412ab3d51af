//! Names of runs: one for each run of a creator that is not in the trash, and for each that
//! waits for its code.

use grid_core::id::RunId;
use grid_core::name::RunName;
use grid_core::time::Timestamp;
use grid_store::db;

use crate::Engine;
use crate::access::Caller;
use crate::error::{Error, Result};

/// What a run that was asked for before its code was there has already.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Reserved {
    pub(crate) id: RunId,
    pub(crate) created_at: Timestamp,
}

/// Reads a name.
pub(super) fn parse(name: &str) -> Result<RunName> {
    RunName::parse(name).map_err(|e| Error::invalid(e.to_string()))
}

/// Refuses a name that is in use, by a run or by one that waits for its code.
pub(super) async fn require_free(
    engine: &Engine,
    caller: &Caller,
    name: &RunName,
    reserved: Option<RunId>,
) -> Result<()> {
    let mut tx = engine.inner.db.read().await?;
    let runs = db::run::names_taken(&mut tx, caller.id(), &[name.as_str()]).await?;
    if !runs.is_empty() {
        return Err(taken(name));
    }
    let draft = db::draft::by_name(&mut tx, caller.id(), name.as_str()).await?;
    let now = engine.inner.clock.now();
    match draft {
        // One that has ended, or whose time is over, makes room for the next.
        Some(draft) if draft.ended.is_none() && draft.expires_at > now => {
            if reserved == Some(draft.id) {
                Ok(())
            } else {
                Err(taken(name))
            }
        }
        _ => Ok(()),
    }
}

/// What is said of a name that is in use.
pub(crate) fn taken(name: &RunName) -> Error {
    Error::Conflict {
        message: format!("you have a run '{name}' already"),
        hint: Some("choose another --name, or leave it out and one is made up".to_owned()),
    }
}

/// Sees to it that no draft has the name of a new run.
pub(super) async fn take(
    tx: &mut db::Tx,
    reserved: Option<Reserved>,
    caller: &Caller,
    name: &RunName,
    now: Timestamp,
) -> Result<()> {
    let Some(reserved) = reserved else {
        db::draft::remove_over(tx, caller.id(), name.as_str(), now).await?;
        return Ok(());
    };
    if db::draft::take(tx, reserved.id).await? {
        return Ok(());
    }
    Err(Error::conflict(format!(
        "run '{name}' was stopped or deleted before its code had come"
    )))
}
