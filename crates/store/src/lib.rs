//! grid-store.
pub mod db;
pub mod logs;
