//! Files of a datastore version that were sent under their paths, and parts of such files.
//!
//! Whoever changes what is staged of a version calls [`hold`] first, in the same
//! transaction: one at a time, and nobody once the version is over.

use std::collections::{BTreeMap, HashSet};
use std::fmt::Write;

use grid_core::blob::BlobId;
use grid_core::id::{DatastoreVersionId, UploadId};
use grid_core::time::Timestamp;
use sqlx::AssertSqlSafe;
use sqlx::any::AnyRow;

use super::error::{Error, Result};
use super::page::{Page, one_more};
use super::sql::{Columns, MEMBERS_PER_LIST, Value, json, list, pieces, tuples, values};
use super::tx::Tx;

/// What whoever sends a file notes beside it: texts by name.
pub type Notes = BTreeMap<String, String>;

/// A file that is sent in parts, and is not whole yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Upload {
    /// Its id.
    pub id: UploadId,
    /// Of which version.
    pub version: DatastoreVersionId,
    /// Under which path.
    pub path: String,
    /// Since when.
    pub begun_at: Timestamp,
    /// What is noted beside it.
    pub notes: Notes,
}

/// A part of one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    /// Which, from 1.
    pub number: u32,
    /// Its bytes.
    pub blob: BlobId,
    /// How many.
    pub size_bytes: u64,
    /// How many of them were not stored before.
    pub new_bytes: u64,
    /// Their MD5, in hexadecimal.
    pub etag: String,
    /// When they came.
    pub sent_at: Timestamp,
}

/// A file that is whole, or a folder that is kept though nothing is in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct File {
    /// Its path.
    pub path: String,
    /// Its bytes; of a folder it says nothing.
    pub blob: BlobId,
    /// How many.
    pub size_bytes: u64,
    /// How many of them were not stored before.
    pub new_bytes: u64,
    /// What whoever sent it names these bytes by.
    pub etag: String,
    /// The parts that it was put together from.
    pub upload: Option<UploadId>,
    /// When it came to be whole.
    pub sent_at: Timestamp,
    /// Whether it is a folder.
    pub is_folder: bool,
    /// What is noted beside it.
    pub notes: Notes,
}

/// By how much a version grows, or shrinks, by what is done to its files.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Growth {
    /// Files, and folders that are kept.
    pub files: i64,
    /// Their bytes.
    pub size_bytes: i64,
    /// Those that were not stored before.
    pub new_bytes: i64,
}

/// A path as it is kept: in hexadecimal, which every database sorts by bytes.
fn place(path: &str) -> String {
    let mut text = String::with_capacity(path.len() * 2);
    for byte in path.bytes() {
        // Writing to a string cannot fail.
        let _ = write!(text, "{byte:02x}");
    }
    text
}

/// What sorts behind everything that begins with `place`: `g` follows the last digit.
fn behind(place: &str) -> String {
    format!("{place}g")
}

fn path(columns: &mut Columns<'_>, doing: &'static str) -> Result<String> {
    let place = columns.str()?;
    let wrong = || Error::internal(doing, format!("'{place}' is not a path in hexadecimal"));
    let byte = |at: usize| {
        let pair = place.get(at..at + 2)?;
        u8::from_str_radix(pair, 16).ok()
    };
    let bytes: Option<Vec<u8>> = (0..place.len()).step_by(2).map(byte).collect();
    String::from_utf8(bytes.ok_or_else(wrong)?).map_err(|_| wrong())
}

const UPLOAD: &str = "id, version, place, begun_at, notes";

fn upload_of(row: &AnyRow) -> Result<Upload> {
    const DOING: &str = "reading an upload";
    let mut columns = Columns::of(DOING, row);
    Ok(Upload {
        id: columns.parse()?,
        version: columns.parse()?,
        path: path(&mut columns, DOING)?,
        begun_at: columns.time()?,
        notes: columns.json()?,
    })
}

const PART: &str = "number, blob, size_bytes, new_bytes, etag, sent_at";

fn part_of(row: &AnyRow) -> Result<Part> {
    let mut columns = Columns::of("reading a part of an upload", row);
    Ok(Part {
        number: columns.number()?,
        blob: columns.parse()?,
        size_bytes: columns.number()?,
        new_bytes: columns.number()?,
        etag: columns.text()?,
        sent_at: columns.time()?,
    })
}

const FILE: &str = "place, blob, size_bytes, new_bytes, etag, upload, sent_at, is_folder, notes";

