//! Objects that are copied: by naming their bytes, which are stored once, without reading
//! them.
//!
//! Whoever copies has opened the source, and so may read it; whether they may write where it
//! goes is asked as of any other object.  Only what is stored elsewhere, or a piece of
//! something, is read and stored.

use std::io;
use std::ops::Range;

use ::bytes::Bytes;
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt, stream};

use super::staged::{self, Written};
use super::{Error, Notes, Opened, Result, is_commit};
use crate::Engine;
use crate::access::Caller;
use crate::datastore::Reader;
use crate::datastore::staging::{self, Announced, Stored};

/// Copies an object to a key of the version that the caller is making.
pub async fn copy(
    engine: &Engine,
    caller: &Caller,
    source: Opened,
    (bucket, key): (&str, &str),
    notes: Notes,
) -> Result<Written> {
    if is_commit(key) {
        return Err(Error::Other(crate::Error::invalid(
            "nothing is copied to the end of a version: write an empty object there",
        )));
    }
    let place = (bucket, key);
    let Some(blob) = source.blob.filter(|_| !key.ends_with('/')) else {
        let (announced, pieces) = read(source, None).await?;
        return staged::put(engine, caller, place, notes, announced, pieces).await;
    };
    let stored = Stored {
        blob,
        size_bytes: source.object.size_bytes,
        etag: source.object.etag,
    };
    let (version, path) = staged::begun(engine, caller, bucket, key).await?;
    let place = (path, notes);
    let version = version.to_string();
    let file = staging::put_stored(engine, caller, &version, place, stored).await?;
    Ok(staged::written(file))
}

/// Copies an object, or a range of it, as a part of another; says what it is to be named by.
pub async fn copy_part(
    engine: &Engine,
    caller: &Caller,
    source: Opened,
    range: Option<Range<u64>>,
    place: (&str, &str),
    (id, number): (&str, u32),
) -> Result<String> {
    let is_whole = range
        .as_ref()
        .is_none_or(|range| *range == (0..source.object.size_bytes));
    let Some(blob) = source.blob.filter(|_| is_whole) else {
        let (announced, pieces) = read(source, range).await?;
        return staged::put_part(engine, caller, place, (id, number), announced, pieces).await;
    };
    let (version, _, id) = staged::upload(engine, caller, place, id).await?;
    let stored = Stored {
        blob,
        size_bytes: source.object.size_bytes,
        etag: source.object.etag,
    };
    let kept = staging::put_stored_part(engine, caller, &version, (id, number), &stored).await;
    Ok(kept.map_err(staged::no_upload)?.etag)
}

/// The bytes of an object, or a range of them.
async fn read(
    source: Opened,
    range: Option<Range<u64>>,
) -> Result<(Announced, BoxStream<'static, io::Result<Bytes>>)> {
    let range = range.unwrap_or(0..source.object.size_bytes);
    let announced = Announced {
        size_bytes: Some(range.end.saturating_sub(range.start)),
        ..Announced::default()
    };
    let pieces = match source.reader {
        None => stream::empty().boxed(),
        Some(Reader::Stored(reader)) => {
            let pieces = reader.stream_range(range);
            pieces.map_err(io::Error::other).boxed()
        }
        Some(Reader::Elsewhere(remote)) => {
            let pieces = remote.stream(Some(range)).await?;
            pieces.map_err(io::Error::other).boxed()
        }
    };
    Ok((announced, pieces))
}
