//! grid-api.
