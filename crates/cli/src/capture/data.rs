//! Taking data along: a folder or a file as it is, in parts, each sent by itself.
//!
//! Unlike code, nothing is left out, and the list may be long: it is never held as a whole.
//! It comes in blocks, so that what was sent of one is kept whatever happens to the next.  A
//! file is read once: it is hashed and sent as it is read.  What is known is remembered while
//! it goes on: whoever is interrupted does not read again.

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use grid_api::client::Client;
use grid_api::upload::{FileError, FileToSend};
use grid_core::blob::BlobId;
use grid_manifest::{Line, Offer, What, digest_of};

use super::blocks::{Blocks, Entry, lines};
use super::inspect::{Kind, Stamp};
use super::line::Line as Noted;
use super::list::{Look, Place, Writer};
use super::{not_utf8, shown, walk};
use crate::clock;
use crate::progress::Progress;
use crate::upload::{Near, upload_counted};

pub(crate) use super::blocks::Block;

/// Files that are sent together.  Higher: their blocks are in memory; lower: where a few
/// have changed, the server is waited for again and again.
const FILES_MAX: usize = 4_000;

/// Bytes of them, for the same reasons.
const FILES_BYTES_MAX: u64 = 256 << 20;

/// Entries of the blocks whose files are sent together, for the same reasons.
const ENTRIES_MAX: usize = 100_000;

/// Files that one thread looks at again.  Higher: other cores idle; lower: starting threads
/// costs more.
const LOOKS_ALONE: usize = 1_000;

/// A file that somebody writes to while it is read.
#[derive(Debug, thiserror::Error)]
#[error("{path} changed while it was read")]
struct Changed {
    path: String,
}

/// Numbers of blocks, with what the server calls them.
pub(crate) type Names = Vec<(usize, BlobId)>;

/// Data that can be sent.
pub(crate) struct Data {
    root: PathBuf,
    blocks: Blocks,
    pub(super) list: Writer,
    /// Whether the server is on this machine, once somebody has asked.
    near: Option<Option<Near>>,
    /// What has a time that cannot be kept.
    untimely: Vec<String>,
}

impl Data {
    /// Looks at what there is, and refuses what cannot be taken along.
    pub(crate) fn scan(source: &Path, cache_dir: &Path) -> Result<Self> {
        let real = source
            .canonicalize()
            .with_context(|| format!("looking at {}", source.display()))?;
        let name = match real.is_dir() {
            true => None,
            false => {
                let name = real.file_name().and_then(|name| name.to_str());
                Some(name.ok_or_else(|| not_utf8([real.display().to_string()]))?)
            }
        };
        let (root, lines) = lines(&real, name)?;
        let begun = clock::now();
        let place = Place::of(cache_dir, source);
        let blocks = Blocks::begin(lines, place.read())?;
        Ok(Self {
            root,
            blocks,
            list: place.write(begun),
            near: None,
            untimely: Vec::new(),
        })
    }

    /// The bytes of all files together, where that is known already.
    pub(crate) fn size_bytes(&self) -> Option<u64> {
        self.blocks.size_bytes()
    }

    /// Finds out how many bytes there are, beside everything else, and says it when it knows.
    pub(crate) fn count(&self, say: impl FnOnce(u64) + Send + 'static) {
        let root = self.root.clone();
        let work = move || say(walk::bytes_below(&root).unwrap_or_default());
        let thread = std::thread::Builder::new().name("count".to_owned());
        // Without it, it is only not known how long it takes.
        let _ = thread.spawn(work);
    }

    /// The next blocks: as many as there are whose files can be sent together.
    pub(crate) async fn next(&mut self) -> Result<Vec<Block>> {
        let mut group = Vec::from_iter(self.blocks.next().await?);
        let (mut entries, mut files, mut bytes) = (0, 0, 0);
        while let Some(last) = group.last() {
            entries += last.len();
            let unknown = last.entries.iter().filter(|entry| is_unknown(entry));
            for entry in unknown {
                files += 1;
                bytes += entry.found.size_bytes;
            }
            if files >= FILES_MAX || bytes >= FILES_BYTES_MAX || entries >= ENTRIES_MAX {
                break;
            }
            match self.blocks.ready()? {
                Some(block) => group.push(block),
                None => break,
            }
        }
        let entries = group.iter().flat_map(|block| &block.entries);
        let untimely = entries.filter(|entry| entry.found.stamp.is_cut());
        self.untimely
            .extend(untimely.map(|entry| entry.found.path.clone()));
        Ok(group)
    }

