//! What the server does by itself: filing what was uploaded, fetching what has an address,
//! and giving up what nobody goes on with.
//!
//! A job is nothing but a version that is being processed: after a restart it is found in
//! the database and begun again.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::Ordering;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::{StreamExt as _, stream};
use grid_core::blob::BlobId;
use grid_core::datastore::{SourceKind, State};
use grid_core::id::DatastoreVersionId;
use grid_core::time::Timestamp;
use grid_manifest::Entry;
use grid_store::db;
use grid_store::db::datastore_version::Content;
use tokio::sync::{Semaphore, SemaphorePermit, watch};

use super::filing::Filing;
use super::whole::WholeLately;
use super::{NewVersion, copy, elsewhere, http, import, list, staging};
use crate::Engine;
use crate::blob::SentLately;
use crate::error::{Error, Result};
use crate::receiving::{FETCHED_MAX, Place, Places, Sender};

/// How long an upload that nobody goes on with is kept.  Higher: halves of data sets take
/// up room; lower: who comes back after the weekend begins again.
const UPLOAD_LIFE_MS: i64 = 7 * 24 * 60 * 60 * 1_000;

/// How long a stream that nobody sends is kept.
const STREAM_LIFE_MS: i64 = 10 * 60 * 1_000;

/// What is said of a stream whose end never came.
const CUT: &str = "the stream was cut, and what was in it is gone: send it again";

/// How often it is looked for work that was left over, and for uploads that are too old.
const EVERY: Duration = Duration::from_secs(30);

/// How long whoever ends an upload waits for it to be available.  Higher: proxies cut the
/// connection; lower: clients ask again for what is nearly done.
const WAIT_MAX: Duration = Duration::from_secs(20);

/// Uploads that are filed at a time.  Higher: they take memory and disk from each other; lower:
/// a small one waits behind large ones.  They do not wait for sources that are fetched: that
/// may take hours, and filing seconds.
const FILED_MAX: usize = 4;

/// Parts of a list that are read before their turn.  Higher: more memory; lower: who files
/// them waits for each.
const PARTS_AHEAD: usize = 3;

/// How often a job is begun before its fault is taken for one that stays.
const TRIES_MAX: u32 = 3;

/// The pause after the first try; after each further one it is as much longer.
const PAUSE: Duration = Duration::from_secs(1);

/// Versions looked at in one step.
const STEP: u32 = 64;

/// The versions that are worked on now, and what was read of others lately.
pub(crate) struct Jobs {
    /// Also those that wait for their turn: whoever waits for one hears of its end.
    open: Mutex<HashMap<DatastoreVersionId, Job>>,
    filing: Semaphore,
    fetching: Places,
    pub(super) lately: list::Lately,
    pub(super) whole: WholeLately,
    pub(crate) sent: SentLately,
    pub(super) buckets: elsewhere::Lately,
    /// What those wait for that are tried again.  The next server finds out by itself.
    waits: Mutex<HashMap<DatastoreVersionId, String>>,
}

impl Default for Jobs {
    fn default() -> Self {
        Self {
            open: Mutex::default(),
            filing: Semaphore::new(FILED_MAX),
            fetching: Places::new(FETCHED_MAX),
            lately: list::Lately::default(),
            whole: WholeLately::default(),
            sent: SentLately::default(),
            buckets: elsewhere::Lately::default(),
            waits: Mutex::default(),
        }
    }
}

struct Job {
    /// Closed when it is over.
    over: watch::Receiver<()>,
    /// Somebody asked for it while it was worked on: what they want it to see may have come
    /// after it looked.
    is_wanted_again: bool,
}

impl Jobs {
    fn waits(&self) -> MutexGuard<'_, HashMap<DatastoreVersionId, String>> {
        self.waits.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What a version waits for.
    pub(super) fn waits_for(&self, id: DatastoreVersionId) -> Option<String> {
        self.waits().get(&id).cloned()
    }

