//! The engine with a real database, and a runner that the tests play.

mod archives;
mod datastores;
mod drafts;
mod fetching;
mod lists;
mod lost;
mod privacy;
mod recipes;
mod refusals;
mod running;
mod staging;
mod staging_more;
mod storm;
mod trash;
mod world;
