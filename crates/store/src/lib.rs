//! grid-store.
pub mod logs;
