//! The real program against a server that is made up: what it asks for, and what
//! it does with answers that a real server rarely gives.

mod artifacts;
mod logs;
mod people;
mod runs;
mod submit;
mod support;
mod team;
