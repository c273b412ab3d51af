//! The router called in process, over a real engine in a temporary folder; the runner
//! is played by the tests, over HTTP like a real one.

mod access;
mod artifacts;
mod audited;
mod bad_input;
mod documents;
mod keys;
mod logs;
mod matrix;
mod place;
mod runs;
mod server;
mod teams;
mod world;
