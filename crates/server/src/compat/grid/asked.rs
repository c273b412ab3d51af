//! What is asked for in addresses: clusters, filters, pages.

use std::collections::HashSet;

use grid_api::error::ErrorCode;
use grid_core::id::RunId;
use grid_core::time::Timestamp;
use grid_engine::Engine;
use grid_store::db::Position;

use crate::error::{Failure, Result};
use crate::extract::Query;

/// What the client takes for its cluster before it has signed in.
const BEFORE_LOGIN: &str = "prod-2";

/// Refuses clusters that are not there.
pub(super) fn cluster<'e>(engine: &'e Engine, asked: &str) -> Result<&'e str> {
    let cluster = engine.cluster();
    if asked == cluster || asked == BEFORE_LOGIN {
        return Ok(cluster);
    }
    Err(Failure::new(
        ErrorCode::NotFound,
        format!("there is no cluster '{asked}'"),
    )
    .hint(format!("`grid clusters` lists what there is: '{cluster}'")))
}

/// The parameters of a question; the same one may come several times.
pub(super) type Parameters = Query<Vec<(String, String)>>;

/// All values of a parameter.
pub(super) fn all<'q>(
    parameters: &'q [(String, String)],
    name: &'q str,
) -> impl Iterator<Item = &'q str> {
    let named = parameters.iter().filter(move |(known, _)| known == name);
    named
        .map(|(_, value)| value.as_str())
        .filter(|value| !value.is_empty())
}

/// The value of a parameter.
pub(super) fn one<'q>(parameters: &'q [(String, String)], name: &'q str) -> Option<&'q str> {
    all(parameters, name).next()
}

/// How many are asked for at a time, under either of its names; nothing for all.
pub(super) fn page_size(parameters: &[(String, String)], max: u32) -> Result<Option<u32>> {
    let asked = one(parameters, "pageSize").or_else(|| one(parameters, "limit"));
    let Some(asked) = asked else {
        return Ok(None);
    };
    match asked.parse::<u32>() {
        Ok(0) => Ok(None),
        Ok(size) => Ok(Some(size.min(max))),
        Err(_) => Err(Failure::invalid(format!(
            "'{asked}' is not a number of things to list"
        ))),
    }
}

/// Words that a phase, or a kind, must or must not be.
pub(super) struct Words<'q> {
    must: HashSet<&'q str>,
    must_not: HashSet<&'q str>,
}

impl<'q> Words<'q> {
    pub(super) fn read(parameters: &'q [(String, String)], must: &'q str, not: &'q str) -> Self {
        Self {
            must: all(parameters, must).collect(),
            must_not: all(parameters, not).collect(),
        }
    }

    pub(super) fn allow(&self, word: &str) -> bool {
        (self.must.is_empty() || self.must.contains(word)) && !self.must_not.contains(word)
    }

    /// Whether this word and no other is asked for.
    pub(super) fn only(&self, word: &str) -> bool {
        self.must.len() == 1 && self.must.contains(word)
    }
}

/// A place in the list of runs.
pub(super) fn page_token(position: &Position<RunId>) -> String {
    format!("{}.{}", position.at.as_millis(), position.id)
}

/// Reads such a place.
pub(super) fn position(token: &str) -> Result<Position<RunId>> {
    let read = || {
        let (at, id) = token.split_once('.')?;
        Some(Position {
            at: Timestamp::from_millis(at.parse().ok()?),
            id: id.parse().ok()?,
        })
    };
    read().ok_or_else(|| Failure::invalid(format!("'{token}' is not a page of this list")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parameters(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect()
    }

    #[test]
    fn words_filter() {
        let asked = parameters(&[("in", "A"), ("in", "B"), ("not", "B"), ("in", "")]);
        let words = Words::read(&asked, "in", "not");
        assert!(words.allow("A") && !words.allow("B") && !words.allow("C"));
        assert!(!words.only("A"));
        assert!(Words::read(&[], "in", "not").allow("anything"));
    }

    #[test]
    fn pages_have_sizes_and_places() {
        let size = |pairs: &[(&str, &str)]| page_size(&parameters(pairs), 100).ok();
        assert_eq!(size(&[]), Some(None));
        assert_eq!(size(&[("pageSize", "25")]), Some(Some(25)));
        assert_eq!(size(&[("limit", "999")]), Some(Some(100)));
        assert_eq!(size(&[("limit", "0")]), Some(None));
        assert_eq!(size(&[("limit", "-1")]), None);
        let at = Timestamp::from_millis(1_700_000_000_000);
        let place = Position {
            at,
            id: RunId::from_parts(at, 7),
        };
        assert_eq!(position(&page_token(&place)).ok(), Some(place));
        for wrong in ["", "x", "1.x", "1"] {
            assert!(position(wrong).is_err(), "{wrong}");
        }
    }
}
