//! What it costs that there are rules: asking the table, and writing down what was done.

use std::hint::black_box;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use grid_core::access::{Action, Relation, may};
use grid_core::id::AuditId;
use grid_core::spec::Source;
use grid_core::team::{Role, Sharing, TeamPolicy};
use grid_engine::audit::{Origin, Trail};
use grid_engine::run::NewRun;
use grid_engine::{Caller, Clock, Engine, Parts, SystemClock, run, user};
use grid_executor::{Hub, ProcessExecutor, ProcessOptions};
use grid_store::blobs::{Blobs, Settings};
use grid_store::db::{self, Db, Options, sqlite_url};
use grid_store::logs::LogStore;
use serde_json::json;

use crate::Result;

/// How often the whole table is asked.
const TABLES: u32 = 2_000;

/// Requests of each kind.
const REQUESTS: usize = 1_000;

/// What is asked for.
const MAY_NS: f64 = 1_000.0;

pub(crate) async fn measure() -> Result<()> {
    figure("may, over the whole table", may_ns(), "ns", Some(MAY_NS));
    // Beside the other benchmarks: many a /tmp is memory.
    let folder = tempfile::tempdir()?;
    let db = Db::connect(
        &sqlite_url(&folder.path().join("grid.db")),
        &Options::default(),
    )
    .await?;
    let engine = open(folder.path(), db.clone()).await?;
    let ada = user::create_first(&engine, "ada").await?.ok_or("a user")?;
    let ada = user::authenticate(&engine, None, &ada.api_key).await?;

    fill(&engine, &ada).await?;
    let event = written_down(&db, &ada).await?;
    figure(
        "audit: an event, in its transaction",
        micros(event),
        "us",
        None,
    );
    let nothing = median(trails(&engine).await?);
    figure(
        "audit: a request without an event",
        micros(nothing),
        "us",
        None,
    );
    let alone = median(refusals(&engine, &ada).await?);
    figure("audit: a refusal, to its answer", micros(alone), "us", None);
    Ok(())
}

/// One line for whoever makes the table.
fn figure(name: &str, value: f64, unit: &str, at_most: Option<f64>) {
    let mut line = json!({ "name": name, "value": value, "unit": unit });
    if let Some(goal) = at_most {
        line["goal"] = json!(goal);
        line["better"] = json!("lower");
    }
    println!("{line}");
}

fn micros(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times.get(times.len() / 2).copied().unwrap_or_default()
}

/// Nanoseconds of one question, over every relation, action and policy.
fn may_ns() -> f64 {
    let mut relations = vec![Relation::Outsider, Relation::Operator];
    for role in Role::ALL {
        relations.extend([Relation::Creator(role), Relation::Teammate(role)]);
    }
    let switches = [Sharing::Team, Sharing::Creator];
    let mut policies = Vec::new();
    for run_control in switches {
        policies.extend(switches.map(|jupyter_access| TeamPolicy {
            run_control,
            jupyter_access,
        }));
    }
    let mut questions = Vec::new();
    for relation in relations {
        for action in Action::ALL {
            questions.extend(policies.iter().map(|policy| (relation, action, *policy)));
        }
    }
    let begun = Instant::now();
    for _ in 0..TABLES {
        for (relation, action, policy) in &questions {
            black_box(may(
                black_box(*relation),
                black_box(*action),
                black_box(*policy),
            ));
        }
    }
    let asked = f64::from(TABLES) * f64::from(u32::try_from(questions.len()).unwrap_or(1));
    begun.elapsed().as_secs_f64() * 1e9 / asked
}

async fn open(dir: &Path, db: Db) -> Result<Engine> {
    let hub = Hub::new();
    let options = ProcessOptions {
        dir: dir.join("runner"),
        url: "http://127.0.0.1:1".to_owned(),
        token: "unused".to_owned(),
        node: "local".parse()?,
        sandbox: "off".to_owned(),
        cpus: None,
        gpus: None,
        ca_file: None,
        hide: vec![],
    };
    let now = || SystemClock.now();
    Ok(Engine::open(Parts {
        db,
        logs: LogStore::open(&dir.join("logs"))?,
        blobs: Blobs::open(&dir.join("blobs"), Settings::new(now))?,
        executor: Arc::new(ProcessExecutor::new(hub.clone(), options)?),
        hub,
        clock: Arc::new(SystemClock),
        secret: [1; 32],
        credential_key: [2; 32],
        scratch: dir.join("tmp"),
        cluster: "local".to_owned(),
    })
    .await?)
}

