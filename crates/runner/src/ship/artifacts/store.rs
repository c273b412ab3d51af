//! Sending files to the server: hash, ask what is missing, send that, list.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use ::bytes::Bytes;
use futures::stream;
use grid_api::artifact::ArtifactView;
use grid_api::blob::{
    BLOB_BYTES_MAX, BlobRecipe, BlobRecipes, BlobRecipesAnswer, BlobsStored, header,
};
use grid_api::client;
use grid_api::runner::{ArtifactsPut, BlobsMissing};
use grid_api::upload::{self, Door, FileError, FileToSend, SentFile};
use grid_core::blob::BlobId;
use grid_core::id::AttemptId;
use tokio::sync::mpsc;

use super::bytes::{self, CHUNK_BYTES, Hashed};
use super::scan::{Found, Signature, wire_name};
use super::whole;
use crate::context::Context;

/// Most files that are hashed and sent together.  Higher: more memory; lower: more
/// requests for many small files.
const BATCH_FILES_MAX: usize = 5_000;

/// Most bytes of small files that are held at once, and of large ones that are sent
/// in one request.  Higher: more memory, and more is lost when a connection breaks;
/// lower: more requests.
const BATCH_BYTES_MAX: u64 = 64 << 20;

/// Threads that hash the files of one attempt.
const HASHERS_MAX: usize = 4;

/// How often a file that changes under one's hands is tried.  A file at the end of
/// an experiment can only be changed by a process that escaped.
const TRIES_MAX: u32 = 3;

/// Pieces on their way from the disk to the network.
const PIECES_MAX: usize = 4;

/// Why nothing could be stored.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("the server does not want this attempt's artifacts any more")]
    Superseded,
    #[error("the server refused artifacts")]
    Refused(#[source] client::Error),
    #[error("the work of storing artifacts broke off")]
    Broken,
}

impl Error {
    fn of(error: client::Error) -> Self {
        match error.status() {
            Some(404 | 409 | 410) => Self::Superseded,
            _ => Self::Refused(error),
        }
    }
}

/// A file that is stored, as it is to be listed.
pub(crate) struct Stored {
    pub(crate) path: PathBuf,
    pub(crate) signature: Signature,
    pub(crate) view: ArtifactView,
}

/// What became of a batch.
#[derive(Default)]
pub(crate) struct Outcome {
    pub(crate) stored: Vec<Stored>,
    /// Files that could not be stored as they are, and why.
    pub(crate) failed: Vec<(PathBuf, String)>,
}

/// Cuts files into batches.
pub(crate) fn batches(files: Vec<Found>) -> Vec<Vec<Found>> {
    let mut batches = Vec::new();
    let mut batch: Vec<Found> = Vec::new();
    let mut bytes = 0;
    for file in files {
        let size = file.signature.size_bytes;
        if !batch.is_empty() && (batch.len() >= BATCH_FILES_MAX || bytes + size > BATCH_BYTES_MAX) {
            batches.push(std::mem::take(&mut batch));
            bytes = 0;
        }
        bytes += size;
        batch.push(file);
    }
    if !batch.is_empty() {
        batches.push(batch);
    }
    batches
}

/// Stores the bytes of a batch.  They are not listed yet.
pub(crate) async fn store(
    context: &Context,
    work: &Path,
    files: Vec<Found>,
) -> Result<Outcome, Error> {
    let mut outcome = Outcome::default();
    let mut left = files;
    left.retain(|file| {
        let is_small_enough = file.signature.size_bytes <= BLOB_BYTES_MAX;
        if !is_small_enough {
            let why = format!("it is larger than {} TiB", BLOB_BYTES_MAX >> 40);
            outcome.failed.push((file.path.clone(), why));
        }
        is_small_enough
    });
    let (large, small) = left
        .into_iter()
        .partition(|file| file.signature.size_bytes > grid_chunk::CHUNK_BYTES_MAX as u64);
    store_large(context, work, large, &mut outcome).await?;
    left = small;
    for last in 1..=TRIES_MAX {
        if left.is_empty() {
            break;
        }
        let hashed = hash_all(work, left).await?;
        let mut again = Vec::new();
        let mut good = Vec::new();
        for (file, result) in hashed {
            match result {
                Ok(hashed) => good.push((file, hashed)),
                Err(bytes::Error::Changed) if last < TRIES_MAX => again.push(file),
                Err(error) => outcome.failed.push((file.path, in_full(&error))),
            }
        }
        let unsent = send_missing(context, work, &mut good).await?;
        for (file, hashed) in good {
            if !unsent.contains(&hashed.hash) {
                outcome.stored.push(stored(file, &hashed));
            } else if last < TRIES_MAX {
                again.push(file);
            } else {
                outcome
                    .failed
                    .push((file.path, "it changes again and again".to_owned()));
            }
        }
        left = again;
    }
    Ok(outcome)
}

