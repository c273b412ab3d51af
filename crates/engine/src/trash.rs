//! Emptying the trash: rows first, then logs, then bytes that nothing names any more.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use grid_core::blob::BlobId;
use grid_core::id::{AttemptId, TeamId};
use grid_core::time::Timestamp;
use grid_store::blobs::{Collected, Collection};
use grid_store::db;
use tokio::time::Instant;

use crate::error::{Error, Result};
use crate::{Engine, datastore, draft, log, snapshot};

/// How long a deleted run can be brought back.
pub const TRASH_LIFE_MS: i64 = 7 * 24 * 60 * 60 * 1_000;

/// How long a captured tree that no run uses is kept: somebody may be about to.
const SNAPSHOT_LIFE_MS: i64 = 24 * 60 * 60 * 1_000;

/// How long an idempotency key is remembered.
const KEY_LIFE_MS: i64 = 7 * 24 * 60 * 60 * 1_000;

/// How long a link that has ended is kept, for whoever asks what became of it.
const LINK_LIFE_MS: i64 = 7 * 24 * 60 * 60 * 1_000;

/// How long it is known that a team has sent a file.  Longer: the database grows; shorter:
/// files of trees that change are sent again.
const SENT_LIFE_MS: i64 = 90 * 24 * 60 * 60 * 1_000;

/// So many of these are forgotten each time.  Higher: writers wait; lower: a team that sends
/// more new files than this in an hour, always, is remembered for longer.
const SENT_STEP: u32 = 20_000;

/// What teams have sent that is looked through at a time after a collection.
/// Higher: writers wait; lower: more transactions.
const SENT_PAGE: u32 = 4_096;

/// How often the trash is looked at.
const EVERY: Duration = Duration::from_secs(60 * 60);

/// How often blobs are deleted that nothing refers to, when the trash gives no reason to.
/// Higher: uploads that were given up take up room for longer.  Lower: everything that is
/// referred to is gone through more often.
const COLLECT_EVERY: Duration = Duration::from_secs(24 * 60 * 60);

/// When they are deleted for the first time after a start.  Higher: a server that is started
/// anew each day never does it; lower: each start is followed by that work.
const COLLECT_FIRST: Duration = Duration::from_secs(2 * 60 * 60);

/// A difference between the time of day and the time that passed which is a jump of the
/// clock.  Higher: a wrong clock empties the trash early; lower: one that is put right by
/// and by is mistrusted.
const JUMP_MS: i64 = 10 * 60 * 1_000;

/// Things removed in one step.
const STEP: u32 = 64;

/// Blobs that are said to be needed in one call.
const KEEP_STEP: usize = 4_096;

/// What went.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Emptied {
    /// Runs and single experiments.
    pub things: u64,
    /// Logs of attempts.
    pub logs: u64,
    /// Captured trees.
    pub snapshots: u64,
    /// Versions of datastores.
    pub datastores: u64,
    /// Blobs.
    pub blobs: u64,
}

impl Engine {
    /// Empties the trash now and then, for ever.
    pub async fn keep_trash(&self) {
        let mut before = (self.inner.clock.now(), Instant::now());
        // Of the time before it began nothing is known: it may have ended early each day.
        let mut due = Instant::now() + COLLECT_FIRST;
        loop {
            let (now, at) = (self.inner.clock.now(), Instant::now());
            if has_jumped(before, (now, at)) {
                // Days that never passed must not cost anybody anything.
                tracing::warn!("the clock has jumped; the trash is looked at later");
            } else {
                match empty(self, TRASH_LIFE_MS).await {
                    Ok(emptied) if emptied == Emptied::default() => {
                        if at >= due {
                            due = at + COLLECT_EVERY;
                            collect_unwanted(self).await;
                        }
                    }
                    Ok(emptied) => {
                        due = at + COLLECT_EVERY;
                        tracing::info!(?emptied, "emptied the trash");
                    }
                    Err(error) => tracing::warn!(
                        error = &error as &dyn std::error::Error,
                        "the trash could not be emptied; trying again later"
                    ),
                }
            }
            before = (now, at);
            tokio::time::sleep(EVERY).await;
        }
    }
}

/// Deletes what came of uploads that nobody went on with.
async fn collect_unwanted(engine: &Engine) {
    match collect(engine, false).await {
        Ok(collected) => tracing::info!(?collected, "deleted what nothing refers to"),
        Err(error) => tracing::warn!(
            error = &error as &dyn std::error::Error,
            "what nothing refers to could not be deleted; trying again later"
        ),
    }
}

