//! Reading the list of a version: block by block, and only those that are needed.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use grid_core::blob::BlobId;
use grid_manifest::{Entry, Index, Totals, Unpacked, decode};
use grid_store::db;

use crate::Engine;
use crate::error::{Error, Result};
use crate::trash::Referenced;

/// Blocks that one reader keeps.  Higher: more memory per request; lower: a listing whose
/// folders begin and end in the same block reads it again.
const BLOCKS_KEPT: usize = 8;

/// Blocks that are kept for all requests.  Higher: more memory, some 300 KiB each; lower: who
/// asks for one file after the other has the same block unpacked for each.
const SHARED_MAX: usize = 64;

/// Indexes that are kept, each of up to some megabytes.
const INDEXES_MAX: usize = 16;

/// Parts of lists that were read lately.  They never change, so they are never wrong; who may
/// read them is asked before.
#[derive(Default)]
pub(crate) struct Lately {
    blocks: Mutex<HashMap<BlobId, Arc<Vec<Entry>>>>,
    indexes: Mutex<HashMap<BlobId, Arc<Index>>>,
}

impl Lately {
    fn get<T>(kept: &Mutex<HashMap<BlobId, Arc<T>>>, blob: BlobId) -> Option<Arc<T>> {
        let kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.get(&blob).cloned()
    }

    fn put<T>(kept: &Mutex<HashMap<BlobId, Arc<T>>>, blob: BlobId, part: &Arc<T>, most: usize) {
        let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() >= most {
            kept.clear();
        }
        kept.insert(blob, Arc::clone(part));
    }
}

/// A list that is read.
pub(crate) struct List {
    engine: Engine,
    pub(super) index: Arc<Index>,
    kept: HashMap<usize, Arc<Vec<Entry>>>,
    /// Blocks that were fetched, for those who have a limit.
    pub(crate) fetched: usize,
}

impl List {
    /// Opens the list that a version names.
    pub(crate) async fn open(
        engine: &Engine,
        version: &db::datastore_version::Version,
    ) -> Result<Self> {
        let manifest = version.manifest.ok_or_else(|| {
            Error::conflict(format!(
                "this version is {} and has no files",
                version.state
            ))
        })?;
        Self::of(engine, manifest).await
    }

    /// Opens the list of this name.
    pub(crate) async fn of(engine: &Engine, manifest: BlobId) -> Result<Self> {
        let lately = &engine.inner.datastores.lately;
        let index = match Lately::get(&lately.indexes, manifest) {
            Some(index) => index,
            None => {
                let read = Arc::new(index(engine, manifest).await?);
                Lately::put(&lately.indexes, manifest, &read, INDEXES_MAX);
                read
            }
        };
        Ok(Self {
            engine: engine.clone(),
            index,
            kept: HashMap::new(),
            fetched: 0,
        })
    }

    /// The entries of a block.
    pub(super) async fn block(&mut self, number: usize) -> Result<Arc<Vec<Entry>>> {
        if let Some(block) = self.kept.get(&number) {
            return Ok(Arc::clone(block));
        }
        let Some(named) = self.index.blocks.get(number) else {
            return Ok(Arc::default());
        };
        let lately = &self.engine.inner.datastores.lately;
        let entries = match Lately::get(&lately.blocks, named.blob) {
            Some(entries) => entries,
            None => {
                let read = Arc::new(block(&self.engine, named.blob).await?);
                Lately::put(&lately.blocks, named.blob, &read, SHARED_MAX);
                read
            }
        };
        self.fetched += 1;
        if self.kept.len() >= BLOCKS_KEPT {
            self.kept.clear();
        }
        self.kept.insert(number, Arc::clone(&entries));
        Ok(entries)
    }

    /// The entry of a path.
    pub(crate) async fn get(&mut self, path: &str) -> Result<Option<Entry>> {
        let block = self.block(self.index.block_of(path)).await?;
        let at = block.binary_search_by(|entry| entry.path.as_str().cmp(path));
        Ok(at.ok().map(|at| block[at].clone()))
    }

    /// The first entry at or, when `is_after`, behind `path`.
    pub(crate) async fn seek(&mut self, path: &str, is_after: bool) -> Result<Option<Entry>> {
        let mut number = self.index.block_of(path);
        while number < self.index.blocks.len() {
            let block = self.block(number).await?;
            let at = block.partition_point(|entry| {
                entry.path.as_str() < path || (is_after && entry.path == path)
            });
            if let Some(entry) = block.get(at) {
                return Ok(Some(entry.clone()));
            }
            number += 1;
        }
        Ok(None)
    }

    /// What the entries from `from` on, and before `to`, add up to.
    pub(super) async fn totals(&mut self, from: &str, to: &str) -> Result<Totals> {
        let (first, last) = (self.index.block_of(from), self.index.block_of(to));
        let mut totals = Totals::default();
        for number in first..=last {
            let is_inside = number > first && number < last;
            if let (true, Some(block)) = (is_inside, self.index.blocks.get(number)) {
                totals.add(block.totals);
                continue;
            }
            let block = self.block(number).await?;
            let start = block.partition_point(|entry| entry.path.as_str() < from);
            for entry in &block[start..] {
                if entry.path.as_str() >= to {
                    break;
                }
                totals.add(Totals {
                    entries: 1,
                    files: u64::from(is_file(entry)),
                    bytes: entry.size_bytes(),
                });
            }
        }
        Ok(totals)
    }
}

/// Whether an entry is a file, wherever its bytes are.
pub(super) fn is_file(entry: &Entry) -> bool {
    use grid_manifest::Node;
    matches!(entry.node, Node::File { .. } | Node::Elsewhere { .. })
}

