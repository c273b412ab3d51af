//! The world: what there is, what happens next, and one step after another.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};

use grid_core::id::{AttemptId, WorkloadId};
use grid_core::time::Timestamp;
use grid_core::workload::Event;

use super::Story;
use super::check::Broken;
use super::dice::Dice;
use super::engine::Engine;
use super::limits::{REST_MAX_MS, STEPS_MAX};
use super::machine::Machine;
use super::net::Message;
use super::script::{Exit, Submitted};
use super::trace::Trace;
use super::weather::{Climate, Weather};
use crate::mutants::Mutant;

/// Something that happens at a moment.
pub(super) enum Happening {
    Deliver {
        message: Message,
        engine_start: u64,
        disk: u64,
    },
    Weather(Weather),
    /// The engine looks at everything.
    Turn {
        engine_start: u64,
        tick: bool,
    },
    EngineUp,
    RunnerUp {
        node: usize,
    },
    MachineUp {
        node: usize,
    },
    MachineDown {
        node: usize,
    },
    Heal {
        node: usize,
    },
    SyncDue {
        node: usize,
        epoch: u64,
    },
    SyncGivenUp {
        node: usize,
        number: (u64, u64),
    },
    Prepared {
        node: usize,
        epoch: u64,
        attempt: AttemptId,
    },
    Exits {
        node: usize,
        pid: u64,
        exit: Exit,
    },
    GraceOver {
        node: usize,
        epoch: u64,
        pid: u64,
    },
    Collected {
        node: usize,
        epoch: u64,
        attempt: AttemptId,
    },
    Fence {
        node: usize,
    },
    /// The weather clears for good.
    Clear,
}

/// What really came of an attempt, whatever anybody reports.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Truth {
    Lives,
    Over(Exit),
}

pub(super) struct World {
    pub(super) now: u64,
    queue: BinaryHeap<Reverse<(u64, u64)>>,
    happenings: BTreeMap<u64, Happening>,
    serial: u64,
    pub(super) dice: Dice,
    pub(super) climate: Climate,
    pub(super) cleared: Option<u64>,
    pub(super) mutant: Option<Mutant>,
    /// The database: survives everything.
    pub(super) log: BTreeMap<WorkloadId, Vec<(Event, Timestamp)>>,
    pub(super) submitted: BTreeMap<WorkloadId, Submitted>,
    pub(super) engine: Option<Engine>,
    /// How often an engine was started; marks what was sent to an earlier one.
    pub(super) engine_starts: u64,
    /// The engine crashes after this many more of its steps.
    pub(super) fuse: Option<u64>,
    pub(super) machines: Vec<Machine>,
    pub(super) truth: BTreeMap<AttemptId, Truth>,
    /// Attempts whose traces were lost with a disk.
    pub(super) wiped: BTreeSet<AttemptId>,
    /// How far the server's wall clock is off, in milliseconds.
    pub(super) clock_off_ms: i64,
    pub(super) pids: u64,
    /// Workloads whose log has grown in this step.
    pub(super) touched: BTreeSet<WorkloadId>,
    /// A process was started in this step.
    pub(super) spawned: bool,
    pub(super) trace: Trace,
    pub(super) story: Story,
}

impl World {
    pub(super) fn new(seed: u64, mutant: Option<Mutant>, traced: bool) -> Self {
        let mut dice = Dice::new(seed);
        let climate = Climate::draw(&mut dice);
        let machines = climate.machines(&mut dice);
        let mut world = Self {
            now: 0,
            queue: BinaryHeap::new(),
            happenings: BTreeMap::new(),
            serial: 0,
            dice,
            climate,
            cleared: None,
            mutant,
            log: BTreeMap::new(),
            submitted: BTreeMap::new(),
            engine: None,
            engine_starts: 0,
            fuse: None,
            machines,
            truth: BTreeMap::new(),
            wiped: BTreeSet::new(),
            clock_off_ms: 0,
            pids: 0,
            touched: BTreeSet::new(),
            spawned: false,
            trace: Trace::new(traced),
            story: Story::default(),
        };
        world.after(0, Happening::EngineUp);
        for node in 0..world.machines.len() {
            let delay = world.dice.below(200);
            world.after(delay, Happening::MachineUp { node });
        }
        world.draw_weather();
        world
    }

