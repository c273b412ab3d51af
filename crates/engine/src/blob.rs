//! Receiving and sending blobs as records ([`grid_api::blob`]).
//!
//! Bytes are stored once, whoever sends them, but each team has to send them: what a team
//! has not sent is missing for it, also when others have.  So the hash of a file, which is
//! no secret, gives nobody the file, and does not tell that somebody else has it.
//!
//! Runners are trusted with this: a runner hashes files that it has before it asks whether
//! to send them, and experiments do not speak with its token.  Trees that the server reads
//! itself (clones, archives) need not be sent either.

mod near;

use std::collections::{HashSet, VecDeque};

use bytes::{Bytes, BytesMut};
use futures::Stream;
use grid_api::blob::{
    BLOB_BYTES_MAX, BlobRecipe, BlobRecipesAnswer, HEADER_BYTES, RECIPE_MISSING_MAX, RECIPES_MAX,
    framed_header, header, parse_header,
};
use grid_chunk::{Entry, PageEntry, sparse};
use grid_core::blob::BlobId;
use grid_core::id::{NodeId, TeamId};
use grid_store::blobs::{Announced, BlobReader, BlobWriter, Blobs, Part, Recipe, SMALL_BYTES_MAX};
use grid_store::db;

use crate::Engine;
use crate::access::Caller;
use crate::error::{Error, Result};
use crate::receiving::{Place, Sender, WAIT_MAX};

pub use near::Files;
pub(crate) use near::SentLately;

/// Small blobs are stored together, this many bytes at a time.  Higher: more memory
/// per upload, of which there may be dozens at once; lower: more writes.
const BATCH_BYTES_MAX: usize = 1 << 20;

/// And at most so many.
const BATCH_BLOBS_MAX: usize = 4_096;

/// What is stored is noted as sent by a team so many at a time.
/// Higher: more is sent again when the server is killed.  Lower: more transactions.
const NOTED_MAX: usize = 4_096;

/// Bytes of a large blob that are sent in one piece.  Higher: more memory per download;
/// lower: more thread changes.
const PIECE_BYTES: usize = 1 << 20;

/// Blobs that one request may ask about or fetch.
pub const BLOBS_MAX: usize = 10_000;

/// An upload under way: feed it the body as it comes.
///
/// What was received whole and verified stays, whatever happens to the rest.
pub struct Upload {
    blobs: Blobs,
    /// Who sends it, where it matters.
    team: Option<(Engine, TeamId)>,
    /// What has been stored and is not yet noted as sent by that team.
    unnoted: Vec<BlobId>,
    header: BytesMut,
    record: Option<Record>,
    batch: Vec<(BlobId, Bytes)>,
    batch_bytes: usize,
    stored: u64,
    /// Of one that comes from outside.
    _place: Option<Place>,
}

enum Record {
    Small {
        id: BlobId,
        len: usize,
        bytes: BytesMut,
    },
    Large {
        id: BlobId,
        len: u64,
        left: u64,
        writer: BlobWriter,
    },
}

impl Upload {
    /// Begins one by the server itself.
    pub(crate) fn new(engine: &Engine) -> Self {
        Self::by_team(engine, None, None)
    }

    /// Begins one by a runner, when it may.
    pub async fn by_node(engine: &Engine, node: &NodeId) -> Result<Self> {
        let place = place(engine, Sender::Node(node.clone())).await?;
        Ok(Self::by_team(engine, None, Some(place)))
    }

    /// Begins one by a user, when they may, for the team in which they make things now.
    pub async fn by(engine: &Engine, caller: &Caller) -> Result<Self> {
        let place = place(engine, Sender::User(caller.user.id)).await?;
        let team = caller.current().map(|(team, _)| team.id);
        Ok(Self::by_team(engine, team, Some(place)))
    }

    fn by_team(engine: &Engine, team: Option<TeamId>, place: Option<Place>) -> Self {
        Self {
            blobs: engine.inner.blobs.clone(),
            team: team.map(|team| (engine.clone(), team)),
            unnoted: Vec::new(),
            header: BytesMut::with_capacity(HEADER_BYTES),
            record: None,
            batch: Vec::new(),
            batch_bytes: 0,
            stored: 0,
            _place: place,
        }
    }

    /// Takes the next piece of the body.
    pub async fn push(&mut self, mut piece: Bytes) -> Result<()> {
        while !piece.is_empty() {
            let Some(record) = &mut self.record else {
                let missing = HEADER_BYTES - self.header.len();
                self.header
                    .extend_from_slice(&piece.split_to(missing.min(piece.len())));
                if self.header.len() == HEADER_BYTES {
                    self.begin()?;
                    self.end_if_whole().await?;
                }
                continue;
            };
            match record {
                Record::Small { len, bytes, .. } => {
                    let take = (*len - bytes.len()).min(piece.len());
                    bytes.extend_from_slice(&piece.split_to(take));
                }
                Record::Large { left, writer, .. } => {
                    let take = usize::try_from(*left)
                        .unwrap_or(usize::MAX)
                        .min(piece.len());
                    writer.write(&piece.split_to(take)).await?;
                    *left -= take as u64;
                }
            }
            self.end_if_whole().await?;
        }
        Ok(())
    }

