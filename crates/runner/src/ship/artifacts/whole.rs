//! Sending a large file as it is, to a server on the same machine.
//!
//! Over a network a file is cut here, so that only what is new travels.  Within a machine
//! nothing travels: that the server cuts it takes half of the work, and leaves the machine
//! to the experiments.

use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use futures::stream;
use grid_api::blob::BlobNamed;
use grid_api::client;
use grid_api::upload::FileError;
use grid_core::blob::BlobId;
use rustix::buffer::spare_capacity;
use tokio::sync::mpsc;

use super::bytes::{self, Hashed};
use super::scan::Signature;
use crate::context::Context;

/// Files from this size on are sent whole.  Higher: more files are cut here and hashed twice.
/// Lower: more requests, each of which waits for the disk.
const WHOLE_BYTES_MIN: u64 = 32 << 20;

/// Pieces of a file on their way from the disk to the server.
const PIECES_MAX: usize = 4;

/// Whether it is better not to cut this file.
pub(super) fn is_for(context: &Context, path: &Path, size_bytes: u64) -> bool {
    // A hole is told in a few bytes by who cuts.
    let is_dense = |path: &Path| {
        let metadata = path.symlink_metadata();
        metadata.is_ok_and(|found| found.blocks().saturating_mul(512) >= size_bytes)
    };
    size_bytes >= WHOLE_BYTES_MIN && context.server.is_near() && is_dense(path)
}

type Trouble = Arc<Mutex<Option<bytes::Error>>>;

/// Sends a file; the server says what it is.
pub(super) async fn send(
    context: &Context,
    path: PathBuf,
) -> Result<Result<Hashed, FileError>, client::Error> {
    let opened = tokio::task::spawn_blocking(move || {
        let file = bytes::open(&path)?;
        let signature = signature(&file)?;
        Ok((Arc::new(file), signature))
    });
    let (file, before) = match opened.await {
        Ok(Ok(opened)) => opened,
        Ok(Err(error)) => return Ok(Err(told(error))),
        Err(_) => return Ok(Err(FileError::NotKept)),
    };
    let trouble: Trouble = Arc::default();
    let url = &format!("/runner/blobs/whole?size_bytes={}", before.size_bytes);
    let named = context
        .server
        .persist("sending a large file", |client| {
            let (file, trouble) = (Arc::clone(&file), Arc::clone(&trouble));
            async move {
                let noted = Arc::clone(&trouble);
                let body = body(file, before.size_bytes, noted);
                let answer = client.put_stream::<_, _, BlobNamed>(url, body).await;
                // When the file was the trouble, trying again would not help.
                match taken(&trouble) {
                    Some(error) => Ok(Err(told(error))),
                    None => answer.map(Ok),
                }
            }
        })
        .await?;
    let named = match named {
        Ok(named) => named,
        Err(error) => return Ok(Err(error)),
    };
    let Ok(blob) = named.blake3.parse::<BlobId>() else {
        return Ok(Err(FileError::NotKept));
    };
    Ok(match signature(&file) {
        Ok(after) if after == before => Ok(Hashed {
            hash: *blob.as_bytes(),
            signature: before,
            bytes: None,
        }),
        Ok(_) => Err(FileError::Changed),
        Err(error) => Err(told(error)),
    })
}

fn signature(file: &File) -> Result<Signature, bytes::Error> {
    let metadata = file.metadata().map_err(bytes::Error::Read)?;
    Ok(Signature::of(&metadata))
}

fn told(error: bytes::Error) -> FileError {
    match error {
        bytes::Error::Read(source) => FileError::Read(source),
        bytes::Error::Changed => FileError::Changed,
    }
}

fn taken(trouble: &Trouble) -> Option<bytes::Error> {
    let mut trouble = trouble.lock().unwrap_or_else(PoisonError::into_inner);
    trouble.take()
}

/// The bytes of a file as a stream, read from the disk as they are sent.
fn body(
    file: Arc<File>,
    size: u64,
    trouble: Trouble,
) -> impl futures::Stream<Item = io::Result<Vec<u8>>> + Send + 'static {
    let (pieces, mut arriving) = mpsc::channel(PIECES_MAX);
    tokio::task::spawn_blocking(move || {
        let sent = read_pieces(&file, size, |piece| pieces.blocking_send(Ok(piece)).is_ok());
        if let Err(error) = sent {
            let cut = Err(io::Error::other(error.to_string()));
            *trouble.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
            let _ = pieces.blocking_send(cut);
        }
    });
    stream::poll_fn(move |context| arriving.poll_recv(context))
}

/// Gives the bytes of a file in pieces that are the taker's own, until it wants no more.
/// The place in the file is told with each read: an earlier try may still be reading.
fn read_pieces(
    file: &File,
    size: u64,
    mut take: impl FnMut(Vec<u8>) -> bool,
) -> Result<(), bytes::Error> {
    let mut position = 0;
    while position < size {
        let left = usize::try_from(size - position).unwrap_or(usize::MAX);
        let mut piece = Vec::with_capacity(left.min(bytes::CHUNK_BYTES));
        let got = rustix::io::retry_on_intr(|| {
            rustix::io::pread(file, spare_capacity(&mut piece), position)
        });
        match got.map_err(|error| bytes::Error::Read(error.into()))? {
            // It is shorter than it was.
            0 => return Err(bytes::Error::Changed),
            got => position += got as u64,
        }
        // Whoever hung up does not want the rest.
        if !take(piece) {
            break;
        }
    }
    Ok(())
}
