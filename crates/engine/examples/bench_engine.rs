//! How many experiments the engine alone carries through per second:
//! `cargo run --release -p grid-engine --example bench_engine [EXPERIMENTS]`.
//!
//! SQLite on disk, one node of two CPUs, and a runner that is played here: it reports
//! each attempt as ended as soon as it is told to launch it, once without and once with a
//! report in between that it runs.

#![expect(clippy::print_stdout, reason = "a measurement is for reading")]
#![expect(
    clippy::disallowed_methods,
    reason = "a measurement looks at the clock"
)]

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use grid_api::runner::{Have, Phase, Sync};
use grid_core::cluster::Node;
use grid_core::id::{AttemptId, NodeId};
use grid_core::spec::{RunSpec, Source};
use grid_core::workload::End;
use grid_engine::run::{Filter, NewRun};
use grid_engine::{Caller, Clock, Engine, Parts, SystemClock, run, runner, user};
use grid_executor::{Hub, ProcessExecutor, ProcessOptions};
use grid_store::blobs::{Blobs, Settings};
use grid_store::db::{Db, Options, sqlite_url};
use grid_store::logs::LogStore;

/// Experiments, unless another number is given.
const EXPERIMENTS: u32 = 10_000;

type Result<T, E = Box<dyn std::error::Error>> = std::result::Result<T, E>;

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> Result<()> {
    let given = std::env::args().nth(1);
    let count = given.map_or(Ok(EXPERIMENTS), |text| text.parse())?;
    let folder = tempfile::tempdir_in(".")?;
    let engine = open(folder.path()).await?;
    let turning = engine.clone();
    tokio::spawn(async move { turning.run().await });
    let ada = user::create_first(&engine, "ada").await?.ok_or("a user")?;
    let ada = user::authenticate(&engine, None, &ada.api_key).await?;
    println!("empty server: {} MiB", resident_mib());
    let mut played = Played::default();
    played.speak(&engine, 0).await?;
    carry(&engine, &ada, &mut played, "ended", count, false).await?;
    carry(&engine, &ada, &mut played, "started-ended", count, true).await?;
    lists(&engine, &ada).await
}

async fn open(dir: &Path) -> Result<Engine> {
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
    let url = sqlite_url(&dir.join("grid.db"));
    let now = || SystemClock.now();
    Ok(Engine::open(Parts {
        db: Db::connect(&url, &Options::default()).await?,
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

/// A run of `count` experiments, from submit to the last recorded end.
async fn carry(
    engine: &Engine,
    ada: &Caller,
    played: &mut Played,
    name: &str,
    count: u32,
    starts: bool,
) -> Result<()> {
    let begun = Instant::now();
    run::create(engine, ada, new(name, count)).await?;
    println!(
        "{name}: {count} submitted in {:.0} ms; {} MiB",
        begun.elapsed().as_secs_f64() * 1e3,
        resident_mib()
    );
    played.syncs = 0;
    let started = Instant::now();
    while engine.open_count() > 0 {
        played.starts = starts;
        played.speak(engine, 1_000).await?;
    }
    let took = started.elapsed().as_secs_f64();
    println!(
        "{name}: {:.0} per second, {:.2} s, {} syncs; {} MiB",
        f64::from(count) / took,
        took,
        played.syncs,
        resident_mib()
    );
    Ok(())
}

async fn lists(engine: &Engine, ada: &Caller) -> Result<()> {
    let all = Filter {
        limit: 50,
        ..Filter::default()
    };
    let active = Filter {
        active: Some(true),
        ..all.clone()
    };
    for (what, filter) in [("active", active), ("all", all)] {
        let begun = Instant::now();
        for _ in 0..20 {
            run::list(engine, ada, &filter).await?;
        }
        println!(
            "run::list({what}): {:.2} ms",
            begun.elapsed().as_secs_f64() * 1e3 / 20.0
        );
    }
    Ok(())
}

/// A runner whose attempts take no time.
#[derive(Default)]
struct Played {
    have: BTreeMap<AttemptId, Phase>,
    seq: u64,
    syncs: u32,
    starts: bool,
}

impl Played {
    async fn speak(&mut self, engine: &Engine, wait_ms: u64) -> Result<()> {
        self.seq += 1;
        self.syncs += 1;
        let node: NodeId = "local".parse()?;
        // Who has something new to say next does not wait for orders first.
        let is_busy = self.have.values().any(|phase| *phase == Phase::Running);
        let have = self.have.iter().map(|(attempt, phase)| Have {
            attempt: *attempt,
            phase: phase.clone(),
            note: None,
            logs: vec![],
            artifacts: vec![],
        });
        let sync = Sync {
            node: Node {
                id: node.clone(),
                cpus: 2,
                gpus: 0,
                memory_bytes: 4 << 30,
            },
            warnings: vec![],
            tools: vec![],
            have: have.collect(),
            wait_ms: if is_busy { 0 } else { wait_ms },
            seq: self.seq,
            epoch: 1,
            awaiting: vec![],
        };
        for phase in self.have.values_mut() {
            *phase = Phase::Ended {
                end: End::Succeeded,
                ran: true,
            };
        }
        let orders = runner::sync(engine, &node, sync).await?;
        for attempt in orders.forget {
            self.have.remove(&attempt);
        }
        for launch in orders.launch {
            let phase = if self.starts {
                Phase::Running
            } else {
                Phase::Ended {
                    end: End::Succeeded,
                    ran: true,
                }
            };
            self.have.entry(launch.attempt).or_insert(phase);
        }
        Ok(())
    }
}

fn new(name: &str, count: u32) -> NewRun {
    let values = format!("range({count})");
    NewRun {
        name: Some(name.to_owned()),
        team: None,
        spec: RunSpec {
            command: vec!["train.py".to_owned(), "--n".to_owned(), values],
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
        invocation: "grid run train.py".to_owned(),
        project: None,
        cloned_from: None,
        dry_run: false,
        idempotency_key: None,
    }
}

/// What this process holds in memory.
fn resident_mib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.split_ascii_whitespace().next()?.parse::<u64>().ok());
    kib.unwrap_or(0) >> 10
}