    fn begin(&mut self) -> Result<()> {
        let mut bytes = [0; HEADER_BYTES];
        bytes.copy_from_slice(&self.header);
        self.header.clear();
        let (hash, len) = parse_header(&bytes);
        let id = BlobId::from_bytes(hash);
        if len > BLOB_BYTES_MAX {
            return Err(too_large(len));
        }
        self.record = Some(match usize::try_from(len) {
            Ok(small) if small <= SMALL_BYTES_MAX => Record::Small {
                id,
                len: small,
                bytes: BytesMut::with_capacity(small),
            },
            _ => Record::Large {
                id,
                len,
                left: len,
                writer: self.blobs.writer(),
            },
        });
        Ok(())
    }

    async fn end_if_whole(&mut self) -> Result<()> {
        match self.record.take() {
            Some(Record::Small { id, len, bytes }) if bytes.len() == len => {
                self.batch_bytes += len;
                self.batch.push((id, bytes.freeze()));
                if self.batch_bytes >= BATCH_BYTES_MAX || self.batch.len() >= BATCH_BLOBS_MAX {
                    self.flush().await?;
                }
            }
            Some(Record::Large {
                id,
                len,
                left: 0,
                writer,
            }) => {
                writer.finish(id, len).await?;
                self.stored += 1;
                self.unnoted.push(id);
            }
            unfinished => self.record = unfinished,
        }
        Ok(())
    }

    async fn flush(&mut self) -> Result<()> {
        let batch = std::mem::take(&mut self.batch);
        self.batch_bytes = 0;
        self.stored += batch.len() as u64;
        if !batch.is_empty() {
            let ids: Vec<BlobId> = batch.iter().map(|(id, _)| *id).collect();
            self.blobs.put_small_batch(batch).await?;
            self.unnoted.extend(ids);
        }
        if self.unnoted.len() < NOTED_MAX {
            return Ok(());
        }
        self.note().await
    }

    /// Writes down who has sent what is stored.
    async fn note(&mut self) -> Result<()> {
        let ids = std::mem::take(&mut self.unnoted);
        let Some((engine, team)) = self.team.as_ref().filter(|_| !ids.is_empty()) else {
            return Ok(());
        };
        let now = engine.inner.clock.now();
        let mut tx = engine.inner.db.write().await?;
        db::team_blob::put_many(&mut tx, *team, &ids, now).await?;
        Ok(tx.commit().await?)
    }

    /// The body is over: stores what is whole and says how many records that makes.
    /// With `cut`, the connection broke; else a part of a record is an error.
    pub async fn finish(mut self, cut: bool) -> Result<u64> {
        self.flush().await?;
        self.note().await?;
        if !cut && (self.record.is_some() || !self.header.is_empty()) {
            return Err(Error::invalid(
                "the upload ends in the middle of a file; send it again",
            ));
        }
        Ok(self.stored)
    }
}

async fn place(engine: &Engine, sender: Sender) -> Result<Place> {
    engine.inner.receiving.take(sender, WAIT_MAX).await
}

/// One blob of a known length whose hash the sender does not know.
///
/// Of one that breaks off nothing is there but chunks, which shorten the next attempt.
pub struct Whole {
    writer: BlobWriter,
    size_bytes: u64,
    _place: Place,
}

impl Whole {
    /// Begins one by a runner, when it may.
    pub async fn begin(engine: &Engine, node: &NodeId, size_bytes: u64) -> Result<Self> {
        if size_bytes > BLOB_BYTES_MAX {
            return Err(too_large(size_bytes));
        }
        let place = place(engine, Sender::Node(node.clone())).await?;
        let writer = engine.inner.blobs.writer();
        Ok(Self {
            writer,
            size_bytes,
            _place: place,
        })
    }

    /// Takes the next piece of it.
    pub async fn push(&mut self, piece: &[u8]) -> Result<()> {
        if self.writer.len() + piece.len() as u64 > self.size_bytes {
            return Err(self.wrong_length());
        }
        Ok(self.writer.write(piece).await?)
    }

    /// Stores it, and says what it is.
    pub async fn finish(self) -> Result<BlobId> {
        if self.writer.len() != self.size_bytes {
            return Err(self.wrong_length());
        }
        Ok(self.writer.finish_unnamed().await?)
    }

