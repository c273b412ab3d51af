//! Where records are kept: in files of a folder, or in a bucket.

use std::io;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use grid_core::blob::BlobId;
use grid_core::time::Timestamp;

use super::bucket::{self, BucketPacks};
use super::collect::{self, Gone};
use super::disk::Disk;
use super::index::{Index, Place};
use super::pack::Header;
use super::packs::{Found, Packs, Record};
use super::{BlobError, BlobInfo, Settings};

#[expect(clippy::large_enum_variant, reason = "a store has one")]
pub(super) enum Backend {
    Folder(Packs),
    Bucket(Arc<BucketPacks>),
}

impl Backend {
    pub(super) fn open(dir: &Path, settings: &Settings, disk: &Disk) -> Result<Self, BlobError> {
        match &settings.bucket {
            None => {
                bucket::belongs_nowhere(dir)?;
                let now = (settings.clock)();
                let packs = Packs::open(&dir.join("packs"), settings.sync_small, now, disk)?;
                Ok(Self::Folder(packs))
            }
            Some(bucket) => {
                let packs = BucketPacks::open(dir, bucket, disk)?;
                Ok(Self::Bucket(Arc::new(packs)))
            }
        }
    }

    pub(super) fn index(&self) -> &Index {
        match self {
            Self::Folder(packs) => &packs.index,
            Self::Bucket(packs) => &packs.index,
        }
    }

    /// Where a record is, whose bytes are not known to be damaged.  It is needed from
    /// now on; but a recipe is only marked with all that it is made of.
    pub(super) fn find(&self, id: BlobId) -> Option<Place> {
        match self {
            Self::Folder(packs) => packs.find(id),
            Self::Bucket(packs) => packs.find(id),
        }
    }

    /// Whether a record was found to be damaged.
    pub(super) fn is_known_damaged(&self, id: BlobId) -> bool {
        match self {
            Self::Folder(packs) => packs.is_known_damaged(id),
            Self::Bucket(packs) => packs.is_known_damaged(id),
        }
    }

    /// How often a record was found to be damaged.
    pub(super) fn damages_found(&self) -> u64 {
        match self {
            Self::Folder(packs) => packs.damages_found(),
            Self::Bucket(packs) => packs.damages_found(),
        }
    }

    /// Notes that a record is damaged: who has its bytes may store them again.
    pub(super) fn is_found_damaged(&self, id: BlobId) {
        match self {
            Self::Folder(packs) => packs.is_found_damaged(id),
            Self::Bucket(packs) => packs.is_found_damaged(id),
        }
    }

    /// Stores those that are not here yet.
    pub(super) fn put(&self, records: &[Record<'_>], at: Timestamp) -> Result<(), BlobError> {
        match self {
            Self::Folder(packs) => packs.put(records, at),
            Self::Bucket(packs) => packs.put(records, at),
        }
    }

    /// Forces everything to the disk that was written; a bucket has it anyway.
    pub(super) fn sync(&self) -> io::Result<()> {
        match self {
            Self::Folder(packs) => packs.sync(),
            Self::Bucket(_) => Ok(()),
        }
    }

    /// The same before anybody waits for it.
    pub(super) fn sync_early(&self) {
        if let Self::Folder(packs) = self {
            packs.sync_early();
        }
    }

    /// The record of this name.
    pub(super) fn get(&self, id: BlobId) -> Result<Option<Found>, BlobError> {
        match self {
            Self::Folder(packs) => packs.get(id),
            Self::Bucket(packs) => packs.get(id),
        }
    }

    /// The bytes of a record of a known length; `None` when there is none of this length.
    /// They need not be compared with their name unless this is asked for.
    pub(super) fn read(
        &self,
        id: BlobId,
        len: usize,
        is_verified: bool,
    ) -> Result<Option<Bytes>, BlobError> {
        match self {
            Self::Folder(packs) => packs.read(id, len, is_verified),
            Self::Bucket(packs) => packs.read(id, len),
        }
    }

    /// Tells of every blob, as long as somebody listens.
    pub(super) fn list(&self, tell: &mut impl FnMut(BlobInfo) -> bool) -> Result<(), BlobError> {
        match self {
            Self::Folder(packs) => packs.list(tell),
            Self::Bucket(packs) => packs.list(tell),
        }
    }

    /// What stands before a record's bytes; `None` when it is damaged or gone.
    pub(super) fn header(&self, place: Place) -> Result<Option<Header>, BlobError> {
        let doing = |source| BlobError::io("read what stands before a blob", source);
        match self {
            Self::Folder(packs) => match packs.pack(place.pack()).map_err(doing)? {
                Some(file) => Header::read(&file, place.at.offset()).map_err(doing),
                None => Ok(None),
            },
            Self::Bucket(packs) => packs.header(place),
        }
    }

    /// So many bytes of a pack are deleted.
    pub(super) fn shrink(&self, pack: u32, bytes: u64) {
        match self {
            Self::Folder(packs) => {
                if let Some(sizes) = packs.sizes().get_mut(&pack) {
                    sizes.live = sizes.live.saturating_sub(bytes);
                }
            }
            Self::Bucket(packs) => packs.shrink(pack, bytes),
        }
    }

    /// Gets ready to delete.
    pub(super) fn begin_sweep(&self) -> Result<(), BlobError> {
        match self {
            Self::Folder(_) => Ok(()),
            Self::Bucket(packs) => packs.begin_sweep(),
        }
    }

    /// Notes records as deleted; with `is_forced` they are so after a loss of power.
    pub(super) fn bury(&self, gone: &Gone, is_forced: bool) -> Result<(), BlobError> {
        match self {
            Self::Folder(packs) => collect::bury(packs, gone, is_forced)
                .map_err(|source| BlobError::storing("a list of deleted blobs", source)),
            Self::Bucket(packs) => packs.bury(gone, is_forced),
        }
    }

    /// Gives the room back that deleted records take up.
    pub(super) fn rewrite(&self) -> Result<(), BlobError> {
        match self {
            Self::Folder(packs) => collect::rewrite(packs),
            Self::Bucket(packs) => packs.tidy(),
        }
    }
}
