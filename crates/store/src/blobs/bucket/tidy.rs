//! Deleting, rewriting and merging packs, and reading all of them.
//!
//! A pack goes when all that is needed of it is somewhere else: what is left is written
//! first, and only then the old pack is deleted.  Where that is cut short, records are
//! there twice, and the next time puts it right.
//!
//! Only the one deletes who opened the bucket last: another server that was forgotten
//! would not know what is needed.

use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};

use bytes::Bytes;

use super::super::BlobError;
use super::super::collect::Gone;
use super::super::pack::{At, HEADER_BYTES, Key, Kind};
use super::client::{BucketError, Fault};
use super::load::{keep_dead, read_dead};
use super::object::{Line, Packing, write_dead};
use super::{BucketPacks, OWNER, PACK_BYTES, Pack};

/// A pack that is shorter than this is merged with others, in bytes.
/// Higher: the same bytes are written more often.  Lower: more objects.
const SMALL_BYTES: u64 = PACK_BYTES / 4;

/// So many small packs are merged when blobs are collected anyway.
const MERGED_MIN: usize = 8;

/// So many small packs are merged at once, without waiting for that.
/// Higher: a first start on a new machine reads more ends.  Lower: more is rewritten.
const MERGED_AT_ONCE: usize = 256;

/// A record that is somewhere else soon.
struct Move {
    key: Key,
    old: (u32, At),
    new: At,
    bytes: u64,
}

/// What is put together of other packs.
#[derive(Default)]
struct Rewriting {
    packing: Packing,
    moves: Vec<Move>,
    /// Packs of which nothing is needed once it is written.
    emptied: Vec<u32>,
}

impl BucketPacks {
    /// Begins to delete: sees to it that nobody else has the bucket, and that what was
    /// deleted before is written down.
    pub(in super::super) fn begin_sweep(&self) -> Result<(), BlobError> {
        self.require_ours()?;
        Ok(self.write_dead()?)
    }

    fn require_ours(&self) -> Result<(), BucketError> {
        let doing = "delete anything";
        let owner = self.remote.bucket.get(OWNER, doing)?;
        let me = format!("{:016x}\n", self.me);
        match owner {
            Some(owner) if *owner == *me.as_bytes() => Ok(()),
            Some(_) => Err(self.remote.error(
                doing,
                Fault::Settings,
                "another server has begun to work with it: stop one of the two, and start the other again",
            )),
            None => {
                let why = "what the server keeps in it is not there";
                Err(self.remote.error(doing, Fault::NotThere, why))
            }
        }
    }

    /// Notes records as deleted; with `is_forced` they are so in the bucket.
    pub(in super::super) fn bury(&self, gone: &Gone, is_forced: bool) -> Result<(), BlobError> {
        let mut table = self.table();
        for (number, records) in gone {
            if let Some(pack) = table.packs.get_mut(number) {
                let offsets = records.iter().map(|(at, _)| at.offset() as u32);
                pack.unburied.extend(offsets);
            }
        }
        drop(table);
        match is_forced {
            true => Ok(self.write_dead()?),
            false => Ok(()),
        }
    }

    /// Writes down what is deleted.
    fn write_dead(&self) -> Result<(), BucketError> {
        let unburied: Vec<(u32, Pack)> = {
            let table = self.table();
            let is_unburied = |(_, pack): &(&u32, &Pack)| !pack.unburied.is_empty();
            let packs = table.packs.iter().filter(is_unburied);
            packs
                .map(|(number, pack)| (*number, pack.clone()))
                .collect()
        };
        for (number, pack) in unburied {
            let mut dead = match pack.dead_bytes {
                0 => Vec::new(),
                _ => read_dead(&self.remote, &self.dir, &pack)?,
            };
            dead.extend_from_slice(&pack.unburied);
            dead.sort_unstable();
            dead.dedup();
            let bytes = write_dead(&dead);
            self.remote
                .put(&pack.dead_path(), &bytes, "write down what is deleted")?;
            keep_dead(&self.dir, pack.name, &bytes);
            if let Some(now) = self.table().packs.get_mut(&number) {
                now.dead_bytes = bytes.len() as u64;
                // What came meanwhile stands behind it.
                let written = pack.unburied.len().min(now.unburied.len());
                now.unburied.drain(..written);
            }
        }
        Ok(())
    }

    /// Rewrites packs that are more than half dead, merges small ones, and writes down
    /// what is deleted of the others.
    pub(in super::super) fn tidy(&self) -> Result<(), BlobError> {
        self.require_ours()?;
        self.rewrite_all(MERGED_MIN)?;
        Ok(self.write_dead()?)
    }

    pub(super) fn rewrite_all(&self, merged_min: usize) -> Result<(), BlobError> {
        let _alone = self.tidying.lock().unwrap_or_else(PoisonError::into_inner);
        for kind in [Kind::Bytes, Kind::Recipe] {
            self.rewrite(&self.to_rewrite(kind, merged_min), kind)?;
        }
        Ok(())
    }

    /// Packs of this kind that are more than half dead, and small ones if there are many.
    fn to_rewrite(&self, kind: Kind, merged_min: usize) -> Vec<u32> {
        let table = self.table();
        let of_kind = table
            .packs
            .iter()
            .filter(|(_, pack)| pack.name.kind() == kind);
        let (mut chosen, mut small) = (Vec::new(), Vec::new());
        for (number, pack) in of_kind {
            if pack.live * 2 < pack.len {
                chosen.push(*number);
            } else if pack.len < SMALL_BYTES {
                small.push(*number);
            }
        }
        if small.len() >= merged_min {
            chosen.append(&mut small);
            chosen.sort_unstable();
        }
        chosen
    }

