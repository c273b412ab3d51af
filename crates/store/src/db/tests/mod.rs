//! One suite for both databases: on SQLite always, on PostgreSQL when `GRID_TEST_POSTGRES`
//! holds the address of a server where databases may be made.

mod connection;
mod datastores;
mod files;
mod lists;
mod people;
mod place;
mod plans;
mod runs;
mod sent;
mod sharing;
mod small;
mod staged;
mod states;
mod trash;
mod workloads;

/// Makes a test of each function for each database, which it is given empty.
macro_rules! conformance {
    ($($name:ident),* $(,)?) => {
        mod sqlite {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                crate::db::tests::place::on_sqlite(super::$name).await;
            })*
        }

        mod postgres {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                crate::db::tests::place::on_postgres(super::$name).await;
            })*
        }
    };
}
use conformance;
