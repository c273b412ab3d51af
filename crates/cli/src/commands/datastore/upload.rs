//! Sending the parts of a version, from wherever it was left.

use std::pin::pin;
use std::time::Duration;

use anyhow::Result;
use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use grid_api::client::{Client, segment};
use grid_api::datastore::{
    DatastoreCommit, DatastorePart, DatastorePartResponse, DatastorePartsQuery,
    DatastorePartsResponse, DatastoreResponse, DatastoreView, FileEntry, FileKind,
};
use grid_core::blob::BlobId;
use grid_core::datastore::State;
use grid_manifest::{Entry, Node, digest};

use crate::capture::data::Data;
use crate::error::Problem;
use crate::progress::Progress;

/// How often a part is offered again when its files change or the connection breaks in the
/// middle.  Higher: a file that is always written to is sent for ever; lower: one save makes
/// an upload fail.
const ROUNDS_MAX: usize = 6;

/// The pause before the first repetition; each further one is twice as long.
const PAUSE: Duration = Duration::from_millis(500);

/// Parts that are offered at the same time.  Higher: more memory here and at the server;
/// lower: one waits for the other.
const OFFERS_MAX: usize = 3;

/// How often it is asked how far the server is.
const POLL: Duration = Duration::from_secs(1);

/// How often the server may not answer while it is asked, before that is said.
const SILENT_MAX: u32 = 60;

/// Sends everything that the server does not have, and ends the upload; says which files
/// changed after they were read.
pub(super) async fn send(
    client: &Client,
    id: &str,
    data: &mut Data,
    progress: &Progress,
) -> Result<(DatastoreView, Vec<String>)> {
    let route = format!("/datastores/{}", segment(id));
    let upload = Upload {
        client,
        kept: kept(client, &route).await?,
        progress,
        route: &route,
    };
    let parts = data.parts();
    // While the files of one part are sent, the lists of those before it are taken.
    let (mut offers, mut again) = (FuturesUnordered::new(), Vec::new());
    for (number, part) in parts.iter().enumerate() {
        let brought = {
            let mut bring = pin!(data.bring(client, part, &[], progress));
            loop {
                tokio::select! {
                    brought = &mut bring => break brought,
                    Some(offered) = offers.next(), if !offers.is_empty() => again.extend(offered),
                }
            }
        };
        match brought {
            Ok(part) if upload.is_kept(number, &part.entries)? => {}
            Ok(part) => {
                if offers.len() >= OFFERS_MAX {
                    again.extend(offers.next().await.flatten());
                }
                offers.push(upload.offer(number, part));
            }
            Err(error) if Data::is_changed(&error) => {
                data.look_again(part)?;
                again.push(number);
            }
            Err(error) => return Err(error),
        }
    }
    while let Some(offered) = offers.next().await {
        again.extend(offered);
    }
    for number in again {
        upload.insist(data, number, &parts[number]).await?;
    }
    let end = end(client, &route, parts.len());
    // While the server files what it has.
    let look = async { tokio::task::block_in_place(|| (data.changed(), data.remember())) };
    let (ended, (changed, ())) = futures::join!(end, look);
    Ok((ended?, changed))
}

/// Ends an upload, and waits until it is over.
async fn end(client: &Client, route: &str, parts: usize) -> Result<DatastoreView> {
    let commit = DatastoreCommit {
        parts: Some(u32::try_from(parts).unwrap_or(u32::MAX)),
    };
    let route_commit = format!("{route}/commit");
    let mut answer: DatastoreResponse = persist(|| client.post(&route_commit, &commit)).await?;
    while answer.datastore.state == State::Processing {
        tokio::time::sleep(POLL).await;
        answer = persist(|| client.get(route, &())).await?;
    }
    Ok(answer.datastore)
}

/// An upload whose parts are sent.
struct Upload<'a> {
    client: &'a Client,
    route: &'a str,
    /// Digests of the parts that the server has, by number.
    kept: Vec<Option<String>>,
    progress: &'a Progress,
}

