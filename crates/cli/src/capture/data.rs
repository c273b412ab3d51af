//! Taking data along: a folder or a file as it is, in parts, each hashed and sent by itself.
//!
//! Unlike code, nothing is left out, and the list may be long: it is cut into parts, so
//! that what was sent of one is kept whatever happens to the next.  Hashes are remembered
//! as for code, and also while it goes on: whoever is interrupted does not read again.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use grid_api::client::Client;
use grid_api::datastore::{FileEntry, FileKind};
use grid_core::blob::BlobId;
use ignore::WalkBuilder;

use super::cache::Cache;
use super::inspect::{self, Found, Kind, Stamp};
use super::upload::{self, Part};
use super::{hash, not_utf8, shown};
use crate::clock;
use crate::error::Problem;
use crate::progress::Progress;

/// Entries of a part; what the server takes at a time.
pub(crate) const PART_ENTRIES: usize = 5_000;

/// How often hashes are remembered while it goes on.  Higher: more is read again after an
/// interruption; lower: the list is written again and again.
const REMEMBER_EVERY: Duration = Duration::from_secs(20);

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

    /// Hashes what is not known of a part, and lists it.
    pub(crate) fn list(
        &mut self,
        part: &Range<usize>,
        progress: &Progress,
    ) -> Result<Vec<FileEntry>> {
        let mut unknown = Vec::new();
        for index in part.clone() {
            if self.hashes[index].is_none() && self.found[index].kind == Kind::File {
                self.hashes[index] = self.cache.get(&self.found[index]);
                match self.hashes[index] {
                    Some(_) => progress.add(self.found[index].size_bytes),
                    None => unknown.push(index),
                }
            }
        }
        for (index, read) in hash::read_all(&self.root, &self.found, &unknown, progress)? {
            self.hashes[index] = Some(read.hash);
            self.found[index].size_bytes = read.size_bytes;
            self.found[index].stamp = read.stamp;
            self.seen[index] = read.stamp;
        }
        if self.remembered.elapsed() > REMEMBER_EVERY {
            self.remember();
        }
        Ok(part.clone().map(|index| self.entry(index)).collect())
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

    /// Sends the bytes of a part that the server lacks.
    pub(crate) async fn send(
        &self,
        client: &Client,
        part: &Range<usize>,
        missing: &[String],
        progress: &Progress,
    ) -> Result<()> {
        let missing: HashSet<&str> = missing.iter().map(String::as_str).collect();
        let mut files: HashMap<[u8; 32], Part> = HashMap::new();
        for index in part.clone() {
            if let Some(hash) = self.hashes[index]
                && missing.contains(BlobId::from_bytes(hash).to_string().as_str())
            {
                files.entry(hash).or_insert_with(|| Part {
                    path: self.root.join(&self.found[index].path),
                    hash,
                    size_bytes: self.found[index].size_bytes,
                });
            }
        }
        // In the order of the list: neighbours are read together later, too.
        let mut files: Vec<Part> = files.into_values().collect();
        files.sort_by(|a, b| a.path.cmp(&b.path));
        upload::send_parts(client, files, progress).await
    }

    /// Whether a part that could not be sent may be sent after another look.
    pub(crate) fn is_worth_another_round(error: &anyhow::Error) -> bool {
        upload::is_worth_another_round(error)
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
        let is_changed = |(found, seen): &(&Found, &Stamp)| {
            found.kind == Kind::File
                && fs::symlink_metadata(self.root.join(&found.path))
                    .map_or(true, |now| Stamp::of(&now) != **seen)
        };
        self.found
            .iter()
            .zip(&self.seen)
            .filter(is_changed)
            .map(|(found, _)| found.path.clone())
            .collect()
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
    let mut walk = WalkBuilder::new(root);
    walk.standard_filters(false).follow_links(false);
    let (mut paths, mut bad) = (Vec::new(), Vec::new());
    for entry in walk.build() {
        let entry = entry.map_err(|error| {
            Problem::new("a part of the folder cannot be read")
                .because(error)
                .hint("change its permissions, or move it away")
        })?;
        let relative = entry.path().strip_prefix(root).unwrap_or(entry.path());
        match relative.to_str() {
            Some("") => {}
            Some(path) => paths.push(path.to_owned()),
            None => bad.push(relative.to_string_lossy().into_owned()),
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
