//! What runners call: saying what they have, sending what was made, fetching code.

use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use grid_api::artifact::ArtifactView;
use grid_api::log::LogStream;
use grid_api::runner::{ATTEMPTS_MAX, Have, Orders, Phase, SYNC_WAIT_MS_MAX, Sync};
use grid_api::snapshot::TreeEntry;
use grid_core::id::{AttemptId, NodeId, SnapshotId};
use grid_core::workload::{Actor, Command, State};
use grid_executor::Call;
use grid_store::db;
use grid_store::logs::LogError;
use tokio::time::Instant;

use crate::Engine;
use crate::error::{Error, Result};
use crate::log::{log_id, stream_of};
use crate::secret::hash_key;

/// Artifacts in one message.
const ARTIFACTS_MAX: usize = 10_000;

/// Longest path of an artifact, in bytes.
const PATH_MAX: usize = 4_096;

/// Which node has this token?
pub async fn authenticate(engine: &Engine, token: &str) -> Result<NodeId> {
    let mut tx = engine.inner.db.read().await?;
    let node = db::runner_token::node_by_hash(&mut tx, &hash_key(token)).await?;
    node.ok_or_else(|| Error::Unauthenticated("this runner's token is not known here".to_owned()))
}

/// Gives a node a new token; the old one ends.
pub async fn new_token(engine: &Engine, node: &NodeId) -> Result<String> {
    let clock = &engine.inner.clock;
    let token = format!("{:032x}{:032x}", clock.entropy(), clock.entropy());
    let mut tx = engine.inner.db.write().await?;
    db::runner_token::put(&mut tx, node, &hash_key(&token), clock.now()).await?;
    tx.commit().await?;
    Ok(token)
}

/// Takes what a runner says, and answers with what it should do.
pub async fn sync(engine: &Engine, node: &NodeId, sync: Sync) -> Result<Orders> {
    if sync.node.id != *node {
        return Err(Error::forbidden(format!("this token is for node '{node}'")));
    }
    if sync.have.len() > ATTEMPTS_MAX {
        return Err(Error::invalid(format!(
            "a runner has at most {ATTEMPTS_MAX} attempts"
        )));
    }
    let wait = Duration::from_millis(sync.wait_ms.min(SYNC_WAIT_MS_MAX));
    let deadline = Instant::now() + wait;
    // First what was made, then that it has ended: the log and the artifacts of a
    // finished experiment are whole.
    let commands = take(engine, node, &sync.have).await?;
    let call = Call::of(&sync);
    // Heard before it is recorded: what the log says to run is seen by who looks.
    engine.inner.hub.hear(sync, Instant::now());
    if !commands.is_empty() {
        for answer in engine.inner.recorder.record_all(commands, None).await? {
            // A refusal is a report that is late or repeated.
            let _refused = answer?;
        }
    }
    engine.wake();
    Ok(engine.inner.hub.orders(node, call, deadline).await)
}

/// Stores what rides along, and says which reports are news.
async fn take(
    engine: &Engine,
    node: &NodeId,
    have: &[Have],
) -> Result<Vec<(grid_core::id::WorkloadId, Command, Actor)>> {
    let mut commands = Vec::new();
    let mut artifacts = Vec::new();
    for have in have {
        let attempt = have.attempt;
        let Some(state) = present(engine, attempt, node) else {
            continue;
        };
        for piece in &have.logs {
            let bytes = BASE64_STANDARD
                .decode(&piece.frames)
                .map_err(|_| Error::invalid("a piece of a log is not base64"))?;
            append(engine, attempt, piece.stream, piece.offset, bytes.into()).await?;
        }
        for artifact in &have.artifacts {
            match row(engine, attempt, artifact) {
                Ok(row) => artifacts.push(row),
                // One bad name must not keep a whole node from being heard.
                Err(error) => tracing::warn!(
                    %attempt,
                    error = &error as &dyn std::error::Error,
                    "a runner names an artifact that cannot be kept"
                ),
            }
        }
        let actor = Actor::Runner(attempt.number);
        let ran = matches!(have.phase, Phase::Running | Phase::Ended { ran: true, .. });
        let started = ran && matches!(state, State::Starting { .. });
        if started {
            commands.push((
                attempt.workload,
                Command::Started {
                    attempt: attempt.number,
                },
                actor,
            ));
        }
        if let Phase::Ended { end, .. } = &have.phase {
            let command = Command::Ended {
                attempt: attempt.number,
                end: end.clone(),
            };
            commands.push((attempt.workload, command, actor));
        }
    }
    store_artifacts(engine, &artifacts).await?;
    Ok(commands)
}

/// The state of the workload, if `attempt` is its present one and is on `node`.
fn present(engine: &Engine, attempt: AttemptId, node: &NodeId) -> Option<State> {
    let book = engine.inner.book();
    let state = &book.get(attempt.workload)?.workload.state;
    let present = state.attempt()?;
    (present.number == attempt.number && present.placement.node == *node).then(|| state.clone())
}

