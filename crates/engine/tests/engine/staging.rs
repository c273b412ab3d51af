//! Versions that are made of files sent one by one.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures::stream;
use grid_core::datastore::{SourceKind, State};
use grid_core::team::Role;
use grid_engine::datastore::staging::{self, Announced, Completion, Kept};
use grid_engine::datastore::{self, BucketWish, NewVersion, Version, Wanted};
use grid_engine::{Caller, Engine, Error, trash};
use grid_store::db::staged;

use crate::world::{
    World, WrongClock, assert_consistent, engine, engine_with_grace, first_user, until,
};

const DAY_MS: i64 = 24 * 60 * 60 * 1_000;

pub(crate) async fn begin(engine: &Engine, caller: &Caller, name: &str) -> String {
    let new = NewVersion {
        name: name.to_owned(),
        team: None,
        source: String::new(),
        source_kind: SourceKind::Folder,
        description: String::new(),
        bucket: BucketWish::default(),
    };
    let begun = datastore::begin(engine, caller, new).await;
    begun.expect("begun").row.id.to_string()
}

pub(crate) fn body(
    text: impl Into<Bytes>,
) -> impl futures::Stream<Item = io::Result<Bytes>> + Send {
    stream::iter([Ok(text.into())])
}

pub(crate) async fn put(engine: &Engine, caller: &Caller, version: &str, path: &str, text: &str) {
    let body = body(text.to_owned());
    staging::put(engine, caller, version, path, Announced::default(), body)
        .await
        .expect("a file");
}

pub(crate) async fn put_part(
    engine: &Engine,
    caller: &Caller,
    version: &str,
    upload: &staged::Upload,
    number: u32,
    bytes: impl Into<Bytes>,
) -> Result<Kept, Error> {
    let announced = Announced::default();
    staging::put_part(
        engine,
        caller,
        version,
        upload.id,
        number,
        announced,
        body(bytes),
    )
    .await
}

pub(crate) async fn open_one(
    engine: &Engine,
    caller: &Caller,
    version: &str,
    path: &str,
) -> staged::Upload {
    let begun = staging::begin(engine, caller, version, &[path.to_owned()]).await;
    begun.expect("an upload").remove(0)
}

pub(crate) fn completion(upload: &staged::Upload, parts: &[(u32, &Kept)]) -> Completion {
    let named = |(number, kept): &(u32, &Kept)| (*number, kept.etag.clone());
    Completion {
        upload: upload.id,
        path: upload.path.clone(),
        parts: parts.iter().map(named).collect(),
    }
}

pub(crate) async fn paths(engine: &Engine, caller: &Caller, version: &str) -> Vec<String> {
    let wanted = Wanted {
        is_deep: true,
        limit: 100,
        ..Wanted::default()
    };
    let items = datastore::files(engine, caller, version, &wanted).await;
    let items = items.expect("files").items.into_iter();
    let path = |item| match item {
        datastore::Item::Entry(entry) => entry.path,
        datastore::Item::Folder { path, .. } => path,
    };
    items.map(path).collect()
}

pub(crate) async fn content(engine: &Engine, caller: &Caller, version: &str, path: &str) -> Bytes {
    let opened = datastore::open(engine, caller, version, path).await;
    let datastore::Reader::Stored(reader) = opened.expect("a file").reader else {
        panic!("its bytes are stored")
    };
    let length = usize::try_from(reader.len()).expect("small");
    let mut whole = Vec::new();
    while whole.len() < length {
        let piece = reader.read_at(whole.len() as u64, 1 << 20).await;
        whole.extend_from_slice(&piece.expect("bytes"));
    }
    whole.into()
}