    /// It waits no longer.
    pub(super) fn goes_on(&self, id: DatastoreVersionId) {
        self.waits().remove(&id);
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<DatastoreVersionId, Job>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Why a job has not done its work.
#[derive(Debug)]
pub(super) enum Fault {
    /// It never will: what is wrong is wrong with the data.
    Data(String),
    /// Something of an upload is gone: it has to be sent again.
    Incomplete,
    /// It may, another time.
    Ours(Error),
    /// It may, when others had their turn.
    Later(Error),
}

impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        match error {
            Error::Invalid { .. }
            | Error::TooLarge { .. }
            | Error::Conflict { .. }
            | Error::Forbidden { .. }
            | Error::NotFound { .. } => Self::Data(error.to_string()),
            other => Self::Ours(other),
        }
    }
}

impl From<grid_store::blobs::BlobError> for Fault {
    fn from(error: grid_store::blobs::BlobError) -> Self {
        Self::from(Error::from(error))
    }
}

impl From<db::Error> for Fault {
    fn from(error: db::Error) -> Self {
        Self::from(Error::from(error))
    }
}

/// Has a version worked on, as soon as it is its turn.
pub(super) fn start(engine: &Engine, id: DatastoreVersionId) {
    let mut jobs = engine.inner.datastores.lock();
    if let Some(job) = jobs.get_mut(&id) {
        job.is_wanted_again = true;
        return;
    }
    let (done, over) = watch::channel(());
    let job = Job {
        over,
        is_wanted_again: false,
    };
    jobs.insert(id, job);
    drop(jobs);
    let engine = engine.clone();
    tokio::spawn(async move {
        let _done = done;
        let jobs = &engine.inner.datastores;
        loop {
            // Each time anew: what others wait for comes first.
            let turn = Turn::take(&engine, id).await;
            // As a task, so that a panic does not leave it in the list.
            let worker = engine.clone();
            let work = tokio::spawn(async move { process(&worker, id).await });
            if let Err(error) = work.await {
                tracing::error!(version = %id, %error, "filing a datastore version failed");
            }
            drop(turn);
            let mut open = jobs.lock();
            match open.get_mut(&id) {
                Some(job) if job.is_wanted_again => job.is_wanted_again = false,
                _ => {
                    open.remove(&id);
                    return;
                }
            }
        }
    });
}

/// That a version may be worked on, until it is dropped.
struct Turn<'a> {
    _filing: Option<SemaphorePermit<'a>>,
    _fetching: Option<Place>,
}

impl<'a> Turn<'a> {
    /// Waits for one.  Nobody closes what they come from.
    async fn take(engine: &'a Engine, id: DatastoreVersionId) -> Self {
        let jobs = &engine.inner.datastores;
        let mut turn = Self {
            _filing: None,
            _fetching: None,
        };
        // What cannot be read is found out by who works on it; and what is over needs no turn.
        match open(engine, id).await {
            Some(version) if version.source_kind.is_fetched() => {
                let user = Sender::User(version.owner);
                turn._fetching = jobs.fetching.wait(user).await.ok();
            }
            Some(_) => turn._filing = jobs.filing.acquire().await.ok(),
            None => {}
        }
        turn
    }
}

/// A version that is to be worked on.
async fn open(engine: &Engine, id: DatastoreVersionId) -> Option<db::datastore_version::Version> {
    let mut tx = engine.inner.db.read().await.ok()?;
    let version = db::datastore_version::by_id(&mut tx, id).await.ok()??;
    (version.state == State::Processing).then_some(version)
}

/// That somebody works on a version which no job does; over when it is dropped.
pub(super) struct Busy {
    engine: Engine,
    id: DatastoreVersionId,
    _done: watch::Sender<()>,
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.engine.inner.datastores.lock().remove(&self.id);
    }
}

/// Takes a version to work on; `None` when somebody does.
pub(super) fn busy(engine: &Engine, id: DatastoreVersionId) -> Option<Busy> {
    let mut jobs = engine.inner.datastores.lock();
    if jobs.contains_key(&id) {
        return None;
    }
    let (done, over) = watch::channel(());
    let job = Job {
        over,
        is_wanted_again: false,
    };
    jobs.insert(id, job);
    drop(jobs);
    Some(Busy {
        engine: engine.clone(),
        id,
        _done: done,
    })
}

