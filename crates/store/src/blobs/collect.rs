//! Deleting what nobody refers to: mark and sweep.
//!
//! Whoever collects says what is referred to, a part at a time ([`Collection::keep`]);
//! what that is made of is kept with it.  The marks are bits of the index, so that no
//! number of blobs takes more memory than they do anyway.  Not counts of references: a
//! count that was wrong once, after a crash or a loss of power, is wrong for ever, and
//! the next collection does not know.
//!
//! Uploads go on meanwhile.  Nobody is told of a blob that goes:
//!
//! - whoever stores or asks for something marks it and begins its grace first, and looks
//!   second; here the mark and the grace are looked at while the part of the index is
//!   held that the record is removed from;
//! - recipes go first, and are noted on disk as gone before the first chunk goes; those
//!   that stay because they are young keep their chunks.

use std::collections::{BTreeMap, HashSet};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::sync::{Arc, PoisonError, Weak};

use grid_chunk::Recipe;
use grid_core::blob::BlobId;
use tokio::sync::OwnedMutexGuard;

use super::index::{PARTS, Place};
use super::pack::{At, Entry, HEADER_BYTES, Key, PackFiles, key};
use super::packs::Packs;
use super::{BlobError, Blobs, Inner};
use crate::logs::blocking;

/// Records that are moved at a time when a pack is rewritten.
/// Higher: uploads wait longer beside it.  Lower: rewriting takes longer.
const REWRITE_RECORDS: usize = 64;

/// A collection under way.  Dropped before [`Collection::sweep`], it did nothing.
pub struct Collection {
    inner: Arc<Inner>,
    /// Large blobs in files of their own that are referred to.
    files: HashSet<BlobId>,
    _alone: OwnedMutexGuard<()>,
}

/// What a collection did, or would do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Collected {
    /// Blobs and chunks that are gone now.
    pub removed: u64,
    /// How many bytes they had on disk.
    pub removed_bytes: u64,
    /// Blobs that nobody refers to and that are too young to go.
    pub young: u64,
    /// Blobs and chunks that are there after it.
    pub kept: u64,
}

impl Blobs {
    /// Begins to collect, when no other collection is under way any more.
    ///
    /// For this to be safe, whoever is about to refer to a blob must have stored it or
    /// asked [`Blobs::missing`] for it less than the grace ago.
    pub async fn collection(&self) -> Collection {
        let alone = Arc::clone(&self.inner.collecting).lock_owned().await;
        // All that was marked before is not any more.
        self.inner.packs.index().unmark_all();
        self.inner.grace.tick();
        Collection {
            inner: Arc::clone(&self.inner),
            files: HashSet::new(),
            _alone: alone,
        }
    }
}

impl Collection {
    /// Somebody refers to these blobs.
    pub async fn keep(&mut self, ids: Vec<BlobId>) -> Result<(), BlobError> {
        let inner = Arc::clone(&self.inner);
        let elsewhere = blocking(move || {
            let mut elsewhere = Vec::new();
            for id in ids {
                if !inner.mark(id)? {
                    elsewhere.push(id);
                }
            }
            Ok::<_, BlobError>(elsewhere)
        })
        .await?;
        self.files.extend(elsewhere);
        Ok(())
    }

    /// Deletes everything else that is not young; `is_dry`: only says what it would
    /// delete.
    pub async fn sweep(self, is_dry: bool) -> Result<Collected, BlobError> {
        blocking(move || {
            let mut collected = Collected::default();
            if !is_dry {
                self.inner.packs.begin_sweep()?;
            }
            let sweep = Sweep {
                inner: &self.inner,
                mark: self.inner.packs.index().current(),
                is_dry,
            };
            sweep.recipes(&mut collected)?;
            self.inner.mark_read()?;
            sweep.records(&mut collected)?;
            self.inner.large.sweep(
                |id| self.files.contains(&id),
                &self.inner.grace,
                is_dry,
                &mut collected,
            )?;
            if !is_dry {
                self.inner.packs.rewrite()?;
            }
            collected.kept += self.inner.packs.index().len();
            if is_dry {
                collected.kept = collected.kept.saturating_sub(collected.removed);
            }
            Ok(collected)
        })
        .await
    }
}

