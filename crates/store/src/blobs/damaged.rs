//! Records whose bytes were found to be damaged: as good as missing, so that whoever has
//! their bytes may store them again.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use grid_core::blob::BlobId;

use super::index::{Index, Place};
use super::pack::{Key, key};

/// What is known of them until the server ends; the next one finds it out again.
#[derive(Default)]
pub(super) struct Damaged {
    keys: Mutex<HashSet<Key>>,
    /// Nearly always nothing is: whoever asks then waits for nobody.
    any: AtomicBool,
    /// How often one was found.
    found: AtomicU64,
}

impl Damaged {
    fn keys(&self) -> MutexGuard<'_, HashSet<Key>> {
        self.keys.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a record was found to be damaged.
    pub(super) fn has(&self, id: BlobId) -> bool {
        self.any.load(Ordering::Relaxed) && self.keys().contains(&key(&id))
    }

    /// Notes that a record is; `false` when that was known.
    pub(super) fn add(&self, id: BlobId) -> bool {
        self.add_key(key(&id))
    }

    /// The same of one whose name is not known.
    pub(super) fn add_key(&self, key: Key) -> bool {
        let is_new = self.keys().insert(key);
        self.any.store(true, Ordering::Relaxed);
        self.found.fetch_add(1, Ordering::SeqCst);
        is_new
    }

    /// How often a record was found to be damaged.
    pub(super) fn found(&self) -> u64 {
        self.found.load(Ordering::SeqCst)
    }

    /// The record was stored again.
    pub(super) fn remove(&self, key: &Key) {
        if self.any.load(Ordering::Relaxed) {
            self.keys().remove(key);
        }
    }

    /// Where a record is, whose bytes are not known to be damaged.  It is needed from now
    /// on; but a recipe is only marked with all that it is made of.
    pub(super) fn find(&self, index: &Index, id: BlobId) -> Option<Place> {
        let key = key(&id);
        let mut place = index.get(&key)?;
        if !place.at.is_recipe() {
            (place, _) = index.mark(&key)?;
        }
        (!self.has(id)).then_some(place)
    }
}
