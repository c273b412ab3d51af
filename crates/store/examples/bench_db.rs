//! How fast the database is where it matters: `cargo run --example bench_db [address]`.
//!
//! Without an address a SQLite file in a temporary folder is measured.

#![expect(clippy::print_stdout, reason = "a measurement is for reading")]
#![expect(
    clippy::disallowed_methods,
    reason = "a measurement looks at the clock"
)]

use std::time::Instant;

use grid_core::cluster::Placement;
use grid_core::id::{RunId, TeamId, UserId, WorkloadId};
use grid_core::run::OPEN;
use grid_core::team::TeamPolicy;
use grid_core::time::Timestamp;
use grid_core::workload::{Actor, Attempt, Event, Kind, Outcome, Policy, Workload};
use grid_store::db::event::{self, Record};
use grid_store::db::run::{Filter, NewExperiment, Run};
use grid_store::db::team::Team;
use grid_store::db::user::User;
use grid_store::db::{Db, Options, Result, Scope, run, sqlite_url, team, user, workload};

/// Experiments of the history.
const HISTORY: u32 = 100_000;
/// Experiments of one run of the history.
const RUN: u32 = 1_000;
/// Times each question is asked.
const ASKED: u32 = 20;

#[tokio::main]
async fn main() -> Result<()> {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let address = std::env::args().nth(1);
    let address = address.unwrap_or_else(|| sqlite_url(&folder.path().join("grid.db")));
    let begun = Instant::now();
    let db = Db::connect(&address, &Options::default()).await?;
    report("connect and make the schema", begun, 1);

    let mut bench = Bench {
        db,
        who: UserId::from_entropy(1),
        team: at(1),
        entropy: 1,
    };
    bench.people().await?;
    bench.large_run().await?;
    bench.records().await?;
    bench.singles().await?;
    bench.history().await?;
    bench.questions().await?;
    println!("size: {} MiB", bench.db.size_bytes().await? >> 20);
    Ok(())
}

fn at(n: u128) -> TeamId {
    TeamId::from_parts(Timestamp::from_millis(1), n)
}

fn report(what: &str, begun: Instant, times: u32) {
    println!(
        "{what:<55} {:>10.2} ms",
        begun.elapsed().as_secs_f64() * 1e3 / f64::from(times)
    );
}

struct Bench {
    db: Db,
    who: UserId,
    team: TeamId,
    entropy: u128,
}

impl Bench {
    async fn people(&self) -> Result<()> {
        let mut tx = self.db.write().await?;
        let new = User {
            id: self.who,
            username: "ada".to_owned(),
            email: String::new(),
            first_name: String::new(),
            last_name: String::new(),
            operator: true,
            current_team: Some(self.team),
            created_at: Timestamp::from_millis(1),
            disabled_at: None,
            service_team: None,
        };
        user::insert(&mut tx, &new).await?;
        let new = Team {
            id: self.team,
            name: "ada".to_owned(),
            personal: true,
            policy: TeamPolicy::default(),
            created_at: Timestamp::from_millis(1),
        };
        team::insert(&mut tx, &new).await?;
        tx.commit().await
    }

    fn next(&mut self) -> u128 {
        self.entropy += 1;
        self.entropy
    }

    /// A run that was not there, and its workloads.
    fn a_run(&mut self, made: i64, n: u32) -> (Run, Vec<NewExperiment>) {
        let created_at = Timestamp::from_millis(made);
        let id = RunId::from_parts(created_at, self.next());
        let run = Run {
            id,
            team: self.team,
            creator: self.who,
            name: format!("run-{id}"),
            created_at,
            spec: "{\"command\":[\"train.py\",\"--lr\",\"[0.1,0.2]\"]}".repeat(20),
            seed: "17".to_owned(),
            invocation: "grid run train.py --lr '[0.1,0.2]'".to_owned(),
            project: None,
            snapshot: None,
            cloned_from: None,
            experiments: n,
            deleted: None,
        };
        let policy = Policy {
            losses_max: 3,
            retries: 0,
            auto_resume: false,
        };
        let created = Event::Created {
            workload: Kind::Experiment,
            policy,
        };
        let new = |idx| NewExperiment {
            workload: Workload::created(
                WorkloadId::from_parts(created_at, self.next()),
                &created,
                created_at,
            ),
            params: vec![
                ("lr".to_owned(), format!("0.{idx}")),
                ("depth".to_owned(), "7".to_owned()),
            ],
            args: vec![
                "--lr".to_owned(),
                format!("0.{idx}"),
                "--depth=7".to_owned(),
            ],
        };
        (run, (0..n).map(new).collect())
    }

    async fn insert(&self, run: &Run, new: Vec<NewExperiment>) -> Result<()> {
        let mut tx = self.db.write().await?;
        run::insert(&mut tx, run, new, Actor::User(self.who)).await?;
        tx.commit().await
    }

