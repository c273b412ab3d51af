//! grid-executor.
