//! Sending the bytes of files to the server: only chunks that it lacks travel.

use std::future::Future;
use std::time::Duration;

use anyhow::{Context as _, Result};
use bytes::Bytes;
use grid_api::blob::{BlobList, BlobRecipe, BlobRecipes, BlobRecipesAnswer, BlobsStored};
use grid_api::client::{Client, Error};
use grid_api::upload::{self, Door, FileError, FileToSend, SentFile};
use grid_core::blob::BlobId;

use crate::progress::Progress;

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
    let progress = progress.clone();
    let read = move |bytes| progress.add(bytes);
    let sent = upload::send(&Line { client }, files, read).await;
    sent.context("sending the files")
}

struct Line<'a> {
    client: &'a Client,
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
        Ok(())
    }

    async fn announce(&self, recipes: Vec<BlobRecipe>) -> Result<BlobRecipesAnswer, Error> {
        let recipes = BlobRecipes { recipes };
        persist(|| self.client.post("/blobs/recipes", &recipes)).await
    }
}