/// Waits a while for a version that is worked on.
pub(super) async fn wait(engine: &Engine, id: DatastoreVersionId) {
    let over = engine
        .inner
        .datastores
        .lock()
        .get(&id)
        .map(|job| job.over.clone());
    if let Some(mut over) = over {
        // An error says that it is over.
        let _ = tokio::time::timeout(WAIT_MAX, over.changed()).await;
    }
}

impl Engine {
    /// Looks after datastores, for ever: goes on with what was left over, and gives up what
    /// nobody goes on with.
    pub async fn keep_datastores(&self) {
        // Nobody is there yet who could send one: those of before were cut.
        let cut = give_up_streams(self, self.inner.clock.now()).await;
        if let Err(error) = cut {
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                "streams that were cut are given up later"
            );
        }
        loop {
            if let Err(error) = look(self).await {
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "datastores cannot be looked after; trying again"
                );
            }
            tokio::time::sleep(EVERY).await;
        }
    }
}

async fn look(engine: &Engine) -> Result<()> {
    engine.inner.datastores.sent.tidy();
    let now = engine.inner.clock.now();
    let mut tx = engine.inner.db.read().await?;
    let all = Timestamp::from_millis(i64::MAX);
    // However many wait for a turn, some others are found.
    let open = u32::try_from(engine.inner.datastores.lock().len()).unwrap_or(u32::MAX);
    let most = STEP.saturating_add(open);
    let left = db::datastore_version::list_open(&mut tx, State::Processing, all, most).await?;
    let old = now.plus_millis(-UPLOAD_LIFE_MS);
    let stale = db::datastore_version::list_open(&mut tx, State::Uploading, old, STEP).await?;
    drop(tx);
    for version in left {
        // Whoever works on one, or waits for a turn, sees it as it is.
        if !engine.inner.datastores.lock().contains_key(&version.id) {
            start(engine, version.id);
        }
    }
    give_up_streams(engine, now.plus_millis(-STREAM_LIFE_MS)).await?;
    for version in stale {
        let days = UPLOAD_LIFE_MS / (24 * 60 * 60 * 1_000);
        let message = format!("nobody went on with it for {days} days");
        give_up(engine, &version, &message).await?;
    }
    Ok(())
}

/// Gives up streams that were cut by the end of a server: nobody can go on with them.
async fn give_up_streams(engine: &Engine, quiet: Timestamp) -> Result<()> {
    let mut tx = engine.inner.db.read().await?;
    let open = db::datastore_version::list_open(&mut tx, State::Uploading, quiet, STEP).await?;
    drop(tx);
    for version in open {
        let is_stream = version.source_kind == SourceKind::Stream;
        if is_stream && !engine.inner.datastores.lock().contains_key(&version.id) {
            give_up(engine, &version, CUT).await?;
        }
    }
    Ok(())
}

pub(super) async fn give_up(
    engine: &Engine,
    version: &db::datastore_version::Version,
    message: &str,
) -> Result<()> {
    let now = engine.inner.clock.now();
    let mut tx = engine.inner.db.write().await?;
    let done = db::datastore_version::fail(&mut tx, version.id, message, now).await?;
    tx.commit().await?;
    engine.inner.datastores.goes_on(version.id);
    if done {
        tracing::info!(version = %version.id, message, "a datastore version has failed");
        engine.inner.watch.changed([version.owner_team]);
    }
    Ok(())
}

