//! Sending the bytes of files to the server: only chunks that it lacks travel.

mod near;

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result};
use bytes::Bytes;
use grid_api::blob::{BlobList, BlobRecipe, BlobRecipes, BlobRecipesAnswer, BlobsStored};
use grid_api::client::{Client, Error};
use grid_api::upload::{self, Door, FileError, FileToSend, SentFile};
use grid_core::blob::BlobId;

use crate::progress::Progress;

pub(crate) use near::Near;

/// How often a request is tried while the line is cut or the server is away.
/// Higher: a person waits longer for the news.  Lower: a server that is restarted ends
/// an upload, which then goes on where it was.
const TRIES_MAX: u32 = 8;

/// The pause before the second try; each next one is twice as long.
const PAUSE: Duration = Duration::from_millis(250);

/// Sends files, each read once, and says in their order what became of each.
///
/// Whatever happens, what was sent stays for at least a day, and the next call goes on
/// from there.
pub(crate) async fn upload_blobs(
    client: &Client,
    files: Vec<FileToSend>,
    progress: &Progress,
) -> Result<Vec<Result<SentFile, FileError>>> {
    let sent = upload_cut(client, files, progress).await?;
    Ok(sent.outcomes)
}

/// What was sent.
pub(crate) struct Sent {
    /// What became of each file, in their order.
    pub(crate) outcomes: Vec<Result<SentFile, FileError>>,
    /// Bytes that the server lacked.
    pub(crate) bytes: u64,
}

/// The same, and counts what the server lacked; a server that is `near` gets the files as
/// they are.
pub(crate) async fn upload_counted(
    client: &Client,
    near: Option<&Near>,
    files: Vec<FileToSend>,
    progress: &Progress,
) -> Result<Sent> {
    let Some(near) = near else {
        return upload_cut(client, files, progress).await;
    };
    let files = Arc::new(files);
    let (mut outcomes, mut bytes) = near
        .send(client, &files, progress)
        .await
        .context("sending the files")?;
    let is_left = |(_, outcome): &(usize, &Option<_>)| outcome.is_none();
    let left: Vec<usize> = outcomes
        .iter()
        .enumerate()
        .filter(is_left)
        .map(|(n, _)| n)
        .collect();
    if !left.is_empty() {
        let others = left.iter().filter_map(|number| files.get(*number)).cloned();
        let sent = upload_cut(client, others.collect(), progress).await?;
        bytes += sent.bytes;
        for (number, outcome) in left.into_iter().zip(sent.outcomes) {
            if let Some(place) = outcomes.get_mut(number) {
                *place = Some(outcome);
            }
        }
    }
    let end = |outcome: Option<_>| outcome.unwrap_or(Err(FileError::NotKept));
    Ok(Sent {
        outcomes: outcomes.into_iter().map(end).collect(),
        bytes,
    })
}

/// Cuts files into chunks, and sends those that the server lacks.
async fn upload_cut(client: &Client, files: Vec<FileToSend>, progress: &Progress) -> Result<Sent> {
    let progress = progress.clone();
    let read = move |bytes| progress.add(bytes);
    let line = Line {
        client,
        sent_bytes: AtomicU64::new(0),
    };
    let outcomes = upload::send(&line, files, read).await;
    Ok(Sent {
        outcomes: outcomes.context("sending the files")?,
        bytes: line.sent_bytes.into_inner(),
    })
}

struct Line<'a> {
    client: &'a Client,
    sent_bytes: AtomicU64,
}

/// Does a request until it succeeds, fails for good, or was tried often.
async fn persist<T, F>(request: impl Fn() -> F) -> Result<T, Error>
where
    F: Future<Output = Result<T, Error>>,
{
    let mut pause = PAUSE;
    for _ in 1..TRIES_MAX {
        match request().await {
            Err(error) if error.is_transient() => {
                tokio::time::sleep(pause).await;
                pause *= 2;
            }
            result => return result,
        }
    }
    request().await
}

impl Door for Line<'_> {
    type Error = Error;

    async fn missing(&self, ids: Vec<BlobId>) -> Result<Vec<BlobId>, Error> {
        let list = BlobList {
            blobs: upload::written(&ids),
        };
        let ask = || self.client.post("/blobs/missing", &list);
        let answer: BlobList = persist(ask).await?;
        Ok(upload::parsed(&answer.blobs))
    }

    async fn put(&self, records: Vec<(BlobId, Bytes)>) -> Result<(), Error> {
        let put = || {
            let body = upload::body(&records);
            self.client.put_stream("/blobs", body)
        };
        let _: BlobsStored = persist(put).await?;
        let bytes: usize = records.iter().map(|(_, bytes)| bytes.len()).sum();
        self.sent_bytes.fetch_add(bytes as u64, Ordering::Relaxed);
        Ok(())
    }

    async fn announce(&self, recipes: Vec<BlobRecipe>) -> Result<BlobRecipesAnswer, Error> {
        let recipes = BlobRecipes { recipes };
        persist(|| self.client.post_patiently("/blobs/recipes", &recipes)).await
    }
}
