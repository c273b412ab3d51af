//! Handing large files over, open, instead of sending them.

use std::fs::{File, Metadata};
use std::io;
use std::sync::Arc;
use std::time::Duration;

use grid_api::blob::BlobsNamed;
use grid_api::client::{Client, Error};
use grid_api::error::{ErrorCode, ErrorDetail};
use grid_api::handover::{BATCH_FILES_MAX, FILE_BYTES_MIN, Giver, Offer, Told};
use grid_api::upload::{FileError, is_same, open};

use super::{Near, PAUSE, Read, TRIES_MAX, Work, is_better_cut};

/// Batches at the same time: while one waits for the disk of the server, others are read.
/// Higher: more memory at the server; lower: a processor waits.
const BATCHES: usize = 3;

/// Bytes of a batch, but for its last file.  Higher: more is read again when the server goes
/// away; lower: its disk is waited for more often.
const BATCH_BYTES: u64 = 256 << 20;

/// Bytes that the server has not read yet when it is given the next file.
/// Higher: at the end one batch is longer than the others.  Lower: it waits for the next file.
const AHEAD_BYTES: u64 = 8 << 20;

/// Why a batch is not kept.
enum Trouble {
    /// The server says so.
    Refused(ErrorDetail),
    /// There is nobody.
    Away,
    /// One of its files changed; the others can be handed over again.
    Changed,
    /// What came makes no sense.
    Strange(Error),
}

impl From<io::Error> for Trouble {
    fn from(_: io::Error) -> Self {
        Self::Away
    }
}

/// Hands over what there is to be handed over.  What is left when the server does not take
/// it, is left to be sent.
pub(super) async fn all(near: &Near, client: &Client, work: &Arc<Work>) -> Result<(), Error> {
    let (mut tries, mut pause) = (1, PAUSE);
    let mut offer = near.offer.clone();
    let mut is_fresh = false;
    while let Some(wanted) = offer {
        let Err(trouble) = at_once(work, &wanted).await else {
            return Ok(());
        };
        let pauses = match trouble {
            Trouble::Strange(error) => return Err(error),
            Trouble::Changed => false,
            // A ticket is too old after a while.
            Trouble::Refused(detail) if !is_fresh && detail.code == ErrorCode::Forbidden => false,
            // There is no room, or the server cannot read what this user can; or there is
            // another reason, which is said when they are sent.
            Trouble::Refused(_) => return Ok(()),
            // It may be another network, in which the socket cannot be reached.
            Trouble::Away if is_fresh && tries >= TRIES_MAX / 2 => return Ok(()),
            Trouble::Away => is_fresh,
        };
        if pauses {
            tokio::time::sleep(pause).await;
            tries += 1;
            pause = (pause * 2).max(Duration::from_millis(1));
        }
        offer = match Near::ask(client, &near.route).await {
            Ok(offer) => offer,
            Err(error) if error.is_transient() && tries < TRIES_MAX => {
                tokio::time::sleep(pause).await;
                tries += 1;
                pause *= 2;
                Some(wanted)
            }
            Err(error) => return Err(error),
        };
        is_fresh = true;
    }
    Ok(())
}

/// Several batches at once, one after the other; the first trouble of them.
async fn at_once(work: &Arc<Work>, offer: &Offer) -> Result<(), Trouble> {
    let threads: Vec<_> = (0..BATCHES)
        .map(|_| {
            let (work, offer) = (Arc::clone(work), offer.clone());
            tokio::task::spawn_blocking(move || batches(&work, &offer))
        })
        .collect();
    let mut result = Ok(());
    for thread in threads {
        let ended = thread.await.map_err(|error| io::Error::other(error).into());
        let ended = ended.and_then(|ended| ended);
        result = result.and(ended);
    }
    result
}

