//! Artifacts and snapshots.

use grid_core::id::SnapshotId;

use super::conformance;
use super::place::{a_run, a_stored_run, a_workload, at, somebody};
use super::trash::{a_blob, a_snapshot, an_artifact};
use crate::db::artifact::{self, Artifact};
use crate::db::{Db, Error, run, snapshot};
use grid_core::workload::Actor;

conformance!(
    an_artifact_reads_back_and_is_replaced,
    an_earlier_attempt_replaces_nothing,
    artifacts_are_listed_by_path_in_pages,
    artifacts_below_a_folder_are_listed,
    blobs_in_use_are_listed_once,
    a_tree_is_kept_once_per_team,
    a_snapshot_in_use_stays,
);

async fn an_artifact_reads_back_and_is_replaced(db: Db) {
    let who = somebody(&db, "ada").await;
    let (_, workloads) = a_stored_run(&db, who, "run", 50, 2).await;
    let (one, two) = (workloads[0].id, workloads[1].id);
    let path = "out dir/100%/größe 雪 \u{1F600}\n'x'.bin";
    let mut first = an_artifact(one, path, 1);
    first.size_bytes = 10 << 40;
    let other = an_artifact(two, path, 2);
    let mut tx = db.write().await.unwrap();
    artifact::put_many(&mut tx, &[first.clone(), other.clone()])
        .await
        .unwrap();
    assert_eq!(
        artifact::get(&mut tx, one, path).await.unwrap(),
        Some(first.clone())
    );
    assert_eq!(artifact::get(&mut tx, one, "out").await.unwrap(), None);
    let newer = Artifact {
        size_bytes: 5,
        mode: 0o755,
        mtime_ms: 7,
        ..an_artifact(one, path, 3)
    };
    // The last of several with one path wins.
    let between = an_artifact(one, path, 4);
    artifact::put_many(&mut tx, &[between, newer.clone()])
        .await
        .unwrap();
    assert_eq!(
        artifact::get(&mut tx, one, path).await.unwrap(),
        Some(newer)
    );
    assert_eq!(
        artifact::get(&mut tx, two, path).await.unwrap(),
        Some(other)
    );
    assert_eq!(artifact::totals(&mut tx, one).await.unwrap(), (1, 5));
    artifact::put_many(&mut tx, &[]).await.unwrap();
    let missing = artifact::put_many(&mut tx, &[an_artifact(a_workload(1).id, "x", 1)]).await;
    assert!(matches!(missing, Err(Error::Missing { .. })), "{missing:?}");
}

async fn an_earlier_attempt_replaces_nothing(db: Db) {
    let who = somebody(&db, "ada").await;
    let (_, workloads) = a_stored_run(&db, who, "run", 50, 1).await;
    let of = |attempt, blob| Artifact {
        attempt,
        ..an_artifact(workloads[0].id, "model.pt", blob)
    };
    let mut tx = db.write().await.unwrap();
    artifact::put_many(&mut tx, &[of(2, 2), of(1, 1)])
        .await
        .unwrap();
    let kept = artifact::get(&mut tx, workloads[0].id, "model.pt")
        .await
        .unwrap();
    assert_eq!(kept, Some(of(2, 2)));
    artifact::put_many(&mut tx, &[of(1, 1)]).await.unwrap();
    let kept = artifact::get(&mut tx, workloads[0].id, "model.pt")
        .await
        .unwrap();
    assert_eq!(kept, Some(of(2, 2)));
    artifact::put_many(&mut tx, &[of(3, 3)]).await.unwrap();
    let kept = artifact::get(&mut tx, workloads[0].id, "model.pt")
        .await
        .unwrap();
    assert_eq!(kept, Some(of(3, 3)));
}

async fn artifacts_are_listed_by_path_in_pages(db: Db) {
    let who = somebody(&db, "ada").await;
    let (_, workloads) = a_stored_run(&db, who, "run", 50, 2).await;
    // More than one statement takes, and not in order.
    let named = |n: u32| an_artifact(workloads[0].id, &format!("f{:04}", n * 7 % 150), 1);
    let artifacts: Vec<_> = (0..150).map(named).collect();
    let mut tx = db.write().await.unwrap();
    artifact::put_many(&mut tx, &artifacts).await.unwrap();
    artifact::put_many(&mut tx, &[an_artifact(workloads[1].id, "f0007", 1)])
        .await
        .unwrap();
    tx.commit().await.unwrap();
    let mut tx = db.read().await.unwrap();
    for limit in [1, 40, 149, 150, 151] {
        let (mut paths, mut after) = (Vec::new(), None);
        loop {
            let page = artifact::list(&mut tx, workloads[0].id, "", after.as_deref(), limit);
            let page = page.await.unwrap();
            paths.extend(page.items.into_iter().map(|artifact| artifact.path));
            after = page.next;
            if after.is_none() {
                break;
            }
        }
        assert_eq!(
            paths,
            (0..150).map(|n| format!("f{n:04}")).collect::<Vec<_>>()
        );
    }
}