/// Stores large files: of checkpoints that share weights, only what differs is sent.
async fn store_large(
    context: &Context,
    work: &Path,
    mut left: Vec<Found>,
    outcome: &mut Outcome,
) -> Result<(), Error> {
    for last in 1..=TRIES_MAX {
        if left.is_empty() {
            break;
        }
        let mut again = Vec::new();
        let sent = send_large(context, work, left).await;
        for (file, sent) in sent.map_err(Error::of)? {
            match sent {
                Ok(hashed) => outcome.stored.push(stored(file, &hashed)),
                Err(FileError::Changed) if last < TRIES_MAX => again.push(file),
                Err(error) => outcome.failed.push((file.path, in_full(&error))),
            }
        }
        left = again;
    }
    Ok(())
}

type Sent = (Found, Result<Hashed, FileError>);

/// Sends large files, as they are or in chunks.
async fn send_large(
    context: &Context,
    work: &Path,
    files: Vec<Found>,
) -> Result<Vec<Sent>, client::Error> {
    let is_whole = |file: &Found| {
        let path = work.join(&file.path);
        whole::is_for(context, &path, file.signature.size_bytes)
    };
    let (whole, cut): (Vec<_>, Vec<_>) = files.into_iter().partition(is_whole);
    let mut all = Vec::with_capacity(whole.len() + cut.len());
    for file in whole {
        let sent = whole::send(context, work.join(&file.path)).await?;
        all.push((file, sent));
    }
    let files = cut.iter().map(|file| FileToSend {
        path: work.join(&file.path),
        known: None,
    });
    let sent = upload::send(&Line { context }, files.collect(), |_| {}).await?;
    for (file, sent) in cut.into_iter().zip(sent) {
        let found = |sent: SentFile| Hashed {
            hash: *sent.blob.as_bytes(),
            signature: sent.metadata.as_ref().map_or(file.signature, Signature::of),
            bytes: None,
        };
        let sent = sent.map(found);
        all.push((file, sent));
    }
    Ok(all)
}

/// The line to the server, which tries again for as long as it takes.
struct Line<'a> {
    context: &'a Context,
}

impl Door for Line<'_> {
    type Error = client::Error;

    async fn missing(&self, ids: Vec<BlobId>) -> Result<Vec<BlobId>, client::Error> {
        let body = &BlobsMissing {
            blobs: upload::written(&ids),
        };
        let ask = |client: Arc<client::Client>| async move {
            let answer: BlobsMissing = client.post("/runner/blobs/missing", body).await?;
            Ok(upload::parsed(&answer.blobs))
        };
        let server = &self.context.server;
        server.persist("asking for missing chunks", ask).await
    }

    async fn put(&self, records: Vec<(BlobId, Bytes)>) -> Result<(), client::Error> {
        let records = &records;
        let put = |client: Arc<client::Client>| async move {
            let body = upload::body(records);
            let _: BlobsStored = client.put_stream("/runner/blobs", body).await?;
            Ok(())
        };
        self.context.server.persist("sending chunks", put).await
    }

    async fn announce(&self, recipes: Vec<BlobRecipe>) -> Result<BlobRecipesAnswer, client::Error> {
        let body = &BlobRecipes { recipes };
        let announce = |client: Arc<client::Client>| async move {
            client.post_patiently("/runner/blobs/recipes", body).await
        };
        let server = &self.context.server;
        server.persist("putting chunks together", announce).await
    }
}

