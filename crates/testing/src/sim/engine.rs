//! The server's side: the turn, the syncs, and the one way to record.
//!
//! What is here is memory; [`World::log`] is the database.  Each
//! [`World::point`] is a place at which the process may die.

use std::collections::{BTreeMap, BTreeSet};

use grid_core::id::{AttemptId, WorkloadId};
use grid_core::schedule::Board;
use grid_core::workload::{Command, End, Workload};

use super::limits::{CLOSE_AFTER_MS, HOLD_MS, LOST_AFTER_MS, PLACED_MAX, TICK_MS};
use super::net::{Launch, Sync};
use super::trace::say;
use super::world::{Happening, World};
use crate::mutants::Mutant;

/// The reason of a loss that rests on silence alone.
pub(super) const SILENT: &str = "its node is silent";

/// The engine's process died here.
pub(super) struct Crashed;

/// What an engine knows; rebuilt from the log at each start.
pub(super) struct Engine {
    pub(super) workloads: BTreeMap<WorkloadId, Workload>,
    pub(super) board: Board,
    pub(super) contacts: Vec<Contact>,
    turn_planned: bool,
}

/// What an engine knows of a node.
#[derive(Default)]
pub(super) struct Contact {
    /// When its last sync arrived; the start of the engine, before the first.
    pub(super) heard_at: u64,
    /// What it said last.
    pub(super) spoken: Option<Sync>,
    /// What it said before that; for a planted bug.
    pub(super) spoken_before: Option<Sync>,
    /// The call that waits for an answer, and since when.
    pub(super) calls: Option<((u64, u64), u64)>,
    /// Launches ordered since the last news.
    pub(super) ordered: BTreeSet<AttemptId>,
    /// Orders that a planted bug keeps.
    pub(super) kept: Vec<Launch>,
}

impl World {
    pub(super) fn engine_up(&mut self) {
        self.engine_starts += 1;
        let mut engine = Engine {
            workloads: BTreeMap::new(),
            board: Board::default(),
            contacts: Vec::new(),
            turn_planned: false,
        };
        for _ in &self.machines {
            let heard_at = if self.has(Mutant::SilenceCountedOverRestart) {
                0
            } else {
                self.now
            };
            engine.contacts.push(Contact {
                heard_at,
                ..Contact::default()
            });
        }
        for (id, log) in &self.log {
            let workload = Workload::fold(*id, log.iter().map(|(event, at)| (event, *at)));
            engine.workloads.insert(*id, workload);
        }
        let ids: Vec<WorkloadId> = engine.workloads.keys().copied().collect();
        for id in ids {
            self.seat(&mut engine, id);
        }
        say!(
            self,
            "engine starts, with {} workloads",
            engine.workloads.len()
        );
        self.engine = Some(engine);
        self.after(
            0,
            Happening::Turn {
                engine_start: self.engine_starts,
                tick: true,
            },
        );
    }

    /// The engine's process is killed.
    pub(super) fn engine_down(&mut self) {
        say!(self, "engine dies");
        self.engine = None;
        self.fuse = None;
        self.story.crashes += 1;
        let pause = self.dice.between(20, 20_000);
        self.after(pause, Happening::EngineUp);
        // The runners' calls break with it.
        for node in 0..self.machines.len() {
            let machine = &self.machines[node];
            if let (false, Some(runner)) = (machine.partitioned, &machine.runner) {
                let number = (machine.disk.epoch, runner.seq);
                let noticed = self.dice.between(20, 500);
                self.after(noticed, Happening::SyncGivenUp { node, number });
            }
        }
    }

    /// Does something as the engine; the engine may die of it.
    pub(super) fn as_engine(
        &mut self,
        act: impl FnOnce(&mut Self, &mut Engine) -> Result<(), Crashed>,
    ) {
        let Some(mut engine) = self.engine.take() else {
            return;
        };
        match act(self, &mut engine) {
            Ok(()) => self.engine = Some(engine),
            Err(Crashed) => self.engine_down(),
        }
    }

    /// A place at which the engine may die.
    pub(super) fn point(&mut self) -> Result<(), Crashed> {
        match &mut self.fuse {
            Some(0) => Err(Crashed),
            Some(left) => {
                *left -= 1;
                Ok(())
            }
            None => Ok(()),
        }
    }

    /// Has the engine look soon.
    pub(super) fn wake(&mut self, engine: &mut Engine) {
        if !engine.turn_planned {
            engine.turn_planned = true;
            let delay = self.dice.between(1, 10);
            self.after(
                delay,
                Happening::Turn {
                    engine_start: self.engine_starts,
                    tick: false,
                },
            );
        }
    }

    pub(super) fn turn_due(&mut self, engine_start: u64, tick: bool) {
        if engine_start != self.engine_starts || self.engine.is_none() {
            return;
        }
        if tick {
            self.after(TICK_MS, Happening::Turn { engine_start, tick });
        }
        self.as_engine(|world, engine| {
            engine.turn_planned = false;
            world.turn(engine)
        });
    }

    /// One turn: what has ended, what goes where, and then the orders.
    fn turn(&mut self, engine: &mut Engine) -> Result<(), Crashed> {
        self.point()?;
        for node in 0..self.machines.len() {
            self.count_silence(engine, node)?;
            self.observe(engine, node)?;
        }
        let planned = engine.board.plan(self.wall(), PLACED_MAX);
        if planned.len() == PLACED_MAX {
            self.wake(engine);
        }
        self.point()?;
        for place in planned {
            self.record(engine, place.id, &Command::Place(place.placement))?;
        }
        for node in 0..self.machines.len() {
            self.answer(engine, node)?;
        }
        Ok(())
    }

    /// What follows from a node's silence.
    fn count_silence(&mut self, engine: &mut Engine, node: usize) -> Result<(), Crashed> {
        let contact = &engine.contacts[node];
        let silent = self.now.saturating_sub(contact.heard_at);
        let leaving = contact.spoken.as_ref().is_none_or(|sync| sync.leaving);
        let id = self.machines[node].node.id.clone();
        engine
            .board
            .set_closed(&id, leaving || silent >= CLOSE_AFTER_MS);
        let hasty = self.has(Mutant::SilenceIsLoss) && silent > HOLD_MS + TICK_MS;
        if hasty || (!self.machines[node].patient && silent >= LOST_AFTER_MS) {
            for attempt in self.present_on(engine, node) {
                let end = End::Lost {
                    message: SILENT.to_owned(),
                };
                self.record(
                    engine,
                    attempt.workload,
                    &Command::Ended {
                        attempt: attempt.number,
                        end,
                    },
                )?;
            }
        }
        Ok(())
    }
}