async fn artifacts_below_a_folder_are_listed(db: Db) {
    let who = somebody(&db, "ada").await;
    let (_, workloads) = a_stored_run(&db, who, "run", 50, 1).await;
    let paths = [
        "größe/a",
        "größe/b",
        "größer",
        "out/%_/x",
        "out/a",
        "out/ab",
        "out%",
    ];
    let artifacts: Vec<_> = paths
        .iter()
        .map(|path| an_artifact(workloads[0].id, path, 1))
        .collect();
    let mut tx = db.write().await.unwrap();
    artifact::put_many(&mut tx, &artifacts).await.unwrap();
    let mut below = async |prefix| {
        let page = artifact::list(&mut tx, workloads[0].id, prefix, None, 100)
            .await
            .unwrap();
        let mut paths: Vec<_> = page
            .items
            .into_iter()
            .map(|artifact| artifact.path)
            .collect();
        paths.sort_unstable();
        paths
    };
    assert_eq!(below("größe/").await, ["größe/a", "größe/b"]);
    assert_eq!(below("out/%").await, ["out/%_/x"]);
    assert_eq!(below("out/a").await, ["out/a", "out/ab"]);
    assert_eq!(below("Out").await, Vec::<String>::new());
    assert_eq!(below("").await.len(), paths.len());
}

async fn blobs_in_use_are_listed_once(db: Db) {
    let who = somebody(&db, "ada").await;
    let (_, workloads) = a_stored_run(&db, who, "run", 50, 2).await;
    let mut tx = db.write().await.unwrap();
    let artifacts: Vec<_> = (0..40)
        .map(|n| {
            an_artifact(
                workloads[n % 2].id,
                &format!("f{n}"),
                u8::try_from(n / 2 * 3).unwrap(),
            )
        })
        .collect();
    artifact::put_many(&mut tx, &artifacts).await.unwrap();
    for n in 0..10 {
        snapshot::insert_or_get(&mut tx, &a_snapshot(who, &n.to_string(), n * 2))
            .await
            .unwrap();
    }
    let mut expected: Vec<_> = (0..20)
        .map(|n| a_blob(n * 3))
        .chain((0..10).map(|n| a_blob(n * 2)))
        .collect();
    expected.sort_unstable();
    expected.dedup();
    for limit in [1, 2, 7, 100] {
        let (mut blobs, mut after) = (Vec::new(), None);
        loop {
            let page = artifact::blobs_referenced(&mut tx, after, limit)
                .await
                .unwrap();
            blobs.extend(page.items);
            after = page.next;
            if after.is_none() {
                break;
            }
        }
        assert_eq!(blobs, expected, "{limit}");
    }
}

async fn a_tree_is_kept_once_per_team(db: Db) {
    let (ada, bob) = (somebody(&db, "ada").await, somebody(&db, "bob").await);
    let mut tx = db.write().await.unwrap();
    let first = a_snapshot(ada, "tree", 1);
    assert_eq!(
        snapshot::insert_or_get(&mut tx, &first).await.unwrap(),
        first
    );
    let again = a_snapshot(ada, "tree", 1);
    assert_eq!(
        snapshot::insert_or_get(&mut tx, &again).await.unwrap(),
        first
    );
    let of_bob = a_snapshot(bob, "tree", 1);
    assert_eq!(
        snapshot::insert_or_get(&mut tx, &of_bob).await.unwrap(),
        of_bob
    );
    assert_eq!(
        snapshot::by_id(&mut tx, first.id).await.unwrap(),
        Some(first.clone())
    );
    assert_eq!(snapshot::by_id(&mut tx, again.id).await.unwrap(), None);
    assert_eq!(
        snapshot::by_digest(&mut tx, bob.1, "tree").await.unwrap(),
        Some(of_bob.clone())
    );
    assert_eq!(
        snapshot::by_digest(&mut tx, bob.1, "other").await.unwrap(),
        None
    );
    let mut all = vec![first, of_bob];
    all.sort_by_key(|snapshot| snapshot.id);
    let page = snapshot::all(&mut tx, None, 1).await.unwrap();
    let rest = snapshot::all(&mut tx, page.next, 1).await.unwrap();
    assert_eq!(
        ([page.items, rest.items].concat(), rest.next),
        (all, None::<SnapshotId>)
    );
}

async fn a_snapshot_in_use_stays(db: Db) {
    let who = somebody(&db, "ada").await;
    let (used, unused) = (a_snapshot(who, "used", 1), a_snapshot(who, "unused", 2));
    let mut run = a_run(who, "run", 50);
    run.snapshot = Some(used.id);
    let mut tx = db.write().await.unwrap();
    for snapshot in [&used, &unused] {
        snapshot::insert_or_get(&mut tx, snapshot).await.unwrap();
    }
    run::insert(&mut tx, &run, vec![], Actor::Engine)
        .await
        .unwrap();
    // Not even when the run is in the trash.
    run::set_deleted(&mut tx, run.id, who.0, at(70))
        .await
        .unwrap();
    assert_eq!(
        snapshot::unreferenced(&mut tx, at(61), 10).await.unwrap(),
        std::slice::from_ref(&unused)
    );
    assert_eq!(
        snapshot::unreferenced(&mut tx, at(60), 10).await.unwrap(),
        []
    );
    assert!(!snapshot::remove(&mut tx, used.id).await.unwrap());
    assert!(snapshot::remove(&mut tx, unused.id).await.unwrap());
    assert!(!snapshot::remove(&mut tx, unused.id).await.unwrap());
}
