//! Files that are sent under their paths, and parts of them.

use grid_core::id::UploadId;

use super::conformance;
use super::datastores::{a_store, a_version, finished};
use super::place::{at, entropy, somebody};
use super::trash::a_blob;
use crate::db::datastore_version::Version;
use crate::db::staged::{self, File, Growth, Notes, Part, Upload};
use crate::db::{Db, Tx, datastore, datastore_version};

conformance!(
    a_file_comes_in_parts_and_replaces_the_one_before,
    uploads_and_files_are_listed_by_the_bytes_of_their_paths,
    what_is_staged_goes_with_the_version,
    blobs_of_parts_are_told_before_those_of_files,
    a_folder_is_a_line_and_no_file,
);

async fn some_version(db: &Db) -> (Tx, Version) {
    let ada = somebody(db, "ada").await;
    let mut tx = db.write().await.unwrap();
    let store = a_store(ada, "cats");
    let store = datastore::insert_or_get(&mut tx, &store).await.unwrap();
    let version = a_version(&mut tx, &store, 20).await;
    (tx, version)
}

fn an_upload(version: &Version, path: &str) -> Upload {
    Upload {
        id: UploadId::from_parts(at(30), entropy()),
        version: version.id,
        path: path.to_owned(),
        begun_at: at(30),
        notes: Notes::from([("mtime".to_owned(), "1.5 ü".to_owned())]),
    }
}

fn a_part(number: u32, blob: u8) -> Part {
    Part {
        number,
        blob: a_blob(blob),
        size_bytes: 5,
        new_bytes: 3,
        etag: format!("{blob:032x}"),
        sent_at: at(31),
    }
}

fn a_file(path: &str, blob: u8, upload: Option<UploadId>) -> File {
    File {
        path: path.to_owned(),
        blob: a_blob(blob),
        size_bytes: 10,
        new_bytes: 4,
        etag: "e-1".to_owned(),
        upload,
        sent_at: at(40),
        is_folder: false,
        notes: Notes::from([("mtime".to_owned(), "1.5 ü".to_owned())]),
    }
}

async fn a_file_comes_in_parts_and_replaces_the_one_before(db: Db) {
    let (mut tx, version) = some_version(&db).await;
    let upload = an_upload(&version, "größe/雪");
    staged::begin(&mut tx, std::slice::from_ref(&upload))
        .await
        .unwrap();
    let read = staged::upload(&mut tx, upload.id).await.unwrap();
    assert_eq!(read.as_ref(), Some(&upload));
    for part in [a_part(2, 2), a_part(1, 1), a_part(2, 3)] {
        staged::put_part(&mut tx, upload.id, &part).await.unwrap();
    }
    let page = staged::parts(&mut tx, upload.id, None, 1).await.unwrap();
    assert_eq!((page.items, page.next), (vec![a_part(1, 1)], Some(1)));
    let page = staged::parts(&mut tx, upload.id, Some(1), 9).await.unwrap();
    assert_eq!((page.items, page.next), (vec![a_part(2, 3)], None));
    assert!(staged::hold(&mut tx, version.id, at(41)).await.unwrap());
    let file = a_file("größe/雪", 4, Some(upload.id));
    let by = staged::put_file(&mut tx, version.id, &file).await.unwrap();
    let expected = Growth {
        files: 1,
        size_bytes: 10,
        new_bytes: 4,
    };
    assert_eq!(by, expected);
    staged::grow(&mut tx, version.id, by).await.unwrap();
    assert!(staged::end_upload(&mut tx, upload.id).await.unwrap());
    assert!(!staged::end_upload(&mut tx, upload.id).await.unwrap());
    let read = staged::file(&mut tx, version.id, "größe/雪").await.unwrap();
    assert_eq!(read, Some(file));
    let larger = File {
        size_bytes: 12,
        ..a_file("größe/雪", 5, None)
    };
    let by = staged::put_file(&mut tx, version.id, &larger)
        .await
        .unwrap();
    assert_eq!((by.files, by.size_bytes, by.new_bytes), (0, 2, 0));
    staged::grow(&mut tx, version.id, by).await.unwrap();
    let row = datastore_version::by_id(&mut tx, version.id).await.unwrap();
    let row = row.unwrap();
    assert_eq!((row.files, row.size_bytes, row.new_bytes), (1, 12, 4));
    assert_eq!(row.updated_at, at(41));
    let by = staged::remove_file(&mut tx, version.id, "größe/雪", false).await;
    let by = by.unwrap().unwrap();
    assert_eq!((by.files, by.size_bytes), (-1, -12));
    let none = staged::remove_file(&mut tx, version.id, "größe/雪", false).await;
    assert_eq!(none.unwrap(), None);
}

async fn a_folder_is_a_line_and_no_file(db: Db) {
    let (mut tx, version) = some_version(&db).await;
    let folder = File {
        is_folder: true,
        ..a_file("a", 7, None)
    };
    for line in [&folder, &a_file("b", 1, None)] {
        staged::put_file(&mut tx, version.id, line).await.unwrap();
    }
    let read = staged::file(&mut tx, version.id, "a").await.unwrap();
    assert_eq!(read, Some(folder));
    let files = staged::files_among(&mut tx, version.id, &["a", "b"]).await;
    assert_eq!(files.unwrap().into_iter().collect::<Vec<_>>(), ["b"]);
    let blobs = staged::blobs_referenced(&mut tx, Some(&staged::After::Parts), 9).await;
    assert_eq!(blobs.unwrap().items, [a_blob(1)]);
    let wrong = staged::remove_file(&mut tx, version.id, "a", false).await;
    assert_eq!(wrong.unwrap(), None);
    let removed = staged::remove_file(&mut tx, version.id, "a", true).await;
    assert!(removed.unwrap().is_some());
}

