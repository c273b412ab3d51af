//! Versions that the server makes of an archive: one that it fetches, or one that is sent
//! in a single stream.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use futures::{Stream, StreamExt};
use grid_core::datastore::SourceKind;
use grid_core::id::DatastoreVersionId;
use grid_store::db;
use grid_store::db::datastore_version::Content;
use tokio_util::io::{StreamReader, SyncIoBridge};

use super::filing::Filing;
use super::pace::{Pace, TooSlow};
use super::unpack::{Progress, unpack};
use super::upload::{require_uploading, upload};
use super::work::{self, Fault};
use super::{Version, http, one};
use crate::Engine;
use crate::access::Caller;
use crate::error::{Error, Result};
use crate::receiving::{Sender, WAIT_MAX};

/// How often it is written down how far a version is.
const NOTE_EVERY: Duration = Duration::from_secs(2);

/// How long one archive may take, and the copying of a bucket until it waits for its next turn.
/// Higher: the first files of an archive could be collected before the last is there; lower:
/// large ones on slow lines fail.
pub(super) const TIME_MAX: Duration = Duration::from_secs(12 * 60 * 60);

/// Entries that are filed at a time.
const ENTRIES_AT_ONCE: usize = 10_000;

/// Fetches the archive of a version, and takes it apart.
pub(super) async fn fetched(
    engine: &Engine,
    version: &db::datastore_version::Version,
) -> Result<Content, Fault> {
    let is_private_allowed = engine.inner.fetches_private.load(Ordering::Relaxed);
    let response = http::get(&version.source, is_private_allowed).await?;
    let total = response.content_length();
    let pace = Arc::new(Pace::default());
    let body = paced(response.bytes_stream(), Arc::clone(&pace));
    let taken = taken_apart(engine, version.id, body, total).await;
    taken.map_err(|fault| match fault {
        // Whatever became of that on its way through what unpacks.
        _ if pace.is_too_slow() => slow("the address is too slow"),
        fault => fault,
    })
}

/// What is said of a source that is too slow.
pub(super) fn slow(what: &str) -> Fault {
    Fault::Later(Error::Unavailable(format!("{what}: {TooSlow}")))
}

/// What comes of an address, for as long as it comes fast enough.
fn paced(
    pieces: impl Stream<Item = reqwest::Result<Bytes>> + Send + Unpin + 'static,
    pace: Arc<Pace>,
) -> impl Stream<Item = io::Result<Bytes>> + Send + 'static {
    futures::stream::unfold((pieces, pace), |(mut pieces, pace)| async move {
        let piece = match pace.wait(pieces.next()).await? {
            Ok(piece) => pace
                .came(piece.len() as u64)
                .map(|()| piece)
                .map_err(|slow| io::Error::new(io::ErrorKind::TimedOut, slow)),
            Err(error) => Err(io::Error::new(io::ErrorKind::ConnectionReset, error)),
        };
        Some((piece, (pieces, pace)))
    })
}

/// Takes an archive apart as it comes, and files what was in it.
async fn taken_apart(
    engine: &Engine,
    id: DatastoreVersionId,
    body: impl Stream<Item = io::Result<Bytes>> + Send + 'static,
    total: Option<u64>,
) -> Result<Content, Fault> {
    let progress = Arc::new(Progress::default());
    let (blobs, scratch) = (engine.inner.blobs.clone(), engine.inner.scratch.clone());
    let seen = Arc::clone(&progress);
    let reader = SyncIoBridge::new(StreamReader::new(Box::pin(body)));
    let unpacking = tokio::task::spawn_blocking(move || unpack(reader, &scratch, &blobs, &seen));
    // Whoever is dropped here has nobody wait for the rest.
    let _given_up = GiveUp(Arc::clone(&progress));
    let noting = note(engine, id, &progress, total);
    let mut unpacked = tokio::select! {
        unpacked = unpacking => unpacked.map_err(|error| Fault::Ours(Error::internal(error)))??,
        fault = noting => return Err(fault),
        () = tokio::time::sleep(TIME_MAX) => {
            let hours = TIME_MAX.as_secs() / 3_600;
            return Err(Fault::Data(format!(
                "it took longer than {hours} hours: divide it, or unpack it and create the \
                 datastore from the folder"
            )));
        }
    };
    let mut filing = Filing::new(engine);
    loop {
        let part = unpacked.take(ENTRIES_AT_ONCE);
        if part.is_empty() {
            return filing.finish(unpacked.new_bytes).await;
        }
        filing.add(part).await?;
    }
}

struct GiveUp(Arc<Progress>);

impl Drop for GiveUp {
    fn drop(&mut self) {
        self.0.is_given_up.store(true, Ordering::Relaxed);
    }
}

