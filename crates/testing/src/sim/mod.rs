//! A whole cluster in one thread and in virtual time: one seed, one story.
//!
//! The decisions are the real ones of `grid-core`: `Board::plan`,
//! `Workload::decide` and `apply`, `reconcile`.  Around them stands the thinnest
//! possible glue, the same that the engine and the runner have: a durable log,
//! an engine that can crash between any two of its steps, runners with a durable
//! spool and a keeper that outlives them, and a network that loses, repeats,
//! delays and reorders.
//!
//! What is promised is checked after each step (`check.rs`); after a while the
//! weather clears, and then everything must come to rest.
//!
//! # What the protocol needs (each rule has a planted bug that breaks it)
//!
//! 1. A runner has one call under way, and obeys only the answer to that one.
//! 2. Syncs are numbered, across restarts of the runner; an older one is no news.
//! 3. That an attempt is absent counts only when a newer sync has come since its
//!    launch was ordered; and an order is withdrawn when its attempt is over.
//!    What was observed is never older than the state that it is compared with.
//! 4. What an order rests on is in the log before the order is sent.
//! 5. Silence is counted by the server from the *arrival* of a sync and by the
//!    runner from its *sending*; the keeper counts it when the runner is dead.
//! 6. After a restart of the server all nodes have been silent for no time.

mod check;
mod dice;
mod engine;
mod limits;
mod machine;
mod net;
mod process;
mod record;
mod runner;
mod script;
mod talk;
mod trace;
mod weather;
mod world;

use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::mutants::Mutant;
pub use check::Broken;
use world::World;

/// What a story came to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Story {
    /// What was broken, if anything was.
    pub broken: Option<Broken>,
    /// Things that happened, one after another.
    pub steps: u64,
    /// Facts in the log.
    pub events: u64,
    /// How long it took in its own time, in milliseconds.
    pub virtual_ms: u64,
    /// Crashes of engine, runners and machines.
    pub crashes: u64,
    /// Attempts that were begun.
    pub attempts: u64,
    /// A hash of all that happened: the same for the same seed.
    pub digest: u64,
    /// The story in words, when asked for.
    pub trace: Vec<String>,
}

/// Tells the story of `seed`; with a bug planted, when `mutant` names one.
pub fn tell(seed: u64, mutant: Option<Mutant>, traced: bool) -> Story {
    let mut world = World::new(seed, mutant, traced);
    // A corrupt log makes `apply` panic, as it should: that is a finding.
    let panicked = catch_unwind(AssertUnwindSafe(|| world.run())).err();
    if let Some(payload) = panicked {
        let text = payload
            .downcast_ref::<String>()
            .cloned()
            .or_else(|| {
                payload
                    .downcast_ref::<&str>()
                    .map(|text| (*text).to_owned())
            })
            .unwrap_or_default();
        world.broken("corrupt event log", text);
    }
    world.into_story()
}
