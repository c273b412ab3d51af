//! Runs that are asked for before their code is there.

use std::io::Write;

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use futures::stream;
use grid_engine::audit::Trail;
use grid_engine::draft::{self, CODE_AWAITED_MS, Found, State};
use grid_engine::{Error, run, trash};

use crate::world::{World, new};

const DAY_MS: i64 = 24 * 60 * 60 * 1_000;

fn code(name: &str) -> Bytes {
    let mut archive = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_size(1);
    header.set_mode(0o644);
    let added = archive.append_data(&mut header, name, &b"x"[..]);
    added.expect("an entry");
    let mut packer = GzEncoder::new(Vec::new(), Compression::fast());
    let tar = archive.into_inner().expect("an archive");
    packer.write_all(&tar).expect("packed");
    packer.finish().expect("packed").into()
}

async fn send(
    world: &World,
    begun: &(draft::Draft, grid_engine::ticket::Ticket),
) -> Result<(), Error> {
    let trail = Trail::default();
    let (draft, ticket) = begun;
    let upload = draft::upload(&world.engine, &trail, &ticket.text, draft.row.id).await?;
    let body = stream::iter([Ok(code("train.py"))]);
    upload.receive(None, body).await.map(drop)
}

async fn state(world: &World, name: &str) -> State {
    match draft::get(&world.engine, &world.ada, name).await {
        Ok(Found::Draft(draft)) => draft.state,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_server_that_was_killed_still_waits_for_the_code() {
    let dir = tempfile::tempdir().expect("a folder");
    let mut world = World::new(dir.path()).await;
    let begun = draft::create(&world.engine, &world.ada, new("bert", &[])).await;
    let begun = begun.expect("a draft");
    // What an upload in the middle would have left is in the scratch folder only.
    world = world.restart(dir.path()).await;
    world.sync(&[]).await;
    assert_eq!(state(&world, "bert").await, State::Waiting);
    send(&world, &begun).await.expect("a run");
    let made = run::get(&world.engine, &world.ada, "bert")
        .await
        .expect("a run");
    assert_eq!(made.row.id, begun.0.row.id, "the id it was promised");
    assert_eq!(made.row.created_at, begun.0.row.created_at);
    assert!(made.row.snapshot.is_some());
    let again = send(&world, &begun).await;
    assert!(matches!(again, Err(Error::Conflict { .. })), "{again:?}");
    assert_eq!(world.launches(1).await.len(), 1, "it is scheduled");
}

#[tokio::test]
async fn code_that_does_not_come_in_time_is_waited_for_no_longer() {
    let dir = tempfile::tempdir().expect("a folder");
    let world = World::new(dir.path()).await;
    let begun = draft::create(&world.engine, &world.ada, new("late", &[])).await;
    let begun = begun.expect("a draft");
    world.clock.set_wrong_by(CODE_AWAITED_MS + 1_000);
    let State::Failed { reason, .. } = state(&world, "late").await else {
        panic!("its time is over")
    };
    assert!(reason.contains("did not come"), "{reason}");
    let late = send(&world, &begun).await;
    assert!(matches!(late, Err(Error::Forbidden { .. })), "{late:?}");
    // Its name is free: for a run, and for another that waits.
    world.submit("late", &[]).await.expect("a run");
    assert!(
        draft::list(&world.engine, &world.ada)
            .await
            .expect("a list")
            .is_empty()
    );
    let begun = draft::create(&world.engine, &world.ada, new("other", &[])).await;
    begun.expect("a draft");
    let taken = world.submit("other", &[]).await;
    assert!(matches!(taken, Err(Error::Conflict { .. })), "{taken:?}");
    world.clock.set_wrong_by(8 * DAY_MS);
    trash::empty(&world.engine, 7 * DAY_MS)
        .await
        .expect("emptied");
    assert!(
        draft::list(&world.engine, &world.ada)
            .await
            .expect("a list")
            .is_empty()
    );
}

#[tokio::test]
async fn what_can_be_refused_without_the_code_is_refused_at_once() {
    let dir = tempfile::tempdir().expect("a folder");
    let world = World::new(dir.path()).await;
    let mut huge = new("huge", &[]);
    huge.spec.resources.cpus = Some(1_000);
    let refused = draft::create(&world.engine, &world.ada, huge).await;
    assert!(matches!(refused, Err(Error::Invalid { .. })), "{refused:?}");
    world.submit("taken", &[]).await.expect("a run");
    let refused = draft::create(&world.engine, &world.ada, new("taken", &[])).await;
    assert!(
        matches!(refused, Err(Error::Conflict { .. })),
        "{refused:?}"
    );
    assert!(
        draft::list(&world.engine, &world.ada)
            .await
            .expect("a list")
            .is_empty()
    );
}
