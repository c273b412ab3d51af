//! The way of one attempt: prepare, run, store, end.
//!
//! Every step first looks whether it was done already, so that after a restart of
//! the runner the way is simply gone again.

use std::sync::Arc;
use std::time::Duration;

use grid_api::runner::Phase;
use grid_core::workload::{End, ReasonCode};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::confine::bytes_in_words;
use super::end::{self, Circumstances, failed};
use super::saved::{self, Cause, Saved};
use super::start;
use super::{Attempt, Wish, end_key};
use crate::context::Context;
use crate::keeper::protocol::{Ending, Exit, TaskState};
use crate::keeper::reader::SpoolReader;
use crate::keeping::Seen;
use crate::prepare;
use crate::ship::artifacts;
use crate::sync::INLINE_ARTIFACTS_MAX;
use crate::table::Grant;

/// How long a process may take to end after it ran too long, in milliseconds.
/// Higher: it holds its CPUs longer; lower: it cannot save what it has.
const OVER_TIME_GRACE_MS: u64 = 30_000;

/// How long the actions at the end may take when somebody wants the attempt to end,
/// beyond the grace, in milliseconds.  Higher: a stop takes longer; lower:
/// notifications of stopped experiments are cut off.
const END_ACTIONS_AFTER_STOP_MS: u64 = 60_000;

/// From which age on an attempt's artifacts are stored while it runs.  Higher:
/// people see them later; lower: short experiments pay for a scan they do not need.
const FOLLOW_AFTER: Duration = Duration::from_secs(1);

/// Goes the way of an attempt, from wherever it stands.
pub(crate) async fn drive(
    context: Arc<Context>,
    attempt: Arc<Attempt>,
    grant: Grant,
    is_fresh: bool,
) {
    let saved = if is_fresh {
        Saved::default()
    } else {
        saved::read_state(&attempt.folder)
    };
    let wishes = attempt.wishes();
    let mut way = Way {
        context,
        attempt,
        grant,
        saved,
        wishes,
        is_fresh,
    };
    way.go().await;
}

/// Says how far an attempt is, before its way is gone (on).
pub(crate) fn begin(context: &Context, attempt: &Attempt, is_fresh: bool) {
    attempt.set_phase(if !is_fresh && was_started(context, attempt) {
        Phase::Running
    } else {
        Phase::Preparing
    });
}

/// Whether there was a process once: the keeper makes its record before it lets it run.
fn was_started(context: &Context, attempt: &Attempt) -> bool {
    let record = context.folder.spool(&attempt.key()).join("task.json");
    // That of a spool which is used again is a line end until then.
    record.metadata().is_ok_and(|found| found.len() > 1)
}

struct Way {
    context: Arc<Context>,
    attempt: Arc<Attempt>,
    grant: Grant,
    saved: Saved,
    wishes: watch::Receiver<Wish>,
    is_fresh: bool,
}

impl Way {
    async fn go(&mut self) {
        let end = match self.saved.end.clone() {
            Some(end) => end,
            None => self.run().await,
        };
        // The next one need not wait for the tidying up after this one's processes.
        self.context.release(&self.attempt);
        self.remove_group().await;
        if self.attempt.wished().keeps() {
            self.store(&end).await;
        } else {
            self.drop_logs();
        }
        self.attempt.end(end);
        self.context.changed();
    }

    /// Removes the control group, in which nothing is left.
    async fn remove_group(&self) {
        let group = self.attempt.find_group(&self.context.confinement);
        if !group.exists() {
            return;
        }
        let removed = tokio::task::spawn_blocking(move || group.remove()).await;
        if let Ok(Err(error)) = removed {
            tracing::warn!(attempt = %self.attempt.id, error = &error as &dyn std::error::Error, "a control group stays behind");
        }
    }

    fn save(&self) {
        if let Err(error) = saved::write_state(&self.attempt.folder, &self.saved) {
            tracing::error!(attempt = %self.attempt.id, error = &error as &dyn std::error::Error, "the state of an attempt is not on disk; a restart of the runner would repeat a step");
        }
    }

