//! Cloning a repository for a run: `--git URL[#ref]`.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use grid_api::snapshot::{TreeEntry, TreeKind};
use grid_core::blob::BlobId;
use grid_core::id::SnapshotId;
use grid_core::spec::GitState;

use crate::access::Caller;
use crate::error::{Error, Result};
use crate::snapshot::{ENTRIES_MAX, Outcome, TREE_BYTES_MAX};
use crate::{Engine, blob, snapshot};

/// How long a clone may take.  Higher: a stuck server holds a request; lower: large
/// repositories do not come through.
const CLONE_MAX: Duration = Duration::from_secs(600);

/// Longest URL or reference.
const TEXT_MAX: usize = 2_048;

/// What a clone came to.
pub(crate) struct Cloned {
    pub(crate) snapshot: SnapshotId,
    pub(crate) git: GitState,
}

/// Clones `url` at `reference` and takes a snapshot of it.
pub(crate) async fn clone(
    engine: &Engine,
    caller: &Caller,
    url: &str,
    reference: Option<&str>,
) -> Result<Cloned> {
    check_url(url)?;
    if let Some(reference) = reference {
        check_reference(reference)?;
    }
    let name = format!("clone-{:032x}", engine.inner.clock.entropy());
    let folder = Folder::new(engine.inner.scratch.join(name)).await?;
    let path = folder.path().to_owned();
    git(&path, &["init", "--quiet"]).await?;
    // One commit, whatever names it: a branch, a tag, or the commit itself.
    let wanted = reference.unwrap_or("HEAD");
    git(
        &path,
        &[
            "fetch",
            "--quiet",
            "--depth",
            "1",
            "--no-tags",
            "--",
            url,
            wanted,
        ],
    )
    .await?;
    git(&path, &["checkout", "--quiet", "--detach", "FETCH_HEAD"]).await?;
    let commit = git(&path, &["rev-parse", "HEAD"]).await?;
    let tree = path.clone();
    let (entries, files) = tokio::task::spawn_blocking(move || walk(&tree))
        .await
        .map_err(Error::internal)??;
    upload(engine, &path, files).await?;
    let Outcome::Taken(snapshot) = snapshot::of_own(engine, caller, entries).await? else {
        return Err(Error::internal(anyhow::anyhow!(
            "blobs of a clone were stored and are missing"
        )));
    };
    let git = GitState {
        commit: commit.trim().to_owned(),
        branch: reference.map(str::to_owned),
        dirty: false,
        remote: Some(without_credentials(url)),
    };
    Ok(Cloned { snapshot, git })
}

/// Only transports that fetch from elsewhere: a path would read the server's disk,
/// and `ext::` would run a command.
fn check_url(url: &str) -> Result<()> {
    let known = ["https://", "http://", "ssh://", "git://"]
        .iter()
        .any(|scheme| url.starts_with(scheme));
    let scp = !url.contains("://")
        && url
            .split_once(':')
            .is_some_and(|(host, path)| host.contains('@') && !path.starts_with(':'));
    if url.len() > TEXT_MAX
        || !(known || scp)
        || url.starts_with('-')
        || url.chars().any(char::is_control)
    {
        return Err(Error::invalid_hint(
            format!("'{url}' is not an address of a Git repository"),
            "write https://HOST/OWNER/NAME or git@HOST:OWNER/NAME, with #BRANCH, #TAG or #COMMIT behind it if need be",
        ));
    }
    Ok(())
}

fn check_reference(reference: &str) -> Result<()> {
    let good = |c: char| c.is_ascii_alphanumeric() || "/._-+@".contains(c);
    if reference.is_empty()
        || reference.len() > TEXT_MAX
        || reference.starts_with('-')
        || !reference.chars().all(good)
    {
        return Err(Error::invalid(format!(
            "'{reference}' is not a branch, tag or commit"
        )));
    }
    Ok(())
}

fn without_credentials(url: &str) -> String {
    match url
        .split_once("://")
        .map(|(scheme, rest)| (scheme, rest.split_once('@')))
    {
        Some((scheme, Some((user, host)))) if !user.contains('/') => format!("{scheme}://{host}"),
        _ => url.to_owned(),
    }
}

async fn git(folder: &Path, arguments: &[&str]) -> Result<String> {
    let command = tokio::process::Command::new("git")
        .args([
            "-c",
            "protocol.ext.allow=never",
            "-c",
            "protocol.file.allow=never",
        ])
        .args(arguments)
        .current_dir(folder)
        .env("GIT_TERMINAL_PROMPT", "0")
        .env("GIT_SSH_COMMAND", "ssh -oBatchMode=yes")
        .env_remove("GIT_DIR")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .output();
    let output = tokio::time::timeout(CLONE_MAX, command)
        .await
        .map_err(|_| {
            Error::invalid(format!(
                "cloning took longer than {} s",
                CLONE_MAX.as_secs()
            ))
        })?
        .map_err(|e| {
            Error::invalid_hint(
                format!("the server cannot run git: {e}"),
                "install git on the server, or run from a local folder",
            )
        })?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let last = said
        .lines()
        .rfind(|line| !line.trim().is_empty())
        .unwrap_or("git failed")
        .trim();
    Err(Error::invalid_hint(
        format!("the repository could not be cloned: {last}"),
        "the server clones without your credentials; for a private repository run from a local clone",
    ))
}

