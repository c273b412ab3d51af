//! The one task that writes down what changes nothing: for all who wait at once, and a
//! while later for whom nobody waits.

use std::sync::Weak;
use std::time::Duration;

use grid_store::db;
use grid_store::db::audit::Entry;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use crate::Inner;
use crate::error::{Error, Result};

/// Notes that may wait to be written.  Higher: more memory when the disk is slow; lower:
/// refusals wait in line sooner.
const QUEUE_MAX: usize = 4_096;

/// Requests whose notes go into one transaction.
const BATCH_MAX: usize = 512;

/// How long a note waits for which nobody waits.  Higher: more is lost when the server is
/// killed; lower: who asks for what is not theirs can feel that something is written.
const NOTE_WAIT: Duration = Duration::from_millis(500);

/// What is to be written, and who waits for it.
struct Request {
    entries: Vec<Entry>,
    reply: Option<oneshot::Sender<Result<()>>>,
}

/// The way to the one task that writes what changes nothing.
pub(crate) struct Auditor(mpsc::Sender<Request>);

/// The other end: hand it to [`run`].
pub(crate) struct Requests(mpsc::Receiver<Request>);

impl Auditor {
    pub(crate) fn new() -> (Self, Requests) {
        let (queue, requests) = mpsc::channel(QUEUE_MAX);
        (Self(queue), Requests(requests))
    }

    /// Has it written within [`NOTE_WAIT`], if there is room.
    pub(super) fn note(&self, entries: Vec<Entry>) {
        let request = Request {
            entries,
            reply: None,
        };
        if self.0.try_send(request).is_err() {
            tracing::warn!("the audit log is behind: some refusals are not in it");
        }
    }

    /// Has it written now, with all that waits to be.
    pub(super) async fn write(&self, entries: Vec<Entry>) -> Result<()> {
        let gone = || Error::Unavailable("the server is shutting down; try again".to_owned());
        let (reply, answer) = oneshot::channel();
        let request = Request {
            entries,
            reply: Some(reply),
        };
        self.0.send(request).await.map_err(|_| gone())?;
        answer.await.map_err(|_| gone())?
    }
}

/// Writes until the last engine is gone.
pub(crate) async fn run(engine: Weak<Inner>, mut requests: Requests) {
    let mut taken = Vec::with_capacity(BATCH_MAX);
    let mut due = None;
    loop {
        let room = BATCH_MAX - taken.len();
        let received = match due {
            None => requests.0.recv_many(&mut taken, room).await,
            Some(at) => {
                let more = requests.0.recv_many(&mut taken, room);
                // In time, or everything that waits is written now.
                tokio::time::timeout_at(at, more).await.unwrap_or(1)
            }
        };
        if received == 0 && taken.is_empty() {
            return;
        }
        let waits_until = *due.get_or_insert_with(|| Instant::now() + NOTE_WAIT);
        let is_urgent = taken.iter().any(|request| request.reply.is_some());
        let may_wait = received > 0 && taken.len() < BATCH_MAX && Instant::now() < waits_until;
        if may_wait && !is_urgent {
            continue;
        }
        due = None;
        // Not held while waiting, or the queue would never close.
        let Some(inner) = engine.upgrade() else {
            return;
        };
        let written = write_all(&inner, &taken).await;
        answer(&mut taken, &written);
    }
}

/// Tells those who wait what came of it.
fn answer(taken: &mut Vec<Request>, written: &Result<()>) {
    if let Err(error) = written {
        tracing::error!(
            error = error as &dyn std::error::Error,
            "the audit log could not be written"
        );
    }
    for request in taken.drain(..) {
        let Some(reply) = request.reply else { continue };
        let answer = match written {
            Ok(()) => Ok(()),
            Err(Error::Full(message)) => Err(Error::Full(message.clone())),
            Err(_) => Err(Error::Unavailable(
                "the audit log cannot be written now; try again".to_owned(),
            )),
        };
        // Whoever asked may have gone away; it is written all the same.
        let _ = reply.send(answer);
    }
}

async fn write_all(inner: &Inner, requests: &[Request]) -> Result<()> {
    let entries: Vec<Entry> = requests
        .iter()
        .flat_map(|request| request.entries.iter().cloned())
        .collect();
    if entries.is_empty() {
        return Ok(());
    }
    let mut tx = inner.db.write().await?;
    db::audit::insert_many(&mut tx, &entries).await?;
    Ok(tx.commit().await?)
}
