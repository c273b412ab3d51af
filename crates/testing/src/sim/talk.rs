//! The server's side of the talk with runners: syncs, reports, orders.

use grid_core::id::AttemptId;
use grid_core::workload::{Command, Observed, Reconcile, Workload, reconcile};

use super::engine::{Contact, Crashed, Engine};
use super::limits::HOLD_MS;
use super::net::{Answer, Fact, Launch, Message, Phase, Sync};
use super::trace::say;
use super::world::World;
use crate::mutants::Mutant;

impl World {
    /// The attempts that are wanted on a node.
    pub(super) fn present_on(&self, engine: &Engine, node: usize) -> Vec<AttemptId> {
        let id = &self.machines[node].node.id;
        let present = engine.workloads.values().filter_map(|workload| {
            let attempt = workload.state.attempt()?;
            (attempt.placement.node == *id).then_some(AttemptId {
                workload: workload.id,
                number: attempt.number,
            })
        });
        present.collect()
    }

    /// Records what a node's last sync tells.
    pub(super) fn observe(&mut self, engine: &mut Engine, node: usize) -> Result<(), Crashed> {
        for attempt in self.present_on(engine, node) {
            let Some((observed, running)) = self.observed(&engine.contacts[node], attempt) else {
                continue;
            };
            let Some(workload) = engine.workloads.get(&attempt.workload) else {
                continue;
            };
            match reconcile(Some(&workload.state), &observed) {
                Reconcile::Report(end) => {
                    if self.has(Mutant::AcknowledgedBeforeCommitted)
                        && matches!(observed, Observed::Ended(_))
                    {
                        self.say_orders(engine, node, vec![], vec![], vec![attempt])?;
                    }
                    self.record(
                        engine,
                        attempt.workload,
                        &Command::Ended {
                            attempt: attempt.number,
                            end,
                        },
                    )?;
                }
                Reconcile::Leave if running => {
                    self.record(
                        engine,
                        attempt.workload,
                        &Command::Started {
                            attempt: attempt.number,
                        },
                    )?;
                }
                Reconcile::Leave | Reconcile::Launch | Reconcile::Stop | Reconcile::Forget => {}
            }
        }
        Ok(())
    }

    /// What is known of an attempt on a node, and whether its process runs;
    /// `None` when nothing is known.
    fn observed(&self, contact: &Contact, attempt: AttemptId) -> Option<(Observed, bool)> {
        let sync = if self.has(Mutant::ObservedTooEarly) {
            contact.spoken_before.as_ref()?
        } else {
            contact.spoken.as_ref()?
        };
        let phase = sync
            .have
            .iter()
            .find(|(had, _)| *had == attempt)
            .map(|(_, phase)| phase);
        match phase {
            Some(Phase::Ended(end)) => Some((Observed::Ended(end.clone()), false)),
            Some(Phase::Preparing) => Some((Observed::Alive, false)),
            Some(Phase::Running) => Some((Observed::Alive, true)),
            None => {
                // A launch that was ordered since then may be on its way.
                let told = !contact.ordered.contains(&attempt);
                (told || self.has(Mutant::AbsenceBelievedAtOnce))
                    .then_some((Observed::Nothing, false))
            }
        }
    }