fn batches(work: &Work, offer: &Offer) -> Result<(), Trouble> {
    let mut giver = None;
    loop {
        let mut batch = Batch::default();
        let result = batch.run(work, offer, &mut giver);
        match result {
            Ok(Some(named)) => {
                let read = batch.read();
                work.settle(read, &named).map_err(Trouble::Strange)?;
            }
            Ok(None) => return Ok(()),
            Err(trouble) => return Err(batch.give_up(work, trouble)),
        }
    }
}

/// Files that are kept together.
#[derive(Default)]
struct Batch {
    files: Vec<(usize, File, Metadata)>,
    bytes: u64,
    /// Bytes that the server has not read yet.
    unread: u64,
}

impl Batch {
    /// Gives files until there are enough; nothing, when there are none.
    fn run(
        &mut self,
        work: &Work,
        offer: &Offer,
        giver: &mut Option<Giver>,
    ) -> Result<Option<BlobsNamed>, Trouble> {
        while self.bytes < BATCH_BYTES && self.files.len() < BATCH_FILES_MAX {
            let Some(number) = work.take_large() else {
                break;
            };
            let Some(path) = work.files.get(number).map(|file| &file.path) else {
                break;
            };
            let (file, metadata) = match open(path) {
                Ok(opened) => opened,
                Err(error) => {
                    work.end(number, error);
                    continue;
                }
            };
            let size = metadata.len();
            // It is another one than a moment ago: it is sent.
            if size < FILE_BYTES_MIN || is_better_cut(&metadata) {
                continue;
            }
            self.files.push((number, file, metadata));
            let giver = match giver {
                Some(giver) => giver,
                None => giver.insert(Giver::connect(offer)?.map_err(Trouble::Refused)?),
            };
            self.give(giver, size)?;
            while self.unread > AHEAD_BYTES {
                self.hear(giver, work)?;
            }
        }
        let (Some(giver), false) = (giver, self.files.is_empty()) else {
            return Ok(None);
        };
        giver.end()?;
        loop {
            if let Some(named) = self.hear(giver, work)? {
                return Ok(Some(named));
            }
        }
    }

    fn give(&mut self, giver: &mut Giver, size: u64) -> Result<(), Trouble> {
        let given = match self.files.last() {
            Some((_, file, _)) => giver.give(file, size),
            None => Ok(()),
        };
        self.unread += size;
        let Err(error) = given else { return Ok(()) };
        // It may have said why it hung up.
        loop {
            match giver.hear() {
                Ok(Told::Failed(detail)) => return Err(Trouble::Refused(detail)),
                Ok(_) => {}
                Err(_) => return Err(error.into()),
            }
        }
    }

    fn hear(&mut self, giver: &mut Giver, work: &Work) -> Result<Option<BlobsNamed>, Trouble> {
        match giver.hear()? {
            Told::Read(bytes) => {
                self.unread = self.unread.saturating_sub(bytes);
                work.progress.add(bytes);
                Ok(None)
            }
            Told::Named(named) => Ok(Some(named)),
            Told::Failed(detail) => Err(Trouble::Refused(detail)),
        }
    }

    /// What the files were, if they still are.
    fn read(self) -> Read {
        let files = self.files.into_iter().map(|(number, file, before)| {
            let read = match file.metadata() {
                Ok(after) if is_same(&before, &after) => Ok(before),
                Ok(_) => Err(FileError::Changed),
                Err(error) => Err(FileError::Read(error)),
            };
            (number, read)
        });
        Read {
            files: files.collect(),
            is_cut: false,
        }
    }

    /// Those that changed meanwhile were the trouble; the others are handed over again.
    fn give_up(self, work: &Work, trouble: Trouble) -> Trouble {
        let mut has_changed = false;
        for (number, read) in self.read().files {
            match read {
                Ok(_) => work.put_back_large(number),
                Err(error) => {
                    has_changed = true;
                    work.end(number, error);
                }
            }
        }
        match trouble {
            Trouble::Refused(_) if has_changed => Trouble::Changed,
            trouble => trouble,
        }
    }
}
