//! The time limits of the simulated system, in virtual milliseconds.
//!
//! They stand in the same order as the real ones, but closer together, so that a
//! story reaches each of them and a margin that is missing is found.

/// How often the engine looks without being woken.  Must be below [`HOLD_MS`].
pub(super) const TICK_MS: u64 = 5_000;

/// How long the server keeps a sync waiting when there is nothing to say.
pub(super) const HOLD_MS: u64 = 8_000;

/// How long a runner waits for an answer before it gives the call up.  Must be
/// above [`HOLD_MS`] + [`TICK_MS`], or idle runners give up good calls.
pub(super) const SYNC_TIMEOUT_MS: u64 = 15_000;

/// How long the processes of a node that is not patient live without the server.
/// Must be above [`SYNC_TIMEOUT_MS`], or one lost message kills work.
pub(super) const SILENCE_MAX_MS: u64 = 30_000;

/// After how long a silent node's attempts are lost.  Must be above [`SILENCE_MAX_MS`].
pub(super) const LOST_AFTER_MS: u64 = 32_000;

/// A node that has been silent for this long gets no new attempts.
pub(super) const CLOSE_AFTER_MS: u64 = 20_000;

/// From SIGTERM to SIGKILL.
pub(super) const GRACE_MS: u64 = 5_000;

/// From the notice that a machine goes away to its end.
pub(super) const NOTICE_MS: u64 = 8_000;

/// How many attempts the engine places in one turn.
pub(super) const PLACED_MAX: usize = 16;

/// After the weather has cleared, all must be at rest within this time.
pub(super) const REST_MAX_MS: u64 = 3_600_000;

/// A story longer than this is one that goes in circles.
pub(super) const STEPS_MAX: u64 = 100_000;
