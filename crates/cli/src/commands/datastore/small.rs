//! Fetching many small files: some thousands in one answer, each checked against its hash.
//!
//! One request per file costs more than the bytes of a small one.  A file is written under
//! another name and gets its own when it is whole and right.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context as _, Result};
use futures::StreamExt as _;
use grid_api::artifact::ArtifactView;
use grid_api::blob::{HEADER_BYTES, parse_header};
use grid_api::client::Client;
use grid_api::datastore::FilesFetch;
use grid_core::blob::BlobId;
use reqwest::Method;

use crate::commands::artifacts::download::{self, FileStatus};
use crate::commands::artifacts::place::{self, Place};
use crate::error::Problem;
use crate::progress::Progress;

/// Largest file that is small.  Higher: less is kept when the connection breaks; lower: more
/// requests.
pub(super) const SMALL_BYTES_MAX: u64 = 256 << 10;

/// Files of one request, and their bytes together.
const BATCH_FILES: usize = 2_000;
const BATCH_BYTES: u64 = 16 << 20;

/// Requests at a time.  Higher: more memory; lower: disks and network wait for each other.
const BATCHES_AT_ONCE: usize = 4;

/// How often a batch is tried whose connection breaks.
const TRIES_MAX: u32 = 5;

/// A file, where it is, and how it came there.
pub(super) type Fetched = (ArtifactView, PathBuf, FileStatus);

/// Fetches all files; `route` is that of the version.
pub(super) async fn all(
    client: &Client,
    route: &str,
    place: &Arc<Place>,
    files: Vec<ArtifactView>,
    progress: &Progress,
) -> Result<Vec<Fetched>> {
    let (mut wanted, mut done) = (Vec::new(), Vec::new());
    for file in files {
        let target = place.of(Path::new(""), &file.path)?;
        if download::is_same(&target, &file) {
            progress.add(file.size_bytes);
            done.push((file, target, FileStatus::Unchanged));
        } else {
            let status = FileStatus::of_fetched(&target);
            wanted.push((file, target, status));
        }
    }
    let route = Arc::new(format!("{route}/fetch"));
    let work = futures::stream::iter(batches(wanted)).map(|batch| {
        let (client, route, progress) = (client.clone(), Arc::clone(&route), progress.clone());
        let work = async move { patiently(&client, &route, batch, &progress).await };
        // A task of its own, so that files are checked on all cores.
        async {
            tokio::spawn(work)
                .await
                .unwrap_or_else(|error| Err(error.into()))
        }
    });
    let mut work = Box::pin(work.buffer_unordered(BATCHES_AT_ONCE));
    while let Some(batch) = work.next().await {
        done.extend(batch?);
    }
    Ok(done)
}

type Batch = Vec<Fetched>;

fn batches(wanted: Batch) -> Vec<Batch> {
    let mut batches = Vec::new();
    let (mut batch, mut bytes) = (Vec::new(), 0);
    for one in wanted {
        bytes += one.0.size_bytes;
        batch.push(one);
        if batch.len() >= BATCH_FILES || bytes >= BATCH_BYTES {
            batches.push(std::mem::take(&mut batch));
            bytes = 0;
        }
    }
    batches.push(batch);
    batches.retain(|batch| !batch.is_empty());
    batches
}

async fn patiently(
    client: &Client,
    route: &str,
    batch: Batch,
    progress: &Progress,
) -> Result<Batch> {
    let mut from = 0;
    for number in 1.. {
        let before = from;
        match fetch(client, route, &batch, &mut from, progress).await {
            Ok(()) => break,
            Err(error) if number < TRIES_MAX && (from > before || is_transient(&error)) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(batch)
}

/// A connection that broke within an answer.
#[derive(Debug, thiserror::Error)]
#[error("the connection broke")]
struct Interrupted;

fn is_transient(error: &anyhow::Error) -> bool {
    error.is::<Interrupted>()
        || error
            .downcast_ref::<grid_api::client::Error>()
            .is_some_and(grid_api::client::Error::is_transient)
}

/// Fetches the files of a batch from number `from` on, which counts what is done.
async fn fetch(
    client: &Client,
    route: &str,
    batch: &Batch,
    from: &mut usize,
    progress: &Progress,
) -> Result<()> {
    let paths = batch[*from..].iter().map(|(file, ..)| file.path.clone());
    let body = FilesFetch {
        paths: paths.collect(),
    };
    let request = client.request(Method::POST, route).json(&body);
    let answer = client.send(request).await?;
    let mut pieces = answer.bytes_stream();
    let (mut buffer, mut at) = (Vec::new(), 0);
    while *from < batch.len() {
        let (file, target, _) = &batch[*from];
        let length = HEADER_BYTES + usize::try_from(file.size_bytes).unwrap_or(usize::MAX);
        while buffer.len() - at < length {
            buffer.drain(..at);
            at = 0;
            match pieces.next().await {
                Some(Ok(piece)) => buffer.extend_from_slice(&piece),
                Some(Err(_)) | None => return Err(Interrupted.into()),
            }
            if buffer.len() >= HEADER_BYTES && !is_record_of(&buffer, file) {
                return Err(wrong(file).into());
            }
        }
        if !is_record_of(&buffer[at..], file) {
            return Err(wrong(file).into());
        }
        write(file, target, &buffer[at + HEADER_BYTES..at + length])?;
        at += length;
        progress.add(file.size_bytes);
        *from += 1;
    }
    Ok(())
}

fn is_record_of(buffer: &[u8], file: &ArtifactView) -> bool {
    let Some(Ok(header)) = buffer
        .get(..HEADER_BYTES)
        .map(<&[u8; HEADER_BYTES]>::try_from)
    else {
        return false;
    };
    let (hash, length) = parse_header(header);
    length == file.size_bytes && BlobId::from_bytes(hash).to_string() == file.blake3
}

fn wrong(file: &ArtifactView) -> Problem {
    Problem::new(format!("what came for '{}' is not the file", file.path))
        .hint("fetch it again; if that does not help, tell the operator of the server")
}

fn write(file: &ArtifactView, target: &Path, bytes: &[u8]) -> Result<()> {
    if blake3::hash(bytes).to_hex().as_str() != file.blake3 {
        return Err(wrong(file).into());
    }
    let writing = || format!("writing {}", target.display());
    let folder = target.parent().unwrap_or(Path::new("."));
    let mut builder = tempfile::Builder::new();
    let builder = builder.prefix(".grid-").suffix(".part");
    let mut part = builder.tempfile_in(folder).with_context(writing)?;
    part.write_all(bytes).with_context(writing)?;
    download::finish(part.as_file(), file).with_context(writing)?;
    place::require_no_folder(target)?;
    part.persist(target).with_context(writing)?;
    Ok(())
}
