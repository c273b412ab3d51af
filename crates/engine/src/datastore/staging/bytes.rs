//! The bytes of a file, or of a part of one, on their way into the store.

use std::io;
use std::pin::pin;
use std::time::Duration;

use ::bytes::Bytes;
use futures::{Stream, StreamExt};
use grid_core::blob::BlobId;
use grid_store::db::staged::Part;
use md5::{Digest, Md5};

use crate::Engine;
use crate::access::Caller;
use crate::error::{Error, Result};
use crate::receiving::{Place, Sender, WAIT_MAX};

/// Most bytes of one part, or of a file that comes in one piece (5 GiB).  Higher: more is
/// sent again when a line is cut; lower: who sends in one piece has to send in parts.
pub const PART_BYTES_MAX: u64 = 5 << 30;

/// Bytes that are read of a part at a time when parts are put together.
const PIECE_BYTES: usize = 1 << 20;

/// What the sender says about the bytes that come.
#[derive(Debug, Clone, Copy, Default)]
pub struct Announced {
    /// How many.
    pub size_bytes: Option<u64>,
    /// Their MD5.
    pub md5: Option<[u8; 16]>,
    /// Most that may come, where that is less than [`PART_BYTES_MAX`].
    pub most_bytes: Option<u64>,
    /// How long the sender waits until something of them is taken, where that is not long.
    pub patience: Option<Duration>,
}

/// What came.
pub(super) struct Received {
    pub(super) blob: BlobId,
    pub(super) size_bytes: u64,
    pub(super) new_bytes: u64,
    pub(super) md5: [u8; 16],
}

/// Stores what comes, if it is what was announced.  Of what is cut off nothing is kept that
/// anybody could see.
pub(super) async fn receive(
    engine: &Engine,
    caller: &Caller,
    announced: Announced,
    body: impl Stream<Item = io::Result<Bytes>> + Send,
) -> Result<Received> {
    let most = announced.most_bytes.unwrap_or(PART_BYTES_MAX);
    let most = most.min(PART_BYTES_MAX);
    require_small(announced.size_bytes.unwrap_or(0), most)?;
    // Before anything of the body is read.
    let patience = announced.patience.unwrap_or(WAIT_MAX);
    let _place = place(engine, caller, patience).await?;
    // One program alone sends twenty parts at a time.
    let mut writer = engine.inner.blobs.writer().modest();
    let mut md5 = Md5::new();
    let mut body = pin!(body);
    while let Some(piece) = body.next().await {
        let piece =
            piece.map_err(|error| Error::invalid(format!("the bytes broke off: {error}")))?;
        require_small(writer.len() + piece.len() as u64, most)?;
        md5.update(&piece);
        writer.write(&piece).await?;
    }
    let size_bytes = writer.len();
    if let Some(expected) = announced.size_bytes.filter(|bytes| *bytes != size_bytes) {
        return Err(Error::invalid(format!(
            "{expected} bytes were announced and {size_bytes} came: send them again"
        )));
    }
    let md5: [u8; 16] = md5.finalize().into();
    if announced.md5.is_some_and(|announced| announced != md5) {
        return Err(Error::invalid(format!(
            "the bytes that came have another MD5 than announced, {}: send them again",
            hex(&md5)
        )));
    }
    // Just stored, it stays until it is referred to.
    let stored = writer.finish_counted().await?;
    Ok(Received {
        blob: stored.id,
        size_bytes,
        new_bytes: if stored.is_new { size_bytes } else { 0 },
        md5,
    })
}

/// A place among what is received, which also what is put together takes.
async fn place(engine: &Engine, caller: &Caller, patience: Duration) -> Result<Place> {
    let sender = Sender::User(caller.user.id);
    engine.inner.receiving.take(sender, patience).await
}

fn require_small(bytes: u64, most: u64) -> Result<()> {
    if bytes <= most {
        return Ok(());
    }
    Err(Error::TooLarge {
        message: format!("at most {} MiB come in one piece", most >> 20),
        hint: Some("send the file in several parts".to_owned()),
    })
}

/// Several parts as one.
pub(super) struct Joined {
    pub(super) blob: BlobId,
    pub(super) size_bytes: u64,
    pub(super) new_bytes: u64,
}

/// Puts parts together.  One is a file by itself; of several most chunks are stored already.
pub(super) async fn join(engine: &Engine, caller: &Caller, parts: &[Part]) -> Result<Joined> {
    let size_bytes = parts.iter().map(|part| part.size_bytes).sum();
    let new_bytes = parts.iter().map(|part| part.new_bytes).sum();
    if let [only] = parts {
        return Ok(Joined {
            blob: only.blob,
            size_bytes,
            new_bytes,
        });
    }
    let _place = place(engine, caller, WAIT_MAX).await?;
    let blobs = &engine.inner.blobs;
    let mut writer = blobs.writer();
    for part in parts {
        let reader = blobs.get(part.blob).await?;
        let reader = reader.ok_or_else(|| {
            Error::internal(anyhow::anyhow!(
                "the bytes of a part ({}) are missing",
                part.blob
            ))
        })?;
        let mut offset = 0;
        while offset < reader.len() {
            let piece = reader.read_at(offset, PIECE_BYTES).await?;
            if piece.is_empty() {
                break;
            }
            offset += piece.len() as u64;
            writer.write(&piece).await?;
        }
    }
    if writer.len() != size_bytes {
        let found = writer.len();
        return Err(Error::internal(anyhow::anyhow!(
            "parts of {size_bytes} bytes have {found} together"
        )));
    }
    Ok(Joined {
        blob: writer.finish_unnamed().await?,
        size_bytes,
        new_bytes,
    })
}

/// The etag of a file that came in parts: the MD5 of their MD5s, and how many they were.
pub(super) fn etag_of(parts: &[Part]) -> Result<String> {
    let mut md5 = Md5::new();
    for part in parts {
        let bytes = unhex(&part.etag).ok_or_else(|| {
            Error::internal(anyhow::anyhow!("'{}' is no MD5 of a part", part.etag))
        })?;
        md5.update(bytes);
    }
    let md5: [u8; 16] = md5.finalize().into();
    Ok(format!("{}-{}", hex(&md5), parts.len()))
}

/// In hexadecimal.
pub(super) fn hex(md5: &[u8; 16]) -> String {
    md5.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let byte = |at: usize| u8::from_str_radix(text.get(at..at + 2)?, 16).ok();
    (0..text.len()).step_by(2).map(byte).collect()
}

#[cfg(test)]
mod tests {
    use grid_core::time::Timestamp;

    use super::*;

    #[test]
    fn etags_are_those_that_object_stores_give() {
        let part = |text: &str| {
            let md5: [u8; 16] = Md5::digest(text.as_bytes()).into();
            Part {
                number: 1,
                blob: BlobId::from_bytes([0; 32]),
                size_bytes: text.len() as u64,
                new_bytes: 0,
                etag: hex(&md5),
                sent_at: Timestamp::from_millis(0),
            }
        };
        assert_eq!(part("hello").etag, "5d41402abc4b2a76b9719d911017c592");
        // `printf 5d41402abc4b2a76b9719d911017c5927d793037a0760186574b0282f2f435e7 | xxd -r -p | md5sum`
        assert_eq!(
            etag_of(&[part("hello"), part("world")]).expect("hexadecimal"),
            "065947336a2f2a95ba8899f3675c3be6-2"
        );
    }
}
