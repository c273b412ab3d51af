//! The `grid` command.
