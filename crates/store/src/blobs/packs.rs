//! Records: many in one pack file, found through an index in memory.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, UNIX_EPOCH};

use bytes::{Bytes, BytesMut};
use grid_core::blob::BlobId;
use grid_core::time::Timestamp;

use super::ahead::{AHEAD_BYTES, Ahead};
use super::append::Writer;
use super::damaged::Damaged;
use super::disk::Disk;
use super::index::{Index, Place};
use super::pack::{At, Entry, HEADER_BYTES, Header, Kind, PackFiles, key, open_pack};
use super::{BlobError, BlobInfo, recipe};

/// Longest pack file in bytes, but for its last record.
/// Higher: rewriting one after deletions takes longer.  Lower: more files.
pub(super) const PACK_BYTES_MAX: u64 = 256 * 1024 * 1024;

/// Pack files that are kept open for reading.
/// Higher: more file descriptors.  Lower: more opening when reads are spread widely.
const PACKS_OPEN_MAX: usize = 256;

/// How often a reader looks again when the pack it was about to open is rewritten.
const LOOK_TRIES_MAX: usize = 8;

/// After this time the system has written to the disk by itself what was not forced there;
/// usually after half a minute.
/// Higher: the first who asks after a start waits for more packs.  Lower: on a disk that is
/// far behind, what a killed process stored may be taken for safe when it is not.
const WRITTEN_BACK_AFTER: Duration = Duration::from_secs(60 * 60);

/// Folders above a new one that are forced to the disk with it: that of the blobs, and that
/// of the server.
/// Higher: also those that are not ours to open.  Lower: a loss of power may take new ones.
const FOLDERS_FORCED: usize = 2;

pub(super) struct Packs {
    pub(super) dir: PathBuf,
    pub(super) disk: Disk,
    sync: bool,
    pub(super) index: Index,
    /// Whoever adds to packs holds this; it is taken before `sizes`.
    writer: Mutex<Writer>,
    pub(super) sizes: Mutex<BTreeMap<u32, Sizes>>,
    open: Mutex<HashMap<u32, Arc<File>>>,
    /// Held while packs are forced to the disk, so that whoever comes meanwhile waits.
    syncing: Mutex<()>,
    ahead: Arc<Ahead>,
    /// Records whose bytes were found to be damaged: as good as missing.
    damaged: Damaged,
}

/// How full a pack is, in bytes.
#[derive(Clone, Copy, Default)]
pub(super) struct Sizes {
    pub(super) len: u64,
    pub(super) live: u64,
}

/// A record to be stored.
#[derive(Clone, Copy)]
pub(super) struct Record<'a> {
    pub(super) id: BlobId,
    pub(super) kind: Kind,
    pub(super) bytes: &'a [u8],
}

impl<'a> Record<'a> {
    pub(super) fn of(id: BlobId, bytes: &'a [u8]) -> Self {
        let kind = Kind::Bytes;
        Self { id, kind, bytes }
    }

    /// Whether it need not be stored because of what is at its place.  Bytes take the place
    /// of a recipe: what is made of them looks for bytes.
    pub(super) fn is_at(&self, place: Option<Place>) -> bool {
        place.is_some_and(|place| self.kind == Kind::Recipe || !place.at.is_recipe())
    }
}

/// A record that was found.
pub(super) struct Found {
    pub(super) header: Header,
    stored: Stored,
}

enum Stored {
    /// Its bytes begin here.
    At(Arc<File>, u64),
    /// They were fetched.
    Here(Bytes),
}

impl Found {
    fn at(header: Header, file: Arc<File>, start: u64) -> Self {
        let stored = Stored::At(file, start);
        Self { header, stored }
    }

    pub(super) fn here(header: Header, bytes: Bytes) -> Self {
        let stored = Stored::Here(bytes);
        Self { header, stored }
    }

    pub(super) fn bytes(&self) -> io::Result<Bytes> {
        match &self.stored {
            Stored::At(file, start) => {
                let mut bytes = BytesMut::zeroed(self.header.len as usize);
                file.read_exact_at(&mut bytes, *start)?;
                Ok(bytes.freeze())
            }
            Stored::Here(bytes) => Ok(bytes.clone()),
        }
    }
}

