//! Sending the parts of a version, from wherever it was left.

use std::collections::HashSet;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::Result;
use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use grid_api::client::{Client, segment};
use grid_api::datastore::{
    DatastoreCommit, DatastoreOffered, DatastoreOffersResponse, DatastorePartView,
    DatastorePartsQuery, DatastorePartsResponse, DatastoreResponse, DatastoreView,
};
use grid_core::blob::BlobId;
use grid_core::datastore::State;
use grid_manifest::write_offers;

use crate::capture::data::{Block, Data, Names};
use crate::error::Problem;
use crate::progress::Progress;

/// How often a part is offered again when its files change or the connection breaks in the
/// middle.  Higher: a file that is always written to is sent for ever; lower: one save makes
/// an upload fail.
const ROUNDS_MAX: usize = 6;

/// The pause before the first repetition; each further one is twice as long.
const PAUSE: Duration = Duration::from_millis(500);

/// Parts that are offered at the same time.  Higher: more memory here and at the server;
/// lower: one waits for the other.
const OFFERS_MAX: usize = 3;

/// Entries and blocks that are offered together.  Higher: more memory here and at the server;
/// lower: more requests.
const OFFER_ENTRIES: usize = 8_192;
const OFFER_BLOCKS: usize = 32;

/// How often it is asked how far the server is.
const POLL: Duration = Duration::from_secs(1);

/// How often the server may not answer while it is asked, before that is said.
const SILENT_MAX: u32 = 60;

/// An upload that has ended.
pub(super) struct Sent {
    pub(super) view: DatastoreView,
    /// Files that changed after they were read.
    pub(super) changed: Vec<String>,
    /// What has a time that cannot be kept.
    pub(super) untimely: Vec<String>,
}

/// Sends everything that the server does not have, and ends the upload.
pub(super) async fn send(
    client: &Client,
    id: &str,
    mut data: Data,
    progress: &Progress,
) -> Result<Sent> {
    let route = format!("/datastores/{}", segment(id));
    let upload = Upload {
        client,
        kept: kept(client, &route).await?,
        progress,
        route: &route,
        knows_before: AtomicBool::new(true),
    };
    let nothing = HashSet::new();
    // While the files of some blocks are sent, the lists of those before are taken.
    let (mut offers, mut answers) = (FuturesUnordered::new(), Vec::new());
    let mut parts = 0;
    loop {
        let mut group = beside(data.next(), &mut offers, &mut answers).await?;
        if group.is_empty() {
            break;
        }
        parts += group.len();
        progress.add(group.iter().map(Block::known_bytes).sum());
        let mut sent_bytes = 0;
        let bring = data.bring(client, &mut group, &nothing, progress, &mut sent_bytes);
        match beside(bring, &mut offers, &mut answers).await {
            Ok(()) => {
                for blocks in requests(group) {
                    if let Some(names) = upload.is_kept(&blocks) {
                        data.remember(&blocks);
                        data.name(names);
                        continue;
                    }
                    if offers.len() >= OFFERS_MAX {
                        answers.extend(offers.next().await);
                    }
                    let new_bytes = take_of(&mut sent_bytes, &blocks);
                    let blocks = Arc::new(blocks);
                    offers.push(upload.offer(Arc::clone(&blocks), new_bytes));
                    // While others write down what is sent.
                    data.remember(&blocks);
                }
            }
            Err(error) if Data::is_changed(&error) => {
                data.look_again(&mut group)?;
                for mut blocks in requests(group) {
                    let new_bytes = take_of(&mut sent_bytes, &blocks);
                    let names = upload
                        .insist(&mut data, &mut blocks, HashSet::new(), new_bytes)
                        .await?;
                    data.remember(&blocks);
                    data.name(names);
                }
            }
            Err(error) => return Err(error),
        }
        for offered in answers.drain(..) {
            upload.taken(&mut data, offered).await?;
        }
    }
    while let Some(offered) = offers.next().await {
        upload.taken(&mut data, offered).await?;
    }
    drop(offers);
    finish(client, &route, parts, data).await
}

/// Ends an upload, and looks meanwhile at what was read.
async fn finish(client: &Client, route: &str, parts: usize, mut data: Data) -> Result<Sent> {
    let end = end(client, route, parts);
    // While the server files what it has.
    let look = async { tokio::task::block_in_place(|| data.changed()) };
    let (ended, changed) = futures::join!(end, look);
    let view = ended?;
    let untimely = data.untimely();
    tokio::task::block_in_place(|| data.finish());
    Ok(Sent {
        view,
        changed,
        untimely,
    })
}

