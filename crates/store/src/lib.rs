//! grid-store.
pub mod blobs;
pub mod db;
pub mod logs;
