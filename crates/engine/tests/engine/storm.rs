//! Words of the runner are lost, doubled, late and cut off, requests are dropped in the
//! middle, the runner and the server die; after the weather clears every experiment has
//! come to exactly one end.

use std::collections::{BTreeMap, HashSet};
use std::future::Future;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use grid_api::runner::{Orders, Phase, Sync};
use grid_core::id::{AttemptId, WorkloadId};
use grid_core::workload::{End, Event};
use grid_engine::{Caller, Engine, Error, experiment, run, runner};
use tokio::runtime::Runtime;
use tokio::task::JoinHandle;

use crate::world::{WrongClock, assert_consistent, ended, engine, failed, first_user, new, node};

/// Stories that are told; each takes about a second.
const SEEDS: std::ops::Range<u64> = 0..12;

/// Things that happen in a story before the weather clears.
const STEPS: u32 = 250;

/// How long everything may take to come to its end afterwards.
const CALM_MAX: Duration = Duration::from_secs(60);

/// SplitMix64.
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }

    fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }
}

type Answer = JoinHandle<Result<Orders, Error>>;

/// A call of the runner that is under way.
struct Call {
    seq: u64,
    listens: bool,
    answer: Option<Answer>,
}

/// A runner as the real one is, with processes that only exist here.
struct Runner {
    epoch: u64,
    seq: u64,
    attempts: BTreeMap<AttemptId, Phase>,
    past: HashSet<AttemptId>,
    calls: Vec<Call>,
}

impl Runner {
    fn new(epoch: u64) -> Self {
        Self {
            epoch,
            seq: 0,
            attempts: BTreeMap::new(),
            past: HashSet::new(),
            calls: Vec::new(),
        }
    }

    fn compose(&mut self, listens: bool) -> Sync {
        self.seq += 1;
        let have: Vec<_> = self
            .attempts
            .iter()
            .map(|(id, phase)| (*id, phase.clone()))
            .collect();
        Sync {
            seq: self.seq,
            epoch: self.epoch,
            wait_ms: if listens { 40 } else { 0 },
            awaiting: self.calls.iter().map(|call| call.seq).collect(),
            ..crate::world::sync(&have)
        }
    }

    fn obey(&mut self, orders: Orders) {
        for launch in orders.launch {
            let id = launch.attempt;
            if self.past.contains(&id) || self.attempts.contains_key(&id) {
                continue;
            }
            let other = self.attempts.iter().find(|(other, phase)| {
                other.workload == id.workload && !matches!(phase, Phase::Ended { .. })
            });
            assert!(other.is_none(), "{id} was launched beside {other:?}");
            self.attempts.insert(id, Phase::Waiting);
        }
        for stop in orders.stop {
            if let Some(phase) = self.attempts.get_mut(&stop.attempt)
                && !matches!(phase, Phase::Ended { .. })
            {
                *phase = ended(End::Stopped);
            }
        }
        for id in orders.forget {
            let forgotten = self.attempts.remove(&id);
            assert!(
                forgotten.is_none_or(|phase| matches!(phase, Phase::Ended { .. })),
                "{id} was to be forgotten while it ran"
            );
            self.past.insert(id);
        }
    }

    /// Lets a process go on by a step.
    fn work(&mut self, dice: &mut Dice) {
        let Ok(n) = u64::try_from(self.attempts.len()) else {
            return;
        };
        let Some(phase) = (n > 0).then(|| dice.below(n)).and_then(|n| {
            self.attempts
                .values_mut()
                .nth(usize::try_from(n).unwrap_or(0))
        }) else {
            return;
        };
        *phase = match phase {
            Phase::Waiting => Phase::Running,
            Phase::Preparing | Phase::Running if dice.chance(15) => failed(),
            Phase::Preparing | Phase::Running => ended(End::Succeeded),
            Phase::Ended { .. } => return,
        };
    }
}

/// A server: everything of it dies with its threads.
struct Server {
    threads: Runtime,
    engine: Engine,
}

impl Server {
    fn start(dir: &Path) -> Self {
        let threads = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .expect("threads");
        let engine = threads.block_on(engine(dir, Arc::new(WrongClock::default())));
        let turning = engine.clone();
        threads.spawn(async move { turning.run().await });
        Self { threads, engine }
    }

