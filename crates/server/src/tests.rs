//! The router called in process, over a real engine in a temporary folder; the runner
//! is played by the tests, over HTTP like a real one.

mod access;
mod again;
mod artifacts;
mod audited;
mod audited_changes;
mod audited_routes;
mod bad_input;
mod blocks;
mod common_member;
mod documents;
mod graphql;
mod keys;
mod large_blobs;
mod large_bodies;
mod lease;
mod logs;
mod matrix;
mod matrix_data;
mod near;
mod original;
mod outsider;
mod pages;
mod place;
mod runs;
mod s3;
mod secrets;
mod server;
mod sockets;
mod standing;
mod teams;
mod unread;
mod world;
