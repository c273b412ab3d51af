//! grid-testing.
