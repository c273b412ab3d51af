//! What the server and the runners say to each other, and the network between.

use grid_core::cluster::Placement;
use grid_core::id::AttemptId;
use grid_core::workload::End;

use super::script::Script;
use super::trace::say;
use super::world::{Happening, World};

/// A message under way.
#[derive(Debug, Clone)]
pub(super) enum Message {
    /// A runner says what it has, and waits for orders.
    Sync(Sync),
    /// A runner tells of one attempt without waiting for its next sync.
    Report {
        node: usize,
        attempt: AttemptId,
        fact: Fact,
    },
    /// The answer to a sync.
    Answer(Answer),
}

/// What a runner has.
#[derive(Debug, Clone)]
pub(super) struct Sync {
    pub(super) node: usize,
    /// Which sync of this node: the start of the runner, then the sync of that start.
    pub(super) number: (u64, u64),
    pub(super) have: Vec<(AttemptId, Phase)>,
    /// The machine goes away: nothing new, please.
    pub(super) leaving: bool,
}

/// How far an attempt is, as the server is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Phase {
    Preparing,
    Running,
    Ended(End),
}

/// News of an attempt.
#[derive(Debug, Clone)]
pub(super) enum Fact {
    Started,
    Ended(End),
}

/// What a runner is to do.
#[derive(Debug, Clone)]
pub(super) struct Answer {
    pub(super) node: usize,
    /// The sync that this answers.
    pub(super) to: (u64, u64),
    pub(super) launches: Vec<Launch>,
    pub(super) stops: Vec<AttemptId>,
    pub(super) forgets: Vec<AttemptId>,
}

/// An order to start an attempt.
#[derive(Debug, Clone)]
pub(super) struct Launch {
    pub(super) attempt: AttemptId,
    pub(super) placement: Placement,
    pub(super) script: Script,
}

impl Message {
    pub(super) fn node(&self) -> usize {
        match self {
            Self::Sync(Sync { node, .. })
            | Self::Report { node, .. }
            | Self::Answer(Answer { node, .. }) => *node,
        }
    }
}

impl World {
    /// Hands a message to the network.
    pub(super) fn send(&mut self, message: &Message) {
        let copies = if self.foul() && self.dice.chance(self.climate.doubled_percent) {
            2
        } else {
            1
        };
        for _ in 0..copies {
            if self.foul() && self.dice.chance(self.climate.dropped_percent) {
                say!(self, "net    loses {}", self.words(message));
                continue;
            }
            let delay = if self.foul() && self.dice.chance(self.climate.late_percent) {
                self.dice.between(50, self.climate.late_max_ms)
            } else {
                self.dice.between(1, 20)
            };
            // A connection ends with the server: what was sent to one is not
            // read by the next.
            self.after(
                delay,
                Happening::Deliver {
                    message: message.clone(),
                    engine_start: self.engine_starts,
                    disk: self.machines[message.node()].disk.number,
                },
            );
        }
    }

    pub(super) fn deliver(&mut self, message: Message, engine_start: u64, disk: u64) {
        if self.machines[message.node()].disk.number != disk {
            // Nothing is under way for as long as it takes to replace a disk.
            return;
        }
        if self.machines[message.node()].partitioned {
            say!(self, "net    cut: {}", self.words(&message));
            return;
        }
        match message {
            Message::Answer(answer) => self.obey(answer),
            Message::Sync(_) | Message::Report { .. } if engine_start != self.engine_starts => {}
            Message::Sync(sync) => self.hear(sync),
            Message::Report { attempt, fact, .. } => self.take_report(attempt, fact),
        }
    }

    /// A message in words.
    pub(super) fn words(&self, message: &Message) -> String {
        let node = &self.machines[message.node()].node.id;
        match message {
            Message::Sync(sync) => {
                let have: Vec<String> = sync
                    .have
                    .iter()
                    .map(|(attempt, phase)| format!("{} {phase:?}", self.name(*attempt)))
                    .collect();
                format!("sync {:?} of {node}: {}", sync.number, have.join(", "))
            }
            Message::Report { attempt, fact, .. } => {
                format!("{node}: {} {fact:?}", self.name(*attempt))
            }
            Message::Answer(answer) => {
                let names = |list: &[AttemptId]| {
                    list.iter()
                        .map(|attempt| self.name(*attempt))
                        .collect::<Vec<_>>()
                        .join(" ")
                };
                let launches: Vec<AttemptId> = answer
                    .launches
                    .iter()
                    .map(|launch| launch.attempt)
                    .collect();
                format!(
                    "answer to {:?} of {node}: launch [{}] stop [{}] forget [{}]",
                    answer.to,
                    names(&launches),
                    names(&answer.stops),
                    names(&answer.forgets),
                )
            }
        }
    }
}
