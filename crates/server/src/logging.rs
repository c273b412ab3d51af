//! Where the server's own log goes: standard error, for people or for programs; the last
//! lines of it stay in memory, for operators.

use std::io::IsTerminal;

use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, fmt, registry};

use crate::recent::Keeper;

/// What is logged unless `GRID_LOG` says otherwise (`GRID_LOG=debug`, `GRID_LOG=grid_server=debug`).
const FILTER: &str = "info";

/// What the crate of S3 would log is what is wrong with requests, of which their senders are
/// told; and whole requests with what signs them.
const UNLOGGED: &str = "s3s=off";

/// Begins to log.  Again is nothing new.
pub(crate) fn begin() {
    let filter = EnvFilter::try_from_env("GRID_LOG").unwrap_or_else(|_| EnvFilter::new(FILTER));
    let filter = match UNLOGGED.parse() {
        Ok(unlogged) => filter.add_directive(unlogged),
        Err(_) => filter,
    };
    let terminal = std::io::stderr().is_terminal();
    let layer = fmt::layer()
        .with_writer(std::io::stderr)
        .with_ansi(terminal);
    let log = registry().with(filter).with(Keeper);
    let begun = match std::env::var("GRID_LOG_FORMAT").as_deref() {
        Ok("json") => log.with(layer.json()).try_init(),
        _ => log.with(layer.with_target(false)).try_init(),
    };
    // Somebody else has begun already: the program that runs this, or another test.
    drop(begun);
}
