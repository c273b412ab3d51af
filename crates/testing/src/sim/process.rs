//! The runner's processes: from the wait for CPUs to the end.

use grid_core::id::AttemptId;
use grid_core::workload::{End, Reason, ReasonCode};

use super::limits::{GRACE_MS, NOTICE_MS, SILENCE_MAX_MS};
use super::machine::{Process, Stage};
use super::net::{Fact, Message};
use super::script::Exit;
use super::trace::say;
use super::world::{Happening, Truth, World};
use crate::mutants::Mutant;

impl World {
    /// SIGTERM, and SIGKILL when the grace is over.
    pub(super) fn terminate(&mut self, node: usize, attempt: AttemptId) {
        let epoch = self.machines[node].disk.epoch;
        let Some(process) = self.machines[node]
            .keeper
            .processes
            .iter_mut()
            .find(|p| p.attempt == attempt)
        else {
            return;
        };
        let (pid, script) = (process.pid, process.script);
        let first = !process.termed;
        process.termed = true;
        say!(self, "{} gets SIGTERM", self.name(attempt));
        if first && !script.ignores_term {
            let exit = if script.saves {
                Exit::Code(0)
            } else {
                Exit::Signal
            };
            let delay = self.dice.between(50, 2_000);
            self.after(delay, Happening::Exits { node, pid, exit });
        }
        self.after(GRACE_MS, Happening::GraceOver { node, epoch, pid });
    }

    pub(super) fn grace_over(&mut self, node: usize, epoch: u64, pid: u64) {
        let machine = &self.machines[node];
        if machine.runner.is_some() && machine.disk.epoch == epoch {
            self.exits(node, pid, Exit::Signal);
        }
    }

    /// Whether the server has spoken recently enough for new processes.
    fn may_start(&self, node: usize) -> bool {
        let machine = &self.machines[node];
        let Some(runner) = &machine.runner else {
            return false;
        };
        machine.patient
            || self.has(Mutant::StartsWithoutContact)
            || runner
                .contact
                .is_some_and(|contact| self.now < contact + SILENCE_MAX_MS)
    }

    /// Begins what waits, in order, while there is room.
    pub(super) fn pump(&mut self, node: usize) {
        if !self.may_start(node) {
            return;
        }
        let epoch = self.machines[node].disk.epoch;
        loop {
            let machine = &self.machines[node];
            let waiting = machine
                .disk
                .spool
                .iter()
                .filter(|(_, spooled)| spooled.stage == Stage::Waiting);
            let Some((attempt, next)) = waiting.min_by_key(|(_, spooled)| spooled.arrival) else {
                return;
            };
            if !machine.could_take(&next.placement) {
                // The machine has become smaller since: somewhere else, then.
                let attempt = *attempt;
                self.end_attempt(node, attempt, End::Returned);
                return;
            }
            let fits = machine.cpus_used() + next.placement.cpus <= machine.node.cpus
                && machine.memory_used() + next.placement.memory_bytes <= machine.node.memory_bytes;
            if !fits && !self.has(Mutant::PrefilledRunUnchecked) {
                return;
            }
            let (attempt, prepare_ms) = (*attempt, next.script.prepare_ms);
            if let Some(spooled) = self.machines[node].disk.spool.get_mut(&attempt) {
                spooled.stage = Stage::Preparing;
            }
            self.after(
                prepare_ms,
                Happening::Prepared {
                    node,
                    epoch,
                    attempt,
                },
            );
        }
    }

    /// The environment of an attempt is there (or cannot be made): its process starts.
    pub(super) fn prepared(&mut self, node: usize, epoch: u64, attempt: AttemptId) {
        if self.machines[node].runner.is_none() || self.machines[node].disk.epoch != epoch {
            return;
        }
        let Some(spooled) = self.machines[node].disk.spool.get_mut(&attempt) else {
            return;
        };
        let again = self.mutant == Some(Mutant::LaunchNotIdempotent);
        if spooled.stage != Stage::Preparing && !again {
            return;
        }
        if spooled.script.build_fails {
            let reason = Reason {
                code: ReasonCode::Build,
                message: "no such package".to_owned(),
                exit_code: None,
            };
            self.end_attempt(node, attempt, End::Failed { reason });
            return;
        }
        spooled.stage = Stage::Running;
        let (placement, script) = (spooled.placement.clone(), spooled.script);
        self.pids += 1;
        let pid = self.pids;
        say!(
            self,
            "{} runs on {} as process {pid}",
            self.name(attempt),
            self.machines[node].node.id
        );
        self.check_start(attempt);
        self.machines[node].keeper.processes.push(Process {
            pid,
            attempt,
            placement,
            script,
            termed: false,
        });
        self.truth.insert(attempt, Truth::Lives);
        self.spawned = true;
        self.story.attempts += 1;
        if let Some(run_ms) = script.run_ms {
            let code = i32::from(self.dice.chance(script.fails_percent));
            self.after(
                run_ms,
                Happening::Exits {
                    node,
                    pid,
                    exit: Exit::Code(code),
                },
            );
        }
        self.send(&Message::Report {
            node,
            attempt,
            fact: Fact::Started,
        });
        self.plan_sync(node);
    }

