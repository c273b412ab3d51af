//! Files that come as they are, from who is on the server's own machine.
//!
//! Over a network whoever sends a file cuts it, so that only what is new travels.  Within a
//! machine that saves nothing: the server cuts and hashes what comes anyway.  Large files need
//! not even be sent: they are handed over open ([`grid_api::handover`]).

use std::collections::HashSet;
use std::fs::File;
use std::mem;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use grid_api::blob::BLOB_BYTES_MAX;
use grid_core::blob::BlobId;
use grid_core::id::TeamId;
use grid_store::blobs::{BlobsWriter, Named};
use tokio::time::Instant;

use crate::Engine;
use crate::access::Caller;
use crate::error::{Error, Result};
use crate::receiving::{Place, Sender, WAIT_MAX};

/// Files under way, one after the other: feed it the body as it comes.
///
/// They are there once it was ended.  Of what is cut off small files and chunks are left,
/// which nobody can name before they are sent again.
pub struct Files {
    engine: Engine,
    team: Option<TeamId>,
    writer: BlobsWriter,
    _place: Place,
}

impl Files {
    /// Begins when it may, for the team in which the caller makes things now.
    pub async fn begin(engine: &Engine, caller: &Caller) -> Result<Self> {
        let sender = Sender::User(caller.user.id);
        let place = engine.inner.receiving.take(sender, WAIT_MAX).await?;
        Ok(Self {
            engine: engine.clone(),
            team: caller.current().map(|(team, _)| team.id),
            writer: engine.inner.blobs.stream_writer(BLOB_BYTES_MAX),
            _place: place,
        })
    }

    /// Takes the next piece of the body.
    pub async fn push(&mut self, piece: &[u8]) -> Result<()> {
        Ok(self.writer.write(piece).await?)
    }

    /// Takes a file that was handed over: the first `length` bytes of it.  `tell` hears how
    /// many were read each time, and says whether anybody still waits for the end.
    pub async fn take(
        &mut self,
        file: File,
        length: u64,
        tell: impl Fn(u64) -> bool + Send + 'static,
    ) -> Result<()> {
        if self.writer.take(file, length, tell).await? {
            return Ok(());
        }
        Err(Error::conflict(
            "a file became shorter while it was read, or nobody waited for it any more",
        ))
    }

    /// The body is over: says what it was.
    pub async fn finish(self) -> Result<Named> {
        let Some(named) = self.writer.finish().await? else {
            return Err(Error::invalid(
                "the upload ends in the middle of a file; send it again",
            ));
        };
        if let Some(team) = self.team {
            self.engine.inner.datastores.sent.note(team, &named.blobs);
        }
        Ok(named)
    }
}

/// Files that are remembered of each of two generations, at some 100 bytes each.
/// Higher: more memory while much is uploaded.  Lower: of many uploads at once files have
/// to be sent again before they can be named.
const LATELY_MAX: usize = 100_000;

/// How long they are remembered for certain; whoever sends a part of a list names its files
/// right after they were sent.
const LATELY: Duration = Duration::from_secs(10 * 60);

/// Which files a team has sent just now, and so may name.
///
/// They are not noted one by one as what travels over a network is
/// ([`grid_store::db::team_blob`]): once a version names them it shows that they were sent,
/// and what was forgotten is asked for again, which costs nothing but reading it.
#[derive(Default)]
pub(crate) struct SentLately {
    kept: Mutex<Generations>,
}

#[derive(Default)]
struct Generations {
    now: HashSet<(TeamId, BlobId)>,
    before: HashSet<(TeamId, BlobId)>,
    turned: Option<Instant>,
}

impl SentLately {
    fn lock(&self) -> MutexGuard<'_, Generations> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note(&self, team: TeamId, blobs: &[BlobId]) {
        let mut kept = self.lock();
        for blob in blobs {
            if kept.now.len() >= LATELY_MAX {
                kept.turn();
            }
            kept.now.insert((team, *blob));
        }
    }

    /// Takes those away that a team has sent.
    pub(crate) fn retain_unsent(&self, team: TeamId, blobs: &mut Vec<BlobId>) {
        let kept = self.lock();
        blobs.retain(|blob| {
            let key = (team, *blob);
            !kept.now.contains(&key) && !kept.before.contains(&key)
        });
    }

    /// Forgets what is old; to be called now and then.
    pub(crate) fn tidy(&self) {
        let mut kept = self.lock();
        let is_over = kept.turned.is_none_or(|turned| turned.elapsed() > LATELY);
        if is_over {
            kept.turn();
        }
    }
}

impl Generations {
    fn turn(&mut self) {
        self.before = mem::take(&mut self.now);
        self.turned = Some(Instant::now());
    }
}
