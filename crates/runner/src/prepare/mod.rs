//! What is done before a script can run: its code, its environment, what is
//! restored of an earlier attempt.

pub(crate) mod code;
pub(crate) mod container;
pub(crate) mod data;
pub(crate) mod elsewhere;
pub(crate) mod environment;
mod restore;
mod shelf;
pub(crate) mod substitute;
pub(crate) mod tree;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use grid_core::spec::Source;
use grid_core::workload::{End, ReasonCode};
use serde::{Deserialize, Serialize};

use self::code::Trees;
use self::container::Container;
use self::data::{Mounted, Versions};
use self::environment::Environments;
use crate::attempt::Attempt;
use crate::attempt::end::failed;
use crate::context::Context;

/// What a script finds.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Prepared {
    /// Folders of programs that come before the system's.
    pub(crate) path_first: Vec<PathBuf>,
    /// Variables that the environment needs.
    pub(crate) variables: Vec<(String, String)>,
    /// Folders that must be visible.
    pub(crate) readable: Vec<PathBuf>,
    /// The image to run in.
    pub(crate) container: Option<Container>,
    /// Datastores.
    #[serde(default)]
    pub(crate) mounts: Vec<Mounted>,
}

/// What all preparations of a runner share.
pub(crate) struct Prepare {
    pub(crate) trees: Trees,
    pub(crate) versions: Versions,
    pub(crate) environments: Environments,
}

impl Prepare {
    /// The system's interpreter.
    pub(crate) fn python(&self) -> Option<&Path> {
        self.environments.python()
    }

    /// Looks after the caches, for ever.
    pub(crate) async fn keep(&self, context: &Context) {
        tokio::join!(
            self.trees.keep(),
            self.versions.keep(context),
            self.environments.keep(),
        );
    }
}

/// Prepares everything; may be dropped at any time, and called again.
pub(crate) async fn prepare(
    context: &Arc<Context>,
    attempt: &Arc<Attempt>,
) -> Result<Prepared, End> {
    let cannot = |message: String| failed(ReasonCode::Start, message, None);
    match &attempt.launch.spec.source {
        Source::Nothing => {
            tree::make_empty(&attempt.work()).map_err(|error| cannot(error.to_string()))?;
        }
        Source::Snapshot { id, .. } => {
            attempt.set_note("fetching the code");
            let provided = context.prepare.trees.provide(context, attempt, *id).await;
            provided.map_err(|error| cannot(error.in_full()))?;
        }
        Source::Git { url, .. } => {
            return Err(cannot(format!(
                "the code of {url} was not cloned by the server before it was sent here"
            )));
        }
    }
    let mut prepared = context
        .prepare
        .environments
        .provide(context, attempt)
        .await?;
    if !attempt.launch.spec.datastores.is_empty() {
        let mounts = context.prepare.versions.provide(context, attempt).await;
        prepared.mounts = mounts.map_err(|error| cannot(error.in_full()))?;
    }
    if attempt.launch.resume {
        restore::restore(context, attempt)
            .await
            .map_err(|error| cannot(error.in_full()))?;
    }
    Ok(prepared)
}
