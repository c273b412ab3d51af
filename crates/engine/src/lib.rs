//! grid-engine.
