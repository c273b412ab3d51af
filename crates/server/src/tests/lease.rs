//! Two servers, one database: the second is refused, until the first is gone.

use std::path::Path;

use grid_core::time::Timestamp;
use grid_engine::{Clock, SystemClock};
use grid_store::db::{self, Db};

use super::place::Database;
use crate::config::{Options, Settings, settings};
use crate::lease::{Lease, holder};
use crate::serve::Server;

fn of(data: &Path, url: &str) -> Settings {
    let options = Options {
        data: Some(data.to_owned()),
        listen: Some("127.0.0.1:0".to_owned()),
        database_url: Some(url.to_owned()),
        ..Options::default()
    };
    settings(options, |_| None).expect("settings")
}

async fn refused(data: &Path, url: &str) -> String {
    let second = Server::start_without_runner(of(data, url)).await;
    format!("{:#}", second.err().expect("another server works there"))
}

/// Holds the lease as somebody else, until then.
async fn hold_as(db: &Db, holder: &str, from: Timestamp, until: Timestamp) {
    let mut tx = db.write().await.expect("begun");
    let taken = db::lease::acquire(&mut tx, "server", holder, from, until).await;
    assert!(taken.expect("asked"), "it was to be had");
    tx.commit().await.expect("written");
}

async fn one_at_a_time(url: &str) {
    let dir = tempfile::tempdir().expect("a folder");
    let (one, other) = (dir.path().join("one"), dir.path().join("other"));
    let mut first = Server::start_without_runner(of(&one, url))
        .await
        .expect("started");
    let said = refused(&other, url).await;
    for needed in [
        "another server works with this database",
        "/one",
        "its lease ends at",
    ] {
        assert!(said.contains(needed), "{said}");
    }
    first.end().await;
    drop(first);
    let mut second = Server::start_without_runner(of(&other, url))
        .await
        .expect("started");
    refused(&one, url).await;
    second.end().await;
    drop(second);

    // One that was killed holds on: its own folder may go on at once, others later.
    let db = Db::connect(url, &db::Options::default())
        .await
        .expect("connected");
    let now = SystemClock.now();
    hold_as(&db, &holder(&one), now, now.plus_millis(60_000)).await;
    refused(&other, url).await;
    let mut first = Server::start_without_runner(of(&one, url))
        .await
        .expect("started");
    first.end().await;
    drop(first);
    hold_as(
        &db,
        "somebody dead",
        now.plus_millis(-2_000),
        now.plus_millis(-1_000),
    )
    .await;
    let mut second = Server::start_without_runner(of(&other, url))
        .await
        .expect("started");
    second.end().await;
    drop(second);

    // One that was asleep for too long hears that it has ended.
    let lease = Lease::take(&db, "a sleeper".to_owned())
        .await
        .expect("taken");
    let again = Lease::take(&db, "a second".to_owned()).await;
    let said = format!("{:#}", again.expect_err("it is held"));
    assert!(said.contains("a sleeper"), "{said}");
    drop(lease);
    let mut lease = Lease::take(&db, "a sleeper".to_owned())
        .await
        .expect("its own");
    let later = now.plus_millis(120_000);
    hold_as(&db, "who took over", later, later.plus_millis(60_000)).await;
    let why = lease.looked().await;
    assert!(why.to_string().contains("who took over"), "{why}");
    db.close().await;
}

#[tokio::test]
async fn sqlite_that_two_folders_name_is_one_servers() {
    let dir = tempfile::tempdir().expect("a folder");
    let url = db::sqlite_url(&dir.path().join("shared.db"));
    one_at_a_time(&url).await;
}

#[tokio::test]
async fn postgres_that_two_folders_name_is_one_servers() {
    if let Some(database) = Database::postgres() {
        one_at_a_time(&database.url()).await;
    }
}
