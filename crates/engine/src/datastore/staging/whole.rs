//! Files that are whole: put together from their parts, and made into a version.

use std::collections::HashSet;

use grid_core::blob::BlobId;
use grid_core::id::UploadId;
use grid_core::time::file_ms;
use grid_manifest::{Entry, Node};
use grid_store::db::datastore_version::{Content, Version};
use grid_store::db::{self, Tx, staged};

use super::{FILES_MAX, PARTS_MAX, bytes, find_upload, hold, no_upload, open_version, too_many};
use crate::access::Caller;
use crate::datastore::Found;
use crate::datastore::filing::Filing;
use crate::datastore::work::Fault;
use crate::error::{Error, Result};
use crate::{Engine, to_the_end};

/// Permission bits of files that come without any.
pub(super) const MODE: u32 = 0o644;

/// The same, of folders.
const FOLDER_MODE: u32 = 0o755;

/// Files that are added in one transaction.  Higher: others who write wait for longer;
/// lower: many small files take longer.
const FILES_AT_ONCE: usize = 500;

/// Files that are listed at a time when a version is made of them.
const STEP: u32 = 5_000;

/// An upload that is whole.
#[derive(Debug, Clone)]
pub struct Completion {
    /// Which.
    pub upload: UploadId,
    /// Under which path it was begun.
    pub path: String,
    /// Its parts, by number, each with the etag that its sender was told.
    pub parts: Vec<(u32, String)>,
}

/// A file that is put together, and the upload that it leaves behind.
struct Ready {
    file: staged::File,
    upload: Option<UploadId>,
}

/// Puts files together from their parts.  Doing it twice is the same as once.  Each of them
/// is added or not; when one cannot be, those before it may have been.
pub async fn complete(
    engine: &Engine,
    caller: &Caller,
    text: &str,
    completions: Vec<Completion>,
) -> Result<Vec<staged::File>> {
    let found = open_version(engine, caller, text).await?;
    let (engine, caller) = (engine.clone(), caller.clone());
    // Whoever goes away in the middle finds it done.
    to_the_end(async move {
        let mut files = Vec::with_capacity(completions.len());
        for some in completions.chunks(FILES_AT_ONCE) {
            let mut ready = Vec::with_capacity(some.len());
            for completion in some {
                ready.push(put_together(&engine, &caller, &found, completion).await?);
            }
            match add_ready(&engine, &found, &ready).await {
                // Whoever asked for the same, and has done it meanwhile, has made the same.
                Err(Error::NotFound { .. }) => {
                    ready.clear();
                    for completion in some {
                        ready.push(put_together(&engine, &caller, &found, completion).await?);
                    }
                    add_ready(&engine, &found, &ready).await?;
                }
                added => added?,
            }
            files.extend(ready.into_iter().map(|ready| ready.file));
        }
        Ok(files)
    })
    .await
}

async fn put_together(
    engine: &Engine,
    caller: &Caller,
    found: &Found,
    completion: &Completion,
) -> Result<Ready> {
    let Completion {
        upload: id,
        path,
        parts: named,
    } = completion;
    require_order(path, named)?;
    let mut tx = engine.inner.db.read().await?;
    let upload = staged::upload(&mut tx, *id).await?;
    let upload = upload.filter(|one| one.version == found.version.id && one.path == *path);
    let Some(upload) = upload else {
        return done_before(&mut tx, found, completion).await;
    };
    let mut parts = Vec::with_capacity(named.len());
    let mut kept = staged::parts(&mut tx, *id, None, PARTS_MAX)
        .await?
        .items
        .into_iter();
    drop(tx);
    for (number, etag) in named {
        let part = kept.find(|part| part.number == *number);
        let part = part.ok_or_else(|| {
            Error::invalid(format!(
                "part {number} of '{path}' did not come: send it first"
            ))
        })?;
        if !part.etag.eq_ignore_ascii_case(bare(etag)) {
            return Err(Error::invalid_hint(
                format!(
                    "part {number} of '{path}' has the etag {}, not '{etag}'",
                    part.etag
                ),
                "send the part again, and name it by the etag of the answer",
            ));
        }
        parts.push(part);
    }
    let joined = bytes::join(engine, caller, &parts).await?;
    Ok(Ready {
        file: staged::File {
            path: path.clone(),
            blob: joined.blob,
            size_bytes: joined.size_bytes,
            new_bytes: joined.new_bytes,
            etag: bytes::etag_of(&parts)?,
            upload: Some(*id),
            sent_at: engine.inner.clock.now(),
            is_folder: false,
            notes: upload.notes,
        },
        upload: Some(*id),
    })
}

