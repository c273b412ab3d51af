//! Connecting, transactions, copies, and what goes wrong with them.

use std::path::Path;
use std::time::Duration;

use rustix::mount::{MountFlags, UnmountFlags};
use sqlx::{AnyConnection, Connection};

use super::conformance;
use super::place::{a_stored_run, a_user, at, experiments, somebody};
use crate::db::sql::values;
use crate::db::{Backend, Db, Error, Options, run, setting, sqlite_url, user, workload};
use grid_core::workload::Actor;

conformance!(
    it_answers_and_has_a_size,
    a_reader_sees_one_state,
    a_reader_cannot_write,
    after_an_error_nothing_more_is_written,
    dropped_transactions_do_not_block,
    a_newer_schema_is_refused,
    connecting_again_changes_nothing,
);

async fn it_answers_and_has_a_size(db: Db) {
    db.ping().await.unwrap();
    assert!(db.size_bytes().await.unwrap() > 10_000);
}

async fn a_reader_sees_one_state(db: Db) {
    let mut reader = db.read().await.unwrap();
    assert_eq!(setting::get(&mut reader, "k").await.unwrap(), None);
    let mut tx = db.write().await.unwrap();
    setting::put(&mut tx, "k", "v").await.unwrap();
    tx.commit().await.unwrap();
    assert_eq!(setting::get(&mut reader, "k").await.unwrap(), None);
    drop(reader);
    let mut reader = db.read().await.unwrap();
    assert_eq!(
        setting::get(&mut reader, "k").await.unwrap().as_deref(),
        Some("v")
    );
}

async fn a_reader_cannot_write(db: Db) {
    let mut reader = db.read().await.unwrap();
    assert!(setting::put(&mut reader, "k", "v").await.is_err());
    drop(reader);
    let mut reader = db.read().await.unwrap();
    assert_eq!(setting::get(&mut reader, "k").await.unwrap(), None);
}

async fn after_an_error_nothing_more_is_written(db: Db) {
    somebody(&db, "ada").await;
    let mut tx = db.write().await.unwrap();
    setting::put(&mut tx, "before", "v").await.unwrap();
    assert!(user::insert(&mut tx, &a_user("ada")).await.is_err());
    assert!(setting::put(&mut tx, "after", "v").await.is_err());
    assert!(tx.commit().await.is_err());
    let mut tx = db.write().await.unwrap();
    assert_eq!(setting::get(&mut tx, "before").await.unwrap(), None);
    assert_eq!(setting::get(&mut tx, "after").await.unwrap(), None);
    setting::put(&mut tx, "later", "v").await.unwrap();
    tx.commit().await.unwrap();
}

async fn dropped_transactions_do_not_block(db: Db) {
    for n in 0..50 {
        let mut tx = db.write().await.unwrap();
        setting::put(&mut tx, "k", &n.to_string()).await.unwrap();
        drop(tx);
        let mut tx = db.read().await.unwrap();
        assert_eq!(setting::get(&mut tx, "k").await.unwrap(), None);
    }
    // A request that goes away in the middle of a statement.
    for _ in 0..20 {
        let db = db.clone();
        let write = async {
            let mut tx = db.write().await.unwrap();
            for n in 0..1000 {
                setting::put(&mut tx, "k", &n.to_string()).await.unwrap();
            }
        };
        let _ = tokio::time::timeout(Duration::from_millis(1), write).await;
    }
    let mut tx = db.write().await.unwrap();
    assert_eq!(setting::get(&mut tx, "k").await.unwrap(), None);
    setting::put(&mut tx, "k", "v").await.unwrap();
    tx.commit().await.unwrap();
}

async fn a_newer_schema_is_refused(db: Db) {
    let mut tx = db.write().await.unwrap();
    let sql = "insert into _sqlx_migrations \
         (version, description, success, checksum, execution_time) \
         select 9999, description, success, checksum, execution_time from _sqlx_migrations \
          where version = 1";
    assert_eq!(
        tx.execute("planting a newer version", sql, vec![])
            .await
            .unwrap(),
        1
    );
    tx.commit().await.unwrap();
    for migrate in [true, false] {
        let options = Options {
            migrate,
            connections_max: Some(2),
            ..Options::default()
        };
        let refused = Db::connect(&db.url, &options).await;
        let Err(Error::TooNew { found: 9999, known }) = refused else {
            panic!("{refused:?}")
        };
        assert!(known < 9999);
    }
}

