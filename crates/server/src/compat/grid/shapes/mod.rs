//! What the client sends and reads.
//!
//! Sent to it: every field, always, also when it holds nothing, and numbers of 64 bits as
//! text; the client fails on what is left out.  Read from it: everything may be left out or
//! null, numbers may be text and text may be numbers, and what is not known is passed over.

pub(super) mod artifact;
pub(super) mod cluster;
pub(super) mod credential;
pub(super) mod datastore;
pub(super) mod experiment;
pub(in crate::compat::grid) mod read;
pub(super) mod run;
pub(super) mod session;
pub(super) mod spec;
pub(super) mod user;

use grid_core::time::Timestamp;
use serde::Serialize;

/// An answer without anything in it.
#[derive(Serialize)]
pub(super) struct Empty {}

/// A time as the client reads it.
pub(super) fn time(at: Timestamp) -> String {
    at.to_string()
}
