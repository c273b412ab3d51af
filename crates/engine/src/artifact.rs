//! Artifacts: listing, reading and linking to what experiments left behind.

use grid_core::access::Action;
use grid_core::time::Timestamp;
use grid_store::blobs::BlobReader;
use grid_store::db;

use crate::access::Caller;
use crate::audit::{Thing, Trail};
use crate::error::{Error, Result};
use crate::{Engine, reference, secret, share};

/// How long a link works.  As in the original product.
pub const LINK_LIFE_MS: i64 = 24 * 60 * 60 * 1_000;

/// Links in one answer.
const LINKS_MAX: usize = 1_000;

/// One page of the artifacts of an experiment, by path.
pub async fn list(
    engine: &Engine,
    caller: &Caller,
    experiment: &str,
    after: Option<&str>,
    limit: u32,
) -> Result<db::Page<db::artifact::Artifact, String>> {
    let mut tx = engine.inner.db.read().await?;
    let (run, row) = reference::experiment(&mut tx, caller, experiment, false).await?;
    check(&mut tx, caller, &run, Action::ReadArtifacts).await?;
    Ok(db::artifact::list(&mut tx, row.workload.id, "", after, limit).await?)
}

/// One artifact, to read.
pub async fn open(
    engine: &Engine,
    caller: &Caller,
    experiment: &str,
    path: &str,
) -> Result<(db::artifact::Artifact, BlobReader)> {
    let mut tx = engine.inner.db.read().await?;
    let (run, row) = reference::experiment(&mut tx, caller, experiment, false).await?;
    check(&mut tx, caller, &run, Action::ReadArtifacts).await?;
    let artifact = db::artifact::get(&mut tx, row.workload.id, path).await?;
    drop(tx);
    let artifact = artifact
        .ok_or_else(|| Error::not_found(format!("{experiment} has no artifact '{path}'")))?;
    let reader = reader(engine, &artifact).await?;
    Ok((artifact, reader))
}

async fn reader(engine: &Engine, artifact: &db::artifact::Artifact) -> Result<BlobReader> {
    let reader = engine.inner.blobs.get(artifact.blob).await?;
    reader.ok_or_else(|| {
        Error::internal(anyhow::anyhow!(
            "the bytes of artifact '{}' ({}) are missing",
            artifact.path,
            artifact.blob
        ))
    })
}

pub(crate) async fn check(
    tx: &mut db::Tx,
    caller: &Caller,
    run: &db::run::Run,
    action: Action,
) -> Result<()> {
    caller.check(tx, run, action).await
}

/// A new link.
#[derive(Debug, Clone)]
pub struct Link {
    /// Which artifact.
    pub path: String,
    /// What goes behind `/links/`.
    pub token: String,
    /// Until when it works.
    pub expires_at: Timestamp,
}

/// Links to artifacts that work without an account until they end.
pub async fn links(
    engine: &Engine,
    caller: &Caller,
    experiment: &str,
    paths: &[String],
) -> Result<Vec<Link>> {
    if paths.len() > LINKS_MAX {
        return Err(Error::invalid(format!(
            "ask for at most {LINKS_MAX} links at a time"
        )));
    }
    let mut tx = engine.inner.db.read().await?;
    let (run, row) = reference::experiment(&mut tx, caller, experiment, false).await?;
    check(&mut tx, caller, &run, Action::ReadArtifacts).await?;
    check(&mut tx, caller, &run, Action::ShareRun).await?;
    let expires_at = engine.inner.clock.now().plus_millis(LINK_LIFE_MS);
    let mut links = Vec::with_capacity(paths.len());
    let mut rows = Vec::with_capacity(paths.len());
    for path in paths {
        if db::artifact::get(&mut tx, row.workload.id, path)
            .await?
            .is_none()
        {
            return Err(Error::not_found(format!(
                "{experiment} has no artifact '{path}'"
            )));
        }
        let token = share::token(engine);
        let artifact = Some((row.workload.id, path.clone()));
        let share = share::new(engine, caller, &run, artifact, Some(expires_at));
        rows.push((share, secret::seal(&engine.inner.secret, &token)));
        links.push(Link {
            path: path.clone(),
            token,
            expires_at,
        });
    }
    drop(tx);
    let creator = crate::run::creator(engine, caller, &run).await?;
    let mut tx = engine.inner.db.write().await?;
    db::share::insert_many(&mut tx, &rows).await?;
    let thing = Thing::experiment(&run, &row, &creator);
    let event = caller.did("share.create", Some(run.team), thing);
    event
        .detail(paths.join(", "))
        .write(engine, &mut tx)
        .await?;
    tx.commit().await?;
    Ok(links)
}

/// Follows a link.  Whatever is wrong with it, the answer is the same.
pub async fn follow_link(
    engine: &Engine,
    trail: &Trail,
    token: &str,
    path: &str,
) -> Result<(db::artifact::Artifact, BlobReader)> {
    let gone = || Error::NotFound {
        what: "this link does not work, or no longer".to_owned(),
        hint: Some("ask whoever sent it for a new one".to_owned()),
    };
    let mut tx = engine.inner.db.read().await?;
    let (share, run) = share::open(engine, &mut tx, token, Action::ReadArtifacts).await?;
    let Some((workload, named)) = &share.artifact else {
        return Err(gone());
    };
    let row = db::workload::get(&mut tx, *workload).await?;
    if named != path || row.is_none_or(|row| row.deleted.is_some()) {
        return Err(gone());
    }
    let artifact = db::artifact::get(&mut tx, *workload, path)
        .await?
        .ok_or_else(gone)?;
    drop(tx);
    let reader = reader(engine, &artifact).await?;
    share::followed(engine, trail, &share, &run, path);
    Ok((artifact, reader))
}