/// An etag as it is compared: some send it in quotes.
fn bare(etag: &str) -> &str {
    etag.trim_matches('"')
}

fn require_order(path: &str, parts: &[(u32, String)]) -> Result<()> {
    if parts.is_empty() || parts.len() > PARTS_MAX as usize {
        return Err(Error::invalid(format!(
            "'{path}' is put together from 1 to {PARTS_MAX} parts, not from {}",
            parts.len()
        )));
    }
    if parts.is_sorted_by(|(one, _), (next, _)| one < next) {
        return Ok(());
    }
    Err(Error::invalid(format!(
        "the parts of '{path}' are not in the order of their numbers"
    )))
}

/// The file that was put together from an upload which is no more.
async fn done_before(tx: &mut Tx, found: &Found, completion: &Completion) -> Result<Ready> {
    let file = staged::file(tx, found.version.id, &completion.path).await?;
    let file = file.filter(|file| file.upload == Some(completion.upload));
    let file = file.ok_or_else(|| no_upload(found, completion.upload))?;
    Ok(Ready { file, upload: None })
}

/// Refuses what names bytes that are not stored.  What is asked about stays until it is
/// referred to.
pub(super) async fn require_stored(engine: &Engine, blobs: Vec<BlobId>) -> Result<()> {
    if engine.inner.blobs.missing(blobs).await?.is_empty() {
        return Ok(());
    }
    Err(Error::conflict(
        "bytes of it went away meanwhile: send them again",
    ))
}

/// Adds files that came in one piece, and folders.
pub(super) async fn add(engine: &Engine, found: &Found, files: &[staged::File]) -> Result<()> {
    let ready: Vec<Ready> = files
        .iter()
        .map(|file| Ready {
            file: file.clone(),
            upload: None,
        })
        .collect();
    add_new(engine, found, &ready.iter().collect::<Vec<_>>()).await
}

async fn add_ready(engine: &Engine, found: &Found, ready: &[Ready]) -> Result<()> {
    let new: Vec<&Ready> = ready.iter().filter(|one| one.upload.is_some()).collect();
    if new.is_empty() {
        return Ok(());
    }
    add_new(engine, found, &new).await
}

async fn add_new(engine: &Engine, found: &Found, ready: &[&Ready]) -> Result<()> {
    let files = ready.iter().filter(|one| !one.file.is_folder);
    require_stored(engine, files.map(|one| one.file.blob).collect()).await?;
    let id = found.version.id;
    let mut tx = engine.inner.db.write().await?;
    hold(engine, &mut tx, found).await?;
    let mut growth = staged::Growth::default();
    let mut folders = HashSet::new();
    for one in ready {
        require_place(&mut tx, found, &one.file, &mut folders).await?;
        if let Some(upload) = one.upload {
            // Somebody else may have ended it since.
            find_upload(&mut tx, found, upload).await?;
            staged::end_upload(&mut tx, upload).await?;
        }
        let by = staged::put_file(&mut tx, id, &one.file).await?;
        growth.files += by.files;
        growth.size_bytes += by.size_bytes;
        growth.new_bytes += by.new_bytes;
    }
    staged::grow(&mut tx, id, growth).await?;
    let version = db::datastore_version::by_id(&mut tx, id).await?;
    if version.is_some_and(|version| version.files > FILES_MAX) {
        return Err(too_many(found));
    }
    Ok(tx.commit().await?)
}