    fn kill(self) {
        drop(self.engine);
        self.threads.shutdown_timeout(Duration::from_secs(5));
    }
}

struct Story {
    dice: Dice,
    dir: PathBuf,
    server: Option<Server>,
    ada: Caller,
    runner: Runner,
    runs: Vec<String>,
    /// Answers of requests that people sent, and those that nobody hears.
    others: Vec<JoinHandle<()>>,
}

impl Story {
    fn server(&self) -> &Server {
        self.server.as_ref().expect("a server")
    }

    fn spawn<T: Send + 'static>(
        &self,
        work: impl Future<Output = T> + Send + 'static,
    ) -> JoinHandle<T> {
        self.server().threads.spawn(work)
    }

    fn wait<T>(&self, work: impl Future<Output = T>) -> T {
        self.server().threads.block_on(work)
    }

    fn pause(&mut self) {
        let micros = self.dice.below(2_000);
        self.wait(async move { tokio::time::sleep(Duration::from_micros(micros)).await });
    }

    /// A call of the runner, and what the weather does to it.
    fn call(&mut self, listens: bool, weather: bool) {
        let sync = self.runner.compose(listens);
        let seq = sync.seq;
        if weather && self.dice.chance(10) {
            // Lost on its way there.
            return;
        }
        let late = if weather { self.dice.below(3_000) } else { 0 };
        let say = |engine: Engine, sync: Sync| async move {
            tokio::time::sleep(Duration::from_micros(late)).await;
            runner::sync(&engine, &node(), sync).await
        };
        let engine = &self.server().engine;
        let answer = self.spawn(say(engine.clone(), sync.clone()));
        if weather && self.dice.chance(10) {
            // Doubled; nobody hears the second answer.
            let doubled = say(self.server().engine.clone(), sync);
            let doubled = self.spawn(async move {
                let _nobody_hears_it = doubled.await;
            });
            self.others.push(doubled);
        }
        self.runner.calls.push(Call {
            seq,
            listens,
            answer: Some(answer),
        });
    }

    /// The runner speaks as the real one does: one report, one call that listens.
    fn speak(&mut self, weather: bool) {
        let reports = self.runner.calls.iter().any(|call| !call.listens);
        let listens = self.runner.calls.iter().any(|call| call.listens);
        if !reports && (listens || self.dice.chance(50)) {
            self.call(false, weather);
        } else if !reports && !listens {
            self.call(true, weather);
        }
    }

    fn hear(&mut self, weather: bool) {
        let mut calls = std::mem::take(&mut self.runner.calls);
        calls.retain_mut(|call| {
            let Some(answer) = call.answer.take() else {
                return false;
            };
            if weather && self.dice.chance(4) {
                // Cut off: the server notices, or it does not.
                if self.dice.chance(50) {
                    answer.abort();
                }
                return false;
            }
            if !answer.is_finished() {
                call.answer = Some(answer);
                return true;
            }
            let orders = self.wait(answer).expect("no panic");
            if weather && self.dice.chance(15) {
                // Lost on its way back.
                return false;
            }
            match orders {
                Ok(orders) => self.runner.obey(orders),
                Err(error) => assert!(!matches!(error, Error::Internal(_)), "{error:?}"),
            }
            false
        });
        self.runner.calls = calls;
    }

    fn some_run(&mut self) -> String {
        let n = self.runs.len();
        let index = usize::try_from(self.dice.next()).unwrap_or(0) % n;
        self.runs[index].clone()
    }

    /// Somebody asks for something, and may not wait for the answer.
    fn ask(&mut self) {
        let (engine, ada) = (self.server().engine.clone(), self.ada.clone());
        let name = self.some_run();
        let index = self.dice.below(4);
        let request = match self.dice.below(4) {
            0 => self.spawn(async move {
                let _refused = run::retry(&engine, &ada, &name, false).await;
            }),
            1 => self.spawn(async move {
                let _refused = run::stop(&engine, &ada, &name).await;
            }),
            _ => self.spawn(async move {
                let _refused = experiment::stop(&engine, &ada, &format!("{name}-exp{index}")).await;
            }),
        };
        if self.dice.chance(30) {
            self.pause();
            request.abort();
        } else {
            self.others.push(request);
        }
    }

    fn submit(&mut self) {
        let name = format!("run-{}", self.runs.len());
        let (engine, ada) = (self.server().engine.clone(), self.ada.clone());
        let wanted = new(&name, &["--n", "[1,2,3,4]"]);
        let request = self.spawn(async move {
            let _error = run::create(&engine, &ada, wanted).await;
        });
        if self.dice.chance(40) {
            // Cut off in the middle: it is made or not, and what is made is scheduled.
            self.pause();
            request.abort();
        }
        // Not while it is being made: half a second later a killed server has made it or not.
        let _cut_off = self.wait(request);
        self.runs.push(name);
    }

    fn restart(&mut self) {
        self.runner.calls.clear();
        self.others.clear();
        if let Some(server) = self.server.take() {
            server.kill();
        }
        self.server = Some(Server::start(&self.dir));
    }

    fn step(&mut self) {
        match self.dice.below(100) {
            0..50 => self.speak(true),
            50..70 => self.runner.work(&mut self.dice),
            70..74 => self.ask(),
            74..77 if self.runs.len() < 8 => self.submit(),
            77 => self.restart(),
            78 => {
                // The runner dies, and with it all it had.
                self.runner = Runner::new(self.dice.next());
            }
            _ => {}
        }
        self.hear(true);
        self.pause();
    }

    /// Until nothing is open and the runner has been told to forget all.
    fn calm(&mut self) {
        let until = tokio::time::Instant::now() + CALM_MAX;
        loop {
            self.runner.work(&mut self.dice);
            self.speak(false);
            self.pause();
            self.hear(false);
            let is_over = self.server().engine.open_count() == 0 && self.runner.attempts.is_empty();
            if is_over {
                return;
            }
            assert!(
                tokio::time::Instant::now() < until,
                "{} are still open; the runner has {:?}",
                self.server().engine.open_count(),
                self.runner.attempts
            );
        }
    }

    /// How often each experiment has ended, and how often somebody had it tried again.
    fn ends(&self) -> BTreeMap<WorkloadId, (usize, usize)> {
        let engine = &self.server().engine;
        let mut ends = BTreeMap::new();
        for name in &self.runs {
            for index in 0..4 {
                let name = format!("{name}-exp{index}");
                let Ok(log) = self.wait(experiment::events(engine, &self.ada, &name)) else {
                    continue;
                };
                let found = self.wait(experiment::get(engine, &self.ada, &name));
                let id = found.expect("it is there").row.workload.id;
                let count = |wanted: fn(&Event) -> bool| {
                    log.iter().filter(|logged| wanted(&logged.event)).count()
                };
                let finished = count(|event| matches!(event, Event::Finished { .. }));
                let retried = count(|event| matches!(event, Event::Retried));
                ends.insert(id, (finished, retried));
            }
        }
        ends
    }
}