async fn connecting_again_changes_nothing(db: Db) {
    let (id, _) = somebody(&db, "ada").await;
    for migrate in [true, false] {
        let options = Options {
            migrate,
            connections_max: Some(2),
            ..Options::default()
        };
        let again = Db::connect(&db.url, &options).await.unwrap();
        let mut tx = again.read().await.unwrap();
        assert!(user::by_id(&mut tx, id).await.unwrap().is_some());
        drop(tx);
        again.close().await;
    }
}

async fn open(path: &Path) -> Result<Db, Error> {
    Db::connect(&sqlite_url(path), &Options::default()).await
}

#[tokio::test]
async fn addresses_and_files_that_cannot_be_opened_are_told() {
    let refused = Db::connect("mysql://host/db", &Options::default()).await;
    assert!(matches!(refused, Err(Error::Refused(_))), "{refused:?}");
    let folder = tempfile::tempdir().unwrap();
    let missing = open(&folder.path().join("no/such/folder/grid.db")).await;
    assert!(
        matches!(missing, Err(Error::Unavailable { .. })),
        "{missing:?}"
    );
    std::fs::write(
        folder.path().join("text"),
        "this is not a database".repeat(500),
    )
    .unwrap();
    let text = open(&folder.path().join("text")).await;
    assert!(matches!(text, Err(Error::Internal { .. })), "{text:?}");
    let nobody = Db::connect("postgres://grid@127.0.0.1:1/grid", &Options::default()).await;
    assert!(
        matches!(nobody, Err(Error::Unavailable { .. })),
        "{nobody:?}"
    );
}

#[tokio::test]
async fn an_older_database_is_refused_when_it_may_not_change() {
    let folder = tempfile::tempdir().unwrap();
    let url = sqlite_url(&folder.path().join("grid.db"));
    let options = Options {
        migrate: false,
        connections_max: None,
        ..Options::default()
    };
    let refused = Db::connect(&url, &options).await;
    assert!(matches!(refused, Err(Error::TooOld)), "{refused:?}");
    let db = Db::connect(&url, &Options::default()).await.unwrap();
    assert_eq!(db.backend(), Backend::Sqlite);
    Db::connect(&url, &options).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_made_while_writing_is_whole() {
    let folder = tempfile::tempdir().unwrap();
    let db = open(&folder.path().join("grid.db")).await.unwrap();
    let who = somebody(&db, "ada").await;
    let writer = {
        let db = db.clone();
        tokio::spawn(async move {
            for n in 0..60 {
                a_stored_run(&db, who, &format!("run-{n}"), 100 + n, 50).await;
            }
        })
    };
    let runs = async |db: &Db| {
        let mut tx = db.read().await.unwrap();
        run::list(&mut tx, &run::Filter::default(), 1000)
            .await
            .unwrap()
            .items
    };
    while runs(&db).await.len() < 5 {
        tokio::task::yield_now().await;
    }
    let copy = folder.path().join("it's a copy.db");
    db.backup(&copy).await.unwrap();
    writer.await.unwrap();
    assert_eq!(runs(&db).await.len(), 60);

    let copied = open(&copy).await.unwrap();
    let listed = runs(&copied).await;
    assert!(listed.len() >= 5);
    // Each run was written with its experiments or not at all.
    assert!(
        listed
            .iter()
            .all(|listed| listed.tally.counts.total() == 50)
    );
    let again = db.backup(&copy).await;
    assert!(matches!(again, Err(Error::Refused(_))), "{again:?}");
    let nowhere = db
        .backup(&folder.path().join("no/such/folder/copy.db"))
        .await;
    assert!(
        matches!(nowhere, Err(Error::Unavailable { .. })),
        "{nowhere:?}"
    );
    assert!(!folder.path().join("it's a copy.db.partial").exists());
}

#[tokio::test]
async fn a_server_names_the_program_that_copies_it() {
    async fn check(db: Db) {
        let refused = db.backup(Path::new("/tmp/copy")).await;
        let Err(Error::Refused(message)) = refused else {
            panic!("{refused:?}")
        };
        assert!(
            message.contains("pg_dump --format=custom --file=/tmp/copy"),
            "{message}"
        );
    }
    super::place::on_postgres(check).await;
}

#[tokio::test]
async fn a_database_that_stays_locked_is_unavailable() {
    let folder = tempfile::tempdir().unwrap();
    let db = open(&folder.path().join("grid.db")).await.unwrap();
    // Another program holds the write lock.
    let mut other = AnyConnection::connect(&db.url).await.unwrap();
    let held = other.begin_with("begin immediate").await.unwrap();
    let busy = db.write().await;
    assert!(matches!(busy, Err(Error::Unavailable { .. })), "{busy:?}");
    // Reading goes on, and so does writing once it is free.
    db.ping().await.unwrap();
    held.rollback().await.unwrap();
    let mut tx = db.write().await.unwrap();
    setting::put(&mut tx, "k", "v").await.unwrap();
    tx.commit().await.unwrap();
}

/// A small disk in memory.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    fn mount() -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let options = c"size=4m";
        let (place, none) = (folder.path(), MountFlags::empty());
        rustix::mount::mount("tmpfs", place, "tmpfs", none, options).ok()?;
        Some(Self(folder))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = rustix::mount::unmount(self.0.path(), UnmountFlags::DETACH);
    }
}