fn file_of(row: &AnyRow) -> Result<File> {
    const DOING: &str = "reading a staged file";
    let mut columns = Columns::of(DOING, row);
    Ok(File {
        path: path(&mut columns, DOING)?,
        blob: columns.parse()?,
        size_bytes: columns.number()?,
        new_bytes: columns.number()?,
        etag: columns.text()?,
        upload: columns.opt_parse()?,
        sent_at: columns.time()?,
        is_folder: columns.flag()?,
        notes: columns.json()?,
    })
}

/// Takes the row of a version, so that nobody else changes what is staged of it until this
/// transaction is over, and notes that it goes on; `false` when it takes no files any more.
pub async fn hold(tx: &mut Tx, version: DatastoreVersionId, at: Timestamp) -> Result<bool> {
    let sql = "update datastore_version set updated_at = $2 \
          where id = $1 and state = 'uploading' and deleted_at is null";
    let rows = tx
        .execute("holding a datastore version", sql, values![version, at])
        .await?;
    Ok(rows == 1)
}

/// Notes by how much a version that is held has grown.
pub async fn grow(tx: &mut Tx, version: DatastoreVersionId, by: Growth) -> Result<()> {
    if by == Growth::default() {
        return Ok(());
    }
    let sql = "update datastore_version set files = files + $2, \
            size_bytes = size_bytes + $3, new_bytes = new_bytes + $4 where id = $1";
    let values = values![version, by.files, by.size_bytes, by.new_bytes];
    tx.execute("noting progress of an upload", sql, values)
        .await?;
    Ok(())
}

/// Begins uploads.
pub async fn begin(tx: &mut Tx, uploads: &[Upload]) -> Result<()> {
    for piece in pieces(uploads) {
        let sql = format!(
            "insert into staged_upload ({UPLOAD}) values {}",
            tuples(piece.len(), 5, 1)
        );
        let mut values: Vec<Value> = Vec::with_capacity(piece.len() * 5);
        for upload in piece {
            values.extend(values![
                upload.id,
                upload.version,
                place(&upload.path),
                upload.begun_at,
                json(&upload.notes)?
            ]);
        }
        tx.execute("beginning an upload", AssertSqlSafe(sql), values)
            .await?;
    }
    Ok(())
}

/// The upload with an id.
pub async fn upload(tx: &mut Tx, id: UploadId) -> Result<Option<Upload>> {
    let sql = format!("select {UPLOAD} from staged_upload where id = $1");
    let row = tx
        .row("reading an upload", AssertSqlSafe(sql), values![id])
        .await?;
    row.as_ref().map(upload_of).transpose()
}

/// Uploads of a version whose paths begin with `prefix`, by path and then by age, from the
/// one after `after` on.
pub async fn uploads(
    tx: &mut Tx,
    version: DatastoreVersionId,
    prefix: &str,
    after: Option<&(String, UploadId)>,
    limit: u32,
) -> Result<Page<Upload, (String, UploadId)>> {
    let sql = format!(
        "select {UPLOAD} from staged_upload where version = $1 and place >= $2 and place < $3 \
            and (place, id) > ($4, $5) order by place, id limit $6"
    );
    let from = place(prefix);
    let (after_place, after_id) =
        after.map_or_else(Default::default, |(path, id)| (place(path), id.to_string()));
    let behind = behind(&from);
    let values = values![
        version,
        from,
        behind,
        after_place,
        after_id,
        one_more(limit)
    ];
    let rows = tx
        .rows("listing uploads", AssertSqlSafe(sql), values)
        .await?;
    let uploads: Vec<Upload> = rows.iter().map(upload_of).collect::<Result<_>>()?;
    Ok(Page::cut(uploads, limit, |upload| {
        (upload.path.clone(), upload.id)
    }))
}

/// How many uploads of a version are open, counted up to `most`.
pub async fn count_uploads(tx: &mut Tx, version: DatastoreVersionId, most: u64) -> Result<u64> {
    const DOING: &str = "counting uploads";
    let sql = "select count(*) from (select id from staged_upload where version = $1 limit $2) u";
    let row = tx.row(DOING, sql, values![version, most]).await?;
    row.map_or(Ok(0), |row| Columns::of(DOING, &row).number())
}

/// Forgets an upload and its parts; `false` when it is not there.
pub async fn end_upload(tx: &mut Tx, id: UploadId) -> Result<bool> {
    let sql = "delete from staged_upload where id = $1";
    let rows = tx.execute("ending an upload", sql, values![id]).await?;
    Ok(rows == 1)
}

