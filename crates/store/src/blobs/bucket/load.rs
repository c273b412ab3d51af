//! Beginning to work with a bucket: is it there, is it ours, what is in it.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::fs;
use std::io;
use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::sync::{Condvar, Mutex};

use bytes::Bytes;

use super::super::BlobError;
use super::super::damaged::Damaged;
use super::super::disk::Disk;
use super::super::index::{Index, Place};
use super::cache::Cache;
use super::client::{Bucket, BucketError, Fault, Object};
use super::group::Groups;
use super::heads::{Heads, remove_others, write_whole};
use super::object::{Line, Name, TAIL_BYTES, end_bytes, parse_dead, parse_end};
use super::{BucketPacks, OWNER, Pack, Remote, Table, local_dir};

/// How much of a pack's end is read at first, in bytes.
/// Higher: more is read in vain.  Lower: more packs need a second request.
const END_BYTES_FIRST: u64 = 32 * 1024;

/// Packs whose ends are read together.
/// Higher: more memory at a first start.  Lower: more waiting.
const ENDS_TOGETHER: usize = 256;

/// Says which bucket a local folder belongs to.
const LOCATION: &str = "location";

impl BucketPacks {
    /// Opens a bucket, with this folder for what is kept of it here.
    pub(in super::super) fn open(
        dir: &Path,
        bucket: &Bucket,
        disk: &Disk,
    ) -> Result<Self, BlobError> {
        belongs(dir, bucket)?;
        let packs = Self::open_beside(dir, bucket, disk)?;
        packs.name_bucket()?;
        Ok(packs)
    }

    /// From now on the folder's blobs are in this bucket and nowhere else.
    pub(super) fn name_bucket(&self) -> Result<(), BlobError> {
        let doing =
            |source| BlobError::io(format!("use the folder {}", self.dir.display()), source);
        let name = self.remote.bucket.name();
        write_whole(&self.dir.join(LOCATION), name.as_bytes()).map_err(doing)
    }

    /// Opens it, whatever else is in the folder.
    pub(super) fn open_beside(dir: &Path, bucket: &Bucket, disk: &Disk) -> Result<Self, BlobError> {
        let local = local_dir(dir);
        let doing = |source| BlobError::io(format!("use the folder {}", local.display()), source);
        fs::create_dir_all(local.join("dead")).map_err(doing)?;
        let me = random().map_err(doing)?;
        let remote = Remote {
            bucket: bucket.clone(),
            disk: disk.clone(),
        };
        if bucket.is_written() {
            claim(&remote, me)?;
        }
        let heads = Heads::open(local.join("heads")).map_err(doing)?;
        let index = Index::new();
        let table = Loading {
            remote: &remote,
            dir: &local,
            heads: &heads,
            index: &index,
        }
        .table()?;
        let lengths: HashMap<Name, u64> = table
            .packs
            .values()
            .map(|pack| (pack.name, pack.len))
            .collect();
        let len_of = |name| lengths.get(&name).copied();
        let cache =
            Cache::open(local.join("cache"), bucket.cache_bytes(), len_of).map_err(doing)?;
        Ok(Self {
            remote,
            dir: local,
            heads,
            cache,
            index,
            table: Mutex::new(table),
            damaged: Damaged::default(),
            groups: Mutex::new(Groups::default()),
            changed: Condvar::new(),
            tidying: Mutex::default(),
            is_merging: AtomicBool::new(false),
            me,
        })
    }
}

/// Refuses a folder whose blobs are somewhere else.
pub(in super::super) fn belongs_nowhere(dir: &Path) -> Result<(), BlobError> {
    match fs::read_to_string(local_dir(dir).join(LOCATION)) {
        Ok(there) => Err(BlobError::Elsewhere { there }),
        Err(_) => Ok(()),
    }
}

fn belongs(dir: &Path, bucket: &Bucket) -> Result<(), BlobError> {
    let has =
        |name: &str| fs::read_dir(dir.join(name)).is_ok_and(|mut files| files.next().is_some());
    if has("packs") || has("large") {
        return Err(BlobError::Unmoved {
            bucket: bucket.name().to_owned(),
        });
    }
    match fs::read_to_string(local_dir(dir).join(LOCATION)) {
        Ok(there) if there != bucket.name() => Err(BlobError::Elsewhere { there }),
        _ => Ok(()),
    }
}