pub(crate) async fn get(engine: &Engine, caller: &Caller, version: &str) -> Version {
    datastore::get(engine, caller, version).await.expect("it")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn parts_in_any_order_make_a_file_and_files_make_a_version() {
    let dir = tempfile::tempdir().expect("a folder");
    let world = World::new(dir.path()).await;
    let (engine, ada) = (&world.engine, &world.ada);
    let version = begin(engine, ada, "cats").await;
    let upload = open_one(engine, ada, &version, "big/data.bin").await;
    let parts: Vec<Vec<u8>> = (0..3_u32)
        .map(|n| {
            (0..700_000_u32)
                .map(|i| (i * (n + 3) % 251) as u8)
                .collect()
        })
        .collect();
    let mut kept = Vec::new();
    for number in [3, 1, 2] {
        let bytes = parts[number - 1].clone();
        let number = u32::try_from(number).expect("small");
        let part = put_part(engine, ada, &version, &upload, number, bytes).await;
        kept.push((number, part.expect("a part")));
    }
    kept.sort_by_key(|(number, _)| *number);
    let named: Vec<(u32, &Kept)> = kept.iter().map(|(number, kept)| (*number, kept)).collect();
    let all = vec![completion(&upload, &named)];
    let files = staging::complete(engine, ada, &version, all.clone()).await;
    let files = files.expect("put together");
    assert!(files[0].etag.ends_with("-3"), "{}", files[0].etag);
    assert_eq!(files[0].size_bytes, 2_100_000);
    let again = staging::complete(engine, ada, &version, all.clone()).await;
    assert_eq!(again.expect("the same"), files);
    put(engine, ada, &version, "empty", "").await;
    put(engine, ada, &version, "a.txt", "first").await;
    put(engine, ada, &version, "a.txt", "second").await;
    put(engine, ada, &version, "gone", "x").await;
    staging::remove(engine, ada, &version, "gone")
        .await
        .expect("removed");
    let listed = staging::files(engine, ada, &version, "", None, 2).await;
    let listed = listed.expect("files");
    let of_page: Vec<_> = listed.items.iter().map(|file| file.path.as_str()).collect();
    assert_eq!(of_page, ["a.txt", "big/data.bin"]);
    assert_eq!(listed.next.as_deref(), Some("big/data.bin"));
    let now = get(engine, ada, &version).await;
    assert_eq!((now.row.files, now.row.size_bytes), (3, 2_100_006));
    let left = open_one(engine, ada, &version, "never").await;
    put_part(engine, ada, &version, &left, 1, "half")
        .await
        .expect("a part");
    let done = staging::finish(engine, ada, &version)
        .await
        .expect("finished");
    assert_eq!(done.row.state, State::Available);
    assert_eq!((done.row.files, done.row.size_bytes), (3, 2_100_006));
    let again = staging::finish(engine, ada, &version).await;
    assert_eq!(again.expect("the same").row.manifest, done.row.manifest);
    assert_eq!(
        paths(engine, ada, &version).await,
        ["a.txt", "big/data.bin", "empty"]
    );
    assert_eq!(
        content(engine, ada, &version, "big/data.bin").await,
        parts.concat()
    );
    assert_eq!(content(engine, ada, &version, "a.txt").await, "second");
    assert_eq!(content(engine, ada, &version, "empty").await, "");
    let late = put_part(engine, ada, &version, &left, 2, "late").await;
    assert!(matches!(late, Err(Error::Conflict { .. })), "{late:?}");
    world.assert_consistent().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_cut_or_wrong_leaves_nothing() {
    let dir = tempfile::tempdir().expect("a folder");
    let world = World::new(dir.path()).await;
    let (engine, ada) = (&world.engine, &world.ada);
    let version = begin(engine, ada, "cats").await;
    let upload = open_one(engine, ada, &version, "a").await;
    let part = async |announced: Announced, pieces: Vec<io::Result<Bytes>>| {
        let body = stream::iter(pieces);
        staging::put_part(engine, ada, &version, upload.id, 1, announced, body).await
    };
    let cut = vec![Ok(Bytes::from("ha")), Err(io::Error::other("the line"))];
    let refused = part(Announced::default(), cut).await;
    assert!(
        matches!(&refused, Err(Error::Invalid { message, .. }) if message.contains("broke off")),
        "{refused:?}"
    );
    let announce = |size_bytes, md5, most_bytes| Announced {
        size_bytes,
        md5,
        most_bytes,
        patience: None,
    };
    for (announced, word) in [
        (announce(Some(5), None, None), "5 bytes were announced"),
        (announce(None, Some([0; 16]), None), "another MD5"),
    ] {
        let refused = part(announced, vec![Ok(Bytes::from("half"))]).await;
        let said = refused.expect_err(word).to_string();
        assert!(said.contains(word), "{said}");
    }
    for announced in [
        announce(Some(3 << 30), None, Some(2 << 20)),
        announce(None, None, Some(2 << 20)),
    ] {
        let large = vec![Ok(Bytes::from(vec![0; 3 << 20]))];
        let refused = part(announced, large).await;
        assert!(
            matches!(refused, Err(Error::TooLarge { .. })),
            "{refused:?}"
        );
    }
    let kept = staging::parts(engine, ada, &version, upload.id, None, 9).await;
    assert!(kept.expect("a list").items.is_empty());
    for number in [0, 10_001] {
        let refused = put_part(engine, ada, &version, &upload, number, "x").await;
        assert!(matches!(refused, Err(Error::Invalid { .. })), "{refused:?}");
    }
    let one = put_part(engine, ada, &version, &upload, 1, "one")
        .await
        .expect("a part");
    let wrong = Kept {
        etag: "0".repeat(32),
        size_bytes: 3,
    };
    let refusals: [&[(u32, &Kept)]; 5] = [
        &[],
        &[(1, &wrong)],
        &[(2, &one)],
        &[(2, &one), (1, &one)],
        &[(1, &one), (1, &one)],
    ];
    for parts in refusals {
        let all = vec![completion(&upload, parts)];
        let refused = staging::complete(engine, ada, &version, all).await;
        assert!(matches!(refused, Err(Error::Invalid { .. })), "{refused:?}");
    }
    let elsewhere = Completion {
        path: "b".to_owned(),
        ..completion(&upload, &[(1, &one)])
    };
    let refused = staging::complete(engine, ada, &version, vec![elsewhere]).await;
    assert!(
        matches!(refused, Err(Error::NotFound { .. })),
        "{refused:?}"
    );
    staging::abort(engine, ada, &version, upload.id)
        .await
        .expect("given up");
    let refused = put_part(engine, ada, &version, &upload, 1, "x").await;
    assert!(
        matches!(refused, Err(Error::NotFound { .. })),
        "{refused:?}"
    );
    assert_eq!(get(engine, ada, &version).await.row.files, 0);
    world.assert_consistent().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn paths_stay_inside_and_do_not_clash() {
    let dir = tempfile::tempdir().expect("a folder");
    let world = World::new(dir.path()).await;
    let (engine, ada) = (&world.engine, &world.ada);
    let version = begin(engine, ada, "cats").await;
    let long = "x".repeat(300);
    let deep = "abc/".repeat(300) + "x";
    for path in [
        "", "/a", "../a", "a/../b", "a//b", "a/", ".", "a\0b", &long, &deep,
    ] {
        let refused = staging::begin(engine, ada, &version, &[path.to_owned()]).await;
        assert!(matches!(refused, Err(Error::Invalid { .. })), "{path}");
        let announced = Announced::default();
        let refused = staging::put(engine, ada, &version, path, announced, body("x")).await;
        assert!(matches!(refused, Err(Error::Invalid { .. })), "{path}");
    }
    put(engine, ada, &version, "a/b/c", "x").await;
    put(engine, ada, &version, "a/b.txt", "x").await;
    for path in ["a", "a/b", "a/b/c/d", "a/b/c/d/e"] {
        let announced = Announced::default();
        let refused = staging::put(engine, ada, &version, path, announced, body("x")).await;
        assert!(matches!(refused, Err(Error::Conflict { .. })), "{path}");
    }
    // Two that clash with each other, ended in one go.
    let mut both = Vec::new();
    for path in ["n", "n/m"] {
        let upload = open_one(engine, ada, &version, path).await;
        let kept = put_part(engine, ada, &version, &upload, 1, "x").await;
        both.push(completion(&upload, &[(1, &kept.expect("a part"))]));
    }
    for order in [vec![0, 1], vec![1, 0]] {
        let some = order.iter().map(|at: &usize| both[*at].clone()).collect();
        let refused = staging::complete(engine, ada, &version, some).await;
        assert!(
            matches!(refused, Err(Error::Conflict { .. })),
            "{refused:?}"
        );
    }
    staging::finish(engine, ada, &version)
        .await
        .expect("finished");
    assert_eq!(paths(engine, ada, &version).await, ["a/b.txt", "a/b/c"]);
    world.assert_consistent().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_whoever_made_the_datastore_adds_to_it() {
    let dir = tempfile::tempdir().expect("a folder");
    let world = World::new(dir.path()).await;
    let engine = &world.engine;
    let (bob, bobs) = world.user("bob").await;
    let (eve, _) = world.user("eve").await;
    let members = [(&world.ada, Role::Owner), (&bob, Role::Member)];
    world.team(dir.path(), "vision", &members).await;
    let bob = world.sign_in(&bobs).await;
    let version = begin(engine, &bob, "cats").await;
    let upload = open_one(engine, &bob, &version, "a").await;
    put(engine, &bob, &version, "b", "x").await;
    let what = async |who: &Caller| {
        let part = put_part(engine, who, &version, &upload, 1, "x").await;
        let paths = ["c".to_owned()];
        let begun = staging::begin(engine, who, &version, &paths).await;
        let parts = staging::parts(engine, who, &version, upload.id, None, 9).await;
        let files = staging::files(engine, who, &version, "", None, 9).await;
        let read = staging::open(engine, who, &version, "b").await;
        let removed = staging::remove(engine, who, &version, "b").await;
        let aborted = staging::abort(engine, who, &version, upload.id).await;
        let finished = staging::finish(engine, who, &version).await;
        [
            part.map(drop),
            begun.map(drop),
            parts.map(drop),
            files.map(drop),
            read.map(drop),
            removed,
            aborted,
            finished.map(drop),
        ]
    };
    for refused in what(&eve).await {
        let error = refused.expect_err("refused");
        assert!(matches!(error, Error::NotFound { .. }), "{error:?}");
        assert!(!error.to_string().contains("bob"), "{error}");
    }
    assert_eq!(
        get(engine, &bob, &version).await.row.state,
        State::Uploading
    );
    put(engine, &bob, &version, "b", "more").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_was_killed_has_every_part_that_it_answered_for() {
    let dir = tempfile::tempdir().expect("a folder");
    let mut world = World::new(dir.path()).await;
    let version = begin(&world.engine, &world.ada, "cats").await;
    let upload = open_one(&world.engine, &world.ada, &version, "a").await;
    let one = put_part(&world.engine, &world.ada, &version, &upload, 1, "one ").await;
    let one = one.expect("a part");
    put(&world.engine, &world.ada, &version, "b", "b").await;
    world = world.restart(dir.path()).await;
    let (engine, ada) = (&world.engine, &world.ada);
    let two = put_part(engine, ada, &version, &upload, 2, "two").await;
    let all = vec![completion(
        &upload,
        &[(1, &one), (2, &two.expect("a part"))],
    )];
    staging::complete(engine, ada, &version, all)
        .await
        .expect("put together");
    world = world.restart(dir.path()).await;
    let (engine, ada) = (&world.engine, &world.ada);
    staging::finish(engine, ada, &version)
        .await
        .expect("finished");
    assert_eq!(content(engine, ada, &version, "a").await, "one two");
    assert_eq!(content(engine, ada, &version, "b").await, "b");
    world.assert_consistent().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn collection_keeps_what_is_staged_and_takes_what_was_let_go() {
    let dir = tempfile::tempdir().expect("a folder");
    let clock = Arc::new(WrongClock::default());
    let engine = engine_with_grace(dir.path(), clock.clone(), Duration::ZERO).await;
    let ada = first_user(&engine).await;
    let collected = async || {
        let collected = trash::collect(&engine, false).await.expect("a collection");
        assert_consistent(&engine).await;
        collected.removed
    };
    let large = |seed: u32| -> Vec<u8> {
        (0..1_500_000_u32)
            .map(|i| ((i * seed) >> 7) as u8)
            .collect()
    };
    let version = begin(&engine, &ada, "cats").await;
    put(&engine, &ada, &version, "b", "small").await;
    let upload = open_one(&engine, &ada, &version, "a").await;
    let mut kept = Vec::new();
    for (number, seed) in [(1, 77), (2, 1_001)] {
        let part = put_part(&engine, &ada, &version, &upload, number, large(seed)).await;
        kept.push(part.expect("a part"));
    }
    assert_eq!(collected().await, 0, "parts stay");
    let all = vec![completion(&upload, &[(1, &kept[0]), (2, &kept[1])])];
    staging::complete(&engine, &ada, &version, all)
        .await
        .expect("put together");
    assert!(collected().await > 0, "the parts are not needed any more");
    let (file, reader) = staging::open(&engine, &ada, &version, "a")
        .await
        .expect("there");
    assert_eq!((file.size_bytes, reader.len()), (3_000_000, 3_000_000));
    drop(reader);
    staging::finish(&engine, &ada, &version)
        .await
        .expect("finished");
    collected().await;
    let whole = [large(77), large(1_001)].concat();
    assert_eq!(content(&engine, &ada, &version, "a").await, whole);
    // Given up by its creator, then by nobody's coming back.
    for name in ["deleted", "left"] {
        let version = begin(&engine, &ada, name).await;
        put(&engine, &ada, &version, "b", name).await;
        let upload = open_one(&engine, &ada, &version, "a").await;
        put_part(&engine, &ada, &version, &upload, 1, format!("{name}!"))
            .await
            .expect("a part");
        assert_eq!(collected().await, 0, "{name}");
        if name == "deleted" {
            datastore::delete(&engine, &ada, &version)
                .await
                .expect("deleted");
            clock.set_wrong_by(8 * DAY_MS);
            trash::empty(&engine, 7 * DAY_MS).await.expect("emptied");
            let gone = datastore::get(&engine, &ada, &version).await;
            assert!(matches!(gone, Err(Error::NotFound { .. })), "{gone:?}");
            continue;
        }
        clock.set_wrong_by(16 * DAY_MS);
        let looking = engine.clone();
        let looking = tokio::spawn(async move { looking.keep_datastores().await });
        until("it is given up", async || {
            get(&engine, &ada, &version).await.row.state == State::Failed
        })
        .await;
        looking.abort();
        assert_eq!(collected().await, 2, "{name}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_files_at_once() {
    let dir = tempfile::tempdir().expect("a folder");
    let engine = engine(dir.path(), Arc::new(WrongClock::default())).await;
    let ada = first_user(&engine).await;
    let version = begin(&engine, &ada, "cats").await;
    let wanted: Vec<String> = (0..1_200).map(|n| format!("{}/{n}.txt", n % 7)).collect();
    let begun = staging::begin(&engine, &ada, &version, &wanted).await;
    let begun = begun.expect("uploads");
    let mut all = Vec::new();
    for some in begun.chunks(20) {
        let parts = some.iter().map(async |upload| {
            let part = put_part(&engine, &ada, &version, upload, 1, upload.path.clone()).await;
            completion(upload, &[(1, &part.expect("a part"))])
        });
        all.extend(futures::future::join_all(parts).await);
    }
    let files = staging::complete(&engine, &ada, &version, all).await;
    assert_eq!(files.expect("put together").len(), wanted.len());
    let done = staging::finish(&engine, &ada, &version).await;
    let done = done.expect("finished");
    assert_eq!(done.row.files, 1_200);
    assert_eq!(
        content(&engine, &ada, &version, "3/1186.txt").await,
        "3/1186.txt"
    );
    assert_consistent(&engine).await;
}

/// Bodies that are read from at the same time, now and at most.
#[derive(Default)]
struct Open {
    now: AtomicUsize,
    most: AtomicUsize,
}

/// Counts while it lives.
struct Reading(Arc<Open>);

impl Reading {
    fn new(open: &Arc<Open>) -> Self {
        let now = open.now.fetch_add(1, Ordering::SeqCst) + 1;
        open.most.fetch_max(now, Ordering::SeqCst);
        Self(Arc::clone(open))
    }
}

impl Drop for Reading {
    fn drop(&mut self) {
        self.0.now.fetch_sub(1, Ordering::SeqCst);
    }
}

/// A body that counts from the first byte that somebody takes of it on.
fn counted(number: u32, open: &Arc<Open>) -> impl futures::Stream<Item = io::Result<Bytes>> + Send {
    let state = (0, None, Arc::clone(open));
    stream::unfold(state, move |(at, reading, open)| async move {
        if at == 16 {
            return None;
        }
        let reading = reading.unwrap_or_else(|| Reading::new(&open));
        // Nobody ends before as many have begun as may at once.
        while open.most.load(Ordering::SeqCst) < grid_engine::ALONE_MAX {
            tokio::task::yield_now().await;
        }
        let piece = Bytes::from(vec![(number % 251) as u8; 40_000]);
        Some((Ok(piece), (at + 1, Some(reading), open)))
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_hundred_parts_at_once_are_taken_some_at_a_time() {
    let dir = tempfile::tempdir().expect("a folder");
    let world = World::new(dir.path()).await;
    let (engine, ada) = (&world.engine, &world.ada);
    let version = begin(engine, ada, "parts").await;
    let upload = open_one(engine, ada, &version, "large.bin").await;
    let open = Arc::<Open>::default();
    let parts = (1..=200).map(|number| {
        let body = counted(number, &open);
        let announced = Announced::default();
        staging::put_part(engine, ada, &version, upload.id, number, announced, body)
    });
    for kept in futures::future::join_all(parts).await {
        assert_eq!(kept.expect("kept").size_bytes, 640_000);
    }
    let most = open.most.load(Ordering::SeqCst);
    // All that may come do come, and no more.
    assert_eq!(most, grid_engine::ALONE_MAX);
    assert_eq!(open.now.load(Ordering::SeqCst), 0);
}
