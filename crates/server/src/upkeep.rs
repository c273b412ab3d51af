//! Looking after a server's data: is it consistent, is it up to date, a copy of it.

use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use async_trait::async_trait;
use futures::StreamExt;
use grid_api::client::{Auth, Client};
use grid_api::error::ErrorBody;
use grid_api::runner::{Launch, StopOrder};
use grid_core::id::{AttemptId, NodeId};
use grid_executor::{Executor, Hub, NodeState, Stopped};
use grid_store::blobs::{BucketOptions, GC_GRACE};
use grid_store::db::Backend;
use serde::de::DeserializeOwned;

use crate::assembly::{Secrets, connect, credential_key_path, open_engine, open_engine_with};
use crate::auth::folder_token;
use crate::config::{self, Options, Settings};
use crate::credential_key;
use crate::folder::{Folder, Locked};
use crate::reserve;
use crate::rest::{CollectedView, Examined};

/// Looks whether the data is consistent: every event log comes to the state that is
/// kept of it, every blob that is named is there; with `deep`, with the right bytes.
/// Says what it found, and answers whether all is well.
///
/// While a server works in the folder, that server is asked to look.
pub async fn doctor(options: Options, deep: bool, out: &mut (dyn Write + Send)) -> Result<bool> {
    let settings = config::settings(options, config::environment)?;
    let folder = Folder::existing(&settings.data)?;
    let examined = match folder.lock()? {
        Locked::Ours(_lock) => examine(&settings, &folder, deep).await?,
        Locked::Theirs(_) => ask(&folder, &format!("/doctor?deep={deep}")).await?,
    };
    for finding in &examined.findings {
        writeln!(out, "wrong: {finding}")?;
    }
    let untold = examined
        .wrong
        .saturating_sub(examined.findings.len() as u64);
    if untold > 0 {
        writeln!(out, "wrong: and {untold} more")?;
    }
    for note in &examined.notes {
        writeln!(out, "note: {note}")?;
    }
    let how = if deep {
        "read and hashed"
    } else {
        "looked for"
    };
    writeln!(
        out,
        "replayed {} experiments with {} events, {how} {} blobs: {}",
        examined.workloads,
        examined.events,
        examined.blobs,
        if examined.wrong == 0 {
            "all is well".to_owned()
        } else {
            format!("{} wrong", examined.wrong)
        }
    )?;
    Ok(examined.wrong == 0)
}

/// Looks by itself; the caller holds the lock.
async fn examine(settings: &Settings, folder: &Folder, deep: bool) -> Result<Examined> {
    let db = connect(settings, folder, false).await?;
    // None is drawn here: a copy without one would then look whole.
    let has_secret = folder.has_secret();
    let secret = if has_secret {
        folder.secret()?
    } else {
        [0; 32]
    };
    let secrets = secrets(settings, folder, secret)?;
    // A server may work with it: this may be the copy of a folder.
    let looking = |bucket: &BucketOptions| BucketOptions {
        is_written: false,
        ..bucket.clone()
    };
    let bucket = settings.bucket.as_ref().map(looking);
    let (hub, nowhere) = (Hub::new(), Arc::new(Nowhere));
    let engine = open_engine(folder, db.clone(), hub, nowhere, secrets, bucket.as_ref()).await?;
    engine.fetch_private(settings.fetch_private);
    let report = grid_engine::doctor::examine(&engine, deep).await;
    db.close().await;
    let mut examined: Examined = report.context("cannot look at the data")?.into();
    if !has_secret {
        let path = folder.secret_path();
        examined.wrong += 1;
        examined.findings.push(format!(
            "{} is missing: links and invitations that were made do not work without it",
            path.display()
        ));
    }
    Ok(examined)
}

/// What the server knows.  No key is drawn where there is none: nothing would open with it.
fn secrets(settings: &Settings, folder: &Folder, signing: [u8; 32]) -> Result<Secrets> {
    let key = credential_key::load(&credential_key_path(settings, folder))?;
    Ok(Secrets {
        signing,
        credentials: key.unwrap_or_default(),
    })
}