    /// From the order to the end of the last process.
    async fn run(&mut self) -> End {
        let key = self.attempt.key();
        let mut news = self.context.keeper.watch(&key);
        let started = match self.find_or_start().await {
            Ok(started) => started,
            Err(end) => {
                self.saved.end = Some(end.clone());
                self.save();
                return end;
            }
        };
        if started {
            self.attempt.set_phase(Phase::Running);
            self.context.changed();
        }
        let exit = self.oversee(&key, &mut news).await;
        if !self.has_end_actions() {
            self.context.release(&self.attempt);
        }
        // Not every piece is announced; what there is at the end is looked for.
        self.attempt.log.touch();
        start::clean_up(&self.attempt).await;
        let mut end = self.judge(&exit);
        if self.has_end_actions() && exit.how != Ending::Lost {
            end = self.end_actions(end).await;
        }
        // What can be read off the spool again need not be written.
        if self.saved.cause.is_some() || self.has_end_actions() || !matches!(end, End::Succeeded) {
            self.saved.end = Some(end.clone());
            self.save();
        }
        end
    }

    fn has_end_actions(&self) -> bool {
        !self
            .attempt
            .launch
            .spec
            .actions
            .on_experiment_end
            .is_empty()
    }

    /// True when the process runs (or ran): started now, or found.
    async fn find_or_start(&mut self) -> Result<bool, End> {
        if !self.is_fresh {
            match self.context.keeper.look(&self.attempt.key()).await {
                Ok(Some(
                    TaskState::Starting | TaskState::Running { .. } | TaskState::Ended { .. },
                )) => return Ok(true),
                Ok(None) if was_started(&self.context, &self.attempt) => {
                    return Err(End::Lost {
                        message: "its process is gone, and nobody saw how it ended".to_owned(),
                    });
                }
                Ok(None) => {}
                Err(error) => {
                    return Err(End::Lost {
                        message: error.to_string(),
                    });
                }
            }
        }
        let prepared = tokio::select! {
            biased;
            end = unwanted(&mut self.wishes) => return Err(end),
            prepared = prepare::prepare(&self.context, &self.attempt) => prepared?,
        };
        start::start(&self.context, &self.attempt, &self.grant, &prepared).await?;
        Ok(true)
    }

    /// Waits for the end of the script, and sees to it that it comes when it is wanted.
    async fn oversee(&mut self, key: &str, news: &mut watch::Receiver<Seen>) -> Exit {
        let limit = self
            .attempt
            .launch
            .spec
            .max_duration_ms
            .map(Duration::from_millis);
        let started = self.age(key).await;
        let mut patience = Patience {
            kill_at: None,
            over_at: limit.map(|limit| started + limit),
            is_asked: false,
        };
        let mut follow_at = Some(started.max(Instant::now() - FOLLOW_AFTER) + FOLLOW_AFTER);
        let done = CancellationToken::new();
        let (mut follower, mut stalled) = (None, None);
        let exit = loop {
            let seen = news.borrow_and_update().clone();
            if let Some(exit) = seen.exit {
                break exit;
            }
            if seen.total_bytes > 0 {
                self.attempt.log.touch();
                self.context.changed();
            }
            if seen.stalled != stalled {
                match &seen.stalled {
                    Some(reason) => self.attempt.set_note(reason),
                    None => self.attempt.clear_note(),
                }
                stalled = seen.stalled;
                self.context.changed();
            }
            self.obey(key, &mut patience).await;
            tokio::select! {
                changed = news.changed() => if changed.is_err() { news_lost().await },
                changed = self.wishes.changed() => if changed.is_err() { news_lost().await },
                () = at(patience.kill_at) => {
                    patience.kill_at = None;
                    self.context.keeper.signal(key, libc::SIGKILL).await;
                }
                () = at(patience.over_at) => {
                    patience.over_at = None;
                    self.end_for(Cause::OverTime, key, OVER_TIME_GRACE_MS, &mut patience).await;
                }
                () = at(follow_at) => {
                    follow_at = None;
                    let (context, attempt, done) = (Arc::clone(&self.context), Arc::clone(&self.attempt), done.clone());
                    follower = Some(tokio::spawn(async move { artifacts::follow(&context, &attempt, &done).await }));
                }
            }
        };
        done.cancel();
        if let Some(follower) = follower {
            // It ends at its next step; what it was sending is sent first.
            let _ = follower.await;
        }
        exit
    }

