//! The keeper, the sandbox and the limits with real processes.

mod disk_full;
mod life;
mod limited;
mod process;
mod sandboxed;
mod support;

/// Not a test: the keeper of the other tests, which start this program again.
#[test]
fn keeper_process() {
    support::be_keeper();
}