fn require_present(engine: &Engine, attempt: AttemptId, node: &NodeId) -> Result<State> {
    present(engine, attempt, node).ok_or_else(|| {
        Error::conflict(format!(
            "attempt {attempt} is not the present one on '{node}'"
        ))
    })
}

/// Appends to the log of an attempt; answers with its length.  A gap is answered
/// with what is there.
pub async fn put_log(
    engine: &Engine,
    node: &NodeId,
    attempt: AttemptId,
    stream: LogStream,
    offset: u64,
    bytes: Bytes,
) -> Result<u64> {
    require_present(engine, attempt, node)?;
    append(engine, attempt, stream, offset, bytes).await
}

async fn append(
    engine: &Engine,
    attempt: AttemptId,
    stream: LogStream,
    offset: u64,
    bytes: Bytes,
) -> Result<u64> {
    let log = log_id(attempt.workload, attempt.number, stream_of(stream))?;
    match engine.inner.logs.append(&log, offset, bytes).await {
        Ok(length) => Ok(length),
        Err(LogError::Gap { .. }) => Ok(engine.inner.logs.progress(&log).await?.len),
        Err(other) => Err(other.into()),
    }
}

/// How long the log of an attempt is.
pub async fn log_length(
    engine: &Engine,
    node: &NodeId,
    attempt: AttemptId,
    stream: LogStream,
) -> Result<u64> {
    require_present(engine, attempt, node)?;
    let log = log_id(attempt.workload, attempt.number, stream_of(stream))?;
    Ok(engine.inner.logs.progress(&log).await?.len)
}

/// Records artifacts whose blobs are stored.
pub async fn put_artifacts(
    engine: &Engine,
    node: &NodeId,
    attempt: AttemptId,
    artifacts: &[ArtifactView],
) -> Result<()> {
    require_present(engine, attempt, node)?;
    if artifacts.len() > ARTIFACTS_MAX {
        return Err(Error::invalid(format!(
            "send at most {ARTIFACTS_MAX} artifacts at a time"
        )));
    }
    let rows: Vec<_> = artifacts
        .iter()
        .map(|artifact| row(engine, attempt, artifact))
        .collect::<Result<_>>()?;
    store_artifacts(engine, &rows).await
}

async fn store_artifacts(engine: &Engine, rows: &[db::artifact::Artifact]) -> Result<()> {
    if rows.is_empty() {
        return Ok(());
    }
    let mut ids: Vec<_> = rows.iter().map(|row| row.blob).collect();
    ids.sort_unstable();
    ids.dedup();
    if let Some(missing) = engine.inner.blobs.missing(ids).await?.first() {
        return Err(Error::conflict(format!(
            "the bytes {missing} of an artifact are not stored yet"
        )));
    }
    // Once it is told that they are kept, the runner may delete its own.
    engine.inner.blobs.sync().await?;
    let mut tx = engine.inner.db.write().await?;
    db::artifact::put_many(&mut tx, rows).await?;
    tx.commit().await?;
    Ok(())
}

fn row(
    engine: &Engine,
    attempt: AttemptId,
    artifact: &ArtifactView,
) -> Result<db::artifact::Artifact> {
    let path = &artifact.path;
    let climbs = path.split('/').any(|part| matches!(part, "" | "." | ".."));
    if path.len() > PATH_MAX || path.contains('\0') || climbs {
        return Err(Error::invalid(format!(
            "'{path}' is not a path below the working directory"
        )));
    }
    Ok(db::artifact::Artifact {
        workload: attempt.workload,
        path: path.clone(),
        blob: crate::blob::parse(&artifact.blake3)?,
        size_bytes: artifact.size_bytes,
        mode: artifact.mode & 0o777,
        mtime_ms: grid_core::time::file_ms(artifact.modified_ms),
        attempt: attempt.number,
        stored_at: engine.inner.clock.now(),
    })
}

/// The artifacts of the workload so far, for an attempt that goes on from them.
pub async fn artifacts(
    engine: &Engine,
    node: &NodeId,
    attempt: AttemptId,
    after: Option<&str>,
) -> Result<db::Page<db::artifact::Artifact, String>> {
    require_present(engine, attempt, node)?;
    let mut tx = engine.inner.db.read().await?;
    let limit = u32::try_from(ARTIFACTS_MAX).unwrap_or(u32::MAX);
    Ok(db::artifact::list(&mut tx, attempt.workload, "", after, limit).await?)
}

/// A tree, for a runner that has an attempt of it.
pub async fn snapshot(engine: &Engine, node: &NodeId, id: SnapshotId) -> Result<Vec<TreeEntry>> {
    // Only what runs there: a runner's token opens no other team's code.
    let granted = {
        let book = engine.inner.book();
        book.placed().any(|entry| {
            entry.attempt().is_some_and(|(_, on)| on == node)
                && matches!(&entry.run.spec.source, grid_core::spec::Source::Snapshot { id: source, .. } if *source == id)
        })
    };
    if !granted {
        return Err(Error::not_found(format!(
            "no snapshot '{id}' for an attempt on '{node}'"
        )));
    }
    crate::snapshot::entries(engine, id).await
}
