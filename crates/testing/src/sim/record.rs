//! The one way in which a workload changes: decide, commit, fold, seat.

use grid_core::id::WorkloadId;
use grid_core::schedule::Waiter;
use grid_core::workload::{Command, Event, Outcome, ReasonCode, Refusal, State, Why, Workload};

use super::engine::{Crashed, Engine, SILENT};
use super::script::Submitted;
use super::trace::say;
use super::world::World;
use crate::mutants::Mutant;

impl World {
    /// Somebody submits something.
    pub(super) fn submit(&mut self, id: WorkloadId, submitted: Submitted, created: &Event) {
        self.as_engine(|world, engine| {
            world.point()?;
            let at = world.wall();
            say!(
                world,
                "user   submits {}: {:?}",
                submitted.name,
                submitted.need
            );
            world.submitted.insert(id, submitted);
            world.log.insert(id, vec![(created.clone(), at)]);
            world.touched.insert(id);
            world.point()?;
            engine
                .workloads
                .insert(id, Workload::created(id, created, at));
            world.seat(engine, id);
            world.wake(engine);
            Ok(())
        });
    }

    /// Somebody wants something of a workload.
    pub(super) fn wish(&mut self, id: WorkloadId, command: &Command) {
        self.as_engine(|world, engine| {
            world.record(engine, id, command)?;
            world.wake(engine);
            Ok(())
        });
    }

    /// The one way in which a workload changes: decide, commit, fold.
    pub(super) fn record(
        &mut self,
        engine: &mut Engine,
        id: WorkloadId,
        command: &Command,
    ) -> Result<(), Crashed> {
        let Some(workload) = engine.workloads.get(&id) else {
            return Ok(());
        };
        let events = match self.decide(workload, command) {
            Ok(events) => events,
            Err(refusal) => {
                say!(
                    self,
                    "engine refuses {command:?} of {}: {refusal}",
                    self.submitted[&id].name
                );
                return Ok(());
            }
        };
        for event in events {
            self.point()?;
            let at = self.wall();
            self.check_fact(&engine.workloads[&id], &event);
            say!(self, "log    {}: {event:?}", self.submitted[&id].name);
            self.log.entry(id).or_default().push((event.clone(), at));
            self.story.events += 1;
            self.touched.insert(id);
            self.point()?;
            let requeued = matches!(event, Event::Requeued { .. });
            if let Some(workload) = engine.workloads.get_mut(&id) {
                workload.apply(&event, at);
            }
            if !(requeued && self.has(Mutant::BoardNotGivenBack)) {
                self.seat(engine, id);
            }
        }
        Ok(())
    }

    fn decide(&self, workload: &Workload, command: &Command) -> Result<Vec<Event>, Refusal> {
        if self.has(Mutant::WrongEventForStopOfQueued)
            && let (State::Queued, Command::Stop { by }) = (&workload.state, command)
        {
            return Ok(vec![Event::StopRequested { by: *by }]);
        }
        workload.decide(command)
    }

    /// Brings the board up to date with one workload.
    pub(super) fn seat(&self, engine: &mut Engine, id: WorkloadId) {
        let (Some(workload), Some(submitted)) =
            (engine.workloads.get(&id), self.submitted.get(&id))
        else {
            return;
        };
        let board = &mut engine.board;
        match &workload.state {
            State::Queued => board.wait(Waiter {
                id,
                owner: submitted.owner,
                since: workload.created_at,
                need: submitted.need.clone(),
            }),
            State::Stopping { .. } if self.has(Mutant::StoppingHoldsNothing) => board.forget(id),
            State::Starting { attempt }
            | State::Running { attempt, .. }
            | State::Stopping { attempt, .. } => {
                board.hold(id, submitted.owner, attempt.placement.clone());
            }
            State::Paused | State::Finished { .. } => board.forget(id),
        }
    }
}

/// Whether an event says that an attempt was lost, and whether by silence alone.
pub(super) fn lost(event: &Event) -> Option<bool> {
    let message = match event {
        Event::Requeued {
            why: Why::Lost { message },
            ..
        } => message,
        Event::Finished {
            outcome: Outcome::Failed { reason },
        } if reason.code == ReasonCode::Lost => &reason.message,
        _ => return None,
    };
    Some(message.starts_with(SILENT))
}