/// Refuses a file where a folder is, the other way round, and what is below a file.
/// `folders` are those known to be no files.
async fn require_place(
    tx: &mut Tx,
    found: &Found,
    new: &staged::File,
    folders: &mut HashSet<String>,
) -> Result<()> {
    let (id, path) = (found.version.id, new.path.as_str());
    let there = staged::file(tx, id, path).await?;
    if there.is_some_and(|there| there.is_folder != new.is_folder) {
        let (is, other) = match new.is_folder {
            true => ("folder", "file"),
            false => ("file", "folder"),
        };
        return Err(Error::conflict(format!(
            "'{path}' cannot be a {is}: it is a {other} of {}; delete that first",
            found.called()
        )));
    }
    let above: Vec<&str> = path
        .match_indices('/')
        .map(|(at, _)| &path[..at])
        .filter(|above| !folders.contains(*above))
        .collect();
    if let Some(above) = staged::files_among(tx, id, &above)
        .await?
        .into_iter()
        .next()
    {
        return Err(Error::conflict(format!(
            "'{path}' cannot lie below '{above}', which is a file of {}",
            found.called()
        )));
    }
    folders.extend(above.into_iter().map(str::to_owned));
    if new.is_folder {
        return Ok(());
    }
    let below = format!("{path}/");
    let inside = staged::files(tx, id, &below, None, 1).await?;
    match inside.items.first() {
        None => Ok(()),
        Some(other) => Err(Error::conflict(format!(
            "'{path}' cannot be a file: '{}' of {} lies below it",
            other.path,
            found.called()
        ))),
    }
}

/// Makes the list of a version of its staged files.
pub(in crate::datastore) async fn filed(
    engine: &Engine,
    version: &Version,
) -> Result<Content, Fault> {
    let mut filing = Filing::new(engine);
    let mut new_bytes = 0_u64;
    let mut after: Option<String> = None;
    loop {
        let mut tx = engine.inner.db.read().await?;
        let mut page = staged::files(&mut tx, version.id, "", after.as_deref(), STEP).await?;
        let mut full = HashSet::new();
        for folder in page.items.iter().filter(|file| file.is_folder) {
            let below = format!("{}/", folder.path);
            let inside = staged::files(&mut tx, version.id, &below, None, 1).await?;
            if !inside.items.is_empty() {
                full.insert(folder.path.clone());
            }
        }
        drop(tx);
        // Of a folder with something in it, that says that it is there.
        page.items.retain(|file| !full.contains(&file.path));
        new_bytes += page.items.iter().map(|file| file.new_bytes).sum::<u64>();
        filing.add(page.items.iter().map(entry).collect()).await?;
        match page.next {
            Some(next) => after = Some(next),
            None => break,
        }
    }
    filing.finish(new_bytes).await
}

fn entry(file: &staged::File) -> Entry {
    let (mode, node) = match file.is_folder {
        true => (FOLDER_MODE, Node::Folder),
        false => (
            MODE,
            Node::File {
                blob: file.blob,
                size_bytes: file.size_bytes,
            },
        ),
    };
    Entry {
        path: file.path.clone(),
        mode,
        modified_ms: modified_ms(file),
        node,
    }
}

/// When a file was last changed: as whoever sent it noted, or else when it came.
///
/// The note is what programs that speak S3 agree on: seconds since 1970, and parts of one.
fn modified_ms(file: &staged::File) -> i64 {
    let noted = file.notes.get(MODIFIED).and_then(|text| seconds_ms(text));
    noted.unwrap_or_else(|| file.sent_at.as_millis())
}

/// The note that says when a file was last changed.
pub(crate) const MODIFIED: &str = "mtime";

/// Seconds, as digits with a fraction, in milliseconds.
fn seconds_ms(text: &str) -> Option<i64> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let is_digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if whole.is_empty() || !is_digits(whole) || !is_digits(fraction) {
        return None;
    }
    // So many digits that they are no number are a time that is too late as well.
    let whole: i64 = whole.parse().unwrap_or(i64::MAX);
    let ms: String = fraction.chars().chain("000".chars()).take(3).collect();
    let ms = whole.saturating_mul(1_000).saturating_add(ms.parse().ok()?);
    Some(file_ms(ms))
}

#[cfg(test)]
mod tests {
    use super::seconds_ms;

    #[test]
    fn a_time_that_is_noted_is_read_as_programs_write_it() {
        for (text, ms) in [
            ("1700000000", Some(1_700_000_000_000)),
            ("1700000000.123456789", Some(1_700_000_000_123)),
            ("1700000000.5", Some(1_700_000_000_500)),
            ("0", Some(0)),
            ("-1", None),
            ("", None),
            (".5", None),
            ("1e9", None),
            ("99999999999999", Some(253_402_207_200_000)),
            ("99999999999999999999999", Some(253_402_207_200_000)),
        ] {
            assert_eq!(seconds_ms(text), ms, "{text}");
        }
    }
}