/// Works on a version until it is available or never will be, or is left for later.
async fn process(engine: &Engine, id: DatastoreVersionId) {
    for number in 1..=TRIES_MAX {
        let row = async {
            let mut tx = engine.inner.db.read().await?;
            db::datastore_version::by_id(&mut tx, id).await
        };
        let Ok(Some(version)) = row.await else { return };
        if version.state != State::Processing || version.deleted.is_some() {
            engine.inner.datastores.goes_on(id);
            return;
        }
        let fault = match content(engine, &version).await {
            Ok(content) => match finish(engine, &version, &content).await {
                Ok(()) => {
                    engine.inner.datastores.goes_on(id);
                    return;
                }
                Err(error) => Fault::Ours(error),
            },
            Err(fault) => fault,
        };
        let settled = match fault {
            Fault::Data(message) => give_up(engine, &version, &message).await,
            Fault::Incomplete if version.source_kind.is_fetched() => {
                match begin_anew(engine, &version).await {
                    Ok(()) if number < TRIES_MAX => continue,
                    settled => settled,
                }
            }
            Fault::Incomplete => reopen(engine, &version).await,
            Fault::Ours(error) | Fault::Later(error) if is_hopeless(engine, &version) => {
                let days = UPLOAD_LIFE_MS / (24 * 60 * 60 * 1_000);
                let message = format!("{error}; it was tried for {days} days");
                give_up(engine, &version, &message).await
            }
            Fault::Later(error) => {
                tracing::info!(version = %id, %error, "a datastore version waits for its next turn");
                waits(engine, &version, &error);
                Ok(())
            }
            Fault::Ours(error) if number == TRIES_MAX => {
                tracing::warn!(
                    version = %id,
                    error = &error as &dyn std::error::Error,
                    "a datastore version is left for later"
                );
                waits(engine, &version, &error);
                Ok(())
            }
            Fault::Ours(error) => {
                tracing::debug!(version = %id, error = &error as &dyn std::error::Error, "trying again");
                // Whoever looks on is told at once: the other tries may take minutes.
                waits(engine, &version, &error);
                tokio::time::sleep(PAUSE * number).await;
                continue;
            }
        };
        if let Err(error) = settled {
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                "it is tried again later"
            );
        }
        return;
    }
}

/// Whether what should be fetched was not to be had for as long as an upload is waited for.
fn is_hopeless(engine: &Engine, version: &db::datastore_version::Version) -> bool {
    let old = engine.inner.clock.now().plus_millis(-UPLOAD_LIFE_MS);
    version.source_kind.is_fetched() && version.created_at < old
}

/// Says why it takes so long, where that is not our own affair.
fn waits(engine: &Engine, version: &db::datastore_version::Version, error: &Error) {
    let (Error::Unavailable(message) | Error::Full(message)) = error else {
        return;
    };
    let waits = engine.inner.datastores.waits();
    let before = { waits }.insert(version.id, message.clone());
    if before.as_ref() != Some(message) {
        engine.inner.watch.changed([version.owner_team]);
    }
}

async fn begin_anew(engine: &Engine, version: &db::datastore_version::Version) -> Result<()> {
    let now = engine.inner.clock.now();
    let mut tx = engine.inner.db.write().await?;
    db::datastore_version::begin_anew(&mut tx, version.id, now).await?;
    Ok(tx.commit().await?)
}

async fn reopen(engine: &Engine, version: &db::datastore_version::Version) -> Result<()> {
    let now = engine.inner.clock.now();
    let mut tx = engine.inner.db.write().await?;
    db::datastore_version::set_uploading(&mut tx, version.id, now).await?;
    Ok(tx.commit().await?)
}

async fn finish(
    engine: &Engine,
    version: &db::datastore_version::Version,
    content: &Content,
) -> Result<()> {
    // Whoever loses power finds either no version, or one that is whole.
    engine.inner.blobs.sync().await?;
    let now = engine.inner.clock.now();
    let mut tx = engine.inner.db.write().await?;
    db::datastore_version::finish(&mut tx, version.id, content, now).await?;
    tx.commit().await?;
    engine.inner.watch.changed([version.owner_team]);
    Ok(())
}

