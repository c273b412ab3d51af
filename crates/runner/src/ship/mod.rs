//! What leaves the machine: logs and artifacts.  Both stay on disk until the server
//! has them.

pub(crate) mod artifacts;
pub(crate) mod frames;
pub(crate) mod logs;