    /// Answers a node's call, when there is something to say or it has waited long.
    pub(super) fn answer(&mut self, engine: &mut Engine, node: usize) -> Result<(), Crashed> {
        let mut launches = Vec::new();
        let mut stops = Vec::new();
        let mut forgets = Vec::new();
        let present = self.present_on(engine, node);
        for attempt in &present {
            let Some((observed, _)) = self.observed(&engine.contacts[node], *attempt) else {
                continue;
            };
            let Some(workload) = engine.workloads.get(&attempt.workload) else {
                continue;
            };
            match reconcile(Some(&workload.state), &observed) {
                Reconcile::Launch => launches.extend(self.launch(workload)),
                Reconcile::Stop => stops.push(*attempt),
                Reconcile::Leave | Reconcile::Report(_) | Reconcile::Forget => {}
            }
        }
        let have = engine.contacts[node]
            .spoken
            .as_ref()
            .map(|sync| sync.have.as_slice())
            .unwrap_or_default();
        for (attempt, phase) in have {
            if present.contains(attempt) {
                continue;
            }
            let observed = match phase {
                Phase::Ended(end) => Observed::Ended(end.clone()),
                Phase::Preparing | Phase::Running => Observed::Alive,
            };
            match reconcile(None, &observed) {
                Reconcile::Stop => stops.push(*attempt),
                Reconcile::Forget if !self.has(Mutant::NeverForget) => forgets.push(*attempt),
                _ => {}
            }
        }
        if self.has(Mutant::OrdersNotWithdrawn) {
            let contact = &mut engine.contacts[node];
            if contact.calls.is_none() {
                contact.kept.extend(launches);
                return Ok(());
            }
            launches.append(&mut contact.kept);
        }
        self.say_orders(engine, node, launches, stops, forgets)
    }

    /// The order to start a workload's present attempt.
    fn launch(&self, workload: &Workload) -> Option<Launch> {
        let attempt = workload.state.attempt()?;
        let script = self.submitted.get(&workload.id)?.script;
        let number = attempt.number;
        let placement = attempt.placement.clone();
        Some(Launch {
            attempt: AttemptId {
                workload: workload.id,
                number,
            },
            placement,
            script,
        })
    }

    fn say_orders(
        &mut self,
        engine: &mut Engine,
        node: usize,
        launches: Vec<Launch>,
        stops: Vec<AttemptId>,
        forgets: Vec<AttemptId>,
    ) -> Result<(), Crashed> {
        let contact = &mut engine.contacts[node];
        let Some((to, since)) = contact.calls else {
            return Ok(());
        };
        let nothing = launches.is_empty() && stops.is_empty() && forgets.is_empty();
        if nothing && self.now < since + HOLD_MS {
            return Ok(());
        }
        contact.calls = None;
        contact
            .ordered
            .extend(launches.iter().map(|launch| launch.attempt));
        self.point()?;
        let answer = Message::Answer(Answer {
            node,
            to,
            launches,
            stops,
            forgets,
        });
        say!(self, "engine {}", self.words(&answer));
        self.send(&answer);
        self.point()
    }

    /// A sync has arrived.
    pub(super) fn hear(&mut self, sync: Sync) {
        self.as_engine(|world, engine| {
            let node = sync.node;
            if let Some(last) = &engine.contacts[node].spoken {
                let (old_epoch, old_seq) = last.number;
                let (epoch, seq) = sync.number;
                let old = if world.has(Mutant::OldSyncIsNews) {
                    false
                } else if world.has(Mutant::EpochsNotOrdered) {
                    old_epoch == epoch && old_seq >= seq
                } else {
                    last.number >= sync.number
                };
                if old {
                    return Ok(());
                }
            }
            let machine = &world.machines[node];
            engine.board.set_node(machine.node.clone());
            engine.board.set_prefill(&machine.node.id, machine.prefill);
            let contact = &mut engine.contacts[node];
            contact.heard_at = world.now;
            contact.calls = Some((sync.number, world.now));
            contact.ordered.clear();
            contact.spoken_before = contact.spoken.replace(sync);
            world.wake(engine);
            Ok(())
        });
    }

    /// News of one attempt has arrived.
    pub(super) fn take_report(&mut self, attempt: AttemptId, fact: Fact) {
        self.as_engine(|world, engine| {
            let mut number = attempt.number;
            if world.has(Mutant::NoFenceOnReports)
                && let Some(workload) = engine.workloads.get(&attempt.workload)
                && let Some(present) = workload.state.attempt()
            {
                number = present.number;
            }
            let command = match fact {
                Fact::Started => Command::Started { attempt: number },
                Fact::Ended(end) => Command::Ended {
                    attempt: number,
                    end,
                },
            };
            world.record(engine, attempt.workload, &command)?;
            world.wake(engine);
            Ok(())
        });
    }
}
