//! What goes wrong, and what people do meanwhile.
//!
//! Each story has a climate of its own: some never see a crash, some see nothing
//! else.  Bugs that need one thing often and another never are found that way.

use grid_core::cluster::{Need, Node};
use grid_core::id::{UserId, WorkloadId};
use grid_core::schedule::never_fits;
use grid_core::workload::{Command, Event, Kind, Policy, State};

use super::dice::Dice;
use super::limits::REST_MAX_MS;
use super::machine::{Disk, Keeper, Machine};
use super::script::{Script, Submitted};
use super::trace::say;
use super::world::{Happening, World};

/// When the weather clears, in virtual milliseconds.
const CLEAR_AT_MS: (u64, u64) = (40_000, 150_000);

/// How often people ask again for what has not been done, after the weather has cleared.
const ASK_AGAIN_MS: u64 = 20_000;

/// A thing that goes wrong, or that somebody wants.
#[derive(Debug, Clone, Copy)]
pub(super) enum Weather {
    Submit,
    Stop,
    Retry,
    Pause,
    Resume,
    EngineDies,
    RunnerDies,
    MachineDies,
    MachineNotice,
    Partition,
    ClockJumps,
    /// Sessions end only when somebody ends them.
    StopSessions,
}

/// How bad the weather of a story is.
pub(super) struct Climate {
    pub(super) dropped_percent: u64,
    pub(super) doubled_percent: u64,
    pub(super) late_percent: u64,
    pub(super) late_max_ms: u64,
    machines: u64,
    workloads: u64,
    sessions_percent: u64,
    wishes: u64,
    engine_crashes: u64,
    runner_crashes: u64,
    machine_crashes: u64,
    notices: u64,
    partitions: u64,
    clock_jumps: u64,
}

impl Climate {
    pub(super) fn draw(dice: &mut Dice) -> Self {
        let calm_network = dice.chance(30);
        let mut often = |max: u64| {
            if dice.chance(50) {
                dice.between(1, max)
            } else {
                0
            }
        };
        let net = |value: u64| if calm_network { 0 } else { value };
        Self {
            dropped_percent: net(often(30)),
            doubled_percent: net(often(30)),
            late_percent: net(often(30)),
            late_max_ms: 1_000 + often(40_000),
            wishes: often(16),
            sessions_percent: often(50),
            engine_crashes: often(5),
            runner_crashes: often(6),
            machine_crashes: often(4),
            notices: often(3),
            partitions: often(4),
            clock_jumps: often(4),
            machines: dice.between(1, 3),
            workloads: dice.between(2, 14),
        }
    }

    pub(super) fn machines(&self, dice: &mut Dice) -> Vec<Machine> {
        const GIB: u64 = 1 << 30;
        let mut machines = Vec::new();
        for number in 0..self.machines {
            let id = format!("node{number}")
                .parse()
                .unwrap_or_else(|_| unreachable!("a valid node name"));
            let gpus = if dice.chance(40) {
                u32::from(dice.chance(50)) + 1
            } else {
                0
            };
            let cpus = u32::try_from(dice.between(1, 4)).unwrap_or(1);
            let node = Node {
                id,
                cpus,
                gpus,
                memory_bytes: dice.between(1, 4) * GIB,
            };
            let prefill = if dice.chance(50) {
                u32::try_from(dice.between(1, 4)).unwrap_or(1)
            } else {
                0
            };
            machines.push(Machine {
                whole: node.clone(),
                node,
                patient: dice.chance(40),
                prefill,
                up: false,
                partitioned: false,
                runner: None,
                keeper: Keeper::default(),
                disk: Disk::default(),
            });
        }
        machines
    }
}

impl World {
    /// Draws all that will go wrong, and when.
    pub(super) fn draw_weather(&mut self) {
        let clear_at = self.dice.between(CLEAR_AT_MS.0, CLEAR_AT_MS.1);
        for _ in 0..self.climate.workloads {
            // Most come early, some together.
            let at = self.dice.below(clear_at * 2 / 3);
            let at = if self.dice.chance(50) { at / 8 } else { at };
            self.after(at, Happening::Weather(Weather::Submit));
        }
        for _ in 0..self.climate.wishes {
            let weather = match self.dice.below(10) {
                0..=4 => Weather::Stop,
                5..=6 => Weather::Retry,
                7 => Weather::Pause,
                _ => Weather::Resume,
            };
            self.sometime(clear_at, weather);
        }
        for _ in 0..self.climate.engine_crashes {
            self.sometime(clear_at, Weather::EngineDies);
        }
        for _ in 0..self.climate.runner_crashes {
            self.sometime(clear_at, Weather::RunnerDies);
        }
        for _ in 0..self.climate.machine_crashes {
            self.sometime(clear_at, Weather::MachineDies);
        }
        for _ in 0..self.climate.notices {
            self.sometime(clear_at, Weather::MachineNotice);
        }
        for _ in 0..self.climate.partitions {
            self.sometime(clear_at, Weather::Partition);
        }
        for _ in 0..self.climate.clock_jumps {
            self.sometime(clear_at, Weather::ClockJumps);
        }
        self.after(clear_at, Happening::Clear);
    }

    fn sometime(&mut self, before: u64, weather: Weather) {
        let at = self.dice.below(before);
        self.after(at, Happening::Weather(weather));
    }