async fn uploads_and_files_are_listed_by_the_bytes_of_their_paths(db: Db) {
    let (mut tx, version) = some_version(&db).await;
    let mut paths = vec!["b", "a/b", "a", "a.txt", "Z", "ä", "a b", "雪", "a/b/c"];
    for path in &paths {
        let file = a_file(path, 1, None);
        staged::put_file(&mut tx, version.id, &file).await.unwrap();
        staged::begin(&mut tx, &[an_upload(&version, path)])
            .await
            .unwrap();
    }
    paths.sort_unstable();
    let (mut files, mut after) = (Vec::new(), None::<String>);
    loop {
        let page = staged::files(&mut tx, version.id, "", after.as_deref(), 2).await;
        let page = page.unwrap();
        files.extend(page.items.into_iter().map(|file| file.path));
        match page.next {
            Some(next) => after = Some(next),
            None => break,
        }
    }
    assert_eq!(files, paths);
    let (mut uploads, mut after) = (Vec::new(), None);
    loop {
        let page = staged::uploads(&mut tx, version.id, "", after.as_ref(), 2).await;
        let page = page.unwrap();
        uploads.extend(page.items.into_iter().map(|upload| upload.path));
        match page.next {
            Some(next) => after = Some(next),
            None => break,
        }
    }
    assert_eq!(uploads, paths);
    let page = staged::files(&mut tx, version.id, "a/", None, 9).await;
    let below: Vec<_> = page.unwrap().items.into_iter().map(|f| f.path).collect();
    assert_eq!(below, ["a/b", "a/b/c"]);
    let among = staged::files_among(&mut tx, version.id, &["a", "c", "雪"]).await;
    let mut among: Vec<_> = among.unwrap().into_iter().collect();
    among.sort_unstable();
    assert_eq!(among, ["a", "雪"]);
    let count = staged::count_uploads(&mut tx, version.id, 5).await;
    assert_eq!(count.unwrap(), 5, "no further than asked");
    let count = staged::count_uploads(&mut tx, version.id, 100).await;
    assert_eq!(count.unwrap(), paths.len() as u64);
}

async fn stage_some(tx: &mut Tx, version: &Version) -> Upload {
    let upload = an_upload(version, "b");
    let one = std::slice::from_ref(&upload);
    staged::begin(tx, one).await.unwrap();
    staged::put_part(tx, upload.id, &a_part(1, 1))
        .await
        .unwrap();
    let file = a_file("a", 2, None);
    staged::put_file(tx, version.id, &file).await.unwrap();
    upload
}

async fn is_staged(tx: &mut Tx) -> bool {
    let mut after = None;
    loop {
        let page = staged::blobs_referenced(tx, after.as_ref(), 9).await;
        let page = page.unwrap();
        if !page.items.is_empty() {
            return true;
        }
        match page.next {
            Some(next) => after = Some(next),
            None => return false,
        }
    }
}

async fn what_is_staged_goes_with_the_version(db: Db) {
    let (mut tx, first) = some_version(&db).await;
    stage_some(&mut tx, &first).await;
    assert!(is_staged(&mut tx).await);
    finished(&mut tx, &first).await;
    assert!(!is_staged(&mut tx).await, "finished");
    assert!(!staged::hold(&mut tx, first.id, at(80)).await.unwrap());
    let store = datastore::by_id(&mut tx, first.datastore).await.unwrap();
    let store = store.unwrap();
    let second = a_version(&mut tx, &store, 21).await;
    stage_some(&mut tx, &second).await;
    let failed = datastore_version::fail(&mut tx, second.id, "x", at(80)).await;
    assert!(failed.unwrap() && !is_staged(&mut tx).await, "given up");
    let third = a_version(&mut tx, &store, 22).await;
    stage_some(&mut tx, &third).await;
    let by = third.owner;
    let deleted = datastore_version::set_deleted(&mut tx, third.id, by, at(80)).await;
    assert!(deleted.unwrap() && is_staged(&mut tx).await, "in the trash");
    assert!(!staged::hold(&mut tx, third.id, at(81)).await.unwrap());
    let purged = datastore_version::purge(&mut tx, at(90), 9).await.unwrap();
    assert_eq!(purged, 2, "that, and what has failed");
    assert!(!is_staged(&mut tx).await, "gone for good");
}

async fn blobs_of_parts_are_told_before_those_of_files(db: Db) {
    let (mut tx, version) = some_version(&db).await;
    let upload = stage_some(&mut tx, &version).await;
    for (number, blob) in [(2, 3), (3, 4)] {
        staged::put_part(&mut tx, upload.id, &a_part(number, blob))
            .await
            .unwrap();
    }
    let file = a_file("c", 5, None);
    staged::put_file(&mut tx, version.id, &file).await.unwrap();
    for limit in [1, 2, 9] {
        let (mut told, mut after) = (Vec::new(), None);
        loop {
            let page = staged::blobs_referenced(&mut tx, after.as_ref(), limit).await;
            let page = page.unwrap();
            told.extend(page.items);
            match page.next {
                Some(next) => after = Some(next),
                None => break,
            }
        }
        assert_eq!(told, [1, 3, 4, 2, 5].map(a_blob), "{limit} at a time");
    }
}
