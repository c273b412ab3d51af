//! The same tests on SQLite always, and on PostgreSQL when `GRID_TEST_POSTGRES` holds the
//! address of a server where databases may be made.

use std::process::Command;

use grid_engine::Clock;

use super::world::World;

/// A database of one test; it goes with it.
pub(super) struct Database {
    server: String,
    name: String,
}

impl Database {
    /// An empty one on PostgreSQL, if there is a server.
    pub(super) fn postgres() -> Option<Self> {
        std::env::var("GRID_TEST_POSTGRES").ok().map(Self::new)
    }

    fn new(server: String) -> Self {
        let name = format!("grid_test_{:032x}", grid_engine::SystemClock.entropy());
        let database = Self { server, name };
        database.tell(&format!("create database {}", database.name));
        database
    }

    pub(super) fn url(&self) -> String {
        let (address, _) = self.server.rsplit_once('/').expect("a database in it");
        format!("{address}/{}", self.name)
    }

    fn tell(&self, statement: &str) {
        let told = Command::new("psql")
            .args([
                "--quiet",
                "--no-psqlrc",
                "--command",
                statement,
                &self.server,
            ])
            .status();
        assert!(told.expect("psql").success(), "{statement}");
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        self.tell(&format!("drop database {} with (force)", self.name));
    }
}

/// Runs a test in a world on SQLite.
pub(super) async fn on_sqlite<F: Future<Output = ()>>(test: impl FnOnce(World) -> F) {
    test(World::new().await).await;
}

/// Runs a test in a world on PostgreSQL, if there is a server.
pub(super) async fn on_postgres<F: Future<Output = ()>>(test: impl FnOnce(World) -> F) {
    if let Ok(server) = std::env::var("GRID_TEST_POSTGRES") {
        test(World::on(Some(Database::new(server))).await).await;
    }
}

/// Makes a test of each function for each database.
macro_rules! on_both {
    ($($name:ident),* $(,)?) => {
        mod sqlite {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                crate::tests::place::on_sqlite(super::$name).await;
            })*
        }

        mod postgres {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                crate::tests::place::on_postgres(super::$name).await;
            })*
        }
    };
}
pub(super) use on_both;