fn random() -> io::Result<u64> {
    let mut bytes = [0; 8];
    rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty())?;
    Ok(u64::from_le_bytes(bytes))
}

/// Says in the bucket that it is ours now; so it is known that it can be written, read
/// and deleted from, before anybody relies on that.
fn claim(remote: &Remote, me: u64) -> Result<(), BucketError> {
    let name = Bytes::from(format!("{me:016x}\n"));
    let probe = format!("probe-{me:016x}");
    remote.put(&probe, &name, "write anything")?;
    let read = remote.bucket.get(&probe, "read anything")?;
    if read.as_ref() != Some(&name) {
        let why = "what was written there is not what can be read";
        return Err(remote.error("read anything", Fault::Away, why));
    }
    remote.delete(&probe, "delete anything")?;
    remote.put(OWNER, &name, "write its owner")
}

/// What is in a pack.
struct End {
    name: Name,
    /// Length of the object.
    size: u64,
    lines: Vec<Line>,
    /// Length of its records.
    len: u64,
}

struct Loading<'a> {
    remote: &'a Remote,
    dir: &'a Path,
    heads: &'a Heads,
    index: &'a Index,
}

impl Loading<'_> {
    /// All packs; the index knows what is in them.
    fn table(&self) -> Result<Table, BlobError> {
        let doing =
            |source| BlobError::io(format!("use the folder {}", self.dir.display()), source);
        let packs = named(self.remote.bucket.list("packs", "list the packs")?);
        let mut dead = named(self.remote.bucket.list("dead", "list what is deleted")?);
        let is_there = |name: Name| packs.contains_key(&name);
        self.heads.keep_only(is_there).map_err(doing)?;
        remove_others(&self.dir.join("dead"), is_there).map_err(doing)?;
        let is_left_over = |name: Name| self.remote.bucket.is_written() && !is_there(name);
        for (name, _) in dead.iter().filter(|(name, _)| is_left_over(**name)) {
            // Of a pack that is gone.
            self.remote.delete(
                &format!("dead/{name}"),
                "tidy up in the list of what is deleted",
            )?;
        }
        dead.retain(|name, _| is_there(*name));
        let mut table = Table {
            packs: BTreeMap::new(),
            next: 1,
            free: VecDeque::new(),
            order: packs.keys().map(|name| name.order).max().unwrap_or(0),
        };
        let all: Vec<(Name, u64)> = packs.into_iter().collect();
        for some in all.chunks(ENDS_TOGETHER) {
            for end in self.ends(some)? {
                let name = end.name;
                let dead_bytes = dead.get(&name).copied().unwrap_or(0);
                let pack = Pack {
                    name,
                    len: end.len,
                    end_bytes: end.size - end.len,
                    live: 0,
                    dead_bytes,
                    unburied: Vec::new(),
                };
                let gone = match dead_bytes {
                    0 => HashSet::new(),
                    _ => read_dead(self.remote, self.dir, &pack)?
                        .into_iter()
                        .collect(),
                };
                self.take_up(&mut table, pack, &end.lines, &gone);
            }
        }
        Ok(table)
    }

    /// What is in these packs, and how long they are.  Of one whose end is damaged
    /// nothing is known; it is left alone.
    fn ends(&self, packs: &[(Name, u64)]) -> Result<Vec<End>, BucketError> {
        let mut ends = Vec::with_capacity(packs.len());
        let mut lacking = Vec::new();
        for (name, size) in packs {
            match self.heads.read(*name) {
                Some((lines, len)) if len < *size => ends.push(End {
                    name: *name,
                    size: *size,
                    lines,
                    len,
                }),
                _ => lacking.push((*name, *size)),
            }
        }
        let first = self.fetch(&lacking, |_| END_BYTES_FIRST)?;
        let mut long = Vec::new();
        for ((name, size), bytes) in lacking.iter().zip(&first) {
            let bytes = bytes.as_deref().unwrap_or_default();
            match end_bytes(bytes) {
                Some(len) if len > bytes.len() as u64 => long.push((*name, *size, len)),
                Some(len) => {
                    // It is not longer than what was read.
                    let end = &bytes[bytes.len() - len as usize..];
                    ends.extend(self.learn_end(*name, *size, end));
                }
                None => damaged(*name),
            }
        }
        let lengths: HashMap<Name, u64> = long.iter().map(|(name, _, len)| (*name, *len)).collect();
        let long: Vec<(Name, u64)> = long
            .into_iter()
            .map(|(name, size, _)| (name, size))
            .collect();
        let second = self.fetch(&long, |name| lengths.get(&name).copied().unwrap_or(0))?;
        for ((name, size), end) in long.iter().zip(&second) {
            ends.extend(self.learn_end(*name, *size, end.as_deref().unwrap_or_default()));
        }
        ends.sort_unstable_by_key(|end| end.name);
        Ok(ends)
    }

    fn fetch(
        &self,
        packs: &[(Name, u64)],
        bytes_of: impl Fn(Name) -> u64,
    ) -> Result<Vec<Option<Bytes>>, BucketError> {
        let parts = packs.iter().map(|(name, size)| {
            // Nothing that is shorter than this is a pack.
            let from = size.saturating_sub(bytes_of(*name).max(TAIL_BYTES as u64));
            (format!("packs/{name}"), from..*size)
        });
        let doing = "read what is in the packs";
        self.remote.bucket.get_ranges(parts.collect(), doing)
    }

    fn learn_end(&self, name: Name, size: u64, end: &[u8]) -> Option<End> {
        let parsed = parse_end(end).filter(|(_, len)| len + end.len() as u64 == size);
        let Some((lines, len)) = parsed else {
            damaged(name);
            return None;
        };
        if let Err(error) = self.heads.write(name, end) {
            tracing::warn!(%error, "could not keep what is in a pack on the local disk");
        }
        Some(End {
            name,
            size,
            lines,
            len,
        })
    }

    fn take_up(&self, table: &mut Table, mut pack: Pack, lines: &[Line], gone: &HashSet<u32>) {
        let is_alive = |line: &&Line| !gone.contains(&(line.at as u32));
        pack.live = lines
            .iter()
            .filter(is_alive)
            .map(|line| line.header.record_bytes())
            .sum();
        let Some(number) = table.insert(pack) else {
            tracing::error!("there are more packs in the bucket than can be known");
            return;
        };
        for line in lines.iter().filter(is_alive) {
            let entry = line.header.entry(line.at);
            // Where a rewrite was cut short a record is there twice: the later one counts.
            if let Some(old) = self
                .index
                .insert(entry.key, Place::new(number, entry.at, 0))
                && let Some(pack) = table.packs.get_mut(&old.pack())
            {
                pack.live = pack.live.saturating_sub(line.header.record_bytes());
                pack.unburied.push(old.at.offset() as u32);
            }
        }
    }
}

