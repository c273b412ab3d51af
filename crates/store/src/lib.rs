//! grid-store.
pub mod db;
pub mod blobs;
pub mod logs;