    /// Lets one thing happen after another until all is at rest, or something is broken.
    pub(super) fn run(&mut self) {
        while self.story.broken.is_none() {
            let Some(Reverse((at, serial))) = self.queue.pop() else {
                self.broken("nothing ever happens again", String::new());
                return;
            };
            let Some(happening) = self.happenings.remove(&serial) else {
                continue;
            };
            self.now = at;
            self.story.steps += 1;
            self.trace.digest(at);
            self.happen(happening);
            self.check_step();
            if let Some(cleared) = self.cleared {
                if self.at_rest() {
                    self.check_rest();
                    return;
                }
                if self.now > cleared + REST_MAX_MS || self.story.steps > STEPS_MAX {
                    self.check_rest();
                    return;
                }
            }
        }
    }

    fn happen(&mut self, happening: Happening) {
        match happening {
            Happening::Deliver {
                message,
                engine_start,
                disk,
            } => self.deliver(message, engine_start, disk),
            Happening::Weather(weather) => self.weather(weather),
            Happening::Turn { engine_start, tick } => self.turn_due(engine_start, tick),
            Happening::EngineUp => self.engine_up(),
            Happening::RunnerUp { node } => self.runner_up(node),
            Happening::MachineUp { node } => self.machine_up(node),
            Happening::MachineDown { node } => self.machine_down(node),
            Happening::Heal { node } => self.machines[node].partitioned = false,
            Happening::SyncDue { node, epoch } => self.sync_due(node, epoch),
            Happening::SyncGivenUp { node, number } => self.give_up_sync(node, number),
            Happening::Prepared {
                node,
                epoch,
                attempt,
            } => self.prepared(node, epoch, attempt),
            Happening::Exits { node, pid, exit } => self.exits(node, pid, exit),
            Happening::GraceOver { node, epoch, pid } => self.grace_over(node, epoch, pid),
            Happening::Collected {
                node,
                epoch,
                attempt,
            } => self.collected(node, epoch, attempt),
            Happening::Fence { node } => self.fence(node),
            Happening::Clear => self.clear(),
        }
    }

    /// Plans something for later.
    pub(super) fn after(&mut self, delay_ms: u64, happening: Happening) {
        self.serial += 1;
        self.queue.push(Reverse((self.now + delay_ms, self.serial)));
        self.happenings.insert(self.serial, happening);
    }

    /// Whether things still go wrong.
    pub(super) fn foul(&self) -> bool {
        self.cleared.is_none()
    }

    pub(super) fn has(&self, mutant: Mutant) -> bool {
        self.mutant == Some(mutant)
    }

    /// The server's wall clock, which jumps.
    pub(super) fn wall(&self) -> Timestamp {
        const BEGIN_MS: i64 = 1_800_000_000_000;
        let now = i64::try_from(self.now).unwrap_or(i64::MAX);
        Timestamp::from_millis(BEGIN_MS.saturating_add(now)).plus_millis(self.clock_off_ms)
    }

    /// `w3.1`, for people.
    pub(super) fn name(&self, attempt: AttemptId) -> String {
        let name = self
            .submitted
            .get(&attempt.workload)
            .map_or("?", |submitted| submitted.name.as_str());
        format!("{name}.{}", attempt.number)
    }

    /// Writes down what is broken; the first finding stays.
    pub(super) fn broken(&mut self, what: &'static str, detail: String) {
        if self.story.broken.is_none() {
            self.story.broken = Some(Broken {
                what,
                detail,
                at_ms: self.now,
            });
        }
    }

    pub(super) fn into_story(self) -> Story {
        let mut story = self.story;
        story.virtual_ms = self.now;
        story.digest = self.trace.digested();
        story.trace = self.trace.lines;
        story
    }
}
