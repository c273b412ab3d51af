//! Restoring what an earlier attempt left, so that the script can go on from it.
//!
//! Restored files are artifacts of the new attempt like those that it writes: they
//! were not there before the first script ran.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Component, Path};
use std::time::{Duration, SystemTime};

use grid_api::artifact::{ArtifactView, ArtifactsQuery, ArtifactsResponse};

use super::code::{Error, fetch_blobs};
use super::tree::blob_path;
use crate::attempt::Attempt;
use crate::context::Context;
use crate::folder;

/// Most bytes that are fetched before they are put in their places.  Higher: more
/// disk is needed for a moment; lower: more requests.
const BATCH_BYTES: u64 = 1 << 30;

/// Files asked for at a time.
const PAGE: u32 = 1_000;

/// Fetches the artifacts of the earlier attempt into the work folder.
pub(crate) async fn restore(context: &Context, attempt: &Attempt) -> Result<(), Error> {
    let artifacts = list(context, attempt).await?;
    let bytes: u64 = artifacts.iter().map(|view| view.size_bytes).sum();
    let size = crate::attempt::confine::bytes_in_words(bytes);
    attempt.log.say(&format!(
        "Restoring {} files ({size}) of the earlier attempt",
        artifacts.len()
    ));
    attempt.set_note(format!("restoring {} files", artifacts.len()));
    let blobs = attempt.folder.join("restored");
    fs::create_dir_all(&blobs).map_err(Error::Write)?;
    let mut batch: Vec<ArtifactView> = Vec::new();
    let mut left = artifacts.into_iter().peekable();
    while let Some(view) = left.next() {
        batch.push(view);
        let size: u64 = batch.iter().map(|view| view.size_bytes).sum();
        if size >= BATCH_BYTES || left.peek().is_none() {
            let wanted = batch.iter().map(|view| view.blake3.clone()).collect();
            fetch_blobs(context, &blobs, wanted, |_| {}).await?;
            put(attempt, &blobs, std::mem::take(&mut batch)).map_err(Error::Write)?;
        }
    }
    folder::remove_all(&blobs).map_err(Error::Write)
}

async fn list(context: &Context, attempt: &Attempt) -> Result<Vec<ArtifactView>, Error> {
    let path = &format!("/runner/attempts/{}/artifacts", attempt.id);
    let mut all = Vec::new();
    let mut after = None;
    loop {
        let query = &ArtifactsQuery {
            after: after.take(),
            limit: Some(PAGE),
        };
        let page: ArtifactsResponse = context
            .server
            .persist("listing what to restore", |client| async move {
                client.get(path, query).await
            })
            .await
            .map_err(Error::Fetch)?;
        all.extend(page.artifacts);
        match page.next {
            Some(next) => after = Some(next),
            None => return Ok(all),
        }
    }
}

/// Moves fetched blobs to their places; one that belongs at several is copied.
fn put(attempt: &Attempt, blobs: &Path, views: Vec<ArtifactView>) -> io::Result<()> {
    let work = attempt.work();
    let mut uses: HashMap<String, usize> = HashMap::new();
    for view in &views {
        *uses.entry(view.blake3.clone()).or_default() += 1;
    }
    for view in views {
        let relative = Path::new(&view.path);
        if !relative
            .components()
            .all(|part| matches!(part, Component::Normal(_)))
        {
            return Err(io::Error::other(format!(
                "'{}' leads out of the work folder",
                view.path
            )));
        }
        let (from, to) = (blob_path(blobs, &view.blake3), work.join(relative));
        if let Some(parent) = to.parent() {
            fs::create_dir_all(parent)?;
        }
        let left = uses.entry(view.blake3.clone()).or_default();
        *left = left.saturating_sub(1);
        if *left == 0 {
            fs::rename(&from, &to)?;
        } else {
            fs::copy(&from, &to).map(drop)?;
        }
        fs::set_permissions(&to, fs::Permissions::from_mode((view.mode & 0o777) | 0o600))?;
        let since = Duration::from_millis(view.modified_ms.unsigned_abs());
        let modified = match view.modified_ms < 0 {
            true => SystemTime::UNIX_EPOCH - since,
            false => SystemTime::UNIX_EPOCH + since,
        };
        File::options()
            .write(true)
            .open(&to)?
            .set_modified(modified)?;
    }
    Ok(())
}