impl Inner {
    /// Marks a blob and what it is made of; says whether it is here.
    fn mark(&self, id: BlobId) -> Result<bool, BlobError> {
        let Some((place, is_new)) = self.packs.index().mark(&key(&id)) else {
            return Ok(false);
        };
        if is_new && place.at.is_recipe() {
            match self.recipe(id) {
                Ok(Some(recipe)) => self.mark_all(&recipe)?,
                Ok(None) => {}
                Err(BlobError::Corrupt { id }) => {
                    tracing::error!(blob = %id, "it is not known any more what it is made of");
                }
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }

    fn mark_all(&self, recipe: &Recipe) -> Result<(), BlobError> {
        let mark = |entries: &[grid_chunk::Entry]| {
            for entry in entries {
                self.packs.index().mark(&key(&entry.id));
            }
        };
        match recipe {
            Recipe::Chunks(entries) => mark(entries),
            Recipe::Pages(pages) => {
                for page in pages {
                    self.packs.index().mark(&key(&page.id));
                    match self.page(page) {
                        Ok(entries) => mark(&entries.unwrap_or_default()),
                        Err(BlobError::Corrupt { .. }) => {}
                        Err(error) => return Err(error),
                    }
                }
            }
        }
        Ok(())
    }

    /// Marks what somebody reads at the moment.
    fn mark_read(&self) -> Result<(), BlobError> {
        let read: Vec<_> = {
            let mut readers = self.readers.lock().unwrap_or_else(PoisonError::into_inner);
            readers.retain(|reader| reader.strong_count() > 0);
            readers.iter().filter_map(Weak::upgrade).collect()
        };
        for reader in read {
            self.mark_all(&reader.recipe)?;
        }
        Ok(())
    }
}

/// One way through the index.
struct Sweep<'a> {
    inner: &'a Inner,
    mark: u8,
    is_dry: bool,
}

/// What is deleted of each pack: where records begin, and their lengths.
pub(super) type Gone = BTreeMap<u32, Vec<(At, u32)>>;

impl Sweep<'_> {
    /// Deletes recipes, and keeps what young ones are made of.
    fn recipes(&self, collected: &mut Collected) -> Result<(), BlobError> {
        let mut removed = Vec::new();
        for part in 0..PARTS {
            let unmarked = |place: Place| place.at.is_recipe() && place.mark() != self.mark;
            for (key, place) in self.inner.packs.index().part(part, unmarked) {
                if self.inner.grace.covers(&key) {
                    collected.young += 1;
                    self.keep_young(place)?;
                } else if let Some(len) = self.remove(&key, place, collected)? {
                    removed.push((key, place, len));
                }
            }
        }
        let mut gone = Gone::new();
        for (_, place, len) in &removed {
            gone.entry(place.pack()).or_default().push((place.at, *len));
        }
        let is_forced = self.inner.settings.sync_large;
        let buried = self.bury(&gone, is_forced || self.inner.settings.bucket.is_some());
        if buried.is_err() && self.inner.settings.bucket.is_none() {
            // As long as they are there after a restart, their chunks must be, too.  Of a
            // bucket it is not known what arrived: the next sweep begins with them.
            for (key, place, _) in removed {
                self.inner.packs.index().insert(key, place);
            }
        }
        buried
    }

    fn keep_young(&self, place: Place) -> Result<(), BlobError> {
        if let Some(header) = self.inner.packs.header(place)? {
            self.inner.mark(header.id)?;
        }
        Ok(())
    }

    /// Deletes all other records.
    fn records(&self, collected: &mut Collected) -> Result<(), BlobError> {
        for part in 0..PARTS {
            let mut gone = Gone::new();
            let unmarked = |place: Place| place.mark() != self.mark;
            for (key, place) in self.inner.packs.index().part(part, unmarked) {
                if place.at.is_recipe() {
                    // A dry sweep left it, and its chunks are counted.
                    continue;
                }
                if self.inner.grace.covers(&key) {
                    collected.young += 1;
                } else if let Some(len) = self.remove(&key, place, collected)? {
                    gone.entry(place.pack()).or_default().push((place.at, len));
                }
            }
            if let Err(error) = self.bury(&gone, false) {
                // On a full disk they are back after a restart, and deleted again.
                tracing::warn!(%error, "could not note deleted blobs");
            }
        }
        Ok(())
    }