/// Ends an upload, and waits until it is over.
async fn end(client: &Client, route: &str, parts: usize) -> Result<DatastoreView> {
    let commit = DatastoreCommit {
        parts: Some(u32::try_from(parts).unwrap_or(u32::MAX)),
    };
    let route_commit = format!("{route}/commit");
    let mut answer: DatastoreResponse = persist(|| client.post(&route_commit, &commit)).await?;
    while answer.datastore.state == State::Processing {
        tokio::time::sleep(POLL).await;
        answer = persist(|| client.get(route, &())).await?;
    }
    Ok(answer.datastore)
}

/// Works on something while offers are taken.
async fn beside<T>(
    work: impl Future<Output = T>,
    offers: &mut FuturesUnordered<impl Future<Output = Offered>>,
    answers: &mut Vec<Offered>,
) -> T {
    let mut work = pin!(work);
    loop {
        tokio::select! {
            done = &mut work => return done,
            Some(offered) = offers.next(), if !offers.is_empty() => answers.push(offered),
        }
    }
}

/// Blocks as they are offered together.
fn requests(blocks: Vec<Block>) -> Vec<Vec<Block>> {
    let mut requests: Vec<Vec<Block>> = Vec::new();
    let mut entries = 0;
    for block in blocks {
        entries += block.len();
        match requests.last_mut() {
            Some(last) if entries <= OFFER_ENTRIES && last.len() < OFFER_BLOCKS => last.push(block),
            _ => {
                entries = block.len();
                requests.push(vec![block]);
            }
        }
    }
    requests
}

/// What of the bytes that were sent is of these blocks, as nearly as that is known: they are
/// counted for the first that are large enough.
fn take_of(sent_bytes: &mut u64, blocks: &[Block]) -> u64 {
    let read = blocks.iter().map(Block::read_bytes).sum::<u64>();
    let taken = read.min(*sent_bytes);
    *sent_bytes -= taken;
    taken
}

/// Blocks that were offered, and what was answered.
struct Offered {
    blocks: Arc<Vec<Block>>,
    /// Bytes of them that had to be sent before: when they are offered again, these count
    /// once more, for an offer replaces the one before.
    new_bytes: u64,
    answer: Result<DatastoreOffersResponse>,
}

/// An upload whose parts are sent.
struct Upload<'a> {
    client: &'a Client,
    route: &'a str,
    /// The parts that the server has, by number.
    kept: Vec<Option<DatastorePartView>>,
    progress: &'a Progress,
    /// Whether the server knew any of the blocks that were named.
    knows_before: AtomicBool,
}

