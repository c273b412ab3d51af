//! Captured trees of source files.

use grid_api::snapshot::{TreeEntry, TreeKind};
use grid_core::blob::BlobId;
use grid_core::id::SnapshotId;
use grid_store::db;

use crate::access::Caller;
use crate::error::{Error, Result};
use crate::{Engine, blob};

/// Entries of one tree.  Higher: a home folder captured by mistake takes minutes.
pub const ENTRIES_MAX: usize = 200_000;

/// Bytes of one tree.
pub const TREE_BYTES_MAX: u64 = 16 << 30;

/// Longest path, in bytes.
const PATH_MAX: usize = 4_096;

/// A snapshot, or what is missing for one.
#[derive(Debug)]
pub enum Outcome {
    /// It exists now.
    Taken(SnapshotId),
    /// These blobs have to be uploaded first.
    Missing(Vec<BlobId>),
}

/// Where the bytes of a tree come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Bytes {
    /// A user names them, and their team must have sent them.
    Named,
    /// The server has read them itself.
    Read,
}

/// Takes a snapshot of a tree whose files the caller's team has sent.
pub async fn create(engine: &Engine, caller: &Caller, entries: Vec<TreeEntry>) -> Result<Outcome> {
    take(engine, caller, &entries, Bytes::Named).await
}

/// Takes a snapshot of a tree that the server has read itself, and whose files it stored.
pub(crate) async fn of_own(
    engine: &Engine,
    caller: &Caller,
    entries: Vec<TreeEntry>,
) -> Result<Outcome> {
    take(engine, caller, &entries, Bytes::Read).await
}

async fn take(
    engine: &Engine,
    caller: &Caller,
    entries: &[TreeEntry],
    bytes: Bytes,
) -> Result<Outcome> {
    let team = caller.team_for_new(None)?.id;
    let checked = check(entries)?;
    let manifest = serde_json::to_vec(&entries).map_err(Error::internal)?;
    let id = BlobId::from_bytes(*blake3::hash(&manifest).as_bytes());
    // The usual case, of which only the stored files are looked for: the team has this very
    // tree, and so each file of it.
    let mut tx = engine.inner.db.read().await?;
    let known = db::snapshot::by_digest(&mut tx, team, &id.to_string()).await?;
    drop(tx);
    let missing = match (&known, bytes) {
        (None, Bytes::Named) => blob::missing_of(engine, team, checked.blobs.clone()).await?,
        _ => engine.inner.blobs.missing(checked.blobs.clone()).await?,
    };
    if !missing.is_empty() {
        return Ok(Outcome::Missing(missing));
    }
    if let Some(known) = known {
        return Ok(Outcome::Taken(known.id));
    }
    let id = store(engine, manifest).await?;
    // Whoever loses power finds either no snapshot, or one that is whole.
    engine.inner.blobs.sync().await?;
    let now = engine.inner.clock.now();
    let snapshot = db::snapshot::Snapshot {
        id: SnapshotId::from_parts(now, engine.inner.clock.entropy()),
        team,
        digest: id.to_string(),
        manifest_blob: id,
        files: checked.blobs.len() as u64,
        size_bytes: checked.bytes,
        created_by: caller.id(),
        created_at: now,
    };
    let mut tx = engine.inner.db.write().await?;
    let kept = db::snapshot::insert_or_get(&mut tx, &snapshot).await?;
    // Not an event of its own: a tree does nothing until a run is made of it, and that
    // event names it.
    tx.commit().await?;
    Ok(Outcome::Taken(kept.id))
}

/// The entries of a snapshot.
pub(crate) async fn entries(engine: &Engine, id: SnapshotId) -> Result<Vec<TreeEntry>> {
    let mut tx = engine.inner.db.read().await?;
    let snapshot = db::snapshot::by_id(&mut tx, id).await?;
    drop(tx);
    let snapshot = snapshot.ok_or_else(|| Error::not_found(format!("no snapshot '{id}'")))?;
    let bytes = manifest(engine, snapshot.manifest_blob).await?;
    serde_json::from_slice(&bytes).map_err(Error::internal)
}

/// The bytes of a manifest, verified.
pub(crate) async fn manifest(engine: &Engine, blob: BlobId) -> Result<Vec<u8>> {
    let reading = |error| Error::reading(blob, error);
    let reader = engine.inner.blobs.get(blob).await.map_err(reading)?;
    let reader = reader.ok_or_else(|| Error::lost(blob))?;
    Ok(reader.read_all(true).await.map_err(reading)?.to_vec())
}

/// The blobs that a stored manifest names.
pub(crate) async fn named(engine: &Engine, blob: BlobId) -> Result<Vec<BlobId>> {
    let bytes = manifest(engine, blob).await?;
    let is_list = |entries: Vec<TreeEntry>| check(&entries).map(|checked| checked.blobs).ok();
    let entries = serde_json::from_slice(&bytes).ok();
    entries.and_then(is_list).ok_or_else(|| Error::lost(blob))
}

