//! The runner's side: calls, orders, processes.

use grid_core::id::AttemptId;
use grid_core::workload::End;

use super::limits::{SILENCE_MAX_MS, SYNC_TIMEOUT_MS};
use super::machine::{Runner, Spooled, Stage};
use super::net::{Answer, Launch, Message, Phase, Sync};
use super::script::Exit;
use super::trace::say;
use super::world::{Happening, Truth, World};
use crate::mutants::Mutant;

impl World {
    pub(super) fn machine_up(&mut self, node: usize) {
        let machine = &mut self.machines[node];
        if !machine.up {
            machine.up = true;
            let delay = self.dice.between(10, 1_000);
            self.after(delay, Happening::RunnerUp { node });
        }
    }

    /// The machine dies, and with it all that runs on it.
    pub(super) fn machine_down(&mut self, node: usize) {
        if !self.machines[node].up {
            return;
        }
        say!(self, "{} dies", self.machines[node].node.id);
        self.story.crashes += 1;
        let machine = &mut self.machines[node];
        machine.up = false;
        machine.runner = None;
        let keeper = std::mem::take(&mut machine.keeper);
        for process in keeper.processes {
            self.truth.insert(process.attempt, Truth::Over(Exit::Gone));
            if let Some(spooled) = machine.disk.spool.get_mut(&process.attempt) {
                spooled.stage = Stage::Collecting(Exit::Gone);
            }
        }
        let pause = self.dice.between(1_000, 60_000);
        self.after(pause, Happening::MachineUp { node });
    }

    /// The runner dies; processes live on with their keeper.
    pub(super) fn runner_down(&mut self, node: usize) {
        if self.machines[node].runner.take().is_none() {
            return;
        }
        say!(self, "runner of {} dies", self.machines[node].node.id);
        self.story.crashes += 1;
        if self.has(Mutant::SpoolForgotten) {
            self.machines[node].disk.spool.clear();
        }
        let pause = if self.dice.chance(70) {
            self.dice.between(10, 2_000)
        } else {
            self.dice.between(2_000, 60_000)
        };
        self.after(pause, Happening::RunnerUp { node });
    }

    /// A runner starts, and finds on disk and at the keeper what there is.
    pub(super) fn runner_up(&mut self, node: usize) {
        let machine = &mut self.machines[node];
        if !machine.up || machine.runner.is_some() {
            return;
        }
        // Rises also over the loss of a disk.
        machine.disk.epoch = (machine.disk.epoch + 1).max(self.now);
        let epoch = machine.disk.epoch;
        machine.runner = Some(Runner::default());
        let mut collecting = Vec::new();
        for (attempt, spooled) in &mut machine.disk.spool {
            match spooled.stage {
                Stage::Preparing => spooled.stage = Stage::Waiting,
                Stage::Collecting(_) => collecting.push((*attempt, spooled.script.collect_ms)),
                Stage::Waiting | Stage::Running | Stage::Ended(_) => {}
            }
        }
        say!(self, "runner of {} starts", self.machines[node].node.id);
        for (attempt, collect_ms) in collecting {
            self.after(
                collect_ms,
                Happening::Collected {
                    node,
                    epoch,
                    attempt,
                },
            );
        }
        self.plan_sync(node);
        self.pump(node);
    }

    /// Has the runner call soon.
    pub(super) fn plan_sync(&mut self, node: usize) {
        let epoch = self.machines[node].disk.epoch;
        let Some(runner) = &mut self.machines[node].runner else {
            return;
        };
        if !runner.sync_planned {
            runner.sync_planned = true;
            let delay = self.dice.between(5, 60);
            self.after(delay, Happening::SyncDue { node, epoch });
        }
    }

    pub(super) fn sync_due(&mut self, node: usize, epoch: u64) {
        let now = self.now;
        let machine = &mut self.machines[node];
        if machine.disk.epoch != epoch {
            return;
        }
        let Some(runner) = &mut machine.runner else {
            return;
        };
        runner.sync_planned = false;
        runner.seq += 1;
        runner.calling_since = Some(now);
        let number = (epoch, runner.seq);
        let leaving = runner.leaving;
        let have = machine.disk.spool.iter().map(|(attempt, spooled)| {
            let phase = match &spooled.stage {
                Stage::Waiting | Stage::Preparing => Phase::Preparing,
                Stage::Running | Stage::Collecting(_) => Phase::Running,
                Stage::Ended(end) => Phase::Ended(end.clone()),
            };
            (*attempt, phase)
        });
        let message = Message::Sync(Sync {
            node,
            number,
            have: have.collect(),
            leaving,
        });
        self.send(&message);
        self.after(SYNC_TIMEOUT_MS, Happening::SyncGivenUp { node, number });
    }

