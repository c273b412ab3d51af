//! Taking data along: a folder or a file as it is, in parts, each sent by itself.
//!
//! Unlike code, nothing is left out, and the list may be long: it is cut into parts, so
//! that what was sent of one is kept whatever happens to the next.  A file is read once: it
//! is hashed and sent as it is read.  Hashes are remembered as for code, and also while it
//! goes on: whoever is interrupted does not read again.

use std::collections::HashSet;
use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use grid_api::client::Client;
use grid_api::datastore::{DatastorePart, FileEntry, FileKind};
use grid_api::upload::{FileError, FileToSend};
use grid_core::blob::BlobId;

use super::cache::Cache;
use super::inspect::{self, Found, Kind, Stamp};
use super::{not_utf8, shown};
use crate::clock;
use crate::error::Problem;
use crate::progress::Progress;
use crate::upload::{Near, upload_counted};

/// Entries of a part; what the server takes at a time.
pub(crate) const PART_ENTRIES: usize = 5_000;

/// How often hashes are remembered while it goes on.  Higher: more is read again after an
/// interruption; lower: the list is written again and again.
const REMEMBER_EVERY: Duration = Duration::from_secs(20);

/// A file that somebody writes to while it is read.
#[derive(Debug, thiserror::Error)]
#[error("{path} changed while it was read")]
struct Changed {
    path: String,
}

/// Data that can be sent.
pub(crate) struct Data {
    root: PathBuf,
    found: Vec<Found>,
    hashes: Vec<Option<[u8; 32]>>,
    /// What it was when its hash was looked for.
    seen: Vec<Stamp>,
    cache: Cache,
    started: grid_core::time::Timestamp,
    remembered: Instant,
    /// Whether the server is on this machine, once somebody has asked.
    near: Option<Option<Near>>,
}

impl Data {
    /// Looks at what there is, and refuses what cannot be taken along.
    pub(crate) fn scan(source: &Path, cache_dir: &Path) -> Result<Self> {
        let real = source
            .canonicalize()
            .with_context(|| format!("looking at {}", source.display()))?;
        let (root, paths) = if real.is_dir() {
            let paths = everything(&real)?;
            (real, paths)
        } else {
            let name = real.file_name().and_then(|name| name.to_str());
            let name = name.ok_or_else(|| not_utf8([real.display().to_string()]))?;
            let root = real.parent().unwrap_or(Path::new("/")).to_owned();
            (root, vec![name.to_owned()])
        };
        let found = inspect::inspect_data(&root, paths)?;
        let cache = Cache::open(&cache_dir.join("data"), source);
        Ok(Self {
            hashes: vec![None; found.len()],
            seen: found.iter().map(|found| found.stamp).collect(),
            cache,
            root,
            found,
            started: clock::now(),
            remembered: clock::instant(),
            near: None,
        })
    }

    /// Entries, and the bytes of their files together.
    pub(crate) fn size(&self) -> (usize, u64) {
        (
            self.found.len(),
            self.found.iter().map(|found| found.size_bytes).sum(),
        )
    }

    /// The entries of each part.
    pub(crate) fn parts(&self) -> Vec<Range<usize>> {
        (0..self.found.len())
            .step_by(PART_ENTRIES)
            .map(|start| start..(start + PART_ENTRIES).min(self.found.len()))
            .collect()
    }

    /// Lists a part.  The files of it whose hashes are not known are read, and sent as they
    /// are; and those that are `missing`.
    pub(crate) async fn bring(
        &mut self,
        client: &Client,
        part: &Range<usize>,
        missing: &[String],
        progress: &Progress,
    ) -> Result<DatastorePart> {
        let mut missing: HashSet<&str> = missing.iter().map(String::as_str).collect();
        let mut wanted = Vec::new();
        for index in part.clone() {
            if self.found[index].kind != Kind::File {
                continue;
            }
            let known = self.hashes[index].is_some();
            self.hashes[index] = self.hashes[index].or_else(|| self.cache.get(&self.found[index]));
            match self.hashes[index] {
                // Of files that are alike one is sent.
                Some(hash) if missing.remove(BlobId::from_bytes(hash).to_string().as_str()) => {
                    wanted.push(index);
                }
                Some(_) if known => {}
                Some(_) => progress.add(self.found[index].size_bytes),
                None => wanted.push(index),
            }
        }
        let sent_bytes = match wanted.is_empty() {
            true => 0,
            false => self.send(client, &wanted, progress).await?,
        };
        if self.remembered.elapsed() > REMEMBER_EVERY {
            tokio::task::block_in_place(|| self.remember());
        }
        Ok(DatastorePart {
            entries: part.clone().map(|index| self.entry(index)).collect(),
            sent_bytes,
        })
    }

    /// Reads files once, and sends what the server lacks of them; says how much that was.
    async fn send(
        &mut self,
        client: &Client,
        wanted: &[usize],
        progress: &Progress,
    ) -> Result<u64> {
        let files = wanted.iter().map(|&index| FileToSend {
            path: self.root.join(&self.found[index].path),
            known: None,
        });
        if self.near.is_none() {
            self.near = Some(Near::find(client).await);
        }
        let near = self.near.as_ref().and_then(Option::as_ref);
        let sent = upload_counted(client, near, files.collect(), progress).await?;
        for (&index, sent) in wanted.iter().zip(sent.outcomes) {
            let found = &mut self.found[index];
            let sent = match sent {
                Ok(sent) => sent,
                Err(FileError::Changed) => {
                    let path = found.path.clone();
                    return Err(Changed { path }.into());
                }
                Err(error) => {
                    return Err(error).with_context(|| format!("sending {}", found.path));
                }
            };
            self.hashes[index] = Some(*sent.blob.as_bytes());
            if let Some(read) = sent.metadata {
                found.size_bytes = read.len();
                found.stamp = Stamp::of(&read);
                self.seen[index] = found.stamp;
            }
        }
        Ok(sent.bytes)
    }

