//! The wire: what the server, its clients and its runners say to each other.
//!
//! Shapes are plain data with `serde` and OpenAPI schemas.  Fields are only ever
//! added.  Times are RFC 3339 text in views and milliseconds between machines;
//! sizes are bytes; ids are text.

pub mod artifact;
pub mod audit;
pub mod blob;
pub mod client;
pub mod cluster;
pub mod credential;
pub mod datastore;
pub mod error;
pub mod experiment;
pub mod handover;
pub mod key;
pub mod log;
mod query;
pub mod run;
pub mod runner;
pub mod share;
pub mod snapshot;
mod sse;
pub mod ssh_key;
pub mod team;
pub mod upload;
pub mod user;

pub use sse::ServerEvent;

/// Every path of the API begins with this.
pub const PREFIX: &str = "/api/v1";

/// The version of the API and of the programs that speak it.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");
