//! What must hold, always and in the end.

use std::collections::BTreeSet;
use std::fmt;

use grid_core::id::{AttemptId, WorkloadId};
use grid_core::workload::{Event, Outcome, State, Status, Workload};

use super::engine::Engine;
use super::record::lost;
use super::script::Exit;
use super::world::{Truth, World};

/// A promise that was not kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Broken {
    /// Which one.
    pub what: &'static str,
    /// By what.
    pub detail: String,
    /// When, in virtual milliseconds.
    pub at_ms: u64,
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} at {}.{:03}: {}",
            self.what,
            self.at_ms / 1000,
            self.at_ms % 1000,
            self.detail
        )
    }
}

impl World {
    /// After each step.
    pub(super) fn check_step(&mut self) {
        if std::mem::take(&mut self.spawned) {
            self.check_processes();
        }
        if self.touched.is_empty() {
            return;
        }
        let touched = std::mem::take(&mut self.touched);
        for id in touched {
            self.check_log(id);
        }
        if let Some(engine) = self.engine.take() {
            self.check_board(&engine);
            self.engine = Some(engine);
        }
    }

    /// `state = fold(log)`, and one end for each beginning.
    fn check_log(&mut self, id: WorkloadId) {
        let log = &self.log[&id];
        self.trace.digest(log.len() as u64);
        let ends = log
            .iter()
            .filter(|(event, _)| matches!(event, Event::Finished { .. }))
            .count();
        let beginnings = log
            .iter()
            .filter(|(event, _)| matches!(event, Event::Created { .. } | Event::Retried))
            .count();
        let folded = Workload::fold(id, log.iter().map(|(event, at)| (event, *at)));
        let finished = matches!(folded.state, State::Finished { .. });
        if ends + usize::from(!finished) != beginnings {
            let name = self.submitted[&id].name.clone();
            self.broken(
                "not exactly one end recorded",
                format!("{name}: {ends} ends of {beginnings} beginnings"),
            );
        }
        let live = self
            .engine
            .as_ref()
            .and_then(|engine| engine.workloads.get(&id));
        if live.is_some_and(|live| *live != folded) {
            let name = self.submitted[&id].name.clone();
            self.broken("state is not the fold of the log", name);
        }
    }

    /// What the board holds is what the log says is held.
    fn check_board(&mut self, engine: &Engine) {
        let queued = engine
            .workloads
            .values()
            .filter(|w| w.state == State::Queued)
            .count();
        if engine.board.waiting_len() != queued {
            let waiting = engine.board.waiting_len();
            self.broken(
                "board drifted from the log",
                format!("{waiting} wait there, {queued} in the log"),
            );
        }
        for (machine, contact) in self.machines.iter().zip(&engine.contacts) {
            if contact.spoken.is_none() {
                continue;
            }
            let held: Vec<_> = engine
                .workloads
                .values()
                .filter_map(|workload| workload.state.attempt())
                .filter(|attempt| attempt.placement.node == machine.node.id)
                .collect();
            let cpus: u32 = held.iter().map(|attempt| attempt.placement.cpus).sum();
            let gpus: BTreeSet<u32> = held
                .iter()
                .flat_map(|attempt| attempt.placement.gpus.clone())
                .collect();
            let asked: usize = held
                .iter()
                .map(|attempt| attempt.placement.gpus.len())
                .sum();
            let (board, node) = (&engine.board, &machine.node.id);
            if board.cpus_used(node) != cpus || board.gpus_used(node) != gpus.len() {
                let said = format!(
                    "{} CPUs, {} GPUs",
                    board.cpus_used(node),
                    board.gpus_used(node)
                );
                let detail = format!(
                    "{node}: {said} there; {cpus} CPUs, {} GPUs in the log",
                    gpus.len()
                );
                self.broken("board drifted from the log", detail);
                return;
            }
            if asked != gpus.len() {
                self.broken("a GPU handed out twice", node.to_string());
                return;
            }
        }
    }

    /// What lives now fits, and lives once.
    fn check_processes(&mut self) {
        let mut workloads = BTreeSet::new();
        let mut finding = None;
        for machine in &self.machines {
            let mut gpus = BTreeSet::new();
            let mut cpus = 0;
            let mut memory_bytes = 0;
            for process in &machine.keeper.processes {
                cpus += process.placement.cpus;
                memory_bytes += process.placement.memory_bytes;
                if !workloads.insert(process.attempt.workload) {
                    finding = Some((
                        "two live processes of one workload",
                        self.name(process.attempt),
                    ));
                }
                for gpu in &process.placement.gpus {
                    if *gpu >= machine.node.gpus || !gpus.insert(*gpu) {
                        finding = Some((
                            "a GPU is used twice",
                            format!("{} of {}", gpu, machine.node.id),
                        ));
                    }
                }
            }
            if cpus > machine.node.cpus || memory_bytes > machine.node.memory_bytes {
                let detail = format!(
                    "{}: {cpus} of {} CPUs in use",
                    machine.node.id, machine.node.cpus
                );
                finding = finding.or(Some(("node oversubscribed", detail)));
            }
        }
        if let Some((what, detail)) = finding {
            self.broken(what, detail);
        }
    }