    fn entry(&self, index: usize) -> FileEntry {
        let found = &self.found[index];
        let (kind, content) = match &found.kind {
            Kind::File => {
                let hash = self.hashes[index].unwrap_or_default();
                (FileKind::File, BlobId::from_bytes(hash).to_string())
            }
            Kind::Folder => (FileKind::Folder, String::new()),
            Kind::Link(target) => (FileKind::Link, target.clone()),
        };
        FileEntry {
            path: found.path.clone(),
            kind,
            mode: found.mode,
            modified_ms: found.stamp.modified_ns.div_euclid(1_000_000),
            size_bytes: found.size_bytes,
            content,
            files: None,
        }
    }

    /// Whether a file changed while it was read: another look may help.
    pub(crate) fn is_changed(error: &anyhow::Error) -> bool {
        error.is::<Changed>()
    }

    /// Looks at the files of a part again, of which some changed while they were sent.
    pub(crate) fn look_again(&mut self, part: &Range<usize>) -> Result<()> {
        for index in part.clone() {
            let found = &mut self.found[index];
            if found.kind != Kind::File {
                continue;
            }
            let path = self.root.join(&found.path);
            let metadata = fs::symlink_metadata(&path)
                .with_context(|| format!("looking at {} again", found.path))?;
            let stamp = Stamp::of(&metadata);
            if stamp != found.stamp || metadata.len() != found.size_bytes {
                found.stamp = stamp;
                found.size_bytes = metadata.len();
                self.hashes[index] = None;
            }
        }
        Ok(())
    }

    /// Files that are not any more what they were when they were read.
    pub(crate) fn changed(&self) -> Vec<String> {
        let files: Vec<(&Found, &Stamp)> = self.found.iter().zip(&self.seen).collect();
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        let share = files.len().div_ceil(threads).max(1);
        // From the folder, so that the way to it is not walked for each file.
        let flags = rustix::fs::OFlags::PATH | rustix::fs::OFlags::CLOEXEC;
        let root = rustix::fs::open(&self.root, flags, rustix::fs::Mode::empty());
        let Ok(root) = root.map(fs::File::from) else {
            return vec![self.root.display().to_string()];
        };
        let is_changed = |(found, seen): &&(&Found, &Stamp)| {
            found.kind == Kind::File
                && Stamp::below(&root, &found.path).map_or(true, |now| now != **seen)
        };
        let looked = |part: &[(&Found, &Stamp)]| -> Vec<String> {
            let changed = part.iter().filter(is_changed);
            changed.map(|(found, _)| found.path.clone()).collect()
        };
        std::thread::scope(|scope| {
            let looks: Vec<_> = files
                .chunks(share)
                .map(|part| scope.spawn(|| looked(part)))
                .collect();
            // Of a thread that failed, every file is doubtful; it cannot fail.
            let looks = looks.into_iter().filter_map(|look| look.join().ok());
            looks.flatten().collect()
        })
    }

    /// Writes down what is known, for the next time.
    pub(crate) fn remember(&mut self) {
        let known = self
            .found
            .iter()
            .zip(&self.hashes)
            .filter_map(|(found, hash)| Some((found, hash.or_else(|| self.cache.get(found))?)));
        self.cache.save(self.started, known);
        self.remembered = clock::instant();
    }
}

/// Every path below a folder; those that cannot be sent are named.
fn everything(root: &Path) -> Result<Vec<String>> {
    let (mut paths, mut bad) = (Vec::new(), Vec::new());
    let mut folders = vec![String::new()];
    while let Some(folder) = folders.pop() {
        let unreadable = |error: std::io::Error| {
            let path = root.join(&folder);
            Problem::new("a part of the folder cannot be read")
                .because(format!("{}: {error}", path.display()))
                .hint("change its permissions, or move it away")
        };
        for entry in fs::read_dir(root.join(&folder)).map_err(unreadable)? {
            let entry = entry.map_err(unreadable)?;
            let name = entry.file_name();
            let Some(name) = name.to_str() else {
                let path = Path::new(&folder).join(&name);
                bad.push(path.to_string_lossy().into_owned());
                continue;
            };
            let path = match folder.as_str() {
                "" => name.to_owned(),
                folder => format!("{folder}/{name}"),
            };
            if entry.file_type().map_err(unreadable)?.is_dir() {
                folders.push(path.clone());
            }
            paths.push(path);
        }
    }
    if bad.is_empty() {
        return Ok(paths);
    }
    Err(Problem::new(format!(
        "names that are not UTF-8 cannot be sent: {}",
        shown(bad)
    ))
    .hint("rename them")
    .into())
}

/// The first few names, and how many more there are.
pub(crate) fn named(names: Vec<String>) -> String {
    shown(names)
}
