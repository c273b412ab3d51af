//! One file per command: what can be typed after it, and what it does.

pub(crate) mod artifacts;
pub(crate) mod clone;
pub(crate) mod clusters;
pub(crate) mod completion;
pub(crate) mod credential;
pub(crate) mod datastore;
pub(crate) mod delete;
pub(crate) mod docs;
pub(crate) mod help_markdown;
pub(crate) mod history;
mod keys;
pub(crate) mod login;
pub(crate) mod logs;
pub(crate) mod restore;
pub(crate) mod retry;
pub(crate) mod run;
#[cfg(feature = "server")]
pub(crate) mod server;
pub(crate) mod share;
pub(crate) mod ssh_keys;
pub(crate) mod status;
pub(crate) mod stop;
pub(crate) mod team;
pub(crate) mod user;
pub(crate) mod version;
pub(crate) mod view;
