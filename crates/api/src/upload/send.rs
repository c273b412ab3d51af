//! Asking about batches, sending what is missing, announcing what is whole.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use grid_chunk::Recipe;
use grid_core::blob::BlobId;
use tokio::sync::mpsc;

use super::read::{Batch, Reader, Reading};
use super::{Door, FileError, FileToSend, SentFile, parsed};
use crate::blob::{BlobRecipe, RECIPES_BYTES_MAX, RECIPES_MAX};

/// Threads that read and hash.  Higher: more memory, and the machine is busy with nothing
/// else; lower: a fast network waits for hashes.
const READERS_MAX: usize = 4;

/// Batches that are sent at the same time.  Higher: more memory here and at the server;
/// lower: the line is idle while the server writes.
const SENDERS_MAX: usize = 2;

/// Batches that wait to be sent.
const WAITING_MAX: usize = 1;

/// Blobs that are asked about in one request.
const ASKED_MAX: usize = 5_000;

/// How often a file is sent of which something was collected in between.
const ROUNDS_MAX: usize = 3;

/// What became of one file.
type Outcome = Result<SentFile, FileError>;

/// A large file whose chunks have arrived.
struct Whole {
    number: usize,
    sent: SentFile,
    recipe: Recipe,
}

/// Sends files; what became of each stands in their order.  An error is one of the door:
/// what was sent before it stays.
///
/// `progress` hears of bytes as they are read.
pub async fn send<D: Door>(
    door: &D,
    files: Vec<FileToSend>,
    progress: impl Fn(u64) + Send + Sync + 'static,
) -> Result<Vec<Outcome>, D::Error> {
    let mut outcomes: Vec<Option<Outcome>> = files.iter().map(|_| None).collect();
    let mut wanted = unknown(door, &files, &mut outcomes).await?;
    let (files, progress) = (Arc::new(files), Arc::new(progress));
    for _ in 0..ROUNDS_MAX {
        if wanted.is_empty() {
            break;
        }
        let round = Round {
            door,
            outcomes: &mut outcomes,
            again: Vec::new(),
            whole: Vec::new(),
        };
        wanted = round.run(&files, wanted, &progress).await?;
    }
    let end = |outcome: Option<Outcome>| outcome.unwrap_or(Err(FileError::NotKept));
    Ok(outcomes.into_iter().map(end).collect())
}

/// The files that have to be read.
async fn unknown<D: Door>(
    door: &D,
    files: &[FileToSend],
    outcomes: &mut [Option<Outcome>],
) -> Result<Vec<usize>, D::Error> {
    let mut ids: Vec<BlobId> = files.iter().filter_map(|file| file.known).collect();
    ids.sort_unstable();
    ids.dedup();
    let mut missing: HashSet<BlobId> = HashSet::new();
    for some in ids.chunks(ASKED_MAX) {
        missing.extend(door.missing(some.to_vec()).await?);
    }
    let mut unknown = Vec::new();
    for (number, (file, outcome)) in files.iter().zip(outcomes).enumerate() {
        match file.known {
            Some(blob) if !missing.contains(&blob) => {
                let metadata = None;
                *outcome = Some(Ok(SentFile { blob, metadata }));
            }
            _ => unknown.push(number),
        }
    }
    Ok(unknown)
}

struct Round<'a, D: Door> {
    door: &'a D,
    outcomes: &'a mut [Option<Outcome>],
    /// Files that have to be sent once more.
    again: Vec<usize>,
    whole: Vec<Whole>,
}

