//! grid-runner.

pub mod keeper;