    fn rewrite(&self, numbers: &[u32], kind: Kind) -> Result<(), BlobError> {
        let mut rewriting = Rewriting::default();
        for number in numbers {
            self.empty(*number, &mut rewriting)?;
            if rewriting.packing.len() >= PACK_BYTES {
                self.end_rewriting(kind, std::mem::take(&mut rewriting))?;
            }
        }
        Ok(self.end_rewriting(kind, rewriting)?)
    }

    /// Takes what is needed of a pack.
    fn empty(&self, number: u32, rewriting: &mut Rewriting) -> Result<(), BucketError> {
        let Some(pack) = self.pack(number) else {
            return Ok(());
        };
        let Some(mut lines) = self.lines(&pack)? else {
            return self.lose(number, &pack);
        };
        if lines.is_empty() && pack.len > 0 {
            // It is not known what is in it.
            return Ok(());
        }
        lines.retain(|line| self.is_in(number, line));
        if !lines.is_empty() {
            let Some(body) = self.fetch_range(&pack, 0..pack.len)? else {
                return self.lose(number, &pack);
            };
            if self.damaged_of(&lines, &body) > 0 {
                tracing::error!(pack = %pack.name, "a pack is left as it is: some of it is damaged");
                return Ok(());
            }
            for line in lines {
                let entry = line.header.entry(line.at);
                let at = rewriting.packing.push(line.header, content(&line, &body));
                rewriting.moves.push(Move {
                    key: entry.key,
                    old: (number, entry.at),
                    new: line.header.entry(at).at,
                    bytes: line.header.record_bytes(),
                });
            }
        }
        rewriting.emptied.push(number);
        Ok(())
    }

    fn is_in(&self, number: u32, line: &Line) -> bool {
        let entry = line.header.entry(line.at);
        let place = self.index.get(&entry.key);
        place.is_some_and(|place| place.is(number, entry.at))
    }

    /// How many of these records are not what they should be.
    fn damaged_of(&self, lines: &[Line], body: &Bytes) -> usize {
        let is_damaged = |line: &&Line| !line.header.fits(content(line, body));
        let damaged = lines.iter().filter(is_damaged);
        damaged
            .map(|line| self.is_found_damaged(line.header.id))
            .count()
    }

    fn end_rewriting(&self, kind: Kind, rewriting: Rewriting) -> Result<(), BucketError> {
        if !rewriting.moves.is_empty() {
            let (number, _) = self.store(kind, rewriting.packing)?;
            for moved in &rewriting.moves {
                let is_moved = self.index.replace(&moved.key, moved.old, number, moved.new);
                if !is_moved {
                    // It was deleted meanwhile, and must be so in the new pack, too.
                    self.shrink(number, moved.bytes);
                    if let Some(pack) = self.table().packs.get_mut(&number) {
                        pack.unburied.push(moved.new.offset() as u32);
                    }
                }
            }
        }
        for number in rewriting.emptied {
            self.remove(number)?;
        }
        Ok(())
    }

    /// Removes a pack of which nothing is needed any more.
    fn remove(&self, number: u32) -> Result<(), BucketError> {
        // First from what readers look at.
        let Some(pack) = self.table().remove(number) else {
            return Ok(());
        };
        self.heads.remove(pack.name);
        self.cache.remove(pack.name);
        self.remote.delete(&pack.path(), "delete a pack")?;
        if pack.dead_bytes > 0 {
            self.remote
                .delete(&pack.dead_path(), "delete what was noted of a pack")?;
        }
        Ok(())
    }

    /// Reads all that is in the bucket and notes what is damaged.
    pub(in super::super) fn reread(&self) -> Result<(), BlobError> {
        let numbers: Vec<u32> = self.table().packs.keys().copied().collect();
        for number in numbers {
            let Some(pack) = self.pack(number) else {
                continue;
            };
            let Some(mut lines) = self.lines(&pack)? else {
                self.lose(number, &pack)?;
                continue;
            };
            lines.retain(|line| self.is_in(number, line));
            if lines.is_empty() {
                continue;
            }
            match self.fetch_range(&pack, 0..pack.len)? {
                Some(body) => drop(self.damaged_of(&lines, &body)),
                None => self.lose(number, &pack)?,
            }
        }
        Ok(())
    }

    fn small_packs(&self) -> usize {
        let table = self.table();
        let is_small = |pack: &&Pack| pack.len < SMALL_BYTES;
        table.packs.values().filter(is_small).count()
    }
}

/// The bytes of a record; none where the pack is too short.
fn content<'a>(line: &Line, body: &'a [u8]) -> &'a [u8] {
    let start = line.at + HEADER_BYTES as u64;
    let end = start + u64::from(line.header.len);
    // They fit in memory with the body.
    body.get(start as usize..end as usize).unwrap_or_default()
}

/// Merges small packs on a thread of its own, when there are many.
pub(super) fn merge_if_many(packs: &Arc<BucketPacks>) {
    if packs.small_packs() < MERGED_AT_ONCE || !packs.claims_merging() {
        return;
    }
    let merging = Arc::clone(packs);
    let work = move || {
        if let Err(error) = merging
            .require_ours()
            .map_err(BlobError::from)
            .and_then(|()| merging.rewrite_all(MERGED_AT_ONCE / 2))
        {
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                "small packs could not be merged; trying again later"
            );
        }
        merging.is_merging.store(false, Ordering::SeqCst);
    };
    let spawned = std::thread::Builder::new()
        .name("merge packs".to_owned())
        .spawn(work);
    if spawned.is_err() {
        packs.is_merging.store(false, Ordering::SeqCst);
    }
}
