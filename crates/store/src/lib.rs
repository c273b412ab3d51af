//! grid-store.
