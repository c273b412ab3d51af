//! The whole machine as a table, made by asking it: for the docs and the golden test.

use super::machine::{
    Attempt, Command, End, Goal, Kind, Policy, Reason, ReasonCode, Refusal, State, Workload,
};
use crate::cluster::Placement;
use crate::id::WorkloadId;
use crate::time::Timestamp;

/// Every state × command, as Markdown: the event and the status after it.
pub fn transition_table() -> String {
    let mut text = String::from(
        "# What a command means in each state\n\n\
         `event → status after it` · `·` obeyed, nothing to do · `✗` refused: not now · \
         `stale` refused: about an attempt that is not the present one\n",
    );
    for (kind, title) in [
        (Kind::Experiment, "Experiments"),
        (Kind::Session, "Sessions"),
    ] {
        text.push_str(&format!("\n## {title}\n\n| state |"));
        for (name, _) in commands() {
            text.push_str(&format!(" {name} |"));
        }
        text.push_str("\n| --- |");
        text.push_str(&" --- |".repeat(commands().len()));
        text.push('\n');
        for (name, state) in states(kind) {
            text.push_str(&format!("| **{name}** |"));
            for (_, command) in commands() {
                text.push_str(&format!(" {} |", cell(kind, &state, &command)));
            }
            text.push('\n');
        }
    }
    text.push_str(
        "\nThe table is drawn with one loss and no retry allowed and without `--auto_resume`. \
         Attempt numbers always rise; a lost attempt counts against the losses, a failed one \
         against `--retries`, one that was interrupted or given back counts against neither.\n",
    );
    text
}

fn cell(kind: Kind, state: &State, command: &Command) -> String {
    let mut workload = sample(kind, state.clone());
    match workload.decide(command) {
        Ok(events) if events.is_empty() => "·".to_owned(),
        Ok(events) => {
            let mut names = Vec::new();
            for event in &events {
                workload.apply(event, Timestamp::from_millis(1));
                let json = serde_json::to_value(event).unwrap_or_default();
                names.push(json["kind"].as_str().unwrap_or("?").to_owned());
            }
            format!("{} → {}", names.join(", "), workload.state.status())
        }
        Err(Refusal::Stale(_)) => "stale".to_owned(),
        Err(Refusal::NotNow(_)) => "✗".to_owned(),
        Err(Refusal::NotASession) => "✗ (sessions only)".to_owned(),
    }
}

fn sample(kind: Kind, state: State) -> Workload {
    Workload {
        id: WorkloadId::from_parts(Timestamp::from_millis(0), 0),
        kind,
        policy: Policy {
            losses_max: 1,
            retries: 0,
            auto_resume: false,
        },
        attempts: u32::from(state.attempt().is_some()),
        state,
        losses: 0,
        failures: 0,
        created_at: Timestamp::from_millis(0),
        started_at: None,
        again: None,
    }
}

fn placement() -> Placement {
    let node = "local"
        .parse()
        .unwrap_or_else(|_| unreachable!("a valid node name"));
    Placement {
        node,
        cpus: 1,
        gpus: vec![],
        memory_bytes: 0,
    }
}

fn states(kind: Kind) -> Vec<(&'static str, State)> {
    let attempt = || Attempt {
        number: 1,
        placement: placement(),
    };
    let at = Timestamp::from_millis(0);
    let finish = Goal::Finish { by: None };
    let mut states = vec![
        ("Queued", State::Queued),
        ("Starting", State::Starting { attempt: attempt() }),
        (
            "Running",
            State::Running {
                attempt: attempt(),
                since: at,
            },
        ),
        (
            "Stopping",
            State::Stopping {
                attempt: attempt(),
                goal: finish,
            },
        ),
    ];
    if kind == Kind::Session {
        states.push((
            "Stopping, to pause",
            State::Stopping {
                attempt: attempt(),
                goal: Goal::Pause,
            },
        ));
        states.push(("Paused", State::Paused));
    }
    let outcome = super::machine::Outcome::Succeeded;
    states.push(("Finished: succeeded", State::Finished { outcome, at }));
    let outcome = super::machine::Outcome::Stopped { by: None };
    states.push((
        "Finished: failed or stopped",
        State::Finished { outcome, at },
    ));
    states
}

fn commands() -> Vec<(&'static str, Command)> {
    let reason = Reason {
        code: ReasonCode::ExitCode,
        message: String::new(),
        exit_code: Some(1),
    };
    let ended = |end| Command::Ended { attempt: 1, end };
    vec![
        ("Place", Command::Place(placement())),
        ("Started", Command::Started { attempt: 1 }),
        ("Ended: succeeded", ended(End::Succeeded)),
        ("Ended: failed", ended(End::Failed { reason })),
        (
            "Ended: lost",
            ended(End::Lost {
                message: String::new(),
            }),
        ),
        ("Ended: interrupted", ended(End::Interrupted)),
        ("Ended: returned", ended(End::Returned)),
        ("Ended: stopped", ended(End::Stopped)),
        ("Stop", Command::Stop { by: None }),
        ("Pause", Command::Pause),
        ("Resume", Command::Resume),
        ("Retry", Command::Retry),
    ]
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_table_is_the_one_that_was_agreed() {
        insta::assert_snapshot!(super::transition_table());
    }
}
