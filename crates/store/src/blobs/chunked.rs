//! Large blobs: a recipe each, and chunks that all of them share.
//!
//! A recipe counts only as long as all its chunks are here; it is stored after they are,
//! and only once they were read and found to be the blob.

use std::collections::{BTreeSet, HashSet};
use std::io;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use grid_chunk::{CHUNK_BYTES_MIN, Entry, PageEntry, Recipe, Whole, is_zeros};
use grid_core::blob::BlobId;

use super::pack::Kind;
use super::packs::Record;
use super::{BlobError, Health, Inner, SMALL_BYTES_MAX, recipe};

/// Blobs of one request that are read and hashed at the same time.
/// Higher: one request may take more of the machine.  Lower: storing takes longer.
const PROVERS_MAX: usize = 4;

/// Chunks of one blob that are said to be lacking, and those of one page more.
/// Higher: more memory for who announces a large one of which nothing is here.  Lower: they
/// ask more often.
const LACKING_MAX: usize = 1 << 16;

/// Whether anybody still waits for an answer: for as long as there is its [`Waits`].
#[derive(Clone)]
pub(super) struct Awaited(Arc<AtomicBool>);

/// Whoever waits for an answer has this, and drops it when they go away.
pub(super) struct Waits(Awaited);

impl Waits {
    pub(super) fn begin() -> Self {
        Self(Awaited(Arc::new(AtomicBool::new(true))))
    }

    /// For whoever works on the answer.
    pub(super) fn awaited(&self) -> Awaited {
        self.0.clone()
    }
}

impl Drop for Waits {
    fn drop(&mut self) {
        self.0.0.store(false, Ordering::Relaxed);
    }
}

impl Awaited {
    /// An error when nobody waits any more.
    fn check(&self) -> Result<(), BlobError> {
        if self.0.load(Ordering::Relaxed) {
            return Ok(());
        }
        // Nobody is there who could hear it.
        let doing = "make a large blob of its chunks for somebody who does not wait for it";
        let why = io::Error::from(io::ErrorKind::Interrupted);
        Err(BlobError::io(doing, why))
    }
}

/// What became of a large blob that was announced by its chunks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Announced {
    /// It is there: the chunks were all here, and are the blob.
    Stored,
    /// These of its chunks, or of the pages that name them, have to be stored first.
    Lacks(Vec<BlobId>),
    /// The chunks are here and are not the blob.
    Differs,
}

impl Inner {
    /// What a large blob is made of; `None` when it is not kept like that.
    pub(super) fn recipe(&self, id: BlobId) -> Result<Option<Recipe>, BlobError> {
        let Some(found) = self.packs.get(id)? else {
            return Ok(None);
        };
        if found.header.kind != Kind::Recipe {
            return Ok(None);
        }
        let bytes = found
            .bytes()
            .map_err(|source| BlobError::io(format!("read what blob {id} is made of"), source))?;
        match recipe::read(id, &bytes) {
            Some(recipe) => Ok(Some(recipe)),
            None => {
                self.packs.is_found_damaged(id);
                Err(BlobError::Corrupt { id })
            }
        }
    }

    /// The chunks that a page names; `None` when the page is not here.
    pub(super) fn page(&self, page: &PageEntry) -> Result<Option<Vec<Entry>>, BlobError> {
        let id = page.id;
        let Some(found) = self.packs.get(id)? else {
            return Ok(None);
        };
        let bytes = found
            .bytes()
            .map_err(|source| BlobError::io(format!("read blob {id}"), source))?;
        let entries = match found.header.kind {
            Kind::Bytes if super::hash(&bytes) == id => page.read(&bytes).ok(),
            _ => None,
        };
        match entries {
            Some(entries) => Ok(Some(entries)),
            None => {
                self.packs.is_found_damaged(id);
                Err(BlobError::Corrupt { id })
            }
        }
    }

    /// What of a recipe is not here; of very much only a part.  What is here is needed from
    /// now on, if nothing is lacking.
    pub(super) fn lacks(&self, recipe: &Recipe) -> Result<Vec<BlobId>, BlobError> {
        let mut lacking = Vec::new();
        match recipe {
            Recipe::Chunks(entries) => self.lacks_of(entries, &mut lacking),
            Recipe::Pages(pages) => {
                self.grace.touch(pages.iter().map(|page| &page.id));
                let mut seen = HashSet::with_capacity(pages.len());
                for page in pages.iter().filter(|page| seen.insert(page.id)) {
                    if lacking.len() > LACKING_MAX {
                        break;
                    }
                    if self.packs.find(page.id).is_none() {
                        lacking.push(page.id);
                        continue;
                    }
                    match self.page(page)? {
                        Some(entries) => self.lacks_of(&entries, &mut lacking),
                        None => lacking.push(page.id),
                    }
                }
            }
        }
        lacking.sort_unstable();
        lacking.dedup();
        Ok(lacking)
    }

