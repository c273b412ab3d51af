//! Parts of a list that are the blocks it will be made of, many in one request.
//!
//! Most of a version is mostly what the version before was.  So a part may name a block of
//! that one, and only what is different is sent.  What results is looked at like any part:
//! its bytes must be stored, and whoever sends it must be allowed to name them.

use std::collections::HashSet;

use bytes::Bytes;
use grid_core::blob::BlobId;
use grid_manifest::{BLOCK_ENTRIES_MAX, Index, Offer, Part, Stored, Unpacked, What, parse_offers};
use grid_store::blobs::{Moment, SMALL_BYTES_MAX};
use grid_store::db;

use super::upload::{PARTS_MAX, new_bytes, require_uploading, unsent, upload};
use super::{Found, List, list};
use crate::Engine;
use crate::access::Caller;
use crate::error::{Error, Result};

/// Parts of one request.  Higher: it takes more memory; lower: lists whose blocks are small
/// take more requests.
const OFFERS_MAX: usize = 64;

/// Entries of the parts of one request together.  Higher: it takes more memory, up to some
/// hundred bytes for each; lower: it does not hold the largest block.
const ENTRIES_MAX: usize = 2 * BLOCK_ENTRIES_MAX;

/// What became of a part.
#[derive(Debug, Default)]
pub struct Taken {
    /// The block that it is, once it is kept.
    pub block: Option<BlobId>,
    /// These blobs have to be uploaded first; then offer it again.
    pub missing: Vec<BlobId>,
    /// The version before does not have what was named: all entries have to be sent.
    pub is_unknown: bool,
}

/// Parts as they come.
#[derive(Debug, Clone)]
pub struct Offered {
    /// Number of the first.
    pub from: u32,
    /// They, as [`grid_manifest::write_offers`] writes them.
    pub parts: Bytes,
    /// How many bytes of them had to be sent before.
    pub sent_bytes: u64,
}

/// Takes parts of the list, each if all of its bytes are stored.  Sending one again replaces
/// it.
pub async fn put_parts(
    engine: &Engine,
    caller: &Caller,
    text: &str,
    offered: Offered,
) -> Result<Vec<Taken>> {
    let found = upload(engine, caller, text).await?;
    require_uploading(&found)?;
    let Offered {
        from,
        parts,
        sent_bytes,
    } = offered;
    let offers = tokio::task::spawn_blocking(move || parse_offers(&parts, OFFERS_MAX, ENTRIES_MAX));
    let offers = offers.await.map_err(Error::internal)?;
    let offers =
        offers.map_err(|error| Error::invalid(format!("the parts are not understood: {error}")))?;
    let count = u32::try_from(offers.len()).unwrap_or(u32::MAX);
    if offers.len() > OFFERS_MAX || from.saturating_add(count) > PARTS_MAX {
        return Err(Error::TooLarge {
            message: format!(
                "a version is sent in at most {PARTS_MAX} parts, {OFFERS_MAX} at a time"
            ),
            hint: Some("pack small files into larger ones".to_owned()),
        });
    }
    // Before anything is looked for.
    let moment = engine.inner.blobs.moment();
    let looked = look(engine, &found, from, offers).await?;
    let unstored = unstored(engine, &looked).await?;
    let mut taken = Vec::with_capacity(looked.len());
    let mut kept = Vec::with_capacity(looked.len());
    for offered in looked {
        let Some(offered) = offered else {
            taken.push(Taken {
                is_unknown: true,
                ..Taken::default()
            });
            kept.push(None);
            continue;
        };
        let missing = missing(engine, caller, &found, &offered, &unstored).await?;
        let is_kept = missing.is_empty();
        taken.push(Taken {
            missing,
            ..Taken::default()
        });
        kept.push(Some((offered, is_kept)));
    }
    let whole = whole_since(&kept, moment);
    let rows = store(engine, from, kept, &unstored, sent_bytes).await?;
    note(engine, &found, &rows).await?;
    let stored = rows.iter().zip(whole);
    let whole = stored.filter_map(|(row, since)| Some((row.blob?, since)));
    engine.inner.datastores.whole.note(whole);
    for row in rows {
        let number = (row.number - from) as usize;
        if let Some(taken) = taken.get_mut(number) {
            taken.block = row.blob.filter(|_| row.block.is_some());
        }
    }
    Ok(taken)
}