fn in_full(error: &dyn std::error::Error) -> String {
    match error.source() {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}

fn stored(file: Found, hashed: &Hashed) -> Stored {
    let view = ArtifactView {
        path: wire_name(&file.path).0,
        size_bytes: hashed.signature.size_bytes,
        blake3: BlobId::from_bytes(hashed.hash).to_string(),
        mode: file.mode,
        modified_ms: hashed.signature.modified_ms(),
    };
    Stored {
        path: file.path,
        signature: hashed.signature,
        view,
    }
}

type HashResult = (Found, Result<Hashed, bytes::Error>);

async fn hash_all(work: &Path, files: Vec<Found>) -> Result<Vec<HashResult>, Error> {
    let threads = HASHERS_MAX
        .min(files.len())
        .min(std::thread::available_parallelism().map_or(1, usize::from));
    let files = Arc::new(files);
    let next = Arc::new(AtomicUsize::new(0));
    let mut workers = Vec::new();
    for _ in 0..threads {
        let (files, next, work) = (Arc::clone(&files), Arc::clone(&next), work.to_owned());
        workers.push(tokio::task::spawn_blocking(move || {
            let mut done = Vec::new();
            while let Some(file) = files.get(next.fetch_add(1, Ordering::Relaxed)) {
                done.push((file.clone(), bytes::hash(&work.join(&file.path))));
            }
            done
        }));
    }
    let mut all = Vec::new();
    for worker in workers {
        all.extend(worker.await.map_err(|_| Error::Broken)?);
    }
    Ok(all)
}

/// Sends what the server does not have; gives what it still does not have then.
async fn send_missing(
    context: &Context,
    work: &Path,
    files: &mut [(Found, Hashed)],
) -> Result<HashSet<[u8; 32]>, Error> {
    let mut wanted: HashSet<[u8; 32]> = files.iter().map(|(_, hashed)| hashed.hash).collect();
    wanted = ask_missing(context, &wanted).await?;
    if wanted.is_empty() {
        return Ok(wanted);
    }
    let mut taken = HashSet::new();
    let mut records = Vec::new();
    for (file, hashed) in files.iter_mut() {
        if wanted.contains(&hashed.hash) && taken.insert(hashed.hash) {
            records.push(Record {
                hash: hashed.hash,
                size: hashed.signature.size_bytes,
                bytes: hashed.bytes.take(),
                path: work.join(&file.path),
            });
        }
    }
    let records = Arc::new(records);
    let trouble: Arc<Mutex<Option<bytes::Error>>> = Arc::default();
    let count = records.len() as u64;
    let sent: Result<BlobsStored, client::Error> = context
        .server
        .persist("sending artifacts", |client| {
            let (records, trouble) = (Arc::clone(&records), Arc::clone(&trouble));
            async move {
                let noted = Arc::clone(&trouble);
                let answer = client
                    .put_stream("/runner/blobs", body(records, noted))
                    .await;
                // When the file was the trouble, trying again would not help.
                let is_ours = trouble
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .is_some();
                if is_ours {
                    Ok(BlobsStored { stored: 0 })
                } else {
                    answer
                }
            }
        })
        .await;
    match sent {
        Ok(answer) if answer.stored >= count => Ok(HashSet::new()),
        Ok(_) => ask_missing(context, &wanted).await,
        // A record whose bytes are not what its header says.
        Err(error) if error.status() == Some(400) => ask_missing(context, &wanted).await,
        Err(error) => Err(Error::of(error)),
    }
}

async fn ask_missing(
    context: &Context,
    wanted: &HashSet<[u8; 32]>,
) -> Result<HashSet<[u8; 32]>, Error> {
    let body = &BlobsMissing {
        blobs: wanted
            .iter()
            .map(|hash| BlobId::from_bytes(*hash).to_string())
            .collect(),
    };
    let answer: BlobsMissing = context
        .server
        .persist("asking for missing blobs", |client| async move {
            client.post("/runner/blobs/missing", body).await
        })
        .await
        .map_err(Error::of)?;
    let parsed = answer
        .blobs
        .iter()
        .filter_map(|blob| blob.parse::<BlobId>().ok());
    Ok(parsed.map(|blob| *blob.as_bytes()).collect())
}

struct Record {
    hash: [u8; 32],
    size: u64,
    bytes: Option<Vec<u8>>,
    path: PathBuf,
}

/// The records as a stream, read from the disk as they are sent.
fn body(
    records: Arc<Vec<Record>>,
    trouble: Arc<Mutex<Option<bytes::Error>>>,
) -> impl futures::Stream<Item = std::io::Result<Vec<u8>>> + Send + 'static {
    let (pieces, mut arriving) = mpsc::channel::<std::io::Result<Vec<u8>>>(PIECES_MAX);
    tokio::task::spawn_blocking(move || {
        let mut out = Outgoing {
            piece: Vec::with_capacity(CHUNK_BYTES),
            pieces,
        };
        for record in records.iter() {
            if let Err(error) = out.record(record) {
                let _ = out
                    .pieces
                    .blocking_send(Err(std::io::Error::other(error.to_string())));
                *trouble.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
                return;
            }
        }
        // Whoever hung up does not want the rest.
        let _ = out.flush();
    });
    stream::poll_fn(move |context| arriving.poll_recv(context))
}

struct Outgoing {
    piece: Vec<u8>,
    pieces: mpsc::Sender<std::io::Result<Vec<u8>>>,
}

impl Outgoing {
    fn record(&mut self, record: &Record) -> Result<(), bytes::Error> {
        self.add(&header(&record.hash, record.size));
        if let Some(bytes) = &record.bytes {
            self.add(bytes);
            return Ok(());
        }
        let file = bytes::open(&record.path)?;
        bytes::read(&file, record.size, |piece| {
            self.add(piece);
            Ok(())
        })
    }

    fn add(&mut self, bytes: &[u8]) {
        self.piece.extend_from_slice(bytes);
        if self.piece.len() >= CHUNK_BYTES {
            let _ = self.flush();
        }
    }

    fn flush(&mut self) -> Result<(), ()> {
        if self.piece.is_empty() {
            return Ok(());
        }
        let piece = std::mem::replace(&mut self.piece, Vec::with_capacity(CHUNK_BYTES));
        self.pieces.blocking_send(Ok(piece)).map_err(drop)
    }
}

/// Lists what is stored, and takes off the list what is gone.
pub(crate) async fn list(
    context: &Context,
    attempt: AttemptId,
    artifacts: Vec<ArtifactView>,
    removed: Vec<String>,
) -> Result<(), Error> {
    let path = &format!("/runner/attempts/{attempt}/artifacts");
    let body = &ArtifactsPut { artifacts, removed };
    context
        .server
        .persist("listing artifacts", |client| async move {
            client.put::<_, serde_json::Value>(path, body).await
        })
        .await
        .map(drop)
        .map_err(Error::of)
}