/// How bytes are deleted that nothing refers to.
#[derive(Debug, Clone, Copy, Default)]
pub struct Collecting {
    /// Only say what would be deleted.
    pub dry_run: bool,
    /// Also what was uploaded or asked about within a day.  Somebody who is about to refer to
    /// that would lose it, so no server may work in the folder.
    pub now: bool,
    /// Empty the trash before; under the same condition.
    pub trash: bool,
}

/// Deletes bytes that nothing refers to, or says what would be deleted.  What was uploaded
/// or asked about within a day stays, unless everything has to go now.
///
/// While a server works in the folder, that server is asked to do it.
pub async fn collect(
    options: Options,
    how: Collecting,
    out: &mut (dyn Write + Send),
) -> Result<()> {
    let settings = config::settings(options, config::environment)?;
    let folder = Folder::existing(&settings.data)?;
    let dry_run = how.dry_run;
    let collected = match folder.lock()? {
        Locked::Ours(_lock) => collect_here(&settings, &folder, how, out).await?,
        Locked::Theirs(_) if how.now || how.trash => bail!(
            "a server works in the folder, and somebody may upload something at this moment: stop it to collect with --now or --trash"
        ),
        Locked::Theirs(_) => ask(&folder, &format!("/collect?dry_run={dry_run}")).await?,
    };
    let did = if dry_run { "would delete" } else { "deleted" };
    writeln!(
        out,
        "{did} {} blobs and chunks with {} bytes; {} are young and stay; {} are kept in all",
        collected.removed, collected.removed_bytes, collected.young, collected.kept
    )?;
    Ok(())
}

/// Collects by itself; the caller holds the lock.
async fn collect_here(
    settings: &Settings,
    folder: &Folder,
    how: Collecting,
    out: &mut (dyn Write + Send),
) -> Result<CollectedView> {
    // Before anything is written down.
    if !how.dry_run && reserve::give_up(folder) {
        writeln!(
            out,
            "the disk is nearly full: gave up what was laid aside for that; a server that starts lays it aside again"
        )?;
    }
    let db = connect(settings, folder, false).await?;
    let secrets = secrets(settings, folder, folder.secret()?)?;
    let (hub, bucket) = (Hub::new(), settings.bucket.as_ref());
    let nowhere = Arc::new(Nowhere);
    let grace = match how.now {
        true => Duration::ZERO,
        false => GC_GRACE,
    };
    let engine = open_engine_with(folder, db.clone(), hub, nowhere, secrets, bucket, grace).await?;
    let collected = async {
        let mut emptied = None;
        // Who only asks loses nothing.
        if how.trash && !how.dry_run {
            emptied = Some(grid_engine::trash::empty_now(&engine).await?);
        }
        let collected = grid_engine::trash::collect(&engine, how.dry_run).await?;
        Ok::<_, grid_engine::Error>((emptied, collected))
    };
    let collected = collected.await;
    db.close().await;
    let (emptied, collected) = collected.context("cannot collect")?;
    if let Some(emptied) = emptied {
        writeln!(
            out,
            "emptied the trash: {} runs and experiments, {} versions of datastores",
            emptied.things, emptied.datastores
        )?;
    }
    Ok(collected.into())
}

/// Has the server do it that works in the folder.
async fn ask<T: DeserializeOwned>(folder: &Folder, path: &str) -> Result<T> {
    install_tls();
    let running = folder
        .running()
        .context("a server works in the folder and cannot be asked yet")?;
    let token = folder_token(&folder.secret()?);
    let client = Client::new(&running.local_url, Auth::Runner { token }, None)?;
    let events = client.events(path, None).await;
    let events =
        events.with_context(|| format!("cannot ask the server (process {})", running.pid))?;
    let mut events = Box::pin(events);
    while let Some(event) = events.next().await {
        let event = event?;
        match event.event.as_str() {
            "report" => return Ok(serde_json::from_str(&event.data)?),
            "error" => {
                let body: ErrorBody = serde_json::from_str(&event.data)?;
                bail!("the server could not do it: {}", body.error.message);
            }
            _ => {}
        }
    }
    bail!("the server ended meanwhile; try again")
}

