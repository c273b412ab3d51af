//! The statements of the hot paths walk indexes (asked of SQLite).

use grid_core::run::{ENDED, OPEN};
use grid_core::workload::{Actor, Event, Status};

use super::place::{a_stored_run, a_team, at, placed, somebody};
use crate::db::event::{self, Record};
use crate::db::run::{Few, Filter};
use crate::db::sql::Columns;
use crate::db::tx::Tx;
use crate::db::{
    Db, Options, Position, Scope, Trash, artifact, audit, key, run, sqlite_url, workload,
};

async fn on_sqlite() -> (tempfile::TempDir, Db) {
    let folder = tempfile::tempdir().unwrap();
    let url = sqlite_url(&folder.path().join("grid.db"));
    (
        folder,
        Db::connect(&url, &Options::default()).await.unwrap(),
    )
}

/// How SQLite goes about the statements of a transaction, a line per step.
async fn plans(db: &Db, asked: &mut Tx) -> String {
    let mut tx = db.read().await.unwrap();
    let mut plans = String::new();
    for statement in std::mem::take(&mut asked.statements) {
        let sql = sqlx::AssertSqlSafe(format!("explain query plan {statement}"));
        for row in &tx.rows("explaining", sql, vec![]).await.unwrap() {
            let mut columns = Columns::of("explaining", row);
            for _ in 0..3 {
                columns.int().unwrap();
            }
            // What an inner statement found is gone through by the outer one.
            let step = columns.str().unwrap();
            if step != "SCAN t" {
                plans.push_str(step);
                plans.push('\n');
            }
        }
    }
    plans
}

/// Whether SQLite goes about what was just asked as it should.
async fn check(db: &Db, asked: &mut Tx, what: &str, wanted: &[&str], unwanted: &[&str]) {
    let plans = plans(db, asked).await;
    for wanted in wanted {
        assert!(
            plans.contains(wanted),
            "{what} does not do '{wanted}':\n{plans}"
        );
    }
    for unwanted in unwanted {
        assert!(
            !plans.contains(unwanted),
            "{what} does '{unwanted}':\n{plans}"
        );
    }
}

#[tokio::test]
async fn lists_of_runs_walk_indexes() {
    let (_folder, db) = on_sqlite().await;
    let who = somebody(&db, "ada").await;
    let (id, _) = a_stored_run(&db, who, "run", 100, 2).await;
    let many: Vec<_> = (0..20).map(|n| a_team(&n.to_string()).id).collect();
    let after = Some(Position { at: at(500), id });
    let one = [who.1];
    let scope = |owner, teams| Filter {
        scope: Scope { owner, teams },
        after,
        ..Filter::default()
    };
    let mut tx = db.read().await.unwrap();
    let sorts = ["USE TEMP B-TREE FOR ORDER BY", "SCAN"];
    for (what, filter, index) in [
        (
            "the list of a creator",
            scope(Some(who.0), None),
            "run_creator_age (creator=? AND created_at>? AND (created_at,id)<(?,?))",
        ),
        (
            "the list of a team",
            scope(None, Some(&one)),
            "run_team_age (team=? AND created_at>? AND (created_at,id)<(?,?))",
        ),
        (
            "the list of many teams",
            scope(None, Some(&many)),
            "run_age (created_at>? AND (created_at,id)<(?,?))",
        ),
        (
            "the list of all",
            scope(None, None),
            "run_age (created_at>? AND (created_at,id)<(?,?))",
        ),
        (
            "the trash",
            Filter {
                trash: Trash::Only,
                ..scope(Some(who.0), None)
            },
            "run_creator_age",
        ),
    ] {
        run::list(&mut tx, &filter, 50).await.unwrap();
        check(&db, &mut tx, what, &[index], &sorts).await;
    }
}