    /// A process has ended; its keeper writes down how.
    pub(super) fn exits(&mut self, node: usize, pid: u64, exit: Exit) {
        let machine = &mut self.machines[node];
        let Some(index) = machine
            .keeper
            .processes
            .iter()
            .position(|process| process.pid == pid)
        else {
            return;
        };
        let process = machine.keeper.processes.swap_remove(index);
        let attempt = process.attempt;
        let epoch = machine.disk.epoch;
        self.truth.insert(attempt, Truth::Over(exit));
        if let Some(spooled) = machine.disk.spool.get_mut(&attempt) {
            spooled.stage = Stage::Collecting(exit);
        }
        say!(self, "{} ends: {exit:?}", self.name(attempt));
        self.after(
            process.script.collect_ms,
            Happening::Collected {
                node,
                epoch,
                attempt,
            },
        );
        self.pump(node);
    }

    /// All that an attempt left has been stored.
    pub(super) fn collected(&mut self, node: usize, epoch: u64, attempt: AttemptId) {
        let machine = &self.machines[node];
        let Some(runner) = &machine.runner else {
            return;
        };
        let Some(spooled) = machine.disk.spool.get(&attempt) else {
            return;
        };
        let Stage::Collecting(exit) = spooled.stage else {
            return;
        };
        if machine.disk.epoch != epoch {
            return;
        }
        let lost = |message: &str| End::Lost {
            message: message.to_owned(),
        };
        let failed = |code, exit_code| End::Failed {
            reason: Reason {
                code,
                message: "it failed".to_owned(),
                exit_code,
            },
        };
        let end = match exit {
            Exit::Fenced if self.has(Mutant::KilledCountsAsSuccess) => End::Succeeded,
            Exit::Fenced => lost("the server was out of reach"),
            Exit::Gone => lost("its machine went down"),
            Exit::Code(_) | Exit::Signal if runner.stopping.contains(&attempt) => End::Stopped,
            Exit::Signal if self.has(Mutant::KilledCountsAsSuccess) => End::Succeeded,
            Exit::Signal if runner.leaving => End::Interrupted,
            Exit::Signal => failed(ReasonCode::Signal, None),
            Exit::Code(0) if runner.leaving && spooled.script.saves => End::Interrupted,
            Exit::Code(0) => End::Succeeded,
            Exit::Code(code) => failed(ReasonCode::ExitCode, Some(code)),
        };
        self.end_attempt(node, attempt, end);
    }

    /// An attempt is over; the server is told until it lets it be forgotten.
    pub(super) fn end_attempt(&mut self, node: usize, attempt: AttemptId, end: End) {
        if let Some(spooled) = self.machines[node].disk.spool.get_mut(&attempt) {
            spooled.stage = Stage::Ended(end.clone());
        }
        self.send(&Message::Report {
            node,
            attempt,
            fact: Fact::Ended(end),
        });
        self.plan_sync(node);
        self.pump(node);
    }

    /// The keeper has not heard of the server for too long.
    pub(super) fn fence(&mut self, node: usize) {
        let machine = &mut self.machines[node];
        if machine.keeper.fence_at.is_none_or(|at| self.now < at) {
            return;
        }
        machine.keeper.fence_at = None;
        let runner_lives = machine.runner.is_some();
        if !runner_lives && self.has(Mutant::FenceOnlyInRunner) {
            return;
        }
        say!(
            self,
            "{} has not heard of the server for too long",
            self.machines[node].node.id
        );
        let pids: Vec<u64> = self.machines[node]
            .keeper
            .processes
            .iter()
            .map(|process| process.pid)
            .collect();
        for pid in pids {
            self.exits(node, pid, Exit::Fenced);
        }
        if runner_lives {
            self.give_back(node);
        }
    }

    /// Gives back what has not started.
    fn give_back(&mut self, node: usize) {
        let spool = &self.machines[node].disk.spool;
        let idle = |stage: &Stage| matches!(stage, Stage::Waiting | Stage::Preparing);
        let idle: Vec<AttemptId> = spool
            .iter()
            .filter(|(_, spooled)| idle(&spooled.stage))
            .map(|(attempt, _)| *attempt)
            .collect();
        for attempt in idle {
            self.end_attempt(node, attempt, End::Returned);
        }
    }

    /// The machine is told that it will go away.
    pub(super) fn notice(&mut self, node: usize) {
        let Some(runner) = &mut self.machines[node].runner else {
            return;
        };
        runner.leaving = true;
        say!(
            self,
            "{} is told that it goes away",
            self.machines[node].node.id
        );
        self.give_back(node);
        let running: Vec<AttemptId> = self.machines[node]
            .keeper
            .processes
            .iter()
            .map(|process| process.attempt)
            .collect();
        for attempt in running {
            self.terminate(node, attempt);
        }
        self.plan_sync(node);
        self.after(NOTICE_MS, Happening::MachineDown { node });
    }
}
