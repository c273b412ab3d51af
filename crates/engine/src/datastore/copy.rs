//! Making a version of the objects of a bucket.
//!
//! First all objects are listed, in parts that are kept; then, unless only the list is
//! wanted, what the parts name is copied, and a part is written anew as its objects are
//! here.  So whatever is killed, what was listed is not listed again and what was copied is
//! not copied again, and what is copied is what was listed.
//!
//! A bucket that is slower than is waited for, or takes longer than a turn, waits for its next
//! one; what is here then is kept, too.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures::{StreamExt, TryStreamExt};
use grid_core::blob::BlobId;
use grid_core::id::DatastoreVersionId;
use grid_manifest::{Check, Entry, Node, digest, encode};
use grid_store::blobs::SMALL_BYTES_MAX;
use grid_store::db;
use grid_store::db::datastore_version::Content;
use tokio::sync::Semaphore;
use tokio::time::Instant;

use super::bucket::{Bucket, Listed};
use super::import::TIME_MAX;
use super::pace::{OBJECT_BYTES, PACE_TIME, Pace};
use super::unpack::Progress;
use super::work::{self, Fault};
use super::{elsewhere, import, list};
use crate::Engine;
use crate::error::Error;

/// Objects of a part.  Higher: more is written each time one of them is noted; lower: more
/// parts, and copying waits for the last of each.
const PART_OBJECTS: usize = 2_000;

/// Objects that are read at a time.  Higher: more connections to a server that others use,
/// too; lower: small ones wait for each other's answers.
const OBJECTS_AT_ONCE: usize = 16;

/// Large objects among them.  Higher: each takes some megabytes of memory; lower: one slow
/// connection sets the pace.
const LARGE_AT_ONCE: usize = 4;

/// Small objects are stored together, so many bytes at a time.
const BATCH_BYTES: usize = 4 << 20;

/// How often it is written down which objects are here.  Higher: more is copied again after
/// a kill; lower: parts are written again and again.
const NOTE_EVERY: Duration = Duration::from_secs(3);

/// Empty objects that may turn out to stand for folders, with what was listed since.
const HELD_MAX: usize = 10_000;

/// Pages of the database that are read at a time.
const STEP: u32 = 64;

/// Lists, copies and files what a version is made of.
pub(super) async fn copied(
    engine: &Engine,
    version: &db::datastore_version::Version,
) -> Result<Content, Fault> {
    let bucket = elsewhere::bucket(engine, version).await?;
    let progress = Arc::new(Progress::default());
    let job = Job {
        engine,
        version,
        bucket: &bucket,
        progress: &progress,
        pace: Pace::default(),
    };
    let noting = import::note(engine, version.id, &progress, None);
    tokio::select! {
        content = job.run() => content,
        fault = noting => Err(fault),
        () = tokio::time::sleep(TIME_MAX) => {
            let hours = TIME_MAX.as_secs() / 3_600;
            Err(Fault::Later(Error::Unavailable(format!(
                "after {hours} hours others have their turn; then it goes on where it was"
            ))))
        }
    }
}

struct Job<'a> {
    engine: &'a Engine,
    version: &'a db::datastore_version::Version,
    bucket: &'a Bucket,
    progress: &'a Progress,
    pace: Pace,
}

