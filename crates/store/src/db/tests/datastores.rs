//! Datastores: numbers, states, parts of uploads, who mounts what.

use grid_core::datastore::{SourceKind, State};
use grid_core::id::{CredentialId, DatastoreId, DatastoreVersionId, TeamId, UserId};

use super::conformance;
use super::place::{a_stored_run, at, entropy, somebody};
use super::trash::a_blob;
use crate::db::datastore::{self, Datastore};
use crate::db::datastore_page::{self, Part};
use crate::db::datastore_version::{self, Content, Filter, Version};
use crate::db::{Backend, Db, Error, Scope, Trash, Tx, mount};

conformance!(
    a_name_is_kept_once_and_its_numbers_rise,
    a_name_that_somebody_begins_to_use_is_not_free,
    an_upload_adds_up_and_is_finished_once,
    versions_are_listed_by_whose_they_are_and_go_for_good,
    a_version_that_is_mounted_is_known_to_be,
);

type Who = (UserId, TeamId);

pub(super) fn a_store((creator, team): Who, name: &str) -> Datastore {
    Datastore {
        id: DatastoreId::from_parts(at(9), entropy()),
        team,
        creator,
        name: name.to_owned(),
        numbers: 0,
        created_at: at(9),
    }
}

pub(super) async fn a_version(tx: &mut Tx, store: &Datastore, made: i64) -> Version {
    let number = datastore::next_number(tx, store.id).await.unwrap();
    let version = Version {
        id: DatastoreVersionId::from_parts(at(made), entropy()),
        datastore: store.id,
        number: number.unwrap(),
        owner: store.creator,
        owner_team: store.team,
        state: State::Uploading,
        source: "/data/größe".to_owned(),
        source_kind: SourceKind::Folder,
        endpoint: Some("https://s3.example.org".to_owned()),
        credential: Some(CredentialId::from_parts(at(made), entropy())),
        is_index: true,
        description: "雪".to_owned(),
        pages: None,
        manifest: None,
        files: 0,
        size_bytes: 0,
        new_bytes: 0,
        progress_bytes: 0,
        progress_total: None,
        message: None,
        created_at: at(made),
        updated_at: at(made),
        finished_at: None,
        deleted: None,
    };
    datastore_version::insert(tx, &version).await.unwrap();
    let read = datastore_version::by_id(tx, version.id).await.unwrap();
    assert_eq!(read.as_ref(), Some(&version));
    version
}

pub(super) async fn finished(tx: &mut Tx, version: &Version) {
    let content = Content {
        manifest: a_blob(1),
        files: 3,
        size_bytes: 10 << 40,
        new_bytes: 7,
    };
    let id = version.id;
    assert!(
        datastore_version::set_processing(tx, id, Some(2), at(60))
            .await
            .unwrap()
    );
    assert!(
        datastore_version::finish(tx, id, &content, at(70))
            .await
            .unwrap()
    );
    assert!(
        !datastore_version::finish(tx, id, &content, at(71))
            .await
            .unwrap()
    );
}

async fn a_name_is_kept_once_and_its_numbers_rise(db: Db) {
    let ada = somebody(&db, "ada").await;
    let bob = somebody(&db, "bob").await;
    let mut tx = db.write().await.unwrap();
    let first = a_store(ada, "cats");
    let kept = datastore::insert_or_get(&mut tx, &first).await.unwrap();
    assert_eq!(kept, first);
    let again = datastore::insert_or_get(&mut tx, &a_store(ada, "cats")).await;
    assert_eq!(again.unwrap().id, first.id);
    let other = datastore::insert_or_get(&mut tx, &a_store(bob, "cats")).await;
    assert_ne!(other.unwrap().id, first.id);
    for expected in [1, 2, 3] {
        let number = datastore::next_number(&mut tx, first.id).await.unwrap();
        assert_eq!(number, Some(expected));
    }
    datastore::skip_numbers(&mut tx, first.id, 10)
        .await
        .unwrap();
    datastore::skip_numbers(&mut tx, first.id, 5).await.unwrap();
    let number = datastore::next_number(&mut tx, first.id).await.unwrap();
    assert_eq!(number, Some(11));
    let dogs = a_store(ada, "dogs");
    datastore::insert_or_get(&mut tx, &dogs).await.unwrap();
    a_version(&mut tx, &first, 20).await;
    assert!(!datastore::remove_empty(&mut tx, first.id).await.unwrap());
    tx.commit().await.unwrap();
    let mut tx = db.write().await.unwrap();
    let taken = datastore::rename(&mut tx, first.id, "dogs").await;
    assert!(matches!(taken, Err(Error::Conflict { .. })), "{taken:?}");
    drop(tx);
    let mut tx = db.write().await.unwrap();
    assert!(datastore::remove_empty(&mut tx, dogs.id).await.unwrap());
    assert!(datastore::rename(&mut tx, first.id, "dogs").await.unwrap());
    let found = datastore::by_name(&mut tx, ada.0, "dogs").await.unwrap();
    assert_eq!(found.map(|found| found.id), Some(first.id));
}

