//! Uploading a version: a part of its list at a time, each kept once its bytes are there.

use std::collections::HashSet;

use grid_core::access::Action;
use grid_core::blob::BlobId;
use grid_core::datastore::{SourceKind, State};
use grid_core::id::{DatastoreId, DatastoreVersionId};
use grid_core::name::DatastoreName;
use grid_core::time::Timestamp;
use grid_manifest::{Check, Entry, digest, encode};
use grid_store::db;

use super::list::{self, List};
use super::{Found, Version, change, elsewhere, name, one, work};
use crate::Engine;
use crate::access::Caller;
use crate::error::{Error, Result};

/// Entries of one part.  Higher: one request takes more memory, and more is sent again when
/// a line is cut; lower: more requests.
pub const PART_ENTRIES_MAX: usize = 10_000;

/// Parts of one version: a hundred million entries, where parts are blocks of some thousand.
pub(super) const PARTS_MAX: u32 = 100_000;

/// Blocks of the version before that are read for one part, of some thousand entries each.
/// Higher: a part of few files reads much; lower: they are looked up one by one.
const BLOCKS_BEFORE_MAX: usize = 32;

/// Longest text about where data comes from, in bytes.
const SOURCE_BYTES_MAX: usize = 4_096;

/// A version that somebody begins.
#[derive(Debug, Clone)]
pub struct NewVersion {
    /// Under which name.
    pub name: String,
    /// Team by name, for a new datastore; the current one when absent.
    pub team: Option<String>,
    /// Where the data comes from; the server fetches what has an address.
    pub source: String,
    /// What kind of place that is.
    pub source_kind: SourceKind,
    /// For people.
    pub description: String,
    /// Of a bucket: how it is read.
    pub bucket: BucketWish,
}

/// How a bucket is to be read.
#[derive(Debug, Clone, Default)]
pub struct BucketWish {
    /// With which credential: `NAME`, `USER:NAME` or an id.
    pub credential: Option<String>,
    /// Where its server is; that of the credential, or Amazon's, when absent.
    pub endpoint: Option<String>,
    /// Leave the objects where they are, and only list them.
    pub is_index: bool,
}

/// What became of a part.
#[derive(Debug)]
pub enum Outcome {
    /// It is kept.
    Kept,
    /// These blobs have to be uploaded first; then offer it again.
    Missing(Vec<BlobId>),
}

/// Whether what is asked for can be begun; its name.
fn check(engine: &Engine, new: &NewVersion) -> Result<DatastoreName> {
    let named = DatastoreName::parse(&new.name).map_err(|e| Error::invalid(e.to_string()))?;
    change::check_description(&new.description)?;
    if new.source.len() > SOURCE_BYTES_MAX || new.source.contains('\0') {
        return Err(Error::invalid(format!(
            "where data comes from is said in at most {SOURCE_BYTES_MAX} bytes"
        )));
    }
    match new.source_kind {
        SourceKind::Http => work::check_address(engine, new)?,
        SourceKind::S3 => {}
        _ if new.bucket.is_index => {
            return Err(Error::invalid(
                "only the objects of a bucket can stay where they are",
            ));
        }
        _ => {}
    }
    Ok(named)
}

/// Begins a version: it has its number from now on, whatever becomes of it.
pub async fn begin(engine: &Engine, caller: &Caller, mut new: NewVersion) -> Result<Version> {
    let named = check(engine, &new)?;
    let is_fetched = new.source_kind.is_fetched();
    let mut tx = engine.inner.db.read().await?;
    let known = db::datastore::by_name(&mut tx, caller.id(), named.as_str()).await?;
    let team = match &known {
        Some(store) => {
            require_in_team(caller, store)?;
            caller
                .check(&mut tx, store, Action::ExtendDatastore)
                .await?;
            require_same_team(caller, store, new.team.as_deref())?;
            store.team
        }
        None => caller.team_for_new(new.team.as_deref())?.id,
    };
    drop(tx);
    let credential = match new.source_kind {
        SourceKind::S3 => {
            let chosen = elsewhere::choose(engine, caller, &new).await?;
            (new.source, new.bucket.endpoint) = (chosen.source, chosen.endpoint);
            chosen.credential
        }
        _ => None,
    };
    let now = engine.inner.clock.now();
    let store = db::datastore::Datastore {
        id: DatastoreId::from_parts(now, engine.inner.clock.entropy()),
        team,
        creator: caller.id(),
        name: named.to_string(),
        numbers: 0,
        created_at: now,
    };
    let mut tx = engine.inner.db.write().await?;
    let store = db::datastore::insert_or_get(&mut tx, &store).await?;
    let number = db::datastore::next_number(&mut tx, store.id).await?;
    let number = number.ok_or_else(|| Error::conflict("the datastore went away; try again"))?;
    let id = version_id(now, number, engine.inner.clock.entropy());
    let version = db::datastore_version::Version {
        credential,
        ..empty(id, &store, number, new, now)
    };
    db::datastore_version::insert(&mut tx, &version).await?;
    if is_fetched {
        db::datastore_version::set_processing(&mut tx, version.id, None, now).await?;
    }
    let found = Found {
        datastore: store,
        version,
    };
    let event = caller.did(
        "datastore.create",
        Some(found.datastore.team),
        found.thing(&caller.user.username),
    );
    event
        .detail(format!("from a {}", found.version.source_kind))
        .write(engine, &mut tx)
        .await?;
    tx.commit().await?;
    engine.inner.watch.changed([found.datastore.team]);
    if is_fetched {
        work::start(engine, found.version.id);
    }
    let mut tx = engine.inner.db.read().await?;
    let row = db::datastore_version::by_id(&mut tx, found.version.id).await?;
    one(&mut tx, caller, row.unwrap_or(found.version)).await
}