impl Job<'_> {
    async fn run(&self) -> Result<Content, Fault> {
        let pages = match self.version.pages {
            Some(pages) => pages,
            None => self.list().await?,
        };
        if !self.version.is_index {
            self.copy(pages).await?;
        }
        work::file(self.engine, self.version.id, pages).await
    }

    /// Lists the bucket; says how many parts that makes.
    async fn list(&self) -> Result<u32, Fault> {
        let mut objects = self.bucket.list();
        let (mut folders, mut parts) = (Folders::default(), Parts::new(self));
        while let Some(object) = self.listed(&mut objects).await? {
            folders.push(object);
            while let Some(entry) = folders.next(false) {
                parts.push(entry).await?;
            }
        }
        while let Some(entry) = folders.next(true) {
            parts.push(entry).await?;
        }
        parts.flush().await?;
        if parts.number == 0 {
            let shown = self.bucket.place().shown();
            return Err(Fault::Data(format!("there is nothing at {shown}")));
        }
        let now = self.engine.inner.clock.now();
        let mut tx = self.engine.inner.db.write().await?;
        db::datastore_version::set_pages(&mut tx, self.version.id, parts.number, now).await?;
        tx.commit().await?;
        Ok(parts.number)
    }

    /// The next object of the list.
    async fn listed(&self, objects: &mut Listed<'_>) -> Result<Option<Entry>, Fault> {
        loop {
            let before = self.bucket.seen();
            let next = tokio::time::timeout(PACE_TIME, self.pace.wait(objects.try_next())).await;
            let came = (self.bucket.seen() - before).saturating_mul(OBJECT_BYTES);
            if self.pace.came(came).is_err() {
                return Err(self.slow());
            }
            if let Ok(next) = next {
                return Ok(next?);
            }
        }
    }

    fn came(&self, bytes: u64) -> Result<(), Fault> {
        self.pace.came(bytes).map_err(|_| self.slow())
    }

    fn slow(&self) -> Fault {
        let shown = self.bucket.place().shown();
        import::slow(&format!("{shown} is too slow"))
    }

    /// Brings here what the parts name.
    async fn copy(&self, pages: u32) -> Result<(), Fault> {
        let parts = self.parts(pages).await?;
        let total = parts.iter().map(|part| part.size_bytes).sum();
        self.progress.total.store(total, Ordering::Relaxed);
        for part in parts {
            let blob = part.blob.ok_or(Fault::Incomplete)?;
            let entries = list::block(self.engine, blob).await?;
            Copying::new(self, part, entries).run().await?;
        }
        Ok(())
    }

    async fn parts(&self, pages: u32) -> Result<Vec<db::datastore_page::Part>, Fault> {
        let (mut parts, mut after) = (Vec::new(), None);
        loop {
            let mut tx = self.engine.inner.db.read().await?;
            let page = db::datastore_page::list(&mut tx, self.version.id, after, STEP).await?;
            drop(tx);
            parts.extend(page.items.into_iter().filter(|part| part.number < pages));
            match page.next {
                Some(next) => after = Some(next),
                None => return Ok(parts),
            }
        }
    }
}

/// Writes a part down, in place of what it was before.
async fn keep(
    engine: &Engine,
    version: DatastoreVersionId,
    mut part: db::datastore_page::Part,
    entries: Vec<Entry>,
) -> Result<Vec<Entry>, Fault> {
    let packed = tokio::task::spawn_blocking(move || {
        let (name, packed) = (digest(&entries).to_string(), encode(&entries));
        (name, packed, entries)
    });
    let (name, packed, entries) = packed.await.map_err(|e| Fault::Ours(Error::internal(e)))?;
    part.digest = name;
    part.blob = Some(crate::snapshot::store(engine, packed).await?);
    let mut tx = engine.inner.db.write().await?;
    db::datastore_page::put(&mut tx, version, &part).await?;
    tx.commit().await?;
    Ok(entries)
}

/// Gathers entries to parts.
struct Parts<'a> {
    job: &'a Job<'a>,
    check: Check,
    entries: Vec<Entry>,
    number: u32,
}

impl<'a> Parts<'a> {
    fn new(job: &'a Job<'a>) -> Self {
        Self {
            job,
            check: Check::default(),
            entries: Vec::new(),
            number: 0,
        }
    }

    async fn push(&mut self, entry: Entry) -> Result<(), Fault> {
        // Before anything is copied that can be no file.
        self.check
            .next(&entry)
            .map_err(|error| Fault::Data(error.to_string()))?;
        self.entries.push(entry);
        if self.entries.len() >= PART_OBJECTS {
            self.flush().await?;
        }
        Ok(())
    }

    async fn flush(&mut self) -> Result<(), Fault> {
        if self.entries.is_empty() {
            return Ok(());
        }
        if self.number >= super::upload::PARTS_MAX {
            return Err(Fault::Data("the bucket has too many objects".to_owned()));
        }
        let entries = std::mem::take(&mut self.entries);
        let part = db::datastore_page::Part {
            number: self.number,
            digest: String::new(),
            blob: None,
            files: entries.len() as u64,
            size_bytes: entries.iter().map(Entry::size_bytes).sum(),
            new_bytes: 0,
            block: None,
        };
        keep(self.job.engine, self.job.version.id, part, entries).await?;
        self.number += 1;
        Ok(())
    }
}

