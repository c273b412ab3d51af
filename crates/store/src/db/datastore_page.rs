//! Parts of the list of a datastore version that is being uploaded.

use grid_core::blob::BlobId;
use grid_core::id::DatastoreVersionId;
use sqlx::AssertSqlSafe;
use sqlx::any::AnyRow;

use super::error::Result;
use super::page::{Page, one_more};
use super::sql::{Columns, Value, values};
use super::tx::Tx;

/// A part of a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    /// Which, from 0.
    pub number: u32,
    /// What its entries are called, to see whether they are the same.
    pub digest: String,
    /// The blob that holds them, once all of their bytes are there.
    pub blob: Option<BlobId>,
    /// How many files it has.
    pub files: u64,
    /// Their bytes together.
    pub size_bytes: u64,
    /// How many of them were missing when the part was first offered.
    pub new_bytes: u64,
    /// Where it is a block of the list as it is.
    pub block: Option<Block>,
}

/// What is known of a part that is a block of the list as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Block {
    /// The path with which it begins.
    pub first: String,
    /// How many entries it has.
    pub entries: u64,
    /// What is left over of looking at them for those that follow.
    pub tail: String,
}

const COLUMNS: &str = "number, digest, blob, files, size_bytes, new_bytes, first, entries, tail";

fn of_row(row: &AnyRow) -> Result<Part> {
    let mut columns = Columns::of("reading a part of an upload", row);
    Ok(Part {
        number: columns.number()?,
        digest: columns.text()?,
        blob: columns.opt_parse()?,
        files: columns.number()?,
        size_bytes: columns.number()?,
        new_bytes: columns.number()?,
        block: {
            let (first, entries, tail) = (
                columns.opt_text()?,
                columns.opt_number()?,
                columns.opt_text()?,
            );
            let rest = entries.zip(tail);
            first.zip(rest).map(|(first, (entries, tail))| Block {
                first,
                entries,
                tail,
            })
        },
    })
}

/// Adds a part, or replaces the one of that number.  Of the same entries offered again, what
/// was missing at first is kept.
pub async fn put(tx: &mut Tx, version: DatastoreVersionId, part: &Part) -> Result<()> {
    let sql = "insert into datastore_page (version, number, digest, blob, files, size_bytes, \
            new_bytes, first, entries, tail) \
         values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10) \
         on conflict (version, number) do update set \
            new_bytes = case when datastore_page.digest = excluded.digest \
                then datastore_page.new_bytes else excluded.new_bytes end, \
            digest = excluded.digest, blob = excluded.blob, files = excluded.files, \
            size_bytes = excluded.size_bytes, first = excluded.first, \
            entries = excluded.entries, tail = excluded.tail";
    let block = part.block.as_ref();
    let mut values = values![
        version,
        part.number,
        part.digest.as_str(),
        part.blob,
        part.files,
        part.size_bytes,
        part.new_bytes,
        block.map(|block| block.first.as_str()),
    ];
    values.push(block.map_or(Value::NoInt, |block| Value::from(block.entries)));
    values.push(Value::from(block.map(|block| block.tail.as_str())));
    tx.execute("storing a part of an upload", sql, values)
        .await?;
    Ok(())
}

/// A part is not there any more: it has to be sent again.
pub async fn lose(tx: &mut Tx, version: DatastoreVersionId, number: u32) -> Result<()> {
    let sql = "update datastore_page set blob = null where version = $1 and number = $2";
    tx.execute("losing a part of an upload", sql, values![version, number])
        .await?;
    Ok(())
}

/// Parts of a version by number, from the one after `after` on.
pub async fn list(
    tx: &mut Tx,
    version: DatastoreVersionId,
    after: Option<u32>,
    limit: u32,
) -> Result<Page<Part, u32>> {
    let sql = format!(
        "select {COLUMNS} from datastore_page where version = $1 and number > $2 \
          order by number limit $3"
    );
    let after = after.map_or(-1, i64::from);
    let rows = tx
        .rows(
            "listing parts of an upload",
            AssertSqlSafe(sql),
            values![version, after, one_more(limit)],
        )
        .await?;
    let parts: Vec<Part> = rows.iter().map(of_row).collect::<Result<_>>()?;
    Ok(Page::cut(parts, limit, |part| part.number))
}