    fn lacks_of(&self, entries: &[Entry], lacking: &mut Vec<BlobId>) {
        // First touched, then looked for: what is said to be here stays.
        self.grace.touch(entries.iter().map(|entry| &entry.id));
        let is_lacking = |entry: &&Entry| {
            let place = self.packs.find(entry.id);
            place.is_none_or(|place| place.at.is_recipe())
        };
        lacking.extend(entries.iter().filter(is_lacking).map(|entry| entry.id));
    }

    /// Whether a blob is here with all that it is made of.
    pub(super) fn has(&self, id: BlobId) -> Result<bool, BlobError> {
        let Some(place) = self.packs.find(id) else {
            return self.large.has(id);
        };
        if !place.at.is_recipe() {
            return Ok(true);
        }
        match self.recipe(id) {
            Ok(Some(recipe)) => Ok(self.lacks(&recipe)?.is_empty()),
            // It can be stored anew.
            Ok(None) | Err(BlobError::Corrupt { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// How a blob is, as far as that is known without reading what it is made of.
    pub(super) fn known_health(&self, id: BlobId) -> Result<Health, BlobError> {
        let is_damaged = |id: &BlobId| self.packs.is_known_damaged(*id);
        if self.has(id)? {
            return Ok(Health::Ok);
        }
        let is_part_damaged = match self.recipe(id) {
            Ok(Some(recipe)) => self.lacks(&recipe)?.iter().any(is_damaged),
            Ok(None) => false,
            Err(BlobError::Corrupt { .. }) => true,
            Err(error) => return Err(error),
        };
        Ok(match is_part_damaged || is_damaged(&id) {
            true => Health::Corrupt,
            false => Health::Missing,
        })
    }

    /// Stores what can be stored of these large blobs, unless nobody waits for it.
    pub(super) fn announce(
        &self,
        blobs: &[(BlobId, Recipe)],
        awaited: &Awaited,
    ) -> Result<Vec<Announced>, BlobError> {
        for (id, recipe) in blobs {
            require_large(*id, recipe)?;
        }
        self.grace.touch(blobs.iter().map(|(id, _)| id));
        let results: Vec<Mutex<Option<Result<Announced, BlobError>>>> =
            blobs.iter().map(|_| Mutex::new(None)).collect();
        let next = AtomicUsize::new(0);
        let work = || {
            loop {
                let at = next.fetch_add(1, Ordering::Relaxed);
                let (Some((id, recipe)), Some(result)) = (blobs.get(at), results.get(at)) else {
                    return;
                };
                let found = self.prove(*id, recipe, awaited);
                *result.lock().unwrap_or_else(PoisonError::into_inner) = Some(found);
            }
        };
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        std::thread::scope(|scope| {
            if self.settings.sync_large {
                // Meanwhile; the recipes are stored after one that is waited for.
                scope.spawn(|| self.packs.sync_early());
            }
            for _ in 1..PROVERS_MAX.min(cores).min(blobs.len()) {
                scope.spawn(work);
            }
            work();
        });
        let mut outcomes = Vec::with_capacity(blobs.len());
        for result in results {
            let result = result.into_inner().unwrap_or_else(PoisonError::into_inner);
            outcomes.push(result.unwrap_or(Ok(Announced::Differs))?);
        }
        let stored = blobs.iter().zip(&outcomes);
        let stored = stored.filter(|(_, outcome)| **outcome == Announced::Stored);
        self.put_recipes(stored.map(|(blob, _)| blob))?;
        Ok(outcomes)
    }

    /// Whether these chunks are all here and are the blob.
    fn prove(
        &self,
        id: BlobId,
        recipe: &Recipe,
        awaited: &Awaited,
    ) -> Result<Announced, BlobError> {
        awaited.check()?;
        let lacking = self.lacks(recipe)?;
        if !lacking.is_empty() {
            return Ok(Announced::Lacks(lacking));
        }
        // Who names all chunks of what is here has the bytes.
        if let Ok(Some(known)) = self.recipe(id)
            && known == *recipe
        {
            return Ok(Announced::Stored);
        }
        let mut whole = Whole::new();
        let result = self.each_entry(recipe, |entry| {
            require_long_if_repeated(id, entry)?;
            self.hash_entry(entry, &mut whole, awaited)
        });
        match result {
            Ok(()) if whole.finish() == id => Ok(Announced::Stored),
            Ok(()) => self.blame(recipe, awaited),
            Err(Trouble::Lacks(id)) => Ok(Announced::Lacks(vec![id])),
            Err(Trouble::Differs) => Ok(Announced::Differs),
            Err(Trouble::Other(BlobError::Corrupt { id })) => Ok(Announced::Lacks(vec![id])),
            Err(Trouble::Other(error)) => Err(error),
        }
    }

    /// The chunks are not the blob: is one of them damaged, or was it another blob's?
    fn blame(&self, recipe: &Recipe, awaited: &Awaited) -> Result<Announced, BlobError> {
        let mut damaged = BTreeSet::new();
        let looked = self.each_entry(recipe, |entry| {
            awaited.check()?;
            match self.packs.read(entry.id, entry.len as usize, true) {
                Err(BlobError::Corrupt { id }) => {
                    damaged.insert(id);
                }
                Err(error) => return Err(error.into()),
                Ok(_) => {}
            }
            Ok(())
        });
        match looked {
            Err(Trouble::Other(error)) => Err(error),
            _ if damaged.is_empty() => Ok(Announced::Differs),
            _ => Ok(Announced::Lacks(damaged.into_iter().collect())),
        }
    }

    fn each_entry(
        &self,
        recipe: &Recipe,
        mut take: impl FnMut(&Entry) -> Result<(), Trouble>,
    ) -> Result<(), Trouble> {
        match recipe {
            Recipe::Chunks(entries) => entries.iter().try_for_each(take),
            Recipe::Pages(pages) => pages.iter().try_for_each(|page| {
                let entries = self.page(page)?.ok_or(Trouble::Lacks(page.id))?;
                entries.iter().try_for_each(&mut take)
            }),
        }
    }

    fn hash_entry(
        &self,
        entry: &Entry,
        whole: &mut Whole,
        awaited: &Awaited,
    ) -> Result<(), Trouble> {
        awaited.check()?;
        // Not compared with its name: the hash of the whole says the same, but of zeros,
        // which are counted and not read.
        let is_counted = is_zeros(entry.id);
        let read = self.packs.read(entry.id, entry.len as usize, is_counted)?;
        let Some(bytes) = read else {
            return Err(match self.packs.find(entry.id) {
                Some(_) => Trouble::Differs,
                None => Trouble::Lacks(entry.id),
            });
        };
        // Somebody else may cut zeros otherwise.
        if is_counted || (entry.times > 1 && is_all_zeros(&bytes)) {
            whole.zeros(entry.bytes());
            return Ok(());
        }
        for _ in 0..entry.times {
            awaited.check()?;
            whole.update(&bytes);
        }
        Ok(())
    }

    /// Stores recipes whose chunks are here and are the blobs.
    pub(super) fn put_recipes<'a>(
        &self,
        blobs: impl Iterator<Item = &'a (BlobId, Recipe)>,
    ) -> Result<(), BlobError> {
        let mut written = Vec::new();
        for (id, recipe) in blobs {
            if self.has(*id)? {
                continue;
            }
            if self.packs.find(*id).is_some() {
                // A loss of power left a recipe without its chunks.
                self.packs.is_found_damaged(*id);
            }
            written.push((*id, recipe::write(*id, recipe)));
        }
        if written.is_empty() {
            return Ok(());
        }
        let sync = || match self.settings.sync_large {
            true => self.packs.sync(),
            false => Ok(()),
        };
        let storing = |source| BlobError::storing("large blobs", source);
        // A recipe must not outlive its chunks.
        sync().map_err(storing)?;
        let records: Vec<Record<'_>> = written
            .iter()
            .map(|(id, bytes)| Record {
                id: *id,
                kind: Kind::Recipe,
                bytes,
            })
            .collect();
        self.packs.put(&records, (self.settings.clock)())?;
        sync().map_err(storing)
    }
}

/// A small blob has its bytes, so that it can be a chunk of others.
fn require_large(id: BlobId, recipe: &Recipe) -> Result<(), BlobError> {
    let len = recipe.content_bytes();
    if len > SMALL_BYTES_MAX as u64 {
        return Ok(());
    }
    let why =
        format!("it has {len} bytes, and what has no more than {SMALL_BYTES_MAX} is sent as it is");
    Err(BlobError::BadRecipe { id, why })
}

/// A repeat costs whoever announces it nothing, and here it is hashed: of short ones there
/// could be very many.  Who cuts content makes none but at its end, where it comes once.
fn require_long_if_repeated(id: BlobId, entry: &Entry) -> Result<(), BlobError> {
    let Entry { len, times, .. } = *entry;
    if times <= 1 || len as usize >= CHUNK_BYTES_MIN {
        return Ok(());
    }
    let why = format!(
        "a chunk of {len} bytes comes {times} times in a row, and one that is repeated has at \
         least {CHUNK_BYTES_MIN}: cut it into longer ones"
    );
    Err(BlobError::BadRecipe { id, why })
}

fn is_all_zeros(bytes: &Bytes) -> bool {
    bytes.iter().all(|byte| *byte == 0)
}

/// Why chunks are not a blob.
enum Trouble {
    Lacks(BlobId),
    Differs,
    Other(BlobError),
}

impl From<BlobError> for Trouble {
    fn from(error: BlobError) -> Self {
        Self::Other(error)
    }
}