    async fn large_run(&mut self) -> Result<()> {
        let (run, new) = self.a_run(1000, 10_000);
        let begun = Instant::now();
        self.insert(&run, new).await?;
        report("add a run of 10,000 experiments", begun, 1);
        let begun = Instant::now();
        let mut tx = self.db.read().await?;
        let open = workload::open(&mut tx, None, 10_000).await?;
        assert_eq!(open.items.len(), 10_000);
        report("read 10,000 open workloads", begun, 1);
        Ok(())
    }

    /// Places, starts and ends all that is open, 500 at a time.
    async fn records(&self) -> Result<()> {
        let mut tx = self.db.read().await?;
        let open = workload::open(&mut tx, None, 10_000).await?.items;
        drop(tx);
        let mut workloads: Vec<Workload> = open.into_iter().map(|open| open.workload).collect();
        let step = ["place", "start", "end"];
        for (version, (event, step)) in (1..).zip(life().iter().zip(step)) {
            let begun = Instant::now();
            let mut calls = 0;
            for part in workloads.chunks_mut(500) {
                self.record(part, version, event).await?;
                calls += 1;
            }
            report(&format!("record_many: {step} 500"), begun, calls);
        }
        Ok(())
    }

    async fn record(&self, workloads: &mut [Workload], version: u64, event: &Event) -> Result<()> {
        let now = Timestamp::from_millis(2000);
        workloads
            .iter_mut()
            .for_each(|workload| workload.apply(event, now));
        let record = |workload| Record {
            workload,
            expected_version: version,
            events: std::slice::from_ref(event),
            actor: Actor::Engine,
            at: now,
        };
        let records: Vec<Record<'_>> = workloads.iter().map(record).collect();
        let mut tx = self.db.write().await?;
        let done = event::record_many(&mut tx, &records).await?;
        assert!(done.iter().all(|done| *done));
        tx.commit().await
    }

    async fn singles(&mut self) -> Result<()> {
        let (run, new) = self.a_run(3000, 300);
        let mut workloads: Vec<Workload> = new.iter().map(|new| new.workload.clone()).collect();
        self.insert(&run, new).await?;
        let begun = Instant::now();
        for workload in &mut workloads {
            for (version, event) in (1..).zip(&life()) {
                self.record(std::slice::from_mut(workload), version, event)
                    .await?;
            }
        }
        report("record_many: one, in a transaction of its own", begun, 900);
        Ok(())
    }

    async fn history(&mut self) -> Result<()> {
        let begun = Instant::now();
        for n in 0..HISTORY / RUN {
            let (run, new) = self.a_run(10_000 + i64::from(n), RUN);
            let mut workloads: Vec<Workload> = new.iter().map(|new| new.workload.clone()).collect();
            self.insert(&run, new).await?;
            for (version, event) in (1..).zip(&life()) {
                self.record(&mut workloads, version, event).await?;
            }
        }
        report("make a history of 100,000 experiments", begun, 1);
        for n in 0..5 {
            let (run, new) = self.a_run(5000 + n, 100);
            self.insert(&run, new).await?;
        }
        Ok(())
    }

    async fn questions(&self) -> Result<()> {
        let teams = [self.team];
        let of = Scope {
            owner: None,
            teams: Some(&teams),
        };
        let all = Filter {
            scope: of,
            ..Filter::default()
        };
        let active = Filter {
            statuses: &OPEN,
            ..all
        };
        for (what, filter, n) in [
            ("list of 5 active runs", active, 5),
            ("list of 50 runs of 1,000 experiments", all, 50),
        ] {
            let begun = Instant::now();
            for _ in 0..ASKED {
                let mut tx = self.db.read().await?;
                assert_eq!(run::list(&mut tx, &filter, 50).await?.items.len(), n);
            }
            report(what, begun, ASKED);
        }
        let mut tx = self.db.read().await?;
        let listed = run::list(&mut tx, &all, 1).await?.items;
        drop(tx);
        let begun = Instant::now();
        for _ in 0..ASKED {
            let mut tx = self.db.read().await?;
            let page = workload::list_of_run(
                &mut tx,
                listed[0].run.id,
                &[],
                Default::default(),
                Some(500),
                50,
            );
            assert_eq!(page.await?.items.len(), 50);
        }
        report("page of 50 experiments of a run", begun, ASKED);
        let begun = Instant::now();
        for _ in 0..ASKED {
            let mut tx = self.db.read().await?;
            assert_eq!(workload::open(&mut tx, None, 1000).await?.items.len(), 500);
        }
        report("read 500 open workloads", begun, ASKED);
        Ok(())
    }
}

/// What happens to an experiment.
fn life() -> [Event; 3] {
    let node = "local".parse().expect("a node name");
    let placement = Placement {
        node,
        cpus: 1,
        gpus: vec![],
        memory_bytes: 1 << 30,
    };
    [
        Event::Placed {
            attempt: Attempt {
                number: 1,
                placement,
            },
        },
        Event::Started { attempt: 1 },
        Event::Finished {
            outcome: Outcome::Succeeded,
        },
    ]
}