/// Whether anybody waits for a row, or for their turn.
async fn is_waited_for(db: &Db) -> bool {
    if db.backend() == Backend::Sqlite {
        // One writes at a time.
        return true;
    }
    let mut tx = db.read().await.unwrap();
    let sql = "select 1 from pg_locks where not granted";
    let rows = tx.rows("looking for who waits", sql, vec![]).await;
    !rows.unwrap().is_empty()
}

async fn a_name_that_somebody_begins_to_use_is_not_free(db: Db) {
    let ada = somebody(&db, "ada").await;
    let mut tx = db.write().await.unwrap();
    let cats = a_store(ada, "cats");
    let store = datastore::insert_or_get(&mut tx, &cats).await.unwrap();
    tx.commit().await.unwrap();
    let mut beginning = db.write().await.unwrap();
    let version = a_version(&mut beginning, &store, 20).await;
    let other = db.clone();
    let removing = tokio::spawn(async move {
        let mut tx = other.write().await.unwrap();
        let is_removed = datastore::remove_empty(&mut tx, store.id).await.unwrap();
        tx.commit().await.unwrap();
        is_removed
    });
    while !is_waited_for(&db).await && !removing.is_finished() {
        tokio::task::yield_now().await;
    }
    beginning.commit().await.unwrap();
    assert!(!removing.await.unwrap(), "it has a version");
    let mut tx = db.read().await.unwrap();
    let kept = datastore_version::by_id(&mut tx, version.id).await.unwrap();
    assert_eq!(kept, Some(version));
}

async fn an_upload_adds_up_and_is_finished_once(db: Db) {
    let ada = somebody(&db, "ada").await;
    let mut tx = db.write().await.unwrap();
    let store = datastore::insert_or_get(&mut tx, &a_store(ada, "cats"))
        .await
        .unwrap();
    let version = a_version(&mut tx, &store, 20).await;
    let part = |number, blob: Option<u8>, new_bytes| Part {
        number,
        digest: format!("digest {number}"),
        blob: blob.map(a_blob),
        files: 2,
        size_bytes: 100,
        new_bytes,
        block: None,
    };
    // Offered with bytes missing, then kept: what was missing at first counts.
    for (blob, new_bytes) in [(None, 60), (Some(1), 0)] {
        let part = part(0, blob, new_bytes);
        datastore_page::put(&mut tx, version.id, &part)
            .await
            .unwrap();
    }
    datastore_page::put(&mut tx, version.id, &part(1, None, 100))
        .await
        .unwrap();
    assert!(
        datastore_version::sum_up(&mut tx, version.id, at(30))
            .await
            .unwrap()
    );
    let now = datastore_version::by_id(&mut tx, version.id)
        .await
        .unwrap()
        .unwrap();
    assert_eq!((now.files, now.size_bytes, now.new_bytes), (2, 100, 60));
    let page = datastore_page::list(&mut tx, version.id, None, 1)
        .await
        .unwrap();
    assert_eq!((page.items[0].new_bytes, page.next), (60, Some(0)));
    assert_eq!(
        datastore_version::newest(&mut tx, store.id).await.unwrap(),
        None
    );
    let total = Some(10 << 40);
    let noted = datastore_version::advance(&mut tx, version.id, 5, total, at(31)).await;
    assert!(noted.unwrap());
    finished(&mut tx, &version).await;
    let page = datastore_page::list(&mut tx, version.id, None, 10)
        .await
        .unwrap();
    assert!(page.items.is_empty());
    let newest = datastore_version::newest(&mut tx, store.id)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(
        (newest.state, newest.size_bytes),
        (State::Available, 10 << 40)
    );
    assert!(
        !datastore_version::fail(&mut tx, version.id, "x", at(80))
            .await
            .unwrap()
    );
    let second = a_version(&mut tx, &store, 40).await;
    let open = datastore_version::list_open(&mut tx, State::Uploading, at(41), 9)
        .await
        .unwrap();
    assert_eq!(open.len(), 1);
    assert!(
        datastore_version::fail(&mut tx, second.id, "the disk", at(80))
            .await
            .unwrap()
    );
    let failed = datastore_version::by_number(&mut tx, store.id, 2)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(failed.message.as_deref(), Some("the disk"));
}