    pub(super) fn weather(&mut self, weather: Weather) {
        let node = self.dice.index(self.machines.len());
        match weather {
            Weather::Submit => self.somebody_submits(),
            Weather::Stop => self.somebody_wishes(&Command::Stop { by: None }),
            Weather::Retry => self.somebody_wishes(&Command::Retry),
            Weather::Pause => self.somebody_wishes(&Command::Pause),
            Weather::Resume => self.somebody_wishes(&Command::Resume),
            // Somewhere in what it does next.
            Weather::EngineDies => self.fuse = Some(self.dice.below(12)),
            Weather::RunnerDies => self.runner_down(node),
            Weather::MachineDies => {
                self.machine_down(node);
                match self.dice.below(5) {
                    0 => self.comes_back_smaller(node),
                    1 => self.comes_back_empty(node),
                    _ => {}
                }
            }
            Weather::MachineNotice => self.notice(node),
            Weather::Partition => {
                self.machines[node].partitioned = true;
                say!(self, "net    {} is cut off", self.machines[node].node.id);
                let length = self.dice.between(500, 60_000);
                self.after(length, Happening::Heal { node });
            }
            Weather::ClockJumps => {
                const DAY_MS: u64 = 86_400_000;
                let by = i64::try_from(self.dice.below(2 * DAY_MS)).unwrap_or(0) - 86_400_000;
                self.clock_off_ms = by;
                say!(self, "clock  jumps to {by} ms off");
            }
            Weather::StopSessions => self.stop_sessions(),
        }
    }

    /// A part of a dead machine is not mended before the weather clears.
    fn comes_back_smaller(&mut self, node: usize) {
        let machine = &mut self.machines[node];
        if machine.up || self.cleared.is_some() {
            return;
        }
        let whole = &machine.whole;
        machine.node.cpus = u32::try_from(self.dice.between(1, u64::from(whole.cpus))).unwrap_or(1);
        machine.node.gpus = u32::try_from(self.dice.below(u64::from(whole.gpus) + 1)).unwrap_or(0);
        say!(
            self,
            "{} comes back with {} CPUs",
            machine.node.id,
            machine.node.cpus
        );
    }

    /// A dead machine comes back with another disk.
    fn comes_back_empty(&mut self, node: usize) {
        if self.machines[node].up {
            return;
        }
        say!(
            self,
            "{} comes back with an empty disk",
            self.machines[node].node.id
        );
        let old = std::mem::take(&mut self.machines[node].disk);
        self.machines[node].disk.number = old.number + 1;
        self.wiped.extend(old.spool.into_keys());
    }

    fn somebody_submits(&mut self) {
        let number = self.submitted.len();
        let id = WorkloadId::from_parts(self.wall(), number as u128);
        let kind = if self.dice.chance(self.climate.sessions_percent) {
            Kind::Session
        } else {
            Kind::Experiment
        };
        let created = Event::Created {
            workload: kind,
            policy: Policy {
                losses_max: u32::try_from(self.dice.below(5)).unwrap_or(0),
                retries: u32::try_from(self.dice.below(3)).unwrap_or(0),
                auto_resume: self.dice.chance(50),
            },
        };
        let dice = &mut self.dice;
        let short = dice.chance(50);
        let script = Script {
            prepare_ms: dice.between(1, if short { 300 } else { 8_000 }),
            run_ms: (kind == Kind::Experiment)
                .then(|| dice.between(1, if short { 2_000 } else { 40_000 })),
            collect_ms: dice.between(1, if short { 50 } else { 3_000 }),
            fails_percent: if dice.chance(30) { 50 } else { 0 },
            build_fails: dice.chance(5),
            ignores_term: dice.chance(20),
            saves: dice.chance(30),
        };
        let need = self.draw_need();
        let owner = UserId::from_entropy(u128::from(self.dice.below(3)));
        let name = format!("w{number}");
        self.submit(
            id,
            Submitted {
                kind,
                owner,
                need,
                script,
                name,
            },
            &created,
        );
    }

    /// Something that fits somewhere; what does not is refused at the door.
    fn draw_need(&mut self) -> Need {
        const MEMORY: u64 = 512 << 20;
        let dice = &mut self.dice;
        let need = Need {
            cpus: u32::try_from(if dice.chance(10) {
                0
            } else {
                dice.between(1, 4)
            })
            .unwrap_or(1),
            gpus: u32::try_from(if dice.chance(30) {
                dice.between(1, 2)
            } else {
                0
            })
            .unwrap_or(0),
            memory_bytes: if dice.chance(50) {
                0
            } else {
                dice.between(1, 6) * MEMORY
            },
        };
        let refused =
            never_fits(&need, self.machines.iter().map(|machine| &machine.node)).is_some();
        if refused {
            Need {
                cpus: 1,
                gpus: 0,
                memory_bytes: 0,
            }
        } else {
            need
        }
    }

    fn somebody_wishes(&mut self, command: &Command) {
        let index = self.dice.index(self.log.len());
        let Some(id) = self.log.keys().nth(index).copied() else {
            return;
        };
        say!(
            self,
            "user   wants {command:?} of {}",
            self.submitted[&id].name
        );
        self.wish(id, command);
    }

    fn stop_sessions(&mut self) {
        let Some(cleared) = self.cleared else { return };
        if let Some(engine) = &self.engine {
            let open = engine.workloads.values().filter(|workload| {
                self.submitted[&workload.id].kind == Kind::Session
                    && !matches!(workload.state, State::Finished { .. })
            });
            let open: Vec<WorkloadId> = open.map(|workload| workload.id).collect();
            for id in open {
                self.wish(id, &Command::Stop { by: None });
            }
        }
        if self.now < cleared + REST_MAX_MS / 2 {
            self.after(ASK_AGAIN_MS, Happening::Weather(Weather::StopSessions));
        }
    }

    /// The weather clears for good.
    pub(super) fn clear(&mut self) {
        say!(self, "the weather clears");
        self.cleared = Some(self.now);
        self.fuse = None;
        for machine in &mut self.machines {
            machine.partitioned = false;
            machine.node = machine.whole.clone();
        }
        self.stop_sessions();
    }
}
