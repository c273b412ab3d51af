//! Storing: what comes at the same moment goes into one pack.
//!
//! Whoever comes first leads the group: waits a moment for others, writes the pack, and
//! tells them.  Nobody is told before the bucket has it; and what is on its way is neither
//! said to be there nor sent twice.

use std::collections::{HashMap, HashSet};
use std::mem;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use grid_core::time::Timestamp;

use super::super::BlobError;
use super::super::pack::{Header, Key, Kind, key};
use super::super::packs::Record;
use super::client::{BucketError, Fault};
use super::object::Packing;
use super::{BucketPacks, PACK_BYTES, tidy};

/// How long a group waits for others.
/// Higher: each upload takes longer.  Lower: more and smaller packs.
const COMPANY_WAIT: Duration = Duration::from_millis(4);

/// Packs that are written at the same time.
/// Higher: more memory.  Lower: a bucket that is far away is not made full use of.
const UPLOADS_MAX: usize = 4;

#[derive(Default)]
pub(super) struct Groups {
    /// Those that others can still join.
    open: Vec<Arc<Group>>,
    /// What is on its way.
    coming: HashMap<Key, Arc<Group>>,
    uploading: usize,
}

struct Group {
    kind: Kind,
    packing: Mutex<Packing>,
    /// What came of it.
    result: Mutex<Option<Result<(), BucketError>>>,
}

impl Group {
    fn packing(&self) -> MutexGuard<'_, Packing> {
        self.packing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn result(&self) -> MutexGuard<'_, Option<Result<(), BucketError>>> {
        self.result.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Groups {
    fn is_open(&self, group: &Arc<Group>) -> bool {
        self.open.iter().any(|open| Arc::ptr_eq(open, group))
    }

    fn close(&mut self, group: &Arc<Group>) {
        self.open.retain(|open| !Arc::ptr_eq(open, group));
    }

    /// The group that takes this kind, and whether it is new.
    fn take(&mut self, kind: Kind) -> (Arc<Group>, bool) {
        if let Some(group) = self.open.iter().find(|group| group.kind == kind) {
            return (Arc::clone(group), false);
        }
        let group = Arc::new(Group {
            kind,
            packing: Mutex::default(),
            result: Mutex::default(),
        });
        self.open.push(Arc::clone(&group));
        (group, true)
    }
}

/// The groups that have what somebody stores.
#[derive(Default)]
struct Joined {
    all: Vec<Arc<Group>>,
    /// Those that nobody else leads.
    led: Vec<Arc<Group>>,
}

impl BucketPacks {
    pub(super) fn groups(&self) -> MutexGuard<'_, Groups> {
        self.groups.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Stores those that are not here yet.
    pub(in super::super) fn put(
        self: &Arc<Self>,
        records: &[Record<'_>],
        at: Timestamp,
    ) -> Result<(), BlobError> {
        let joined = self.join(records, at);
        for group in &joined.led {
            self.lead(group);
        }
        for group in &joined.all {
            self.wait(group)?;
        }
        if !joined.led.is_empty() {
            tidy::merge_if_many(self);
        }
        Ok(())
    }

    fn join(&self, records: &[Record<'_>], at: Timestamp) -> Joined {
        let mut joined = Joined::default();
        let mut groups = self.groups();
        let mut seen = HashSet::with_capacity(records.len());
        for record in records {
            if !seen.insert(record.id) {
                continue;
            }
            let key = key(&record.id);
            let known = groups.coming.get(&key).cloned();
            let group = match known {
                Some(group) => group,
                None if record.is_at(self.find(record.id)) => continue,
                None => {
                    let (group, is_new) = groups.take(record.kind);
                    let header = Header {
                        id: record.id,
                        kind: record.kind,
                        // A record's length fits.
                        len: record.bytes.len() as u32,
                        written_at: at,
                    };
                    let mut packing = group.packing();
                    packing.push(header, record.bytes);
                    let is_full = packing.len() >= PACK_BYTES;
                    drop(packing);
                    groups.coming.insert(key, Arc::clone(&group));
                    if is_full {
                        groups.close(&group);
                        self.changed.notify_all();
                    }
                    if is_new {
                        joined.led.push(Arc::clone(&group));
                    }
                    group
                }
            };
            if !joined.all.iter().any(|other| Arc::ptr_eq(other, &group)) {
                joined.all.push(group);
            }
        }
        joined
    }

    /// Writes the pack of a group.
    fn lead(&self, group: &Arc<Group>) {
        let groups = self.groups();
        let company = self
            .changed
            .wait_timeout_while(groups, COMPANY_WAIT, |groups| groups.is_open(group));
        let (groups, _) = company.unwrap_or_else(PoisonError::into_inner);
        let turn = self
            .changed
            .wait_while(groups, |groups| groups.uploading >= UPLOADS_MAX);
        let mut groups = turn.unwrap_or_else(PoisonError::into_inner);
        groups.uploading += 1;
        groups.close(group);
        drop(groups);
        let mut ending = Ending {
            packs: self,
            group,
            result: Err(self
                .remote
                .error("store a pack", Fault::Away, "it was interrupted")),
        };
        let packing = mem::take(&mut *group.packing());
        ending.result = self.store(group.kind, packing).map(|(number, lines)| {
            for line in &lines {
                self.learn(number, line);
            }
        });
    }

    fn wait(&self, group: &Group) -> Result<(), BucketError> {
        let waited = self
            .changed
            .wait_while(self.groups(), |_| group.result().is_none());
        drop(waited);
        group.result().clone().unwrap_or(Ok(()))
    }

    /// Begins to merge small packs, unless somebody does.
    pub(super) fn claims_merging(&self) -> bool {
        !self.is_merging.swap(true, Ordering::SeqCst)
    }
}

/// Tells a group how it ended, however it does.
struct Ending<'a> {
    packs: &'a BucketPacks,
    group: &'a Arc<Group>,
    result: Result<(), BucketError>,
}

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        let mut groups = self.packs.groups();
        groups.uploading = groups.uploading.saturating_sub(1);
        groups
            .coming
            .retain(|_, group| !Arc::ptr_eq(group, self.group));
        *self.group.result() = Some(mem::replace(&mut self.result, Ok(())));
        self.packs.changed.notify_all();
    }
}