    pub(super) fn give_up_sync(&mut self, node: usize, number: (u64, u64)) {
        let machine = &mut self.machines[node];
        let Some(runner) = &mut machine.runner else {
            return;
        };
        if (machine.disk.epoch, runner.seq) == number && runner.calling_since.is_some() {
            runner.calling_since = None;
            self.plan_sync(node);
        }
    }

    /// An answer has arrived.
    pub(super) fn obey(&mut self, answer: Answer) {
        let now = self.now;
        let node = answer.node;
        let any = self.has(Mutant::OldAnswerObeyed);
        let from_arrival = self.has(Mutant::FenceFromArrival);
        let machine = &mut self.machines[node];
        let Some(runner) = &mut machine.runner else {
            return;
        };
        let mine = (machine.disk.epoch, runner.seq) == answer.to;
        if !mine && !any {
            return;
        }
        if mine && let Some(sent) = runner.calling_since.take() {
            let contact = if from_arrival { now } else { sent };
            runner.contact = Some(contact);
            let fence_at = contact + SILENCE_MAX_MS;
            if !machine.patient {
                machine.keeper.fence_at = Some(fence_at);
                self.after(fence_at.saturating_sub(now), Happening::Fence { node });
            }
        }
        for attempt in answer.stops {
            self.stop_attempt(node, attempt);
        }
        for attempt in answer.forgets {
            self.forget_attempt(node, attempt);
        }
        for launch in answer.launches {
            self.take_launch(node, launch);
        }
        self.pump(node);
        self.plan_sync(node);
    }

    fn take_launch(&mut self, node: usize, launch: Launch) {
        if self.machines[node].disk.spool.contains_key(&launch.attempt) {
            if self.has(Mutant::LaunchNotIdempotent) {
                let (epoch, attempt) = (self.machines[node].disk.epoch, launch.attempt);
                self.after(
                    launch.script.prepare_ms,
                    Happening::Prepared {
                        node,
                        epoch,
                        attempt,
                    },
                );
            }
            return;
        }
        let machine = &mut self.machines[node];
        let leaving = machine.runner.as_ref().is_some_and(|runner| runner.leaving);
        let stage = if leaving {
            Stage::Ended(End::Returned)
        } else {
            Stage::Waiting
        };
        machine.disk.arrivals += 1;
        let spooled = Spooled {
            arrival: machine.disk.arrivals,
            placement: launch.placement,
            script: launch.script,
            stage,
        };
        machine.disk.spool.insert(launch.attempt, spooled);
    }

    fn stop_attempt(&mut self, node: usize, attempt: AttemptId) {
        let Some(spooled) = self.machines[node].disk.spool.get(&attempt) else {
            return;
        };
        match spooled.stage {
            Stage::Waiting | Stage::Preparing => self.end_attempt(node, attempt, End::Stopped),
            Stage::Running if self.has(Mutant::KillNeverSent) => {}
            Stage::Running => {
                let Some(runner) = &mut self.machines[node].runner else {
                    return;
                };
                if runner.stopping.insert(attempt) {
                    self.terminate(node, attempt);
                }
            }
            Stage::Collecting(_) => {
                if let Some(runner) = &mut self.machines[node].runner {
                    runner.stopping.insert(attempt);
                }
            }
            Stage::Ended(_) => {}
        }
    }

    fn forget_attempt(&mut self, node: usize, attempt: AttemptId) {
        self.check_forget(attempt);
        let machine = &mut self.machines[node];
        if let Some(Spooled {
            stage: Stage::Ended(_),
            ..
        }) = machine.disk.spool.get(&attempt)
        {
            machine.disk.spool.remove(&attempt);
        }
        if let Some(runner) = &mut machine.runner {
            runner.stopping.remove(&attempt);
        }
    }
}