async fn versions_are_listed_by_whose_they_are_and_go_for_good(db: Db) {
    let (ada, bob) = (somebody(&db, "ada").await, somebody(&db, "bob").await);
    let mut tx = db.write().await.unwrap();
    let mut made = Vec::new();
    for (who, name, at) in [(ada, "cats", 20), (bob, "cats", 30), (ada, "dogs", 40)] {
        let store = datastore::insert_or_get(&mut tx, &a_store(who, name))
            .await
            .unwrap();
        let version = a_version(&mut tx, &store, at).await;
        finished(&mut tx, &version).await;
        made.push(version.id);
    }
    let teams = [ada.1, bob.1];
    let mut listed = Vec::new();
    let mut filter = Filter {
        scope: Scope {
            owner: None,
            teams: Some(&teams),
        },
        ..Filter::default()
    };
    loop {
        let page = datastore_version::list(&mut tx, &filter, 1).await.unwrap();
        listed.extend(page.items.iter().map(|one| one.id));
        match page.next {
            Some(next) => filter.after = Some(next),
            None => break,
        }
    }
    assert_eq!(listed, [made[2], made[1], made[0]]);
    let named = Filter {
        name: Some("cats"),
        scope: Scope {
            owner: Some(ada.0),
            teams: Some(&teams),
        },
        ..Filter::default()
    };
    let page = datastore_version::list(&mut tx, &named, 9).await.unwrap();
    assert_eq!(page.items.len(), 1);
    assert!(
        datastore_version::set_deleted(&mut tx, made[0], bob.0, at(90))
            .await
            .unwrap()
    );
    assert!(
        !datastore_version::set_deleted(&mut tx, made[0], bob.0, at(91))
            .await
            .unwrap()
    );
    let trash = Filter {
        trash: Trash::Only,
        ..named
    };
    let page = datastore_version::list(&mut tx, &trash, 9).await.unwrap();
    assert_eq!(page.items[0].deleted.map(|deleted| deleted.by), Some(bob.0));
    assert!(datastore_version::restore(&mut tx, made[0]).await.unwrap());
    assert!(
        datastore_version::set_deleted(&mut tx, made[0], bob.0, at(92))
            .await
            .unwrap()
    );
    assert_eq!(
        datastore_version::purge(&mut tx, at(92), 9).await.unwrap(),
        0
    );
    assert_eq!(
        datastore_version::purge(&mut tx, at(93), 9).await.unwrap(),
        1
    );
    let all = datastore_version::all(&mut tx, None, 9).await.unwrap();
    assert_eq!(all.items.len(), 2);
}

async fn a_version_that_is_mounted_is_known_to_be(db: Db) {
    let ada = somebody(&db, "ada").await;
    let (run, _) = a_stored_run(&db, ada, "bert", 50, 2).await;
    let mut tx = db.write().await.unwrap();
    let store = datastore::insert_or_get(&mut tx, &a_store(ada, "cats"))
        .await
        .unwrap();
    let version = a_version(&mut tx, &store, 20).await;
    assert!(!mount::insert(&mut tx, run, version.id).await.unwrap());
    finished(&mut tx, &version).await;
    assert!(mount::insert(&mut tx, run, version.id).await.unwrap());
    assert!(mount::insert(&mut tx, run, version.id).await.unwrap());
    assert!(mount::hold(&mut tx, version.id).await.unwrap());
    let open = mount::open_users(&mut tx, version.id, 9).await.unwrap();
    assert_eq!((open.len(), open[0].name.as_str()), (1, "bert"));
    let users = mount::users(&mut tx, version.id, None, 9).await.unwrap();
    assert!(users.items[0].is_open && users.next.is_none());
    assert!(
        datastore_version::set_deleted(&mut tx, version.id, ada.0, at(90))
            .await
            .unwrap()
    );
    assert!(!mount::insert(&mut tx, run, version.id).await.unwrap());
}