impl<D: Door> Round<'_, D> {
    /// Gives the files that have to be sent once more.
    async fn run(
        mut self,
        files: &Arc<Vec<FileToSend>>,
        wanted: Vec<usize>,
        progress: &Arc<impl Fn(u64) + Send + Sync + 'static>,
    ) -> Result<Vec<usize>, D::Error> {
        let (batches, mut arriving) = mpsc::channel(WAITING_MAX);
        read_all(files, wanted, &batches, progress);
        drop(batches);
        let mut sending = FuturesUnordered::new();
        let mut is_over = false;
        while !is_over || !sending.is_empty() {
            tokio::select! {
                batch = arriving.recv(), if !is_over && sending.len() < SENDERS_MAX => match batch {
                    Some(batch) => sending.push(send_batch(self.door, batch)),
                    None => is_over = true,
                },
                Some(sent) = sending.next(), if !sending.is_empty() => self.arrived(sent?),
            }
            self.announce(false).await?;
        }
        self.announce(true).await?;
        Ok(self.again)
    }

    /// These files have one batch less on its way.
    fn arrived(&mut self, files: Vec<Arc<Reading>>) {
        for file in files {
            let end = file.with(|state| {
                state.batches -= 1;
                (state.batches == 0).then(|| state.end.take()).flatten()
            });
            let outcome = match end {
                Some(Ok((sent, Some(recipe)))) => {
                    let number = file.number;
                    self.whole.push(Whole {
                        number,
                        sent,
                        recipe,
                    });
                    continue;
                }
                Some(Ok((sent, None))) => Ok(sent),
                Some(Err(error)) => Err(error),
                None => continue,
            };
            if let Some(place) = self.outcomes.get_mut(file.number) {
                *place = Some(outcome);
            }
        }
    }

    /// Announces what is whole: when there is enough of it, or at the end.
    async fn announce(&mut self, is_end: bool) -> Result<(), D::Error> {
        while self.whole.len() >= RECIPES_MAX / 10 || is_end && !self.whole.is_empty() {
            let (mut some, mut bytes) = (Vec::new(), 0);
            while let Some(whole) = self.whole.pop() {
                let recipe = BlobRecipe::new(whole.sent.blob, &whole.recipe);
                bytes += recipe.chunks.len() + 200;
                some.push((whole, recipe));
                // One more has room for sure.
                if bytes > RECIPES_BYTES_MAX / 2 || some.len() >= RECIPES_MAX {
                    break;
                }
            }
            let recipes = some.iter().map(|(_, recipe)| recipe.clone()).collect();
            let answer = self.door.announce(recipes).await?;
            let stored: HashSet<BlobId> = parsed(&answer.stored).into_iter().collect();
            for (whole, _) in some {
                if !stored.contains(&whole.sent.blob) {
                    self.again.push(whole.number);
                } else if let Some(place) = self.outcomes.get_mut(whole.number) {
                    *place = Some(Ok(whole.sent));
                }
            }
        }
        Ok(())
    }
}

fn read_all(
    files: &Arc<Vec<FileToSend>>,
    wanted: Vec<usize>,
    batches: &mpsc::Sender<Batch>,
    progress: &Arc<impl Fn(u64) + Send + Sync + 'static>,
) {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let readers = READERS_MAX.min(cores).min(wanted.len());
    let (wanted, next) = (Arc::new(wanted), Arc::new(AtomicUsize::new(0)));
    for _ in 0..readers {
        let (files, wanted, next) = (Arc::clone(files), Arc::clone(&wanted), Arc::clone(&next));
        let (batches, progress) = (batches.clone(), Arc::clone(progress));
        tokio::task::spawn_blocking(move || {
            let reader = Reader {
                files: &files,
                wanted: &wanted,
                next: &next,
                batches,
                batch: Batch::default(),
                progress: &*progress,
            };
            // Whoever wanted it has heard of something worse.
            let _ = reader.run();
        });
    }
}

/// Sends what is missing of a batch; gives the files that had something in it.
async fn send_batch<D: Door>(door: &D, batch: Batch) -> Result<Vec<Arc<Reading>>, D::Error> {
    if !batch.records.is_empty() {
        let ids = batch.records.iter().map(|(id, _)| *id).collect();
        let mut missing: HashSet<BlobId> = door.missing(ids).await?.into_iter().collect();
        let mut records = batch.records;
        // What is there twice is sent once.
        records.retain(|(id, _)| missing.remove(id));
        if !records.is_empty() {
            door.put(records).await?;
        }
    }
    Ok(batch.files)
}