/// The id of version `number`.  Lists go by time and then by id: of versions of a datastore
/// that are made in the same millisecond the one with the higher number is the newer one.
fn version_id(at: Timestamp, number: u32, entropy: u128) -> DatastoreVersionId {
    const RANDOM_BITS: u32 = 48;
    let random = entropy & ((1 << RANDOM_BITS) - 1);
    DatastoreVersionId::from_parts(at, u128::from(number) << RANDOM_BITS | random)
}

/// A version of which nothing has come yet.
fn empty(
    id: DatastoreVersionId,
    store: &db::datastore::Datastore,
    number: u32,
    new: NewVersion,
    now: Timestamp,
) -> db::datastore_version::Version {
    db::datastore_version::Version {
        id,
        datastore: store.id,
        number,
        owner: store.creator,
        owner_team: store.team,
        state: State::Uploading,
        source: new.source,
        source_kind: new.source_kind,
        endpoint: new.bucket.endpoint,
        credential: None,
        is_index: new.bucket.is_index,
        description: new.description,
        pages: None,
        manifest: None,
        files: 0,
        size_bytes: 0,
        new_bytes: 0,
        progress_bytes: 0,
        progress_total: None,
        message: None,
        created_at: now,
        updated_at: now,
        finished_at: None,
        deleted: None,
    }
}

/// Names are given once per person: one that is taken in a team that they left stays taken,
/// though they see nothing of it any more.
fn require_in_team(caller: &Caller, store: &db::datastore::Datastore) -> Result<()> {
    if caller.sees(store, Action::SeeDatastore) {
        return Ok(());
    }
    Err(Error::Conflict {
        message: format!(
            "you have a datastore '{}' in a team that you are not in any more",
            store.name
        ),
        hint: Some("choose another --name".to_owned()),
    })
}

fn require_same_team(
    caller: &Caller,
    store: &db::datastore::Datastore,
    named: Option<&str>,
) -> Result<()> {
    let Some(named) = named else { return Ok(()) };
    let mine = caller.teams.iter().find(|(team, _)| team.id == store.team);
    let team = mine.map_or("another one", |(team, _)| team.name.as_str());
    if team.eq_ignore_ascii_case(named) {
        return Ok(());
    }
    Err(Error::Conflict {
        message: format!(
            "your datastore '{}' belongs to team '{team}', and so do all of its versions",
            store.name
        ),
        hint: Some("leave --team out, or choose another --name".to_owned()),
    })
}

/// The upload that `text` names, if the caller may add to it.
pub(super) async fn upload(engine: &Engine, caller: &Caller, text: &str) -> Result<Found> {
    let mut tx = engine.inner.db.read().await?;
    let found = name::find(&mut tx, caller, text, name::Which::Any).await?;
    caller
        .check(&mut tx, &found.datastore, Action::ExtendDatastore)
        .await?;
    Ok(found)
}

pub(super) fn require_uploading(found: &Found) -> Result<()> {
    if found.version.deleted.is_some() {
        return Err(Error::conflict(format!(
            "{} was deleted: what is sent of it is not kept",
            found.called()
        )));
    }
    match found.version.state {
        State::Uploading => Ok(()),
        State::Failed => Err(Error::conflict(format!(
            "{} was given up: {}",
            found.called(),
            found.version.message.as_deref().unwrap_or_default()
        ))),
        State::Processing | State::Available => Err(Error::Conflict {
            message: format!(
                "{} is {} and takes no more files",
                found.called(),
                found.version.state
            ),
            hint: Some("begin another version".to_owned()),
        }),
    }
}

