//! The runner with real processes and the real keeper, against a server that speaks
//! the protocol and forgets nothing that it was told.

mod fake;
mod support;

mod caches;
mod containers;
mod environments;
mod faults;
mod life;

/// Not a test: the runner of the other tests, which start this program again.
#[test]
fn runner_process() {
    support::be_runner();
}

/// Not a test: the keeper of that runner.
#[test]
fn keeper_process() {
    support::be_keeper();
}