impl Packs {
    pub(super) fn open(
        dir: &Path,
        sync: bool,
        now: Timestamp,
        disk: &Disk,
    ) -> Result<Self, BlobError> {
        let doing = |source| BlobError::io(format!("open the packs in {}", dir.display()), source);
        let (index, sizes, writer) = load(dir, now, disk).map_err(doing)?;
        Ok(Self {
            dir: dir.to_path_buf(),
            disk: disk.clone(),
            sync,
            index,
            writer: Mutex::new(writer),
            sizes: Mutex::new(sizes),
            open: Mutex::new(HashMap::new()),
            syncing: Mutex::new(()),
            ahead: Arc::default(),
            damaged: Damaged::default(),
        })
    }

    // A panic while one of these is held leaves at worst a record that is not in the
    // index: it is stored again, or found at the next start.
    fn writer(&self) -> MutexGuard<'_, Writer> {
        self.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn sizes(&self) -> MutexGuard<'_, BTreeMap<u32, Sizes>> {
        self.sizes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Where a record is, whose bytes are not known to be damaged.  It is needed from
    /// now on.
    pub(super) fn find(&self, id: BlobId) -> Option<Place> {
        self.damaged.find(&self.index, id)
    }

    /// Whether a record was found to be damaged.
    pub(super) fn is_known_damaged(&self, id: BlobId) -> bool {
        self.damaged.has(id)
    }

    /// How often a record was found to be damaged.
    pub(super) fn damages_found(&self) -> u64 {
        self.damaged.found()
    }

    /// Notes that a record is damaged: who has its bytes may store them again.
    pub(super) fn is_found_damaged(&self, id: BlobId) {
        if self.damaged.add(id) {
            tracing::error!(blob = %id, "bytes on disk are damaged");
        }
    }

