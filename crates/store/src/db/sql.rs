//! Values into statements and out of rows, the same for both databases.

use std::error::Error as StdError;
use std::fmt::Write;
use std::str::FromStr;

use grid_core::blob::BlobId;
use grid_core::id::{
    CredentialId, DatastoreId, DatastoreVersionId, KeyId, NodeId, RunId, SnapshotId, TeamId,
    UploadId, UserId, WorkloadId,
};
use grid_core::time::Timestamp;
use serde::Serialize;
use serde::de::DeserializeOwned;
use sqlx::any::{AnyArguments, AnyRow};
use sqlx::{Arguments, Row};

use super::error::{Error, Result};
use super::page::Deletion;

/// Rows of one statement that writes many.  More: SQLite, which looks for the name of each
/// `$n` among all before it, spends its time there, and the limit of 32,766 values comes
/// near.  Fewer: the way to the database and back is paid more often.
const ROWS_PER_STATEMENT: usize = 32;

/// Sizes in which many rows are written, so that only a few different statements exist
/// and each is prepared once.
const SIZES: [usize; 3] = [ROWS_PER_STATEMENT, 4, 1];

/// Splits rows into pieces of the few sizes that statements have.
pub(super) fn pieces<T>(mut rows: &[T]) -> impl Iterator<Item = &[T]> {
    std::iter::from_fn(move || {
        let size = SIZES.into_iter().find(|size| *size <= rows.len())?;
        let (piece, rest) = rows.split_at(size);
        rows = rest;
        Some(piece)
    })
}

/// `($3, $4), ($5, $6)`: placeholders for `rows` rows of `columns` values from `$first` on.
pub(super) fn tuples(rows: usize, columns: usize, first: usize) -> String {
    let mut text = String::with_capacity(rows * (columns * 7 + 4));
    for row in 0..rows {
        text.push_str(if row == 0 { "(" } else { ", (" });
        for column in 0..columns {
            let comma = if column == 0 { "" } else { ", " };
            // Writing to a string cannot fail.
            let _ = write!(text, "{comma}${}", first + row * columns + column);
        }
        text.push(')');
    }
    text
}

/// Members of one `in (…)`, where there may be many.  For more and fewer, see
/// [`ROWS_PER_STATEMENT`].
pub(super) const MEMBERS_PER_LIST: usize = 256;

/// Lists for `in (…)`, placeholders from `$1` on, for as many statements as it takes.
pub(super) fn lists<T: Copy>(members: &[T]) -> impl Iterator<Item = (String, Vec<Value>)>
where
    Value: From<T>,
{
    members
        .chunks(MEMBERS_PER_LIST)
        .filter_map(|chunk| list(chunk, 1))
}

/// One list for `in (…)`, its placeholders from `$first` on; `None` without members.  It is
/// filled up with its last member to a power of four, so that only a few different
/// statements exist.
pub(super) fn list<T: Copy>(members: &[T], first: usize) -> Option<(String, Vec<Value>)>
where
    Value: From<T>,
{
    let last = *members.last()?;
    let mut size = 1;
    while size < members.len() {
        size *= 4;
    }
    let values = members
        .iter()
        .copied()
        .chain(std::iter::repeat(last))
        .take(size);
    Some((tuples(1, size, first), values.map(Value::from).collect()))
}

/// A value bound to a statement.
#[derive(Debug, Clone)]
pub(super) enum Value {
    Text(String),
    Int(i64),
    NoText,
    NoInt,
}

/// The values of a statement, in the order of their placeholders.
macro_rules! values {
    ($($value:expr),* $(,)?) => { vec![$($crate::db::sql::Value::from($value)),*] };
}
pub(super) use values;

pub(super) fn arguments(
    values: Vec<Value>,
) -> Result<AnyArguments, Box<dyn StdError + Send + Sync>> {
    let mut arguments = AnyArguments::default();
    arguments.reserve(values.len(), 0);
    for value in values {
        match value {
            Value::Text(text) => arguments.add(text),
            Value::Int(int) => arguments.add(int),
            Value::NoText => arguments.add(None::<String>),
            Value::NoInt => arguments.add(None::<i64>),
        }?;
    }
    Ok(arguments)
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl From<Option<&str>> for Value {
    fn from(text: Option<&str>) -> Self {
        text.map_or(Self::NoText, Self::from)
    }
}

impl From<i64> for Value {
    fn from(int: i64) -> Self {
        Self::Int(int)
    }
}

impl From<u32> for Value {
    fn from(int: u32) -> Self {
        Self::Int(int.into())
    }
}

/// Sizes and counts.  What does not fit is beyond every limit of the product.
impl From<u64> for Value {
    fn from(int: u64) -> Self {
        Self::Int(i64::try_from(int).unwrap_or(i64::MAX))
    }
}

impl From<bool> for Value {
    fn from(flag: bool) -> Self {
        Self::Int(flag.into())
    }
}

impl From<Timestamp> for Value {
    fn from(at: Timestamp) -> Self {
        Self::Int(at.as_millis())
    }
}

impl From<Option<Timestamp>> for Value {
    fn from(at: Option<Timestamp>) -> Self {
        at.map_or(Self::NoInt, Self::from)
    }
}

macro_rules! displayed {
    ($($id:ty),*) => {$(
        impl From<$id> for Value {
            fn from(id: $id) -> Self {
                Self::Text(id.to_string())
            }
        }

        impl From<&$id> for Value {
            fn from(id: &$id) -> Self {
                Self::Text(id.to_string())
            }
        }

        impl From<Option<$id>> for Value {
            fn from(id: Option<$id>) -> Self {
                id.map_or(Self::NoText, Self::from)
            }
        }
    )*};
}
displayed!(
    BlobId,
    CredentialId,
    DatastoreId,
    DatastoreVersionId,
    KeyId,
    NodeId,
    RunId,
    SnapshotId,
    TeamId,
    UploadId,
    UserId,
    WorkloadId
);

/// A document for a column of JSON.
pub(super) fn json(document: &impl Serialize) -> Result<String> {
    serde_json::to_string(document).map_err(|e| Error::internal("writing JSON", e))
}

/// Reads the columns of a row, in order.
pub(super) struct Columns<'r> {
    row: &'r AnyRow,
    next: usize,
    doing: &'static str,
}

