//! The trash, and emptying it.

use std::collections::BTreeSet;

use grid_core::blob::BlobId;
use grid_core::id::{AttemptId, TeamId, UserId, WorkloadId};
use grid_core::workload::Actor;

use super::conformance;
use super::place::{
    a_run, a_snapshot_id, a_stored_run, at, experiments, failed, finish, somebody, succeeded,
};
use crate::db::artifact::{self, Artifact};
use crate::db::idempotency::{self, Done};
use crate::db::purge::PURGE_WORKLOADS_MAX;
use crate::db::snapshot::{self, Snapshot};
use crate::db::{Db, Deletion, Error, Trash, event, purge, run, workload};

conformance!(
    a_run_goes_to_the_trash_and_comes_back,
    an_experiment_goes_to_the_trash_and_comes_back,
    a_name_taken_meanwhile_keeps_a_run_in_the_trash,
    a_purged_run_takes_everything_along,
    a_large_run_is_purged_in_parts,
    only_what_is_old_finished_and_in_the_trash_is_purged,
);

pub(super) fn a_blob(n: u8) -> BlobId {
    BlobId::from_bytes([n; 32])
}

pub(super) fn an_artifact(workload: WorkloadId, path: &str, blob: u8) -> Artifact {
    Artifact {
        workload,
        path: path.to_owned(),
        blob: a_blob(blob),
        size_bytes: 100,
        mode: 0o644,
        mtime_ms: -5,
        attempt: 1,
        stored_at: at(70),
    }
}

pub(super) fn a_snapshot((user, team): (UserId, TeamId), digest: &str, blob: u8) -> Snapshot {
    Snapshot {
        id: a_snapshot_id(),
        team,
        digest: digest.to_owned(),
        manifest_blob: a_blob(blob),
        files: 12,
        size_bytes: 1 << 40,
        created_by: user,
        created_at: at(60),
    }
}

async fn a_run_goes_to_the_trash_and_comes_back(db: Db) {
    let who = somebody(&db, "ada").await;
    let (id, workloads) = a_stored_run(&db, who, "run", 50, 2).await;
    let mut tx = db.write().await.unwrap();
    assert!(run::set_deleted(&mut tx, id, who.0, at(80)).await.unwrap());
    assert!(!run::set_deleted(&mut tx, id, who.0, at(81)).await.unwrap());
    let deletion = Some(Deletion {
        at: at(80),
        by: who.0,
    });
    assert_eq!(
        run::by_id(&mut tx, id).await.unwrap().unwrap().deleted,
        deletion
    );
    assert_eq!(
        run::by_name(&mut tx, who.0, "run", Trash::Without)
            .await
            .unwrap(),
        None
    );
    let found = run::by_name(&mut tx, who.0, "run", Trash::Only)
        .await
        .unwrap();
    assert_eq!(found.map(|run| run.id), Some(id));
    // Its experiments are in the trash with it, and still counted.
    let stored = workload::get(&mut tx, workloads[0].id)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(stored.deleted, deletion);
    let tallies = run::tallies(&mut tx, &[id]).await.unwrap();
    assert_eq!(tallies[&id].counts.total(), 2);
    assert!(run::restore(&mut tx, id).await.unwrap());
    assert!(!run::restore(&mut tx, id).await.unwrap());
    let stored = workload::get(&mut tx, workloads[0].id)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(stored.deleted, None);
}

async fn an_experiment_goes_to_the_trash_and_comes_back(db: Db) {
    let who = somebody(&db, "ada").await;
    let (id, workloads) = a_stored_run(&db, who, "run", 50, 3).await;
    let one = workloads[1].id;
    let mut tx = db.write().await.unwrap();
    assert!(
        workload::set_deleted(&mut tx, one, who.0, at(70))
            .await
            .unwrap()
    );
    assert!(
        !workload::set_deleted(&mut tx, one, who.0, at(71))
            .await
            .unwrap()
    );
    // The run comes and goes without changing that.
    run::set_deleted(&mut tx, id, who.0, at(80)).await.unwrap();
    run::restore(&mut tx, id).await.unwrap();
    let stored = workload::get(&mut tx, one).await.unwrap().unwrap();
    assert_eq!(
        stored.deleted,
        Some(Deletion {
            at: at(70),
            by: who.0
        })
    );
    let mut numbers = async |trash| {
        let page = workload::list_of_run(&mut tx, id, &[], trash, None, 10)
            .await
            .unwrap();
        page.items
            .into_iter()
            .map(|stored| stored.idx)
            .collect::<Vec<_>>()
    };
    assert_eq!(numbers(Trash::Without).await, [0, 2]);
    assert_eq!(numbers(Trash::Only).await, [1]);
    assert_eq!(numbers(Trash::With).await, [0, 1, 2]);
    assert!(workload::restore(&mut tx, one).await.unwrap());
    assert!(!workload::restore(&mut tx, one).await.unwrap());
    assert!(!workload::restore(&mut tx, workloads[0].id).await.unwrap());
}

