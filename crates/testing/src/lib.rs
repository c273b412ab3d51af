//! Tools that only tests use: the simulator, and the bugs that it must find.

pub mod mutants;
pub mod sim;