/// Whether the caller may send parts of a version now: before a large one is read.
pub async fn takes_parts(engine: &Engine, caller: &Caller, text: &str) -> Result<()> {
    require_uploading(&upload(engine, caller, text).await?)
}

/// Takes a part of the list, if all of its bytes are stored.  Sending a part again replaces
/// it.  `sent_bytes` of it had to be sent before it was offered.
pub async fn put_part(
    engine: &Engine,
    caller: &Caller,
    text: &str,
    number: u32,
    entries: Vec<Entry>,
    sent_bytes: u64,
) -> Result<Outcome> {
    let found = upload(engine, caller, text).await?;
    require_uploading(&found)?;
    let checked = checked(number, &entries)?;
    let id = found.version.id;
    let wanted: HashSet<BlobId> = entries.iter().filter_map(Entry::blob).collect();
    let wanted: Vec<BlobId> = wanted.into_iter().collect();
    // Asked about, they stay for a while.
    let unstored = engine.inner.blobs.missing(wanted.clone()).await?;
    let mut missing = unsent(engine, caller, &found, span(&entries), wanted).await?;
    missing.extend(&unstored);
    missing.sort_unstable();
    missing.dedup();
    let mut part = db::datastore_page::Part {
        number,
        digest: checked.digest.to_string(),
        blob: None,
        files: checked.files,
        size_bytes: checked.size_bytes,
        new_bytes: new_bytes(&sizes(&entries), &unstored)
            .saturating_add(sent_bytes)
            .min(checked.size_bytes),
        block: None,
    };
    if missing.is_empty() {
        let packed = tokio::task::spawn_blocking(move || encode(&entries))
            .await
            .map_err(Error::internal)?;
        part.blob = Some(crate::snapshot::store(engine, packed).await?);
    }
    let now = engine.inner.clock.now();
    let mut tx = engine.inner.db.write().await?;
    db::datastore_page::put(&mut tx, id, &part).await?;
    if !db::datastore_version::sum_up(&mut tx, id, now).await? {
        return Err(Error::conflict(format!(
            "{} takes no more files: somebody else has ended it",
            found.called()
        )));
    }
    tx.commit().await?;
    Ok(if missing.is_empty() {
        Outcome::Kept
    } else {
        Outcome::Missing(missing)
    })
}

/// Bytes that neither the team of the datastore has sent nor the one for which the caller
/// sends now: who knows only a hash does not get the file by it.
pub(super) async fn unsent(
    engine: &Engine,
    caller: &Caller,
    found: &Found,
    span: Option<(&str, &str)>,
    mut wanted: Vec<BlobId>,
) -> Result<Vec<BlobId>> {
    let mut teams = vec![found.datastore.team];
    let current = caller.current().map(|(team, _)| team.id);
    teams.extend(current.filter(|team| *team != found.datastore.team));
    for team in &teams {
        engine
            .inner
            .datastores
            .sent
            .retain_unsent(*team, &mut wanted);
    }
    if !wanted.is_empty() {
        let known = of_version_before(engine, found, span).await?;
        wanted.retain(|blob| !known.contains(blob));
    }
    for team in teams {
        if !wanted.is_empty() {
            let mut tx = engine.inner.db.read().await?;
            wanted = db::team_blob::not_sent(&mut tx, team, &wanted).await?;
        }
    }
    Ok(wanted)
}

/// The paths of the first and the last entry.
fn span(entries: &[Entry]) -> Option<(&str, &str)> {
    Some((&entries.first()?.path, &entries.last()?.path))
}

/// What the version before names from one path to another: most files of a version are those
/// of the one before, and whoever may add to a datastore may name what is in it.
async fn of_version_before(
    engine: &Engine,
    found: &Found,
    span: Option<(&str, &str)>,
) -> Result<HashSet<BlobId>> {
    let mut known = HashSet::new();
    let Some((first, last)) = span else {
        return Ok(known);
    };
    let mut tx = engine.inner.db.read().await?;
    let before = db::datastore_version::newest(&mut tx, found.datastore.id).await?;
    drop(tx);
    let Some(manifest) = before.and_then(|version| version.manifest) else {
        return Ok(known);
    };
    let list = List::of(engine, manifest).await?;
    let blocks = list.index.block_of(first)..=list.index.block_of(last);
    let blocks = list.index.blocks.get(blocks).unwrap_or_default();
    // Where there was much more, what is wanted is looked up one by one.
    if blocks.len() > BLOCKS_BEFORE_MAX {
        return Ok(known);
    }
    for named in blocks {
        let entries = list::block(engine, named.blob).await?;
        known.extend(entries.iter().filter_map(Entry::blob));
    }
    Ok(known)
}

