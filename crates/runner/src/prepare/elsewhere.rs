//! Files of a version that were left in a bucket: they are brought here through the server
//! when the version is first mounted on this machine, and kept in its cache like others.
//!
//! The server reads an object only as it was when it was listed, so what comes is what the
//! version says, or an error that names it.  What came whole stays when the rest fails.

use std::fs;
use std::io;
use std::path::Path;
use std::time::Duration;

use futures::{StreamExt, TryStreamExt};
use grid_api::client::{self, segments};
use grid_chunk::Holes;
use grid_core::id::DatastoreVersionId;
use grid_manifest::{Entry, Node};
use reqwest::Method;
use tokio::time::Instant;

use super::tree::{blob_path, has_blob};
use crate::context::Context;

/// Objects that are fetched at a time.  Higher: more connections to the bucket's server;
/// lower: small ones wait for each other's answers.
const OBJECTS_AT_ONCE: usize = 16;

/// How long a bucket that does not answer, or not whole, is waited for.  Higher: an experiment
/// waits for one that is gone; lower: one that is away for a while makes it fail.
const AWAITED: Duration = Duration::from_secs(30 * 60);

/// The pause before such a bucket is asked again.
const PAUSE: Duration = Duration::from_secs(5);

/// Why an object is not here.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("'{path}' could not be fetched")]
    Fetch {
        path: String,
        #[source]
        source: client::Error,
    },
    #[error("it could not be written to the cache of this machine")]
    Write(#[source] io::Error),
    #[error("'{0}' came with another size than it is listed with")]
    Size(String),
}

/// Under which name the cache keeps an object.  Its hash is not known before it is here; and
/// what two buckets call alike need not be alike.
pub(super) fn name(id: DatastoreVersionId, path: &str, tag: &str) -> String {
    let mut hasher = blake3::Hasher::new();
    for part in [&id.to_string(), path, tag] {
        hasher.update(part.as_bytes()).update(&[0]);
    }
    hasher.finalize().to_hex().to_string()
}

/// Fetches the objects among these entries that are not here yet.
pub(super) async fn fetch(
    context: &Context,
    blobs: &Path,
    id: DatastoreVersionId,
    entries: &[Entry],
    count: impl Fn(u64),
    waits: impl Fn(Option<String>),
) -> Result<(), Error> {
    let waits = &waits;
    let mut wanted = Vec::new();
    for entry in entries {
        if let Node::Elsewhere { size_bytes, tag } = &entry.node {
            let name = name(id, &entry.path, tag);
            if !has_blob(blobs, &name, *size_bytes).map_err(Error::Write)? {
                wanted.push(Wanted {
                    path: entry.path.clone(),
                    size_bytes: *size_bytes,
                    name,
                });
            }
        }
    }
    let fetches =
        futures::stream::iter(wanted).map(|wanted| one(context, blobs, id, wanted, waits));
    let mut fetches = std::pin::pin!(fetches.buffer_unordered(OBJECTS_AT_ONCE));
    while let Some(bytes) = fetches.try_next().await? {
        count(bytes);
    }
    Ok(())
}

/// An object that is not here yet.
struct Wanted {
    path: String,
    size_bytes: u64,
    /// Under which the cache keeps it.
    name: String,
}

/// What came of asking for one.
enum Asked {
    Came(Result<(tempfile::NamedTempFile, u64), Error>),
    /// The bucket does not answer, or not whole.
    Waits(client::Error),
}

/// Fetches one; gives its bytes.  While its bucket is waited for it is said why.
async fn one(
    context: &Context,
    blobs: &Path,
    id: DatastoreVersionId,
    wanted: Wanted,
    waits: &impl Fn(Option<String>),
) -> Result<u64, Error> {
    let Wanted {
        path,
        size_bytes,
        name,
    } = wanted;
    let url = &format!("/runner/datastores/{id}/files/{}", segments(&path));
    let since = Instant::now();
    let received = loop {
        let asked = context
            .server
            .persist("fetching a file from a bucket", |client| async move {
                ask(blobs, &client, url).await
            })
            .await;
        match asked {
            Ok(Asked::Came(received)) => break received?,
            Ok(Asked::Waits(error)) if since.elapsed() < AWAITED => {
                waits(Some(format!("'{path}': {error}")));
            }
            Ok(Asked::Waits(source)) | Err(source) => return Err(Error::Fetch { path, source }),
        }
        tokio::time::sleep(PAUSE).await;
    };
    waits(None);
    let (file, length) = received;
    if length != size_bytes {
        return Err(Error::Size(path));
    }
    let to = blob_path(blobs, &name);
    if let Some(parent) = to.parent() {
        fs::create_dir_all(parent).map_err(Error::Write)?;
    }
    match file.persist(to) {
        Ok(_) => Ok(length),
        Err(error) => Err(Error::Write(error.error)),
    }
}

/// Asks for one, once.
async fn ask(blobs: &Path, client: &client::Client, url: &str) -> Result<Asked, client::Error> {
    const UNAVAILABLE: u16 = 503;
    let answer = match client.send(client.request(Method::GET, url)).await {
        Err(error) if error.status() == Some(UNAVAILABLE) => return Ok(Asked::Waits(error)),
        answer => answer?,
    };
    Ok(match receive(blobs, client, answer).await {
        Ok(received) => Asked::Came(received),
        Err(broken) => Asked::Waits(broken),
    })
}

/// Writes an answer to a file.  The outer error is one of the connection, and worth another
/// try.
async fn receive(
    blobs: &Path,
    client: &client::Client,
    answer: reqwest::Response,
) -> Result<Result<(tempfile::NamedTempFile, u64), Error>, client::Error> {
    let file = match tempfile::NamedTempFile::new_in(blobs) {
        Ok(file) => file,
        Err(error) => return Ok(Err(Error::Write(error))),
    };
    let (mut body, mut holes, mut length) = (answer.bytes_stream(), Holes::default(), 0);
    while let Some(piece) = body.next().await {
        let piece = piece.map_err(|error| client::Error::Broken {
            url: client.url().to_owned(),
            source: error.into(),
        })?;
        if let Err(error) = holes.write(file.as_file(), &piece) {
            return Ok(Err(Error::Write(error)));
        }
        length += piece.len() as u64;
    }
    let ended = holes.finish(file.as_file());
    Ok(ended.map(|()| (file, length)).map_err(Error::Write))
}
