//! Telling one person that something of theirs may have changed, and nothing of others'.

use crate::access::Caller;
use crate::error::Result;
use crate::{Engine, Watcher, user};

/// Somebody who waits for changes in their teams.
pub struct Changes {
    engine: Engine,
    caller: Caller,
    things: Watcher,
    people: Watcher,
    /// How often something had changed in the caller's teams when they were told last.
    told: u64,
    /// Whether it must be looked again who the caller is, and in which teams.
    stale: bool,
}

impl Changes {
    /// From now on.
    pub fn new(engine: &Engine, caller: &Caller) -> Self {
        Self {
            engine: engine.clone(),
            caller: caller.clone(),
            things: engine.watch(),
            people: engine.watch_people(),
            told: engine.inner.watch.of_teams(&caller.teams),
            // Something may have changed since the caller was let in.
            stale: true,
        }
    }

    /// Waits until something may have changed that the caller sees.  An error when they
    /// are not let in any more.  May be given up at any time.
    pub async fn next(&mut self) -> Result<()> {
        loop {
            if self.stale {
                let mut tx = self.engine.inner.db.read().await?;
                let before: Vec<_> = self.caller.teams.iter().map(|(team, _)| team.id).collect();
                self.caller = user::again(&self.engine, &mut tx, &self.caller).await?;
                self.stale = false;
                let after = self.caller.teams.iter().map(|(team, _)| team.id);
                if !after.eq(before) {
                    self.told = self.engine.inner.watch.of_teams(&self.caller.teams);
                    return Ok(());
                }
            }
            let now = self.engine.inner.watch.of_teams(&self.caller.teams);
            if now != self.told {
                self.told = now;
                return Ok(());
            }
            tokio::select! {
                () = self.things.changed() => {}
                () = self.people.changed() => self.stale = true,
            }
        }
    }
}