struct Checked {
    digest: BlobId,
    files: u64,
    size_bytes: u64,
}

fn checked(number: u32, entries: &[Entry]) -> Result<Checked> {
    if number >= PARTS_MAX || entries.len() > PART_ENTRIES_MAX {
        return Err(Error::TooLarge {
            message: format!(
                "a version is sent in at most {PARTS_MAX} parts of {PART_ENTRIES_MAX} entries"
            ),
            hint: Some("pack small files into larger ones".to_owned()),
        });
    }
    let mut check = Check::default();
    let (mut files, mut size_bytes) = (0, 0_u64);
    for entry in entries {
        check
            .next(entry)
            .map_err(|e| Error::invalid(e.to_string()))?;
        files += u64::from(list::is_file(entry));
        size_bytes = size_bytes.saturating_add(entry.size_bytes());
    }
    Ok(Checked {
        digest: digest(entries),
        files,
        size_bytes,
    })
}

/// The bytes of entries that were left out of what is stored, each counted once.
pub(super) fn new_bytes(files: &[(BlobId, u64)], missing: &[BlobId]) -> u64 {
    let mut missing: HashSet<BlobId> = missing.iter().copied().collect();
    let new = files.iter().filter(|(blob, _)| missing.remove(blob));
    new.map(|(_, size_bytes)| *size_bytes)
        .fold(0, u64::saturating_add)
}

fn sizes(entries: &[Entry]) -> Vec<(BlobId, u64)> {
    let files = entries.iter();
    files
        .filter_map(|entry| Some((entry.blob()?, entry.size_bytes())))
        .collect()
}

/// The parts that are kept, by number, from the one after `after` on: what need not be
/// sent again.
pub async fn parts(
    engine: &Engine,
    caller: &Caller,
    text: &str,
    after: Option<u32>,
    limit: u32,
) -> Result<db::Page<db::datastore_page::Part, u32>> {
    let found = upload(engine, caller, text).await?;
    let mut tx = engine.inner.db.read().await?;
    let mut page = db::datastore_page::list(&mut tx, found.version.id, after, limit).await?;
    page.items.retain(|part| part.blob.is_some());
    Ok(page)
}

/// Ends an upload of `parts` parts.  It is available at once, or, when it is long, soon.
/// Doing it twice is the same as once.
pub async fn commit(engine: &Engine, caller: &Caller, text: &str, parts: u32) -> Result<Version> {
    let found = upload(engine, caller, text).await?;
    if found.version.state == State::Uploading {
        require_uploading(&found)?;
        let mut tx = engine.inner.db.write().await?;
        require_whole(&mut tx, &found, parts).await?;
        let now = engine.inner.clock.now();
        let done =
            db::datastore_version::set_processing(&mut tx, found.version.id, Some(parts), now)
                .await?;
        if done {
            let event = caller.did(
                "datastore.commit",
                Some(found.datastore.team),
                found.thing(&caller.user.username),
            );
            event
                .detail(format!("{parts} parts"))
                .write(engine, &mut tx)
                .await?;
        }
        tx.commit().await?;
    }
    work::start(engine, found.version.id);
    work::wait(engine, found.version.id).await;
    let mut tx = engine.inner.db.read().await?;
    let row = db::datastore_version::by_id(&mut tx, found.version.id).await?;
    let row = row.ok_or_else(|| Error::not_found("the version is gone"))?;
    one(&mut tx, caller, row).await
}

/// Refuses to end an upload of which something was not sent.
async fn require_whole(tx: &mut db::Tx, found: &Found, parts: u32) -> Result<()> {
    let mut next = 0;
    let mut after = None;
    loop {
        let page = db::datastore_page::list(tx, found.version.id, after, db::PAGE_ROWS_MAX).await?;
        for part in &page.items {
            if part.number == next && part.blob.is_some() {
                next += 1;
            }
        }
        match page.next {
            Some(more) => after = Some(more),
            None => break,
        }
    }
    if next >= parts {
        return Ok(());
    }
    Err(Error::Conflict {
        message: format!(
            "{} is not whole: part {next} of {parts} is not there",
            found.called()
        ),
        hint: Some("send the parts that are missing, then end it again".to_owned()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_of_one_millisecond_go_by_their_numbers() {
        let at = Timestamp::from_millis(1_700_000_000_000);
        let ids: Vec<String> = [(1, u128::MAX), (2, 0), (3, u128::MAX), (u32::MAX, 0)]
            .map(|(number, entropy)| version_id(at, number, entropy).to_string())
            .into();
        assert!(ids.is_sorted(), "{ids:?}");
        assert!(ids[3] < version_id(at.plus_millis(1), 1, 0).to_string());
    }
}
