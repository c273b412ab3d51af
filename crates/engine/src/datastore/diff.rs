//! What is different between two versions.

use grid_core::access::Action;
use grid_manifest::Entry;

use super::list::List;
use super::name;
use crate::Engine;
use crate::access::Caller;
use crate::error::Result;

/// Blocks that one request reads.  Higher: a request between two long lists that differ in
/// nothing but times takes long; lower: pages are short, even empty, while there is more.
const BLOCKS_MAX: usize = 1_000;

/// One difference: only before, only after, or both.
#[derive(Debug, Clone)]
pub struct Change {
    /// As it was.
    pub before: Option<Entry>,
    /// As it is.
    pub after: Option<Entry>,
}

/// A page of differences.
#[derive(Debug, Clone)]
pub struct Changes {
    /// By path.
    pub changes: Vec<Change>,
    /// Pass as `after` for the next page.
    pub next: Option<String>,
}

/// A place in a list.
struct Cursor {
    list: List,
    block: usize,
    at: usize,
}

impl Cursor {
    async fn new(mut list: List, after: Option<&str>) -> Result<Self> {
        let Some(after) = after else {
            return Ok(Self {
                list,
                block: 0,
                at: 0,
            });
        };
        let block = list.index.block_of(after);
        let entries = list.block(block).await?;
        let at = entries.partition_point(|entry| entry.path.as_str() <= after);
        let mut cursor = Self { list, block, at };
        cursor.settle(entries.len());
        Ok(cursor)
    }

    fn settle(&mut self, length: usize) {
        if self.at >= length && length > 0 {
            (self.block, self.at) = (self.block + 1, 0);
        }
    }

    async fn peek(&mut self) -> Result<Option<Entry>> {
        if self.block >= self.list.index.blocks.len() {
            return Ok(None);
        }
        let entries = self.list.block(self.block).await?;
        Ok(entries.get(self.at).cloned())
    }

    async fn step(&mut self) -> Result<()> {
        let entries = self.list.block(self.block).await?;
        self.at += 1;
        self.settle(entries.len());
        Ok(())
    }

    /// The block that begins here.
    fn begins(&self) -> Option<grid_core::blob::BlobId> {
        let block = self.list.index.blocks.get(self.block)?;
        (self.at == 0).then_some(block.blob)
    }
}

/// What changed from `before` to `after`: added, removed, or with other content or mode.
/// Parts that both have are not read.
pub async fn diff(
    engine: &Engine,
    caller: &Caller,
    (before, after): (&str, &str),
    from: Option<&str>,
    limit: usize,
) -> Result<Changes> {
    let mut tx = engine.inner.db.read().await?;
    let mut lists = Vec::with_capacity(2);
    for text in [before, after] {
        let found = name::find(&mut tx, caller, text, name::Which::Ready).await?;
        let action = Action::SeeDatastore;
        caller.check(&mut tx, &found.datastore, action).await?;
        lists.push(found.version);
    }
    drop(tx);
    let mut old = Cursor::new(List::open(engine, &lists[0]).await?, from).await?;
    let mut new = Cursor::new(List::open(engine, &lists[1]).await?, from).await?;
    let mut changes = Vec::new();
    let mut last = None;
    loop {
        if old.begins().is_some() && old.begins() == new.begins() {
            (old.block, new.block) = (old.block + 1, new.block + 1);
            continue;
        }
        let is_enough = old.list.fetched + new.list.fetched > BLOCKS_MAX;
        if (changes.len() >= limit || is_enough) && last.is_some() {
            return Ok(Changes {
                changes,
                next: last,
            });
        }
        let (one, other) = (old.peek().await?, new.peek().await?);
        let order = match (&one, &other) {
            (None, None) => {
                return Ok(Changes {
                    changes,
                    next: None,
                });
            }
            (Some(_), None) => std::cmp::Ordering::Less,
            (None, Some(_)) => std::cmp::Ordering::Greater,
            (Some(one), Some(other)) => one.path.cmp(&other.path),
        };
        let (one, other) = (
            one.filter(|_| order.is_le()),
            other.filter(|_| order.is_ge()),
        );
        last = one
            .as_ref()
            .or(other.as_ref())
            .map(|entry| entry.path.clone());
        if one.is_some() {
            old.step().await?;
        }
        if other.is_some() {
            new.step().await?;
        }
        let is_same = matches!((&one, &other), (Some(one), Some(other))
            if one.node == other.node && one.mode == other.mode);
        if !is_same {
            changes.push(Change {
                before: one,
                after: other,
            });
        }
    }
}
