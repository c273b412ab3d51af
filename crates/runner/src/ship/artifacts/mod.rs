//! The files that an experiment leaves: found, stored, and only then listed.

mod bytes;
mod scan;
mod store;
mod whole;

use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use futures::{StreamExt, stream};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

pub(crate) use self::scan::Known;
use self::scan::{News, Scan, scan};
use self::store::Outcome;
use crate::attempt::Attempt;
use crate::context::Context;
use crate::prepare::tree::paths_before;
use crate::sync::INLINE_ARTIFACTS_MAX;

/// The least and the longest time between two looks at a running experiment's
/// files.  Higher: people see them later; lower: looking costs the experiment time.
const LOOK_MIN: Duration = Duration::from_secs(1);
const LOOK_MAX: Duration = Duration::from_secs(10);

/// A look may take this part of the time; folders with many files are looked at
/// more rarely.
const LOOK_SHARE: u32 = 50;

/// Batches on their way at once.  Higher: more memory; lower: runner and server wait for
/// each other.
const BATCHES_AT_ONCE: usize = 2;

/// Stores files while the script runs, until it is told that it has ended.
pub(crate) async fn follow(context: &Context, attempt: &Attempt, done: &CancellationToken) {
    let mut pause = LOOK_MIN;
    loop {
        tokio::select! {
            () = done.cancelled() => return,
            () = tokio::time::sleep(pause) => {}
        }
        let begin = Instant::now();
        let news = look(attempt, false).await;
        let least = (begin.elapsed() * LOOK_SHARE).clamp(LOOK_MIN, LOOK_MAX);
        pause = if news.is_changed {
            least
        } else {
            (pause * 3 / 2).clamp(least, LOOK_MAX)
        };
        if keep(context, attempt, news, Some(done)).await.is_none() {
            return;
        }
    }
}

/// Stores all that is there after the script.  Gives the number of files; a few of
/// them are only listed with the report of the end.
pub(crate) async fn finish(context: &Context, attempt: &Attempt) -> usize {
    if has_nothing(attempt).await {
        return 0;
    }
    attempt.set_note("storing artifacts");
    let news = look(attempt, true).await;
    keep(context, attempt, news, None).await;
    attempt.artifacts.lock().await.len()
}

/// The common case, found out without leaving this thread: no code, no files.
async fn has_nothing(attempt: &Attempt) -> bool {
    attempt.artifacts.lock().await.len() == 0
        && std::fs::read_dir(attempt.work()).map_or(true, |mut entries| entries.next().is_none())
}

async fn look(attempt: &Attempt, is_final: bool) -> News {
    let (work, own) = (attempt.work(), attempt.folder.clone());
    let scanned = tokio::task::spawn_blocking(move || match paths_before(&own) {
        Ok(before) => scan(&work, &before),
        // Better all files than none.
        Err(error) => {
            let mut scan = scan(&work, &HashSet::new());
            scan.problems.push(format!(
                "what was there before the script is not known: {error}"
            ));
            scan
        }
    });
    let scan = scanned.await.unwrap_or_else(|error| Scan {
        files: Vec::new(),
        problems: vec![format!("looking for artifacts broke off: {error}")],
    });
    attempt.artifacts.lock().await.compare(scan, is_final)
}

/// Stores and lists; `None` when that is over for good.
async fn keep(
    context: &Context,
    attempt: &Attempt,
    news: News,
    done: Option<&CancellationToken>,
) -> Option<()> {
    for problem in &news.problems {
        attempt.log.say(&format!("Artifacts: {problem}"));
    }
    let is_final = done.is_none();
    let removed: Vec<String> = news
        .gone
        .iter()
        .map(|path| scan::wire_name(path).0)
        .collect();
    let inline = is_final && news.ready.len() <= INLINE_ARTIFACTS_MAX && removed.is_empty();
    if !removed.is_empty()
        && let Err(error) = store::list(context, attempt.id, Vec::new(), removed).await
    {
        return give_up(context, attempt, &error);
    }
    let work = attempt.work();
    let one = async |batch| {
        if done.is_some_and(CancellationToken::is_cancelled) {
            return Ok(Vec::new());
        }
        let outcome = store::store(context, &work, batch).await?;
        tell_failures(attempt, &outcome, is_final).await;
        let views = outcome.stored.iter().map(|stored| stored.view.clone());
        let mut views: Vec<_> = views.collect();
        if !inline {
            let listed = std::mem::take(&mut views);
            store::list(context, attempt.id, listed, Vec::new()).await?;
        }
        let mut known = attempt.artifacts.lock().await;
        for stored in &outcome.stored {
            known.listed(&stored.path, stored.signature);
        }
        Ok(views)
    };
    // While one batch is recorded by the server, the next is read here.
    let mut batches = stream::iter(store::batches(news.ready))
        .map(one)
        .buffered(BATCHES_AT_ONCE);
    let mut inlined = Vec::new();
    while let Some(result) = batches.next().await {
        match result {
            Ok(views) => inlined.extend(views),
            Err(error) => return give_up(context, attempt, &error),
        }
    }
    if inline {
        attempt.list_artifacts(inlined);
    }
    Some(())
}

fn give_up(context: &Context, attempt: &Attempt, error: &store::Error) -> Option<()> {
    tracing::error!(attempt = %attempt.id, error = error as &dyn std::error::Error, "artifacts are not stored");
    match error {
        store::Error::Superseded => context.superseded(attempt.id),
        store::Error::Refused(_) | store::Error::Broken => {
            attempt
                .log
                .say(&format!("Artifacts: {error}; some are missing"));
        }
    }
    None
}

async fn tell_failures(attempt: &Attempt, outcome: &Outcome, is_final: bool) {
    let mut known = attempt.artifacts.lock().await;
    for stored in &outcome.stored {
        let (name, is_changed) = scan::wire_name(&stored.path);
        if is_changed && known.tell_once(&name) {
            attempt.log.say(&format!(
                "Artifacts: a file whose name is not UTF-8 is kept as '{name}'"
            ));
        }
    }
    // While the script runs, the next look tries again.
    for (path, why) in outcome.failed.iter().filter(|_| is_final) {
        attempt
            .log
            .say(&format!("Artifacts: '{}' is not kept: {why}", shown(path)));
    }
}

fn shown(path: &Path) -> String {
    scan::wire_name(path).0
}

/// The state of an attempt's artifacts.
pub(crate) type Shared = Arc<tokio::sync::Mutex<Known>>;
