//! The logs that are known now: one [`Log`] each, so that all who use one share its
//! lock, within limits of memory and open files.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::log::Log;
use super::segment::{Sizes, remove_all};
use super::{LogError, LogId};

/// Logs whose state is kept in memory, at one to two KiB each.
/// Higher: more memory.  Lower: when more logs than this are written to at a time,
/// many an append first measures its log again.
const LOGS_KNOWN_MAX: usize = 4096;

/// Log files that are kept open for writing.
/// Higher: the process may run out of file descriptors (1,024 is a usual limit).
/// Lower: more opening and closing when many logs grow at a time.
const FILES_OPEN_MAX: usize = 256;

pub(super) struct Registry {
    dir: PathBuf,
    sizes: Sizes,
    logs: Mutex<HashMap<LogId, Arc<Log>>>,
    clock: AtomicU64,
    open_files: Arc<AtomicUsize>,
}

impl Registry {
    pub(super) fn new(dir: &Path, sizes: Sizes) -> Self {
        Self {
            dir: dir.to_path_buf(),
            sizes,
            logs: Mutex::new(HashMap::new()),
            clock: AtomicU64::new(0),
            open_files: Arc::new(AtomicUsize::new(0)),
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<LogId, Arc<Log>>> {
        // The map is whole at any time, also after a panic.
        self.logs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The log of this name, whether there is one on disk or not.
    pub(super) fn get(&self, id: &LogId) -> Arc<Log> {
        let now = self.clock.fetch_add(1, Ordering::Relaxed);
        let mut logs = self.lock();
        if let Some(log) = logs.get(id) {
            log.used.store(now, Ordering::Relaxed);
            return Arc::clone(log);
        }
        if logs.len() >= LOGS_KNOWN_MAX {
            forget_oldest(&mut logs);
        }
        let log = Arc::new(Log::new(
            &self.dir,
            id.clone(),
            self.sizes,
            Arc::clone(&self.open_files),
        ));
        log.used.store(now, Ordering::Relaxed);
        logs.insert(id.clone(), Arc::clone(&log));
        log
    }

    /// Closes files when too many are open.
    pub(super) fn limit_files(&self) {
        if self.open_files.load(Ordering::Relaxed) <= FILES_OPEN_MAX {
            return;
        }
        let mut logs: Vec<Arc<Log>> = self.lock().values().map(Arc::clone).collect();
        logs.sort_by_key(|log| log.used.load(Ordering::Relaxed));
        for log in logs {
            if self.open_files.load(Ordering::Relaxed) <= FILES_OPEN_MAX / 2 {
                break;
            }
            log.close_file();
        }
    }

    /// Forgets a log that is complete, unless somebody else has it.
    pub(super) fn release(&self, id: &LogId, log: Arc<Log>) {
        let mut logs = self.lock();
        drop(log);
        if logs.get(id).is_some_and(|log| Arc::strong_count(log) == 1) {
            logs.remove(id);
        }
    }

    /// Removes the files of an attempt.  Whoever follows one of its logs hears that
    /// nothing more will come.
    pub(super) fn delete(&self, attempt: &str) -> Result<(), LogError> {
        for id in LogId::streams_of(attempt)? {
            let log = self.get(&id);
            log.forget(|| remove_all(&self.dir, attempt))
                .map_err(log.error("delete"))?;
            self.release(&id, log);
        }
        Ok(())
    }
}

/// Forgets a quarter of the logs: the longest unused of those that nobody holds.
fn forget_oldest(logs: &mut HashMap<LogId, Arc<Log>>) {
    let idle = |log: &Arc<Log>| Arc::strong_count(log) == 1;
    let mut ages: Vec<u64> = logs
        .values()
        .filter(|log| idle(log))
        .map(|log| log.used.load(Ordering::Relaxed))
        .collect();
    let last = ages.len() / 4;
    if last < ages.len() {
        let (_, oldest, _) = ages.select_nth_unstable(last);
        let oldest = *oldest;
        logs.retain(|_, log| !idle(log) || log.used.load(Ordering::Relaxed) > oldest);
    }
}
