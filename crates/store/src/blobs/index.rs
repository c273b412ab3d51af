//! Where each record is: in memory, and some 29 to 57 bytes for each.
//!
//! It is kept in parts by the first bits of the hash, so that nobody waits long for
//! whoever goes through all of it.  Each place also has the number of the last
//! collection that found it to be needed: so marking needs no memory of its own.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use super::pack::{At, Key};

/// Parts of the index.  Higher: more empty room in each.  Lower: whoever stores waits
/// longer beside a collection.
pub(super) const PARTS: usize = 256;

/// Bits of a pack's number; the rest is the mark.
const NUMBER_BITS: u32 = 24;

/// Packs are numbered below this: at 256 MiB each, four exbibytes.
pub(super) const PACK_NUMBERS_MAX: u32 = 1 << NUMBER_BITS;

/// Where a record is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    pack_and_mark: u32,
    pub(super) at: At,
}

impl Place {
    pub(super) fn new(pack: u32, at: At, mark: u8) -> Self {
        Self {
            pack_and_mark: pack | u32::from(mark) << NUMBER_BITS,
            at,
        }
    }

    pub(super) fn pack(self) -> u32 {
        self.pack_and_mark & (PACK_NUMBERS_MAX - 1)
    }

    pub(super) fn mark(self) -> u8 {
        (self.pack_and_mark >> NUMBER_BITS) as u8
    }

    /// Whether it is the same record, however it is marked.
    pub(super) fn is(self, pack: u32, at: At) -> bool {
        self.pack() == pack && self.at == at
    }
}

type Part = HashMap<Key, Place>;

pub(super) struct Index {
    parts: Vec<RwLock<Part>>,
    /// The number of the latest collection.
    mark: AtomicU8,
    /// How often a record was removed, or a collection began.
    events: AtomicU64,
}

impl Index {
    pub(super) fn new() -> Self {
        Self {
            parts: (0..PARTS).map(|_| RwLock::default()).collect(),
            mark: AtomicU8::new(0),
            events: AtomicU64::new(0),
        }
    }

    /// The mark of what is needed.
    pub(super) fn current(&self) -> u8 {
        self.mark.load(Ordering::SeqCst)
    }

    /// From now on nothing is known to be needed.
    pub(super) fn unmark_all(&self) {
        self.mark.fetch_add(1, Ordering::SeqCst);
        self.events.fetch_add(1, Ordering::SeqCst);
    }

    /// Grows with each thing by which a record can go.
    pub(super) fn events(&self) -> u64 {
        self.events.load(Ordering::SeqCst)
    }

    // A map is whole after a panic of whoever held it: all that is done with it here is
    // one insertion or removal.
    fn read(&self, key: &Key) -> RwLockReadGuard<'_, Part> {
        let part = &self.parts[part_of(key)];
        part.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self, key: &Key) -> RwLockWriteGuard<'_, Part> {
        let part = &self.parts[part_of(key)];
        part.write().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn get(&self, key: &Key) -> Option<Place> {
        self.read(key).get(key).copied()
    }

    /// Adds a record; gives the place that it had before.
    pub(super) fn insert(&self, key: Key, place: Place) -> Option<Place> {
        self.write(&key).insert(key, place)
    }

    /// Notes that a record is needed.  Gives where it is, and whether that was new.
    pub(super) fn mark(&self, key: &Key) -> Option<(Place, bool)> {
        let place = self.get(key)?;
        if place.mark() == self.current() {
            return Some((place, false));
        }
        let mut part = self.write(key);
        let place = part.get_mut(key)?;
        // Read while the part is held: so an old mark never takes the place of a new one.
        let mark = self.current();
        let is_new = place.mark() != mark;
        *place = Place::new(place.pack(), place.at, mark);
        Some((*place, is_new))
    }

    /// Moves a record, if it is still where it was.
    pub(super) fn replace(&self, key: &Key, old: (u32, At), pack: u32, at: At) -> bool {
        let mut part = self.write(key);
        match part.get_mut(key) {
            Some(place) if place.is(old.0, old.1) => {
                *place = Place::new(pack, at, place.mark());
                true
            }
            _ => false,
        }
    }

    /// Removes a record, if this says so while nobody can add or ask for it.
    pub(super) fn remove_if(
        &self,
        key: &Key,
        is_to_go: impl FnOnce(Place) -> bool,
    ) -> Option<Place> {
        let mut part = self.write(key);
        let place = part.get(key).copied()?;
        if !is_to_go(place) {
            return None;
        }
        self.events.fetch_add(1, Ordering::SeqCst);
        part.remove(key)
    }

    /// The records of one part that this chooses.
    pub(super) fn part(
        &self,
        number: usize,
        is_wanted: impl Fn(Place) -> bool,
    ) -> Vec<(Key, Place)> {
        let part = self.parts[number].read();
        let part = part.unwrap_or_else(PoisonError::into_inner);
        part.iter()
            .filter(|(_, place)| is_wanted(**place))
            .map(|(key, place)| (*key, *place))
            .collect()
    }

    /// Goes through the records of one part, which nobody can add to meanwhile.
    pub(super) fn each(&self, number: usize, mut look: impl FnMut(&Key, Place)) {
        let part = self.parts[number].read();
        let part = part.unwrap_or_else(PoisonError::into_inner);
        for (key, place) in part.iter() {
            look(key, *place);
        }
    }

    pub(super) fn len(&self) -> u64 {
        let len = |part: &RwLock<Part>| part.read().unwrap_or_else(PoisonError::into_inner).len();
        self.parts.iter().map(|part| len(part) as u64).sum()
    }
}

fn part_of(key: &Key) -> usize {
    // The map's own hasher takes care of the other bits.
    key[0] as usize % PARTS
}