    /// What had a time that cannot be kept, of what came so far.
    pub(crate) fn untimely(&mut self) -> Vec<String> {
        std::mem::take(&mut self.untimely)
    }

    /// Reads the files of blocks whose hashes are not known, and sends them as they are; and
    /// those that are `missing`.  Adds to `new_bytes` what was new to the server, also when it
    /// fails in the middle: what was sent is not new when it is offered again.
    pub(crate) async fn bring(
        &mut self,
        client: &Client,
        blocks: &mut [Block],
        missing: &HashSet<BlobId>,
        progress: &Progress,
        new_bytes: &mut u64,
    ) -> Result<()> {
        let mut missing: HashSet<&BlobId> = missing.iter().collect();
        let mut wanted: Vec<&mut Entry> = Vec::new();
        for entry in blocks.iter_mut().flat_map(|block| &mut block.entries) {
            if entry.found.kind != Kind::File {
                continue;
            }
            match entry.hash {
                // Of files that are alike one is sent.
                Some(hash) if !missing.is_empty() && missing.remove(&BlobId::from_bytes(hash)) => {
                    wanted.push(entry);
                }
                Some(_) => {}
                None => wanted.push(entry),
            }
        }
        match wanted.is_empty() {
            true => Ok(()),
            false => self.send(client, wanted, progress, new_bytes).await,
        }
    }

    /// Reads files once, and sends what the server lacks of them; adds how much that was.
    async fn send(
        &mut self,
        client: &Client,
        wanted: Vec<&mut Entry>,
        progress: &Progress,
        new_bytes: &mut u64,
    ) -> Result<()> {
        let files = wanted.iter().map(|entry| FileToSend {
            path: self.root.join(&entry.found.path),
            known: None,
        });
        if self.near.is_none() {
            self.near = Some(Near::find(client).await);
        }
        let near = self.near.as_ref().and_then(Option::as_ref);
        let sent = upload_counted(client, near, files.collect(), progress).await?;
        *new_bytes = new_bytes.saturating_add(sent.bytes);
        let mut failed = None;
        for (entry, sent) in wanted.into_iter().zip(sent.outcomes) {
            let found = &mut entry.found;
            let sent = match sent {
                Ok(sent) => sent,
                Err(FileError::Changed) => {
                    let path = found.path.clone();
                    failed = failed.or_else(|| Some(Changed { path }.into()));
                    continue;
                }
                Err(error) => {
                    return Err(error).with_context(|| format!("sending {}", found.path));
                }
            };
            entry.hash = Some(*sent.blob.as_bytes());
            (entry.is_new, entry.was_read) = (true, true);
            if let Some(read) = sent.metadata {
                found.size_bytes = read.len();
                found.stamp = Stamp::of(&read);
            }
        }
        match failed {
            Some(error) => Err(error),
            None => Ok(()),
        }
    }

    /// Whether a file changed while it was read: another look may help.
    pub(crate) fn is_changed(error: &anyhow::Error) -> bool {
        error.is::<Changed>()
    }

    /// Looks at the files of blocks again, of which some changed while they were sent.
    pub(crate) fn look_again(&self, blocks: &mut [Block]) -> Result<()> {
        for entry in blocks.iter_mut().flat_map(|block| &mut block.entries) {
            let found = &mut entry.found;
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
                (entry.hash, entry.is_new) = (None, true);
            }
        }
        Ok(())
    }

    /// Remembers blocks whose files are known, in their order.
    pub(crate) fn remember(&mut self, blocks: &[Block]) {
        for block in blocks {
            self.list.block(remembered(block));
        }
    }

    /// The server calls blocks so: next time they can be named.
    pub(crate) fn name(&mut self, names: Names) {
        for (number, name) in names {
            self.list.name(number, name);
        }
    }

    /// Files that are not any more what they were when they were read, and folders in which
    /// something came or went meanwhile.
    pub(crate) fn changed(&mut self) -> Vec<String> {
        // From the folder, so that the way to it is not walked for each file.
        let flags = rustix::fs::OFlags::PATH | rustix::fs::OFlags::CLOEXEC;
        let root = rustix::fs::open(&self.root, flags, rustix::fs::Mode::empty());
        let Ok(root) = root.map(fs::File::from) else {
            return vec![self.root.display().to_string()];
        };
        let mut changed = Vec::new();
        let looked = self
            .list
            .look(|looks| changed.extend(different(&root, looks)));
        if looked.is_none() {
            // What cannot be noted cannot be looked at again, which is no fault of the data.
            changed.clear();
        }
        changed
    }

    /// All was sent: next time only what is new has to be.
    pub(crate) fn finish(self) {
        self.list.finish();
    }
}

