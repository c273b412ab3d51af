//! The engine with a real database, and a runner played by the test.

use std::sync::Arc;

use grid_api::runner::{Have, Orders, Phase, Sync};
use grid_core::cluster::Node;
use grid_core::id::{AttemptId, NodeId};
use grid_core::spec::{RunSpec, Source};
use grid_core::workload::{End, Reason, ReasonCode, Status};
use grid_engine::run::{Filter, NewRun};
use grid_engine::{
    Caller, Engine, Error, Parts, SystemClock, doctor, experiment, run, runner, trash, user,
};
use grid_executor::{Hub, ProcessExecutor, ProcessOptions};
use grid_store::blobs::{Blobs, Settings};
use grid_store::db::{Db, Options, sqlite_url};
use grid_store::logs::LogStore;

/// An engine on a folder, its operator, and a runner that the test plays.
struct World {
    engine: Engine,
    ada: Caller,
    seq: u64,
    loops: tokio::task::JoinHandle<()>,
}

async fn engine(dir: &std::path::Path) -> Engine {
    let hub = Hub::new();
    let options = ProcessOptions {
        dir: dir.join("runner"),
        url: "http://127.0.0.1:1".to_owned(),
        token: "unused".to_owned(),
        node: node(),
        sandbox: "off".to_owned(),
        cpus: None,
        gpus: None,
        ca_file: None,
        hide: vec![],
    };
    let url = sqlite_url(&dir.join("grid.db"));
    Engine::open(Parts {
        db: Db::connect(&url, &Options::default())
            .await
            .expect("a database"),
        logs: LogStore::open(&dir.join("logs")).expect("a folder"),
        blobs: Blobs::open(
            &dir.join("blobs"),
            Settings::new(|| grid_core::time::Timestamp::from_millis(0)),
        )
        .expect("a folder"),
        executor: Arc::new(ProcessExecutor::new(hub.clone(), options).expect("a folder")),
        hub,
        clock: Arc::new(SystemClock),
        secret: [1; 32],
        scratch: dir.join("tmp"),
        cluster: "local".to_owned(),
    })
    .await
    .expect("an engine")
}

fn node() -> NodeId {
    "local".parse().expect("a name")
}

impl World {
    async fn new(dir: &std::path::Path) -> Self {
        let engine = engine(dir).await;
        let ada = user::create_first(&engine, "ada")
            .await
            .expect("a database")
            .expect("the first user");
        let ada = user::authenticate(&engine, None, &ada.api_key)
            .await
            .expect("her key");
        let mut world = Self::with(engine, ada);
        // The runner speaks first: what fits is known from then on.
        world.sync(&[]).await;
        world
    }

    fn with(engine: Engine, ada: Caller) -> Self {
        let turning = engine.clone();
        let loops = tokio::spawn(async move { turning.run().await });
        Self {
            engine,
            ada,
            seq: 0,
            loops,
        }
    }

    /// The server goes away and comes back.
    async fn restart(self, dir: &std::path::Path) -> Self {
        self.loops.abort();
        let ada = self.ada.clone();
        drop(self);
        Self::with(engine(dir).await, ada)
    }

    /// One word of the runner; answers with the next orders, waiting a little for them.
    async fn sync(&mut self, have: &[(AttemptId, Phase)]) -> Orders {
        self.seq += 1;
        let have = have
            .iter()
            .map(|(attempt, phase)| Have {
                attempt: *attempt,
                phase: phase.clone(),
                note: None,
                logs: vec![],
                artifacts: vec![],
            })
            .collect();
        let sync = Sync {
            node: Node {
                id: node(),
                cpus: 2,
                gpus: 0,
                memory_bytes: 4 << 30,
            },
            warnings: vec![],
            tools: vec![],
            have,
            wait_ms: 300,
            seq: self.seq,
            epoch: 1,
            awaiting: vec![],
        };
        runner::sync(&self.engine, &node(), sync)
            .await
            .expect("a word is heard")
    }

    /// Speaks until `count` launches have been ordered.
    async fn launches(&mut self, count: usize) -> Vec<grid_api::runner::Launch> {
        let mut launched = Vec::new();
        for _ in 0..50 {
            launched.extend(self.sync(&[]).await.launch);
            if launched.len() >= count {
                return launched;
            }
        }
        panic!("only {} of {count} were launched", launched.len());
    }

    async fn submit(&self, name: &str, args: &[&str]) -> Result<run::Created, Error> {
        run::create(&self.engine, &self.ada, new(name, args)).await
    }

    async fn status(&self, name: &str) -> Status {
        let run = run::get(&self.engine, &self.ada, name)
            .await
            .expect("the run");
        grid_core::run::status(&run.counts)
    }

