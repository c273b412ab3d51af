//! An engine on a folder, its operator, and a runner that the test plays.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use grid_api::runner::{Have, Orders, Phase, Sync};
use grid_core::cluster::Node;
use grid_core::id::{AttemptId, NodeId, TeamId};
use grid_core::spec::{RunSpec, Source};
use grid_core::team::{Role, TeamPolicy};
use grid_core::time::Timestamp;
use grid_core::workload::{End, Reason, ReasonCode, Status};
use grid_engine::run::NewRun;
use grid_engine::{Caller, Clock, Engine, Error, Parts, SystemClock, doctor, run, runner, user};
use grid_executor::{Hub, ProcessExecutor, ProcessOptions};
use grid_store::blobs::{Blobs, GC_GRACE, Settings};
use grid_store::db::{Db, Options, sqlite_url, team};
use grid_store::logs::LogStore;

/// The machine's clock, set wrong by as much as a test likes.
#[derive(Default)]
pub(crate) struct WrongClock {
    by_ms: AtomicI64,
}

impl WrongClock {
    pub(crate) fn set_wrong_by(&self, ms: i64) {
        self.by_ms.store(ms, Ordering::Relaxed);
    }
}

impl Clock for WrongClock {
    fn now(&self) -> Timestamp {
        SystemClock
            .now()
            .plus_millis(self.by_ms.load(Ordering::Relaxed))
    }

    fn entropy(&self) -> u128 {
        SystemClock.entropy()
    }
}

pub(crate) struct World {
    pub(crate) engine: Engine,
    pub(crate) ada: Caller,
    pub(crate) clock: Arc<WrongClock>,
    seq: u64,
    loops: tokio::task::JoinHandle<()>,
}

pub(crate) async fn engine(dir: &Path, clock: Arc<dyn Clock>) -> Engine {
    engine_with_grace(dir, clock, GC_GRACE).await
}

/// One whose blobs stay for this long when nothing refers to them.
pub(crate) async fn engine_with_grace(
    dir: &Path,
    clock: Arc<dyn Clock>,
    grace: Duration,
) -> Engine {
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
            Settings {
                grace,
                ..Settings::new(|| Timestamp::from_millis(0))
            },
        )
        .expect("a folder"),
        executor: Arc::new(ProcessExecutor::new(hub.clone(), options).expect("a folder")),
        hub,
        clock,
        secret: [1; 32],
        credential_key: [2; 32],
        scratch: dir.join("tmp"),
        cluster: "local".to_owned(),
    })
    .await
    .expect("an engine")
}

pub(crate) async fn first_user(engine: &Engine) -> Caller {
    let ada = user::create_first(engine, "ada")
        .await
        .expect("a database")
        .expect("the first user");
    user::authenticate(engine, None, &ada.api_key)
        .await
        .expect("her key")
}

pub(crate) fn node() -> NodeId {
    "local".parse().expect("a name")
}

/// What a runner says: nothing but what it has.
pub(crate) fn sync(have: &[(AttemptId, Phase)]) -> Sync {
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
    Sync {
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
        seq: 1,
        epoch: 1,
        awaiting: vec![],
    }
}

impl World {
    pub(crate) async fn new(dir: &Path) -> Self {
        let clock = Arc::new(WrongClock::default());
        let engine = engine(dir, clock.clone()).await;
        let ada = first_user(&engine).await;
        let mut world = Self::with(engine, ada, clock);
        // The runner speaks first: what fits is known from then on.
        world.sync(&[]).await;
        world
    }

    fn with(engine: Engine, ada: Caller, clock: Arc<WrongClock>) -> Self {
        let turning = engine.clone();
        let loops = tokio::spawn(async move { turning.run().await });
        Self {
            engine,
            ada,
            clock,
            seq: 0,
            loops,
        }
    }

    /// The server goes away and comes back.
    pub(crate) async fn restart(self, dir: &Path) -> Self {
        self.loops.abort();
        let ada = self.ada.clone();
        let clock = Arc::clone(&self.clock);
        drop(self);
        let engine = engine(dir, clock.clone()).await;
        Self::with(engine, ada, clock)
    }

