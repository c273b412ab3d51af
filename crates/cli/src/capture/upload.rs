//! Sending a tree: first its list, then the bytes that the server lacks.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use grid_api::blob::{self, BlobsStored};
use grid_api::client::Client;
use grid_api::snapshot::{SnapshotCreate, SnapshotResponse, TreeEntry, TreeKind};
use grid_api::upload::{FileError, FileToSend};
use grid_core::blob::BlobId;
use grid_core::id::SnapshotId;

use super::cache::Cache;
use super::inspect::{Found, Kind};
use super::{Capture, hash};
use crate::error::Problem;
use crate::progress::Progress;
use crate::upload::upload_blobs;

/// How often a tree is hashed and offered again when files change or the
/// connection breaks in the middle.  Higher: a file that is always written to
/// is sent for ever.  Lower: one save in an editor makes a submit fail.
const ROUNDS_MAX: usize = 5;

/// Bytes of one request, unless one file alone is larger.  Higher: a broken
/// connection costs more; lower: more round trips.
const BATCH_BYTES: u64 = 64 << 20;

/// Bytes of a request that is put together before it is sent, on the connection that
/// is open already: the code of most people.  Higher: more memory; lower: a connection
/// and a thread more for little.
const AT_ONCE_BYTES: u64 = 4 << 20;

/// Bytes that are read and sent at once.
const CHUNK_BYTES: usize = 256 << 10;

/// Chunks that are read ahead of the network.
const CHUNKS_AHEAD: usize = 4;

impl Capture {
    /// Sends what the server does not have, and names the tree.
    pub(crate) async fn send(
        &mut self,
        client: &Client,
        cache_dir: &Path,
        progress: &Progress,
    ) -> Result<SnapshotId> {
        for _ in 0..ROUNDS_MAX {
            let cache = Cache::open(cache_dir, &self.root);
            let hashes = hash::all(&self.root, &mut self.found, &cache, progress)?;
            let tree = SnapshotCreate {
                entries: entries(&self.found, &hashes),
            };
            let answer: SnapshotResponse = client.post("/snapshots", &tree).await?;
            if let Some(snapshot) = answer.snapshot {
                return Ok(snapshot);
            }
            let missing = self.missing(&answer.missing, &hashes);
            progress.restart("upload", missing.iter().map(|part| part.size_bytes).sum());
            match send_parts(client, missing, progress).await {
                // What was sent is what was hashed: the tree need not be read again.
                Ok(()) => {
                    let answer: SnapshotResponse = client.post("/snapshots", &tree).await?;
                    if let Some(snapshot) = answer.snapshot {
                        return Ok(snapshot);
                    }
                }
                Err(error) if is_worth_another_round(&error) => self.look_again()?,
                Err(error) => return Err(error),
            }
        }
        Err(Problem::new(
            "the files could not be sent: they changed, or the connection broke, again and again",
        )
        .hint("do not write into the folder meanwhile, or name what changes in .gitignore")
        .into())
    }

    fn missing(&self, missing: &[String], hashes: &[Option<[u8; 32]>]) -> Vec<Part> {
        let missing: HashSet<&str> = missing.iter().map(String::as_str).collect();
        let mut parts = HashMap::new();
        for (found, hash) in self.found.iter().zip(hashes) {
            if let Some(hash) = hash
                && missing.contains(BlobId::from_bytes(*hash).to_string().as_str())
            {
                let path = self.root.join(&found.path);
                parts.entry(*hash).or_insert(Part {
                    path,
                    hash: *hash,
                    size_bytes: found.size_bytes,
                });
            }
        }
        parts.into_values().collect()
    }

    /// Files may have changed or gone since they were listed.
    fn look_again(&mut self) -> Result<()> {
        let paths = self.found.iter().map(|found| found.path.clone()).collect();
        self.found = super::inspect::inspect(&self.root, paths)?;
        Ok(())
    }
}

/// A file that the server lacks.
pub(super) struct Part {
    pub(super) path: PathBuf,
    pub(super) hash: [u8; 32],
    pub(super) size_bytes: u64,
}

fn entries(found: &[Found], hashes: &[Option<[u8; 32]>]) -> Vec<TreeEntry> {
    found
        .iter()
        .zip(hashes)
        .map(|(found, hash)| {
            let (kind, content) = match &found.kind {
                Kind::File => (
                    TreeKind::File,
                    BlobId::from_bytes(hash.unwrap_or_default()).to_string(),
                ),
                Kind::Folder => (TreeKind::Folder, String::new()),
                Kind::Link(target) => (TreeKind::Link, target.clone()),
            };
            TreeEntry {
                path: found.path.clone(),
                kind,
                mode: found.mode,
                size_bytes: found.size_bytes,
                content,
            }
        })
        .collect()
}

/// A file that was read differently than before.
#[derive(Debug, thiserror::Error)]
#[error("{} changed while it was sent", path.display())]
struct Changed {
    path: PathBuf,
}

pub(super) fn is_worth_another_round(error: &anyhow::Error) -> bool {
    error.chain().any(<dyn std::error::Error>::is::<Changed>) || is_of_the_line(error)
}

/// Whether the line or the server was busy, away or slow.
fn is_of_the_line(error: &anyhow::Error) -> bool {
    error
        .chain()
        .filter_map(|cause| cause.downcast_ref::<grid_api::client::Error>())
        .any(grid_api::client::Error::is_transient)
}