#[tokio::test]
async fn questions_about_runs_walk_indexes() {
    let (_folder, db) = on_sqlite().await;
    let who = somebody(&db, "ada").await;
    let (id, _) = a_stored_run(&db, who, "run", 100, 2).await;
    let mut tx = db.read().await.unwrap();
    let active = Filter {
        statuses: &OPEN,
        scope: Scope {
            owner: None,
            teams: Some(&[who.1]),
        },
        ..Filter::default()
    };
    run::list(&mut tx, &active, 50).await.unwrap();
    let wanted = [
        "SEARCH workload USING COVERING INDEX workload_open_run (run>?)",
        "SEARCH r USING INDEX sqlite_autoindex_run_1 (id=?)",
    ];
    check(
        &db,
        &mut tx,
        "the list of what is active",
        &wanted,
        &["SCAN r"],
    )
    .await;
    run::tallies(&mut tx, &[id]).await.unwrap();
    let wanted =
        ["SEARCH workload USING COVERING INDEX workload_run_status (run=? AND deleted_at=?)"];
    check(&db, &mut tx, "counting", &wanted, &["TEMP B-TREE"]).await;
    run::by_name(&mut tx, who.0, "run", Trash::With)
        .await
        .unwrap();
    check(
        &db,
        &mut tx,
        "looking for a name",
        &["(creator=? AND name=?)"],
        &["SCAN"],
    )
    .await;
}

#[tokio::test]
async fn lists_of_runs_in_a_state_walk_indexes() {
    let (_folder, db) = on_sqlite().await;
    let who = somebody(&db, "ada").await;
    let (id, _) = a_stored_run(&db, who, "run", 100, 2).await;
    let after = Some(Position { at: at(500), id });
    let one = [who.1];
    let none = Few { open: 1, own: 1 };
    let mut tx = db.read().await.unwrap();
    let ended = "SEARCH w USING COVERING INDEX workload_ended \
         (team=? AND status=? AND created_at>? AND (created_at,run)<(?,?))";
    for (owner, few, statuses, wanted) in [
        (None, Few::USUAL, &[Status::Failed][..], &[ended][..]),
        (Some(who.0), none, &[Status::Failed], &[ended]),
        (
            Some(who.0),
            Few::USUAL,
            &[Status::Succeeded],
            &[
                "SEARCH run USING COVERING INDEX run_creator_age (creator=?)",
                "SEARCH r USING INDEX run_creator_age (creator=? AND created_at>?",
                "USING COVERING INDEX workload_run_status (run=? AND deleted_at=? AND status=?)",
            ],
        ),
        (
            None,
            Few::USUAL,
            &[Status::Stopped],
            &[
                ended,
                "SEARCH r USING INDEX run_thinned (team=? AND created_at>?",
            ],
        ),
        (
            None,
            Few::USUAL,
            &ENDED,
            &[
                "SEARCH r USING INDEX run_team_age (team=? AND created_at>?",
                "SEARCH w USING COVERING INDEX workload_open_run (run=? AND deleted_at=?",
            ],
        ),
        (
            None,
            Few::USUAL,
            &[Status::Running],
            &["SEARCH workload USING COVERING INDEX workload_open_run (run>?)"],
        ),
    ] {
        let filter = Filter {
            scope: Scope {
                owner,
                teams: Some(&one),
            },
            statuses,
            after,
            ..Filter::default()
        };
        run::list_where(&mut tx, &filter, 50, few).await.unwrap();
        let what = format!("the list of what is {statuses:?}");
        check(
            &db,
            &mut tx,
            &what,
            wanted,
            &["SCAN r", "SCAN w\n", "SCAN workload\n"],
        )
        .await;
    }
}