/// Whether the time of day has moved on otherwise than time itself.
fn has_jumped(before: (Timestamp, Instant), now: (Timestamp, Instant)) -> bool {
    let shown_ms = now.0.millis_since(before.0);
    let passed = now.1.saturating_duration_since(before.1).as_millis();
    let passed_ms = i64::try_from(passed).unwrap_or(i64::MAX);
    shown_ms.saturating_sub(passed_ms).abs() > JUMP_MS
}

/// Refuses to bring back what is due to go for good: some of it may have gone.
pub(crate) fn require_restorable(deleted_at: Timestamp, now: Timestamp, what: &str) -> Result<()> {
    if deleted_at.plus_millis(TRASH_LIFE_MS) > now {
        return Ok(());
    }
    Err(Error::conflict(format!(
        "{what} has been in the trash for {} days: it cannot be brought back any more",
        TRASH_LIFE_MS / (24 * 60 * 60 * 1_000)
    )))
}

/// Removes for good what was deleted more than `life_ms` ago, with the bytes that nothing
/// names any more.
pub async fn empty(engine: &Engine, life_ms: i64) -> Result<Emptied> {
    let mut emptied = empty_older(engine, life_ms, SNAPSHOT_LIFE_MS).await?;
    if emptied != Emptied::default() {
        emptied.blobs = collect(engine, false).await?.removed;
    }
    Ok(emptied)
}

/// Removes for good all that was deleted, and captured trees that no run uses: nobody may be
/// about to use one.  The bytes go with the next [`collect`], which says how many they were.
pub async fn empty_now(engine: &Engine) -> Result<Emptied> {
    // What was deleted this very millisecond, too.
    empty_older(engine, -1, -1).await
}

async fn empty_older(engine: &Engine, life_ms: i64, snapshot_life_ms: i64) -> Result<Emptied> {
    let inner = &engine.inner;
    let now = inner.clock.now();
    let before = now.plus_millis(-life_ms);
    let mut emptied = Emptied::default();
    loop {
        let mut tx = inner.db.read().await?;
        let runs = db::purge::runs(&mut tx, before, STEP).await?;
        let singles = db::purge::workloads(&mut tx, before, STEP).await?;
        drop(tx);
        if runs.is_empty() && singles.is_empty() {
            break;
        }
        for run in runs {
            loop {
                let mut tx = inner.db.write().await?;
                let purged = db::purge::run(&mut tx, run).await?;
                tx.commit().await?;
                emptied.logs += delete_logs(engine, &purged.attempts).await;
                if purged.done {
                    break;
                }
            }
            emptied.things += 1;
        }
        if !singles.is_empty() {
            let mut tx = inner.db.write().await?;
            let purged = db::purge::single(&mut tx, &singles).await?;
            tx.commit().await?;
            emptied.logs += delete_logs(engine, &purged.attempts).await;
            emptied.things += singles.len() as u64;
        }
    }
    loop {
        let mut tx = inner.db.write().await?;
        let purged = db::datastore_version::purge(&mut tx, before, STEP).await?;
        tx.commit().await?;
        emptied.datastores += purged;
        if purged < u64::from(STEP) {
            break;
        }
    }
    emptied.snapshots = drop_snapshots(engine, now.plus_millis(-snapshot_life_ms)).await?;
    let mut tx = inner.db.write().await?;
    db::idempotency::remove_before(&mut tx, now.plus_millis(-KEY_LIFE_MS)).await?;
    db::share::remove_before(&mut tx, now.plus_millis(-LINK_LIFE_MS)).await?;
    db::team_blob::remove_before(&mut tx, now.plus_millis(-SENT_LIFE_MS), SENT_STEP).await?;
    db::draft::remove_before(&mut tx, now.plus_millis(-draft::KEPT_MS)).await?;
    tx.commit().await?;
    Ok(emptied)
}

/// Deletes the logs of attempts whose rows are gone.  One that cannot be deleted does not
/// keep the others, of which nobody would know any more.
async fn delete_logs(engine: &Engine, attempts: &[AttemptId]) -> u64 {
    let mut deleted = 0;
    for attempt in attempts {
        let key = log::key(attempt.workload, attempt.number);
        match engine.inner.logs.delete(&key).await {
            Ok(()) => deleted += 1,
            Err(error) => tracing::warn!(
                attempt = %attempt,
                error = &error as &dyn std::error::Error,
                "the log of what was deleted stays behind"
            ),
        }
    }
    deleted
}