    fn wrong_length(&self) -> Error {
        Error::invalid(format!(
            "the file is not of the {} bytes that were announced: send it again",
            self.size_bytes
        ))
    }
}

fn too_large(len: u64) -> Error {
    Error::TooLarge {
        message: format!("a file of {len} bytes is larger than the limit of {BLOB_BYTES_MAX}"),
        hint: None,
    }
}

/// Which of `ids` a team has to send: those that are not stored, and those that are but
/// that it has not sent.
pub(crate) async fn missing_of(
    engine: &Engine,
    team: TeamId,
    ids: Vec<BlobId>,
) -> Result<Vec<BlobId>> {
    // Asked about, they stay for a while, sent by this team or not.
    let mut missing = engine.inner.blobs.missing(ids.clone()).await?;
    let mut tx = engine.inner.db.read().await?;
    missing.extend(db::team_blob::not_sent(&mut tx, team, &ids).await?);
    missing.sort_unstable();
    missing.dedup();
    Ok(missing)
}

/// Which of `ids` are not stored.
pub async fn missing(engine: &Engine, ids: Vec<BlobId>) -> Result<Vec<BlobId>> {
    require_few(&ids)?;
    Ok(engine.inner.blobs.missing(ids).await?)
}

/// Which of `ids` the caller has to send: for the team in which they make things now.
pub async fn missing_by(engine: &Engine, caller: &Caller, ids: Vec<BlobId>) -> Result<Vec<BlobId>> {
    require_few(&ids)?;
    match caller.current() {
        Some((team, _)) => missing_of(engine, team.id, ids).await,
        None => Ok(engine.inner.blobs.missing(ids).await?),
    }
}

fn require_few(ids: &[BlobId]) -> Result<()> {
    if ids.len() > BLOBS_MAX {
        return Err(Error::invalid(format!(
            "ask about at most {BLOBS_MAX} files at a time"
        )));
    }
    Ok(())
}

/// Makes large blobs of chunks that a user sent, as far as these are here, for the team in
/// which they make things now.
///
/// For a team, each chunk has to have been sent by it.  Who does not have the bytes cannot
/// get a blob like this: either its chunks make it, or the recipe is the one that is known.
pub async fn announce(
    engine: &Engine,
    caller: &Caller,
    recipes: &[BlobRecipe],
) -> Result<BlobRecipesAnswer> {
    let team = caller.current().map(|(team, _)| team.id);
    announce_from(engine, Sender::User(caller.user.id), team, recipes).await
}

/// Makes large blobs of chunks that a runner sent.
pub async fn announce_by_node(
    engine: &Engine,
    node: &NodeId,
    recipes: &[BlobRecipe],
) -> Result<BlobRecipesAnswer> {
    announce_from(engine, Sender::Node(node.clone()), None, recipes).await
}

/// The same when they have a place: what a recipe names is hashed, and that may be far more
/// than what is sent.  It ends soon when nobody waits for it any more.
async fn announce_from(
    engine: &Engine,
    sender: Sender,
    team: Option<TeamId>,
    recipes: &[BlobRecipe],
) -> Result<BlobRecipesAnswer> {
    if recipes.len() > RECIPES_MAX {
        return Err(Error::invalid(format!(
            "send at most {RECIPES_MAX} recipes at a time"
        )));
    }
    let mut parsed = Vec::with_capacity(recipes.len());
    for recipe in recipes {
        let (blob, recipe) = recipe.parse().map_err(Error::invalid)?;
        if recipe.content_bytes() > BLOB_BYTES_MAX {
            return Err(Error::invalid(format!("blob {blob} is too large")));
        }
        parsed.push((blob, recipe));
    }
    let _place = place(engine, sender).await?;
    let mut answer = BlobRecipesAnswer::default();
    let mut sent = Vec::with_capacity(recipes.len());
    for (blob, recipe) in parsed {
        let unsent = match team {
            Some(team) => not_sent(engine, team, &recipe).await?,
            None => Vec::new(),
        };
        if unsent.is_empty() {
            sent.push((blob, recipe));
        } else {
            answer.missing.extend(unsent.iter().map(BlobId::to_string));
        }
    }
    let blobs: Vec<BlobId> = sent.iter().map(|(blob, _)| *blob).collect();
    let outcomes = engine.inner.blobs.announce(sent).await?;
    let mut stored = Vec::new();
    for (blob, outcome) in blobs.iter().zip(outcomes) {
        match outcome {
            Announced::Stored => stored.push(*blob),
            Announced::Differs => answer.wrong.push(blob.to_string()),
            Announced::Lacks(chunks) => {
                answer.missing.extend(chunks.iter().map(BlobId::to_string));
            }
        }
    }
    answer.missing.sort_unstable();
    answer.missing.dedup();
    answer.missing.truncate(RECIPE_MISSING_MAX);
    answer.stored = stored.iter().map(BlobId::to_string).collect();
    if let Some(team) = team.filter(|_| !stored.is_empty()) {
        let mut tx = engine.inner.db.write().await?;
        db::team_blob::put_many(&mut tx, team, &stored, engine.inner.clock.now()).await?;
        tx.commit().await?;
    }
    Ok(answer)
}