/// Leaves out the empty objects that tools make to stand for folders: there, something
/// lies below a thing that is no folder.
#[derive(Default)]
struct Folders {
    held: VecDeque<Entry>,
    last: String,
}

impl Folders {
    fn push(&mut self, entry: Entry) {
        let is_below = |above: &Entry| {
            above.size_bytes() == 0
                && entry
                    .path
                    .strip_prefix(above.path.as_str())
                    .is_some_and(|rest| rest.starts_with('/'))
        };
        self.held.retain(|held| !is_below(held));
        entry.path.clone_into(&mut self.last);
        self.held.push_back(entry);
    }

    /// The next entry that is certain to be one.
    fn next(&mut self, at_end: bool) -> Option<Entry> {
        let first = self.held.front()?;
        // What lies below `a` comes behind `a-` and before `a0`.
        let is_certain = first.size_bytes() > 0
            || self.last.as_str() >= format!("{}0", first.path).as_str()
            || self.held.len() > HELD_MAX;
        if at_end || is_certain {
            return self.held.pop_front();
        }
        None
    }
}

/// What came of an object.
enum Got {
    /// Its bytes; they are stored with others'.
    Small(Bytes),
    /// It is stored; so many bytes of it were not before.
    Large(BlobId, u64),
}

/// A part whose objects are copied.
struct Copying<'a> {
    job: &'a Job<'a>,
    part: db::datastore_page::Part,
    entries: Vec<Entry>,
    /// Small objects that are not stored yet, by their places in the part.
    batch: Vec<(usize, Bytes)>,
    batch_bytes: usize,
    is_noted: bool,
    noted: Instant,
}

impl<'a> Copying<'a> {
    fn new(job: &'a Job<'a>, part: db::datastore_page::Part, entries: Vec<Entry>) -> Self {
        Self {
            job,
            part,
            entries,
            batch: Vec::new(),
            batch_bytes: 0,
            is_noted: true,
            noted: Instant::now(),
        }
    }

    async fn run(mut self) -> Result<(), Fault> {
        let mut wanted = Vec::new();
        for (number, entry) in self.entries.iter().enumerate() {
            match entry.node {
                Node::Elsewhere { .. } => wanted.push((number, entry.clone())),
                _ => self.done(entry.size_bytes()),
            }
        }
        let (job, large) = (self.job, Semaphore::new(LARGE_AT_ONCE));
        let copies = futures::stream::iter(wanted).map(|(number, entry)| {
            let large = &large;
            async move { Ok::<_, Fault>((number, one(job, &entry, large).await?)) }
        });
        let mut copies = std::pin::pin!(copies.buffer_unordered(OBJECTS_AT_ONCE));
        while let Some((number, got)) = copies.try_next().await? {
            match got {
                Got::Small(bytes) => {
                    self.batch_bytes += bytes.len();
                    self.batch.push((number, bytes));
                    if self.batch_bytes >= BATCH_BYTES {
                        self.store().await?;
                    }
                }
                Got::Large(blob, new_bytes) => self.is_here(number, blob, new_bytes),
            }
            if self.noted.elapsed() >= NOTE_EVERY {
                self.note().await?;
            }
        }
        self.note().await
    }

    fn done(&self, bytes: u64) {
        self.job
            .progress
            .received
            .fetch_add(bytes, Ordering::Relaxed);
    }

    fn is_here(&mut self, number: usize, blob: BlobId, new_bytes: u64) {
        let entry = &mut self.entries[number];
        let size_bytes = entry.size_bytes();
        entry.node = Node::File { blob, size_bytes };
        self.part.new_bytes += new_bytes;
        self.is_noted = false;
    }

    /// Stores the small objects that came.
    async fn store(&mut self) -> Result<(), Fault> {
        let batch = std::mem::take(&mut self.batch);
        self.batch_bytes = 0;
        if batch.is_empty() {
            return Ok(());
        }
        let named: Vec<(usize, BlobId, Bytes)> = batch
            .into_iter()
            .map(|(number, bytes)| {
                let blob = BlobId::from_bytes(*blake3::hash(&bytes).as_bytes());
                (number, blob, bytes)
            })
            .collect();
        let blobs = &self.job.engine.inner.blobs;
        let mut sizes: HashMap<BlobId, u64> = named
            .iter()
            .map(|(_, blob, bytes)| (*blob, bytes.len() as u64))
            .collect();
        let missing = blobs.missing(sizes.keys().copied().collect()).await?;
        sizes.retain(|blob, _| missing.contains(blob));
        let records = named.iter().map(|(_, blob, bytes)| (*blob, bytes.clone()));
        blobs.put_small_batch(records.collect()).await?;
        for (number, blob, _) in named {
            let new_bytes = sizes.remove(&blob).unwrap_or_default();
            self.is_here(number, blob, new_bytes);
        }
        Ok(())
    }

