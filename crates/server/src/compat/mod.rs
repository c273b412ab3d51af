//! Other programs' ways of speaking to this server.
//!
//! What is in here translates to the same calls of the engine that `rest` makes, and
//! decides nothing; the words of those programs are known here and nowhere else.

pub(crate) mod grid;
