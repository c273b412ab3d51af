//! Who may not know of a thing is told that there is none.

use grid_core::spec::Source;
use grid_core::team::Role;
use grid_engine::run::NewRun;
use grid_engine::{Error, run, snapshot, user};

use crate::world::{World, new};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_outsider_is_told_that_there_is_nothing() {
    let dir = tempfile::tempdir().expect("a folder");
    let world = World::new(dir.path()).await;
    world.submit("private", &[]).await.expect("a run");
    let bob = user::NewUser {
        username: "bob".to_owned(),
        ..user::NewUser::default()
    };
    let bob = user::create(&world.engine, &world.ada, &bob)
        .await
        .expect("bob");
    let bob = user::authenticate(&world.engine, None, &bob.api_key)
        .await
        .expect("his key");
    let of = |result: Result<run::Run, Error>| result.err().map(|e| e.to_string());
    let theirs = of(run::get(&world.engine, &bob, "ada:private").await);
    let nothing = of(run::get(&world.engine, &bob, "ada:nothing1").await);
    assert_eq!(
        theirs.map(|e| e.replace("private", "X")),
        nothing.map(|e| e.replace("nothing1", "X"))
    );
    assert!(
        user::create(&world.engine, &bob, &user::NewUser::default())
            .await
            .is_err()
    );
    assert!(run::stop(&world.engine, &bob, "ada:private").await.is_err());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_learns_who_has_an_account_here() {
    let dir = tempfile::tempdir().expect("a folder");
    let world = World::new(dir.path()).await;
    let (bob, bobs_key) = world.user("bob").await;
    let (carol, carols_key) = world.user("carol").await;
    let members = [(&bob, Role::Member), (&carol, Role::Member)];
    world.team(dir.path(), "lab", &members).await;
    let (bob, carol) = (
        world.sign_in(&bobs_key).await,
        world.sign_in(&carols_key).await,
    );
    let carols = NewRun {
        team: Some("lab".to_owned()),
        ..new("bert", &[])
    };
    run::create(&world.engine, &carol, carols)
        .await
        .expect("her run");
    let answer = async |name: &str| match run::get(&world.engine, &bob, name).await {
        Err(Error::NotFound { what, hint }) => (what, hint),
        other => panic!("{other:?}"),
    };
    let (what, hint) = answer("ada:bert").await;
    assert_eq!(hint.as_deref(), Some("did you mean carol:bert?"));
    assert_eq!(answer("eve:bert").await, (what.replace("ada", "eve"), hint));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn code_goes_where_its_owner_may_run_it_and_nowhere_else() {
    let dir = tempfile::tempdir().expect("a folder");
    let world = World::new(dir.path()).await;
    let (bob, bobs_key) = world.user("bob").await;
    world.team(dir.path(), "lab", &[(&bob, Role::Member)]).await;
    let bob = world.sign_in(&bobs_key).await;
    // Taken before a team was chosen.
    let taken = snapshot::create(&world.engine, &bob, vec![]).await;
    let Ok(snapshot::Outcome::Taken(id)) = taken else {
        panic!("{taken:?}");
    };
    let of = |team: Option<&str>| {
        let mut wanted = new("mine", &[]);
        wanted.spec.source = Source::Snapshot { id, git: None };
        wanted.team = team.map(str::to_owned);
        wanted
    };
    let run = run::create(&world.engine, &bob, of(Some("lab"))).await;
    assert_eq!(run.expect("a run of the lab").run.team, "lab");
    let stolen = run::create(&world.engine, &world.ada, of(None)).await;
    assert!(matches!(stolen, Err(Error::NotFound { .. })), "{stolen:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_only_reads_does_not_wait_for_those_who_write() {
    let dir = tempfile::tempdir().expect("a folder");
    let world = World::new(dir.path()).await;
    let (_, key) = world.user("bob").await;
    let url = grid_store::db::sqlite_url(&dir.path().join("grid.db"));
    let db = grid_store::db::Db::connect(&url, &grid_store::db::Options::default())
        .await
        .expect("the database");
    world.clock.set_wrong_by(3_600_000);
    let busy = db.write().await.expect("somebody writes for long");
    let bob = user::authenticate(&world.engine, None, &key).await;
    assert!(bob.is_ok(), "{:?}", bob.err());
    drop(busy);
}

/// A tree of `n` small files; the first `changed` of them are not like before.
fn tree(n: u32, changed: u32) -> (Vec<grid_api::snapshot::TreeEntry>, Vec<u8>) {
    let (mut entries, mut records) = (Vec::new(), Vec::new());
    for file in 0..n {
        let text = format!("file {file}, {}", file < changed);
        let hash = blake3::hash(text.as_bytes());
        let head = grid_api::blob::header(hash.as_bytes(), text.len() as u64);
        records.extend_from_slice(&head);
        records.extend_from_slice(text.as_bytes());
        entries.push(grid_api::snapshot::TreeEntry {
            path: format!("f{file:05}"),
            kind: grid_api::snapshot::TreeKind::File,
            mode: 0o644,
            size_bytes: text.len() as u64,
            content: hash.to_hex().to_string(),
        });
    }
    (entries, records)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unchanged_tree_costs_one_question() {
    const FILES: u32 = 1_000;
    let dir = tempfile::tempdir().expect("a folder");
    let world = World::new(dir.path()).await;
    let (_, bobs_key) = world.user("bob").await;
    let bob = world.sign_in(&bobs_key).await;
    let send = async |caller, (entries, records): (Vec<_>, Vec<u8>)| {
        let mut upload = grid_engine::blob::Upload::by(&world.engine, caller)
            .await
            .expect("a place");
        upload.push(records.into()).await.expect("stored");
        upload.finish(false).await.expect("whole");
        let taken = snapshot::create(&world.engine, caller, entries);
        let (taken, statements) = grid_store::db::counted(taken).await;
        let Ok(snapshot::Outcome::Taken(id)) = taken else {
            panic!("{taken:?}");
        };
        (id, statements)
    };
    let ask = async |caller, entries| {
        let taken = snapshot::create(&world.engine, caller, entries);
        grid_store::db::counted(taken).await
    };
    let (ada, all) = (&world.ada, || tree(FILES, 0));
    let (first, _) = send(ada, all()).await;
    // The same tree again: which one it is, and nothing else.
    let (again, statements) = ask(ada, all().0).await;
    assert_eq!(statements, 1);
    assert!(matches!(again, Ok(snapshot::Outcome::Taken(id)) if id == first));
    // One file has changed: one question for each 256 files, and only that file is missing.
    let (lacks, statements) = ask(ada, tree(FILES, 1).0).await;
    assert!(
        statements <= 1 + u64::from(FILES.div_ceil(256)),
        "{statements}"
    );
    assert!(matches!(lacks, Ok(snapshot::Outcome::Missing(lacks)) if lacks.len() == 1));
    // For somebody else it is as if nothing of it were there.
    let (lacks, _) = ask(&bob, all().0).await;
    let n = FILES as usize;
    assert!(matches!(lacks, Ok(snapshot::Outcome::Missing(lacks)) if lacks.len() == n));
    let (theirs, _) = send(&bob, all()).await;
    assert_ne!(first, theirs);
}
