//! What this machine knows of uploads that are not over: enough to go on with them.
//!
//! One file per upload, locked by who works on it: another process leaves it alone, and
//! when the process is gone, however it ended, the lock is, too.

use std::fs::{self, File};
use std::io::{Read as _, Seek as _, Write as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use rustix::fs::FlockOperation;
use serde::{Deserialize, Serialize};

use crate::context::Ctx;

/// An upload of a folder or a file of this machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Upload {
    /// The server.
    pub(super) url: String,
    /// Who uploads.
    pub(super) user_id: String,
    /// Id of the version.
    pub(super) id: String,
    /// Name of the datastore.
    pub(super) name: String,
    /// Its number.
    pub(super) version: u32,
    /// What is uploaded, absolute.
    pub(super) source: String,
}

/// An upload that this process works on.
pub(super) struct Held {
    pub(super) upload: Upload,
    path: PathBuf,
    _lock: File,
}

impl Held {
    /// Begins to work on a new upload.
    pub(super) fn begin(ctx: &Ctx, upload: Upload) -> Result<Self> {
        let folder = folder(ctx);
        fs::create_dir_all(&folder)
            .with_context(|| format!("making the folder {}", folder.display()))?;
        let path = folder.join(format!("{}.json", upload.id));
        let noting = || format!("noting the upload in {}", path.display());
        let mut lock = File::create(&path).with_context(noting)?;
        rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive).with_context(noting)?;
        let text = serde_json::to_vec(&upload).context("writing JSON")?;
        lock.write_all(&text).with_context(noting)?;
        Ok(Self {
            upload,
            path,
            _lock: lock,
        })
    }

    /// The upload is over: nothing has to be known of it any more.
    pub(super) fn end(self) {
        let _ = fs::remove_file(&self.path);
    }
}

/// Uploads of this user that nobody works on; from now on this process does.  The server
/// may have another address by now: a user is one of one server only.
pub(super) fn left_over(ctx: &Ctx, user_id: &str) -> Vec<Held> {
    let Ok(entries) = fs::read_dir(folder(ctx)) else {
        return Vec::new();
    };
    let mut paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    paths.sort();
    paths
        .iter()
        .filter_map(|path| take(path))
        .filter(|held| held.upload.user_id == user_id)
        .collect()
}

/// What is noted of uploads of this machine that nobody works on; they stay free to others.
pub(super) fn known(ctx: &Ctx) -> Vec<Upload> {
    let entries = fs::read_dir(folder(ctx)).into_iter().flatten().flatten();
    let held = entries.filter_map(|entry| take(&entry.path()));
    held.map(|held| held.upload).collect()
}

fn take(path: &Path) -> Option<Held> {
    let mut lock = File::options().read(true).write(true).open(path).ok()?;
    rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive).ok()?;
    let mut text = String::new();
    lock.rewind().ok()?;
    lock.read_to_string(&mut text).ok()?;
    Some(Held {
        upload: serde_json::from_str(&text).ok()?,
        path: path.to_owned(),
        _lock: lock,
    })
}

fn folder(ctx: &Ctx) -> PathBuf {
    ctx.settings.cache_dir().join("uploads")
}

/// `grid datastore clearcache`: forgets uploads and hashes.
pub(super) fn clear(ctx: &Ctx) -> Result<()> {
    let mut uploads = 0_u64;
    for part in ["uploads", "data"] {
        let folder = ctx.settings.cache_dir().join(part);
        if part == "uploads" {
            uploads = fs::read_dir(&folder).map_or(0, |entries| entries.count() as u64);
        }
        match fs::remove_dir_all(&folder) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(error).with_context(|| format!("removing {}", folder.display()));
            }
            _ => {}
        }
    }
    if ctx.printer.is_json() {
        return ctx.printer.json(&serde_json::json!({ "uploads": uploads }));
    }
    let lost = match uploads {
        0 => String::new(),
        n => format!(
            "; {} cannot be gone on with any more",
            crate::words::counted(n, "unfinished upload")
        ),
    };
    ctx.printer
        .line(&format!("The cache of uploads is empty{lost}"))
}