/// Brings the database up to date without starting a server.
pub async fn migrate(options: Options, out: &mut (dyn Write + Send)) -> Result<()> {
    let settings = config::settings(options, config::environment)?;
    // Another database may be there before the folder is.
    let folder = match settings.database_url {
        Some(_) => Folder::open(&settings.data)?,
        None => Folder::existing(&settings.data)?,
    };
    let _lock = folder.lock_or_refuse()?;
    // A server in another folder that works with the same database is asked to end first.
    connect(&settings, &folder, true).await?.close().await;
    writeln!(out, "the database is up to date")?;
    Ok(())
}

/// Copies the database to a new file, consistently and while a server works in the
/// folder, and says what else makes a backup whole.
///
/// Bytes are not copied: blobs and logs are folders of files that are only added to
/// (but for what has been in the trash for a week), so any program that copies files
/// does that well, and again with little work.  Copied *after* the database, they have
/// everything that it names.
pub async fn backup(options: Options, file: &Path, out: &mut (dyn Write + Send)) -> Result<()> {
    let settings = config::settings(options, config::environment)?;
    let folder = Folder::existing(&settings.data)?;
    let file =
        std::path::absolute(file).with_context(|| format!("'{}' is not a file", file.display()))?;
    if let Some(parent) = file.parent().filter(|parent| !parent.is_dir()) {
        bail!(
            "there is no folder {}: make it, or choose another place for the backup",
            parent.display()
        );
    }
    let db = connect(&settings, &folder, false).await?;
    let done = db.backup(&file).await;
    let backend = db.backend();
    db.close().await;
    done.with_context(|| format!("no backup was written to {}", file.display()))?;
    // It has the hashes of keys, and everything that people named.
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600))
        .with_context(|| format!("cannot close {} to others", file.display()))?;
    let bytes = std::fs::metadata(&file)
        .map(|meta| meta.len())
        .unwrap_or_default();
    writeln!(
        out,
        "wrote the database, {bytes} bytes, to {}",
        file.display()
    )?;
    writeln!(out, "to have everything, copy these now, after it:")?;
    for path in [folder.secret_path(), folder.logs()] {
        writeln!(out, "  {}", path.display())?;
    }
    match &settings.bucket {
        Some(bucket) => writeln!(out, "  the objects of the bucket {}", bucket.url)?,
        None => writeln!(out, "  {}", folder.blobs().display())?,
    }
    writeln!(
        out,
        "and keep this in another place than the backup, where only you can read it; without it \
         credentials (not runs) would have to be made anew:"
    )?;
    writeln!(
        out,
        "  {}",
        credential_key_path(&settings, &folder).display()
    )?;
    if backend == Backend::Sqlite {
        writeln!(
            out,
            "to go back: an empty folder with these and the file as grid.db, then grid server --data FOLDER"
        )?;
    }
    Ok(())
}

/// Chooses the cryptography of TLS, once for the process.
pub(crate) fn install_tls() {
    // It fails when it was chosen before, which is as good.
    let _ = rustls::crypto::ring::default_provider().install_default();
}

/// No place at all: whoever looks after data starts nothing.
struct Nowhere;

#[async_trait]
impl Executor for Nowhere {
    async fn launch(&self, _: Vec<Launch>) -> Result<(), grid_executor::Error> {
        Ok(())
    }

    async fn stop(&self, _: StopOrder, _: &NodeId) -> Result<Stopped, grid_executor::Error> {
        Ok(Stopped::NotThere)
    }

    async fn forget(&self, _: AttemptId, _: &NodeId) -> Result<(), grid_executor::Error> {
        Ok(())
    }

    async fn observe(&self) -> Result<Vec<NodeState>, grid_executor::Error> {
        Ok(vec![])
    }
}