/// Adds a part, or replaces the one of that number.
pub async fn put_part(tx: &mut Tx, upload: UploadId, part: &Part) -> Result<()> {
    let sql = format!(
        "insert into staged_part (upload, {PART}) values ($1, $2, $3, $4, $5, $6, $7) \
         on conflict (upload, number) do update set blob = excluded.blob, \
            size_bytes = excluded.size_bytes, new_bytes = excluded.new_bytes, \
            etag = excluded.etag, sent_at = excluded.sent_at"
    );
    let values = values![
        upload,
        part.number,
        part.blob,
        part.size_bytes,
        part.new_bytes,
        part.etag.as_str(),
        part.sent_at
    ];
    tx.execute("storing a part of a file", AssertSqlSafe(sql), values)
        .await?;
    Ok(())
}

/// Parts of an upload by number, from the one after `after` on.
pub async fn parts(
    tx: &mut Tx,
    upload: UploadId,
    after: Option<u32>,
    limit: u32,
) -> Result<Page<Part, u32>> {
    let sql = format!(
        "select {PART} from staged_part where upload = $1 and number > $2 \
          order by number limit $3"
    );
    let values = values![upload, after.unwrap_or(0), one_more(limit)];
    let rows = tx
        .rows("listing parts of a file", AssertSqlSafe(sql), values)
        .await?;
    let parts: Vec<Part> = rows.iter().map(part_of).collect::<Result<_>>()?;
    Ok(Page::cut(parts, limit, |part| part.number))
}

/// The staged file, or folder, of a path.
pub async fn file(tx: &mut Tx, version: DatastoreVersionId, path: &str) -> Result<Option<File>> {
    let sql = format!("select {FILE} from staged_file where version = $1 and place = $2");
    let row = tx
        .row(
            "reading a staged file",
            AssertSqlSafe(sql),
            values![version, place(path)],
        )
        .await?;
    row.as_ref().map(file_of).transpose()
}

/// Staged files whose paths begin with `prefix`, by path, from the one after `after` on.
pub async fn files(
    tx: &mut Tx,
    version: DatastoreVersionId,
    prefix: &str,
    after: Option<&str>,
    limit: u32,
) -> Result<Page<File, String>> {
    let sql = format!(
        "select {FILE} from staged_file where version = $1 and place >= $2 and place < $3 \
            and place > $4 order by place limit $5"
    );
    let from = place(prefix);
    let behind = behind(&from);
    let after = after.map_or_else(String::new, place);
    let values = values![version, from, behind, after, one_more(limit)];
    let rows = tx
        .rows("listing staged files", AssertSqlSafe(sql), values)
        .await?;
    let files: Vec<File> = rows.iter().map(file_of).collect::<Result<_>>()?;
    Ok(Page::cut(files, limit, |file| file.path.clone()))
}

/// Which of `paths` are staged files of a version, and no folders.
pub async fn files_among(
    tx: &mut Tx,
    version: DatastoreVersionId,
    paths: &[&str],
) -> Result<HashSet<String>> {
    const DOING: &str = "looking for staged files";
    let mut found = HashSet::new();
    for chunk in paths.chunks(MEMBERS_PER_LIST) {
        let places: Vec<String> = chunk.iter().map(|path| place(path)).collect();
        let places: Vec<&str> = places.iter().map(String::as_str).collect();
        let Some((members, of_list)) = list(&places, 2) else {
            continue;
        };
        let sql = format!(
            "select place from staged_file where version = $1 and is_folder = 0 \
                and place in {members}"
        );
        let mut values = values![version];
        values.extend(of_list);
        for row in &tx.rows(DOING, AssertSqlSafe(sql), values).await? {
            found.insert(path(&mut Columns::of(DOING, row), DOING)?);
        }
    }
    Ok(found)
}

/// Adds a file, or replaces the one of its path, in a version that is held; says how the
/// version grows by it.
pub async fn put_file(tx: &mut Tx, version: DatastoreVersionId, new: &File) -> Result<Growth> {
    let before = shrink(file(tx, version, &new.path).await?.as_ref());
    let sql = format!(
        "insert into staged_file (version, {FILE}) values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10) \
         on conflict (version, place) do update set blob = excluded.blob, \
            size_bytes = excluded.size_bytes, new_bytes = excluded.new_bytes, \
            etag = excluded.etag, upload = excluded.upload, sent_at = excluded.sent_at, \
            is_folder = excluded.is_folder, notes = excluded.notes"
    );
    let values = values![
        version,
        place(&new.path),
        new.blob,
        new.size_bytes,
        new.new_bytes,
        new.etag.as_str(),
        new.upload,
        new.sent_at,
        i64::from(new.is_folder),
        json(&new.notes)?
    ];
    tx.execute("staging a file", AssertSqlSafe(sql), values)
        .await?;
    Ok(Growth {
        files: before.files + 1,
        size_bytes: before.size_bytes + signed(new.size_bytes),
        new_bytes: before.new_bytes + signed(new.new_bytes),
    })
}