    /// Removes a record from the index, if nobody needs it still; gives its length.
    fn remove(
        &self,
        key: &Key,
        place: Place,
        collected: &mut Collected,
    ) -> Result<Option<u32>, BlobError> {
        let packs = &self.inner.packs;
        let header = packs.header(place)?;
        // A damaged record can be deleted like any other; its length is not known.
        let len = header.map_or(0, |header| header.len);
        let bytes = HEADER_BYTES as u64 + u64::from(len);
        if !self.is_dry {
            let is_to_go = |now: Place| {
                now.is(place.pack(), place.at)
                    && now.mark() != self.mark
                    && !self.inner.grace.covers(key)
            };
            if packs.index().remove_if(key, is_to_go).is_none() {
                return Ok(None);
            }
            packs.shrink(place.pack(), bytes);
        }
        collected.removed += 1;
        collected.removed_bytes += bytes;
        Ok(Some(len))
    }

    fn bury(&self, gone: &Gone, is_forced: bool) -> Result<(), BlobError> {
        match self.is_dry {
            true => Ok(()),
            false => self.inner.packs.bury(gone, is_forced),
        }
    }
}

/// Rewrites packs that are more than half dead, so that their room is free again.
///
/// One that cannot be read stays as it is, and the others are rewritten all the same.
pub(super) fn rewrite(packs: &Packs) -> Result<(), BlobError> {
    let storing = |source| BlobError::storing("the rest of a pack", source);
    let half_dead: Vec<u32> = {
        let sizes = packs.sizes();
        let is_half_dead = |live: u64, len: u64| live * 2 < len;
        sizes
            .iter()
            .filter(|(_, sizes)| is_half_dead(sizes.live, sizes.len))
            .map(|(number, _)| *number)
            .collect()
    };
    // From here on nothing is added to them.
    for number in &half_dead {
        packs.leave(*number).map_err(storing)?;
    }
    let mut result = Ok(());
    for (number, entries) in packs.index.places(half_dead) {
        match rewrite_one(packs, number, &entries) {
            Ok(()) => {}
            Err(Rewriting::Reads(source)) => {
                let doing = format!("read pack {number} to give the room back that it wastes");
                result = Err(BlobError::io(doing, source));
            }
            Err(Rewriting::Writes(source)) => return Err(storing(source)),
        }
    }
    result
}

/// What failed when a pack was rewritten.
enum Rewriting {
    Reads(io::Error),
    Writes(io::Error),
}

fn rewrite_one(packs: &Packs, number: u32, entries: &[Entry]) -> Result<(), Rewriting> {
    let Some(file) = packs.pack(number).map_err(Rewriting::Reads)? else {
        return Ok(());
    };
    let len = file.metadata().map_err(Rewriting::Reads)?.len();
    let mut lost = Vec::new();
    for some in entries.chunks(REWRITE_RECORDS) {
        let mut moved = Vec::with_capacity(some.len());
        for entry in some.iter().filter(|entry| packs.is_in(number, entry)) {
            let Some(header) = entry.header(&file, len).map_err(Rewriting::Reads)? else {
                lost.push(*entry);
                continue;
            };
            let mut bytes = vec![0; header.len as usize];
            let start = entry.at.offset() + HEADER_BYTES as u64;
            file.read_exact_at(&mut bytes, start)
                .map_err(Rewriting::Reads)?;
            if !header.fits(&bytes) {
                // It is moved as it is, and who has its bytes may store them again.
                packs.is_found_damaged(header.id);
            }
            moved.push((entry.at, header, bytes.into()));
        }
        packs
            .move_records(number, &moved)
            .map_err(Rewriting::Writes)?;
    }
    // What was safe on disk must be so at its new place before the old one goes.
    packs.sync().map_err(Rewriting::Writes)?;
    forget(packs, number, &lost);
    packs.remove(number).map_err(Rewriting::Writes)
}

/// Forgets what could not be moved out of a pack: at its place there is no header of it.
fn forget(packs: &Packs, number: u32, entries: &[Entry]) {
    let mut lost = 0;
    for entry in entries {
        let is_here = |place: Place| place.is(number, entry.at);
        lost += u64::from(packs.index.remove_if(&entry.key, is_here).is_some());
    }
    if lost > 0 {
        tracing::error!(
            pack = number,
            lost,
            "blobs were damaged on disk and are gone"
        );
    }
}

/// Notes records of a folder as deleted.
pub(super) fn bury(packs: &Packs, gone: &Gone, is_forced: bool) -> io::Result<()> {
    for (pack, records) in gone {
        // An offset fits.
        let records: Vec<(u32, u32)> = records
            .iter()
            .map(|(at, len)| (at.offset() as u32, *len))
            .collect();
        let files = PackFiles::new(&packs.dir, *pack);
        files.bury(&packs.disk, &records)?;
        if is_forced {
            files.sync_dead(&packs.disk)?;
        }
    }
    Ok(())
}