async fn a_name_taken_meanwhile_keeps_a_run_in_the_trash(db: Db) {
    let who = somebody(&db, "ada").await;
    let (old, _) = a_stored_run(&db, who, "name", 50, 0).await;
    let mut tx = db.write().await.unwrap();
    run::set_deleted(&mut tx, old, who.0, at(60)).await.unwrap();
    tx.commit().await.unwrap();
    let (new, _) = a_stored_run(&db, who, "name", 70, 0).await;
    let mut tx = db.write().await.unwrap();
    let found = run::by_name(&mut tx, who.0, "name", Trash::With)
        .await
        .unwrap();
    assert_eq!(found.map(|run| run.id), Some(new));
    let taken = run::restore(&mut tx, old).await;
    assert!(
        matches!(
            taken,
            Err(Error::Conflict {
                what: "this run name"
            })
        ),
        "{taken:?}"
    );
}

async fn a_purged_run_takes_everything_along(db: Db) {
    let who = somebody(&db, "ada").await;
    let tree = a_snapshot(who, "tree", 9);
    let mut run = a_run(who, "run", 50);
    run.snapshot = Some(tree.id);
    let new = experiments(2, 50);
    let mut workloads: Vec<_> = new.iter().map(|new| new.workload.clone()).collect();
    let (_, mut kept) = a_stored_run(&db, who, "kept", 51, 1).await;
    let mut tx = db.write().await.unwrap();
    snapshot::insert_or_get(&mut tx, &tree).await.unwrap();
    run::insert(&mut tx, &run, new, Actor::Engine)
        .await
        .unwrap();
    let done = Done {
        run: run.id,
        body_hash: "h".to_owned(),
        created_at: at(50),
    };
    idempotency::put(&mut tx, who.0, "key", &done)
        .await
        .unwrap();
    let artifacts = [
        an_artifact(workloads[0].id, "a", 1),
        an_artifact(workloads[0].id, "b", 2),
        an_artifact(workloads[1].id, "a", 1),
        an_artifact(workloads[1].id, "shared", 3),
        an_artifact(workloads[1].id, "a manifest", 9),
        an_artifact(kept[0].id, "shared", 3),
    ];
    artifact::put_many(&mut tx, &artifacts).await.unwrap();
    tx.commit().await.unwrap();
    finish(&db, &mut workloads[0], failed()).await;
    finish(&db, &mut kept[0], succeeded()).await;

    let mut tx = db.write().await.unwrap();
    // Not in the trash: nothing happens.
    let nothing = purge::run(&mut tx, run.id).await.unwrap();
    assert_eq!(
        (nothing.attempts, nothing.blobs, nothing.done),
        (vec![], vec![], true)
    );
    run::set_deleted(&mut tx, run.id, who.0, at(80))
        .await
        .unwrap();
    let purged = purge::run(&mut tx, run.id).await.unwrap();
    tx.commit().await.unwrap();
    assert!(purged.done);
    assert_eq!(
        purged.attempts,
        [AttemptId {
            workload: workloads[0].id,
            number: 1
        }]
    );
    assert_eq!(purged.blobs, [a_blob(1), a_blob(2)]);

    let mut tx = db.write().await.unwrap();
    assert!(run::by_id(&mut tx, run.id).await.unwrap().is_none());
    assert!(
        idempotency::get(&mut tx, who.0, "key")
            .await
            .unwrap()
            .is_none()
    );
    for id in workloads.iter().map(|workload| workload.id) {
        assert!(workload::get(&mut tx, id).await.unwrap().is_none());
        assert!(event::of_workload(&mut tx, id).await.unwrap().is_empty());
        assert_eq!(artifact::totals(&mut tx, id).await.unwrap(), (0, 0));
    }
    assert!(workload::get(&mut tx, kept[0].id).await.unwrap().is_some());
    assert_eq!(
        artifact::totals(&mut tx, kept[0].id).await.unwrap(),
        (1, 100)
    );
    // Nothing uses the source any more.
    let unused = snapshot::unreferenced(&mut tx, at(1000), 10).await.unwrap();
    assert_eq!(unused, [tree]);
}

