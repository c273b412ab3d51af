//! grid-server.