    /// When the process started, by the clock that does not jump.
    async fn age(&self, key: &str) -> Instant {
        let now = Instant::now();
        if self.is_fresh {
            return now;
        }
        let started_at_ms = started_at_ms(&self.context.folder.spool(key));
        let age_ms =
            started_at_ms.map_or(0, |at| crate::clock::wall_ms().saturating_sub(at).max(0));
        now.checked_sub(Duration::from_millis(age_ms.unsigned_abs()))
            .unwrap_or(now)
    }

    async fn obey(&mut self, key: &str, patience: &mut Patience) {
        let wish = *self.wishes.borrow_and_update();
        match wish {
            Wish::None => {}
            Wish::Stop { grace_ms, .. } => {
                self.end_for(Cause::Stopped, key, grace_ms, patience).await;
            }
            Wish::Interrupt { grace_ms } => {
                self.end_for(Cause::Interrupted, key, grace_ms, patience)
                    .await;
            }
            Wish::Abandon => self.end_for(Cause::Silence, key, 0, patience).await,
        }
    }

    async fn end_for(&mut self, cause: Cause, key: &str, grace_ms: u64, patience: &mut Patience) {
        let kill_at = Instant::now() + Duration::from_millis(grace_ms);
        if self.saved.cause == Some(cause) && patience.is_asked {
            patience.kill_at = patience.kill_at.map(|at| at.min(kill_at));
            return;
        }
        // A stop that came after another reason is what people then want to read.
        if self.saved.cause.is_none() || cause == Cause::Stopped {
            self.saved.cause = Some(cause);
        }
        self.save();
        patience.is_asked = true;
        patience.kill_at = Some(patience.kill_at.map_or(kill_at, |at| at.min(kill_at)));
        self.context.keeper.signal(key, libc::SIGTERM).await;
    }

    /// What the end of the script means.
    fn judge(&self, exit: &Exit) -> End {
        let spec = &self.attempt.launch.spec;
        let memory = self.attempt.launch.placement.memory_bytes;
        let group = self.attempt.find_group(&self.context.confinement);
        let is_killed = !exit.how.is_success() && group.exists() && group.used().oom_kills > 0;
        let circumstances = Circumstances {
            cause: self.saved.cause,
            out_of_memory: is_killed.then(|| bytes_in_words(memory)),
            failed_action: start::failed_action(&self.attempt),
            max_duration: spec.max_duration_ms.map(start::millis_in_words),
            auto_resume: spec.auto_resume,
        };
        let end = end::of(exit, &circumstances);
        if let End::Failed { reason } = &end
            && matches!(
                reason.code,
                ReasonCode::OutOfMemory | ReasonCode::MaxDuration
            )
        {
            let mut message = reason.message.clone();
            if let Some(first) = message.get_mut(..1) {
                first.make_ascii_uppercase();
            }
            self.attempt.log.say_at_end(&message);
        }
        end
    }