fn damaged(name: Name) {
    tracing::error!(pack = %name, "the end of a pack in the bucket is damaged: what is in it is not known");
}

/// What of these are packs, by their names, and their lengths.
fn named(objects: Vec<Object>) -> BTreeMap<Name, u64> {
    objects
        .into_iter()
        .filter_map(|object| Some((object.name.parse().ok()?, object.bytes)))
        .collect()
}

/// Which records of a pack are deleted.
pub(super) fn read_dead(remote: &Remote, dir: &Path, pack: &Pack) -> Result<Vec<u32>, BucketError> {
    let path = dir.join("dead").join(pack.name.to_string());
    if let Ok(bytes) = fs::read(&path)
        && bytes.len() as u64 == pack.dead_bytes
        && let Some(dead) = parse_dead(&bytes)
    {
        return Ok(dead);
    }
    let bytes = remote
        .bucket
        .get(&pack.dead_path(), "read what is deleted")?;
    let Some(bytes) = bytes else {
        return Ok(Vec::new());
    };
    let Some(dead) = parse_dead(&bytes) else {
        // They come back to life, and are deleted again.
        tracing::warn!(pack = %pack.name, "a list of deleted blobs in the bucket is damaged");
        return Ok(Vec::new());
    };
    keep_dead(dir, pack.name, &bytes);
    Ok(dead)
}

/// Keeps what is deleted of a pack.
pub(super) fn keep_dead(dir: &Path, name: Name, bytes: &[u8]) {
    let path = dir.join("dead").join(name.to_string());
    if let Err(error) = write_whole(&path, bytes) {
        tracing::debug!(%error, "could not keep a list of deleted blobs on the local disk");
        let _ = fs::remove_file(path);
    }
}
