//! Speaks: HTTP in, HTTP out, and the program `grid server`.
//!
//! # The way of a request
//!
//! 1. `listen` accepts the connection: plain or TLS, so many at a time, each with a
//!    limit of time for the head of a request.
//! 2. `rest` finds the route; one file per noun, one function per operation.
//! 3. The arguments of the function take the request apart: `auth` says who is calling,
//!    `extract` reads path, query and body and refuses what it does not know by name.
//! 4. The function makes one call of [`grid_engine`] and maps the answer to the shapes of
//!    [`grid_api`] (`rest/views`).  It decides nothing.
//! 5. What went wrong becomes a status and the one envelope in `error`, and nowhere else.
//!
//! What is live (`live`) is a stream of server-sent events that the reader pulls: a slow
//! reader costs a position, not memory.
//!
//! # The way of the program
//!
//! [`run`] merges what was typed with environment, file and defaults (`config`), locks
//! the data folder (`folder`), binds, opens the engine, and serves until it is told to
//! end.  Running experiments go on: they belong to the runner, a process of its own.
//!
//! [`doctor`], [`migrate`] and [`backup`] look after the same folder; the first and the
//! last also while a server works in it.

mod assembly;
mod auth;
mod bucket;
mod compat;
mod config;
mod credential_key;
mod doors;
mod error;
mod extract;
mod folder;
mod handover;
mod lease;
mod listen;
mod live;
mod logging;
mod proxies;
mod recent;
mod reserve;
mod rest;
mod s3;
mod serve;
mod unread;
mod upkeep;

#[cfg(test)]
mod tests;

pub use bucket::move_blobs;
pub use config::Options;
pub use serve::run;
pub use upkeep::{Collecting, backup, collect, doctor, migrate};

/// The description of the API, as JSON; the same text for the same program.
pub fn openapi() -> String {
    rest::openapi::text()
}

/// What a command means in each state, as Markdown.
pub fn states() -> String {
    grid_core::workload::transition_table()
}

/// Who may do what, and which route asks what, as Markdown.
pub fn access_table() -> String {
    grid_core::access::access_table()
        + &rest::access::table()
        + &s3::access::table()
        + &compat::grid::routes::table()
        + &compat::grid::graphql::fields::table()
}
