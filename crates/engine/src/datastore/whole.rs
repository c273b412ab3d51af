//! Blocks of which every file was there lately.
//!
//! Most of a version is what the version before was, block by block.  Its files were looked for
//! when that one was made: as long as nothing can have gone since, they are there, and only
//! what is new has to be looked for.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use grid_core::blob::BlobId;
use grid_store::blobs::{Blobs, Moment};

/// Blocks that are remembered, some 80 bytes each: versions of sixty million files.  Higher:
/// more memory; lower: files of larger versions are looked for each time.
const BLOCKS_MAX: usize = 65_536;

/// When the files of blocks were last looked for.
#[derive(Default)]
pub(crate) struct WholeLately {
    kept: Mutex<HashMap<BlobId, Moment>>,
}

impl WholeLately {
    /// Since when all files of a block are there; `None` when that has to be found out.
    pub(super) fn since(&self, blobs: &Blobs, block: BlobId) -> Option<Moment> {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let moment = *kept.get(&block)?;
        if blobs.is_as_at(&moment) {
            return Some(moment);
        }
        kept.remove(&block);
        None
    }

    /// All files of these blocks are there, each since a moment.
    pub(super) fn note(&self, blocks: impl IntoIterator<Item = (BlobId, Moment)>) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        for (block, moment) in blocks {
            if kept.len() >= BLOCKS_MAX {
                kept.clear();
            }
            kept.insert(block, moment);
        }
    }
}
