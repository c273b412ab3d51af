//! Removing what is left of attempts: those that the server lets go, and those that a
//! crash left half removed.

use std::collections::HashSet;
use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

use grid_core::id::AttemptId;

use crate::attempt::saved;
use crate::attempt::{Attempt, build_key, end_key};
use crate::context::Context;
use crate::folder;

/// Removes all that is left of attempts which the server has recorded as over.
pub(crate) async fn remove(context: Arc<Context>, attempts: Vec<Arc<Attempt>>) {
    let ids: Vec<AttemptId> = attempts.iter().map(|attempt| attempt.id).collect();
    for attempt in &attempts {
        for key in keys(attempt.id) {
            if context.folder.spool(&key).exists() {
                context.keeper.forget(&key).await;
            }
        }
    }
    let removed = tokio::task::spawn_blocking(move || {
        for id in ids {
            remove_files(&context, id);
        }
    });
    let _ = removed.await;
}

fn keys(attempt: AttemptId) -> [String; 3] {
    [attempt.to_string(), build_key(attempt), end_key(attempt)]
}

fn remove_files(context: &Context, attempt: AttemptId) {
    let own = context.folder.attempt(attempt);
    // First what says that there is an attempt: should this be cut off here, the rest
    // is a leftover, and not an attempt that was never started.
    let mut results = vec![saved::remove_order(&own)];
    results.extend(
        keys(attempt)
            .iter()
            .map(|key| folder::remove_all(&context.folder.spool(key))),
    );
    results.push(folder::remove_all(&own));
    for error in results.into_iter().filter_map(Result::err) {
        tracing::warn!(%attempt, %error, "something stays behind; the next start of the runner removes it");
    }
}

/// Removes what belongs to none of these attempts.
pub(crate) async fn sweep(context: &Context, known: &HashSet<AttemptId>) {
    let keys: HashSet<String> = known.iter().flat_map(|id| keys(*id)).collect();
    match context.keeper.keys().await {
        Ok(present) => {
            for key in present.iter().filter(|key| !keys.contains(*key)) {
                tracing::warn!(key, "a process of an unknown attempt is ended");
                context.keeper.forget(key).await;
            }
        }
        Err(error) => tracing::warn!(
            error = &error as &dyn std::error::Error,
            "the keeper does not list its tasks"
        ),
    }
    let names: HashSet<String> = known.iter().map(AttemptId::to_string).collect();
    for stale in
        stale(&context.folder.attempts(), &names).chain(stale(&context.folder.spools(), &keys))
    {
        if let Err(error) = folder::remove_all(&stale) {
            tracing::warn!(path = %stale.display(), %error, "a leftover cannot be removed");
        }
    }
    for error in context.confinement.driver.clean_up(&names) {
        tracing::warn!(
            error = &error as &dyn std::error::Error,
            "a control group of a former attempt stays behind"
        );
    }
}

fn stale<'a>(
    parent: &std::path::Path,
    keep: &'a HashSet<String>,
) -> impl Iterator<Item = PathBuf> + use<'a> {
    let entries = fs::read_dir(parent).into_iter().flatten().flatten();
    entries
        .filter(|entry| {
            !entry
                .file_name()
                .to_str()
                .is_some_and(|name| keep.contains(name))
        })
        .map(|entry| entry.path())
}