async fn bytes(engine: &Engine, blob: BlobId) -> Result<bytes::Bytes> {
    let reading = |error| Error::reading(blob, error);
    let reader = engine.inner.blobs.get(blob).await.map_err(reading)?;
    let reader = reader.ok_or_else(|| Error::lost(blob))?;
    reader.read_all(true).await.map_err(reading)
}

async fn index(engine: &Engine, blob: BlobId) -> Result<Index> {
    Index::decode(&bytes(engine, blob).await?).map_err(|_| Error::lost(blob))
}

/// A block, to be read line by line.
pub(super) async fn unpacked(engine: &Engine, blob: BlobId) -> Result<Unpacked> {
    let packed = bytes(engine, blob).await?;
    let block = tokio::task::spawn_blocking(move || Unpacked::of(&packed)).await;
    let block = block.map_err(Error::internal)?;
    block.map_err(|_| Error::lost(blob))
}

/// The entries of a block, or of a part of an upload.
pub(super) async fn block(engine: &Engine, blob: BlobId) -> Result<Vec<Entry>> {
    let packed = bytes(engine, blob).await?;
    let entries = tokio::task::spawn_blocking(move || decode(&packed)).await;
    let entries = entries.map_err(Error::internal)?;
    entries.map_err(|_| Error::lost(blob))
}

/// Tells of every blob that a version names, or an upload under way.
///
/// Blocks that versions share are read once.
pub(crate) async fn referenced(engine: &Engine, live: &mut Referenced<'_>) -> Result<()> {
    of_staged(engine, live).await?;
    let mut after = None;
    loop {
        let mut tx = engine.inner.db.read().await?;
        let page = db::datastore_version::all(&mut tx, after, db::PAGE_ROWS_MAX).await?;
        drop(tx);
        for version in &page.items {
            if let Err(error) = of_version(engine, version, live).await {
                let called = called(engine, version).await?;
                live.failed(&format!("files of {called}"), error)?;
            }
        }
        match page.next {
            Some(next) => after = Some(next),
            None => return Ok(()),
        }
    }
}

/// Parts of files first, then files: what is put together meanwhile is seen in one of them.
async fn of_staged(engine: &Engine, live: &mut Referenced<'_>) -> Result<()> {
    let mut after = None;
    loop {
        let mut tx = engine.inner.db.read().await?;
        let limit = db::PAGE_ROWS_MAX;
        let page = db::staged::blobs_referenced(&mut tx, after.as_ref(), limit).await?;
        drop(tx);
        live.add(page.items).await?;
        match page.next {
            Some(next) => after = Some(next),
            None => return Ok(()),
        }
    }
}

async fn of_version(
    engine: &Engine,
    version: &db::datastore_version::Version,
    live: &mut Referenced<'_>,
) -> Result<()> {
    if let Some(manifest) = version.manifest {
        return of_manifest(engine, manifest, live).await;
    }
    of_upload(engine, version, live).await?;
    // Its parts go when it has been filed: then it has a list, which they are in.
    let mut tx = engine.inner.db.read().await?;
    let now = db::datastore_version::by_id(&mut tx, version.id).await?;
    drop(tx);
    match now.and_then(|now| now.manifest) {
        Some(manifest) => of_manifest(engine, manifest, live).await,
        None => Ok(()),
    }
}

/// What a version is called by whoever runs the server.
async fn called(engine: &Engine, version: &db::datastore_version::Version) -> Result<String> {
    let mut tx = engine.inner.db.read().await?;
    let store = db::datastore::by_id(&mut tx, version.datastore).await?;
    let user = db::user::by_id(&mut tx, version.owner).await?;
    let user = user.map(|user| format!("{}:", user.username));
    let store = store.map_or_else(|| version.datastore.to_string(), |store| store.name);
    let trash = match version.deleted {
        Some(_) => " (in the trash)",
        None => "",
    };
    let number = version.number;
    let user = user.unwrap_or_default();
    Ok(format!("datastore '{user}{store}:{number}'{trash}"))
}

async fn of_manifest(engine: &Engine, manifest: BlobId, live: &mut Referenced<'_>) -> Result<()> {
    if !live.list(manifest).await? {
        return Ok(());
    }
    let told = of_blocks(engine, manifest, live).await;
    if told.as_ref().is_err_and(Error::is_lost) {
        // Of others that have the same list it is told as well.
        live.is_lost(manifest);
    }
    told
}

async fn of_blocks(engine: &Engine, manifest: BlobId, live: &mut Referenced<'_>) -> Result<()> {
    for named in index(engine, manifest).await?.blocks {
        if live.list(named.blob).await? {
            let entries = block(engine, named.blob).await?;
            live.add(entries.iter().filter_map(Entry::blob)).await?;
        }
    }
    Ok(())
}

async fn of_upload(
    engine: &Engine,
    version: &db::datastore_version::Version,
    live: &mut Referenced<'_>,
) -> Result<()> {
    let mut after = None;
    loop {
        let mut tx = engine.inner.db.read().await?;
        let page = db::datastore_page::list(&mut tx, version.id, after, db::PAGE_ROWS_MAX).await?;
        drop(tx);
        for part in page.items.iter().filter_map(|part| part.blob) {
            if live.list(part).await? {
                let entries = block(engine, part).await?;
                live.add(entries.iter().filter_map(Entry::blob)).await?;
            }
        }
        match page.next {
            Some(next) => after = Some(next),
            None => return Ok(()),
        }
    }
}