/// A part that was put together.
struct Together {
    part: Part,
    /// Its files that have to be looked for, with their bytes.
    asked: Vec<(BlobId, u64)>,
    /// Blobs that were sent with it: whoever may add to a datastore may name those that the
    /// block before has in these places.
    new: HashSet<BlobId>,
    /// The block before, when nothing is different.
    same: Option<BlobId>,
    /// Since when all files of the block before are there; `None` when they have to be looked
    /// for.
    since: Option<Moment>,
}

/// Puts parts together; `None` for those that name what is not known.
async fn look(
    engine: &Engine,
    found: &Found,
    from: u32,
    offers: Vec<Offer>,
) -> Result<Vec<Option<Together>>> {
    let index = match offers.iter().any(|offer| offer.before().is_some()) {
        true => before(engine, found).await?,
        false => None,
    };
    let (mut looked, mut entries) = (Vec::with_capacity(offers.len()), 0);
    for (number, offer) in (from..).zip(offers) {
        let (block, since) = match (offer.before(), &index) {
            (None, _) => (Unpacked::default(), None),
            (Some(block), Some(index)) if index.block(block, number as usize).is_some() => {
                let whole = &engine.inner.datastores.whole;
                let since = whole.since(&engine.inner.blobs, block);
                (list::unpacked(engine, block).await?, since)
            }
            (Some(_), _) => {
                looked.push(None);
                continue;
            }
        };
        let offered =
            tokio::task::spawn_blocking(move || put_together(number, &offer, &block, since));
        let offered = offered.await.map_err(Error::internal)??;
        entries += offered.as_ref().map_or(0, |it| it.part.totals.entries);
        if entries > ENTRIES_MAX as u64 {
            return Err(Error::TooLarge {
                message: format!("one request has at most {ENTRIES_MAX} entries in its parts"),
                hint: Some("send fewer parts at a time".to_owned()),
            });
        }
        looked.push(offered);
    }
    Ok(looked)
}

/// The index of the version before.
async fn before(engine: &Engine, found: &Found) -> Result<Option<std::sync::Arc<Index>>> {
    let mut tx = engine.inner.db.read().await?;
    let newest = db::datastore_version::newest(&mut tx, found.datastore.id).await?;
    drop(tx);
    match newest.and_then(|version| version.manifest) {
        Some(manifest) => Ok(Some(List::of(engine, manifest).await?.index)),
        None => Ok(None),
    }
}

/// Puts a part together, and refuses what only the server may say.  `None` of what is not
/// meant of this block, and of what the version before says for the server: that has to be sent.
fn put_together(
    number: u32,
    offer: &Offer,
    block: &Unpacked,
    since: Option<Moment>,
) -> Result<Option<Together>> {
    let (mut asked, mut new) = (Vec::new(), HashSet::new());
    let (mut moded, mut elsewhere) = (None, None);
    let part = Part::offered(offer, block, number == 0, |line, is_new| {
        if line.mode > 0o777 && moded.is_none() {
            moded = Some(line.path.to_owned());
        }
        match line.what {
            What::File { blob, size_bytes } => {
                if is_new {
                    new.insert(blob);
                }
                if is_new || since.is_none() {
                    asked.push((blob, size_bytes));
                }
            }
            What::Elsewhere { .. } if elsewhere.is_none() => {
                elsewhere = Some(line.path.to_owned());
            }
            What::Elsewhere { .. } | What::Folder | What::Link { .. } => {}
        }
    });
    let Some(part) = part.map_err(|error| Error::invalid(error.to_string()))? else {
        return Ok(None);
    };
    if let Some(path) = moded {
        return Err(Error::invalid(format!(
            "'{path}': a mode says who may read, write and execute, and nothing else"
        )));
    }
    match (elsewhere, offer.before()) {
        (None, _) => {}
        (Some(_), Some(_)) => return Ok(None),
        (Some(path), None) => {
            return Err(Error::invalid(format!(
                "'{path}': only the server says what is elsewhere"
            )));
        }
    }
    let same = match offer {
        Offer::Same { block } => Some(*block),
        Offer::Edited { .. } | Offer::Whole { .. } => None,
    };
    Ok(Some(Together {
        part,
        asked,
        new,
        same,
        since,
    }))
}

/// Blobs that are not there.  The others stay for a while, having been asked about.
async fn unstored(engine: &Engine, looked: &[Option<Together>]) -> Result<HashSet<BlobId>> {
    let parts = looked.iter().flatten();
    let blobs = parts.flat_map(|offered| {
        let files = offered.asked.iter().map(|(blob, _)| *blob);
        // A block that is named stays as well.
        files.chain(offered.same)
    });
    let blobs = blobs.collect();
    let missing = engine.inner.blobs.missing(blobs).await?;
    Ok(missing.into_iter().collect())
}

