//! grid-runner.
