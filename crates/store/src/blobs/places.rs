//! What the index knows of packs, in the order in which it stands there.
//!
//! Whoever goes through a pack goes by this, and not by what the pack says of itself: there
//! each record says where the next one begins, and one flipped bit of that would hide good
//! records behind it.

use std::collections::{BTreeMap, VecDeque};
use std::fs::File;
use std::io;

use super::index::{Index, PARTS};
use super::pack::{Entry, Header};

/// Places that are looked for together, in one way through the index; but those of one pack
/// always are.
/// Higher: more memory, 24 bytes for each.  Lower: the index is gone through more often.
const PLACES_TOGETHER: u64 = 1 << 20;

/// The records of packs, a pack at a time.
pub(super) struct Places<'a> {
    index: &'a Index,
    /// Packs whose places are looked for together.
    groups: VecDeque<Vec<u32>>,
    ready: VecDeque<(u32, Vec<Entry>)>,
}

impl Index {
    /// What is in these packs.  What comes or goes meanwhile may be among it or not: look
    /// again before believing it.
    pub(super) fn places(&self, packs: impl IntoIterator<Item = u32>) -> Places<'_> {
        let mut counts: BTreeMap<u32, u64> = packs.into_iter().map(|pack| (pack, 0)).collect();
        for part in 0..PARTS {
            self.each(part, |_, place| {
                if let Some(count) = counts.get_mut(&place.pack()) {
                    *count += 1;
                }
            });
        }
        let mut groups: VecDeque<Vec<u32>> = VecDeque::new();
        let mut together = 0;
        for (pack, count) in counts {
            together += count;
            match groups.back_mut() {
                Some(group) if together <= PLACES_TOGETHER => group.push(pack),
                _ => {
                    groups.push_back(vec![pack]);
                    together = count;
                }
            }
        }
        Places {
            index: self,
            groups,
            ready: VecDeque::new(),
        }
    }
}

impl Iterator for Places<'_> {
    type Item = (u32, Vec<Entry>);

    fn next(&mut self) -> Option<Self::Item> {
        if self.ready.is_empty() {
            let group = self.groups.pop_front()?;
            let mut found: BTreeMap<u32, Vec<Entry>> =
                group.into_iter().map(|pack| (pack, Vec::new())).collect();
            for part in 0..PARTS {
                self.index.each(part, |key, place| {
                    if let Some(entries) = found.get_mut(&place.pack()) {
                        let (key, at) = (*key, place.at);
                        entries.push(Entry { key, at });
                    }
                });
            }
            for entries in found.values_mut() {
                entries.sort_unstable_by_key(|entry| entry.at.offset());
            }
            self.ready = found.into_iter().collect();
        }
        self.ready.pop_front()
    }
}

impl Entry {
    /// The header of this record; `None` when it is damaged, or says that there are more
    /// bytes than a pack of `pack_len` has.
    pub(super) fn header(&self, pack: &File, pack_len: u64) -> io::Result<Option<Header>> {
        let offset = self.at.offset();
        let header = Header::read(pack, offset)?;
        Ok(header.filter(|header| {
            header.entry(offset) == *self && offset + header.record_bytes() <= pack_len
        }))
    }
}