fn is_unknown(entry: &Entry) -> bool {
    entry.found.kind == Kind::File && entry.hash.is_none()
}

pub(super) fn remembered(block: &Block) -> impl Iterator<Item = Noted<'_>> {
    let mut entered = block.entered.iter().peekable();
    let mut entries = block.entries.iter().enumerate().peekable();
    std::iter::from_fn(move || {
        let (number, entry) = entries.peek()?;
        if let Some((_, path, stamp)) = entered.next_if(|(at, ..)| at <= number) {
            return Some(Noted::Entered(path, *stamp));
        }
        let line = Noted::Found {
            found: &entry.found,
            hash: entry.hash.unwrap_or_default(),
            was_read: entry.was_read,
        };
        entries.next();
        Some(line)
    })
}

/// Those of some that are not any more what they were.
fn different(root: &fs::File, looks: &[Look]) -> Vec<String> {
    let is_different = |look: &&Look| {
        Stamp::below(root, &look.path).map_or(true, |now| match look.is_folder {
            // Who may read it, say, changes nothing of what was taken along.
            true => now.modified_ns != look.stamp.modified_ns || now.inode != look.stamp.inode,
            false => now != look.stamp,
        })
    };
    let looked = |part: &[Look]| -> Vec<String> {
        let changed = part.iter().filter(is_different);
        let called = |look: &Look| match look.is_folder {
            true => format!("{}/", look.path),
            false => look.path.clone(),
        };
        changed.map(called).collect()
    };
    if looks.len() <= LOOKS_ALONE {
        return looked(looks);
    }
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let share = looks.len().div_ceil(threads).max(1);
    std::thread::scope(|scope| {
        let looks: Vec<_> = looks
            .chunks(share)
            .map(|part| scope.spawn(|| looked(part)))
            .collect();
        // Of a thread that failed, every file is doubtful; it cannot fail.
        let looks = looks.into_iter().filter_map(|look| look.join().ok());
        looks.flatten().collect()
    })
}

impl Block {
    /// Which part of the list it is.
    pub(crate) fn number(&self) -> usize {
        self.number
    }

    /// What its files are for whoever waits: those that need not be read count at once.
    pub(crate) fn known_bytes(&self) -> u64 {
        let known = self.entries.iter().filter(|entry| !is_unknown(entry));
        known.map(|entry| entry.found.size_bytes).sum()
    }

    /// The bytes of its files that were read this time, or changed while they were.
    pub(crate) fn read_bytes(&self) -> u64 {
        let is_read = |entry: &&Entry| entry.was_read || is_unknown(entry);
        let read = self.entries.iter().filter(is_read);
        read.map(|entry| entry.found.size_bytes).sum()
    }

    /// What its entries are called.
    pub(crate) fn digest(&self) -> BlobId {
        digest_of(self.entries.iter().map(line))
    }

    /// As it is sent: what is new to the block before, if the server knows that one, or
    /// everything.
    pub(crate) fn offer(&self, knows_before: bool) -> Offer {
        let Some(block) = self.before.filter(|_| knows_before) else {
            return Offer::Whole {
                entries: self.lines(|_| true),
            };
        };
        let put = self.lines(|entry| entry.is_new);
        if put.is_empty() && self.removed.is_empty() {
            return Offer::Same { block };
        }
        Offer::Edited {
            block,
            digest: self.digest(),
            removed: self.removed.clone(),
            put,
        }
    }

    /// From now on it is sent as a whole.
    pub(crate) fn forget_before(&mut self) {
        self.before = None;
    }

    fn lines(&self, is_wanted: impl Fn(&Entry) -> bool) -> Vec<grid_manifest::Entry> {
        let wanted = self.entries.iter().filter(|entry| is_wanted(entry));
        wanted.map(|entry| line(entry).to_entry()).collect()
    }
}

fn line(entry: &Entry) -> Line<'_> {
    let found = &entry.found;
    let what = match &found.kind {
        Kind::File => What::File {
            blob: BlobId::from_bytes(entry.hash.unwrap_or_default()),
            size_bytes: found.size_bytes,
        },
        Kind::Folder => What::Folder,
        Kind::Link(target) => What::Link { target },
    };
    Line {
        path: &found.path,
        mode: found.mode,
        modified_ms: found.stamp.modified_ns.div_euclid(1_000_000),
        what,
    }
}

/// The first few names, and how many more there are.
pub(crate) fn named(names: Vec<String>) -> String {
    shown(names)
}
