//! Writing to the disk before anybody waits for it.

use std::fs::File;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The disk begins with what was written when there is so much of it, in bytes.
/// Higher: who waits for a large blob to be on the disk waits longer.  Lower: more commits of
/// the file system.
pub(super) const AHEAD_BYTES: u64 = 32 << 20;

/// Writing to the disk that begins before anybody waits for it.
#[derive(Default)]
pub(super) struct Ahead {
    is_busy: AtomicBool,
    /// What went wrong; whoever forces packs to the disk has to hear of it, because the
    /// system tells it once only.
    trouble: Mutex<Option<io::Error>>,
}

impl Ahead {
    /// Has the disk begin, unless it is at it.
    pub(super) fn begin(self: &Arc<Self>, file: Arc<File>) {
        if self.is_busy.swap(true, Ordering::AcqRel) {
            return;
        }
        let ahead = Arc::clone(self);
        let work = move || {
            // Held meanwhile: whoever forces packs to the disk looks here when they are
            // done, and then knows how this ended.
            let mut trouble = ahead.trouble();
            if let Err(error) = file.sync_data() {
                *trouble = Some(error);
            }
            drop(trouble);
            ahead.is_busy.store(false, Ordering::Release);
        };
        let name = "blobs-ahead".to_owned();
        if std::thread::Builder::new().name(name).spawn(work).is_err() {
            self.is_busy.store(false, Ordering::Release);
        }
    }

    pub(super) fn trouble(&self) -> MutexGuard<'_, Option<io::Error>> {
        self.trouble.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