/// Removes the file, or the folder, of a path from a version that is held; says how the
/// version shrinks.  `None` when there is none.
pub async fn remove_file(
    tx: &mut Tx,
    version: DatastoreVersionId,
    path: &str,
    is_folder: bool,
) -> Result<Option<Growth>> {
    let old = file(tx, version, path).await?;
    let Some(old) = old.filter(|old| old.is_folder == is_folder) else {
        return Ok(None);
    };
    let sql = "delete from staged_file where version = $1 and place = $2";
    let values = values![version, place(path)];
    tx.execute("removing a staged file", sql, values).await?;
    Ok(Some(shrink(Some(&old))))
}

fn shrink(old: Option<&File>) -> Growth {
    old.map_or_else(Growth::default, |old| Growth {
        files: -1,
        size_bytes: -signed(old.size_bytes),
        new_bytes: -signed(old.new_bytes),
    })
}

fn signed(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

/// Forgets all that is staged of a version.
pub(super) async fn forget(tx: &mut Tx, version: DatastoreVersionId) -> Result<()> {
    for sql in [
        "delete from staged_upload where version = $1",
        "delete from staged_file where version = $1",
    ] {
        tx.execute("forgetting staged files", sql, values![version])
            .await?;
    }
    Ok(())
}

/// Where a listing of all blobs goes on: parts come first, because what is put together
/// meanwhile is among the files then.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum After {
    /// This part, by its upload and number.
    Part(UploadId, u32),
    /// All parts.
    Parts,
    /// This file.
    File(DatastoreVersionId, String),
}

/// Blobs of all parts and staged files, from those after `after` on: for those who look
/// after blobs.
pub async fn blobs_referenced(
    tx: &mut Tx,
    after: Option<&After>,
    limit: u32,
) -> Result<Page<BlobId, After>> {
    match after {
        None | Some(After::Part(..)) => part_blobs(tx, after, limit).await,
        Some(After::Parts | After::File(..)) => file_blobs(tx, after, limit).await,
    }
}

async fn part_blobs(tx: &mut Tx, after: Option<&After>, limit: u32) -> Result<Page<BlobId, After>> {
    const DOING: &str = "listing blobs of uploads";
    let sql = "select upload, number, blob from staged_part where (upload, number) > ($1, $2) \
          order by upload, number limit $3";
    let (upload, number) = match after {
        Some(After::Part(upload, number)) => (upload.to_string(), *number),
        _ => (String::new(), 0),
    };
    let rows = tx
        .rows(DOING, sql, values![upload, number, one_more(limit)])
        .await?;
    let mut found = Vec::with_capacity(rows.len());
    for row in &rows {
        let mut columns = Columns::of(DOING, row);
        let after = After::Part(columns.parse()?, columns.number()?);
        found.push((columns.parse()?, after));
    }
    let mut page = blobs(Page::cut(found, limit, |(_, after)| after.clone()));
    page.next = page.next.or(Some(After::Parts));
    Ok(page)
}

async fn file_blobs(tx: &mut Tx, after: Option<&After>, limit: u32) -> Result<Page<BlobId, After>> {
    const DOING: &str = "listing blobs of staged files";
    let sql = "select version, place, blob from staged_file \
          where (version, place) > ($1, $2) and is_folder = 0 order by version, place limit $3";
    let (version, place) = match after {
        Some(After::File(version, path)) => (version.to_string(), place(path)),
        _ => Default::default(),
    };
    let rows = tx
        .rows(DOING, sql, values![version, place, one_more(limit)])
        .await?;
    let mut found = Vec::with_capacity(rows.len());
    for row in &rows {
        let mut columns = Columns::of(DOING, row);
        let after = After::File(columns.parse()?, path(&mut columns, DOING)?);
        found.push((columns.parse()?, after));
    }
    Ok(blobs(Page::cut(found, limit, |(_, after)| after.clone())))
}

fn blobs(page: Page<(BlobId, After), After>) -> Page<BlobId, After> {
    Page {
        items: page.items.into_iter().map(|(blob, _)| blob).collect(),
        next: page.next,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_sort_by_their_bytes() {
        let mut paths = ["b", "a/b", "a", "a.txt", "Z", "ä", "a b", "雪"];
        let mut by_place = paths;
        paths.sort_unstable();
        by_place.sort_unstable_by_key(|path| place(path));
        assert_eq!(paths, by_place);
        assert_eq!(place("a/"), "612f");
        assert!(place("a/zz") < behind(&place("a/")) && behind(&place("a/")) < place("a0"));
    }
}