/// Makes the list of a version.
async fn content(
    engine: &Engine,
    version: &db::datastore_version::Version,
) -> Result<Content, Fault> {
    match version.source_kind {
        // Whose list was not sent in parts was sent file by file.
        SourceKind::Folder | SourceKind::File if version.pages.is_none() => {
            staging::filed(engine, version).await
        }
        SourceKind::Folder | SourceKind::File => {
            file(engine, version.id, version.pages.unwrap_or_default()).await
        }
        SourceKind::Http => import::fetched(engine, version).await,
        SourceKind::S3 => copy::copied(engine, version).await,
        SourceKind::Stream => Err(Fault::Data(CUT.to_owned())),
    }
}

/// Files the first `wanted` parts of a list.  Those of which something is gone are not kept any
/// longer: a machine that lost its power may have kept less than it said.
pub(super) async fn file(
    engine: &Engine,
    id: DatastoreVersionId,
    wanted: u32,
) -> Result<Content, Fault> {
    let mut filing = Filing::new(engine);
    let (mut new_bytes, mut lost) = (0, Vec::new());
    let mut after = None;
    loop {
        let mut tx = engine.inner.db.read().await?;
        let page = db::datastore_page::list(&mut tx, id, after, STEP).await?;
        drop(tx);
        let parts = page.items.into_iter().filter(|part| part.number < wanted);
        let read = |part: db::datastore_page::Part| {
            new_bytes += part.new_bytes;
            let engine = engine.clone();
            let looked = tokio::spawn(async move {
                let found = looked_for(&engine, &part).await?;
                Ok::<_, Fault>((part, found))
            });
            async {
                looked
                    .await
                    .map_err(|error| Fault::Ours(Error::internal(error)))?
            }
        };
        // Some are read while one is filed.
        let mut blocks = stream::iter(parts.map(read)).buffered(PARTS_AHEAD);
        while let Some(block) = blocks.next().await {
            match block? {
                (part, Looked::Lost) => lost.push(part.number),
                // The others are only looked for then.
                _ if !lost.is_empty() => {}
                (_, Looked::Entries(entries)) => filing.take(entries).await?,
                (part, Looked::Block) => filing.join(part).await?,
            }
        }
        drop(blocks);
        match page.next {
            Some(next) => after = Some(next),
            None => break,
        }
    }
    if lost.is_empty() {
        return filing.finish(new_bytes).await;
    }
    tracing::error!(version = %id, parts = lost.len(), "parts of an upload are gone");
    let mut tx = engine.inner.db.write().await?;
    for number in lost {
        db::datastore_page::lose(&mut tx, id, number).await?;
    }
    tx.commit().await?;
    Err(Fault::Incomplete)
}

/// What became of a part that was kept.
enum Looked {
    /// It is a block as it is, and all there.
    Block,
    /// All there, and to be cut into blocks.
    Entries(Vec<Entry>),
    /// Some of it is not there any more.
    Lost,
}

async fn looked_for(engine: &Engine, part: &db::datastore_page::Part) -> Result<Looked, Fault> {
    let blob = part.blob.ok_or(Fault::Incomplete)?;
    let (blobs, whole) = (&engine.inner.blobs, &engine.inner.datastores.whole);
    let is_block = part.block.is_some();
    if is_block && whole.since(blobs, blob).is_some() {
        return Ok(Looked::Block);
    }
    let moment = blobs.moment();
    let entries = match list::block(engine, blob).await {
        Err(error) if error.is_lost() => return Ok(Looked::Lost),
        read => read?,
    };
    let files: HashSet<BlobId> = entries.iter().filter_map(Entry::blob).collect();
    let files = files.into_iter().chain([blob]).collect();
    if !blobs.missing(files).await?.is_empty() {
        return Ok(Looked::Lost);
    }
    if is_block {
        whole.note([(blob, moment)]);
        return Ok(Looked::Block);
    }
    Ok(Looked::Entries(entries))
}

/// Refuses an address that cannot be fetched, before anything is made.
pub(super) fn check_address(engine: &Engine, new: &NewVersion) -> Result<()> {
    let is_private_allowed = engine.inner.fetches_private.load(Ordering::Relaxed);
    http::checked(&new.source, is_private_allowed).map(drop)
}
