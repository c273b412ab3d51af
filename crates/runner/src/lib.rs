//! grid-runner.

pub mod detect;
pub mod keeper;
pub mod limits;
pub mod sandbox;