/// Runs are made, with an event each: nobody writes into an empty database.
async fn fill(engine: &Engine, ada: &Caller) -> Result<()> {
    for number in 0..REQUESTS {
        let new = NewRun {
            name: Some(format!("run-{number}")),
            team: None,
            spec: serde_json::from_value(
                json!({ "command": ["train.py"], "source": Source::Nothing }),
            )?,
            invocation: "grid run train.py".to_owned(),
            project: None,
            cloned_from: None,
            dry_run: false,
            idempotency_key: None,
        };
        run::create(engine, ada, new).await?;
    }
    Ok(())
}

/// What an event adds to a transaction: the same transactions with and without one, in
/// turns.
async fn written_down(db: &Db, ada: &Caller) -> Result<Duration> {
    let mut with = Vec::with_capacity(REQUESTS);
    let mut without = Vec::with_capacity(REQUESTS);
    let mut tx = db.read().await?;
    let runs = db::run::list(&mut tx, &db::run::Filter::default(), 1).await?;
    let run = runs.items.into_iter().next().ok_or("a run")?.run;
    drop(tx);
    for number in 0..REQUESTS * 2 {
        let now = SystemClock.now();
        let key = format!("key-{number}");
        let done = db::idempotency::Done {
            run: run.id,
            body_hash: run.seed.clone(),
            created_at: now,
        };
        let begun = Instant::now();
        let mut tx = db.write().await?;
        db::idempotency::put(&mut tx, ada.id(), &key, &done).await?;
        if number % 2 == 0 {
            tx.commit().await?;
            without.push(begun.elapsed());
            continue;
        }
        let entry = db::audit::Entry {
            id: AuditId::from_parts(now, SystemClock.entropy()).to_string(),
            at: now,
            team: Some(run.team),
            user: Some(ada.id()),
            actor_kind: "user".to_owned(),
            actor: ada.user.username.clone(),
            action: "run.create".to_owned(),
            thing_kind: "run".to_owned(),
            thing_id: run.id.to_string(),
            thing_name: format!("ada:{}", run.name),
            result: "done".to_owned(),
            detail: "1 experiments".to_owned(),
            address: "127.0.0.1".to_owned(),
            client: "grid/0.1.0".to_owned(),
        };
        db::audit::insert(&mut tx, &entry).await?;
        tx.commit().await?;
        with.push(begun.elapsed());
    }
    Ok(median(with).saturating_sub(median(without)))
}

/// What every request does for the audit log, also when nothing is to be written.
async fn trails(engine: &Engine) -> Result<Vec<Duration>> {
    let mut times = Vec::with_capacity(REQUESTS);
    for _ in 0..REQUESTS {
        let begun = Instant::now();
        let trail = Trail::new(Origin {
            address: "127.0.0.1".to_owned(),
            client: "grid/0.1.0".to_owned(),
        });
        engine.settle(&trail).await?;
        times.push(begun.elapsed());
    }
    Ok(times)
}

/// Somebody tries what only operators may, and hears so once it is written down.
async fn refusals(engine: &Engine, ada: &Caller) -> Result<Vec<Duration>> {
    let new = user::NewUser {
        username: "bob".to_owned(),
        ..user::NewUser::default()
    };
    let bob = user::create(engine, ada, &new).await?;
    let bob = user::authenticate(engine, None, &bob.api_key).await?;
    let mut times = Vec::with_capacity(REQUESTS);
    for _ in 0..REQUESTS {
        let trail = Trail::new(Origin::default());
        let bob = bob.clone().on(trail.clone());
        let begun = Instant::now();
        if user::create(engine, &bob, &new).await.is_ok() {
            return Err("bob may make users".into());
        }
        engine.settle(&trail).await?;
        times.push(begun.elapsed());
    }
    Ok(times)
}