impl Upload<'_> {
    fn is_kept(&self, number: usize, entries: &[FileEntry]) -> Result<bool> {
        match self.kept.get(number).and_then(Option::as_ref) {
            Some(digest) => Ok(*digest == called(entries)?),
            None => Ok(false),
        }
    }

    /// Offers a part; says which it was if the server does not keep it.
    async fn offer(&self, number: usize, part: DatastorePart) -> Option<usize> {
        let missing = self.put(number, &part).await;
        let is_kept = missing.is_ok_and(|missing| missing.is_empty());
        (!is_kept).then_some(number)
    }

    async fn put(&self, number: usize, part: &DatastorePart) -> Result<Vec<String>> {
        let put = format!("{}/parts/{number}", self.route);
        let answer: DatastorePartResponse = self.client.put(&put, part).await?;
        Ok(answer.missing)
    }

    /// Offers a part until the server keeps it: files change, and lines break.
    async fn insist(
        &self,
        data: &mut Data,
        number: usize,
        part: &std::ops::Range<usize>,
    ) -> Result<()> {
        let (mut pause, mut missing) = (PAUSE, Vec::new());
        for round in 1.. {
            let brought = data.bring(self.client, part, &missing, self.progress).await;
            // What sends files has tried for long already when a line breaks.
            let (offered, is_passing) = match brought {
                Ok(part) => {
                    let offered = self.put(number, &part).await;
                    let is_passing = offered.as_ref().err().is_some_and(is_transient);
                    (offered, is_passing)
                }
                Err(error) => {
                    let is_passing = Data::is_changed(&error);
                    (Err(error), is_passing)
                }
            };
            match offered {
                Ok(lacking) if lacking.is_empty() => return Ok(()),
                Ok(_) if round >= ROUNDS_MAX => break,
                Ok(lacking) => missing = lacking,
                Err(_) if is_passing && round < ROUNDS_MAX => {
                    tokio::time::sleep(pause).await;
                    pause *= 2;
                    data.look_again(part)?;
                }
                Err(error) => return Err(error),
            }
        }
        Err(restless().into())
    }
}

fn is_transient(error: &anyhow::Error) -> bool {
    error
        .downcast_ref::<grid_api::client::Error>()
        .is_some_and(grid_api::client::Error::is_transient)
}

fn restless() -> Problem {
    Problem::new("the files could not be sent: they change again and again")
        .hint("do not write into the folder meanwhile; `grid datastore resume` goes on")
}

/// Digests of the parts that the server has, by number.
async fn kept(client: &Client, route: &str) -> Result<Vec<Option<String>>> {
    let mut query = DatastorePartsQuery::default();
    let mut kept = Vec::new();
    let route = format!("{route}/parts");
    loop {
        let page: DatastorePartsResponse = client.get(&route, &query).await?;
        for part in page.parts {
            let at = part.number as usize;
            kept.resize(kept.len().max(at + 1), None);
            kept[at] = Some(part.digest);
        }
        match page.next {
            Some(next) => query.after = Some(next),
            None => return Ok(kept),
        }
    }
}

/// What the server calls these entries.
fn called(entries: &[FileEntry]) -> Result<String> {
    let entries: Vec<Entry> = entries.iter().map(entry).collect::<Result<_>>()?;
    Ok(digest(&entries).to_string())
}

fn entry(sent: &FileEntry) -> Result<Entry> {
    let node = match sent.kind {
        FileKind::File => Node::File {
            blob: sent.content.parse::<BlobId>()?,
            size_bytes: sent.size_bytes,
        },
        FileKind::Link => Node::Link {
            target: sent.content.clone(),
        },
        FileKind::Folder | FileKind::Elsewhere => Node::Folder,
    };
    Ok(Entry {
        path: sent.path.clone(),
        mode: sent.mode,
        modified_ms: sent.modified_ms,
        node,
    })
}

/// Asks until the server answers, which may be starting again.
async fn persist<T, F>(request: impl Fn() -> F) -> Result<T>
where
    F: Future<Output = Result<T, grid_api::client::Error>>,
{
    for number in 1.. {
        match request().await {
            Err(error) if error.is_transient() && number < SILENT_MAX => {
                tokio::time::sleep(POLL).await;
            }
            answer => return Ok(answer?),
        }
    }
    Err(Problem::new("the server does not answer").into())
}