impl<'r> Columns<'r> {
    pub(super) fn of(doing: &'static str, row: &'r AnyRow) -> Self {
        Self {
            row,
            next: 0,
            doing,
        }
    }

    fn get<T>(&mut self) -> Result<T>
    where
        T: sqlx::Decode<'r, sqlx::Any> + sqlx::Type<sqlx::Any>,
    {
        let index = self.next;
        self.next += 1;
        self.row
            .try_get(index)
            .map_err(|e| Error::internal(self.doing, e))
    }

    pub(super) fn str(&mut self) -> Result<&'r str> {
        self.get()
    }

    pub(super) fn text(&mut self) -> Result<String> {
        Ok(self.str()?.to_owned())
    }

    pub(super) fn opt_str(&mut self) -> Result<Option<&'r str>> {
        self.get()
    }

    pub(super) fn opt_text(&mut self) -> Result<Option<String>> {
        Ok(self.opt_str()?.map(str::to_owned))
    }

    pub(super) fn int(&mut self) -> Result<i64> {
        self.get()
    }

    /// A size, a count or a small number: whatever holds an integer of the column.
    pub(super) fn number<T: TryFrom<i64>>(&mut self) -> Result<T>
    where
        T::Error: StdError + Send + Sync + 'static,
    {
        T::try_from(self.int()?).map_err(|e| Error::internal(self.doing, e))
    }

    /// The same, where there may be none.
    pub(super) fn opt_number<T: TryFrom<i64>>(&mut self) -> Result<Option<T>>
    where
        T::Error: StdError + Send + Sync + 'static,
    {
        let number = self.get::<Option<i64>>()?.map(T::try_from).transpose();
        number.map_err(|e| Error::internal(self.doing, e))
    }

    pub(super) fn flag(&mut self) -> Result<bool> {
        Ok(self.int()? != 0)
    }

    pub(super) fn time(&mut self) -> Result<Timestamp> {
        Ok(Timestamp::from_millis(self.int()?))
    }

    pub(super) fn opt_time(&mut self) -> Result<Option<Timestamp>> {
        Ok(self.get::<Option<i64>>()?.map(Timestamp::from_millis))
    }

    /// An id.
    pub(super) fn parse<T: FromStr>(&mut self) -> Result<T>
    where
        T::Err: StdError + Send + Sync + 'static,
    {
        self.str()?
            .parse()
            .map_err(|e: T::Err| Error::internal(self.doing, e))
    }

    pub(super) fn opt_parse<T: FromStr>(&mut self) -> Result<Option<T>>
    where
        T::Err: StdError + Send + Sync + 'static,
    {
        let text = self.opt_str()?;
        text.map(str::parse)
            .transpose()
            .map_err(|e| Error::internal(self.doing, e))
    }

    /// The two columns that say whether it is in the trash.
    pub(super) fn deletion(&mut self) -> Result<Option<Deletion>> {
        let (at, by) = (self.opt_time()?, self.opt_parse()?);
        Ok(at.zip(by).map(|(at, by)| Deletion { at, by }))
    }

    /// A word of a closed set.
    pub(super) fn word<T>(&mut self, parse: impl FnOnce(&str) -> Option<T>) -> Result<T> {
        let word = self.str()?;
        parse(word)
            .ok_or_else(|| Error::internal(self.doing, format!("'{word}' is not a word for it")))
    }

    pub(super) fn json<T: DeserializeOwned>(&mut self) -> Result<T> {
        serde_json::from_str(self.str()?).map_err(|e| Error::internal(self.doing, e))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_hold_every_row_once_in_a_few_sizes() {
        for n in [0, 1, 7, 8, 9, 63, 64, 65, 500, 1000] {
            let rows: Vec<usize> = (0..n).collect();
            let back: Vec<usize> = pieces(&rows).flatten().copied().collect();
            assert_eq!(back, rows);
            assert!(
                pieces(&rows).all(|piece| SIZES.contains(&piece.len())),
                "{n}"
            );
        }
    }

    #[test]
    fn placeholders_count_on() {
        assert_eq!(tuples(2, 3, 4), "($4, $5, $6), ($7, $8, $9)");
    }

    #[test]
    fn a_list_is_filled_up_with_its_last_member() {
        assert!(list::<i64>(&[], 1).is_none());
        let (text, values) = list(&[5_i64, 6], 2).unwrap();
        assert_eq!(text, "($2, $3, $4, $5)");
        assert!(matches!(
            values[..],
            [Value::Int(5), Value::Int(6), Value::Int(6), Value::Int(6)]
        ));
    }
}
