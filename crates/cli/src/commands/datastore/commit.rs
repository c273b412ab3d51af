//! Making a version of what was written by S3.

use std::time::Duration;

use anyhow::Result;
use clap::Args;
use grid_api::datastore::{DatastoreCommit, DatastoreResponse};
use grid_core::datastore::State;

use super::{create, path};
use crate::context::Ctx;

/// How often it is asked whether a large version is ready.
const POLL: Duration = Duration::from_millis(500);

/// Make a version of what was written to it by S3
///
/// What programs wrote below `datastores/YOU/NAME/next/` becomes the next version, which
/// everybody in the team can read and nobody can change.
#[derive(Debug, Args)]
pub(super) struct CommitArgs {
    /// NAME
    datastore: String,
}

/// Commits what was written.
pub(super) fn run(args: &CommitArgs, ctx: &Ctx) -> Result<()> {
    let route = format!("{}/commit", path(&args.datastore)?);
    let client = ctx.client()?;
    let made = ctx.block_on(async {
        let commit = DatastoreCommit { parts: None };
        let mut answer: DatastoreResponse = client.post(&route, &commit).await?;
        let id = format!("/datastores/{}", answer.datastore.id);
        while answer.datastore.state == State::Processing {
            tokio::time::sleep(POLL).await;
            answer = client.get(&id, &()).await?;
        }
        Ok::<_, anyhow::Error>(answer.datastore)
    })??;
    create::tell(ctx, &made)
}