    /// Writes down which objects are here.
    async fn note(&mut self) -> Result<(), Fault> {
        self.store().await?;
        self.noted = Instant::now();
        if self.is_noted {
            return Ok(());
        }
        let entries = std::mem::take(&mut self.entries);
        let version = self.job.version.id;
        self.entries = keep(self.job.engine, version, self.part.clone(), entries).await?;
        self.is_noted = true;
        Ok(())
    }
}

/// Reads one object; a large one is stored as it comes.
async fn one(job: &Job<'_>, entry: &Entry, large: &Semaphore) -> Result<Got, Fault> {
    let size = entry.size_bytes();
    let _turn = match size > SMALL_BYTES_MAX as u64 {
        true => Some(
            large
                .acquire()
                .await
                .map_err(|e| Fault::Ours(Error::internal(e)))?,
        ),
        false => None,
    };
    let count = |piece: &Bytes| {
        let bytes = piece.len() as u64;
        job.progress.received.fetch_add(bytes, Ordering::Relaxed);
        job.came(bytes)
    };
    let mut pieces = job.pace.wait(job.bucket.read(entry, None)).await?;
    job.came(OBJECT_BYTES)?;
    let blobs = &job.engine.inner.blobs;
    let mut received = 0;
    if size <= SMALL_BYTES_MAX as u64 {
        let mut whole = BytesMut::with_capacity(size as usize);
        while let Some(piece) = job.pace.wait(pieces.try_next()).await? {
            count(&piece)?;
            received += piece.len() as u64;
            require_size(entry, received <= size)?;
            whole.extend_from_slice(&piece);
        }
        require_size(entry, received == size)?;
        return Ok(Got::Small(whole.freeze()));
    }
    let (mut writer, mut hasher) = (blobs.writer(), blake3::Hasher::new());
    while let Some(piece) = job.pace.wait(pieces.try_next()).await? {
        count(&piece)?;
        received += piece.len() as u64;
        require_size(entry, received <= size)?;
        hasher.update(&piece);
        writer.write(&piece).await?;
    }
    require_size(entry, received == size)?;
    let blob = BlobId::from_bytes(*hasher.finalize().as_bytes());
    let is_new = !blobs.missing(vec![blob]).await?.is_empty();
    writer.finish(blob, size).await?;
    Ok(Got::Large(blob, if is_new { size } else { 0 }))
}

fn require_size(entry: &Entry, is_right: bool) -> Result<(), Fault> {
    if is_right {
        return Ok(());
    }
    Err(Fault::Ours(Error::Unavailable(format!(
        "the bucket sent another number of bytes for '{}' than it lists",
        entry.path
    ))))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(path: &str, size_bytes: u64) -> Entry {
        Entry {
            path: path.to_owned(),
            mode: 0o644,
            modified_ms: 0,
            node: Node::Elsewhere {
                size_bytes,
                tag: String::new(),
            },
        }
    }

    #[test]
    fn empty_objects_that_stand_for_folders_are_left_out() {
        let listed = [
            ("a", 0),
            ("a-x", 1),
            ("a/b", 1),
            ("a/c", 0),
            ("a/c-d", 0),
            ("a/c/d", 2),
            ("b", 0),
            ("b.txt", 0),
            ("c", 3),
        ];
        let mut folders = Folders::default();
        let mut left = Vec::new();
        for (path, size) in listed {
            folders.push(object(path, size));
            while let Some(entry) = folders.next(false) {
                left.push(entry.path);
            }
        }
        while let Some(entry) = folders.next(true) {
            left.push(entry.path);
        }
        assert_eq!(left, ["a-x", "a/b", "a/c-d", "a/c/d", "b", "b.txt", "c"]);
    }
}