    /// Stores those that are not here yet.
    pub(super) fn put(&self, records: &[Record<'_>], at: Timestamp) -> Result<(), BlobError> {
        let mut new: Vec<(Header, &[u8])> = Vec::with_capacity(records.len());
        let mut writer = self.writer();
        let mut seen = HashSet::with_capacity(records.len());
        for record in records {
            if seen.insert(record.id) && !record.is_at(self.find(record.id)) {
                let header = Header {
                    id: record.id,
                    kind: record.kind,
                    // A record's length fits.
                    len: record.bytes.len() as u32,
                    written_at: at,
                };
                new.push((header, record.bytes));
            }
        }
        self.append(&mut writer, &new)
            .map_err(|source| BlobError::storing("small blobs", source))
    }

    /// Adds records and makes them known.  All that fit in one pack are there or not
    /// together.
    fn append(&self, writer: &mut Writer, mut new: &[(Header, &[u8])]) -> io::Result<()> {
        while !new.is_empty() {
            let entries = self.append_some(writer, new)?;
            let (now, later) = new.split_at(entries.len());
            for (entry, (header, _)) in entries.iter().zip(now) {
                self.learn(writer.number, entry, header);
            }
            new = later;
        }
        Ok(())
    }

    /// Writes as many records as fit in one pack; gives where they are.
    fn append_some(&self, writer: &mut Writer, new: &[(Header, &[u8])]) -> io::Result<Vec<Entry>> {
        if writer.len >= PACK_BYTES_MAX {
            writer.turn(&self.dir)?;
        }
        let (start, mut end) = (writer.len, writer.len);
        let mut entries = Vec::with_capacity(new.len());
        for (header, _) in new {
            if end >= PACK_BYTES_MAX {
                break;
            }
            entries.push(header.entry(end));
            end += header.record_bytes();
        }
        let now = new.get(..entries.len()).unwrap_or_default();
        writer.append(now, self.sync)?;
        if writer.unwritten >= AHEAD_BYTES {
            writer.unwritten = 0;
            if let Some(file) = writer.file.clone() {
                self.ahead.begin(file);
            }
        }
        writer.index(&entries);
        let mut sizes = self.sizes();
        let sizes = sizes.entry(writer.number).or_default();
        sizes.len = end;
        sizes.live += end - start;
        Ok(entries)
    }

    fn learn(&self, pack: u32, entry: &Entry, header: &Header) {
        let mut mark = self.index.current();
        if entry.at.is_recipe() {
            // What it is made of may be older than the collection that is under way.
            mark = mark.wrapping_sub(1);
        }
        let place = Place::new(pack, entry.at, mark);
        let old = self.index.insert(entry.key, place);
        // Also where the damaged one was deleted or forgotten meanwhile.
        self.damaged.remove(&entry.key);
        // What was there before was damaged, and now takes up room for nothing.
        if let Some(old) = old
            && let Some(sizes) = self.sizes().get_mut(&old.pack())
        {
            sizes.live = sizes.live.saturating_sub(header.record_bytes());
        }
    }

    /// Moves records to the pack that is written to, those that are still where they
    /// were.
    pub(super) fn move_records(
        &self,
        from: u32,
        records: &[(At, Header, Bytes)],
    ) -> io::Result<()> {
        let mut writer = self.writer();
        let mut rest = records;
        while !rest.is_empty() {
            let new: Vec<(Header, &[u8])> = rest.iter().map(|(_, h, b)| (*h, &b[..])).collect();
            let entries = self.append_some(&mut writer, &new)?;
            let (now, later) = rest.split_at(entries.len());
            for (entry, (at, header, _)) in entries.iter().zip(now) {
                if !self
                    .index
                    .replace(&entry.key, (from, *at), writer.number, entry.at)
                    && let Some(sizes) = self.sizes().get_mut(&writer.number)
                {
                    sizes.live = sizes.live.saturating_sub(header.record_bytes());
                }
            }
            rest = later;
        }
        Ok(())
    }

    /// Has new records go to another pack than this.
    pub(super) fn leave(&self, number: u32) -> io::Result<()> {
        let mut writer = self.writer();
        if writer.number == number {
            writer.turn(&self.dir)?;
        }
        Ok(())
    }

    /// Forces everything to the disk that was written.  Who comes while others do waits for
    /// them, and then has to do only what was written since.
    pub(super) fn sync(&self) -> io::Result<()> {
        let _one = self.syncing.lock().unwrap_or_else(PoisonError::into_inner);
        let (dirty, has_new_packs) = {
            let mut writer = self.writer();
            let has_new_packs = std::mem::take(&mut writer.has_new_packs);
            (std::mem::take(&mut writer.dirty), has_new_packs)
        };
        let mut result = Ok(());
        for (number, file) in &dirty {
            result = result.and_then(|()| self.sync_pack(*number, file.as_deref()));
        }
        if has_new_packs {
            result = result.and_then(|()| self.disk.sync(&File::open(&self.dir)?));
        }
        // The system tells of trouble once only, and that may have been there.
        if let Some(trouble) = self.ahead.trouble().take() {
            result = result.and(Err(trouble));
        }
        if result.is_err() {
            let mut writer = self.writer();
            writer.has_new_packs |= has_new_packs;
            for (number, file) in dirty {
                writer.dirty.entry(number).or_insert(file);
            }
        }
        result
    }

    fn sync_pack(&self, number: u32, file: Option<&File>) -> io::Result<()> {
        if let Some(file) = file {
            return self.disk.sync(file);
        }
        match File::open(PackFiles::new(&self.dir, number).pack) {
            Ok(file) => self.disk.sync(&file),
            // Nothing was needed of it any more.
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Forces to the disk what was written; whoever does so next hears of trouble.
    pub(super) fn sync_early(&self) {
        if let Err(error) = self.sync() {
            *self.ahead.trouble() = Some(error);
        }
    }

    /// The record of this name, and that it is needed from now on.
    pub(super) fn get(&self, id: BlobId) -> Result<Option<Found>, BlobError> {
        let doing = |source| BlobError::io(format!("open blob {id}"), source);
        for _ in 0..LOOK_TRIES_MAX {
            let Some(place) = self.index.get(&key(&id)) else {
                return Ok(None);
            };
            let Some(file) = self.pack(place.pack()).map_err(doing)? else {
                // The pack was rewritten since: the blob is somewhere else now.
                continue;
            };
            let offset = place.at.offset();
            return match Header::read(&file, offset).map_err(doing)? {
                Some(header) if header.id == id => {
                    let start = offset + HEADER_BYTES as u64;
                    Ok(Some(Found::at(header, file, start)))
                }
                _ => {
                    self.is_found_damaged(id);
                    Err(BlobError::Corrupt { id })
                }
            };
        }
        Err(BlobError::Corrupt { id })
    }

    /// The bytes of a record of a known length, in one read; `None` when there is none
    /// of this length.  They are compared with their name only if this is asked for.
    pub(super) fn read(
        &self,
        id: BlobId,
        len: usize,
        is_verified: bool,
    ) -> Result<Option<Bytes>, BlobError> {
        let doing = |source| BlobError::io(format!("read blob {id}"), source);
        for _ in 0..LOOK_TRIES_MAX {
            let Some(place) = self.index.get(&key(&id)) else {
                return Ok(None);
            };
            let Some(file) = self.pack(place.pack()).map_err(doing)? else {
                continue;
            };
            let mut bytes = BytesMut::zeroed(HEADER_BYTES + len);
            match file.read_exact_at(&mut bytes, place.at.offset()) {
                Err(error) if error.kind() != io::ErrorKind::UnexpectedEof => {
                    return Err(doing(error));
                }
                Err(_) => bytes.truncate(0),
                Ok(()) => {}
            }
            let bytes = bytes.freeze();
            let header = bytes.first_chunk().and_then(Header::parse);
            return match header {
                Some(header) if header.id == id && header.len as usize != len => Ok(None),
                Some(header) if header.id == id => {
                    let bytes = bytes.slice(HEADER_BYTES..);
                    if is_verified && super::hash(&bytes) != id {
                        self.is_found_damaged(id);
                        return Err(BlobError::Corrupt { id });
                    }
                    Ok(Some(bytes))
                }
                _ => {
                    self.is_found_damaged(id);
                    Err(BlobError::Corrupt { id })
                }
            };
        }
        Err(BlobError::Corrupt { id })
    }

    /// An open pack; `None` when it is gone.
    pub(super) fn pack(&self, number: u32) -> io::Result<Option<Arc<File>>> {
        let mut packs = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(file) = packs.get(&number) {
            return Ok(Some(Arc::clone(file)));
        }
        let file = match File::open(PackFiles::new(&self.dir, number).pack) {
            Ok(file) => Arc::new(file),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        if packs.len() >= PACKS_OPEN_MAX {
            packs.clear();
        }
        packs.insert(number, Arc::clone(&file));
        Ok(Some(file))
    }

    /// Removes a pack of which nothing is needed any more.
    pub(super) fn remove(&self, number: u32) -> io::Result<()> {
        self.sizes().remove(&number);
        self.writer().dirty.remove(&number);
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.remove(&number);
        drop(open);
        PackFiles::new(&self.dir, number).remove(&self.disk)
    }

    /// Tells of every blob, as long as somebody listens; not of those whose header is
    /// damaged, which are noted.
    pub(super) fn list(&self, tell: &mut impl FnMut(BlobInfo) -> bool) -> Result<(), BlobError> {
        let doing = |source| BlobError::io("list the blobs", source);
        let packs: Vec<u32> = self.sizes().keys().copied().collect();
        for (number, entries) in self.index.places(packs) {
            let Some(pack) = self.pack(number).map_err(doing)? else {
                continue;
            };
            let len = pack.metadata().map_err(doing)?.len();
            for entry in entries {
                let header = entry.header(&pack, len).map_err(doing)?;
                if !self.is_in(number, &entry) {
                    continue;
                }
                let Some(header) = header else {
                    self.is_header_damaged(number, &entry);
                    continue;
                };
                let start = entry.at.offset() + HEADER_BYTES as u64;
                let found = Found::at(header, Arc::clone(&pack), start);
                if !tell(info(&found).map_err(doing)?) {
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    /// Whether a record is still where it was.
    pub(super) fn is_in(&self, pack: u32, entry: &Entry) -> bool {
        let place = self.index.get(&entry.key);
        place.is_some_and(|place| place.is(pack, entry.at))
    }

    /// Notes that a record cannot be read because its header is damaged: who has its bytes
    /// may store them again.
    pub(super) fn is_header_damaged(&self, pack: u32, entry: &Entry) {
        if self.damaged.add_key(entry.key) {
            let at = entry.at.offset();
            tracing::error!(pack, at, "the header of a blob is damaged on disk");
        }
    }
}

fn info(found: &Found) -> io::Result<BlobInfo> {
    let header = &found.header;
    let len = match header.kind {
        Kind::Bytes => u64::from(header.len),
        // One that is damaged has no length.
        Kind::Recipe => {
            recipe::read(header.id, &found.bytes()?).map_or(0, |recipe| recipe.content_bytes())
        }
    };
    Ok(BlobInfo {
        id: header.id,
        len,
        written_at: header.written_at,
        is_chunked: header.kind == Kind::Recipe,
    })
}

type Loaded = (Index, BTreeMap<u32, Sizes>, Writer);

/// Whether an earlier process may have written to a pack what is not on the disk yet.
fn is_recent(pack: &Path, now: Timestamp) -> io::Result<bool> {
    let now = Duration::from_millis(u64::try_from(now.as_millis()).unwrap_or_default());
    let changed = fs::metadata(pack)?.modified()?;
    let changed = changed.duration_since(UNIX_EPOCH).unwrap_or_default();
    // A time to come is that of a clock which was set.
    Ok(changed + WRITTEN_BACK_AFTER >= now)
}

/// Makes the folder, if it is not there, to stay after a loss of power.
fn make_folder(dir: &Path, disk: &Disk) -> io::Result<()> {
    if dir.try_exists()? {
        return Ok(());
    }
    fs::create_dir_all(dir)?;
    let above = dir.ancestors().skip(1).take(FOLDERS_FORCED);
    for above in above.filter(|above| !above.as_os_str().is_empty()) {
        disk.sync(&File::open(above)?)?;
    }
    Ok(())
}

/// Reads what packs there are.
fn load(dir: &Path, now: Timestamp, disk: &Disk) -> io::Result<Loaded> {
    make_folder(dir, disk)?;
    let mut numbers = Vec::new();
    let mut beside = Vec::new();
    for file in fs::read_dir(dir)? {
        let path = file?.path();
        let number = path.file_stem().and_then(|stem| stem.to_str());
        let Some(number) = number.and_then(|number| number.parse::<u32>().ok()) else {
            continue;
        };
        match path.extension().and_then(|extension| extension.to_str()) {
            Some("pack") => numbers.push(number),
            Some("idx" | "dead") => beside.push((number, path)),
            _ => {}
        }
    }
    numbers.sort_unstable();
    for (number, path) in beside {
        if numbers.binary_search(&number).is_err() {
            // Of a pack that is gone; the next pack of this number must not meet it.
            disk.remove(&path)?;
        }
    }
    let index = Index::new();
    let mut sizes: BTreeMap<u32, Sizes> = BTreeMap::new();
    let mut writer = Writer::new(dir, disk, 1, 0, 0);
    let mut doubled: BTreeMap<u32, Vec<(u32, u32)>> = BTreeMap::new();
    let mut recent = BTreeMap::new();
    for number in numbers {
        let files = PackFiles::new(dir, number);
        if is_recent(&files.pack, now)? {
            recent.insert(number, None);
        }
        let found = open_pack(&files, disk)?;
        for entry in found.live {
            // Where a rewrite was cut short a record is there twice: the later one counts.
            let place = Place::new(number, entry.at, 0);
            if let Some(old) = index.insert(entry.key, place) {
                // An offset fits.
                let offset = old.at.offset() as u32;
                doubled.entry(old.pack()).or_default().push((offset, 0));
            }
        }
        sizes.insert(
            number,
            Sizes {
                len: found.len,
                live: found.live_bytes,
            },
        );
        writer = Writer::new(dir, disk, number, found.len, found.indexed);
    }
    writer.has_new_packs = !recent.is_empty();
    writer.dirty = recent;
    for (number, records) in doubled {
        // When the later one is deleted, the earlier must not come back.
        PackFiles::new(dir, number).bury(disk, &records)?;
    }
    Ok((index, sizes, writer))
}
