//! Telling watchers that something has changed; they look for themselves.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use grid_core::id::TeamId;
use grid_core::team::Role;
use grid_store::db::team::Team;
use tokio::sync::watch;

/// How soon after one change the next is told.  Higher: screens lag; lower: a
/// busy sweep makes every watcher read the lists all the time.
const TELL_EVERY: Duration = Duration::from_millis(100);

pub(crate) struct Watch {
    things: watch::Sender<u64>,
    people: watch::Sender<u64>,
    /// How often something has changed in each team since the server began.
    teams: Mutex<HashMap<TeamId, u64>>,
}

impl Watch {
    pub(crate) fn new() -> Self {
        Self {
            things: watch::Sender::new(0),
            people: watch::Sender::new(0),
            teams: Mutex::default(),
        }
    }

    /// Something of these teams has changed.
    pub(crate) fn changed(&self, teams: impl IntoIterator<Item = TeamId>) {
        {
            let mut counts = self.counts();
            for team in teams {
                *counts.entry(team).or_default() += 1;
            }
        }
        self.tell();
    }

    /// A number that is another one whenever something of these teams has changed.
    pub(crate) fn of_teams(&self, teams: &[(Team, Role)]) -> u64 {
        let counts = self.counts();
        // Beginning with how many they are: joining and leaving change what is seen, too.
        let seen = |(team, _): &(Team, Role)| 1 + counts.get(&team.id).copied().unwrap_or(0);
        teams.iter().map(seen).sum()
    }

    fn counts(&self) -> MutexGuard<'_, HashMap<TeamId, u64>> {
        self.teams.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tell(&self) {
        self.things
            .send_modify(|changes| *changes = changes.wrapping_add(1));
    }

    /// Who may do what has changed: members, roles, policies, keys, links.
    pub(crate) fn people_changed(&self) {
        self.people
            .send_modify(|changes| *changes = changes.wrapping_add(1));
        self.tell();
    }

    pub(crate) fn subscribe(&self) -> Watcher {
        Watcher(self.things.subscribe())
    }

    pub(crate) fn subscribe_people(&self) -> Watcher {
        Watcher(self.people.subscribe())
    }
}

/// Waits for changes.
#[derive(Clone)]
pub struct Watcher(watch::Receiver<u64>);

impl Watcher {
    /// Waits until something has changed since the last call.
    pub async fn changed(&mut self) {
        if self.0.changed().await.is_err() {
            // The engine is gone; so will be whoever waits here.
            std::future::pending::<()>().await;
        }
    }

    /// Whether something has changed since the last call of this or the other.
    pub fn has_changed(&mut self) -> bool {
        let changed = self.0.has_changed().unwrap_or(false);
        if changed {
            self.0.mark_unchanged();
        }
        changed
    }

    /// The same, and gives what changes together time to settle.
    pub async fn settled(&mut self) {
        self.changed().await;
        tokio::time::sleep(TELL_EVERY).await;
        self.0.mark_unchanged();
    }
}
