//! Databases to test on, and what is in them.

use std::sync::atomic::{AtomicU64, Ordering};

use grid_core::cluster::Placement;
use grid_core::id::{RunId, SnapshotId, TeamId, UserId, WorkloadId};
use grid_core::team::{Role, TeamPolicy};
use grid_core::time::Timestamp;
use grid_core::workload::{
    Actor, Attempt, Event, Kind, Outcome, Policy, Reason, ReasonCode, State, Workload,
};
use sqlx::{AnyConnection, AssertSqlSafe, Connection};

use crate::db::event::Record;
use crate::db::run::{NewExperiment, Run};
use crate::db::team::Team;
use crate::db::user::User;
use crate::db::{Db, Options, event, run, sqlite_url, team, user};

/// Runs a test on a new SQLite file.
pub(super) async fn on_sqlite<F: Future<Output = ()>>(test: impl FnOnce(Db) -> F) {
    let folder = tempfile::tempdir().unwrap();
    let url = sqlite_url(&folder.path().join("grid %41?#.db"));
    let db = Db::connect(&url, &Options::default()).await.unwrap();
    test(db.clone()).await;
    db.close().await;
}

/// Runs a test on a new PostgreSQL database, if there is a server.
pub(super) async fn on_postgres<F>(test: fn(Db) -> F)
where
    F: Future<Output = ()> + Send + 'static,
{
    let Ok(server) = std::env::var("GRID_TEST_POSTGRES") else {
        return;
    };
    sqlx::any::install_default_drivers();
    let name = format!("grid_test_{}_{}", std::process::id(), entropy());
    let mut admin = AnyConnection::connect(&server).await.unwrap();
    let statement = AssertSqlSafe(format!("create database {name}"));
    sqlx::raw_sql(statement).execute(&mut admin).await.unwrap();
    let (address, _) = server.rsplit_once('/').unwrap();
    let options = Options {
        connections_max: Some(8),
        ..Options::default()
    };
    let db = Db::connect(&format!("{address}/{name}"), &options)
        .await
        .unwrap();
    // As a task, so that the database goes also when the test fails.
    let outcome = tokio::spawn(test(db.clone())).await;
    let statement = AssertSqlSafe(format!("drop database {name} with (force)"));
    sqlx::raw_sql(statement).execute(&mut admin).await.unwrap();
    outcome.unwrap();
}

/// Entropy enough for ids that differ.
pub(super) fn entropy() -> u128 {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    NEXT.fetch_add(1, Ordering::Relaxed).into()
}

pub(super) fn at(millis: i64) -> Timestamp {
    Timestamp::from_millis(millis)
}

pub(super) fn a_user(username: &str) -> User {
    User {
        id: UserId::from_entropy(entropy()),
        username: username.to_owned(),
        email: format!("{username}@Example.org"),
        first_name: "Ada".to_owned(),
        last_name: "Löve-雪".to_owned(),
        operator: false,
        current_team: None,
        created_at: at(5),
        disabled_at: None,
        service_team: None,
    }
}

pub(super) fn a_team(name: &str) -> Team {
    Team {
        id: TeamId::from_parts(at(7), entropy()),
        name: name.to_owned(),
        personal: false,
        policy: TeamPolicy::default(),
        created_at: at(7),
    }
}

/// Somebody in a team, both in the database.
pub(super) async fn somebody(db: &Db, name: &str) -> (UserId, TeamId) {
    let (user, team) = (a_user(name), a_team(name));
    let mut tx = db.write().await.unwrap();
    user::insert(&mut tx, &user).await.unwrap();
    team::insert(&mut tx, &team).await.unwrap();
    team::set_role(&mut tx, team.id, user.id, Role::Owner, at(8))
        .await
        .unwrap();
    tx.commit().await.unwrap();
    (user.id, team.id)
}

pub(super) fn a_run((creator, team): (UserId, TeamId), name: &str, made: i64) -> Run {
    Run {
        id: RunId::from_parts(at(made), entropy()),
        team,
        creator,
        name: name.to_owned(),
        created_at: at(made),
        spec: "{\"command\":[\"train.py\"]}".to_owned(),
        seed: "17".to_owned(),
        invocation: "grid run train.py --lr '[0.1, 0.2]'".to_owned(),
        project: Some("größe".to_owned()),
        snapshot: None,
        cloned_from: None,
        experiments: 0,
        deleted: None,
    }
}

pub(super) fn a_workload(made: i64) -> Workload {
    let policy = Policy {
        losses_max: 3,
        retries: 0,
        auto_resume: false,
    };
    let created = Event::Created {
        workload: Kind::Experiment,
        policy,
    };
    Workload::created(
        WorkloadId::from_parts(at(made), entropy()),
        &created,
        at(made),
    )
}

pub(super) fn experiments(n: u32, made: i64) -> Vec<NewExperiment> {
    let new = |idx: u32| NewExperiment {
        workload: a_workload(made),
        params: vec![
            ("lr".to_owned(), format!("0.{idx}")),
            ("名".to_owned(), "é\u{0301}".to_owned()),
        ],
        args: vec!["--lr".to_owned(), format!("0.{idx}")],
    };
    (0..n).map(new).collect()
}

/// A run with experiments, in the database.
pub(super) async fn a_stored_run(
    db: &Db,
    who: (UserId, TeamId),
    name: &str,
    made: i64,
    n: u32,
) -> (RunId, Vec<Workload>) {
    let run = Run {
        experiments: n,
        ..a_run(who, name, made)
    };
    let new = experiments(n, made);
    let workloads = new.iter().map(|new| new.workload.clone()).collect();
    let mut tx = db.write().await.unwrap();
    run::insert(&mut tx, &run, new, Actor::User(who.0))
        .await
        .unwrap();
    tx.commit().await.unwrap();
    (run.id, workloads)
}

pub(super) fn placed(number: u32) -> Event {
    let placement = Placement {
        node: "local".parse().unwrap(),
        cpus: 1,
        gpus: vec![0, 3],
        memory_bytes: 1 << 30,
    };
    Event::Placed {
        attempt: Attempt { number, placement },
    }
}

pub(super) fn failed() -> Event {
    let reason = Reason {
        code: ReasonCode::ExitCode,
        message: "ended with exit code 3: 'ß' \u{1F600}".to_owned(),
        exit_code: Some(3),
    };
    Event::Finished {
        outcome: Outcome::Failed { reason },
    }
}

pub(super) fn succeeded() -> Event {
    Event::Finished {
        outcome: Outcome::Succeeded,
    }
}

/// Applies events to a workload and records them.
pub(super) async fn happen(db: &Db, workload: &mut Workload, version: &mut u64, events: &[Event]) {
    let now = at(1000 + i64::try_from(*version).unwrap());
    for event in events {
        workload.apply(event, now);
    }
    let record = Record {
        workload,
        expected_version: *version,
        events,
        actor: Actor::Engine,
        at: now,
    };
    let mut tx = db.write().await.unwrap();
    assert_eq!(
        event::record_many(&mut tx, &[record]).await.unwrap(),
        [true]
    );
    tx.commit().await.unwrap();
    *version += events.len() as u64;
}

/// Places, starts and ends a new workload.
pub(super) async fn finish(db: &Db, workload: &mut Workload, end: Event) {
    let mut version = 1;
    let events = [placed(1), Event::Started { attempt: 1 }, end];
    happen(db, workload, &mut version, &events).await;
    assert!(matches!(workload.state, State::Finished { .. }));
}

pub(super) fn a_snapshot_id() -> SnapshotId {
    SnapshotId::from_parts(at(1), entropy())
}
