//! Moving the blobs of a folder into a bucket, while no server works with them.
//!
//! What is in the bucket already is not sent again, so whoever is interrupted begins anew.
//! Nothing is deleted: at the end, when all is there, the old folders get another name.

use std::fs;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use futures::TryStreamExt;
use grid_core::blob::BlobId;

use super::super::backend::Backend;
use super::super::disk::Disk;
use super::super::large::LargeFiles;
use super::super::pack::{Entry, HEADER_BYTES, Kind};
use super::super::packs::{Packs, Record};
use super::super::{BlobError, Blobs, Settings};
use super::client::Fault;
use super::{BucketError, BucketPacks, PACK_BYTES, local_dir};
use crate::logs::blocking;

/// Folders of former moves that are kept.
/// Higher: more names are tried.  Lower: whoever moves often has to tidy up.
const MOVES_MAX: usize = 100;

/// What was moved so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Moved {
    /// Blobs and chunks that are in the bucket now.
    pub blobs: u64,
    /// How many bytes they have.
    pub bytes: u64,
    /// Those that could not be moved, because they are damaged on disk.
    pub damaged: u64,
}

impl Blobs {
    /// Moves what is stored in a folder into the bucket of these settings.
    pub async fn move_in(
        dir: &Path,
        settings: Settings,
        tell: impl Fn(Moved) + Send + 'static,
    ) -> Result<Moved, BlobError> {
        let folder = dir.to_owned();
        let (blobs, moved, larges) = blocking(move || {
            let to = open(&folder, &settings)?;
            let now = (settings.clock)();
            let from = Packs::open(&folder.join("packs"), false, now, &Disk::default())?;
            let large = LargeFiles::open(&folder, &Disk::default())?;
            // Where these are going none are known yet.
            let none = LargeFiles::open(&local_dir(&folder), &Disk::default())?;
            let blobs = Self::over(&folder, settings, Backend::Bucket(to), none)?;
            let mut moved = Moved::default();
            // What others are made of first.
            for kind in [Kind::Bytes, Kind::Recipe] {
                let mut moving = Moving {
                    from: &from,
                    blobs: &blobs,
                    batch: Vec::new(),
                    batch_bytes: 0,
                    moved: &mut moved,
                    tell: &tell,
                };
                moving.all(kind)?;
            }
            let mut ids = Vec::new();
            large.list(&mut |info| {
                ids.push(info.id);
                true
            })?;
            Ok::<_, BlobError>((blobs, moved, (large, ids)))
        })
        .await?;
        let moved = blobs.move_larges(&larges.0, &larges.1, moved).await?;
        blobs.end_moving(dir)?;
        Ok(moved)
    }

    /// Large blobs in files of their own.
    async fn move_larges(
        &self,
        from: &LargeFiles,
        ids: &[BlobId],
        mut moved: Moved,
    ) -> Result<Moved, BlobError> {
        for id in ids.iter().copied() {
            let Some(reader) = from.get(id)? else {
                continue;
            };
            let len = reader.len();
            let mut pieces = std::pin::pin!(reader.stream_range(0..len));
            let mut writer = self.writer();
            while let Some(piece) = pieces.try_next().await? {
                writer.write(&piece).await?;
            }
            match writer.finish(id, len).await {
                Ok(()) => {
                    moved.blobs += 1;
                    moved.bytes += len;
                }
                Err(BlobError::WrongHash { .. }) => {
                    tracing::error!(blob = %id, "it is damaged on disk and was not moved");
                    moved.damaged += 1;
                }
                Err(error) => return Err(error),
            }
        }
        Ok(moved)
    }

    fn end_moving(&self, dir: &Path) -> Result<(), BlobError> {
        for name in ["packs", "large"] {
            let old = dir.join(name);
            if !old.exists() || fs::remove_dir(&old).is_ok() {
                // There was nothing in it.
                continue;
            }
            let new = (1..).map(|number| match number {
                1 => dir.join(format!("{name}.moved")),
                _ => dir.join(format!("{name}.moved-{number}")),
            });
            let free = new.take(MOVES_MAX).find(|new| !new.exists());
            fs::rename(&old, free.unwrap_or_default()).map_err(|source| {
                BlobError::io(format!("rename the folder {}", old.display()), source)
            })?;
        }
        match &self.inner.packs {
            Backend::Bucket(packs) => packs.name_bucket(),
            Backend::Folder(_) => Ok(()),
        }
    }
}

fn open(dir: &Path, settings: &Settings) -> Result<Arc<BucketPacks>, BlobError> {
    let Some(bucket) = &settings.bucket else {
        let why = "there is no bucket to move anything to";
        let none = BucketError::own("move anything", "", Fault::Settings, why);
        return Err(none.into());
    };
    let packs = BucketPacks::open_beside(dir, bucket, &settings.disk())?;
    Ok(Arc::new(packs))
}

struct Moving<'a, T> {
    from: &'a Packs,
    blobs: &'a Blobs,
    batch: Vec<(BlobId, Kind, Bytes)>,
    batch_bytes: u64,
    moved: &'a mut Moved,
    tell: &'a T,
}

impl<T: Fn(Moved)> Moving<'_, T> {
    fn all(&mut self, kind: Kind) -> Result<(), BlobError> {
        let doing = |source| BlobError::io("read the packs", source);
        let numbers: Vec<u32> = self.from.sizes().keys().copied().collect();
        for (number, entries) in self.from.index.places(numbers) {
            let Some(pack) = self.from.pack(number).map_err(doing)? else {
                continue;
            };
            let len = pack.metadata().map_err(doing)?.len();
            let of_kind = |entry: &&Entry| entry.at.is_recipe() == (kind == Kind::Recipe);
            for entry in entries.iter().filter(of_kind) {
                let Some(header) = entry.header(&pack, len).map_err(doing)? else {
                    self.from.is_header_damaged(number, entry);
                    self.moved.damaged += 1;
                    continue;
                };
                let mut bytes = vec![0; header.len as usize];
                let start = entry.at.offset() + HEADER_BYTES as u64;
                pack.read_exact_at(&mut bytes, start).map_err(doing)?;
                if !header.fits(&bytes) {
                    tracing::error!(blob = %header.id, "it is damaged on disk and was not moved");
                    self.moved.damaged += 1;
                    continue;
                }
                self.batch_bytes += header.record_bytes();
                self.batch.push((header.id, kind, bytes.into()));
                if self.batch_bytes >= PACK_BYTES {
                    self.send()?;
                }
            }
        }
        self.send()
    }

    fn send(&mut self) -> Result<(), BlobError> {
        let batch = std::mem::take(&mut self.batch);
        let records: Vec<Record<'_>> = batch
            .iter()
            .map(|(id, kind, bytes)| Record {
                id: *id,
                kind: *kind,
                bytes,
            })
            .collect();
        let inner = &self.blobs.inner;
        inner.packs.put(&records, (inner.settings.clock)())?;
        self.moved.blobs += batch.len() as u64;
        self.moved.bytes += std::mem::take(&mut self.batch_bytes);
        (self.tell)(*self.moved);
        Ok(())
    }
}