    /// One word of the runner; answers with the next orders, waiting a little for them.
    pub(crate) async fn sync(&mut self, have: &[(AttemptId, Phase)]) -> Orders {
        self.seq += 1;
        let sync = Sync {
            seq: self.seq,
            ..sync(have)
        };
        runner::sync(&self.engine, &node(), sync)
            .await
            .expect("a word is heard")
    }

    /// Speaks until `count` launches have been ordered.
    pub(crate) async fn launches(&mut self, count: usize) -> Vec<grid_api::runner::Launch> {
        let mut launched = Vec::new();
        let mut have: Vec<(AttemptId, Phase)> = Vec::new();
        for _ in 0..50 {
            let orders = self.sync(&have).await;
            have.extend(
                orders
                    .launch
                    .iter()
                    .map(|launch| (launch.attempt, Phase::Waiting)),
            );
            launched.extend(orders.launch);
            if launched.len() >= count {
                return launched;
            }
        }
        panic!("only {} of {count} were launched", launched.len());
    }

    pub(crate) async fn submit(&self, name: &str, args: &[&str]) -> Result<run::Created, Error> {
        run::create(&self.engine, &self.ada, new(name, args)).await
    }

    pub(crate) async fn status(&self, name: &str) -> Status {
        let run = run::get(&self.engine, &self.ada, name)
            .await
            .expect("the run");
        grid_core::run::status(&run.counts)
    }

    /// A team of some people, by roles; whoever signs in from now on is in it.
    pub(crate) async fn team(&self, dir: &Path, name: &str, members: &[(&Caller, Role)]) {
        let url = sqlite_url(&dir.join("grid.db"));
        let db = Db::connect(&url, &Options::default())
            .await
            .expect("the database");
        let mut tx = db.write().await.expect("to write");
        let now = self.clock.now();
        let team = team::Team {
            id: TeamId::from_parts(now, self.clock.entropy()),
            name: name.to_owned(),
            personal: false,
            policy: TeamPolicy::default(),
            created_at: now,
        };
        team::insert(&mut tx, &team).await.expect("a team");
        for (member, role) in members {
            team::set_role(&mut tx, team.id, member.id(), *role, now)
                .await
                .expect("a member");
        }
        tx.commit().await.expect("it is stored");
    }

    /// A user beside the operator, and their key.
    pub(crate) async fn user(&self, name: &str) -> (Caller, String) {
        let new = user::NewUser {
            username: name.to_owned(),
            ..user::NewUser::default()
        };
        let made = user::create(&self.engine, &self.ada, &new)
            .await
            .expect("a user");
        (self.sign_in(&made.api_key).await, made.api_key)
    }

    /// Who has this key, as they are in their teams now.
    pub(crate) async fn sign_in(&self, key: &str) -> Caller {
        user::authenticate(&self.engine, None, key)
            .await
            .expect("the key")
    }

    pub(crate) async fn assert_consistent(&self) {
        assert_consistent(&self.engine).await;
    }
}

/// Waits for a condition, and says which one was waited for in vain.
pub(crate) async fn until(what: &str, is_so: impl AsyncFn() -> bool) {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(60);
    while !is_so().await {
        assert!(tokio::time::Instant::now() < deadline, "waited for: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

pub(crate) async fn assert_consistent(engine: &Engine) {
    let report = doctor::examine(engine, true).await.expect("an examination");
    assert_eq!(report.findings, Vec::<String>::new());
}

pub(crate) fn new(name: &str, args: &[&str]) -> NewRun {
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
            datastores: vec![],
            actions: grid_core::spec::Actions::default(),
            auto_resume: false,
            retries: 0,
            max_duration_ms: None,
            description: String::new(),
        },
        invocation: "grid run true".to_owned(),
        project: None,
        cloned_from: None,
        dry_run: false,
        idempotency_key: None,
    }
}

pub(crate) fn ended(end: End) -> Phase {
    Phase::Ended { end, ran: true }
}

pub(crate) fn failed() -> Phase {
    let reason = Reason {
        code: ReasonCode::ExitCode,
        message: "exit code 3".to_owned(),
        exit_code: Some(3),
    };
    ended(End::Failed { reason })
}