/// Stores bytes of our own under the name that they have.
pub(crate) async fn store(engine: &Engine, bytes: Vec<u8>) -> Result<BlobId> {
    let id = BlobId::from_bytes(*blake3::hash(&bytes).as_bytes());
    if bytes.len() <= grid_store::blobs::SMALL_BYTES_MAX {
        engine
            .inner
            .blobs
            .put_small_batch(vec![(id, bytes.into())])
            .await?;
    } else {
        let mut writer = engine.inner.blobs.writer();
        writer.write(&bytes).await?;
        writer.finish(id, bytes.len() as u64).await?;
    }
    Ok(id)
}

struct Checked {
    blobs: Vec<BlobId>,
    bytes: u64,
}

/// Refuses a tree that could reach outside itself or that contradicts itself.
fn check(entries: &[TreeEntry]) -> Result<Checked> {
    if entries.len() > ENTRIES_MAX {
        return Err(Error::TooLarge {
            message: format!(
                "the tree has {} entries; the limit is {ENTRIES_MAX}",
                entries.len()
            ),
            hint: Some("leave folders out with .gridignore".to_owned()),
        });
    }
    let mut blobs = Vec::new();
    let mut bytes: u64 = 0;
    let mut last: Option<&TreeEntry> = None;
    for entry in entries {
        check_path(&entry.path)?;
        if let Some(last) = last {
            let below = entry.path.starts_with(&format!("{}/", last.path));
            if entry.path <= last.path || (below && last.kind != TreeKind::Folder) {
                return Err(Error::invalid(format!(
                    "the tree is not sorted or names '{}' twice",
                    entry.path
                )));
            }
        }
        last = Some(entry);
        match entry.kind {
            TreeKind::File => {
                blobs.push(blob::parse(&entry.content)?);
                bytes = bytes.saturating_add(entry.size_bytes);
            }
            TreeKind::Folder => {}
            TreeKind::Link => check_link(entry)?,
        }
    }
    check_no_path_through_link(entries)?;
    if bytes > TREE_BYTES_MAX {
        return Err(Error::TooLarge {
            message: format!("the tree has {bytes} bytes; the limit is {TREE_BYTES_MAX}"),
            hint: Some("leave data out with .gridignore".to_owned()),
        });
    }
    blobs.sort_unstable();
    blobs.dedup();
    Ok(Checked { blobs, bytes })
}

fn check_path(path: &str) -> Result<()> {
    let bad = path.is_empty()
        || path.len() > PATH_MAX
        || path.contains('\0')
        || path
            .split('/')
            .any(|part| part.is_empty() || part == "." || part == "..");
    if bad {
        Err(Error::invalid(format!(
            "'{path}' is not a path inside the tree"
        )))
    } else {
        Ok(())
    }
}

fn check_link(entry: &TreeEntry) -> Result<()> {
    let outside = || {
        Error::invalid(format!(
            "the link '{}' points outside the tree: {}",
            entry.path, entry.content
        ))
    };
    if entry.content.is_empty() || entry.content.starts_with('/') || entry.content.contains('\0') {
        return Err(outside());
    }
    let mut depth = entry.path.split('/').count() - 1;
    for part in entry.content.split('/') {
        match part {
            "" | "." => {}
            ".." => depth = depth.checked_sub(1).ok_or_else(outside)?,
            _ => depth += 1,
        }
    }
    Ok(())
}

/// A path below a link would be written wherever the link points.
fn check_no_path_through_link(entries: &[TreeEntry]) -> Result<()> {
    let links: std::collections::HashSet<&str> = entries
        .iter()
        .filter(|e| e.kind == TreeKind::Link)
        .map(|e| e.path.as_str())
        .collect();
    for entry in entries {
        let mut end = 0;
        while let Some(slash) = entry.path[end..].find('/') {
            end += slash;
            if links.contains(&entry.path[..end]) {
                return Err(Error::invalid(format!(
                    "'{}' lies behind a link",
                    entry.path
                )));
            }
            end += 1;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(path: &str) -> TreeEntry {
        TreeEntry {
            path: path.into(),
            kind: TreeKind::File,
            mode: 0o644,
            size_bytes: 1,
            content: "ab".repeat(32),
        }
    }

    fn link(path: &str, to: &str) -> TreeEntry {
        TreeEntry {
            path: path.into(),
            kind: TreeKind::Link,
            mode: 0,
            size_bytes: 0,
            content: to.into(),
        }
    }

    #[test]
    fn a_tree_stays_inside_itself() {
        assert!(
            check(&[
                file("a"),
                file("b/c"),
                link("b/d", "../a"),
                link("e", "b/../a")
            ])
            .is_ok()
        );
        for bad in [
            vec![file("../a")],
            vec![file("/a")],
            vec![file("a/./b")],
            vec![file("a"), file("a")],
            vec![file("b"), file("a")],
            vec![file("a"), file("a/b")],
            vec![link("a", "/etc/passwd")],
            vec![link("a", "..")],
            vec![link("b/a", "../../x")],
            vec![link("a", "b"), file("a/c")],
            vec![file("")],
        ] {
            assert!(check(&bad).is_err(), "{bad:?}");
        }
    }
}