#[tokio::test]
async fn what_the_engine_asks_walks_indexes() {
    let (_folder, db) = on_sqlite().await;
    let who = somebody(&db, "ada").await;
    let (id, workloads) = a_stored_run(&db, who, "run", 100, 2).await;
    let mut tx = db.read().await.unwrap();
    workload::open(&mut tx, Some(workloads[0].id), 50)
        .await
        .unwrap();
    let wanted = ["SEARCH workload USING INDEX workload_open (id>?)"];
    check(
        &db,
        &mut tx,
        "reading what is open",
        &wanted,
        &["TEMP B-TREE"],
    )
    .await;
    workload::list_of_run(&mut tx, id, &[], Trash::Without, Some(3), 50)
        .await
        .unwrap();
    let wanted = ["SEARCH w USING INDEX sqlite_autoindex_workload_2 (run=? AND idx>?)"];
    check(
        &db,
        &mut tx,
        "experiments of a run",
        &wanted,
        &["TEMP B-TREE", "SCAN"],
    )
    .await;
    for (scope, index) in [
        (
            Scope {
                owner: Some(who.0),
                teams: None,
            },
            "workload_owner_age (owner=? AND (created_at,id)<(?,?))",
        ),
        (
            Scope {
                owner: None,
                teams: Some(&[who.1]),
            },
            "workload_team_age (team=? AND (created_at,id)<(?,?))",
        ),
    ] {
        let after = Some(Position {
            at: at(500),
            id: workloads[0].id,
        });
        let filter = workload::Filter {
            scope,
            after,
            ..Default::default()
        };
        workload::list(&mut tx, &filter, 50).await.unwrap();
        check(
            &db,
            &mut tx,
            "listing workloads",
            &[index],
            &["TEMP B-TREE", "SCAN"],
        )
        .await;
    }
    event::since(&mut tx, workloads[0].id, 1, 10).await.unwrap();
    let wanted = ["(workload=? AND seq>?)"];
    check(
        &db,
        &mut tx,
        "reading a log",
        &wanted,
        &["TEMP B-TREE", "SCAN"],
    )
    .await;
}

#[tokio::test]
async fn recording_walks_an_index() {
    let (_folder, db) = on_sqlite().await;
    let who = somebody(&db, "ada").await;
    let (_, mut workloads) = a_stored_run(&db, who, "run", 100, 64).await;
    let events = [placed(1), Event::Started { attempt: 1 }];
    for workload in &mut workloads {
        events
            .iter()
            .for_each(|event| workload.apply(event, at(200)));
    }
    let record = |workload| Record {
        workload,
        expected_version: 1,
        events: &events,
        actor: Actor::Engine,
        at: at(200),
    };
    let records: Vec<_> = workloads.iter().map(record).collect();
    let mut tx = db.write().await.unwrap();
    assert_eq!(
        event::record_many(&mut tx, &records).await.unwrap(),
        [true; 64]
    );
    let wanted = ["SEARCH workload USING INDEX sqlite_autoindex_workload_1 (id=?)"];
    check(
        &db,
        &mut tx,
        "recording",
        &wanted,
        &["SCAN workload\n", "SCAN workload USING"],
    )
    .await;
}

#[tokio::test]
async fn other_hot_questions_walk_indexes() {
    let (_folder, db) = on_sqlite().await;
    let who = somebody(&db, "ada").await;
    let (_, workloads) = a_stored_run(&db, who, "run", 100, 1).await;
    let mut tx = db.read().await.unwrap();
    key::by_hash(&mut tx, "hash").await.unwrap();
    check(&db, &mut tx, "signing in", &["(hash=?)"], &["SCAN"]).await;
    artifact::list(&mut tx, workloads[0].id, "out/", Some("out/a"), 50)
        .await
        .unwrap();
    let wanted = ["(workload=? AND path>?)"];
    check(
        &db,
        &mut tx,
        "listing artifacts",
        &wanted,
        &["SCAN", "TEMP B-TREE"],
    )
    .await;
    artifact::blobs_referenced(&mut tx, None, 50).await.unwrap();
    let wanted = ["artifact_blob (blob>?)", "snapshot_blob (manifest_blob>?)"];
    check(
        &db,
        &mut tx,
        "blobs in use",
        &wanted,
        &["USING INDEX artifact_blob\n"],
    )
    .await;
    let filter = audit::Filter {
        team: Some(who.1),
        ..Default::default()
    };
    audit::list(&mut tx, &filter, 50).await.unwrap();
    let wanted = ["audit_team (team=? AND at>? AND (at,id)<(?,?))"];
    check(
        &db,
        &mut tx,
        "the audit log",
        &wanted,
        &["SCAN", "TEMP B-TREE"],
    )
    .await;
}
