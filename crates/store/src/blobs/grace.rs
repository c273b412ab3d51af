//! Which blobs were stored or asked for lately, and so must not be deleted yet.
//!
//! Two sets of short hashes, the older of which is dropped once per grace period: a
//! blob stays for one to two periods.  Both are also on disk, so that a restart neither
//! forgets what was promised nor begins to wait anew.
//!
//! Only time counts during which a store is open, by a monotonic clock: a clock that is
//! set, or years on a shelf, delete nothing.
//!
//! - `clock`: the number of the present period, how much of it has passed, and which of
//!   the two sets stand for everything.
//! - `<number>.touched`: the hashes of one period, 8 bytes each.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io;
use std::mem;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use grid_core::blob::BlobId;
use tokio::time::Instant;

use super::disk::Disk;
use super::pack::{Key, key};

/// Blobs that one period remembers, at some 10 to 20 bytes each.
/// Higher: more memory while very many blobs are uploaded.  Lower: a period with more
/// blobs than this keeps every blob, and nothing is deleted.
const TOUCHED_MAX: usize = 2_000_000;

/// How often it is written down how much of the period has passed.
/// Higher: more of it is waited for again after a crash.  Lower: more small writes.
const SAVE_EVERY: Duration = Duration::from_secs(60);

pub(super) struct Grace {
    period: Duration,
    dir: PathBuf,
    disk: Disk,
    touched: Mutex<Touched>,
}

struct Touched {
    /// The number of the period.
    number: u64,
    /// What had passed of it at `since`.
    passed: Duration,
    since: Instant,
    saved: Instant,
    /// Where the hashes of the period are kept, and its length.
    file: Option<(File, u64)>,
    now: Generation,
    before: Generation,
}

#[derive(Default)]
struct Generation {
    ids: HashSet<u64>,
    all: bool,
}

impl Generation {
    fn everything() -> Self {
        let ids = HashSet::new();
        Self { ids, all: true }
    }

    fn has(&self, key: u64) -> bool {
        self.all || self.ids.contains(&key)
    }
}

impl Grace {
    /// Reads what was remembered.  Where nothing was, everything is young.
    pub(super) fn open(dir: &Path, period: Duration, disk: &Disk) -> io::Result<Self> {
        fs::create_dir_all(dir)?;
        let now = Instant::now();
        let clock = fs::read_to_string(dir.join("clock")).unwrap_or_default();
        let (number, passed, alls) = parse(&clock).unwrap_or((1, Duration::ZERO, (false, true)));
        let read = |number: u64, all: bool| match (all, fs::read(file_of(dir, number))) {
            (false, Ok(bytes)) => {
                let (keys, _) = bytes.as_chunks::<8>();
                let ids: HashSet<u64> = keys.iter().map(|key| u64::from_le_bytes(*key)).collect();
                Generation { ids, all: false }
            }
            (false, Err(error)) if error.kind() == io::ErrorKind::NotFound => Generation::default(),
            _ => Generation::everything(),
        };
        let touched = Touched {
            number,
            passed,
            since: now,
            saved: now,
            file: None,
            now: read(number, alls.0),
            before: read(number.saturating_sub(1), alls.1),
        };
        let grace = Self {
            period,
            dir: dir.to_path_buf(),
            disk: disk.clone(),
            touched: Mutex::new(touched),
        };
        grace.remove_old(number);
        if !grace.period.is_zero() {
            grace.save(&mut grace.touched(), now);
        }
        Ok(grace)
    }