#[tokio::test]
async fn a_full_disk_is_told_and_survived() {
    let Some(disk) = SmallDisk::mount() else {
        eprintln!("skipped: mounting a small disk needs root");
        return;
    };
    let folder = disk.0.path();
    let db = open(&folder.join("grid.db")).await.unwrap();
    let who = somebody(&db, "ada").await;
    let filler = folder.join("filler");
    let stat = rustix::fs::statvfs(folder).unwrap();
    std::fs::write(
        &filler,
        vec![1; (stat.f_bavail * stat.f_bsize - 200_000) as usize],
    )
    .unwrap();
    let mut made = 0;
    let full = loop {
        let run = super::place::a_run(who, &format!("run-{made}"), 100 + made);
        let written = async {
            let mut tx = db.write().await?;
            run::insert(&mut tx, &run, experiments(50, 100 + made), Actor::Engine).await?;
            tx.commit().await
        };
        match written.await {
            Ok(()) => made += 1,
            Err(error) => break error,
        }
        assert!(made < 1000, "the disk never became full");
    };
    assert!(matches!(full, Error::Full { .. }), "{full:?}");
    std::fs::remove_file(&filler).unwrap();
    a_stored_run(&db, who, "later", 5000, 50).await;
    let mut tx = db.read().await.unwrap();
    let runs = run::list(&mut tx, &run::Filter::default(), 1000)
        .await
        .unwrap()
        .items;
    assert_eq!(i64::try_from(runs.len()).unwrap(), made + 1);
    assert!(runs.iter().all(|listed| listed.tally.counts.total() == 50));
    drop(tx);
    db.close().await;
}

#[tokio::test]
async fn invariants_of_the_schema_hold() {
    let folder = tempfile::tempdir().unwrap();
    let db = open(&folder.path().join("grid.db")).await.unwrap();
    let who = somebody(&db, "ada").await;
    let (_, workloads) = a_stored_run(&db, who, "run", 100, 1).await;
    for sql in [
        "update workload set status = 'succeeded'",
        "update workload set finished_at = 5",
        "update workload set status = 'running'",
        "update workload set status = 'starting'",
        "update workload set deleted_at = 5",
        "update workload set version = 0",
        "update membership set role = 'boss'",
        "update team set personal = 2",
        "delete from usr",
    ] {
        let mut tx = db.write().await.unwrap();
        assert!(
            tx.execute("breaking a rule", sql, values![]).await.is_err(),
            "{sql}"
        );
    }
    let mut tx = db.read().await.unwrap();
    assert!(
        workload::get(&mut tx, workloads[0].id)
            .await
            .unwrap()
            .is_some()
    );
    assert_eq!(at(100), workloads[0].created_at);
}
