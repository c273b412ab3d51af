//! The router called in process, over a real engine in a temporary folder; the runner
//! is played by the tests, over HTTP like a real one.

mod access;
mod artifacts;
mod bad_input;
mod documents;
mod logs;
mod runs;
mod server;
mod world;
