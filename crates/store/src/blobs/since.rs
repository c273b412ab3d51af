//! What was found to be here a while ago need not be looked for again, as long as nothing
//! happened by which it could have gone.

use std::time::Duration;

use tokio::time::Instant;

use super::{Blobs, Inner};

/// Which part of the grace of a blob may pass before it is asked for again: the rest is left
/// to whoever is about to refer to it.  Higher: it is asked for more often; lower: whoever
/// takes long loses it.
const GRACE_PART: u32 = 24;

/// A moment: see [`Blobs::moment`].
#[derive(Debug, Clone, Copy)]
pub struct Moment {
    events: u64,
    at: Instant,
}

impl Blobs {
    /// Now.  What is asked for from now on ([`Blobs::missing`]) and is there is so for as long
    /// as [`Blobs::is_as_at`] says so.
    pub fn moment(&self) -> Moment {
        Moment {
            events: self.inner.events(),
            at: Instant::now(),
        }
    }

    /// Whether all that was there at that moment and asked for behind it is there now, and
    /// stays for most of the grace: nothing was found to be damaged, nothing is or was
    /// collected, and it is not long ago.
    pub fn is_as_at(&self, moment: &Moment) -> bool {
        self.is_as(moment, Instant::now())
    }

    fn is_as(&self, moment: &Moment, now: Instant) -> bool {
        let passed = now.saturating_duration_since(moment.at);
        passed < self.fresh() && moment.events == self.inner.events()
    }

    fn fresh(&self) -> Duration {
        self.inner.settings.grace / GRACE_PART
    }
}

impl Inner {
    fn events(&self) -> u64 {
        let index = self.packs.index().events();
        index.wrapping_add(self.packs.damages_found())
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use grid_core::time::Timestamp;

    use super::*;
    use crate::blobs::pack::key;
    use crate::blobs::{Settings, hash};

    #[tokio::test]
    async fn a_moment_lasts_until_something_can_have_gone() {
        let dir = tempfile::tempdir().unwrap();
        let settings = Settings::new(|| Timestamp::from_millis(1));
        let hour = settings.grace / GRACE_PART;
        let blobs = Blobs::open(dir.path(), settings).unwrap();
        let bytes = Bytes::from_static(b"kept");
        let id = hash(&bytes);
        let moment = blobs.moment();
        blobs.put_small_batch(vec![(id, bytes)]).await.unwrap();
        assert!(blobs.is_as_at(&moment));
        let later = Instant::now() + hour;
        assert!(!blobs.is_as(&moment, later), "its grace goes on");

        let moment = blobs.moment();
        let collection = blobs.collection().await;
        assert!(!blobs.is_as_at(&moment), "a collection begins");
        let moment = blobs.moment();
        collection.sweep(false).await.unwrap();
        assert!(blobs.is_as_at(&moment), "nothing was to go");

        blobs.inner.packs.index().remove_if(&key(&id), |_| true);
        assert!(!blobs.is_as_at(&moment), "something has gone");

        let moment = blobs.moment();
        assert!(blobs.is_as_at(&moment));
        blobs.inner.packs.is_found_damaged(id);
        assert!(!blobs.is_as_at(&moment), "something is damaged");
    }
}