fn tell(seed: u64) {
    let dir = tempfile::tempdir().expect("a folder");
    let server = Server::start(dir.path());
    let ada = server.threads.block_on(first_user(&server.engine));
    let mut story = Story {
        dice: Dice(seed),
        dir: dir.path().to_owned(),
        server: Some(server),
        ada,
        runner: Runner::new(seed),
        runs: Vec::new(),
        others: Vec::new(),
    };
    story.submit();
    for _ in 0..STEPS {
        story.step();
    }
    let until = tokio::time::Instant::now() + CALM_MAX;
    let ends = loop {
        story.calm();
        let ends = story.ends();
        // A request that was cut off goes on by itself: what it has tried again after
        // the calm is waited for, too.
        let settled = |(finished, retried): &(usize, usize)| *finished == retried + 1;
        if ends.values().all(settled) || tokio::time::Instant::now() >= until {
            break ends;
        }
    };
    assert!(!ends.is_empty(), "something was run");
    for (id, (finished, retried)) in ends {
        assert_eq!(finished, retried + 1, "the ends of {id}");
    }
    story.wait(assert_consistent(&story.server().engine));
    // Nobody else knows of anything open either.
    story.restart();
    assert_eq!(story.server().engine.open_count(), 0);
    if let Some(server) = story.server.take() {
        server.kill();
    }
}

#[test]
fn after_any_weather_everything_has_one_end() {
    for seed in SEEDS {
        eprintln!("seed {seed}");
        tell(seed);
    }
}
