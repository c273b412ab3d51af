//! Telling watchers that something has changed; they look for themselves.

use std::time::Duration;

use tokio::sync::watch;

/// How soon after one change the next is told.  Higher: screens lag; lower: a
/// busy sweep makes every watcher read the lists all the time.
const TELL_EVERY: Duration = Duration::from_millis(100);

pub(crate) struct Watch(watch::Sender<u64>);

impl Watch {
    pub(crate) fn new() -> Self {
        Self(watch::Sender::new(0))
    }

    /// Something has changed.
    pub(crate) fn changed(&self) {
        self.0
            .send_modify(|changes| *changes = changes.wrapping_add(1));
    }

    pub(crate) fn subscribe(&self) -> Watcher {
        Watcher(self.0.subscribe())
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

    /// The same, and gives what changes together time to settle.
    pub async fn settled(&mut self) {
        self.changed().await;
        tokio::time::sleep(TELL_EVERY).await;
        self.0.mark_unchanged();
    }
}
