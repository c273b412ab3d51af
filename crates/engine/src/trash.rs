//! Emptying the trash: rows first, then logs, then bytes that nothing names any more.

use std::collections::HashSet;
use std::time::Duration;

use futures::StreamExt;
use grid_core::blob::BlobId;
use grid_store::db;

use crate::error::Result;
use crate::{Engine, log, snapshot};

/// How long a deleted run can be brought back.
pub const TRASH_LIFE_MS: i64 = 7 * 24 * 60 * 60 * 1_000;

/// How long a captured tree that no run uses is kept: somebody may be about to.
const SNAPSHOT_LIFE_MS: i64 = 24 * 60 * 60 * 1_000;

/// How long an idempotency key is remembered.
const KEY_LIFE_MS: i64 = 7 * 24 * 60 * 60 * 1_000;

/// How often the trash is looked at.
const EVERY: Duration = Duration::from_secs(60 * 60);

/// Things removed in one step.
const STEP: u32 = 64;

/// Blobs deleted in one call.
const DELETE_STEP: usize = 4_096;

/// What went.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Emptied {
    /// Runs and single experiments.
    pub things: u64,
    /// Logs of attempts.
    pub logs: u64,
    /// Captured trees.
    pub snapshots: u64,
    /// Blobs.
    pub blobs: u64,
}

impl Engine {
    /// Empties the trash now and then, for ever.
    pub async fn keep_trash(&self) {
        loop {
            match empty(self, TRASH_LIFE_MS).await {
                Ok(emptied) if emptied == Emptied::default() => {}
                Ok(emptied) => tracing::info!(?emptied, "emptied the trash"),
                Err(error) => tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "the trash could not be emptied; trying again later"
                ),
            }
            tokio::time::sleep(EVERY).await;
        }
    }
}

/// Removes for good what was deleted more than `life_ms` ago.
pub async fn empty(engine: &Engine, life_ms: i64) -> Result<Emptied> {
    let inner = &engine.inner;
    let now = inner.clock.now();
    let before = now.plus_millis(-life_ms);
    let mut emptied = Emptied::default();
    let mut attempts = Vec::new();
    loop {
        let mut tx = inner.db.read().await?;
        let runs = db::purge::runs(&mut tx, before, STEP).await?;
        let singles = db::purge::workloads(&mut tx, before, STEP).await?;
        drop(tx);
        if runs.is_empty() && singles.is_empty() {
            break;
        }
        for run in runs {
            loop {
                let mut tx = inner.db.write().await?;
                let purged = db::purge::run(&mut tx, run).await?;
                tx.commit().await?;
                attempts.extend(purged.attempts);
                if purged.done {
                    break;
                }
            }
            emptied.things += 1;
        }
        if !singles.is_empty() {
            let mut tx = inner.db.write().await?;
            let purged = db::purge::single(&mut tx, &singles).await?;
            tx.commit().await?;
            attempts.extend(purged.attempts);
            emptied.things += singles.len() as u64;
        }
    }
    for attempt in attempts {
        inner
            .logs
            .delete(&log::key(attempt.workload, attempt.number))
            .await?;
        emptied.logs += 1;
    }
    emptied.snapshots = drop_snapshots(engine, now.plus_millis(-SNAPSHOT_LIFE_MS)).await?;
    let mut tx = inner.db.write().await?;
    db::idempotency::remove_before(&mut tx, now.plus_millis(-KEY_LIFE_MS)).await?;
    tx.commit().await?;
    if emptied != Emptied::default() {
        emptied.blobs = collect(engine).await?;
    }
    Ok(emptied)
}

async fn drop_snapshots(engine: &Engine, before: grid_core::time::Timestamp) -> Result<u64> {
    let mut dropped = 0;
    loop {
        let mut tx = engine.inner.db.write().await?;
        let unused = db::snapshot::unreferenced(&mut tx, before, STEP).await?;
        for snapshot in &unused {
            dropped += u64::from(db::snapshot::remove(&mut tx, snapshot.id).await?);
        }
        tx.commit().await?;
        if unused.is_empty() {
            return Ok(dropped);
        }
    }
}

/// Every blob that something names: artifacts, manifests, and the files of manifests.
pub(crate) async fn referenced(engine: &Engine) -> Result<HashSet<BlobId>> {
    let mut live = HashSet::new();
    let mut after = None;
    loop {
        let mut tx = engine.inner.db.read().await?;
        let page = db::artifact::blobs_referenced(&mut tx, after, db::PAGE_ROWS_MAX).await?;
        live.extend(page.items);
        match page.next {
            Some(next) => after = Some(next),
            None => break,
        }
    }
    let mut after = None;
    loop {
        let mut tx = engine.inner.db.read().await?;
        let page = db::snapshot::all(&mut tx, after, db::PAGE_ROWS_MAX).await?;
        drop(tx);
        for one in &page.items {
            let bytes = snapshot::manifest(engine, one.manifest_blob).await?;
            live.extend(snapshot::blobs_of(&bytes)?);
        }
        match page.next {
            Some(next) => after = Some(next),
            None => return Ok(live),
        }
    }
}

/// Deletes blobs that nothing names.  The store keeps those that were uploaded or
/// asked about lately, so an upload under way loses nothing.
async fn collect(engine: &Engine) -> Result<u64> {
    let live = referenced(engine).await?;
    let mut all = Box::pin(engine.inner.blobs.list());
    let mut dead = Vec::new();
    let mut deleted = 0;
    while let Some(info) = all.next().await {
        let info = info?;
        if !live.contains(&info.id) {
            dead.push(info.id);
        }
        if dead.len() >= DELETE_STEP {
            deleted += engine
                .inner
                .blobs
                .delete(std::mem::take(&mut dead))
                .await?
                .removed;
        }
    }
    deleted += engine.inner.blobs.delete(dead).await?.removed;
    Ok(deleted)
}