/// Writes down how far it is, until the version is over for other reasons.
pub(super) async fn note(
    engine: &Engine,
    id: DatastoreVersionId,
    progress: &Progress,
    total: Option<u64>,
) -> Fault {
    loop {
        tokio::time::sleep(NOTE_EVERY).await;
        let received = progress.received.load(Ordering::Relaxed);
        if received > 0 {
            engine.inner.datastores.goes_on(id);
        }
        let known = progress.total.load(Ordering::Relaxed);
        let total = total.or((known > 0).then_some(known));
        let now = engine.inner.clock.now();
        let noted = async {
            let mut tx = engine.inner.db.write().await?;
            let version = db::datastore_version::by_id(&mut tx, id).await?;
            let is_deleted = version.is_none_or(|version| version.deleted.is_some());
            let is_open = db::datastore_version::advance(&mut tx, id, received, total, now).await?;
            tx.commit().await?;
            Ok::<_, db::Error>(is_open && !is_deleted)
        };
        match noted.await {
            Ok(true) => {}
            Ok(false) => return Fault::Data("it was deleted meanwhile".to_owned()),
            Err(error) => tracing::warn!(
                error = &error as &dyn std::error::Error,
                "the progress of a datastore version is not written down"
            ),
        }
    }
}

/// Takes the archive of a version that was begun as a stream.  Cut in the middle, the
/// version has failed: what was in the pipe is gone.
pub async fn receive(
    engine: &Engine,
    caller: &Caller,
    text: &str,
    body: impl Stream<Item = io::Result<Bytes>> + Send + 'static,
) -> Result<Version> {
    let found = upload(engine, caller, text).await?;
    require_uploading(&found)?;
    if found.version.source_kind != SourceKind::Stream {
        return Err(Error::invalid(format!(
            "{} is not sent as one stream but in parts",
            found.called()
        )));
    }
    let id = found.version.id;
    // It takes a thread and its memory for as long as it comes.
    let sender = Sender::User(caller.user.id);
    let _place = engine.inner.receiving.take(sender, WAIT_MAX).await?;
    let _busy = work::busy(engine, id)
        .ok_or_else(|| Error::conflict(format!("{} is being sent already", found.called())))?;
    let content = match taken_apart(engine, id, body, None).await {
        Ok(content) => content,
        Err(fault) => {
            let error = match fault {
                Fault::Data(message) => Error::invalid(message),
                Fault::Incomplete => {
                    Error::conflict("bytes of it went away meanwhile: send it again")
                }
                Fault::Ours(Error::Unavailable(message)) => {
                    Error::Unavailable(format!("{message}; send it again"))
                }
                Fault::Ours(error) | Fault::Later(error) => error,
            };
            work::give_up(engine, &found.version, &error.to_string()).await?;
            return Err(error);
        }
    };
    let now = engine.inner.clock.now();
    let event = caller.did(
        "datastore.commit",
        Some(found.datastore.team),
        found.thing(&caller.user.username),
    );
    let mut tx = engine.inner.db.write().await?;
    let is_open = db::datastore_version::set_processing(&mut tx, id, None, now).await?
        && db::datastore_version::finish(&mut tx, id, &content, now).await?;
    if !is_open {
        return Err(Error::conflict(format!(
            "{} was ended meanwhile",
            found.called()
        )));
    }
    event.write(engine, &mut tx).await?;
    tx.commit().await?;
    engine.inner.watch.changed([found.datastore.team]);
    let mut tx = engine.inner.db.read().await?;
    let row = db::datastore_version::by_id(&mut tx, id).await?;
    let row = row.ok_or_else(|| Error::not_found("the version is gone"))?;
    one(&mut tx, caller, row).await
}

impl Engine {
    /// Whether data is fetched from addresses inside: of this machine, of its network.
    pub fn fetch_private(&self, is_allowed: bool) {
        self.inner
            .fetches_private
            .store(is_allowed, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn an_address_that_trickles_is_given_up_and_told_of() {
        for (bytes, expected) in [(1, false), (100 << 10, true)] {
            let pieces = futures::stream::unfold(0, move |sent| async move {
                // The clock of this test moves when nobody has anything to do.
                let pause =
                    tokio::time::timeout(Duration::from_secs(5), std::future::pending::<()>());
                assert!(pause.await.is_err());
                (sent < 1_000).then(|| (Ok(Bytes::from(vec![0; bytes])), sent + 1))
            });
            let pace = Arc::new(Pace::default());
            let body = paced(Box::pin(pieces), Arc::clone(&pace));
            let came: Vec<io::Result<Bytes>> = body.collect().await;
            assert_eq!(came.iter().all(Result::is_ok), expected);
            assert_eq!(pace.is_too_slow(), !expected);
        }
        let Fault::Later(error) = slow("the address is too slow") else {
            panic!("it is tried again")
        };
        let said = error.to_string();
        assert!(
            said.contains("less than 16 KiB in a second, over 5 minutes"),
            "{said}"
        );
    }
}
