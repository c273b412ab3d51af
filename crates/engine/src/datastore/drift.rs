//! Whether what was left in a bucket is still what was listed there.
//!
//! It is read only as it was; so what changed or went away is no damage here, but who wants
//! to mount it later had better know now.

use futures::TryStreamExt as _;
use grid_core::datastore::State;
use grid_manifest::{Entry, Node};
use grid_store::db;

use super::elsewhere;
use super::list::List;
use crate::Engine;
use crate::error::Result;

/// Versions that are read at a time.
const STEP: u32 = 64;

/// Objects of one version that are named.
const NAMES_MAX: usize = 3;

/// Says of each version that was left in a bucket what is not any more what it was.
pub(crate) async fn drifted(engine: &Engine) -> Result<Vec<String>> {
    let (mut said, mut after) = (Vec::new(), None);
    loop {
        let mut tx = engine.inner.db.read().await?;
        let page = db::datastore_version::all(&mut tx, after, STEP).await?;
        drop(tx);
        for version in &page.items {
            let is_left = version.is_index && version.state == State::Available;
            if is_left && version.deleted.is_none() {
                said.extend(of_version(engine, version).await?);
            }
        }
        match page.next {
            Some(next) => after = Some(next),
            None => return Ok(said),
        }
    }
}

async fn of_version(
    engine: &Engine,
    version: &db::datastore_version::Version,
) -> Result<Option<String>> {
    let mut tx = engine.inner.db.read().await?;
    let store = db::datastore::by_id(&mut tx, version.datastore).await?;
    let creator = db::user::by_id(&mut tx, version.owner).await?;
    drop(tx);
    let called = format!(
        "{}:{}:{} was left in {}",
        creator.map_or_else(String::new, |user| user.username),
        store.map_or_else(String::new, |store| store.name),
        version.number,
        version.source
    );
    Ok(match compare(engine, version).await {
        Err(error) => Some(format!("{called}, which cannot be looked at: {error}")),
        Ok(drift) => drift.told(&called),
    })
}

/// What is not what it was.
#[derive(Debug, Default, PartialEq, Eq)]
struct Drift {
    listed: u64,
    changed: u64,
    gone: u64,
    names: Vec<String>,
}

impl Drift {
    fn is(&mut self, entry: &Entry, now: Option<&Entry>) {
        self.listed += 1;
        match now {
            Some(now) if now.node == entry.node => return,
            Some(_) => self.changed += 1,
            None => self.gone += 1,
        }
        if self.names.len() < NAMES_MAX {
            self.names.push(format!("'{}'", entry.path.escape_debug()));
        }
    }

    fn told(&self, called: &str) -> Option<String> {
        let wrong = self.changed + self.gone;
        if wrong == 0 {
            return None;
        }
        let more = match wrong - self.names.len() as u64 {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        Some(format!(
            "{called}: of {} objects {} changed since and {} are gone ({}{more}); they cannot be \
             read or mounted: another `grid datastore create` makes a version of what is there now",
            self.listed,
            self.changed,
            self.gone,
            self.names.join(", ")
        ))
    }
}

/// Walks through both lists, which are in the same order.
async fn compare(engine: &Engine, version: &db::datastore_version::Version) -> Result<Drift> {
    let bucket = elsewhere::bucket(engine, version).await?;
    let mut list = List::open(engine, version).await?;
    let mut objects = bucket.list();
    let (mut drift, mut object) = (Drift::default(), None);
    let mut is_over = false;
    for number in 0..list.index.blocks.len() {
        for entry in list.block(number).await?.iter() {
            if !matches!(entry.node, Node::Elsewhere { .. }) {
                continue;
            }
            let is_before = |object: &Option<Entry>| match object {
                Some(object) => object.path < entry.path,
                None => true,
            };
            while !is_over && is_before(&object) {
                object = objects.try_next().await?;
                is_over = object.is_none();
            }
            let now = object.as_ref().filter(|object| object.path == entry.path);
            drift.is(entry, now);
        }
    }
    Ok(drift)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_drifted_is_told_with_names_and_numbers() {
        let entry = |path: &str, tag: &str| Entry {
            path: path.to_owned(),
            mode: 0o644,
            modified_ms: 1,
            node: Node::Elsewhere {
                size_bytes: 4,
                tag: tag.to_owned(),
            },
        };
        let mut drift = Drift::default();
        drift.is(&entry("a", "1"), Some(&entry("a", "1")));
        assert_eq!(drift.told("x"), None);
        drift.is(&entry("b", "1"), Some(&entry("b", "2")));
        for path in ["c", "d", "e"] {
            drift.is(&entry(path, "1"), None);
        }
        let told = drift
            .told("ada:cats:1 was left in s3://data/")
            .expect("told");
        let expected = "s3://data/: of 5 objects 1 changed since and 3 are gone ('b', 'c', 'd' \
                        and 1 more); they";
        assert!(told.contains(expected), "{told}");
    }
}