/// The chunks and pages of a recipe that a team has not sent.
async fn not_sent(engine: &Engine, team: TeamId, recipe: &Recipe) -> Result<Vec<BlobId>> {
    let of = |entries: &[Entry]| entries.iter().map(|entry| entry.id).collect::<Vec<_>>();
    let pages = match recipe {
        Recipe::Chunks(entries) => return not_sent_of(engine, team, of(entries)).await,
        Recipe::Pages(pages) => pages,
    };
    let ids = pages.iter().map(|page: &PageEntry| page.id).collect();
    let mut unsent = not_sent_of(engine, team, ids).await?;
    if !unsent.is_empty() {
        return Ok(unsent);
    }
    let mut seen = HashSet::with_capacity(pages.len());
    for page in pages.iter().filter(|page| seen.insert(page.id)) {
        let Some(bytes) = engine.inner.blobs.read(page.id).await? else {
            unsent.push(page.id);
            continue;
        };
        let entries = page
            .read(&bytes)
            .map_err(|error| Error::invalid(error.to_string()))?;
        unsent.extend(not_sent_of(engine, team, of(&entries)).await?);
        if unsent.len() > RECIPE_MISSING_MAX {
            break;
        }
    }
    Ok(unsent)
}

async fn not_sent_of(engine: &Engine, team: TeamId, ids: Vec<BlobId>) -> Result<Vec<BlobId>> {
    let mut tx = engine.inner.db.read().await?;
    Ok(db::team_blob::not_sent(&mut tx, team, &ids).await?)
}

/// Reads the hash of a blob.
pub fn parse(text: &str) -> Result<BlobId> {
    text.parse()
        .map_err(|e: grid_core::blob::BlobIdError| Error::invalid(e.to_string()))
}

/// The records of `ids`, in order; long runs of zeros are left out where the reader knows
/// frames (`is_sparse`).  Ends early when one is missing, which the reader notices.
pub fn records(
    engine: &Engine,
    ids: Vec<BlobId>,
    is_sparse: bool,
) -> impl Stream<Item = Result<Bytes>> + Send + use<> {
    let blobs = engine.inner.blobs.clone();
    let state = (blobs, VecDeque::from(ids), None::<Open>);
    futures::stream::try_unfold(state, move |(blobs, mut left, mut open)| async move {
        if let Some(mut large) = open.take() {
            let piece = large.next().await?;
            let more = (large.offset < large.reader.len() && !piece.is_empty()).then_some(large);
            return Ok(Some((piece, (blobs, left, more))));
        }
        let mut out = BytesMut::new();
        // Many small ones travel in one piece.
        while out.len() < 1 << 18 {
            let Some(id) = left.pop_front() else { break };
            let Some(reader) = blobs.get(id).await? else {
                return Err(Error::internal(anyhow::anyhow!(
                    "blob {id} is referenced but not stored"
                )));
            };
            if reader.len() > SMALL_BYTES_MAX as u64 {
                let is_framed = is_sparse && reader.is_sparse();
                let head = match is_framed {
                    true => framed_header(id.as_bytes(), reader.len()),
                    false => header(id.as_bytes(), reader.len()),
                };
                out.extend_from_slice(&head);
                open = Some(Open {
                    reader,
                    offset: 0,
                    is_framed,
                });
                break;
            }
            out.extend_from_slice(&header(id.as_bytes(), reader.len()));
            out.extend_from_slice(&reader.read_all(true).await?);
        }
        Ok((!out.is_empty()).then(|| (out.freeze(), (blobs, left, open))))
    })
}

/// A large blob that is being sent.
struct Open {
    reader: BlobReader,
    offset: u64,
    is_framed: bool,
}

impl Open {
    /// Its next bytes.
    async fn next(&mut self) -> Result<Bytes> {
        if !self.is_framed {
            let piece = self.reader.read_at(self.offset, PIECE_BYTES).await?;
            self.offset += piece.len() as u64;
            return Ok(piece);
        }
        let mut out = BytesMut::new();
        match self.reader.part_at(self.offset, PIECE_BYTES).await? {
            Part::Zeros(len) => {
                self.offset += len;
                out.extend_from_slice(&sparse::zeros_frame(len));
            }
            Part::Bytes(bytes) => {
                self.offset += bytes.len() as u64;
                out.extend_from_slice(&sparse::bytes_frame(bytes.len() as u64));
                out.extend_from_slice(&bytes);
            }
        }
        Ok(out.freeze())
    }
}