type Files = Vec<(PathBuf, BlobId, u64)>;

fn walk(top: &Path) -> Result<(Vec<TreeEntry>, Files)> {
    let mut entries = Vec::new();
    let mut files = Vec::new();
    let mut folders = vec![PathBuf::new()];
    let mut bytes: u64 = 0;
    while let Some(folder) = folders.pop() {
        for item in std::fs::read_dir(top.join(&folder)).map_err(Error::internal)? {
            let item = item.map_err(Error::internal)?;
            let relative = folder.join(item.file_name());
            if relative == Path::new(".git") {
                continue;
            }
            let Some(path) = relative.to_str().map(str::to_owned) else {
                return Err(Error::invalid(format!(
                    "the name {} is not UTF-8",
                    relative.display()
                )));
            };
            let meta = item.metadata().map_err(Error::internal)?;
            if meta.is_dir() {
                folders.push(relative);
                continue;
            }
            let entry = if meta.is_symlink() {
                let target = std::fs::read_link(item.path()).map_err(Error::internal)?;
                let content = target.to_string_lossy().into_owned();
                TreeEntry {
                    path,
                    kind: TreeKind::Link,
                    mode: 0o777,
                    size_bytes: 0,
                    content,
                }
            } else {
                use std::os::unix::fs::PermissionsExt;
                bytes = bytes.saturating_add(meta.len());
                let mut hasher = blake3::Hasher::new();
                let mut file = std::fs::File::open(item.path()).map_err(Error::internal)?;
                std::io::copy(&mut file, &mut hasher).map_err(Error::internal)?;
                let id = BlobId::from_bytes(*hasher.finalize().as_bytes());
                files.push((relative, id, meta.len()));
                TreeEntry {
                    path,
                    kind: TreeKind::File,
                    mode: meta.permissions().mode() & 0o777,
                    size_bytes: meta.len(),
                    content: id.to_string(),
                }
            };
            entries.push(entry);
            if entries.len() > ENTRIES_MAX || bytes > TREE_BYTES_MAX {
                return Err(Error::TooLarge {
                    message: "the repository is too large".to_owned(),
                    hint: None,
                });
            }
        }
    }
    entries.sort_by(|a, b| a.path.cmp(&b.path));
    Ok((entries, files))
}

async fn upload(engine: &Engine, top: &Path, files: Files) -> Result<()> {
    use tokio::io::AsyncReadExt;
    let ids = files.iter().map(|(_, id, _)| *id).collect();
    let missing: std::collections::HashSet<BlobId> =
        engine.inner.blobs.missing(ids).await?.into_iter().collect();
    let mut upload = blob::Upload::new(engine);
    for (path, id, len) in files {
        if !missing.contains(&id) {
            continue;
        }
        let head = grid_api::blob::header(id.as_bytes(), len);
        upload.push(bytes::Bytes::copy_from_slice(&head)).await?;
        let mut file = tokio::fs::File::open(top.join(&path))
            .await
            .map_err(Error::internal)?;
        loop {
            let mut piece = bytes::BytesMut::with_capacity(1 << 18);
            if file.read_buf(&mut piece).await.map_err(Error::internal)? == 0 {
                break;
            }
            upload.push(piece.freeze()).await?;
        }
    }
    upload.finish(false).await.map(drop)
}

/// A folder that goes when this does.
pub(crate) struct Folder(PathBuf);

impl Folder {
    /// Makes it.
    pub(crate) async fn new(path: PathBuf) -> Result<Self> {
        let folder = Self(path);
        tokio::fs::create_dir_all(&folder.0)
            .await
            .map_err(Error::internal)?;
        Ok(folder)
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // Best effort: what is left is removed when the server starts.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_addresses_elsewhere_are_cloned() {
        for good in [
            "https://example.org/a/b",
            "git@example.org:a/b.git",
            "ssh://git@example.org/a",
        ] {
            assert!(check_url(good).is_ok(), "{good}");
        }
        for bad in [
            "/etc",
            "file:///etc",
            "ext::sh -c x",
            "--upload-pack=x",
            "a b",
            "",
            "https://x\n",
        ] {
            assert!(check_url(bad).is_err(), "{bad}");
        }
        assert!(check_reference("--x").is_err() && check_reference("main").is_ok());
        assert_eq!(
            without_credentials("https://u:p@example.org/a"),
            "https://example.org/a"
        );
    }
}