    /// A fact is about to be recorded: is it one?
    pub(super) fn check_fact(&mut self, workload: &Workload, event: &Event) {
        let Some(present) = workload.state.attempt() else {
            return;
        };
        let attempt = AttemptId {
            workload: workload.id,
            number: present.number,
        };
        let over = match event {
            Event::Requeued { .. } | Event::Finished { .. } | Event::Paused => true,
            Event::Created { .. }
            | Event::Placed { .. }
            | Event::Started { .. }
            | Event::StopRequested { .. }
            | Event::PauseRequested
            | Event::Resumed
            | Event::Retried => false,
        };
        if over && self.machines.iter().any(|machine| machine.runs(attempt)) {
            self.broken(
                "recorded as over while its process lives",
                format!("{}: {event:?}", self.name(attempt)),
            );
            return;
        }
        let truth = self.truth.get(&attempt).copied();
        if let Event::Finished {
            outcome: Outcome::Succeeded,
        } = event
            && truth != Some(Truth::Over(Exit::Code(0)))
        {
            self.broken(
                "a success that never happened",
                format!("{}: {truth:?}", self.name(attempt)),
            );
        }
        if let (Some(false), Some(Truth::Over(exit @ (Exit::Code(_) | Exit::Signal)))) =
            (lost(event), truth)
            && !self.wiped.contains(&attempt)
        {
            self.broken(
                "an end thrown away",
                format!(
                    "{} ended with {exit:?}, recorded as lost",
                    self.name(attempt)
                ),
            );
        }
    }

    /// A process is about to start: is it wanted?
    pub(super) fn check_start(&mut self, attempt: AttemptId) {
        if !self.is_present(attempt) {
            self.broken("a superseded attempt starts", self.name(attempt));
        } else if self.truth.contains_key(&attempt) && !self.wiped.contains(&attempt) {
            self.broken("an attempt runs twice", self.name(attempt));
        }
    }

    /// A runner is about to forget an attempt: has its end been recorded?
    pub(super) fn check_forget(&mut self, attempt: AttemptId) {
        if self.is_present(attempt) {
            self.broken("forgotten before its end was recorded", self.name(attempt));
        }
    }

    /// Whether the log has this attempt as the one under way.
    fn is_present(&self, attempt: AttemptId) -> bool {
        let Some(log) = self.log.get(&attempt.workload) else {
            return false;
        };
        let folded = Workload::fold(attempt.workload, log.iter().map(|(event, at)| (event, *at)));
        folded
            .state
            .attempt()
            .is_some_and(|present| present.number == attempt.number)
    }

    /// Whether nothing is left to do.
    pub(super) fn at_rest(&self) -> bool {
        let Some(engine) = &self.engine else {
            return false;
        };
        engine
            .workloads
            .values()
            .all(|workload| workload.state.finished_at().is_some())
            && self
                .machines
                .iter()
                .all(|machine| machine.keeper.processes.is_empty() && machine.disk.spool.is_empty())
    }

    /// At the end: nothing is left, anywhere.
    pub(super) fn check_rest(&mut self) {
        let Some(engine) = self.engine.take() else {
            self.broken("the engine does not come back", String::new());
            return;
        };
        for workload in engine.workloads.values() {
            self.touched.insert(workload.id);
            let what = match workload.state.status() {
                Status::Queued => "stuck waiting",
                Status::Pending => "stuck starting",
                Status::Running => "stuck running",
                Status::Stopping => "stuck stopping",
                Status::Paused => "left paused",
                Status::Succeeded | Status::Failed | Status::Stopped => continue,
            };
            self.broken(what, self.submitted[&workload.id].name.clone());
        }
        for node in 0..self.machines.len() {
            let machine = &self.machines[node];
            let id = machine.node.id.clone();
            if let Some(process) = machine.keeper.processes.first() {
                self.broken("a process is left over", self.name(process.attempt));
            } else if let Some(attempt) = machine.disk.spool.keys().next() {
                self.broken("a tombstone is kept for ever", self.name(*attempt));
            }
            if engine.board.cpus_used(&id) > 0
                || engine.board.gpus_used(&id) > 0
                || engine.board.waiting_len() > 0
            {
                self.broken("the board is not empty", id.to_string());
            }
        }
        self.engine = Some(engine);
        self.check_step();
    }
}
