//! Places in lists, as clients carry them: text without a meaning to them.

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use grid_core::id::{DatastoreVersionId, RunId};
use grid_core::time::Timestamp;
use grid_store::db::Position;

use crate::error::{Failure, Result};

/// A place in the list of runs.
pub(super) fn of_run(position: &Position<RunId>) -> String {
    encode('r', &format!("{}.{}", position.at.as_millis(), position.id))
}

pub(super) fn run(cursor: &str) -> Result<Position<RunId>> {
    let text = decode('r', cursor)?;
    let (at, id) = text.split_once('.').ok_or_else(bad)?;
    Ok(Position {
        at: Timestamp::from_millis(at.parse().map_err(|_| bad())?),
        id: id.parse().map_err(|_| bad())?,
    })
}

/// A place in the list of versions of datastores.
pub(super) fn of_datastore(position: &Position<DatastoreVersionId>) -> String {
    encode('d', &format!("{}.{}", position.at.as_millis(), position.id))
}

pub(super) fn datastore(cursor: &str) -> Result<Position<DatastoreVersionId>> {
    let Position { at, id } = aged('d', cursor)?;
    let id = id.parse().map_err(|_| bad())?;
    Ok(Position { at, id })
}

/// A place in the audit log.
pub(super) fn of_audit(position: &Position<String>) -> String {
    encode('a', &format!("{}.{}", position.at.as_millis(), position.id))
}

pub(super) fn audit(cursor: &str) -> Result<Position<String>> {
    aged('a', cursor)
}

/// A place in the list of links.
pub(super) fn of_share(position: &Position<String>) -> String {
    encode('s', &format!("{}.{}", position.at.as_millis(), position.id))
}

pub(super) fn share(cursor: &str) -> Result<Position<String>> {
    aged('s', cursor)
}

fn aged(kind: char, cursor: &str) -> Result<Position<String>> {
    let text = decode(kind, cursor)?;
    let (at, id) = text.split_once('.').ok_or_else(bad)?;
    Ok(Position {
        at: Timestamp::from_millis(at.parse().map_err(|_| bad())?),
        id: id.to_owned(),
    })
}

/// A place among the experiments of a run.
pub(super) fn of_experiment(index: u32) -> String {
    encode('e', &index.to_string())
}

pub(super) fn experiment(cursor: &str) -> Result<u32> {
    decode('e', cursor)?.parse().map_err(|_| bad())
}

fn encode(kind: char, text: &str) -> String {
    BASE64_URL_SAFE_NO_PAD.encode(format!("{kind}{text}"))
}

/// The first letter keeps a place in one list from being used in another.
fn decode(kind: char, cursor: &str) -> Result<String> {
    let bytes = BASE64_URL_SAFE_NO_PAD.decode(cursor).map_err(|_| bad())?;
    let text = String::from_utf8(bytes).map_err(|_| bad())?;
    text.strip_prefix(kind).map(str::to_owned).ok_or_else(bad)
}

fn bad() -> Failure {
    Failure::invalid("the cursor is not one that this list gave out")
        .hint("leave it out to begin with the first page")
}

/// A number of things asked for, between 1 and `max`.
pub(super) fn limit(asked: Option<u32>, usual: u32, max: u32) -> Result<u32> {
    match asked {
        None => Ok(usual),
        Some(limit) if (1..=max).contains(&limit) => Ok(limit),
        Some(limit) => Err(Failure::invalid(format!(
            "limit is {limit}; ask for 1 to {max} at a time"
        ))),
    }
}

/// A time that was asked for.
pub(super) fn time(name: &str, asked: Option<String>) -> Result<Option<Timestamp>> {
    let parse = |text: String| {
        Timestamp::parse(&text).ok_or_else(|| {
            Failure::invalid(format!("{name} is '{text}', not a time"))
                .hint("write it like 2026-01-31T12:00:00Z")
        })
    };
    asked.map(parse).transpose()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_reads_back_and_only_in_its_list() {
        let at = Timestamp::from_millis(1_700_000_000_000);
        let position = Position {
            at,
            id: RunId::from_parts(at, 42),
        };
        assert_eq!(run(&of_run(&position)).expect("read"), position);
        assert_eq!(experiment(&of_experiment(99)).expect("read"), 99);
        for wrong in ["", "x", "%%%", &of_experiment(1), "cjEyMw"] {
            assert!(run(wrong).is_err(), "{wrong}");
        }
        assert!(experiment(&of_run(&position)).is_err());
    }
}