    /// Runs the actions at the end; a failing one fails what had succeeded.
    async fn end_actions(&mut self, end: End) -> End {
        let key = end_key(self.attempt.id);
        let mut news = self.context.keeper.watch(&key);
        if let Err(message) =
            start::start_end_actions(&self.context, &self.attempt, &self.grant, &end).await
        {
            self.attempt.log.say_at_end(&message);
            return if matches!(end, End::Succeeded) {
                failed(ReasonCode::Action, message, None)
            } else {
                end
            };
        }
        let mut asked = None;
        let exit = loop {
            let seen = news.borrow_and_update().clone();
            if let Some(exit) = seen.exit {
                break exit;
            }
            self.attempt.log.touch();
            self.context.changed();
            let wish = *self.wishes.borrow_and_update();
            if let Wish::Stop { grace_ms, .. } | Wish::Interrupt { grace_ms } = wish
                && asked.is_none()
            {
                asked = Some(
                    Instant::now() + Duration::from_millis(grace_ms + END_ACTIONS_AFTER_STOP_MS),
                );
            }
            if wish == Wish::Abandon {
                asked = Some(Instant::now());
            }
            tokio::select! {
                changed = news.changed() => if changed.is_err() { news_lost().await },
                changed = self.wishes.changed() => if changed.is_err() { news_lost().await },
                () = at(asked) => self.context.keeper.signal(&key, libc::SIGKILL).await,
            }
        };
        if exit.how.is_success() || !matches!(end, End::Succeeded) {
            return end;
        }
        let message = format!("on_experiment_end {}", end::in_words(exit.how));
        failed(ReasonCode::Action, message, exit.how.shell_code())
    }

    /// Stores what is left: artifacts and logs.
    async fn store(&mut self, end: &End) {
        let is_stored = self.saved.artifacts_stored;
        let storing = async {
            let n_artifacts = match is_stored {
                true => 0,
                false => artifacts::finish(&self.context, &self.attempt).await,
            };
            self.attempt.build_log.nearly_settled(&self.context).await;
            self.attempt.log.nearly_settled(&self.context).await;
            n_artifacts
        };
        let mut wishes = self.attempt.wishes();
        let n_artifacts = tokio::select! {
            n_artifacts = storing => n_artifacts,
            () = not_kept(&mut wishes) => return self.drop_logs(),
        };
        if n_artifacts > INLINE_ARTIFACTS_MAX {
            // A restart need not look through all of them once more.
            self.saved.end = Some(end.clone());
            self.saved.artifacts_stored = true;
            self.save();
        }
    }

    fn drop_logs(&self) {
        self.attempt.build_log.drop_rest();
        self.attempt.log.drop_rest();
    }
}

struct Patience {
    /// When SIGKILL is due.
    kill_at: Option<Instant>,
    /// When the process has run for too long.
    over_at: Option<Instant>,
    /// This runner process has sent SIGTERM.
    is_asked: bool,
}

async fn at(when: Option<Instant>) {
    match when {
        Some(when) => sleep_until(when).await,
        None => std::future::pending().await,
    }
}

/// The senders live as long as the attempt and the keeper's connection do.
async fn news_lost() {
    std::future::pending::<()>().await;
}

/// Waits until the attempt is not wanted before it has started.
async fn unwanted(wishes: &mut watch::Receiver<Wish>) -> End {
    loop {
        match *wishes.borrow_and_update() {
            Wish::None => {}
            Wish::Stop { .. } => return End::Stopped,
            Wish::Interrupt { .. } => return End::Returned,
            Wish::Abandon => {
                return End::Lost {
                    message: "the server could not be reached for too long".to_owned(),
                };
            }
        }
        if wishes.changed().await.is_err() {
            news_lost().await;
        }
    }
}

/// Waits until nobody wants what the attempt made.
async fn not_kept(wishes: &mut watch::Receiver<Wish>) {
    while wishes.borrow_and_update().keeps() {
        if wishes.changed().await.is_err() {
            news_lost().await;
        }
    }
}

fn started_at_ms(spool: &std::path::Path) -> Option<i64> {
    if let Ok(Some(exit)) = SpoolReader::open(spool).exit() {
        return Some(exit.started_at_ms);
    }
    #[derive(serde::Deserialize)]
    struct Record {
        started_at_ms: i64,
    }
    let text = std::fs::read(spool.join("task.json")).ok()?;
    Some(serde_json::from_slice::<Record>(&text).ok()?.started_at_ms)
}
