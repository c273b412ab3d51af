//! Whether what is listed can be read.

use grid_manifest::Entry;
use object_store::{GetOptions, ObjectStore};

use super::Bucket;
use crate::error::{Error, Result};

impl Bucket {
    /// Asks for an object that was listed, without its bytes: some buckets let everybody list
    /// what only some may read.  One that went away meanwhile says nothing of that.
    pub(in super::super) async fn require_readable(&self, entry: &Entry) -> Result<()> {
        let key = self.place.key(&entry.path);
        let options = GetOptions {
            head: true,
            ..GetOptions::default()
        };
        let found = self.store.get_opts(&self.path(&key)?, options).await;
        match found.map_err(|error| self.fault(&key, error)) {
            Ok(_) | Err(Error::Conflict { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }
}
