//! A list on its way to its place: cut into blocks, each stored by its content.

use grid_manifest::{BlockRef, Builder, Check, Entry, Stored, Totals};
use grid_store::db;
use grid_store::db::datastore_version::Content;

use super::list;
use super::work::Fault;
use crate::Engine;
use crate::error::Error;

/// A list that is being cut into blocks and stored.
pub(super) struct Filing {
    engine: Engine,
    builder: Builder,
}

impl Filing {
    pub(super) fn new(engine: &Engine) -> Self {
        Self {
            engine: engine.clone(),
            builder: Builder::default(),
        }
    }

    /// Takes the next entries, whose bytes must be stored.
    pub(super) async fn add(&mut self, entries: Vec<Entry>) -> Result<(), Fault> {
        let blobs: std::collections::HashSet<_> = entries.iter().filter_map(Entry::blob).collect();
        let blobs = blobs.into_iter().collect();
        if !self.engine.inner.blobs.missing(blobs).await?.is_empty() {
            return Err(Fault::Incomplete);
        }
        self.take(entries).await
    }

    /// Takes the next entries, whose bytes were looked for.
    pub(super) async fn take(&mut self, entries: Vec<Entry>) -> Result<(), Fault> {
        let mut builder = std::mem::take(&mut self.builder);
        let cut = tokio::task::spawn_blocking(move || {
            let mut blocks = Vec::new();
            for entry in entries {
                blocks.extend(builder.push(entry)?);
            }
            Ok::<_, grid_manifest::Error>((builder, blocks))
        });
        let (builder, blocks) = cut
            .await
            .map_err(|error| Fault::Ours(Error::internal(error)))?
            .map_err(|error| refused(&error))?;
        self.builder = builder;
        for block in blocks {
            self.store(block).await?;
        }
        Ok(())
    }

    /// Takes a part that is a block, as it is where that can be.  Its bytes were looked for.
    pub(super) async fn join(&mut self, part: db::datastore_page::Part) -> Result<(), Fault> {
        let (Some(blob), Some(block)) = (part.blob, part.block) else {
            return Err(Fault::Incomplete);
        };
        let named = BlockRef {
            blob,
            first: block.first,
            totals: Totals {
                entries: block.entries,
                files: part.files,
                bytes: part.size_bytes,
            },
        };
        let joined = self.builder.join(&named, Check::parse(&block.tail));
        match joined.map_err(|error| refused(&error))? {
            Some(before) => {
                for block in before {
                    self.store(block).await?;
                }
                Ok(())
            }
            None => {
                let entries = list::block(&self.engine, blob).await?;
                self.take(entries).await
            }
        }
    }

    async fn store(&self, stored: Stored) -> Result<(), Fault> {
        crate::snapshot::store(&self.engine, stored.bytes).await?;
        Ok(())
    }

    /// The list is over.
    pub(super) async fn finish(mut self, new_bytes: u64) -> Result<Content, Fault> {
        let built = std::mem::take(&mut self.builder).finish();
        if let Some(last) = built.last {
            self.store(last).await?;
        }
        let manifest = built.index.blob;
        self.store(built.index).await?;
        let Totals { files, bytes, .. } = built.totals;
        Ok(Content {
            manifest,
            files,
            size_bytes: bytes,
            new_bytes,
        })
    }
}

/// What is said of a list that is none.  There are paths in it, and in those anything, which must
/// do nothing to a terminal or a log.
fn refused(error: &grid_manifest::Error) -> Fault {
    let words = error.to_string();
    Fault::Data(words.replace(char::is_control, "\u{fffd}"))
}