async fn drop_snapshots(engine: &Engine, before: Timestamp) -> Result<u64> {
    let mut dropped = 0;
    loop {
        let mut tx = engine.inner.db.write().await?;
        let unused = db::snapshot::unreferenced(&mut tx, before, STEP).await?;
        for snapshot in &unused {
            dropped += u64::from(db::snapshot::remove(&mut tx, snapshot.id).await?);
        }
        tx.commit().await?;
        if unused.is_empty() {
            return Ok(dropped);
        }
    }
}

/// Names that are taken before it is looked which of them are the same.  Higher: more memory;
/// lower: few are sorted again and again.
const NAMES_STEP: usize = 65_536;

/// Takes the names of blobs that something refers to.
pub(crate) struct Referenced<'a> {
    /// Whom it is told, a part at a time.  Those that are not told yet.
    collection: Option<&'a mut Collection>,
    untold: Vec<BlobId>,
    /// All of them, where nobody is told.
    all: Names,
    /// Lists that were read: several things share them.
    lists: HashSet<BlobId>,
    /// Lists that cannot be read, where that is only to be told; and in words who has them.
    lost_lists: HashSet<BlobId>,
    lost: Vec<String>,
}

/// What is named, as far as that can be read.
#[derive(Default)]
pub(crate) struct AllReferenced {
    /// Every blob, once, sorted.
    pub(crate) blobs: Vec<BlobId>,
    /// Lists of others that cannot be read, in words.
    pub(crate) lost: Vec<String>,
}

impl<'a> Referenced<'a> {
    fn new(collection: Option<&'a mut Collection>) -> Self {
        Self {
            collection,
            untold: Vec::new(),
            all: Names::default(),
            lists: HashSet::new(),
            lost_lists: HashSet::new(),
            lost: Vec::new(),
        }
    }

    /// A list of something could not be read.  That it is damaged or gone is told; but who
    /// collects must not go on: what it names would go.
    pub(crate) fn failed(&mut self, of: &str, error: Error) -> Result<()> {
        let Some(list) = error.lost_list() else {
            return Err(error);
        };
        let lost = format!("the list of {of} is damaged, or not stored any more");
        if self.collection.is_none() {
            self.lost_lists.insert(list);
            self.lost.push(lost);
            return Ok(());
        }
        Err(Error::Conflict {
            message: format!(
                "{lost}: nothing is deleted as long as it cannot be said which files it names"
            ),
            hint: Some(
                "bring the folder of the blobs back from a backup, or send the same files again; or delete it, stop the server, and empty the trash with `grid server collect --trash`"
                    .to_owned(),
            ),
        })
    }

    /// Something refers to a list of others; says whether that has to be read.
    pub(crate) async fn list(&mut self, id: BlobId) -> Result<bool> {
        if self.lost_lists.contains(&id) {
            return Err(Error::lost(id));
        }
        let is_new = self.lists.insert(id);
        self.add([id]).await?;
        Ok(is_new)
    }

    /// Something of this list cannot be read.
    pub(crate) fn is_lost(&mut self, list: BlobId) {
        self.lost_lists.insert(list);
    }

    /// Something refers to these.
    pub(crate) async fn add(&mut self, ids: impl IntoIterator<Item = BlobId>) -> Result<()> {
        let Some(collection) = &mut self.collection else {
            self.all.extend(ids);
            return Ok(());
        };
        self.untold.extend(ids);
        if self.untold.len() >= KEEP_STEP {
            collection.keep(std::mem::take(&mut self.untold)).await?;
        }
        Ok(())
    }

    async fn end(self) -> Result<AllReferenced> {
        if let Some(collection) = self.collection {
            collection.keep(self.untold).await?;
        }
        Ok(AllReferenced {
            blobs: self.all.end(),
            lost: self.lost,
        })
    }
}

/// Names, many of which come again and again: some 50 bytes for each that is different.
#[derive(Default)]
struct Names {
    all: Vec<BlobId>,
}

impl Names {
    fn extend(&mut self, names: impl IntoIterator<Item = BlobId>) {
        for name in names {
            if self.all.len() == self.all.capacity() {
                self.sort();
                self.all.reserve_exact((self.all.len() / 2).max(NAMES_STEP));
            }
            self.all.push(name);
        }
    }

    fn sort(&mut self) {
        self.all.sort_unstable();
        self.all.dedup();
    }

    fn end(mut self) -> Vec<BlobId> {
        self.sort();
        self.all
    }
}