async fn a_large_run_is_purged_in_parts(db: Db) {
    let who = somebody(&db, "ada").await;
    let n = 2 * PURGE_WORKLOADS_MAX + 1;
    let (id, workloads) = a_stored_run(&db, who, "run", 50, n).await;
    let mut tx = db.write().await.unwrap();
    let named =
        |(n, path): (usize, &str)| an_artifact(workloads[n].id, path, u8::try_from(n).unwrap());
    let artifacts: Vec<_> = (0..workloads.len()).map(|n| (n, "a")).map(named).collect();
    artifact::put_many(&mut tx, &artifacts).await.unwrap();
    run::set_deleted(&mut tx, id, who.0, at(80)).await.unwrap();
    tx.commit().await.unwrap();
    let (mut blobs, mut parts) = (BTreeSet::new(), 0);
    loop {
        let mut tx = db.write().await.unwrap();
        let purged = purge::run(&mut tx, id).await.unwrap();
        let left = workload::all_ids(&mut tx, None, 1000)
            .await
            .unwrap()
            .items
            .len();
        tx.commit().await.unwrap();
        parts += 1;
        assert_eq!(
            left,
            workloads
                .len()
                .saturating_sub(parts * PURGE_WORKLOADS_MAX as usize)
        );
        blobs.extend(purged.blobs);
        if purged.done {
            break;
        }
    }
    assert_eq!((parts, blobs.len()), (3, workloads.len()));
    let mut tx = db.read().await.unwrap();
    assert_eq!(run::by_id(&mut tx, id).await.unwrap(), None);
}

async fn only_what_is_old_finished_and_in_the_trash_is_purged(db: Db) {
    let who = somebody(&db, "ada").await;
    let (old, mut of_old) = a_stored_run(&db, who, "old", 50, 1).await;
    let (young, mut of_young) = a_stored_run(&db, who, "young", 51, 1).await;
    let (open, _) = a_stored_run(&db, who, "open", 52, 1).await;
    let (kept, mut of_kept) = a_stored_run(&db, who, "kept", 53, 4).await;
    for workload in of_old
        .iter_mut()
        .chain(&mut of_young)
        .chain(&mut of_kept[..3])
    {
        finish(&db, workload, succeeded()).await;
    }
    let mut tx = db.write().await.unwrap();
    for (run, deleted) in [(old, 100), (young, 200), (open, 100)] {
        run::set_deleted(&mut tx, run, who.0, at(deleted))
            .await
            .unwrap();
    }
    for (workload, deleted) in of_kept.iter().zip([100, 200, 300, 100]) {
        if deleted < 300 {
            workload::set_deleted(&mut tx, workload.id, who.0, at(deleted))
                .await
                .unwrap();
        }
    }
    tx.commit().await.unwrap();
    let mut tx = db.write().await.unwrap();
    assert_eq!(purge::runs(&mut tx, at(150), 10).await.unwrap(), [old]);
    assert_eq!(
        purge::runs(&mut tx, at(201), 10).await.unwrap(),
        [old, young]
    );
    assert_eq!(purge::runs(&mut tx, at(201), 1).await.unwrap(), [old]);
    assert_eq!(
        purge::workloads(&mut tx, at(150), 10).await.unwrap(),
        [of_kept[0].id]
    );
    let single = [of_kept[0].id, of_kept[2].id];
    let purged = purge::single(&mut tx, &single).await.unwrap();
    assert!(purged.done);
    assert_eq!(
        purged.attempts,
        [AttemptId {
            workload: of_kept[0].id,
            number: 1
        }]
    );
    let page = workload::list_of_run(&mut tx, kept, &[], Trash::With, None, 10)
        .await
        .unwrap();
    assert_eq!(
        page.items
            .iter()
            .map(|stored| stored.idx)
            .collect::<Vec<_>>(),
        [1, 2, 3]
    );
}