/// What has to be sent for a part.
async fn missing(
    engine: &Engine,
    caller: &Caller,
    found: &Found,
    offered: &Together,
    unstored: &HashSet<BlobId>,
) -> Result<Vec<BlobId>> {
    let mut missing: HashSet<BlobId> = match unstored.is_empty() {
        true => HashSet::new(),
        false => {
            let files = offered.asked.iter().map(|(blob, _)| *blob);
            files.filter(|blob| unstored.contains(blob)).collect()
        }
    };
    if !offered.new.is_empty() {
        let wanted = offered.new.iter().copied().collect();
        let span = Some((offered.part.first.as_str(), offered.part.last()));
        missing.extend(unsent(engine, caller, found, span, wanted).await?);
    }
    let mut missing: Vec<BlobId> = missing.into_iter().collect();
    missing.sort_unstable();
    Ok(missing)
}

/// Since when all files are there of the parts that were put together, those that are kept.
fn whole_since(kept: &[Option<(Together, bool)>], moment: Moment) -> Vec<Moment> {
    let kept = kept.iter().flatten();
    // Those of the block before were not looked for again.
    kept.map(|(offered, _)| offered.since.unwrap_or(moment))
        .collect()
}

/// Stores parts of which nothing is missing, and says what is to be noted.
async fn store(
    engine: &Engine,
    from: u32,
    kept: Vec<Option<(Together, bool)>>,
    unstored: &HashSet<BlobId>,
    sent_bytes: u64,
) -> Result<Vec<db::datastore_page::Part>> {
    let unstored: Vec<BlobId> = unstored.iter().copied().collect();
    let rows = tokio::task::spawn_blocking(move || {
        let (mut rows, mut blobs, mut left) = (Vec::new(), Vec::new(), sent_bytes);
        for (number, offered) in (from..).zip(kept) {
            let Some((offered, is_kept)) = offered else {
                continue;
            };
            let size_bytes = offered.part.totals.bytes;
            // What was sent for all is of those first that are large enough.
            let new = new_bytes(&offered.asked, &unstored)
                .saturating_add(left)
                .min(size_bytes);
            left = left.saturating_sub(new);
            let mut row = row(number, &offered, new);
            row.blob = match (is_kept, offered.same) {
                (false, _) => None,
                (true, Some(same)) => Some(same),
                (true, None) => {
                    let Stored { blob, bytes } = offered.part.store();
                    blobs.push((blob, bytes));
                    Some(blob)
                }
            };
            rows.push(row);
        }
        (rows, blobs)
    });
    let (rows, blobs) = rows.await.map_err(Error::internal)?;
    let (small, large): (Vec<_>, Vec<_>) = blobs
        .into_iter()
        .partition(|(_, bytes)| bytes.len() <= SMALL_BYTES_MAX);
    if !small.is_empty() {
        let small = small.into_iter().map(|(blob, bytes)| (blob, bytes.into()));
        engine.inner.blobs.put_small_batch(small.collect()).await?;
    }
    for (_, bytes) in large {
        crate::snapshot::store(engine, bytes).await?;
    }
    Ok(rows)
}

fn row(number: u32, offered: &Together, new_bytes: u64) -> db::datastore_page::Part {
    let part = &offered.part;
    let block = part.is_block.then(|| db::datastore_page::Block {
        first: part.first.clone(),
        entries: part.totals.entries,
        tail: part.end.text(),
    });
    db::datastore_page::Part {
        number,
        digest: part.digest.to_string(),
        blob: None,
        files: part.totals.files,
        size_bytes: part.totals.bytes,
        new_bytes,
        block,
    }
}

async fn note(engine: &Engine, found: &Found, rows: &[db::datastore_page::Part]) -> Result<()> {
    let id = found.version.id;
    let now = engine.inner.clock.now();
    let mut tx = engine.inner.db.write().await?;
    for row in rows {
        db::datastore_page::put(&mut tx, id, row).await?;
    }
    if !db::datastore_version::sum_up(&mut tx, id, now).await? {
        return Err(Error::conflict(format!(
            "{} takes no more files: somebody else has ended it",
            found.called()
        )));
    }
    Ok(tx.commit().await?)
}