/// Every blob that something names.
pub(crate) async fn referenced(engine: &Engine) -> Result<AllReferenced> {
    let mut live = Referenced::new(None);
    refer(engine, &mut live).await?;
    live.end().await
}

/// Tells of every blob that something names: artifacts, manifests, and the files of
/// manifests; parts of uploads under way.
async fn refer(engine: &Engine, live: &mut Referenced<'_>) -> Result<()> {
    let mut after = None;
    loop {
        let mut tx = engine.inner.db.read().await?;
        let page = db::artifact::blobs_referenced(&mut tx, after, db::PAGE_ROWS_MAX).await?;
        drop(tx);
        live.add(page.items).await?;
        match page.next {
            Some(next) => after = Some(next),
            None => break,
        }
    }
    let mut after = None;
    loop {
        let mut tx = engine.inner.db.read().await?;
        let page = db::snapshot::all(&mut tx, after, db::PAGE_ROWS_MAX).await?;
        drop(tx);
        for one in &page.items {
            if let Err(error) = of_snapshot(engine, one.manifest_blob, live).await {
                live.failed(&format!("the captured code {}", one.id), error)?;
            }
        }
        match page.next {
            Some(next) => after = Some(next),
            None => break,
        }
    }
    datastore::referenced(engine, live).await
}

async fn of_snapshot(engine: &Engine, manifest: BlobId, live: &mut Referenced<'_>) -> Result<()> {
    if live.list(manifest).await? {
        live.add(snapshot::named(engine, manifest).await?).await?;
    }
    Ok(())
}

/// Deletes blobs that nothing names.  The store keeps those that were uploaded or
/// asked about lately, so an upload under way loses nothing.  With `is_dry` it only says
/// what it would delete.
pub async fn collect(engine: &Engine, is_dry: bool) -> Result<Collected> {
    // Begun first: what comes to be referred to meanwhile is young.
    let mut collection = engine.inner.blobs.collection().await;
    let mut live = Referenced::new(Some(&mut collection));
    refer(engine, &mut live).await?;
    live.end().await?;
    let collected = collection.sweep(is_dry).await?;
    if !is_dry && collected.removed > 0 {
        forget_sent(engine).await?;
    }
    Ok(collected)
}

/// Forgets who has sent what is gone.  What is sent again meanwhile may be forgotten, too:
/// then it is sent once more.
async fn forget_sent(engine: &Engine) -> Result<()> {
    let mut after = None;
    loop {
        let mut tx = engine.inner.db.read().await?;
        let sent = db::team_blob::all(&mut tx, after, SENT_PAGE).await?;
        drop(tx);
        let Some(last) = sent.last().copied() else {
            return Ok(());
        };
        after = Some(last);
        let ids = sent.iter().map(|(_, blob)| *blob).collect();
        let gone: HashSet<BlobId> = engine.inner.blobs.gone(ids).await?.into_iter().collect();
        let mut by_team: HashMap<TeamId, Vec<BlobId>> = HashMap::new();
        for (team, blob) in sent {
            if gone.contains(&blob) {
                by_team.entry(team).or_default().push(blob);
            }
        }
        if by_team.is_empty() {
            continue;
        }
        let mut tx = engine.inner.db.write().await?;
        for (team, blobs) in &by_team {
            db::team_blob::remove(&mut tx, *team, blobs).await?;
        }
        tx.commit().await?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn only_a_clock_that_jumps_is_mistrusted() {
        let (t, at) = (Timestamp::from_millis(1_000_000), Instant::now());
        let hour_ms = 3_600_000;
        let later = at + Duration::from_secs(3_600);
        assert!(!has_jumped((t, at), (t.plus_millis(hour_ms), later)));
        assert!(has_jumped((t, at), (t.plus_millis(200 * hour_ms), later)));
        assert!(has_jumped((t, at), (t.plus_millis(-hour_ms), later)));
    }

    #[test]
    fn names_that_come_again_take_no_room() {
        let name = |number: u32| {
            let hash = blake3::hash(&number.to_le_bytes());
            BlobId::from_bytes(*hash.as_bytes())
        };
        let mut names = Names::default();
        for _ in 0..5 {
            names.extend((0..100_000).map(name));
        }
        assert!(names.all.capacity() <= 100_000 + 100_000 / 2 + NAMES_STEP);
        let mut all: Vec<BlobId> = (0..100_000).map(name).collect();
        all.sort_unstable();
        assert_eq!(names.end(), all);
    }
}
