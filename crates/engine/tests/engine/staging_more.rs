//! More of files that are sent one by one: asking twice, folders, and bytes that are stored.

use grid_engine::Error;
use grid_engine::datastore::staging::{self, Announced, Kept, Stored};
use grid_store::db::staged::Notes;

use crate::staging::{begin, body, completion, content, get, open_one, paths, put, put_part};
use crate::world::{World, assert_consistent};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_asks_for_the_same_at_once_is_told_the_same() {
    let dir = tempfile::tempdir().expect("a folder");
    let world = World::new(dir.path()).await;
    let (engine, ada) = (&world.engine, &world.ada);
    let version = begin(engine, ada, "cats").await;
    let upload = open_one(engine, ada, &version, "big").await;
    let mut kept = Vec::new();
    for number in 1..=4 {
        let bytes = vec![u8::try_from(number).expect("small"); 3 << 20];
        let part = put_part(engine, ada, &version, &upload, number, bytes).await;
        kept.push((number, part.expect("a part")));
    }
    let named: Vec<(u32, &Kept)> = kept.iter().map(|(number, kept)| (*number, kept)).collect();
    let all = vec![completion(&upload, &named)];
    let asked = (0..6).map(|_| staging::complete(engine, ada, &version, all.clone()));
    let mut answers = futures::future::join_all(asked).await.into_iter();
    let first = answers.next().expect("an answer").expect("put together");
    for other in answers {
        assert_eq!(other.expect("the same"), first);
    }
    let row = get(engine, ada, &version).await.row;
    assert_eq!((row.files, row.size_bytes), (1, 12 << 20));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn folders_are_kept_and_stored_bytes_are_named() {
    let dir = tempfile::tempdir().expect("a folder");
    let world = World::new(dir.path()).await;
    let (engine, ada) = (&world.engine, &world.ada);
    let version = begin(engine, ada, "cats").await;
    let folder = async |path: &str| {
        staging::put_folder(engine, ada, &version, (path, Notes::new()), "x").await
    };
    for path in ["empty", "full", "a", "gone"] {
        folder(path).await.expect("a folder");
    }
    put(engine, ada, &version, "full/x", "x").await;
    put(engine, ada, &version, "a-b", "").await;
    let refused = folder("a-b").await;
    assert!(
        matches!(refused, Err(Error::Conflict { .. })),
        "{refused:?}"
    );
    let refused = folder("a-b/c").await;
    assert!(
        matches!(refused, Err(Error::Conflict { .. })),
        "{refused:?}"
    );
    let announced = Announced::default();
    let refused = staging::put(engine, ada, &version, "empty", announced, body("x")).await;
    assert!(
        matches!(refused, Err(Error::Conflict { .. })),
        "{refused:?}"
    );
    let refused = staging::remove(engine, ada, &version, "empty").await;
    assert!(
        matches!(refused, Err(Error::NotFound { .. })),
        "{refused:?}"
    );
    staging::remove(engine, ada, &version, "gone/")
        .await
        .expect("removed");
    let file = staging::file(engine, ada, &version, "full/x").await;
    let stored = Stored {
        blob: file.expect("it").blob,
        size_bytes: 1,
        etag: "told".to_owned(),
    };
    let place = ("copied", Notes::new());
    let copied = staging::put_stored(engine, ada, &version, place.clone(), stored.clone()).await;
    assert_eq!(copied.expect("copied").etag, "told");
    let unknown = Stored {
        blob: grid_core::blob::BlobId::from_bytes([7; 32]),
        ..stored
    };
    let refused = staging::put_stored(engine, ada, &version, place, unknown).await;
    assert!(
        matches!(refused, Err(Error::Conflict { .. })),
        "{refused:?}"
    );
    staging::finish(engine, ada, &version)
        .await
        .expect("finished");
    assert_eq!(
        paths(engine, ada, &version).await,
        ["a", "a-b", "copied", "empty", "full/x"]
    );
    assert_eq!(content(engine, ada, &version, "copied").await, "x");
    let row = get(engine, ada, &version).await.row;
    assert_eq!(row.files, 3, "folders are none");
    assert_consistent(engine).await;
}
