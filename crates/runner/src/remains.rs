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
    let mut all = Vec::new();
    for attempt in attempts {
        let keys = keys_of(&attempt);
        for key in &keys {
            context.keeper.forget(key).await;
        }
        all.push((attempt.id, keys));
    }
    let removed = tokio::task::spawn_blocking(move || {
        for (id, keys) in all {
            remove_files(&context, id, &keys);
        }
    });
    let _ = removed.await;
}

/// The keys of the processes that an attempt had, or may have had.
fn keys_of(attempt: &Attempt) -> Vec<String> {
    let mut keys = vec![attempt.key()];
    if attempt.build_log.is_used() {
        keys.push(build_key(attempt.id));
    }
    if !attempt.launch.spec.actions.on_experiment_end.is_empty() {
        keys.push(end_key(attempt.id));
    }
    keys
}

fn remove_files(context: &Context, attempt: AttemptId, keys: &[String]) {
    let own = context.folder.attempt(attempt);
    // First what says that there is an attempt: should this be cut off here, the rest
    // is a leftover, and not an attempt that was never started.
    let spare = &context.folder.spare;
    let is_kept = spare.keep_room(&own);
    let mut results = Vec::new();
    if !is_kept {
        results.push(saved::remove_order(&own));
    }
    let spools = keys.iter().map(|key| context.folder.spool(key));
    let left = spools.filter(|spool| !spare.keep_spool(spool));
    results.extend(left.map(|spool| folder::remove_all(&spool)));
    if !is_kept {
        results.push(folder::remove_all(&own));
    }
    for error in results.into_iter().filter_map(Result::err) {
        tracing::warn!(%attempt, %error, "something stays behind; the next start of the runner removes it");
    }
}

/// Removes what belongs to none of these attempts.
pub(crate) async fn sweep(context: &Context, known: &HashSet<AttemptId>) {
    let all = known
        .iter()
        .flat_map(|id| [id.to_string(), build_key(*id), end_key(*id)]);
    let keys: HashSet<String> = all.collect();
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