/// Sends files, many in one request.
pub(super) async fn send_parts(
    client: &Client,
    parts: Vec<Part>,
    progress: &Progress,
) -> Result<()> {
    let (large, parts): (Vec<Part>, Vec<Part>) = parts
        .into_iter()
        .partition(|part| part.size_bytes > grid_chunk::CHUNK_BYTES_MAX as u64);
    send_large(client, large, progress).await?;
    let mut batch = Vec::new();
    let mut bytes = 0;
    for part in parts {
        if bytes + part.size_bytes > BATCH_BYTES && !batch.is_empty() {
            send_batch(client, std::mem::take(&mut batch), progress).await?;
            bytes = 0;
        }
        bytes += part.size_bytes;
        batch.push(part);
    }
    if batch.is_empty() {
        Ok(())
    } else {
        send_batch(client, batch, progress).await
    }
}

/// Sends what the server lacks of large files.
async fn send_large(client: &Client, parts: Vec<Part>, progress: &Progress) -> Result<()> {
    if parts.is_empty() {
        return Ok(());
    }
    let files = parts.iter().map(|part| FileToSend {
        path: part.path.clone(),
        known: None,
    });
    let sent = upload_blobs(client, files.collect(), progress).await?;
    for (part, sent) in parts.into_iter().zip(sent) {
        match sent {
            Ok(sent) if *sent.blob.as_bytes() == part.hash => {}
            Ok(_) | Err(FileError::Changed) => return Err(Changed { path: part.path }.into()),
            Err(error) => {
                return Err(error).with_context(|| format!("sending {}", part.path.display()));
            }
        }
    }
    Ok(())
}

async fn send_batch(client: &Client, parts: Vec<Part>, progress: &Progress) -> Result<()> {
    if parts.iter().map(|part| part.size_bytes).sum::<u64>() <= AT_ONCE_BYTES {
        match send_at_once(client, &parts, progress).await {
            // A line so slow that this takes longer than any answer may is waited for below.
            Err(error) if is_of_the_line(&error) => {}
            sent => return sent,
        }
    }
    let (sender, receiver) = tokio::sync::mpsc::channel::<io::Result<Vec<u8>>>(CHUNKS_AHEAD);
    let progress = progress.clone();
    let reading = tokio::task::spawn_blocking(move || -> Result<()> {
        let mut chunks = Chunks {
            sender,
            buffer: Vec::with_capacity(CHUNK_BYTES),
            progress,
        };
        for part in &parts {
            chunks.part(part)?;
        }
        chunks.flush()
    });
    let body = futures::stream::unfold(receiver, |mut receiver| async move {
        receiver.recv().await.map(|chunk| (chunk, receiver))
    });
    let sent: Result<BlobsStored, _> = client.put_stream("/blobs", body).await;
    // What went wrong with reading explains what went wrong with sending.
    match reading.await.context("reading the files")? {
        Err(error) if error.is::<Changed>() || sent.is_ok() => Err(error),
        _ => sent.map(|_| ()).context("sending the files"),
    }
}

/// Sends little, in one piece.
async fn send_at_once(client: &Client, parts: &[Part], progress: &Progress) -> Result<()> {
    let mut body = Vec::new();
    for part in parts {
        let reading = || format!("reading {}", part.path.display());
        body.extend_from_slice(&blob::header(&part.hash, part.size_bytes));
        let begin = body.len();
        File::open(&part.path)
            .and_then(|file| file.take(part.size_bytes).read_to_end(&mut body))
            .with_context(reading)?;
        if *blake3::hash(&body[begin..]).as_bytes() != part.hash {
            return Err(Changed {
                path: part.path.clone(),
            }
            .into());
        }
    }
    let bytes = parts.iter().map(|part| part.size_bytes).sum();
    let _: BlobsStored = client
        .put_bytes("/blobs", body)
        .await
        .context("sending the files")?;
    progress.add(bytes);
    Ok(())
}

struct Chunks {
    sender: tokio::sync::mpsc::Sender<io::Result<Vec<u8>>>,
    buffer: Vec<u8>,
    progress: Progress,
}

impl Chunks {
    fn part(&mut self, part: &Part) -> Result<()> {
        self.push(&blob::header(&part.hash, part.size_bytes))?;
        let reading = || format!("reading {}", part.path.display());
        let mut file = File::open(&part.path)
            .with_context(reading)?
            .take(part.size_bytes);
        let mut hasher = blake3::Hasher::new();
        let mut piece = vec![
            0;
            CHUNK_BYTES
                .min(usize::try_from(part.size_bytes).unwrap_or(CHUNK_BYTES))
                .max(1)
        ];
        loop {
            let length = file.read(&mut piece).with_context(reading)?;
            if length == 0 {
                break;
            }
            hasher.update(&piece[..length]);
            self.push(&piece[..length])?;
            self.progress.add(length as u64);
        }
        if *hasher.finalize().as_bytes() == part.hash {
            return Ok(());
        }
        // The server must not wait for bytes that will not come.
        let _ = self
            .sender
            .blocking_send(Err(io::Error::other("the file changed")));
        Err(Changed {
            path: part.path.clone(),
        }
        .into())
    }

    fn push(&mut self, bytes: &[u8]) -> Result<()> {
        self.buffer.extend_from_slice(bytes);
        if self.buffer.len() >= CHUNK_BYTES {
            self.flush()
        } else {
            Ok(())
        }
    }

    fn flush(&mut self) -> Result<()> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        let chunk = std::mem::replace(&mut self.buffer, Vec::with_capacity(CHUNK_BYTES));
        let sent = self.sender.blocking_send(Ok(chunk));
        sent.map_err(|_| anyhow::anyhow!("the connection ended before the files did"))
    }
}
