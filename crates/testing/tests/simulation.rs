//! The simulator finds nothing, and finds every bug that is planted.
//!
//! Both are repeated with many more seeds by `cargo xtask sim`.

use grid_testing::mutants::{Mutant, hunt};
use grid_testing::sim::tell;

/// Few enough for the everyday tests, enough to break on most mistakes.
const SEEDS: u64 = 200;

/// A planted bug may survive as many.
const MUTANT_SEEDS_MAX: u64 = 2_000;

#[test]
fn all_comes_to_rest_whatever_the_weather() {
    let mut crashes = 0;
    for seed in 0..SEEDS {
        let story = tell(seed, None, false);
        assert_eq!(
            story.broken, None,
            "cargo run -p grid-testing --bin sim -- --seed {seed}"
        );
        crashes += story.crashes;
    }
    assert!(
        crashes > SEEDS,
        "the weather was too good to prove anything: {crashes} crashes"
    );
}

#[test]
fn a_seed_tells_the_same_story_again() {
    for seed in 0..20 {
        let first = tell(seed, None, true);
        let second = tell(seed, None, true);
        assert_eq!(first, second, "seed {seed}");
        let untraced = tell(seed, None, false);
        assert_eq!(
            first.digest, untraced.digest,
            "watching changes nothing (seed {seed})"
        );
    }
}

#[test]
fn a_planted_bug_is_found() {
    for mutant in [
        Mutant::NoFenceOnReports,
        Mutant::KillNeverSent,
        Mutant::WrongEventForStopOfQueued,
    ] {
        assert!(
            hunt(mutant, 0, MUTANT_SEEDS_MAX).is_some(),
            "{mutant:?} survives"
        );
    }
}

#[test]
fn planted_bugs_have_names_that_read_back() {
    for mutant in Mutant::ALL {
        assert_eq!(Mutant::parse(&mutant.name()), Some(mutant));
        assert!(!mutant.words().is_empty());
    }
}