    fn touched(&self) -> MutexGuard<'_, Touched> {
        self.touched.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins the grace of these blobs anew.
    pub(super) fn touch<'a>(&self, ids: impl IntoIterator<Item = &'a BlobId>) {
        self.touch_at(ids, Instant::now());
    }

    /// Whether a blob is within its grace.
    pub(super) fn covers(&self, key: &Key) -> bool {
        self.covers_at(key, Instant::now())
    }

    /// Writes down how much time has passed.
    pub(super) fn tick(&self) {
        if !self.period.is_zero() {
            let now = Instant::now();
            let mut touched = self.touched();
            self.turn(&mut touched, now);
            self.save(&mut touched, now);
        }
    }

    fn touch_at<'a>(&self, ids: impl IntoIterator<Item = &'a BlobId>, now: Instant) {
        if self.period.is_zero() {
            return;
        }
        let mut touched = self.touched();
        self.turn(&mut touched, now);
        if touched.now.all {
            return;
        }
        let mut new = Vec::new();
        for id in ids {
            let key = key(id)[0];
            if touched.now.ids.insert(key) {
                new.extend_from_slice(&key.to_le_bytes());
            }
        }
        let is_kept = touched.now.ids.len() <= TOUCHED_MAX;
        if new.is_empty() || (is_kept && self.append(&mut touched, &new).is_ok()) {
            return;
        }
        // Too many to remember, or no room to: everything stays.
        touched.now = Generation::everything();
        self.save(&mut touched, now);
    }

    fn append(&self, touched: &mut Touched, new: &[u8]) -> io::Result<()> {
        let (file, len) = match touched.file.take() {
            Some(open) => open,
            None => {
                let file = self.disk.open(&file_of(&self.dir, touched.number))?;
                let len = file.metadata()?.len() / 8 * 8;
                (file, len)
            }
        };
        self.disk.write_at(&file, new, len)?;
        touched.file = Some((file, len + new.len() as u64));
        Ok(())
    }

    fn covers_at(&self, key: &Key, now: Instant) -> bool {
        if self.period.is_zero() {
            return false;
        }
        let mut touched = self.touched();
        self.turn(&mut touched, now);
        touched.now.has(key[0]) || touched.before.has(key[0])
    }

    /// Begins the next period when this one is over.
    fn turn(&self, touched: &mut Touched, now: Instant) {
        let passed = touched.passed + now.saturating_duration_since(touched.since);
        if passed < self.period {
            if now.saturating_duration_since(touched.saved) >= SAVE_EVERY {
                self.save(touched, now);
            }
            return;
        }
        let last = mem::take(&mut touched.now);
        // What was touched in the last period is over too if nobody asked for two.
        let is_long_ago = passed >= self.period * 2;
        touched.before = if is_long_ago {
            Generation::default()
        } else {
            last
        };
        touched.number += if is_long_ago { 2 } else { 1 };
        touched.passed = Duration::ZERO;
        touched.since = now;
        touched.file = None;
        self.save(touched, now);
        self.remove_old(touched.number);
    }

    /// A clock that cannot be written only makes things stay for longer.
    fn save(&self, touched: &mut Touched, now: Instant) {
        let passed = touched.passed + now.saturating_duration_since(touched.since);
        touched.saved = now;
        let text = format!(
            "{} {} {} {}\n",
            touched.number,
            passed.as_millis(),
            touched.now.all,
            touched.before.all
        );
        let (path, new) = (self.dir.join("clock"), self.dir.join("clock.new"));
        let write = || {
            let file = self.disk.open(&new)?;
            self.disk.set_len(&file, 0)?;
            self.disk.write_at(&file, text.as_bytes(), 0)?;
            self.disk.rename(&new, &path)
        };
        if let Err(error) = write() {
            tracing::debug!(%error, "could not write down how old blobs are");
        }
    }

    fn remove_old(&self, number: u64) {
        let Ok(files) = fs::read_dir(&self.dir) else {
            return;
        };
        for path in files.flatten().map(|file| file.path()) {
            let stem = path.file_stem().and_then(|stem| stem.to_str());
            let is_old = stem
                .and_then(|stem| stem.parse::<u64>().ok())
                .is_some_and(|of| of + 1 < number || of > number);
            if is_old && let Err(error) = self.disk.remove(&path) {
                tracing::debug!(%error, "could not remove what is not remembered any more");
            }
        }
    }
}

fn file_of(dir: &Path, number: u64) -> PathBuf {
    dir.join(format!("{number}.touched"))
}

type Clock = (u64, Duration, (bool, bool));

fn parse(clock: &str) -> Option<Clock> {
    let mut words = clock.strip_suffix('\n')?.split(' ');
    let number = words.next()?.parse().ok()?;
    let passed = Duration::from_millis(words.next()?.parse().ok()?);
    let alls = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
    words.next().is_none().then_some((number, passed, alls))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PERIOD: Duration = Duration::from_secs(100);

    fn open(dir: &Path) -> Grace {
        Grace::open(dir, PERIOD, &Disk::default()).unwrap()
    }

    fn at(seconds: u64) -> Instant {
        Instant::now() + Duration::from_secs(seconds)
    }

    #[test]
    fn a_blob_is_kept_for_at_least_the_period_and_less_than_two() {
        let dir = tempfile::tempdir().unwrap();
        let [old, young, never] = [1, 2, 3].map(|n| BlobId::from_bytes([n; 32]));
        let grace = open(dir.path());
        let covers = |id: BlobId, seconds| grace.covers_at(&key(&id), at(seconds));
        // Everything is young where nothing is remembered.
        assert!(covers(never, 0));
        assert!(covers(never, 90));
        grace.touch_at(&[old], at(95));
        assert!(!covers(never, 101));
        grace.touch_at(&[young], at(150));
        assert!(covers(old, 194));
        assert!(covers(young, 249));
        assert!(!covers(old, 295));
        assert!(!covers(young, 500));
    }

    #[test]
    fn a_restart_neither_forgets_nor_begins_anew() {
        let dir = tempfile::tempdir().unwrap();
        let [old, young, never] = [1, 2, 3].map(|n| BlobId::from_bytes([n; 32]));
        let grace = open(dir.path());
        grace.touch_at(&[old], at(50));
        grace.touch_at(&[young], at(150));
        grace.save(&mut grace.touched(), at(170));
        drop(grace);
        // 20 of 100 seconds had passed since the turn.
        for _ in 0..2 {
            let grace = open(dir.path());
            let covers = |id: BlobId, seconds| grace.covers_at(&key(&id), at(seconds));
            assert!(!covers(never, 0));
            assert!(covers(old, 30) && covers(young, 30));
        }
        let grace = open(dir.path());
        assert!(grace.covers_at(&key(&old), at(75)));
        assert!(!grace.covers_at(&key(&old), at(85)));
        assert!(grace.covers_at(&key(&young), at(180)));
        assert!(!grace.covers_at(&key(&young), at(190)));
        assert!(fs::read_dir(dir.path()).unwrap().count() <= 3);
    }

    #[test]
    fn what_cannot_be_read_keeps_everything() {
        let dir = tempfile::tempdir().unwrap();
        let never = BlobId::from_bytes([3; 32]);
        for clock in ["", "1 2", "7 8 maybe true\n", "1 2 false false"] {
            fs::write(dir.path().join("clock"), clock).unwrap();
            assert!(open(dir.path()).covers(&key(&never)), "{clock}");
        }
    }
}