impl Upload<'_> {
    /// What blocks are called that the server has already.
    fn is_kept(&self, blocks: &[Block]) -> Option<Names> {
        let mut names = Names::new();
        for block in blocks {
            let kept = self.kept.get(block.number()).and_then(Option::as_ref)?;
            if kept.digest != block.digest().to_string() {
                return None;
            }
            let name = kept.block.as_deref().and_then(|name| name.parse().ok());
            names.extend(name.map(|name| (block.number(), name)));
        }
        Some(names)
    }

    /// Offers blocks; that they are written down begins at once.
    fn offer(&self, blocks: Arc<Vec<Block>>, new_bytes: u64) -> impl Future<Output = Offered> {
        let from = blocks.first().map_or(0, Block::number);
        let knows_before = self.knows_before.load(Ordering::Relaxed);
        let put = format!("{}/parts?from={from}&sent_bytes={new_bytes}", self.route);
        let client = self.client;
        let to_write = Arc::clone(&blocks);
        let written = tokio::task::spawn_blocking(move || {
            let offers = to_write.iter().map(|block| block.offer(knows_before));
            write_offers(&offers.collect::<Vec<_>>())
        });
        async move {
            let answer = match written.await {
                Ok(body) => client.put_bytes(&put, body).await.map_err(Into::into),
                Err(error) => Err(error.into()),
            };
            Offered {
                blocks,
                new_bytes,
                answer,
            }
        }
    }

    /// Blocks were offered: what is not kept is offered again.
    async fn taken(&self, data: &mut Data, offered: Offered) -> Result<()> {
        let Offered {
            mut blocks,
            new_bytes,
            answer,
        } = offered;
        // Nobody else has them any more.
        let Some(blocks) = Arc::get_mut(&mut blocks) else {
            return answer.map(drop);
        };
        let names = match answer.as_ref().map(|answer| self.read(blocks, answer)) {
            Ok(Answer::Kept(names)) => names,
            Ok(Answer::Missing(missing)) => self.insist(data, blocks, missing, new_bytes).await?,
            Err(_) => self.insist(data, blocks, HashSet::new(), new_bytes).await?,
        };
        data.name(names);
        Ok(())
    }

    fn read(&self, blocks: &mut [Block], answer: &DatastoreOffersResponse) -> Answer {
        let parts = &answer.parts;
        if parts.iter().all(|part| part.unknown) {
            self.knows_before.store(false, Ordering::Relaxed);
        }
        let is_kept = |part: &DatastoreOffered| !part.unknown && part.missing.is_empty();
        if parts.len() == blocks.len() && parts.iter().all(is_kept) {
            let names = blocks.iter().zip(parts).filter_map(|(block, part)| {
                Some((block.number(), part.block.as_deref()?.parse().ok()?))
            });
            return Answer::Kept(names.collect());
        }
        for (block, part) in blocks.iter_mut().zip(parts) {
            if part.unknown {
                block.forget_before();
            }
        }
        let missing = parts.iter().flat_map(|part| &part.missing);
        Answer::Missing(missing.filter_map(|name| name.parse().ok()).collect())
    }

    /// Offers blocks until the server keeps them: files change, and lines break.  `new_bytes`
    /// of them were sent before.
    async fn insist(
        &self,
        data: &mut Data,
        blocks: &mut Vec<Block>,
        mut missing: HashSet<BlobId>,
        mut new_bytes: u64,
    ) -> Result<Names> {
        let mut pause = PAUSE;
        for round in 1.. {
            let brought = data
                .bring(self.client, blocks, &missing, self.progress, &mut new_bytes)
                .await;
            // What sends files has tried for long already when a line breaks.
            let (answer, is_passing) = match brought {
                Ok(()) => {
                    let taken = Arc::new(std::mem::take(blocks));
                    let offered = self.offer(taken, new_bytes).await;
                    *blocks = Arc::into_inner(offered.blocks).unwrap_or_default();
                    let is_passing = offered.answer.as_ref().err().is_some_and(is_transient);
                    (offered.answer, is_passing)
                }
                Err(error) => {
                    let is_passing = Data::is_changed(&error);
                    (Err(error), is_passing)
                }
            };
            match answer.map(|answer| self.read(blocks, &answer)) {
                Ok(Answer::Kept(names)) => return Ok(names),
                Ok(Answer::Missing(_)) if round >= ROUNDS_MAX => break,
                Ok(Answer::Missing(lacking)) => missing = lacking,
                Err(_) if is_passing && round < ROUNDS_MAX => {
                    tokio::time::sleep(pause).await;
                    pause *= 2;
                    data.look_again(blocks)?;
                }
                Err(error) => return Err(error),
            }
        }
        Err(restless().into())
    }
}

/// What became of blocks that were offered.
enum Answer {
    Kept(Names),
    /// These are to be sent, or some are to be offered otherwise.
    Missing(HashSet<BlobId>),
}

fn is_transient(error: &anyhow::Error) -> bool {
    error
        .downcast_ref::<grid_api::client::Error>()
        .is_some_and(grid_api::client::Error::is_transient)
}

fn restless() -> Problem {
    Problem::new("the files could not be sent: they change again and again")
        .hint("do not write into the folder meanwhile; `grid datastore resume` goes on")
}

/// The parts that the server has, by number.
async fn kept(client: &Client, route: &str) -> Result<Vec<Option<DatastorePartView>>> {
    let mut query = DatastorePartsQuery::default();
    let mut kept = Vec::new();
    let route = format!("{route}/parts");
    loop {
        let page: DatastorePartsResponse = client.get(&route, &query).await?;
        for part in page.parts {
            let at = part.number as usize;
            kept.resize(kept.len().max(at + 1), None);
            kept[at] = Some(part);
        }
        match page.next {
            Some(next) => query.after = Some(next),
            None => return Ok(kept),
        }
    }
}

/// Asks until the server answers, which may be starting again.
async fn persist<T, F>(request: impl Fn() -> F) -> Result<T>
where
    F: Future<Output = Result<T, grid_api::client::Error>>,
{
    for number in 1.. {
        match request().await {
            Err(error) if error.is_transient() && number < SILENT_MAX => {
                tokio::time::sleep(POLL).await;
            }
            answer => return Ok(answer?),
        }
    }
    Err(Problem::new("the server does not answer").into())
}