    async fn assert_consistent(&self) {
        let report = doctor::examine(&self.engine, true)
            .await
            .expect("an examination");
        assert_eq!(report.findings, Vec::<String>::new());
    }
}

fn new(name: &str, args: &[&str]) -> NewRun {
    let mut command = vec!["true".to_owned()];
    command.extend(args.iter().map(|arg| (*arg).to_owned()));
    NewRun {
        name: Some(name.to_owned()),
        team: None,
        spec: RunSpec {
            command,
            params: vec![],
            sweep: grid_core::sweep::SweepSpec::default(),
            source: Source::Nothing,
            workdir: String::new(),
            environment: grid_core::spec::EnvironmentSpec::default(),
            resources: grid_core::spec::Resources::default(),
            actions: grid_core::spec::Actions::default(),
            auto_resume: false,
            retries: 0,
            max_duration_ms: None,
        },
        invocation: "grid run true".to_owned(),
        project: None,
        cloned_from: None,
        dry_run: false,
        idempotency_key: None,
    }
}

fn ended(end: End) -> Phase {
    Phase::Ended { end }
}

fn failed() -> Phase {
    let reason = Reason {
        code: ReasonCode::ExitCode,
        message: "exit code 3".to_owned(),
        exit_code: Some(3),
    };
    ended(End::Failed { reason })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sweep_runs_to_its_end() {
    let dir = tempfile::tempdir().expect("a folder");
    let mut world = World::new(dir.path()).await;
    let created = world
        .submit("sweep", &["--lr", "[1,2,3]"])
        .await
        .expect("a run");
    assert_eq!(created.experiments.len(), 3);
    let first = world.launches(2).await;
    assert_eq!(
        first.len(),
        2,
        "two CPUs run two experiments of one CPU each"
    );
    assert_eq!(first[0].args, ["--lr", "1"]);
    let third = experiment::get(&world.engine, &world.ada, "sweep-exp2")
        .await
        .expect("it waits");
    assert_eq!(third.message.as_deref(), Some("waiting for 1 CPU"));

    let (a, b) = (first[0].attempt, first[1].attempt);
    let orders = world
        .sync(&[(a, ended(End::Succeeded)), (b, Phase::Running)])
        .await;
    let mut orders = vec![orders];
    while orders.iter().all(|o| o.launch.is_empty()) || orders.iter().all(|o| o.forget.is_empty()) {
        orders.push(
            world
                .sync(&[(a, ended(End::Succeeded)), (b, Phase::Running)])
                .await,
        );
    }
    let c = orders
        .iter()
        .flat_map(|o| &o.launch)
        .next()
        .expect("the third")
        .attempt;
    assert_eq!(world.status("sweep").await, Status::Running);
    world
        .sync(&[(b, failed()), (c, ended(End::Succeeded))])
        .await;
    assert_eq!(world.status("sweep").await, Status::Failed);
    let b = experiment::get(&world.engine, &world.ada, "sweep-exp1")
        .await
        .expect("the failed one");
    assert_eq!(b.message.as_deref(), Some("exit code 3"));

    let (_, changed) = run::retry(&world.engine, &world.ada, "sweep", true)
        .await
        .expect("a retry");
    assert_eq!(changed, 1);
    let again = world.launches(1).await;
    assert_eq!(
        (again.len(), again[0].attempt.number),
        (1, 2),
        "the failed one, as its second attempt"
    );
    world
        .sync(&[(again[0].attempt, ended(End::Succeeded))])
        .await;
    assert_eq!(world.status("sweep").await, Status::Succeeded);
    assert!(
        run::retry(&world.engine, &world.ada, "sweep", false)
            .await
            .is_err(),
        "nothing is left to retry"
    );
    world.assert_consistent().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restarted_server_finds_what_runs() {
    let dir = tempfile::tempdir().expect("a folder");
    let mut world = World::new(dir.path()).await;
    world
        .submit("long", &["--n", "[1,2]"])
        .await
        .expect("a run");
    let launched = world.launches(2).await;
    let have: Vec<_> = launched
        .iter()
        .map(|launch| (launch.attempt, Phase::Running))
        .collect();
    world.sync(&have).await;
    let mut world = world.restart(dir.path()).await;
    let orders = world.sync(&have).await;
    assert_eq!(
        orders,
        Orders::default(),
        "nothing is started again or stopped"
    );
    assert_eq!(world.status("long").await, Status::Running);
    // One is gone with its runner: it is lost, and tried again.
    let orders = world.sync(&have[..1]).await;
    let orders = if orders.launch.is_empty() {
        world.sync(&have[..1]).await
    } else {
        orders
    };
    assert_eq!(orders.launch.len(), 1);
    assert_eq!(
        orders.launch[0].attempt,
        AttemptId {
            number: 2,
            ..have[1].0
        }
    );
    world.assert_consistent().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_ordered_and_lost_is_ordered_again() {
    let dir = tempfile::tempdir().expect("a folder");
    let mut world = World::new(dir.path()).await;
    world.submit("once", &[]).await.expect("a run");
    let first = world.launches(1).await;
    assert_eq!(first.len(), 1);
    // The answer was lost: the runner goes on speaking without the attempt.
    for _ in 0..20 {
        let again = world.sync(&[]).await.launch;
        if !again.is_empty() {
            assert_eq!(again, first);
            return;
        }
    }
    panic!("the launch was never repeated");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stopping_deleting_restoring_and_emptying() {
    let dir = tempfile::tempdir().expect("a folder");
    let mut world = World::new(dir.path()).await;
    world
        .submit("doomed", &["--n", "[1,2,3,4]"])
        .await
        .expect("a run");
    let launched = world.launches(2).await;
    let have: Vec<_> = launched
        .iter()
        .map(|launch| (launch.attempt, Phase::Running))
        .collect();
    world.sync(&have).await;
    let (run, changed) = run::stop(&world.engine, &world.ada, "doomed")
        .await
        .expect("a stop");
    assert_eq!(
        (changed, run.counts.stopped, run.counts.stopping),
        (4, 2, 2)
    );
    let stops = world.sync(&have).await.stop;
    assert_eq!(stops.len(), 2);
    assert!(stops.iter().all(|stop| stop.keep && stop.grace_ms > 0));
    let over: Vec<_> = have
        .iter()
        .map(|(attempt, _)| (*attempt, ended(End::Stopped)))
        .collect();
    world.sync(&over).await;
    assert_eq!(world.status("doomed").await, Status::Stopped);

    run::delete(&world.engine, &world.ada, "doomed")
        .await
        .expect("into the trash");
    let shown = run::list(
        &world.engine,
        &world.ada,
        &Filter {
            limit: 10,
            ..Filter::default()
        },
    )
    .await
    .expect("a list");
    assert!(shown.items.is_empty());
    let trash_list = Filter {
        limit: 10,
        deleted: true,
        ..Filter::default()
    };
    let shown = run::list(&world.engine, &world.ada, &trash_list)
        .await
        .expect("the trash");
    assert_eq!(shown.items.len(), 1);
    run::restore(&world.engine, &world.ada, "doomed")
        .await
        .expect("out of it");
    assert_eq!(world.status("doomed").await, Status::Stopped);

    run::delete(&world.engine, &world.ada, "doomed")
        .await
        .expect("into the trash again");
    let emptied = trash::empty(&world.engine, -1_000).await.expect("emptied");
    assert_eq!(emptied.things, 1);
    assert!(matches!(
        run::get(&world.engine, &world.ada, "doomed").await,
        Err(Error::NotFound { .. })
    ));
    world.assert_consistent().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_is_refused_before_anything_is_made() {
    let dir = tempfile::tempdir().expect("a folder");
    let world = World::new(dir.path()).await;
    world.submit("taken", &[]).await.expect("a run");
    let refused = [
        world.submit("taken", &[]).await,
        world.submit("Not A Name", &[]).await,
        world.submit("x-exp1", &[]).await,
        world.submit("empty", &["--n", "[]"]).await,
        world.submit("endless", &["--n", "range(0,100001)"]).await,
        {
            let mut big = new("big", &[]);
            big.spec.resources.cpus = Some(64);
            run::create(&world.engine, &world.ada, big).await
        },
        {
            let mut lost = new("climbs", &[]);
            lost.spec.workdir = "../..".to_owned();
            run::create(&world.engine, &world.ada, lost).await
        },
    ];
    for (index, result) in refused.into_iter().enumerate() {
        let error = result
            .err()
            .unwrap_or_else(|| panic!("number {index} was not refused"));
        assert!(
            !matches!(error, Error::Internal(_)),
            "number {index}: {error:?}"
        );
    }
    let all = run::list(
        &world.engine,
        &world.ada,
        &Filter {
            limit: 10,
            ..Filter::default()
        },
    )
    .await
    .expect("a list");
    assert_eq!(all.items.len(), 1, "nothing half made");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn asking_twice_with_one_key_makes_one_run() {
    let dir = tempfile::tempdir().expect("a folder");
    let world = World::new(dir.path()).await;
    let keyed = |name: &str| NewRun {
        idempotency_key: Some("k".to_owned()),
        ..new(name, &[])
    };
    let first = run::create(&world.engine, &world.ada, keyed("a"))
        .await
        .expect("a run");
    let again = run::create(&world.engine, &world.ada, keyed("a"))
        .await
        .expect("the same");
    assert_eq!(first.run.row.id, again.run.row.id);
    assert!(matches!(
        run::create(&world.engine, &world.ada, keyed("b")).await,
        Err(Error::Conflict { .. })
    ));
}

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
