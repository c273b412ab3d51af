//! The domain: pure decisions about users, teams, runs, experiments and machines.
//!
//! Nothing here does IO, awaits, reads a clock or draws entropy: time and
//! randomness are arguments.  So everything here can be replayed, simulated and
//! tested without a server, and cannot fail for outside reasons.

pub mod access;
pub mod blob;
pub mod cluster;
pub mod credential;
pub mod datastore;
pub mod duration;
pub mod id;
pub mod logframe;
pub mod name;
pub mod nearest;
pub mod run;
pub mod schedule;
pub mod spec;
pub mod ssh_key;
pub mod sweep;
pub mod team;
pub mod time;
pub mod workload;
