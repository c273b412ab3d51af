//! Sending the parts of a version, from wherever it was left.

use std::time::Duration;

use anyhow::Result;
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

/// How often it is asked how far the server is.
const POLL: Duration = Duration::from_secs(1);

/// How often the server may not answer while it is asked, before that is said.
const SILENT_MAX: u32 = 60;

/// Sends everything that the server does not have, and ends the upload.
pub(super) async fn send(
    client: &Client,
    id: &str,
    data: &mut Data,
    progress: &Progress,
) -> Result<DatastoreView> {
    let route = format!("/datastores/{}", segment(id));
    let kept = kept(client, &route).await?;
    let parts = data.parts();
    for (number, part) in parts.iter().enumerate() {
        let mut pause = PAUSE;
        for round in 1.. {
            let entries = tokio::task::block_in_place(|| data.list(part, progress))?;
            let bytes: u64 = entries.iter().map(|entry| entry.size_bytes).sum();
            if kept.get(number).and_then(Option::as_ref) == Some(&called(&entries)?) {
                progress.add(bytes);
                break;
            }
            let put = format!("{route}/parts/{number}");
            let body = DatastorePart { entries };
            let offered = offer(client, &put, &body, data, part, progress).await;
            match offered {
                Ok(0) => break,
                // Its bytes are there: it is offered once more, and kept then.
                Ok(_) if round < ROUNDS_MAX => {}
                Err(error) if round < ROUNDS_MAX && Data::is_worth_another_round(&error) => {
                    tokio::time::sleep(pause).await;
                    pause *= 2;
                    data.look_again(part)?;
                }
                Ok(_) => return Err(restless().into()),
                Err(error) => return Err(error),
            }
        }
    }
    let commit = DatastoreCommit {
        parts: u32::try_from(parts.len()).unwrap_or(u32::MAX),
    };
    let route_commit = format!("{route}/commit");
    let mut answer: DatastoreResponse = persist(|| client.post(&route_commit, &commit)).await?;
    while answer.datastore.state == State::Processing {
        tokio::time::sleep(POLL).await;
        answer = persist(|| client.get(&route, &())).await?;
    }
    Ok(answer.datastore)
}

/// Offers a part, and sends what is missing of it; says how much that was.
async fn offer(
    client: &Client,
    route: &str,
    body: &DatastorePart,
    data: &Data,
    part: &std::ops::Range<usize>,
    progress: &Progress,
) -> Result<usize> {
    let answer: DatastorePartResponse = client.put(route, body).await?;
    let bytes_of = |wanted: bool| -> u64 {
        let missing: std::collections::HashSet<&str> =
            answer.missing.iter().map(String::as_str).collect();
        let entries = body.entries.iter();
        let those = entries.filter(|entry| missing.contains(entry.content.as_str()) == wanted);
        those.map(|entry| entry.size_bytes).sum()
    };
    if answer.missing.is_empty() {
        progress.settle(bytes_of(false));
        return Ok(0);
    }
    data.send(client, part, &answer.missing, progress).await?;
    Ok(answer.missing.len())
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
